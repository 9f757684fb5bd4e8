/* test.h - the house's verbs over cmocka.
 *
 *     TEST(arena, a_reset_arena_hands_out_the_same_memory) { … }
 *     TEST_MAIN(arena)
 *
 * Tests register themselves; TEST_MAIN runs those of its file, in order of appearance. A name given
 * on the command line runs only the tests whose name contains it. */
#ifndef TESTS_TEST_H
#define TESTS_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "deedbook.h"

#define TEST_COUNT_MAX 512
static struct CMUnitTest test_list[TEST_COUNT_MAX];
static size_t test_count;

#define TEST(module, title)                                                                \
    static void module##_##title(void **state);                                            \
    __attribute__((constructor)) static void module##_##title##_register(void)             \
    {                                                                                      \
        if (test_count == TEST_COUNT_MAX) abort();                                         \
        test_list[test_count++] = (struct CMUnitTest){                                     \
            .name = #module ": " #title, .test_func = module##_##title};                   \
    }                                                                                      \
    static void module##_##title(void **state __attribute__((unused)))

#define TEST_MAIN(module)                                                                  \
    int main(int argc, char **argv)                                                        \
    {                                                                                      \
        char filter[256];                                                                  \
        (void)snprintf(filter, sizeof filter, "*%s*", argc > 1 ? argv[1] : "");            \
        cmocka_set_test_filter(filter);                                                    \
        return _cmocka_run_group_tests(#module, test_list, test_count, NULL, NULL) != 0;   \
    }

#define expect_ok(call)                                                                    \
    do {                                                                                   \
        deed_status status_ = (call);                                                      \
        if (status_ != DEED_OK) fail_msg("%s: %s", #call, deed_status_name(status_));      \
    } while (0)
#define expect_status(wanted, call)                                                        \
    do {                                                                                   \
        deed_status status_ = (call);                                                      \
        if (status_ != (wanted)) {                                                         \
            fail_msg("%s: %s, not %s", #call, deed_status_name(status_),                   \
                     deed_status_name(wanted));                                            \
        }                                                                                  \
    } while (0)
#define expect_message(err, part)                                                          \
    do {                                                                                   \
        if (strstr((err).message, (part)) == NULL) {                                       \
            fail_msg("message \"%s\" lacks \"%s\"", (err).message, (part));                \
        }                                                                                  \
    } while (0)
#define expect_str(s, text)                                                                \
    do {                                                                                   \
        deed_str s_ = (s);                                                                 \
        assert_int_equal(s_.len, strlen(text));                                            \
        assert_memory_equal(s_.ptr, (text), s_.len);                                       \
    } while (0)

#endif
