/* test_serve_sha1.c - belongs to hash.c and serve.c: an OpenSSL that is set up without SHA-1.
 * sanitize: asan
 *
 * The linker puts EVP_MD_fetch below in the place of OpenSSL's (see the Makefile). */
#include "test.h"

#include "base/hash.h"
#include "server/serve.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <unistd.h>

EVP_MD *__real_EVP_MD_fetch(OSSL_LIB_CTX *context, const char *name, const char *properties);
EVP_MD *__wrap_EVP_MD_fetch(OSSL_LIB_CTX *context, const char *name, const char *properties);

EVP_MD *__wrap_EVP_MD_fetch(OSSL_LIB_CTX *context, const char *name, const char *properties)
{
    return strcmp(name, "SHA1") == 0 ? NULL : __real_EVP_MD_fetch(context, name, properties);
}

TEST(serve_sha1, without_sha1_the_chain_can_be_made_and_nothing_is_served)
{
    uint8_t hash[SHA256_SIZE];
    deed_bytes nothing = {0};
    assert_false(sha1_available());
    sha256(&nothing, 1, hash);
    assert_int_equal(hash[0], 0xe3);

    char folder[] = "/tmp/deedbook-sha1-XXXXXX", data[sizeof folder + 5];
    struct config config = {0};
    struct serve_options options = {0};
    struct deed_error error = {0};
    assert_non_null(mkdtemp(folder));
    (void)snprintf(data, sizeof data, "%s/data", folder);
    expect_ok(config_init(&config, &error));
    expect_ok(config_set(&config, "data", data, CONFIG_FROM_DEFAULT, &error));
    expect_ok(config_set(&config, "listen", "127.0.0.1:0", CONFIG_FROM_DEFAULT, &error));
    expect_status(DEED_INVALID, serve_run(&config, &options, &error));
    expect_message(error, "this machine's OpenSSL is set up without SHA-1");
    config_done(&config);
    char command[100];
    (void)snprintf(command, sizeof command, "rm -r %s", folder);
    assert_int_equal(system(command), 0);
}

TEST_MAIN(serve_sha1)
