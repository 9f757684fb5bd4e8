/* status.c - gRPC puts everything that is not a message into HTTP headers, whose values are printable
 * ASCII: texts are percent-encoded, bytes are base64 under a name that says so.
 *
 * (1) What is encoded never holds a byte that HTTP/2 forbids in a value, whatever the text was. */
#include "grpc/status.h"

#include "base/text.h"

void grpc_percent_encode(deed_str text, struct buf *out)
{
    static const char digits[] = "0123456789ABCDEF";
    size_t plain = 0; /* begin of the bytes that stay as they are */
    for (size_t i = 0; i < text.len; i++) {
        uint8_t byte = (uint8_t)text.ptr[i];
        if (byte >= ' ' && byte <= '~' && byte != '%') continue;
        const char encoded[3] = {'%', digits[byte >> 4], digits[byte & 15]};
        buf_add(out, text.ptr + plain, i - plain);
        buf_add(out, encoded, sizeof encoded);
        plain = i + 1;
    }
    if (plain < text.len) buf_add(out, text.ptr + plain, text.len - plain);
}

void grpc_base64_encode(deed_bytes bytes, struct buf *out)
{
    size_t before = out->len;
    base64_encode(bytes, out);
    while (buf_ok(out) && out->len > before && out->ptr[out->len - 1] == '=') out->len--;
}

bool grpc_base64_decode(deed_str text, struct buf *out)
{
    size_t rest = text.len % 4;
    if (rest == 0) return base64_decode(text, out);
    if (rest == 1 || text.ptr[text.len - 1] == '=') return false;

    struct buf padded;
    buf_init(&padded, text.len + 2);
    buf_add_str(&padded, text);
    buf_add(&padded, "==", 4 - rest);
    bool good = buf_ok(&padded) && base64_decode(buf_str(&padded), out);
    buf_done(&padded);
    return good;
}

bool grpc_timeout_parse(deed_str text, uint64_t *out_ns)
{
    static const struct {
        char unit;
        uint64_t ns;
    } units[] = {
        {'H', UINT64_C(3600000000000)}, {'M', UINT64_C(60000000000)}, {'S', UINT64_C(1000000000)},
        {'m', UINT64_C(1000000)},       {'u', UINT64_C(1000)},        {'n', UINT64_C(1)},
    };
    uint64_t count;
    if (text.len < 2 || text.len > 9) return false;
    if (!text_u64((deed_str){text.ptr, text.len - 1}, &count)) return false;
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        if (units[i].unit != text.ptr[text.len - 1]) continue;
        bool fits = count <= UINT64_MAX / units[i].ns; /* eight digits of hours do not */
        *out_ns = fits ? count * units[i].ns : UINT64_MAX;
        return true;
    }
    return false;
}
