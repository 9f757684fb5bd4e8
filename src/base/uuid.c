/* uuid.c - RFC 9562, sections 4 and 5. */
#include "base/uuid.h"

#include "base/hash.h"

#include <assert.h>

#include <endian.h>

bool uuid_is_zero(deed_uuid id)
{
    return uuid_equal(id, (deed_uuid){{0}});
}

bool uuid_equal(deed_uuid a, deed_uuid b)
{
    return memcmp(a.bytes, b.bytes, sizeof a.bytes) == 0;
}

static bool dash_before(size_t byte)
{
    return byte == 4 || byte == 6 || byte == 8 || byte == 10;
}

/* The eight digits of four bytes, all at once: each byte of `nibbles` becomes one digit. */
static void hex_of_four(const uint8_t *bytes, char out[8])
{
    const uint64_t ones = UINT64_C(0x0101010101010101);
    uint64_t all = (uint64_t)bytes[0] | (uint64_t)bytes[1] << 16 | (uint64_t)bytes[2] << 32 |
                   (uint64_t)bytes[3] << 48;
    uint64_t nibbles = (all >> 4 & 0x000f * UINT64_C(0x0001000100010001)) |
                       (all & 0x000f * UINT64_C(0x0001000100010001)) << 8;
    uint64_t over_nine = (nibbles + ones * 6) >> 4 & ones;
    uint64_t text = htole64(nibbles + ones * '0' + over_nine * ('a' - '9' - 1));
    memcpy(out, &text, sizeof text);
}

void uuid_format(deed_uuid id, char out[UUID_TEXT_SIZE + 1])
{
    char quarters[4][8];
    for (size_t i = 0; i < 4; i++)
        hex_of_four(id.bytes + 4 * i, quarters[i]);
    memcpy(out, quarters[0], 8);
    memcpy(out + 9, quarters[1], 4);
    memcpy(out + 14, quarters[1] + 4, 4);
    memcpy(out + 19, quarters[2], 4);
    memcpy(out + 24, quarters[2] + 4, 4);
    memcpy(out + 28, quarters[3], 8);
    out[8] = out[13] = out[18] = out[23] = '-';
    out[UUID_TEXT_SIZE] = '\0';
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

bool uuid_parse(deed_str text, deed_uuid *out)
{
    if (text.len != UUID_TEXT_SIZE) return false;
    deed_uuid id;
    size_t at = 0;
    for (size_t i = 0; i < sizeof id.bytes; i++) {
        if (dash_before(i) && text.ptr[at++] != '-') return false;
        int high = hex_value(text.ptr[at++]);
        int low = hex_value(text.ptr[at++]);
        if (high < 0 || low < 0) return false;
        id.bytes[i] = (uint8_t)(high << 4 | low);
    }
    *out = id;
    return true;
}

static deed_uuid versioned(deed_uuid id, uint8_t version)
{
    id.bytes[6] = (uint8_t)((id.bytes[6] & 0x0f) | version << 4);
    id.bytes[8] = (uint8_t)((id.bytes[8] & 0x3f) | 0x80);
    return id;
}

deed_uuid uuid_v7(int64_t now_ns, const uint8_t random[10])
{
    uint64_t ms = now_ns < 0 ? 0 : (uint64_t)now_ns / 1000000;
    deed_uuid id;
    for (size_t i = 0; i < 6; i++) id.bytes[i] = (uint8_t)(ms >> (40 - 8 * i));
    memcpy(id.bytes + 6, random, 10);
    return versioned(id, 7);
}

deed_uuid uuid_v4(const uint8_t random[16])
{
    deed_uuid id;
    memcpy(id.bytes, random, sizeof id.bytes);
    return versioned(id, 4);
}

deed_uuid uuid_v5(deed_uuid space, const deed_bytes *name, size_t part_count)
{
    deed_bytes parts[8] = {{space.bytes, sizeof space.bytes}};
    uint8_t hash[SHA1_SIZE];
    deed_uuid id;
    assert(part_count <= 7);
    for (size_t i = 0; i < part_count; i++) parts[i + 1] = name[i];
    sha1(parts, part_count + 1, hash);
    memcpy(id.bytes, hash, sizeof id.bytes);
    return versioned(id, 5);
}
