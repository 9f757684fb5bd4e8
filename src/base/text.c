/* text.c - small, strict, table free. */
#include "base/text.h"

/* How many bytes there are before the first one that is wrong. */
static inline size_t utf8_valid_size(deed_bytes bytes)
{
    const uint8_t *p = bytes.ptr;
    size_t left = bytes.len;
    while (left > 0) {
        if (left >= 8) {
            uint64_t eight;
            memcpy(&eight, p, 8);
            if ((eight & UINT64_C(0x8080808080808080)) == 0) {
                p += 8;
                left -= 8;
                continue;
            }
        }
        uint8_t lead = *p;
        size_t size = lead < 0x80 ? 1 : lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
        if (size == 0 || lead > 0xf4 || size > left) break;
        size_t good = 1;
        while (good < size && (p[good] & 0xc0) == 0x80) good++;
        if (good < size) break;
        if (lead == 0xe0 && p[1] < 0xa0) break; /* overlong */
        if (lead == 0xed && p[1] > 0x9f) break; /* surrogate */
        if (lead == 0xf0 && p[1] < 0x90) break; /* overlong */
        if (lead == 0xf4 && p[1] > 0x8f) break; /* past U+10FFFF */
        p += size;
        left -= size;
    }
    return bytes.len - left;
}

bool utf8_valid(deed_bytes bytes)
{
    return utf8_valid_size(bytes) == bytes.len;
}

deed_str str_beginning(deed_str s, size_t size_max)
{
    if (s.len > size_max) s.len = size_max;
    s.len = utf8_valid_size(deed_bytes_of(s));
    return s;
}

/* Two digits a division: an event that is read has its time in it, seventeen digits. */
size_t u64_format(uint64_t value, char out[U64_TEXT_SIZE])
{
    static const char pairs[] = "0001020304050607080910111213141516171819"
                                "2021222324252627282930313233343536373839"
                                "4041424344454647484950515253545556575859"
                                "6061626364656667686970717273747576777879"
                                "8081828384858687888990919293949596979899";
    char digits[U64_TEXT_SIZE];
    size_t at = sizeof digits;
    for (; value >= 100; value /= 100) memcpy(digits + (at -= 2), pairs + value % 100 * 2, 2);
    if (value >= 10) {
        memcpy(digits + (at -= 2), pairs + value * 2, 2);
    } else {
        digits[--at] = (char)('0' + value);
    }
    memcpy(out, digits + at, sizeof digits - at);
    return sizeof digits - at;
}

bool text_u64(deed_str text, uint64_t *out)
{
    if (text.len == 0) return false;
    uint64_t value = 0;
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        if (c < '0' || c > '9') return false;
        if (__builtin_mul_overflow(value, UINT64_C(10), &value)) return false;
        if (__builtin_add_overflow(value, (uint64_t)(c - '0'), &value)) return false;
    }
    *out = value;
    return true;
}

bool text_i64(deed_str text, int64_t *out)
{
    bool negative = text.len > 0 && text.ptr[0] == '-';
    uint64_t magnitude;
    if (!text_u64(negative ? (deed_str){text.ptr + 1, text.len - 1} : text, &magnitude)) {
        return false;
    }
    if (magnitude > (uint64_t)INT64_MAX + negative) return false;
    *out = negative ? (int64_t)(0 - magnitude) : (int64_t)magnitude;
    return true;
}

static const char base64_digits[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void base64_encode(deed_bytes in, struct buf *out)
{
    for (size_t i = 0; i < in.len; i += 3) {
        size_t n = in.len - i < 3 ? in.len - i : 3;
        uint32_t bits = (uint32_t)in.ptr[i] << 16;
        if (n > 1) bits |= (uint32_t)in.ptr[i + 1] << 8;
        if (n > 2) bits |= in.ptr[i + 2];
        char four[4] = {base64_digits[bits >> 18], base64_digits[bits >> 12 & 63],
                        n > 1 ? base64_digits[bits >> 6 & 63] : '=',
                        n > 2 ? base64_digits[bits & 63] : '='};
        buf_add(out, four, sizeof four);
    }
}

static int base64_value(char c)
{
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

bool base64_decode(deed_str in, struct buf *out)
{
    if (in.len % 4 != 0) return false;
    for (size_t i = 0; i < in.len; i += 4) {
        bool last = i + 4 == in.len;
        size_t pad = 0;
        if (last && in.ptr[i + 3] == '=') pad = in.ptr[i + 2] == '=' ? 2 : 1;
        uint32_t bits = 0;
        for (size_t k = 0; k < 4; k++) {
            int value = k >= 4 - pad ? 0 : base64_value(in.ptr[i + k]);
            if (value < 0) return false;
            bits = bits << 6 | (uint32_t)value;
        }
        if ((pad == 1 && (bits & 0xff) != 0) || (pad == 2 && (bits & 0xffff) != 0)) return false;
        uint8_t three[3] = {(uint8_t)(bits >> 16), (uint8_t)(bits >> 8), (uint8_t)bits};
        buf_add(out, three, 3 - pad);
    }
    return buf_ok(out);
}

void hex_encode(deed_bytes in, struct buf *out)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < in.len; i++) {
        buf_add_byte(out, (uint8_t)digits[in.ptr[i] >> 4]);
        buf_add_byte(out, (uint8_t)digits[in.ptr[i] & 15]);
    }
}

bool str_starts_with(deed_str s, deed_str prefix)
{
    return s.len >= prefix.len && (prefix.len == 0 || memcmp(s.ptr, prefix.ptr, prefix.len) == 0);
}

int str_compare(deed_str a, deed_str b)
{
    size_t shared = a.len < b.len ? a.len : b.len;
    int order = shared == 0 ? 0 : memcmp(a.ptr, b.ptr, shared);
    if (order != 0) return order;
    return a.len == b.len ? 0 : a.len < b.len ? -1 : 1;
}

int str_order(const void *a, const void *b)
{
    return str_compare(*(const deed_str *)a, *(const deed_str *)b);
}
