/* fuzz_marks.c - bytes as the marks, or as the list of accepted losses, beside a good log: they may
 * stop it, but never change what it says.
 *
 *   flags (1), then the file; with the flag SEAL its checksums are made right. */
#include "fuzz/fuzz_log.h"

#include "base/rw.h"
#include "log/losses.h"
#include "log/mark.h"

enum { SEAL = 1, LOSSES = 2, DAMAGED = 4, OWN_ID = 8 };

#define EVENTS 4
#define SEGMENT_SIZE_MAX (64u << 10)

static uint8_t segment[SEGMENT_SIZE_MAX];
static size_t segment_size;
static deed_uuid id;

/* The log that all runs share: made once, by the store itself. */
static void make_log(void)
{
    struct os_sim *sim = os_sim_create(1, NULL);
    struct store *store = must_open(os_sim_os(sim), false);
    must(store != NULL, "a new store opens");
    for (int i = 0; i < EVENTS; i++) (void)must_append(store);
    struct deed_info info;
    store_info(store, &info);
    id = info.log_id;
    store_close(store);
    struct os_dir *dir = NULL;
    struct os_file *file = NULL;
    must(os_dir_open(os_sim_os(sim), FUZZ_ROOT "/log", false, &dir, NULL) == DEED_OK, "its folder");
    must(os_file_open(dir, "0000000001.seg", OS_READ, &file, NULL) == DEED_OK, "its segment");
    must(os_file_read(file, 0, segment, sizeof segment, &segment_size, NULL) == DEED_OK, "its bytes");
    os_file_close(file);
    os_dir_close(dir);
    os_sim_destroy(sim);
}

static void seal_slot(uint8_t *slot, uint8_t flags)
{
    static const uint8_t magic[12] = {'D', 'E', 'E', 'D', 'M', 'R', 'K', '\n'};
    memcpy(slot, magic, 8);
    put_uint(slot + 12, 1, 4);
    if (flags & OWN_ID) memcpy(slot + 16, id.bytes, 16);
    put_uint(slot + 8, crc32c(0, (deed_bytes){slot + 12, 108}), 4);
}

static void seal_losses(uint8_t *file, size_t size, uint8_t flags)
{
    static const uint8_t magic[12] = {'D', 'E', 'E', 'D', 'L', 'O', 'S', '\n'};
    if (size < 40) return;
    memcpy(file, magic, 8);
    put_uint(file + 12, 1, 4);
    if (flags & OWN_ID) memcpy(file + 16, id.bytes, 16);
    put_uint(file + 8, crc32c(0, (deed_bytes){file + 12, size - 12}), 4);
}

/* Small inputs say enough: 120 bytes a slot, the rest of a slot is zeros. */
static void put_marks(struct os *os, const uint8_t *bytes, size_t size, uint8_t flags)
{
    uint8_t file[2 * SECTOR_SIZE] = {0};
    size_t first = size < 120 ? size : 120;
    size_t second = size - first < 120 ? size - first : 120;
    memcpy(file, bytes, first);
    memcpy(file + SECTOR_SIZE, bytes + first, second);
    if (flags & SEAL) {
        seal_slot(file, flags);
        seal_slot(file + SECTOR_SIZE, flags);
    }
    file_put(os, MARK_FILE, (deed_bytes){file, sizeof file});
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    if (size == 0 || size > 4096) return 0;
    if (segment_size == 0) make_log();
    uint8_t flags = bytes[0];
    uint8_t file[4096];
    memcpy(file, bytes + 1, size - 1);
    struct os_sim *sim = os_sim_create(1, NULL);
    struct os *os = os_sim_os(sim);

    if (flags & DAMAGED) segment[3 * SECTOR_SIZE + 120] ^= 1; /* one event is lost */
    file_put(os, "0000000001.seg", (deed_bytes){segment, segment_size});
    if (flags & DAMAGED) segment[3 * SECTOR_SIZE + 120] ^= 1;
    if (flags & LOSSES) {
        if (flags & SEAL) seal_losses(file, size - 1, flags);
        file_put(os, LOSSES_FILE, (deed_bytes){file, size - 1});
    } else {
        put_marks(os, file, size - 1, flags);
    }

    struct store *store = must_open(os, false);
    if (store != NULL) {
        uint64_t lost = 0;
        uint64_t count = must_read(store, &lost);
        uint64_t kept = EVENTS + ((flags & DAMAGED) == 0);
        must(count == kept, "all that is there is served, and nothing else");
        struct deed_info info;
        store_info(store, &info);
        must((flags & DAMAGED) == 0 || lost > 0, "what is lost is told");
        bool accepting = (flags & LOSSES) != 0;
        must(!info.writable || lost == 0 || accepting, "nobody accepted the loss");
        if (info.writable) (void)must_append(store);
        store_close(store);
        store = must_open(os, false);
        must(store != NULL, "what opened once opens again");
        store_close(store);
    }
    os_sim_destroy(sim);
    return 0;
}
