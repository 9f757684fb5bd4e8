/* os_sim.h - a machine made from a seed, for tests.
 *
 *     struct os_sim *sim = os_sim_create(seed, NULL);
 *     … run the engine on os_sim_os(sim), close it …
 *     os_sim_crash(sim);
 *     … open it again: what was not synced is lost, torn, scrambled or there, as the seed says …
 *     os_sim_destroy(sim);
 *
 * The same seed and the same calls give the same machine, to the byte. Its clock stands still
 * unless the test advances it. It belongs to the thread that made it: using it from another is an
 * assertion. It is test machinery: without memory it ends the process.
 *
 * A file that was removed, or replaced by a rename, and that nobody had open gave its blocks away, one
 * that was cut those behind its end. A crash may bring its name or its size back, and then some of its
 * bytes are another file's (reused blocks): so does ext4 with data=writeback or without a journal.
 *
 * What it promises is what os.h promises and nothing more: os_file_sync persists exactly that
 * file's bytes and size, os_dir_sync exactly that directory's names, and making a directory is
 * durable by itself. */
#ifndef OS_OS_SIM_H
#define OS_OS_SIM_H

#include "os/os.h"

/* Every kind of fault and what it does. The first rows say what a crash may do to unsynced state:
 * each crash draws which of them take part. The others strike single operations. */
#define OS_SIM_FAULT_MAP(X)                                                                        \
    X(OS_SIM_LOST_WRITE, "lost writes")         /* at a crash */                                   \
    X(OS_SIM_REORDERED, "any order")            /* at a crash */                                   \
    X(OS_SIM_TORN_WRITE, "torn writes")         /* at a crash */                                   \
    X(OS_SIM_TORN_SECTOR, "torn sectors")       /* at a crash */                                   \
    X(OS_SIM_SCRAMBLED, "scrambled sectors")    /* at a crash */                                   \
    X(OS_SIM_LOST_NAME, "lost names")           /* at a crash */                                   \
    X(OS_SIM_REUSED, "reused blocks")           /* at a crash */                                   \
    X(OS_SIM_READ_ERROR, "read errors")         /* EIO */                                          \
    X(OS_SIM_WRITE_ERROR, "write errors")       /* EIO, part written */                            \
    X(OS_SIM_SYNC_ERROR, "sync errors")         /* EIO, half persisted */                          \
    X(OS_SIM_DISK_FULL, "disk full")            /* ENOSPC, part written */                         \
    X(OS_SIM_SLOW, "slow operations")           /* the clock advances up to a second */            \
    X(OS_SIM_SHORT_WRITE, "short writes")       /* done in two parts, each an operation */         \
    X(OS_SIM_LYING_SYNC, "lying syncs")         /* success, but a crash may take it back */        \
    X(OS_SIM_BIT_ROT, "bit rot")                /* at a read: one bit of the file's platter */     \
    X(OS_SIM_STRAY_WRITE, "misdirected writes") /* at a sync: a sector lands on another */         \
    X(OS_SIM_STRAY_READ, "misdirected reads")   /* a sector of the answer is another one */        \
    X(OS_SIM_STALE_READ, "stale reads") /* a sector of the answer is as before its last write */   \
    X(OS_SIM_NO_MEMORY, "failed allocations") /* see os_sim_allocation_fails */

enum os_sim_fault {
#define OS_SIM_FAULT_ENUM(name, text) name,
    OS_SIM_FAULT_MAP(OS_SIM_FAULT_ENUM)
#undef OS_SIM_FAULT_ENUM
        OS_SIM_FAULT_COUNT
};

/* How often, in a million: of crashes for a crash's faults, of operations for the others. */
struct os_sim_faults {
    uint32_t ppm[OS_SIM_FAULT_COUNT];
};

/* Every crash fault in half of the crashes, no operation fails. What NULL means. */
struct os_sim_faults os_sim_faults_crash(void);

enum os_sim_op {
    OS_SIM_DIR_OPEN,
    OS_SIM_DIR_SYNC,
    OS_SIM_DIR_LIST,
    OS_SIM_DIR_LOCK,
    OS_SIM_REMOVE,
    OS_SIM_RENAME,
    OS_SIM_OPEN,
    OS_SIM_READ,
    OS_SIM_WRITE,
    OS_SIM_SYNC,
    OS_SIM_SIZE,
    OS_SIM_TRUNCATE,
    OS_SIM_ANY,      /* of them */
    OS_SIM_ALLOCATE, /* no operation: see os_sim_allocation_fails */
    OS_SIM_OP_COUNT
};

struct os_sim;

struct os_sim *os_sim_create(uint64_t seed, const struct os_sim_faults *faults);
/* Every handle must be closed: a handle left open is an assertion. Accepts NULL. */
void os_sim_destroy(struct os_sim *sim);

struct os *os_sim_os(struct os_sim *sim);

/* "seed 17, sectors of 512, boot 3, 812 operations; last crash: lost writes, any order". Valid
 * until the next call. */
const char *os_sim_describe(struct os_sim *sim);

/* A draw for the test's own decisions, below `limit`: from the seed, in a stream that nothing else
 * uses. */
uint64_t os_sim_pick(struct os_sim *sim, uint64_t limit);

/* A hash over every operation so far and what each was given: equal in equal runs. */
uint64_t os_sim_digest(const struct os_sim *sim);

/* ---- clock -------------------------------------------------------------------------------- */

void os_sim_advance(struct os_sim *sim, uint64_t ns);  /* both clocks */
void os_sim_set_clock(struct os_sim *sim, int64_t ns); /* the wall clock alone, also back */

/* ---- power -------------------------------------------------------------------------------- */

/* Cut the power and switch it on again. Every handle is dead from now on: all it can do is be
 * closed; anything else is DEED_IO. Locks are gone. What was planned by os_sim_fail stays. */
void os_sim_crash(struct os_sim *sim);

/* kill -9: the same for handles and locks, but the cache stays, with all it serves. */
void os_sim_kill(struct os_sim *sim);

/* After so many more operations the power is off: each later one is DEED_IO and changes nothing on
 * the platter, until os_sim_crash. DEED_NONE: never; where it is off already it comes back, which nothing
 * else does to it. */
void os_sim_power_off_after(struct os_sim *sim, uint64_t op_count);
/* The same, counted from the `nth` operation of that kind from now (1: the next): crashes in the midst
 * of what engines do seldom and in a certain order, renames above all. What was planned by the
 * other before holds beside it, the earlier one counts; a later call of that takes its place. */
void os_sim_power_off_at(struct os_sim *sim, enum os_sim_op op, uint64_t nth, uint64_t op_count);
bool os_sim_powered(const struct os_sim *sim);

/* ---- faults ------------------------------------------------------------------------------- */

/* How many operations of that kind have been started. */
uint64_t os_sim_count(const struct os_sim *sim, enum os_sim_op op);

/* Fail the `nth` operation of that kind from now (1: the next), and the `more` ones after it
 * (0: just once; DEED_NONE: for good) with EIO or ENOSPC. A write that fails has written a part. A
 * sync that fails persists some sectors and forgets the others: they count as clean, cached reads
 * go on serving them, and the next sync succeeds without them. At most 16 plans at a time. */
void os_sim_fail(struct os_sim *sim, enum os_sim_op op, uint64_t nth, uint64_t more,
                 int error_number);

/* From now on these chances hold. */
void os_sim_set_faults(struct os_sim *sim, const struct os_sim_faults *faults);

/* How often an operation's fault of that kind has struck by chance. */
uint64_t os_sim_struck(const struct os_sim *sim, enum os_sim_fault fault);

/* For a test that has malloc pass by it: does this allocation fail? By chance, drawn from a stream of
 * its own, or by a plan for OS_SIM_ALLOCATE. Never one that the machine makes for itself. */
bool os_sim_allocation_fails(struct os_sim *sim);

/* Forget all plans, chances of operations to fail, and the capacity. */
void os_sim_heal(struct os_sim *sim);

/* The disk holds at most so many bytes of files; past it, ENOSPC. DEED_NONE: no limit. */
void os_sim_set_capacity(struct os_sim *sim, uint64_t size_max);

/* Clean pages are evicted, so that cached reads see what the platter holds. */
void os_sim_drop_cache(struct os_sim *sim);

/* ---- rot ---------------------------------------------------------------------------------- */

enum os_sim_rot {
    OS_SIM_ROT_FLIP,  /* one bit of that byte */
    OS_SIM_ROT_ZERO,  /* its sector reads as zeros */
    OS_SIM_ROT_STALE, /* its sector is as before it was last written */
};

/* Damage the platter (paths as given to os_dir_open, then the file's name). Cached reads do not
 * see it before a crash or os_sim_drop_cache. DEED_NOT_FOUND: no such file, or it ends before
 * that offset. */
DEED_MUST_CHECK deed_status os_sim_rot(struct os_sim *sim, const char *path, uint64_t offset,
                                       enum os_sim_rot rot);
/* The last write of the sector at `from_offset` went to `to` instead. */
DEED_MUST_CHECK deed_status os_sim_misdirect(struct os_sim *sim, const char *from,
                                             uint64_t from_offset, const char *to,
                                             uint64_t to_offset);
size_t os_sim_sector_size(const struct os_sim *sim);

#endif
