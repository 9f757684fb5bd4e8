/* test_config.c - options from three sources. */
#include "test.h"

#include "server/config.h"

#include <unistd.h>

static struct config config;
static struct deed_error error;

static void begin(void)
{
    config_done(&config);
    error = (struct deed_error){0};
    expect_ok(config_init(&config, &error));
}

static deed_status load(const char *text)
{
    char path[] = "/tmp/deedbook-config-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    deed_status status = config_load_file(&config, path, &error);
    unlink(path);
    return status;
}

static deed_status environment(const char *one)
{
    char *variables[] = {"HOME=/root", (char *)(uintptr_t)one, "DEEDBOOKX=1", NULL};
    return config_load_environment(&config, variables, &error);
}

TEST(config, defaults_are_those_of_the_table)
{
    begin();
    assert_string_equal(config.data, "data");
    assert_int_equal(config.listen.count, 1);
    assert_string_equal(config.listen.items[0], "127.0.0.1:2113");
    assert_int_equal(config.body_size_max, 33 << 20);
    assert_int_equal(config.header_timeout, 10000);
    assert_true(config.reload);
    assert_false(config.unsafe_no_sync);
    for (size_t i = 0; i < CONFIG_OPTION_COUNT; i++) {
        assert_int_equal(config.sources[i], CONFIG_FROM_DEFAULT);
        assert_true(strlen(config_options[i].help) > 0);
    }
}

TEST(config, every_value_type_is_read)
{
    begin();
    expect_ok(load("# a comment\n\n  body-size-max =  1 MiB \nheader-timeout=250ms\r\n"
                   "connection-count-max = 12\nreload = off\ndata = /tmp/a b\nidle-timeout = 2m"));
    assert_int_equal(config.body_size_max, 1 << 20);
    assert_int_equal(config.header_timeout, 250);
    assert_int_equal(config.connection_count_max, 12);
    assert_false(config.reload);
    assert_string_equal(config.data, "/tmp/a b");
    assert_int_equal(config.idle_timeout, 120000);
}

TEST(config, the_stronger_source_wins_in_any_order)
{
    begin();
    expect_ok(config_set(&config, "data", "cli", CONFIG_FROM_COMMAND_LINE, &error));
    expect_ok(environment("DEEDBOOK_DATA=env"));
    expect_ok(load("data = file\npool-threads = 3\n"));
    assert_string_equal(config.data, "cli");
    assert_int_equal(config.pool_threads, 3);
    expect_ok(environment("DEEDBOOK_POOL_THREADS=5"));
    assert_int_equal(config.pool_threads, 5);
    begin();
    expect_ok(load("data = file\n"));
    assert_string_equal(config.data, "file");
    expect_ok(environment("DEEDBOOK_DATA=env"));
    assert_string_equal(config.data, "env");
    expect_ok(config_set(&config, "data", "cli", CONFIG_FROM_COMMAND_LINE, &error));
    assert_string_equal(config.data, "cli");
}

TEST(config, a_list_is_replaced_as_a_whole)
{
    begin();
    expect_ok(load("listen = 127.0.0.1:1\nlisten = [::1]:2\n"));
    assert_int_equal(config.listen.count, 2);
    expect_ok(environment("DEEDBOOK_LISTEN=127.0.0.1:3, 127.0.0.1:4,0.0.0.0:5"));
    assert_int_equal(config.listen.count, 3);
    assert_string_equal(config.listen.items[1], "127.0.0.1:4");
    expect_ok(config_set(&config, "listen", "7", CONFIG_FROM_COMMAND_LINE, &error));
    expect_ok(config_set(&config, "listen", "8", CONFIG_FROM_COMMAND_LINE, &error));
    expect_ok(load("listen = 127.0.0.1:1\n"));
    assert_int_equal(config.listen.count, 2);
    assert_string_equal(config.listen.items[0], "7");
    for (int i = 2; i < CONFIG_LIST_MAX; i++) {
        expect_ok(config_set(&config, "listen", "9", CONFIG_FROM_COMMAND_LINE, &error));
    }
    expect_status(DEED_INVALID,
                  config_set(&config, "listen", "9", CONFIG_FROM_COMMAND_LINE, &error));
    expect_message(error, "more than 16 times");
}

TEST(config, mistakes_name_file_and_line)
{
    begin();
    expect_status(DEED_INVALID, load("data = x\n\nlisen = 1\n"));
    expect_message(error, "line 3: no option \"lisen\"");
    expect_message(error, "/tmp/deedbook-config-");
    expect_status(DEED_INVALID, load("just words\n"));
    expect_message(error, "line 1: \"just words\" is not key = value");
    expect_status(DEED_INVALID, load("body-size-max = 12 parsecs\n"));
    expect_message(error, "body-size-max: \"12 parsecs\" is not a size");
    expect_status(DEED_INVALID, load("header-timeout = soon\n"));
    expect_message(error, "is not a time");
    expect_status(DEED_INVALID, load("pool-threads = 0\n"));
    expect_message(error, "pool-threads: 0 is not within 1 and 1024");
    expect_status(DEED_INVALID, load("reload = maybe\n"));
    expect_message(error, "neither true nor false");
    expect_status(DEED_INVALID, load("body-size-max = 99999999999999999999\n"));
    expect_status(DEED_INVALID, load("body-size-max = 18446744073709551615GiB\n"));
    expect_status(DEED_INVALID, load("data =\n"));
    expect_message(error, "data: 0 bytes");
    expect_status(DEED_NOT_FOUND, config_load_file(&config, "/nowhere/at/all", &error));
    expect_message(error, "/nowhere/at: ");
}

TEST(config, a_wrong_value_is_an_error_even_where_a_stronger_source_has_it)
{
    begin();
    expect_ok(config_set(&config, "pool-threads", "2", CONFIG_FROM_COMMAND_LINE, &error));
    expect_status(DEED_INVALID, load("pool-threads = many\n"));
}

TEST(config, variables_are_named_in_errors_and_unknown_ones_are_listed)
{
    begin();
    expect_status(DEED_INVALID, environment("DEEDBOOK_LISTEN=nowhere"));
    expect_message(error, "DEEDBOOK_LISTEN: listen: \"nowhere\" is not ADDRESS:PORT");
    expect_ok(environment("DEEDBOOK_LISEN=1"));
    assert_int_equal(config.unknown_variables.count, 1);
    assert_string_equal(config.unknown_variables.items[0], "DEEDBOOK_LISEN");
}

TEST(config, a_boolean_alone_is_true_and_others_want_a_value)
{
    begin();
    expect_ok(config_set(&config, "unsafe-no-sync", NULL, CONFIG_FROM_COMMAND_LINE, &error));
    assert_true(config.unsafe_no_sync);
    expect_status(DEED_INVALID, config_set(&config, "data", NULL, CONFIG_FROM_COMMAND_LINE, &error));
    expect_message(error, "data: a value is missing");
    expect_status(DEED_INVALID, config_set(&config, "dta", NULL, CONFIG_FROM_COMMAND_LINE, &error));
    expect_message(error, "no option \"dta\"");
}

static void expect_address(const char *text, const char *host, uint16_t port)
{
    struct arena arena;
    arena_init(&arena, 8192);
    const char *out_host;
    uint16_t out_port;
    expect_ok(config_address(text, &arena, &out_host, &out_port, &error));
    assert_string_equal(out_host, host);
    assert_int_equal(out_port, port);
    arena_done(&arena);
}

TEST(config, addresses_are_split)
{
    expect_address("127.0.0.1:2113", "127.0.0.1", 2113);
    expect_address("[::1]:80", "::1", 80);
    expect_address("localhost:0", "localhost", 0);
    expect_address("65535", "127.0.0.1", 65535);
    const char *const bad[] = {"",       ":80",         "127.0.0.1:", "127.0.0.1:65536",
                               "::1:80", "127.0.0.1:x", "[]:80",      "host"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct arena arena;
        arena_init(&arena, 8192);
        const char *host;
        uint16_t port;
        expect_status(DEED_INVALID, config_address(bad[i], &arena, &host, &port, &error));
        expect_message(error, "is not ADDRESS:PORT");
        arena_done(&arena);
    }
}

TEST_MAIN(config)
