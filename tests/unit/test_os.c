/* test_os.c - belongs to os.c, os_real.c, os_sim.c and sim_disk.c.
 *
 * What the header promises of every machine is told once and run on both: BOTH. Then what only
 * this machine can show, then what only the simulated one can. */
#include "unit/test.h"

#include "os/os.h"
#include "os/os_sim.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- the fixture -------------------------------------------------------------------------- */

static struct os_sim *sim; /* NULL: on this machine */
static struct os *os;
static char root[256];
static struct os_dir *dir;
static struct os_file *file;
static struct deed_error err;

static int remove_one(const char *path, const struct stat *about, int kind, struct FTW *place)
{
    (void)about, (void)kind, (void)place;
    return remove(path);
}

static void open_root(void)
{
    expect_ok(os_dir_open(os, root, true, &dir, &err));
}

static void start_here(void)
{
    const char *tmp = getenv("TMPDIR");
    (void)snprintf(root, sizeof root, "%s/deedbook-test-XXXXXX", tmp == NULL ? "/tmp" : tmp);
    assert_non_null(mkdtemp(root));
    sim = NULL;
    os = os_real();
    open_root();
}

static void start_sim(uint64_t seed, const struct os_sim_faults *faults)
{
    (void)snprintf(root, sizeof root, "/data");
    sim = os_sim_create(seed, faults);
    os = os_sim_os(sim);
    open_root();
}

static void finish(void)
{
    os_file_close(file);
    os_dir_close(dir);
    file = NULL;
    dir = NULL;
    if (sim == NULL) assert_int_equal(nftw(root, remove_one, 8, FTW_DEPTH | FTW_PHYS), 0);
    os_sim_destroy(sim);
    sim = NULL;
    err = (struct deed_error){0};
}

#define BOTH(name)                                                                                 \
    static void both_##name(void);                                                                 \
    TEST(os, name##__here)                                                                         \
    {                                                                                              \
        start_here();                                                                              \
        both_##name();                                                                             \
        finish();                                                                                  \
    }                                                                                              \
    TEST(os, name##__simulated)                                                                    \
    {                                                                                              \
        start_sim(7, NULL);                                                                        \
        both_##name();                                                                             \
        finish();                                                                                  \
    }                                                                                              \
    static void both_##name(void)

static void open_file(const char *name, unsigned flags)
{
    os_file_close(file);
    file = NULL;
    expect_ok(os_file_open(dir, name, flags, &file, &err));
}

static void write_at(uint64_t offset, const char *text)
{
    expect_ok(os_file_write(file, offset, deed_bytes_of(deed_str_of(text)), &err));
}

static void fill_at(uint64_t offset, uint8_t byte, size_t size)
{
    uint8_t *bytes = malloc(size);
    assert_non_null(bytes);
    memset(bytes, byte, size);
    expect_ok(os_file_write(file, offset, (deed_bytes){bytes, size}, &err));
    free(bytes);
}

static void make_file(const char *name, const char *text)
{
    open_file(name, OS_WRITE | OS_CREATE);
    write_at(0, text);
    expect_ok(os_file_sync(file, &err));
}

/* The file's whole content, through a handle of its own. Valid until the next call. */
static deed_str content(const char *name, unsigned flags)
{
    static char bytes[1 << 16];
    struct os_file *reading = NULL;
    size_t size = 0;
    expect_ok(os_file_open(dir, name, OS_READ | flags, &reading, &err));
    expect_ok(os_file_read(reading, 0, bytes, sizeof bytes, &size, &err));
    os_file_close(reading);
    return (deed_str){bytes, size};
}

static uint64_t size_of(struct os_file *of)
{
    uint64_t size = 0;
    expect_ok(os_file_size(of, &size, &err));
    return size;
}

static bool is_there(const char *name)
{
    struct os_file *found = NULL;
    deed_status status = os_file_open(dir, name, OS_READ, &found, &err);
    os_file_close(found);
    return status == DEED_OK;
}

static void expect_gone(const char *name)
{
    struct os_file *found = NULL;
    expect_status(DEED_NOT_FOUND, os_file_open(dir, name, OS_READ, &found, &err));
    expect_message(err, name);
}

static void crash(void)
{
    os_sim_crash(sim);
    os_file_close(file);
    os_dir_close(dir);
    file = NULL;
    open_root();
}

/* ---- on both machines --------------------------------------------------------------------- */

BOTH(what_is_written_is_read)
{
    make_file("log", "hello, world");

    expect_str(content("log", 0), "hello, world");
    assert_int_equal(size_of(file), 12);
}

BOTH(a_write_in_the_middle_changes_only_that)
{
    make_file("log", "hello, world");
    write_at(7, "there");

    expect_str(content("log", 0), "hello, there");
}

BOTH(a_gap_reads_as_zeros)
{
    make_file("log", "a");
    write_at(3, "b");

    deed_str all = content("log", 0);
    assert_int_equal(all.len, 4);
    assert_memory_equal(all.ptr, "a\0\0b", 4);
}

BOTH(a_read_stops_at_the_end_of_the_file)
{
    make_file("log", "hello");
    char bytes[16];
    size_t size = 99;

    expect_ok(os_file_read(file, 3, bytes, sizeof bytes, &size, &err));
    assert_int_equal(size, 2);
    assert_memory_equal(bytes, "lo", 2);
    expect_ok(os_file_read(file, 5, bytes, sizeof bytes, &size, &err));
    assert_int_equal(size, 0);
}

BOTH(an_offset_no_file_reaches_reads_nothing)
{
    make_file("log", "hello");
    char bytes[16];
    size_t size = 99;

    expect_ok(os_file_read(file, UINT64_MAX, bytes, sizeof bytes, &size, &err));
    assert_int_equal(size, 0);
    size = 99;
    expect_ok(os_file_read(file, INT64_MAX, bytes, sizeof bytes, &size, &err));
    assert_int_equal(size, 0);
}

BOTH(a_write_past_the_last_offset_is_misuse)
{
    make_file("log", "hello");

    expect_status(DEED_MISUSE,
                  os_file_write(file, INT64_MAX, (deed_bytes){(const uint8_t *)"a", 1}, &err));
    expect_message(err, "cannot write at 9223372036854775807");
    expect_status(DEED_MISUSE, os_file_truncate(file, UINT64_MAX, &err));
    assert_int_equal(size_of(file), 5);
}

BOTH(truncating_cuts_and_grows_with_zeros)
{
    make_file("log", "hello");
    expect_ok(os_file_truncate(file, 2, &err));
    expect_str(content("log", 0), "he");

    expect_ok(os_file_truncate(file, 4, &err));
    deed_str all = content("log", 0);
    assert_int_equal(all.len, 4);
    assert_memory_equal(all.ptr, "he\0\0", 4);
}

BOTH(a_direct_read_gives_the_same_bytes)
{
    open_file("log", OS_WRITE | OS_CREATE);
    fill_at(0, 'x', 3 * OS_DIRECT_ALIGN + 100);
    write_at(OS_DIRECT_ALIGN, "second");
    expect_ok(os_file_sync(file, &err));

    deed_str direct = content("log", OS_DIRECT);
    assert_int_equal(direct.len, 3 * OS_DIRECT_ALIGN + 100);
    assert_memory_equal(direct.ptr + OS_DIRECT_ALIGN, "secondxxx", 9);
    assert_int_equal(direct.ptr[direct.len - 1], 'x');
}

BOTH(a_direct_read_sees_what_is_not_synced_yet)
{
    open_file("log", OS_WRITE | OS_CREATE | OS_DIRECT);
    fill_at(0, 'x', OS_DIRECT_ALIGN);

    char bytes[2 * OS_DIRECT_ALIGN];
    size_t size = 0;
    expect_ok(os_file_read(file, 0, bytes, sizeof bytes, &size, &err));
    assert_int_equal(size, OS_DIRECT_ALIGN);
    assert_int_equal(bytes[OS_DIRECT_ALIGN - 1], 'x');
}

BOTH(a_direct_read_out_of_step_is_misuse)
{
    make_file("log", "hello");
    open_file("log", OS_DIRECT);
    char bytes[OS_DIRECT_ALIGN];
    size_t size = 77;

    expect_status(DEED_MISUSE, os_file_read(file, 1, bytes, OS_DIRECT_ALIGN, &size, &err));
    expect_message(err, "offset 1 ");
    expect_status(DEED_MISUSE, os_file_read(file, 0, bytes, OS_DIRECT_ALIGN - 1, &size, &err));
    assert_int_equal(size, 77);
}

/* A device of which a direct read fails at one block. The program is linked so that pread (of large
 * files) and ioctl come here first. */
static uint64_t failing_block = UINT64_MAX;
static bool failing_block_is_unplaced;
ssize_t __real_pread64(int fd, void *out, size_t size, off_t offset);
ssize_t __wrap_pread64(int fd, void *out, size_t size, off_t offset);
int __wrap_ioctl(int fd, unsigned long what, struct fiemap *map);

ssize_t __wrap_pread64(int fd, void *out, size_t size, off_t offset)
{
    bool meets = (uint64_t)offset < failing_block + OS_DIRECT_ALIGN &&
                 failing_block < (uint64_t)offset + size;
    if (failing_block == UINT64_MAX || !meets || (fcntl(fd, F_GETFL) & O_DIRECT) == 0) {
        return __real_pread64(fd, out, size, offset);
    }
    errno = EIO;
    return -1;
}

int __wrap_ioctl(int fd, unsigned long what, struct fiemap *map)
{
    (void)fd;
    assert_int_equal(what, FS_IOC_FIEMAP);
    assert_int_equal(map->fm_extent_count, 1);
    map->fm_mapped_extents = 1;
    map->fm_extents[0] = (struct fiemap_extent){
        .fe_logical = failing_block,
        .fe_length = OS_DIRECT_ALIGN,
        .fe_flags = failing_block_is_unplaced ? FIEMAP_EXTENT_DELALLOC : 0,
    };
    return 0;
}

static deed_status read_with_failing_block(uint64_t block, bool unplaced, uint8_t *bytes,
                                           size_t size, size_t *out_read)
{
    open_file("log", OS_DIRECT);
    failing_block = block;
    failing_block_is_unplaced = unplaced;
    deed_status status = os_file_read(file, 0, bytes, size, out_read, &err);
    failing_block = UINT64_MAX;
    return status;
}

TEST(os, blocks_that_the_device_was_never_given_are_zeros)
{
    enum { SIZE = 4 * OS_DIRECT_ALIGN };
    static uint8_t bytes[SIZE];
    size_t size = 0;
    start_here();
    open_file("log", OS_WRITE | OS_CREATE);
    fill_at(0, 'x', 3 * OS_DIRECT_ALIGN + 100);
    expect_ok(os_file_sync(file, &err));

    expect_ok(read_with_failing_block(OS_DIRECT_ALIGN, true, bytes, SIZE, &size));
    assert_int_equal(size, 3 * OS_DIRECT_ALIGN + 100);
    for (size_t i = 0; i < size; i++)
        assert_int_equal(bytes[i], i / OS_DIRECT_ALIGN == 1 ? 0 : 'x');

    /* Up to the end of the file. */
    expect_ok(read_with_failing_block(3 * OS_DIRECT_ALIGN, true, bytes, SIZE, &size));
    assert_int_equal(size, 3 * OS_DIRECT_ALIGN + 100);
    assert_int_equal(bytes[3 * OS_DIRECT_ALIGN - 1], 'x');
    assert_int_equal(bytes[3 * OS_DIRECT_ALIGN], 0);

    /* One that it has and cannot read is an error. */
    expect_status(DEED_IO, read_with_failing_block(OS_DIRECT_ALIGN, false, bytes, SIZE, &size));
    expect_message(err, "cannot read 16384 bytes at offset 0");
    finish();
}

BOTH(a_large_read_and_write_go_through)
{
    const size_t size = (5 << 20) + 4096;
    uint8_t *bytes = malloc(size);
    uint8_t *back = calloc(1, size);
    assert_non_null(bytes);
    assert_non_null(back);
    os_random(os, bytes, size);
    open_file("log", OS_WRITE | OS_CREATE | OS_DIRECT);
    size_t got = 0;

    expect_ok(os_file_write(file, 0, (deed_bytes){bytes, size}, &err));
    expect_ok(os_file_read(file, 0, back, size, &got, &err));
    assert_int_equal(got, size);
    assert_memory_equal(back, bytes, size);
    free(bytes);
    free(back);
}

BOTH(a_missing_file_is_not_found)
{
    expect_gone("nothing");
    expect_status(DEED_NOT_FOUND, os_remove(dir, "nothing", &err));
    expect_message(err, "nothing");
    expect_status(DEED_NOT_FOUND, os_rename(dir, "nothing", "thing", &err));
    expect_message(err, "nothing");
}

BOTH(an_exclusive_file_must_not_be_there)
{
    open_file("log", OS_WRITE | OS_CREATE | OS_EXCLUSIVE);
    struct os_file *second = NULL;

    expect_status(DEED_CONFLICT,
                  os_file_open(dir, "log", OS_WRITE | OS_CREATE | OS_EXCLUSIVE, &second, &err));
    expect_message(err, "log: is there already");
    assert_null(second);
}

BOTH(flags_that_do_not_go_together_are_misuse)
{
    struct os_file *none = NULL;

    expect_status(DEED_MISUSE, os_file_open(dir, "log", OS_CREATE, &none, &err));
    expect_status(DEED_MISUSE, os_file_open(dir, "log", OS_WRITE | OS_EXCLUSIVE, &none, &err));
    expect_status(DEED_MISUSE, os_file_open(dir, "log", 1u << 20, &none, &err));
    assert_null(none);
    expect_gone("log");
}

BOTH(a_file_open_for_reading_is_not_written)
{
    make_file("log", "hello");
    open_file("log", OS_READ);

    expect_status(DEED_MISUSE, os_file_write(file, 0, (deed_bytes){(const uint8_t *)"j", 1}, &err));
    expect_message(err, "opened for reading only");
    expect_status(DEED_MISUSE, os_file_truncate(file, 0, &err));
    expect_str(content("log", 0), "hello");
}

BOTH(names_that_leave_the_directory_are_misuse)
{
    char long_name[300];
    memset(long_name, 'n', sizeof long_name - 1);
    long_name[sizeof long_name - 1] = '\0';
    const char *const bad[] = {"", ".", "..", "a/b", "/etc", "../x", long_name};
    struct os_file *none = NULL;
    struct os_dir *no_dir = NULL;

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        expect_status(DEED_MISUSE, os_file_open(dir, bad[i], OS_WRITE | OS_CREATE, &none, &err));
        expect_message(err, "file name");
        expect_status(DEED_MISUSE, os_remove(dir, bad[i], &err));
        expect_status(DEED_MISUSE, os_rename(dir, bad[i], "x", &err));
        expect_status(DEED_MISUSE, os_rename(dir, "x", bad[i], &err));
        expect_status(DEED_MISUSE, os_dir_open_in(dir, bad[i], true, &no_dir, &err));
    }
    expect_status(DEED_MISUSE, os_dir_open(os, "", true, &no_dir, &err));
    expect_status(DEED_MISUSE, os_dir_open(os, NULL, true, &no_dir, &err));
    assert_null(none);
    assert_null(no_dir);
}

BOTH(a_name_of_255_bytes_is_the_longest)
{
    char name[257];
    memset(name, 'n', sizeof name);
    struct os_file *none = NULL;

    name[255] = '\0';
    make_file(name, "hello");
    expect_str(content(name, 0), "hello");
    name[255] = 'n';
    name[256] = '\0';
    expect_status(DEED_MISUSE, os_file_open(dir, name, OS_WRITE | OS_CREATE, &none, &err));
    expect_message(err, "is over 255 bytes");
}

BOTH(removing_takes_the_name_away)
{
    make_file("log", "hello");
    expect_ok(os_remove(dir, "log", &err));

    expect_gone("log");
    char bytes[8];
    size_t size = 0; /* the open file lives on */
    expect_ok(os_file_read(file, 0, bytes, sizeof bytes, &size, &err));
    assert_int_equal(size, 5);
}

BOTH(renaming_replaces)
{
    make_file("new", "new");
    make_file("old", "old");
    expect_ok(os_rename(dir, "new", "old", &err));

    expect_gone("new");
    expect_str(content("old", 0), "new");
    expect_ok(os_rename(dir, "old", "old", &err));
    expect_str(content("old", 0), "new");
}

BOTH(the_directory_of_a_file_is_opened_by_the_files_path)
{
    char path[5000];
    const char *name = NULL;
    struct os_dir *found = NULL;
    make_file("file", "here");
    (void)snprintf(path, sizeof path, "%s/file", os_dir_path(dir));
    expect_ok(os_dir_open_of(os, path, &found, &name, &err));
    assert_string_equal(name, "file");
    os_file_close(file);
    expect_ok(os_file_open(found, name, OS_READ, &file, &err));
    os_dir_close(found);

    (void)snprintf(path, sizeof path, "%s/nowhere/file", os_dir_path(dir));
    expect_status(DEED_NOT_FOUND, os_dir_open_of(os, path, &found, &name, &err));
    memset(path, 'd', 4098);
    memcpy(path + 4097, "/f", 3);
    expect_status(DEED_MISUSE, os_dir_open_of(os, path, &found, &name, &err));
    expect_message(err, "too long");
}

BOTH(replacing_makes_and_replaces)
{
    for (int round = 0; round < 2; round++) {
        make_file("new", round == 0 ? "one" : "two");
        expect_ok(os_replace(dir, "new", "file", &err));
        expect_gone("new");
        expect_str(content("file", 0), round == 0 ? "one" : "two");
    }
    expect_status(DEED_NOT_FOUND, os_replace(dir, "nothing", "file", &err));
    expect_str(content("file", 0), "two");
    expect_status(DEED_MISUSE, os_replace(dir, "file", "a/b", &err));
}

struct seen {
    size_t count;
    bool a, b, other;
};

static void see(void *context, const char *name)
{
    struct seen *seen = context;
    seen->count++;
    seen->a |= strcmp(name, "a") == 0;
    seen->b |= strcmp(name, "b") == 0;
    seen->other |= strcmp(name, "other") == 0;
}

BOTH(a_listing_names_everything_once)
{
    struct seen seen = {0};
    expect_ok(os_dir_list(dir, see, &seen, &err));
    assert_int_equal(seen.count, 0);

    make_file("a", "1");
    make_file("b", "2");
    struct os_dir *inner = NULL;
    expect_ok(os_dir_open_in(dir, "other", true, &inner, &err));
    os_dir_close(inner);

    expect_ok(os_dir_list(dir, see, &seen, &err));
    assert_int_equal(seen.count, 3);
    assert_true(seen.a && seen.b && seen.other);
}

static void remove_seen(void *context, const char *name)
{
    size_t *count = context;
    ++*count;
    expect_ok(os_remove(dir, name, &err));
}

BOTH(a_listing_may_remove_what_it_is_given)
{
    char name[16];
    for (int i = 0; i < 100; i++) {
        (void)snprintf(name, sizeof name, "file%d", i);
        make_file(name, "x");
    }
    size_t count = 0;
    expect_ok(os_dir_list(dir, remove_seen, &count, &err));
    assert_int_equal(count, 100);

    struct seen seen = {0};
    expect_ok(os_dir_list(dir, see, &seen, &err));
    assert_int_equal(seen.count, 0);
}

BOTH(directories_are_made_with_their_parents)
{
    char path[512];
    (void)snprintf(path, sizeof path, "%s/a//b/c/", root);
    struct os_dir *deep = NULL;
    struct os_dir *again = NULL;

    expect_status(DEED_NOT_FOUND, os_dir_open(os, path, false, &deep, &err));
    expect_message(err, "/a");
    expect_ok(os_dir_open(os, path, true, &deep, &err));
    assert_int_not_equal(os_dir_path(deep)[strlen(os_dir_path(deep)) - 1], '/');
    expect_ok(os_dir_open(os, path, false, &again, &err));
    os_dir_close(again);
    expect_ok(os_dir_sync(deep, &err));
    os_dir_close(deep);
}

BOTH(a_directory_inside_another_is_opened_by_name)
{
    struct os_dir *inner = NULL;
    expect_status(DEED_NOT_FOUND, os_dir_open_in(dir, "inner", false, &inner, &err));
    expect_ok(os_dir_open_in(dir, "inner", true, &inner, &err));
    assert_non_null(strstr(os_dir_path(inner), "/inner"));

    struct os_file *within = NULL;
    expect_ok(os_file_open(inner, "x", OS_WRITE | OS_CREATE, &within, &err));
    os_file_close(within);
    expect_gone("x");
    os_dir_close(inner);
}

BOTH(a_file_is_no_directory)
{
    make_file("log", "hello");
    struct os_dir *none = NULL;
    char path[512];
    (void)snprintf(path, sizeof path, "%s/log/inner", root);

    expect_status(DEED_IO, os_dir_open_in(dir, "log", false, &none, &err));
    expect_message(err, "Not a directory");
    expect_status(DEED_IO, os_dir_open(os, path, true, &none, &err));
    assert_null(none);
}

BOTH(a_directory_is_no_file)
{
    struct os_dir *inner = NULL;
    struct os_file *none = NULL;
    expect_ok(os_dir_open_in(dir, "inner", true, &inner, &err));
    os_dir_close(inner);

    expect_status(DEED_IO, os_file_open(dir, "inner", OS_WRITE, &none, &err));
    expect_message(err, "Is a directory");
    expect_status(DEED_IO, os_remove(dir, "inner", &err));
    expect_message(err, "inner");
    assert_null(none);
}

BOTH(a_locked_directory_is_refused_to_a_second_handle)
{
    struct os_dir *second = NULL;
    expect_ok(os_dir_open(os, root, false, &second, &err));
    expect_ok(os_dir_lock(dir, &err));
    expect_ok(os_dir_lock(dir, &err)); /* what one has one may take */

    expect_status(DEED_LOCKED, os_dir_lock(second, &err));
    expect_message(err, "in use by process");
    expect_message(err, root);

    os_dir_close(dir);
    expect_ok(os_dir_lock(second, &err));
    dir = second;
}

BOTH(closing_nothing_is_fine)
{
    os_file_close(NULL);
    os_dir_close(NULL);
}

BOTH(every_error_argument_may_be_left_out)
{
    struct os_file *none = NULL;
    expect_status(DEED_NOT_FOUND, os_file_open(dir, "nothing", OS_READ, &none, NULL));
    expect_status(DEED_MISUSE, os_remove(dir, "a/b", NULL));
    expect_status(DEED_NOT_FOUND, os_remove(dir, "nothing", NULL));
}

BOTH(ticks_never_go_back)
{
    uint64_t before = os_ticks_ns(os);
    for (int i = 0; i < 1000; i++) {
        uint64_t now = os_ticks_ns(os);
        assert_true(now >= before);
        before = now;
    }
    assert_true(os_now_ns(os) > INT64_C(1700000000000000000)); /* after 2023 */
}

BOTH(random_bytes_differ_and_fill_all_of_it)
{
    uint8_t a[1000] = {0};
    uint8_t b[1000] = {0};
    os_random(os, a, sizeof a);
    os_random(os, b, sizeof b);
    os_random(os, NULL, 0);

    assert_memory_not_equal(a, b, sizeof a);
    size_t zeros = 0;
    for (size_t i = 0; i < sizeof a; i++)
        zeros += a[i] == 0;
    assert_in_range(zeros, 0, 40); /* 4 expected */
    assert_memory_not_equal(a + 990, b + 990, 10);
}

/* ---- on this machine ---------------------------------------------------------------------- */

TEST(os_real, a_full_device_is_full)
{
    start_here();
    struct os_dir *dev = NULL;
    struct os_file *full = NULL;
    expect_ok(os_dir_open(os, "/dev", false, &dev, &err));
    expect_ok(os_file_open(dev, "full", OS_WRITE, &full, &err));

    expect_status(DEED_FULL, os_file_write(full, 0, (deed_bytes){(const uint8_t *)"a", 1}, &err));
    expect_message(err,
                   "file /dev/full: cannot write 1 bytes at offset 0: No space left on device");
    os_file_close(full);
    os_dir_close(dev);
    finish();
}

TEST(os_real, nobody_else_may_read_what_is_stored)
{
    start_here();
    struct os_dir *inner = NULL;
    struct stat about;
    char path[300];
    mode_t before = umask(0);
    expect_ok(os_dir_open_in(dir, "inner", true, &inner, &err));
    make_file("log", "hello");
    (void)umask(before);

    (void)snprintf(path, sizeof path, "%s/inner", root);
    assert_int_equal(stat(path, &about), 0);
    assert_int_equal(about.st_mode & 07777, 0750);
    (void)snprintf(path, sizeof path, "%s/log", root);
    assert_int_equal(stat(path, &about), 0);
    assert_int_equal(about.st_mode & 07777, 0640);
    os_dir_close(inner);
    finish();
}

/* A write that comes back short goes on, and learns why. */
TEST(os_real, a_short_write_goes_on_until_the_error)
{
    start_here();
    struct rlimit before;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    struct rlimit small = {1000, before.rlim_max};
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    uint8_t bytes[4096] = {1};
    open_file("log", OS_WRITE | OS_CREATE);

    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    deed_status status = os_file_write(file, 0, (deed_bytes){bytes, sizeof bytes}, &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    (void)signal(SIGXFSZ, handler);

    assert_int_equal(status, DEED_IO);
    expect_message(err, "File too large");
    assert_int_equal(size_of(file), 1000);
    finish();
}

BOTH(a_thread_in_haste_reads_so_much_and_no_more)
{
    char bytes[16];
    size_t size = 0;
    make_file("log", "0123456789");
    assert_false(os_haste_refused());

    os_haste_begin(8);
    expect_ok(os_file_read(file, 0, bytes, 5, &size, &err));
    assert_false(os_haste_refused());
    expect_status(DEED_BUSY, os_file_read(file, 5, bytes, 5, &size, &err));
    expect_message(err, "log: 5 bytes at offset 5 are not at hand");
    expect_ok(os_file_read(file, 7, bytes, 3, &size, &err));
    assert_memory_equal(bytes, "789", 3);
    assert_true(os_haste_refused());
    assert_true(os_haste_end());

    expect_ok(os_file_read(file, 0, bytes, 10, &size, &err));
    assert_int_equal(size, 10);
    os_haste_begin(64);
    expect_ok(os_file_read(file, 8, bytes, 8, &size, &err)); /* to the end of the file */
    assert_int_equal(size, 2);
    assert_false(os_haste_end());
}

TEST(os_real, a_thread_in_haste_does_not_wait_for_the_disk)
{
    start_here();
    char bytes[16];
    size_t size = 0;
    make_file("log", "0123456789");
    char path[300];
    (void)snprintf(path, sizeof path, "%s/log", root);
    int fd = open(path, O_RDONLY);
    assert_true(fd >= 0);
    assert_int_equal(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);

    os_haste_begin(64);
    deed_status status = os_file_read(file, 0, bytes, 10, &size, &err);
    bool refused = os_haste_end();
    /* A file system without a disk (tmpfs) has it at hand all the same. */
    assert_int_equal(refused, status == DEED_BUSY);
    if (status != DEED_BUSY) assert_int_equal(status, DEED_OK);

    expect_ok(os_file_read(file, 0, bytes, 10, &size, &err));
    os_haste_begin(64);
    expect_ok(os_file_read(file, 0, bytes, 10, &size, &err));
    assert_false(os_haste_end());
    assert_memory_equal(bytes, "0123456789", 10);
    assert_int_equal(close(fd), 0);
    finish();
}

TEST(os_real, a_direct_read_falls_back_where_there_is_none)
{
    start_here();
    struct os_dir *proc = NULL;
    struct os_file *stat = NULL;
    static char bytes[16 * OS_DIRECT_ALIGN];
    size_t size = 0;
    expect_ok(os_dir_open(os, "/proc", false, &proc, &err)); /* refuses O_DIRECT */
    expect_ok(os_file_open(proc, "version", OS_READ | OS_DIRECT, &stat, &err));

    expect_ok(os_file_read(stat, 0, bytes, sizeof bytes, &size, &err));
    assert_in_range(size, 1, sizeof bytes);
    assert_memory_equal(bytes, "Linux", 5);
    os_file_close(stat);
    os_dir_close(proc);
    finish();
}

/* The lock of a process that was killed is free, and while it lived the message named it. */
TEST(os_real, a_lock_dies_with_its_process)
{
    start_here();
    int ready[2];
    assert_int_equal(pipe(ready), 0);
    pid_t child = fork();
    if (child == 0) {
        struct os_dir *own = NULL;
        bool locked = os_dir_open(os, root, false, &own, NULL) == DEED_OK &&
                      os_dir_lock(own, NULL) == DEED_OK;
        (void)!write(ready[1], locked ? "y" : "n", 1);
        (void)pause();
        _exit(0);
    }
    char answer = 0;
    assert_int_equal(read(ready[0], &answer, 1), 1);
    assert_int_equal(answer, 'y');

    char who[64];
    (void)snprintf(who, sizeof who, "in use by process %ld", (long)child);
    expect_status(DEED_LOCKED, os_dir_lock(dir, &err));
    expect_message(err, who);

    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, NULL, 0), child);
    expect_ok(os_dir_lock(dir, &err));
    (void)close(ready[0]);
    (void)close(ready[1]);
    finish();
}

TEST(os_real, a_directory_that_is_moved_stays_in_hand)
{
    start_here();
    make_file("log", "hello");
    char moved[300];
    (void)snprintf(moved, sizeof moved, "%s-moved", root);
    assert_int_equal(rename(root, moved), 0);

    expect_str(content("log", 0), "hello");
    assert_int_equal(rename(moved, root), 0);
    finish();
}

TEST(os_real, a_relative_path_is_made_too)
{
    start_here();
    char before[512];
    assert_non_null(getcwd(before, sizeof before));
    assert_int_equal(chdir(root), 0);
    struct os_dir *relative = NULL;
    expect_ok(os_dir_open(os, "x/y", true, &relative, &err));
    os_dir_close(relative);
    expect_ok(os_dir_open(os, "z", true, &relative, &err));
    os_dir_close(relative);
    assert_int_equal(chdir(before), 0);

    struct seen seen = {0};
    expect_ok(os_dir_list(dir, see, &seen, &err));
    assert_int_equal(seen.count, 2);
    finish();
}

/* ---- in simulation ------------------------------------------------------------------------ */

#define SEEDS 300

/* One file with a synced block of 'a' and, one block on, an unsynced one of 'b'. */
static void synced_and_unsynced(uint64_t seed)
{
    start_sim(seed, NULL);
    open_file("log", OS_WRITE | OS_CREATE);
    fill_at(0, 'a', 8192);
    expect_ok(os_file_sync(file, &err));
    expect_ok(os_dir_sync(dir, &err));
    fill_at(8192, 'b', 8192);
}

static size_t count_of(deed_str text, char wanted)
{
    size_t count = 0;
    for (size_t i = 0; i < text.len; i++)
        count += text.ptr[i] == wanted;
    return count;
}

TEST(os_sim, what_was_synced_survives_every_crash)
{
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        synced_and_unsynced(seed);
        crash();

        deed_str all = content("log", 0);
        assert_true(all.len >= 8192);
        assert_int_equal(count_of((deed_str){all.ptr, 8192}, 'a'), 8192);
        finish();
    }
}

/* If one of these counts stays at zero, the machine is kinder than a real one. */
TEST(os_sim, what_was_not_synced_meets_every_fate)
{
    size_t lost = 0, kept = 0, part = 0, torn = 0, scrambled = 0, early_end = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        synced_and_unsynced(seed);
        crash();
        deed_str all = content("log", 0);
        deed_str tail = {all.ptr + 8192, all.len - 8192};
        size_t arrived = count_of(tail, 'b');
        size_t noise = tail.len - arrived - count_of(tail, 0);

        lost += arrived == 0 && noise == 0;
        kept += arrived == 8192;
        early_end += tail.len > 0 && tail.len < 8192;
        part += noise == 0 && arrived > 0 && arrived < 8192 && arrived % 512 == 0;
        torn += noise == 0 && arrived % 512 != 0;
        scrambled += noise > 100;
        finish();
    }
    assert_in_range(lost, 20, SEEDS);
    assert_in_range(kept, 20, SEEDS);
    assert_in_range(part, 5, SEEDS);
    assert_in_range(torn, 5, SEEDS);
    assert_in_range(scrambled, 5, SEEDS);
    assert_in_range(early_end, 1, SEEDS);
}

TEST(os_sim, later_writes_may_arrive_without_earlier_ones)
{
    size_t reordered = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        synced_and_unsynced(seed);
        fill_at(16384, 'c', 4096);
        crash();
        deed_str all = content("log", 0);
        reordered += count_of(all, 'c') == 4096 && count_of(all, 'b') < 8192;
        finish();
    }
    assert_in_range(reordered, 5, SEEDS);
}

/* Why the log never rewrites a sector that holds acknowledged bytes. */
TEST(os_sim, rewriting_a_synced_sector_can_lose_what_it_held)
{
    size_t damaged = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        start_sim(seed, NULL);
        open_file("log", OS_WRITE | OS_CREATE);
        fill_at(0, 'a', 100);
        expect_ok(os_file_sync(file, &err));
        expect_ok(os_dir_sync(dir, &err));
        fill_at(100, 'b', 100);
        crash();
        deed_str all = content("log", 0);
        damaged += count_of((deed_str){all.ptr, 100}, 'a') != 100;
        finish();
    }
    assert_in_range(damaged, 3, SEEDS);
}

TEST(os_sim, an_earlier_version_of_an_unsynced_sector_may_arrive)
{
    size_t earlier = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        start_sim(seed, NULL);
        open_file("log", OS_WRITE | OS_CREATE);
        expect_ok(os_dir_sync(dir, &err));
        fill_at(0, 'a', 4096);
        expect_ok(os_file_sync(file, &err));
        fill_at(0, 'b', 4096);
        fill_at(0, 'c', 4096);
        crash();
        deed_str all = content("log", 0);
        earlier += count_of(all, 'b') == 4096;
        finish();
    }
    assert_in_range(earlier, 3, SEEDS);
}

TEST(os_sim, names_survive_after_their_directory_is_synced)
{
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        start_sim(seed, NULL);
        make_file("a", "1");
        make_file("b", "2");
        expect_ok(os_rename(dir, "b", "c", &err));
        make_file("d", "4");
        expect_ok(os_remove(dir, "d", &err));
        expect_ok(os_dir_sync(dir, &err));
        crash();

        expect_str(content("a", 0), "1");
        expect_str(content("c", 0), "2");
        expect_gone("b");
        expect_gone("d");
        finish();
    }
}

TEST(os_sim, names_that_were_not_synced_are_there_or_not)
{
    size_t made = 0, not_made = 0, removed = 0, not_removed = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        start_sim(seed, NULL);
        make_file("old", "1");
        expect_ok(os_dir_sync(dir, &err));
        make_file("new", "2");
        expect_ok(os_remove(dir, "old", &err));
        crash();
        made += is_there("new");
        not_made += !is_there("new");
        removed += !is_there("old");
        not_removed += is_there("old");
        finish();
    }
    assert_in_range(made, 20, SEEDS);
    assert_in_range(not_made, 20, SEEDS);
    assert_in_range(removed, 20, SEEDS);
    assert_in_range(not_removed, 20, SEEDS);
}

TEST(os_sim, a_rename_is_done_or_not_but_never_half)
{
    size_t done = 0, not_done = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        start_sim(seed, NULL);
        make_file("manifest.new", "new");
        make_file("manifest", "old"); /* and is open still: os_replace */
        expect_ok(os_dir_sync(dir, &err));
        expect_ok(os_rename(dir, "manifest.new", "manifest", &err));
        crash();
        if (is_there("manifest.new")) {
            not_done++;
            expect_str(content("manifest", 0), "old");
            expect_str(content("manifest.new", 0), "new");
        } else {
            done++;
            expect_str(content("manifest", 0), "new");
        }
        finish();
    }
    assert_in_range(done, 20, SEEDS);
    assert_in_range(not_done, 20, SEEDS);
}

TEST(os_sim, what_is_replaced_is_the_one_or_the_other_wherever_the_power_goes)
{
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        start_sim(seed, NULL);
        make_file("file", "old");
        expect_ok(os_dir_sync(dir, &err));
        make_file("new", "new");
        os_sim_power_off_after(sim, os_sim_pick(sim, 5));
        deed_status status = os_replace(dir, "new", "file", &err);
        crash();
        deed_str now = content("file", 0);
        assert_true(deed_str_equal(now, DEED_STR("new")) ||
                    (deed_str_equal(now, DEED_STR("old")) && status != DEED_OK));
        finish();
    }
}

/* Why a file that is replaced is held, and why one that comes back is read before it is believed. */
TEST(os_sim, what_comes_back_after_it_was_removed_may_hold_other_bytes)
{
    size_t whole = 0, reused = 0, gone = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        start_sim(seed, NULL);
        open_file("log", OS_WRITE | OS_CREATE);
        fill_at(0, 'a', 16384);
        expect_ok(os_file_sync(file, &err));
        expect_ok(os_dir_sync(dir, &err));
        os_file_close(file);
        file = NULL;
        expect_ok(os_remove(dir, "log", &err));
        crash();
        if (is_there("log")) {
            deed_str all = content("log", 0);
            assert_int_equal(all.len, 16384);
            whole += count_of(all, 'a') == all.len;
            reused += count_of(all, 'a') < all.len - 500;
        } else {
            gone++;
        }
        finish();
    }
    assert_in_range(gone, 20, SEEDS);
    assert_in_range(whole, 20, SEEDS);
    assert_in_range(reused, 20, SEEDS);
}

TEST(os_sim, a_synced_name_does_not_sync_the_bytes)
{
    size_t empty = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        start_sim(seed, NULL);
        open_file("log", OS_WRITE | OS_CREATE);
        write_at(0, "hello");
        expect_ok(os_dir_sync(dir, &err));
        crash();
        empty += content("log", 0).len == 0;
        finish();
    }
    assert_in_range(empty, 20, SEEDS);
}

TEST(os_sim, a_truncate_is_done_or_not)
{
    size_t done = 0, not_done = 0, reused = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        synced_and_unsynced(seed);
        expect_ok(os_file_sync(file, &err));
        expect_ok(os_file_truncate(file, 4096, &err));
        crash();
        deed_str all = content("log", 0);
        assert_true(all.len == 4096 || all.len == 16384);
        assert_int_equal(count_of((deed_str){all.ptr, 4096}, 'a'), 4096);
        done += all.len == 4096;
        if (all.len == 4096) assert_int_equal(count_of(all, 'b'), 0);
        not_done += count_of(all, 'a') == 8192 && count_of(all, 'b') == 8192;
        /* Others had got what was cut off. */
        reused += all.len == 16384 && count_of(all, 'a') + count_of(all, 'b') < 16384;
        finish();
    }
    assert_in_range(done, 20, SEEDS);
    assert_in_range(not_done, 20, SEEDS);
    assert_in_range(reused, 20, SEEDS);
}

/* What a file gets again after it was cut may hold others' bytes until it is synced. */
TEST(os_sim, a_file_that_is_written_anew_holds_its_bytes_when_it_is_synced)
{
    size_t strange = 0, old = 0, new = 0;
    for (uint64_t seed = 0; seed < 2 * SEEDS; seed++) {
        bool synced = seed % 2 == 0;
        synced_and_unsynced(seed);
        expect_ok(os_file_sync(file, &err));
        expect_ok(os_file_truncate(file, 0, &err));
        fill_at(0, 'c', 4096);
        if (synced) expect_ok(os_file_sync(file, &err));
        crash();
        deed_str all = content("log", 0);
        size_t known = count_of(all, 'a') + count_of(all, 'b') + count_of(all, 'c');
        if (synced) assert_true(all.len == 4096 && count_of(all, 'c') == 4096);
        strange += !synced && all.len == 4096 && known < 4096;
        old += !synced && all.len == 16384;
        new += !synced && count_of(all, 'c') == 4096;
        finish();
    }
    assert_in_range(strange, 20, SEEDS);
    assert_in_range(old, 20, SEEDS);
    assert_in_range(new, 20, SEEDS);
}

TEST(os_sim, directories_are_durable_when_made)
{
    for (uint64_t seed = 0; seed < 50; seed++) {
        start_sim(seed, NULL);
        struct os_dir *deep = NULL;
        expect_ok(os_dir_open(os, "/data/a/b", true, &deep, &err));
        os_dir_close(deep);
        crash();
        expect_ok(os_dir_open(os, "/data/a/b", false, &deep, &err));
        os_dir_close(deep);
        finish();
    }
}

/* A story with every operation, told by the seed. */
static uint64_t run_story(uint64_t seed)
{
    start_sim(seed, NULL);
    for (int i = 0; i < 200; i++) {
        char name[8];
        (void)snprintf(name, sizeof name, "f%d", (int)os_sim_pick(sim, 5));
        open_file(name, OS_WRITE | OS_CREATE);
        fill_at(os_sim_pick(sim, 10000), (uint8_t)i, 1 + os_sim_pick(sim, 3000));
        if (os_sim_pick(sim, 4) == 0) expect_ok(os_file_sync(file, &err));
        if (os_sim_pick(sim, 8) == 0) expect_ok(os_dir_sync(dir, &err));
        if (os_sim_pick(sim, 16) == 0) crash();
    }
    uint64_t digest = os_sim_digest(sim);
    uint8_t random[8];
    os_random(os, random, sizeof random);
    for (size_t i = 0; i < sizeof random; i++)
        digest = digest * 31 + random[i];
    digest += (uint64_t)os_now_ns(os);
    deed_str all = is_there("f1") ? content("f1", 0) : DEED_STR("");
    for (size_t i = 0; i < all.len; i++)
        digest = digest * 31 + (uint8_t)all.ptr[i];
    finish();
    return digest;
}

TEST(os_sim, the_same_seed_is_the_same_machine)
{
    for (uint64_t seed = 1; seed < 20; seed++) {
        uint64_t first = run_story(seed);
        assert_int_equal(first, run_story(seed));
        assert_int_not_equal(first, run_story(seed + 1000));
    }
}

TEST(os_sim, a_failed_sync_leaves_a_cache_that_lies)
{
    size_t lied = 0;
    for (uint64_t seed = 0; seed < 50; seed++) {
        synced_and_unsynced(seed);
        os_sim_fail(sim, OS_SIM_SYNC, 1, 0, EIO);
        expect_status(DEED_IO, os_file_sync(file, &err));
        expect_message(err, "/data/log");
        expect_message(err, "Input/output error");

        assert_int_equal(count_of(content("log", 0), 'b'), 8192); /* the cache serves it */
        size_t direct = count_of(content("log", OS_DIRECT), 'b');
        expect_ok(os_file_sync(file, &err)); /* and the next sync says all is well */
        crash();
        size_t survived = count_of(content("log", 0), 'b');
        assert_int_equal(survived, direct);
        lied += survived < 8192;
        finish();
    }
    assert_in_range(lied, 40, 50);
}

TEST(os_sim, a_failed_directory_sync_forgets_names)
{
    size_t forgotten = 0;
    for (uint64_t seed = 0; seed < 50; seed++) {
        start_sim(seed, NULL);
        make_file("a", "1");
        os_sim_fail(sim, OS_SIM_DIR_SYNC, 1, 0, EIO);
        expect_status(DEED_IO, os_dir_sync(dir, &err));
        expect_ok(os_dir_sync(dir, &err));
        assert_true(is_there("a"));
        crash();
        forgotten += !is_there("a");
        finish();
    }
    assert_in_range(forgotten, 10, 40);
}

TEST(os_sim, evicted_pages_show_the_platter)
{
    size_t lied = 0;
    for (uint64_t seed = 0; seed < 50; seed++) {
        synced_and_unsynced(seed);
        os_sim_fail(sim, OS_SIM_SYNC, 1, 0, EIO);
        expect_status(DEED_IO, os_file_sync(file, &err));
        size_t direct = count_of(content("log", OS_DIRECT), 'b');

        os_sim_drop_cache(sim);
        assert_int_equal(count_of(content("log", 0), 'b'), direct);
        lied += direct < 8192;
        finish();
    }
    assert_in_range(lied, 25, 50);
}

/* Each kind of operation, as a call whose status is wanted. */
static deed_status do_op(enum os_sim_op op)
{
    struct os_dir *other = NULL;
    struct os_file *opened = NULL;
    struct seen seen = {0};
    char bytes[16];
    size_t size;
    uint64_t file_size;
    deed_status status = DEED_OK;
    switch (op) {
    case OS_SIM_DIR_OPEN:
        status = os_dir_open(os, root, false, &other, &err);
        break;
    case OS_SIM_DIR_SYNC:
        return os_dir_sync(dir, &err);
    case OS_SIM_DIR_LIST:
        return os_dir_list(dir, see, &seen, &err);
    case OS_SIM_DIR_LOCK:
        return os_dir_lock(dir, &err);
    case OS_SIM_REMOVE:
        return os_remove(dir, "gone", &err);
    case OS_SIM_RENAME:
        return os_rename(dir, "from", "to", &err);
    case OS_SIM_OPEN:
        status = os_file_open(dir, "log", OS_READ, &opened, &err);
        break;
    case OS_SIM_READ:
        return os_file_read(file, 0, bytes, sizeof bytes, &size, &err);
    case OS_SIM_WRITE:
        return os_file_write(file, 0, (deed_bytes){(const uint8_t *)"a", 1}, &err);
    case OS_SIM_SYNC:
        return os_file_sync(file, &err);
    case OS_SIM_SIZE:
        return os_file_size(file, &file_size, &err);
    case OS_SIM_TRUNCATE:
        return os_file_truncate(file, 3, &err);
    case OS_SIM_ANY:
    case OS_SIM_ALLOCATE:
    case OS_SIM_OP_COUNT:
        abort();
    }
    os_dir_close(other);
    os_file_close(opened);
    return status;
}

static void every_op_ready(void)
{
    make_file("gone", "1");
    make_file("from", "2");
    make_file("log", "hello");
}

TEST(os_sim, every_operation_can_be_made_to_fail)
{
    static const struct {
        int error_number;
        deed_status status;
    } errors[] = {{EIO, DEED_IO}, {ENOSPC, DEED_FULL}, {ENOMEM, DEED_NO_MEMORY}};
    for (int op = 0; op < OS_SIM_ANY; op++) {
        for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
            start_sim(5, NULL);
            every_op_ready();
            uint64_t before = os_sim_count(sim, (enum os_sim_op)op);
            os_sim_fail(sim, (enum os_sim_op)op, 1, 0, errors[i].error_number);

            assert_int_equal(do_op((enum os_sim_op)op), errors[i].status);
            expect_message(err, "/data");
            assert_int_equal(do_op((enum os_sim_op)op), DEED_OK);
            assert_int_equal(os_sim_count(sim, (enum os_sim_op)op), before + 2);
            finish();
        }
    }
}

TEST(os_sim, a_plan_begins_at_its_number_and_lasts_as_asked)
{
    start_sim(5, NULL);
    make_file("log", "hello");
    os_sim_fail(sim, OS_SIM_READ, 3, 1, EIO);
    static const deed_status wanted[] = {DEED_OK, DEED_OK, DEED_IO, DEED_IO, DEED_OK};
    for (size_t i = 0; i < 5; i++)
        assert_int_equal(do_op(OS_SIM_READ), wanted[i]);

    os_sim_fail(sim, OS_SIM_ANY, 2, DEED_NONE, ENOSPC);
    expect_ok(do_op(OS_SIM_READ));
    expect_status(DEED_FULL, do_op(OS_SIM_SIZE));
    for (int i = 0; i < 20; i++)
        expect_status(DEED_FULL, do_op(OS_SIM_READ));
    os_sim_heal(sim);
    expect_ok(do_op(OS_SIM_READ));
    finish();
}

TEST(os_sim, a_failed_write_has_written_a_part)
{
    size_t none = 0, part = 0;
    for (uint64_t seed = 0; seed < 50; seed++) {
        start_sim(seed, NULL);
        open_file("log", OS_WRITE | OS_CREATE);
        os_sim_fail(sim, OS_SIM_WRITE, 1, 0, ENOSPC);
        uint8_t bytes[8] = {1, 2, 3, 4, 5, 6, 7, 8};
        expect_status(DEED_FULL, os_file_write(file, 0, (deed_bytes){bytes, 8}, &err));
        deed_str all = content("log", 0);
        assert_in_range(all.len, 0, 8);
        if (all.len > 0) assert_memory_equal(all.ptr, bytes, all.len);
        none += all.len == 0;
        part += all.len > 0 && all.len < 8;
        finish();
    }
    assert_in_range(none, 1, 50);
    assert_in_range(part, 1, 50);
}

TEST(os_sim, chances_strike_single_operations)
{
    struct os_sim_faults faults = {.ppm = {[OS_SIM_READ_ERROR] = 1000000,
                                           [OS_SIM_WRITE_ERROR] = 1000000,
                                           [OS_SIM_SYNC_ERROR] = 1000000,
                                           [OS_SIM_SLOW] = 1000000}};
    start_sim(5, &faults);
    uint64_t before = os_ticks_ns(os);
    open_file("log", OS_WRITE | OS_CREATE);
    expect_status(DEED_IO, do_op(OS_SIM_READ));
    expect_status(DEED_IO, do_op(OS_SIM_WRITE));
    expect_status(DEED_IO, do_op(OS_SIM_SYNC));
    expect_status(DEED_IO, do_op(OS_SIM_DIR_SYNC));
    assert_true(os_ticks_ns(os) > before);
    os_sim_heal(sim);
    expect_ok(do_op(OS_SIM_WRITE));
    expect_ok(do_op(OS_SIM_SYNC));
    finish();

    faults = (struct os_sim_faults){.ppm = {[OS_SIM_DISK_FULL] = 1000000}};
    start_sim(5, &faults);
    open_file("log", OS_WRITE | OS_CREATE);
    expect_status(DEED_FULL, do_op(OS_SIM_WRITE));
    finish();
}

TEST(os_sim, a_disk_is_full_at_its_capacity)
{
    start_sim(5, NULL);
    make_file("other", "12345");
    open_file("log", OS_WRITE | OS_CREATE);
    os_sim_set_capacity(sim, 105);
    fill_at(0, 'a', 99);
    fill_at(99, 'b', 1);

    expect_status(DEED_FULL, os_file_write(file, 100, (deed_bytes){(const uint8_t *)"c", 1}, &err));
    expect_message(err, "No space left on device");
    expect_status(DEED_FULL, os_file_truncate(file, 101, &err));
    assert_int_equal(size_of(file), 100);
    fill_at(0, 'd', 100); /* what is there can be rewritten */

    expect_ok(os_remove(dir, "other", &err));
    fill_at(100, 'c', 5);
    finish();
}

TEST(os_sim, a_write_over_the_capacity_writes_what_fits)
{
    start_sim(5, NULL);
    open_file("log", OS_WRITE | OS_CREATE);
    os_sim_set_capacity(sim, 10);
    expect_status(DEED_FULL,
                  os_file_write(file, 0, (deed_bytes){(const uint8_t *)"0123456789abc", 13}, &err));
    expect_str(content("log", 0), "0123456789");
    finish();
}

TEST(os_sim, without_power_nothing_works_until_the_crash)
{
    start_sim(5, NULL);
    make_file("log", "hello");
    expect_ok(os_dir_sync(dir, &err));
    os_sim_power_off_after(sim, 2);
    expect_ok(do_op(OS_SIM_READ));
    write_at(0, "jelly");
    assert_true(os_sim_powered(sim));

    expect_status(DEED_IO, os_file_sync(file, &err));
    expect_message(err, "the power is off");
    assert_false(os_sim_powered(sim));
    struct os_dir *none = NULL;
    expect_status(DEED_IO, os_dir_open(os, root, true, &none, &err));
    crash();
    assert_int_equal(content("log", 0).len, 5);
    finish();
}

/* Two plans hold side by side, and neither brings back the power that the other took. */
TEST(os_sim, the_power_that_is_off_stays_off)
{
    start_sim(5, NULL);
    make_file("log", "hello");
    os_sim_power_off_after(sim, 1);
    os_sim_power_off_at(sim, OS_SIM_SYNC, 1, 3);
    expect_ok(do_op(OS_SIM_READ));
    expect_status(DEED_IO, os_file_sync(file, &err));
    expect_status(DEED_IO, os_file_sync(file, &err));
    os_sim_power_off_after(sim, 3);
    expect_status(DEED_IO, os_file_sync(file, &err));
    os_sim_power_off_after(sim, DEED_NONE);
    expect_ok(os_file_sync(file, &err));

    os_sim_power_off_at(sim, OS_SIM_SYNC, 1, 0);
    os_sim_power_off_after(sim, 9);
    expect_ok(os_file_sync(file, &err)); /* the later call took the plan's place */
    finish();
}

TEST(os_sim, handles_die_in_a_crash)
{
    start_sim(5, NULL);
    every_op_ready();
    os_sim_crash(sim);
    for (int op = OS_SIM_DIR_SYNC; op < OS_SIM_ANY; op++) {
        assert_int_equal(do_op((enum os_sim_op)op), DEED_IO);
        expect_message(err, "opened before the machine crashed");
    }
    expect_ok(do_op(OS_SIM_DIR_OPEN));
    finish();
}

TEST(os_sim, a_lock_dies_in_a_crash)
{
    start_sim(5, NULL);
    expect_ok(os_dir_lock(dir, &err));
    crash();
    expect_ok(os_dir_lock(dir, &err));
    finish();
}

TEST(os_sim, a_killed_process_loses_no_writes)
{
    for (uint64_t seed = 0; seed < 50; seed++) {
        start_sim(seed, NULL);
        open_file("log", OS_WRITE | OS_CREATE);
        write_at(0, "hello");
        os_sim_kill(sim);
        expect_status(DEED_IO, do_op(OS_SIM_READ));
        os_dir_close(dir);
        open_root();
        expect_str(content("log", 0), "hello");
        finish();
    }
}

TEST(os_sim, rot_is_on_the_platter_and_seen_after_a_crash)
{
    start_sim(5, NULL);
    const size_t sector = os_sim_sector_size(sim);
    open_file("log", OS_WRITE | OS_CREATE);
    fill_at(0, 'a', 4 * sector);
    expect_ok(os_file_sync(file, &err));
    fill_at(2 * sector, 'c', sector);
    expect_ok(os_file_sync(file, &err));
    expect_ok(os_dir_sync(dir, &err));

    expect_ok(os_sim_rot(sim, "/data/log", 10, OS_SIM_ROT_FLIP));
    expect_ok(os_sim_rot(sim, "/data/log", sector + 5, OS_SIM_ROT_ZERO));
    expect_ok(os_sim_rot(sim, "/data/log", 2 * sector, OS_SIM_ROT_STALE));
    assert_int_equal(count_of(content("log", 0), 'a'), 3 * sector);
    assert_int_equal(count_of(content("log", 0), 'c'), sector);

    crash();
    deed_str all = content("log", 0);
    assert_int_equal(all.len, 4 * sector);
    assert_int_equal(count_of((deed_str){all.ptr, sector}, 'a'), sector - 1);
    assert_int_not_equal(all.ptr[10], 'a');
    assert_int_equal(count_of((deed_str){all.ptr + sector, sector}, 0), sector);
    assert_int_equal(count_of((deed_str){all.ptr + 2 * sector, 2 * sector}, 'a'), 2 * sector);
    finish();
}

TEST(os_sim, a_misdirected_write_damages_two_sectors)
{
    start_sim(6, NULL);
    const size_t sector = os_sim_sector_size(sim);
    open_file("log", OS_WRITE | OS_CREATE);
    fill_at(0, 'a', 2 * sector);
    expect_ok(os_file_sync(file, &err));
    fill_at(0, 'b', sector);
    expect_ok(os_file_sync(file, &err));

    expect_ok(os_sim_misdirect(sim, "/data/log", 0, "/data/log", sector));
    os_sim_drop_cache(sim);
    deed_str all = content("log", 0);
    assert_int_equal(count_of((deed_str){all.ptr, sector}, 'a'), sector);
    assert_int_equal(count_of((deed_str){all.ptr + sector, sector}, 'b'), sector);
    finish();
}

TEST(os_sim, rot_needs_a_file_that_reaches_there)
{
    start_sim(6, NULL);
    make_file("log", "hello");
    expect_status(DEED_NOT_FOUND, os_sim_rot(sim, "/data/nothing", 0, OS_SIM_ROT_FLIP));
    expect_status(DEED_NOT_FOUND, os_sim_rot(sim, "/nowhere/log", 0, OS_SIM_ROT_FLIP));
    expect_status(DEED_NOT_FOUND, os_sim_rot(sim, "/data", 0, OS_SIM_ROT_FLIP));
    expect_status(DEED_NOT_FOUND, os_sim_rot(sim, "/data/log", 5, OS_SIM_ROT_FLIP));
    expect_ok(os_sim_rot(sim, "/data/log", 4, OS_SIM_ROT_FLIP));
    expect_status(DEED_NOT_FOUND, os_sim_misdirect(sim, "/data/log", 0, "/data/log", 5));
    finish();
}

TEST(os_sim, the_clock_stands_still_until_advanced)
{
    start_sim(6, NULL);
    int64_t now = os_now_ns(os);
    uint64_t ticks = os_ticks_ns(os);
    make_file("log", "hello");
    assert_int_equal(os_now_ns(os), now);

    os_sim_advance(sim, 1500);
    assert_int_equal(os_now_ns(os), now + 1500);
    assert_int_equal(os_ticks_ns(os), ticks + 1500);
    os_sim_set_clock(sim, now - 1000000);
    assert_int_equal(os_now_ns(os), now - 1000000);
    assert_int_equal(os_ticks_ns(os), ticks + 1500);
    finish();
}

TEST(os_sim, a_description_names_the_seed_and_the_crash)
{
    struct os_sim_faults faults = {
        .ppm = {[OS_SIM_LOST_WRITE] = 1000000, [OS_SIM_LOST_NAME] = 1000000}};
    start_sim(41, &faults);
    make_file("log", "hello");
    crash();
    const char *text = os_sim_describe(sim);
    assert_non_null(strstr(text, "seed 41,"));
    assert_non_null(strstr(text, "boot 2"));
    assert_non_null(strstr(text, "last crash: lost writes, lost names"));
    finish();
}

TEST(os_sim, sectors_are_of_either_size)
{
    size_t small = 0;
    for (uint64_t seed = 0; seed < 40; seed++) {
        start_sim(seed, NULL);
        small += os_sim_sector_size(sim) == 512;
        finish();
    }
    assert_in_range(small, 8, 32);
}

TEST_MAIN(os)
