/* fuzz_run.c - bytes as a run of the index.
 *
 *   flags (1), then the file itself, or (EDITS) changes of a good run: place (3), byte (1), ...
 *
 * With SEAL the blocks' checksums are made right, so that what stands behind them is reached. Then
 * nothing must crash, or go on for ever. Without it a good run that was changed answers as it did or
 * with an error: it never gives a posting that the memory it was made from does not have. */
#include "index/index_state.h"
#include "index/postings.h"
#include "os/os_sim.h"
#include "fuzz/must.h"

#include <stdio.h>
#include <stdlib.h>

enum { SEAL = 1, EDITS = 2 };

#define NAME      "0000000001-0000000001.run"
#define FILE_MAX  (1u << 20)
#define EVENTS    4000u
#define TERMS     40u

static uint8_t good[FILE_MAX], file[FILE_MAX];
static size_t good_size;
static struct memory_run *oracle;
static const struct index_hashing hashing = {7, UINT64_MAX};

/* Streams of all lengths, one in every event, and a name that goes over blocks. */
static struct index_term term_number(uint64_t n, char room[6000])
{
    int size = snprintf(room, 6000, "stream-%llu", (unsigned long long)n);
    if (n == 3) {
        memset(room + size, 'x', 5000);
        size += 5000;
    }
    return term_make(hashing, INDEX_STREAM, (deed_bytes){(uint8_t *)room, (size_t)size},
                     (deed_bytes){0});
}

static void make_good(void)
{
    struct os_sim *sim = os_sim_create(1, NULL);
    struct os_dir *dir = NULL;
    struct block_cache *cache = block_cache_create(1 << 20);
    struct index *index = NULL;
    const uint8_t hash[32] = {1};
    char room[6000];
    uint64_t revisions[TERMS] = {0};
    must(os_dir_open(os_sim_os(sim), "/data", true, &dir, NULL) == DEED_OK, "a directory");
    struct index_options options = {
        .os = os_sim_os(sim), .dir = dir, .cache = cache, .hash_seed = hashing.seed};
    must(index_open(&options, &index, NULL) == DEED_OK, "an index");
    must(index_roll(index, 1, 0, hash, NULL) == DEED_OK, "a segment");
    oracle = memory_run_create(0);
    for (uint64_t p = 1; p <= EVENTS; p++) {
        uint64_t n = p % 2 == 0 ? 0 : p * p % 31 % TERMS;
        struct index_term term = term_number(n, room);
        struct index_event e = {.stream = {room, term.head.len},
                                .type = DEED_STR("T"),
                                .position = p,
                                .revision = revisions[n]++};
        put_uint(e.id.bytes, p, 8);
        must(index_add_event(index, &e, NULL) == DEED_OK, "an event");
        must(memory_run_add(oracle, &term, p, 0), "an event");
    }
    must(index_roll(index, 2, EVENTS, hash, NULL) == DEED_OK, "another segment");
    while (index_step(index, NULL) == ACTOR_AGAIN) continue;
    struct os_dir *runs = NULL;
    struct os_file *f = NULL;
    must(os_dir_open_in(dir, "index", false, &runs, NULL) == DEED_OK, "its folder");
    must(os_file_open(runs, NAME, OS_READ, &f, NULL) == DEED_OK, "its run");
    must(os_file_read(f, 0, good, sizeof good, &good_size, NULL) == DEED_OK, "its bytes");
    must(good_size > 0 && good_size < sizeof good, "its size");
    os_file_close(f);
    os_dir_close(runs);
    index_close(index);
    block_cache_destroy(cache);
    os_dir_close(dir);
    os_sim_destroy(sim);
}

static size_t make_file(const uint8_t *data, size_t size, uint8_t flags)
{
    size_t out = 0;
    if (flags & EDITS) {
        memcpy(file, good, good_size);
        out = good_size;
        for (size_t i = 0; i + 4 <= size; i += 4) {
            size_t at = (size_t)data[i] | (size_t)data[i + 1] << 8 | (size_t)data[i + 2] << 16;
            file[at % out] = data[i + 3];
        }
    } else {
        out = (size + BLOCK_SIZE - 1) / BLOCK_SIZE * BLOCK_SIZE;
        if (out > sizeof file) out = size = sizeof file;
        memset(file, 0, out);
        memcpy(file, data, size);
    }
    if ((flags & SEAL) == 0 || out == 0) return out;
    static const uint8_t no_id[16];
    size_t footer = out / BLOCK_SIZE - 1;
    uint8_t run_id[16];
    memcpy(run_id, file + footer * BLOCK_SIZE + 32, 16);
    for (size_t i = 0; i <= footer; i++) {
        uint8_t *block = file + i * BLOCK_SIZE;
        put_uint(block + RUN_PAYLOAD_SIZE, run_block_crc(i == footer ? no_id : run_id, i, block), 4);
    }
    return out;
}

static void compare(uint64_t wanted, uint64_t given, bool faithful)
{
    if (faithful) must(wanted == given, "a changed run gives another answer");
}

/* Ask for a term in all ways. `faithful`: what is answered must be the oracle's. */
static void ask(struct run_file *run, uint64_t n, bool faithful)
{
    char room[6000];
    uint64_t group[RUN_GROUP];
    struct index_term term = term_number(n, room);
    const struct memory_list *list = memory_run_find(oracle, &term);
    struct run_entry entry = {0};
    uint64_t wanted = memory_list_count(list, UINT64_MAX);
    bool found = false;
    if (run_file_find(run, &term, &found, &entry, NULL) != DEED_OK) return;
    compare(wanted, found ? entry.count : 0, faithful);
    if (!found) return;
    entry.group = group;
    for (uint64_t p = 0; p <= EVENTS + 1; p += 97) {
        uint64_t count = 0;
        if (run_entry_count(run, &entry, p, &count, NULL) != DEED_OK) continue;
        compare(memory_list_count(list, p), count, faithful);
        must(count <= entry.count, "more than there are");
    }
    for (uint64_t i = 0; i < entry.count && i < 100000; i += 1 + entry.count / 50) {
        uint64_t position = 0;
        if (run_entry_at(run, &entry, i, &position, NULL) != DEED_OK) continue;
        if (faithful) compare(memory_list_at(list, i), position, true);
    }
}

static void scan_all(struct run_file *run)
{
    struct run_check *check = NULL;
    if (run_check_create(run, 0, &check, NULL) != DEED_OK) return;
    while (run_check_step(check, NULL) == DEED_OK) continue;
    run_check_destroy(check);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (good_size == 0) make_good();
    if (size == 0) return 0;
    uint8_t flags = data[0];
    size_t file_size = make_file(data + 1, size - 1, flags);
    struct os_sim *sim = os_sim_create(1, NULL);
    struct block_cache *cache = block_cache_create(1 << 18);
    struct os_dir *dir = NULL;
    struct os_file *f = NULL;
    struct run_file *run = NULL;
    bool loaded;
    must(os_dir_open(os_sim_os(sim), "/data", true, &dir, NULL) == DEED_OK, "a directory");
    must(os_file_open(dir, NAME, OS_WRITE | OS_CREATE, &f, NULL) == DEED_OK, "a file");
    must(os_file_write(f, 0, (deed_bytes){file, file_size}, NULL) == DEED_OK, "its bytes");
    os_file_close(f);
    if (run_file_open(dir, NAME, cache, &run, NULL) == DEED_OK) {
        bool faithful = (flags & SEAL) == 0 && (flags & EDITS) != 0;
        if (flags & 4) (void)!run_file_load_filter(run, &loaded, NULL);
        for (uint64_t n = 0; n < TERMS; n++) ask(run, n, faithful);
        scan_all(run);
        run_file_close(run);
    }
    os_dir_close(dir);
    block_cache_destroy(cache);
    os_sim_destroy(sim);
    return 0;
}
