/* test_file_cache.c - belongs to src/os/file_cache.c. */
#include "unit/test.h"

#include "os/file_cache.h"
#include "os/os_sim.h"

#include <errno.h>

static struct os_sim *sim;
static struct os_dir *dir;
static struct file_cache *cache;
static struct deed_error err;

static void write_file(const char *name, const char *text)
{
    struct os_file *file = NULL;
    expect_ok(os_file_open(dir, name, OS_WRITE | OS_CREATE, &file, &err));
    expect_ok(os_file_truncate(file, 0, &err));
    expect_ok(os_file_write(file, 0, deed_bytes_of(deed_str_of(text)), &err));
    os_file_close(file);
}

static void start(size_t limit, unsigned files)
{
    sim = os_sim_create(1, NULL);
    expect_ok(os_dir_open(os_sim_os(sim), "/d", true, &dir, &err));
    cache = file_cache_create(limit);
    assert_non_null(cache);
    for (unsigned i = 0; i < files; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "f%u", i);
        write_file(name, name);
    }
}

static void finish(void)
{
    file_cache_destroy(cache);
    os_dir_close(dir);
    os_sim_destroy(sim); /* a handle that is still open is an assertion there */
}

static struct os_file *pinned(const char *name)
{
    struct os_file *file = NULL;
    expect_ok(file_cache_pin(cache, dir, name, &file, &err));
    return file;
}

static void expect_content(struct os_file *file, const char *text)
{
    char bytes[16] = {0};
    size_t got = 0;
    expect_ok(os_file_read(file, 0, bytes, sizeof bytes, &got, &err));
    assert_string_equal(bytes, text);
}

TEST(file_cache, a_file_that_was_used_is_not_opened_again)
{
    start(2, 1);
    file_cache_unpin(cache, pinned("f0"));
    uint64_t opened = os_sim_count(sim, OS_SIM_OPEN);
    struct os_file *file = pinned("f0");
    assert_int_equal(os_sim_count(sim, OS_SIM_OPEN), opened);
    expect_content(file, "f0");
    file_cache_unpin(cache, file);
    finish();
}

TEST(file_cache, the_one_that_was_used_longest_ago_is_closed_first)
{
    start(2, 3);
    file_cache_unpin(cache, pinned("f0"));
    file_cache_unpin(cache, pinned("f1"));
    file_cache_unpin(cache, pinned("f0"));
    file_cache_unpin(cache, pinned("f2"));
    assert_int_equal(file_cache_count(cache), 2);
    uint64_t opened = os_sim_count(sim, OS_SIM_OPEN);
    file_cache_unpin(cache, pinned("f0"));
    assert_int_equal(os_sim_count(sim, OS_SIM_OPEN), opened);
    file_cache_unpin(cache, pinned("f1"));
    assert_int_equal(os_sim_count(sim, OS_SIM_OPEN), opened + 1);
    finish();
}

TEST(file_cache, more_than_the_limit_may_be_pinned_and_are_closed_when_let_go)
{
    struct os_file *files[5];
    start(2, 5);
    for (unsigned i = 0; i < 5; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "f%u", i);
        files[i] = pinned(name);
    }
    assert_int_equal(file_cache_count(cache), 5);
    expect_content(files[0], "f0");
    for (unsigned i = 0; i < 5; i++) file_cache_unpin(cache, files[i]);
    assert_int_equal(file_cache_count(cache), 2);
    finish();
}

TEST(file_cache, a_forgotten_file_serves_who_has_it_and_nobody_else)
{
    start(4, 1);
    struct os_file *old = pinned("f0");
    file_cache_forget(cache, dir, "f0");
    expect_ok(os_remove(dir, "f0", &err));
    write_file("f0", "new");
    struct os_file *new = pinned("f0");
    expect_content(old, "f0");
    expect_content(new, "new");
    file_cache_unpin(cache, old);
    file_cache_unpin(cache, new);
    assert_int_equal(file_cache_count(cache), 1);
    file_cache_forget(cache, dir, "f0");
    assert_int_equal(file_cache_count(cache), 0);
    file_cache_forget(cache, dir, "never");
    finish();
}

TEST(file_cache, what_cannot_be_opened_says_why_and_is_tried_again)
{
    struct os_file *file = NULL;
    start(4, 1);
    expect_status(DEED_NOT_FOUND, file_cache_pin(cache, dir, "none", &file, &err));
    expect_message(err, "none");
    os_sim_fail(sim, OS_SIM_OPEN, 1, 0, EIO);
    expect_status(DEED_IO, file_cache_pin(cache, dir, "f0", &file, &err));
    expect_message(err, "f0");
    file_cache_unpin(cache, pinned("f0"));
    file_cache_unpin(cache, NULL);
    finish();
}

TEST_MAIN(file_cache)
