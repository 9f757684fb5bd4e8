/* The main function of a simulator: seeds from 1 on, so many as its argument or SIM_SEEDS say, or one
 * seed, telling what it does: --seed N. */
#ifndef SIM_SIM_MAIN_H
#define SIM_SIM_MAIN_H

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static inline int sim_main(int argc, char **argv, uint64_t count_default,
                           void (*run_seed)(uint64_t seed, bool tells))
{
    if (argc == 3 && strcmp(argv[1], "--seed") == 0) {
        run_seed(strtoull(argv[2], NULL, 10), true);
        printf("seed %s: good\n", argv[2]);
        return 0;
    }
    const char *wanted = argc > 1 ? argv[1] : getenv("SIM_SEEDS");
    uint64_t count = wanted != NULL ? strtoull(wanted, NULL, 10) : count_default;
    for (uint64_t seed = 1; seed <= count; seed++) run_seed(seed, false);
    printf("%" PRIu64 " seeds, good\n", count);
    return 0;
}

#endif
