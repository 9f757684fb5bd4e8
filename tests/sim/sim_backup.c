/* sim_backup.c - backups of a store that is written, sealed and rewritten, on a machine made from a
 * seed that fails and loses power meanwhile; and restores of them, as unlucky.
 *
 *     sim_backup [COUNT]         that many seeds, from 1 (default SIM_SEEDS, else 600)
 *     sim_backup --seed N        one seed, telling what it does
 *
 * A seed draws its own mix of faults and work. Most see faults that may cost nothing; every fourth
 * sees those that damage what is stored or read. The world goes on in what it has restored, now and
 * then, so one backup directory sees several epochs. Checked:
 *
 * (1) A backup that was called done, or any newer one, is there and whole, whatever happened since.
 * (2) What it holds is the log up to its position: each event, its place and its content, and the
 *     chain's hash.
 * (3) A directory into which a restore did not succeed is refused, or it is as whole as if it had.
 * (4) Each restore begins an epoch that there was never before.
 * (5) With the faults over, the next backup and the next restore succeed.
 * (6) Where stored bytes were damaged, a backup and a restore may be refused. What is called done is
 *     right all the same. */
#include "base/hash.h"
#include "os/os_sim.h"
#include "store/backup.h"
#include "store/store_state.h"
#include "sim/sim_main.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define TARGET       "/backup"
#define EVENTS_MAX   2000
#define STREAMS      4
#define DATA_MAX     9000
#define RESTORES_MAX 32

struct world {
    uint64_t seed;
    bool verbose, harmful;
    struct os_sim *sim;
    struct store *store;
    char directory[32];
    unsigned directory_count;
    struct os_sim_faults faults;

    uint64_t word_count;             /* drawn so far: an event's data is its number, and filler */
    uint64_t word_at[EVENTS_MAX];    /* by position; 0: not known */
    uint8_t hash_at[EVENTS_MAX][32]; /* of the chain, where a commit ended; zeros: not known */
    uint64_t end;                    /* newest position that was acknowledged or seen */

    uint64_t done_epoch, done_position; /* of the newest backup that was called done */
    uint64_t epochs[RESTORES_MAX];
    size_t epoch_count;
    bool damaged; /* the store itself: the rest of this life says nothing */
};

static struct world w;

static uint64_t pick(uint64_t limit)
{
    return os_sim_pick(w.sim, limit);
}

#define say(...)                                                                                   \
    do {                                                                                           \
        if (w.verbose) printf(__VA_ARGS__), printf("\n");                                          \
    } while (0)

#define broken(...)                                                                                \
    do {                                                                                           \
        printf("seed %" PRIu64 ": ", w.seed);                                                      \
        printf(__VA_ARGS__);                                                                       \
        printf("\n  %s\n  replay: sim_backup --seed %" PRIu64 "\n", os_sim_describe(w.sim),        \
               w.seed);                                                                            \
        exit(1);                                                                                   \
    } while (0)

/* ---- events --------------------------------------------------------------------------------- */

/* The data of word n: its number, then filler of a length that the number says. */
static deed_bytes word_data(uint64_t n, char out[DATA_MAX])
{
    int size = snprintf(out, DATA_MAX, "\"%" PRIu64 " ", n);
    size_t wanted = (size_t)size + (n % 7 == 0 ? n * 131 % 8000 : n % 40);
    memset(out + size, 'a' + (char)(n % 26), wanted - (size_t)size);
    out[wanted] = '"';
    return (deed_bytes){(const uint8_t *)out, wanted + 1};
}

static void word_stream(uint64_t n, char out[16])
{
    (void)snprintf(out, 16, "s-%d", (int)(n % STREAMS));
}

/* Take the chain's hash, which stands for all up to the end. */
static void note_end(void)
{
    struct deed_info info;
    store_info(w.store, &info);
    if (info.position > w.end) w.end = info.position;
    if (info.position < EVENTS_MAX) memcpy(w.hash_at[info.position], info.chain_hash, 32);
}

static void append(void)
{
    static char data[DATA_MAX];
    char stream[16];
    struct deed_error err;
    struct deed_appended appended;
    if (w.end + 2 >= EVENTS_MAX) return;
    uint64_t n = ++w.word_count;
    word_stream(n, stream);
    struct deed_new_event event = {.stream = deed_str_of(stream),
                                   .type = DEED_STR("Said"),
                                   .data = word_data(n, data)};
    struct deed_append a = {.events = &event, .event_count = 1};
    if (store_append(w.store, &a, &appended, &err) != DEED_OK) return;
    w.word_at[appended.position] = n;
    note_end();
}

/* Read all of a store and compare: what is known must be that, up to `end`; what comes behind it was
 * in doubt, and is known from now on. */
static void compare(struct store *store, uint64_t end, bool learn, const char *what)
{
    static char wanted[DATA_MAX];
    struct deed_read_options all = {.filter.system = true};
    struct deed_cursor *cursor = NULL;
    struct deed_event e;
    struct deed_error err;
    uint64_t next = 1;
    deed_status status = store_read(store, &all, &cursor, &err);
    if (status != DEED_OK) broken("%s: read: %s", what, err.message);
    for (; (status = cursor_next(cursor, &e, &err)) == DEED_OK; next++) {
        if (e.position != next) broken("%s: position %d instead of %d", what, (int)e.position, (int)next);
        if (next == 1) continue;
        uint64_t n = strtoull((const char *)e.data.ptr + 1, NULL, 10);
        deed_bytes data = word_data(n, wanted);
        bool same = n > 0 && n <= w.word_count && data.len == e.data.len &&
                    memcmp(data.ptr, e.data.ptr, data.len) == 0;
        bool known = next < EVENTS_MAX && w.word_at[next] != 0;
        if (!same || (known && w.word_at[next] != n)) {
            broken("%s: position %d holds other content", what, (int)next);
        }
        if (learn) w.word_at[next] = n;
    }
    cursor_close(cursor);
    if (status != DEED_END) broken("%s: position %d: %s", what, (int)next, err.message);
    if (next <= end) broken("%s: ends at %d instead of %d", what, (int)next - 1, (int)end);
}

/* ---- the store's life ----------------------------------------------------------------------- */

static void faults_on(void)
{
    os_sim_set_faults(w.sim, &w.faults);
}

static void faults_off(void)
{
    struct os_sim_faults none = os_sim_faults_crash();
    os_sim_heal(w.sim);
    os_sim_power_off_after(w.sim, DEED_NONE);
    os_sim_set_faults(w.sim, &none);
}

static void open_store(void)
{
    struct store_options options = {.no_threads = true, .segment_size = 64 << 10};
    struct deed_error err;
    struct deed_info info;
    faults_off();
    deed_status status = store_open(os_sim_os(w.sim), w.directory, &options, &w.store, &err);
    if (status != DEED_OK && w.harmful) {
        w.damaged = true;
        return;
    }
    if (status != DEED_OK) broken("open: %s", err.message);
    store_info(w.store, &info);
    /* Damage, or a loss by syncs that lied: this store tells nothing any more. */
    if (w.harmful && (!info.writable || info.position < w.end)) {
        w.damaged = true;
        return;
    }
    struct store_verify_report report;
    status = store_verify(w.store, NULL, NULL, NULL, &report, &err);
    if (status != DEED_OK && w.harmful) {
        w.damaged = true;
        return;
    }
    compare(w.store, w.end, true, "the store");
    note_end();
}

static void close_store(void)
{
    store_close(w.store);
    w.store = NULL;
}

static void die(void)
{
    bool kill = pick(4) == 0;
    say("%s at position %d", kill ? "killed" : "power off", (int)w.end);
    if (kill && os_sim_powered(w.sim)) {
        os_sim_kill(w.sim);
    } else {
        os_sim_crash(w.sim);
    }
    close_store();
    open_store();
}

static void care(void)
{
    struct log *log = w.store->log;
    uint64_t segments = log_segment_count(log);
    struct log_rewrite how = {.compress_level = (int)pick(2) * 3};
    switch (pick(3)) {
    case 0:
        (void)!log_roll(log, NULL);
        break;
    case 1:
        (void)!log_rewrite(log, 1 + (uint32_t)pick(segments), &how, NULL);
        break;
    default:
        for (uint64_t i = pick(60); i > 0; i--) (void)store_step(w.store);
        break;
    }
    os_sim_advance(w.sim, pick(100000000));
}

/* ---- backups -------------------------------------------------------------------------------- */

/* While one is made the store gets on. */
static bool get_on(void *context, uint64_t done, uint64_t all)
{
    (void)context, (void)done, (void)all;
    if (pick(3) == 0) append();
    if (pick(4) == 0) care();
    return pick(400) != 0;
}

static void arm(void)
{
    static const enum os_sim_op ops[] = {OS_SIM_ANY, OS_SIM_WRITE, OS_SIM_SYNC, OS_SIM_READ};
    switch (pick(4)) {
    case 0:
        os_sim_power_off_after(w.sim, pick(120));
        break;
    case 1:
        os_sim_fail(w.sim, ops[pick(4)], 1 + pick(60), pick(2) == 0 ? 0 : DEED_NONE,
                    pick(3) == 0 ? ENOSPC : EIO);
        break;
    default:
        break;
    }
}

static void back_up(bool lucky)
{
    struct deed_backup_options how = {.quick = pick(4) == 0, .progress = lucky ? NULL : get_on};
    struct deed_backup_report report;
    struct deed_error err;
    struct deed_info info;
    if (!lucky) arm();
    deed_status status = store_backup(w.store, TARGET, &how, &report, &err);
    say("backup: %s", status == DEED_OK ? "done" : err.message);
    if (status != DEED_OK) {
        if (lucky && !w.harmful) broken("the backup fails: %s", err.message); /* (5) */
        return;
    }
    store_info(w.store, &info);
    bool known = report.position < EVENTS_MAX && report.position <= info.position &&
                 memcmp(report.chain_hash, w.hash_at[report.position], 32) == 0;
    if (!known) broken("the backup is of position %d, with another hash", (int)report.position);
    w.done_epoch = report.epoch;
    w.done_position = report.position;
}

/* (1), (2), (6): is a backup there, and is it right? Its position; 0: there is none. */
static uint64_t check_backup(void)
{
    struct deed_backup_report report;
    struct deed_error err;
    faults_off();
    deed_status status =
        store_check_backup(os_sim_os(w.sim), TARGET, NULL, NULL, NULL, &report, &err);
    if (status == DEED_NOT_FOUND && w.done_position == 0) return 0;
    if (status != DEED_OK && w.harmful) return 0;
    if (status != DEED_OK) broken("the backup of position %d: %s", (int)w.done_position, err.message);
    bool older = report.epoch < w.done_epoch ||
                 (report.epoch == w.done_epoch && report.position < w.done_position);
    if (older && !w.harmful) broken("an older backup is back: position %d", (int)report.position);
    return older ? 0 : report.position;
}

/* ---- restores ------------------------------------------------------------------------------- */

static void note_epoch(uint64_t epoch)
{
    for (size_t i = 0; i < w.epoch_count; i++) {
        if (w.epochs[i] == epoch) broken("epoch %" PRIu64 " was there before", epoch); /* (4) */
    }
    if (w.epoch_count < RESTORES_MAX) w.epochs[w.epoch_count++] = epoch;
}

/* (2), (3): what can be opened there is all of the backup. false: it is refused. */
static bool expect_whole(const char *directory, uint64_t position, bool done)
{
    struct store_options options = {.no_threads = true, .must_exist = true, .read_only = true};
    struct store *restored = NULL;
    struct deed_error err;
    struct deed_info info;
    deed_status status = store_open(os_sim_os(w.sim), directory, &options, &restored, &err);
    if (status != DEED_OK) {
        if (done && !w.harmful) broken("restored, but: %s", err.message);
        return false;
    }
    store_info(restored, &info);
    bool whole = info.position == position && info.corrupt_first == DEED_NONE;
    if (!whole && !w.harmful) {
        broken("%s ends at %d instead of %d", directory, (int)info.position, (int)position);
    }
    if (whole && memcmp(info.chain_hash, w.hash_at[position], 32) != 0) {
        broken("%s has another hash at %d", directory, (int)position);
    }
    if (whole) compare(restored, position, false, "the restored store");
    if (whole && done) note_epoch(info.epoch);
    store_close(restored);
    return whole;
}

static void restore(void)
{
    char directory[32];
    struct deed_error err;
    struct deed_backup_report report;
    uint64_t position = check_backup();
    if (position == 0) return;
    (void)snprintf(directory, sizeof directory, "/data%u", ++w.directory_count);
    os_sim_advance(w.sim, 1000000 + pick(1000000000));

    faults_on();
    arm();
    deed_status status =
        store_restore(os_sim_os(w.sim), TARGET, directory, NULL, &report, &err);
    say("restore to %s: %s", directory, status == DEED_OK ? "done" : err.message);
    bool done = status == DEED_OK;
    if (!os_sim_powered(w.sim) || pick(2) == 0) die();
    if (w.damaged) return;
    faults_off();
    if (!expect_whole(directory, position, done)) {
        os_sim_advance(w.sim, 1000000);
        if (check_backup() == 0) return; /* damaged meanwhile */
        status = store_restore(os_sim_os(w.sim), TARGET, directory, NULL, &report, &err);
        if (status != DEED_OK && w.harmful) return;
        if (status != DEED_OK) broken("the restore fails: %s", err.message); /* (5) */
        done = true;
        if (!expect_whole(directory, position, true)) return;
    }
    if (!done || pick(2) == 0) return;

    /* Life goes on from there; what was behind is forgotten. */
    say("on in %s from position %d", directory, (int)position);
    close_store();
    (void)snprintf(w.directory, sizeof w.directory, "%s", directory);
    memset(w.word_at + position + 1, 0, (EVENTS_MAX - position - 1) * sizeof w.word_at[0]);
    memset(w.hash_at + position + 1, 0, (EVENTS_MAX - position - 1) * sizeof w.hash_at[0]);
    w.end = position;
    open_store();
}

/* ---- a seed --------------------------------------------------------------------------------- */

static void draw_faults(void)
{
    static const enum os_sim_fault harmless[] = {OS_SIM_READ_ERROR, OS_SIM_WRITE_ERROR,
                                                 OS_SIM_SYNC_ERROR, OS_SIM_DISK_FULL, OS_SIM_SLOW,
                                                 OS_SIM_SHORT_WRITE};
    static const enum os_sim_fault harmful[] = {OS_SIM_LYING_SYNC, OS_SIM_BIT_ROT,
                                                OS_SIM_STRAY_WRITE, OS_SIM_STRAY_READ,
                                                OS_SIM_STALE_READ};
    w.faults = os_sim_faults_crash();
    for (size_t i = 0; i < sizeof harmless / sizeof harmless[0]; i++) {
        if (pick(3) == 0) w.faults.ppm[harmless[i]] = (uint32_t)pick(4000);
    }
    for (size_t i = 0; w.harmful && i < sizeof harmful / sizeof harmful[0]; i++) {
        if (pick(2) == 0) w.faults.ppm[harmful[i]] = (uint32_t)pick(10000);
    }
}

static void live(void)
{
    for (uint64_t acts = 10 + pick(30); acts > 0 && !w.damaged; acts--) {
        struct deed_info info;
        faults_on();
        switch (pick(8)) {
        case 0:
        case 1:
            for (uint64_t i = 1 + pick(20); i > 0; i--) append();
            break;
        case 2:
        case 3:
            care();
            break;
        case 4:
        case 5:
            back_up(false);
            if (pick(2) == 0) die();
            break;
        case 6:
            restore();
            break;
        default:
            die();
            break;
        }
        if (w.damaged) return;
        store_info(w.store, &info);
        if (!os_sim_powered(w.sim) || !info.writable) die();
        if (!w.damaged) (void)check_backup();
    }
}

static void run_seed(uint64_t seed, bool verbose)
{
    w = (struct world){.seed = seed, .verbose = verbose, .harmful = seed % 4 == 0};
    w.sim = os_sim_create(seed, NULL);
    (void)snprintf(w.directory, sizeof w.directory, "/data");
    w.epochs[w.epoch_count++] = 1;
    draw_faults();
    open_store();
    live();
    if (!w.damaged) {
        faults_off();
        back_up(true);
        restore();
    }
    close_store();
    os_sim_destroy(w.sim);
}

int main(int argc, char **argv)
{
    return sim_main(argc, argv, 600, run_seed);
}
