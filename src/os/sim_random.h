/* sim_random.h - numbers from a seed: the same on every machine, for ever.
 *
 * xoshiro256** (Blackman and Vigna, 2018), its state filled by splitmix64. Not for secrets. Each
 * user has a stream of its own, so that one more draw here does not change every decision there. */
#ifndef OS_SIM_RANDOM_H
#define OS_SIM_RANDOM_H

#include <stdbool.h>
#include <stdint.h>

struct sim_random {
    uint64_t state[4];
};

/* One step of splitmix64: also a fair hash of a 64-bit number. */
static inline uint64_t sim_mix(uint64_t x)
{
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static inline struct sim_random sim_random_of(uint64_t seed, uint64_t stream)
{
    struct sim_random r;
    uint64_t x = sim_mix(seed) ^ sim_mix(~stream);
    for (int i = 0; i < 4; i++)
        r.state[i] = x = sim_mix(x);
    return r;
}

static inline uint64_t sim_random_next(struct sim_random *r)
{
    uint64_t *s = r->state;
    uint64_t fives = s[1] * 5;
    uint64_t out = (fives << 7 | fives >> 57) * 9;
    uint64_t shifted = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= shifted;
    s[3] = s[3] << 45 | s[3] >> 19;
    return out;
}

/* Below `limit`, which is not 0. The remainder's bias, under 2^-32 for limits a test uses, does
 * not matter here. */
static inline uint64_t sim_random_below(struct sim_random *r, uint64_t limit)
{
    return sim_random_next(r) % limit;
}

/* True so many times in a million. */
static inline bool sim_random_chance(struct sim_random *r, uint32_t ppm)
{
    return sim_random_below(r, 1000000) < ppm;
}

#endif
