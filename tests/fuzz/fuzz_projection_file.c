/* fuzz_projection_file.c - any text: loading it answers, its tokens are the text again, and what
 * was accepted is accepted a second time with the same hash. */
#include "projection/projection_file.h"
#include "fuzz/must.h"

#include <stdio.h>
#include <stdlib.h>

static void check_tokens(deed_str text)
{
    struct sql_token token;
    for (size_t at = 0; sql_token_at(text, at, &token) == NULL; at += token.text.len) {
        must(token.text.ptr == text.ptr + at, "a token begins where the last one ended");
        must(token.text.len <= text.len - at, "a token ends inside the text");
        if (token.kind == SQL_TOKEN_END) return;
        must(token.text.len > 0, "a token is not empty");
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    deed_str text = {(const char *)bytes, size};
    check_tokens(text);

    struct projection_file *file = NULL, *again = NULL;
    struct deed_error err = {0};
    deed_status status = projection_file_load(os_real(), DEED_STR("f"), text, &file, &err);
    if (status != DEED_OK) {
        must(err.status == status && err.message[0] != '\0', "a refusal has a reason");
        return 0;
    }
    must(file->table_count > 0 && file->reaction_count > 0, "an accepted file does something");
    for (size_t i = 0; i < file->statement_count; i++) {
        must(memchr(file->statements[i].sql.text.ptr, 0, file->statements[i].sql.text.len) == NULL,
             "a statement has no NUL");
    }
    status = projection_file_load(os_real(), DEED_STR("f"), file->text, &again, &err);
    must(status == DEED_OK, "the same text is accepted again");
    must(memcmp(file->hash, again->hash, SHA256_SIZE) == 0, "the same text has the same hash");
    projection_file_free(file);
    projection_file_free(again);
    return 0;
}
