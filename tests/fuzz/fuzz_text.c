/* fuzz_text.c - what base reads from text goes back to the same text.
 *
 * Times, ids and base64: whatever is accepted is printed again and read again, and must be equal. */
#include "base/text.h"
#include "base/timetext.h"
#include "base/uuid.h"

#include <stdlib.h>

static void must(bool holds)
{
    if (!holds) abort();
}

static void check_time(deed_str text)
{
    int64_t time_ns, again_ns;
    if (!time_parse(text, &time_ns)) return;
    char printed[TIME_TEXT_SIZE + 1];
    time_format(time_ns, printed);
    must(time_parse((deed_str){printed, TIME_TEXT_SIZE}, &again_ns));
    must(again_ns == time_ns);
    must(text.len < 10 || date_valid((deed_str){text.ptr, 10}));
}

static void check_uuid(deed_str text)
{
    deed_uuid id, again;
    if (!uuid_parse(text, &id)) return;
    char printed[UUID_TEXT_SIZE + 1];
    uuid_format(id, printed);
    must(uuid_parse((deed_str){printed, UUID_TEXT_SIZE}, &again));
    must(uuid_equal(id, again));
}

/* Strict decoding leaves one text for each value. */
static void check_base64(deed_str text)
{
    struct buf bytes, printed;
    buf_init(&bytes, 1 << 20);
    buf_init(&printed, 1 << 20);
    if (base64_decode(text, &bytes)) {
        base64_encode(buf_bytes(&bytes), &printed);
        must(deed_str_equal(buf_str(&printed), text));
    }
    buf_done(&bytes);
    buf_done(&printed);
}

static void check_numbers(deed_str text)
{
    uint64_t wide;
    int64_t value;
    bool is_wide = text_u64(text, &wide);
    bool is_signed = text_i64(text, &value);
    must(!is_wide || !is_signed || (value >= 0 && (uint64_t)value == wide));
    must(!is_wide || is_signed || wide > INT64_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    deed_str text = {(const char *)data, size};
    check_time(text);
    check_uuid(text);
    check_base64(text);
    check_numbers(text);
    bool whole = utf8_valid((deed_bytes){data, size});
    for (size_t cut = 0; whole && cut < size; cut++) {
        bool boundary = (data[cut] & 0xc0) != 0x80;
        must(utf8_valid((deed_bytes){data, cut}) == boundary);
    }
    return 0;
}
