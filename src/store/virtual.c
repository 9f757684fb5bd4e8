/* virtual.c - streams that are nobody's: lists of the index, read as streams.
 *
 *   $ce-order ──► category "order" ──► 2  5  6  9 ...     positions in the log
 *                                      0  1  2  3         revisions of $ce-order
 *
 * (1) Nothing is stored for them: their events are the events that the list's positions lead to, and a
 *     revision is a place in the list. The list ascends and is only added to, so a revision once seen
 *     stays, over sealing, merging, compaction (a stub keeps its terms) and restart. What damage does
 *     to it is in docs/decisions/0022-virtual-streams.md.
 * (2) Nobody writes to them: neither events nor metadata, and no condition may be about them. So they
 *     have no retention, and are never deleted. */
#include "store/store_state.h"

#include "base/text.h"
#include "base/uuid.h"

#include <assert.h>

static const struct {
    deed_str prefix;
    enum index_kind kind;
} prefixes[] = {
    {{"$ce-", 4}, INDEX_CATEGORY},
    {{"$et-", 4}, INDEX_TYPE},
    {{"$bc-", 4}, INDEX_CORRELATION},
};

struct stream_list stream_list_of(deed_str stream)
{
    if (!index_is_system(stream)) return (struct stream_list){INDEX_STREAM, stream};
    if (deed_str_equal(stream, DEED_STR("$streams"))) {
        return (struct stream_list){INDEX_SYSTEM, DEED_STR(INDEX_FIRST_TERM)};
    }
    for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++) {
        if (!str_starts_with(stream, prefixes[i].prefix)) continue;
        size_t size = prefixes[i].prefix.len;
        return (struct stream_list){prefixes[i].kind, {stream.ptr + size, stream.len - size}};
    }
    return (struct stream_list){INDEX_STREAM, stream};
}

bool store_is_virtual(deed_str stream)
{
    return stream_list_of(stream).kind != INDEX_STREAM;
}

deed_status stream_writable(deed_str stream, struct deed_error *err)
{
    deed_str name = stream;
    if (str_starts_with(name, DEED_STR(METADATA_PREFIX))) { /* (2) */
        name = (deed_str){name.ptr + 2, name.len - 2};
    }
    if (!store_is_virtual(name)) return DEED_OK;
    return deed_fail(err, DEED_INVALID,
                     "stream %.*s is virtual: it shows events of other streams, and has neither "
                     "events nor metadata of its own",
                     DEED_FMT(str_beginning(name, 100)));
}

deed_uuid store_link_id(struct store *store, deed_str stream, uint64_t revision)
{
    char number[1 + U64_TEXT_SIZE] = "@";
    size_t size = 1 + u64_format(revision, number + 1);
    deed_bytes name[] = {deed_bytes_of(stream), {(const uint8_t *)number, size}};
    return uuid_v5(log_id(store->log), name, 2);
}

bool store_link_parse(deed_bytes data, deed_str *out_stream, uint64_t *out_revision)
{
    const char *text = (const char *)data.ptr;
    const char *at = data.len == 0 ? NULL : memchr(text, '@', data.len);
    if (at == NULL) return false;
    deed_str number = {text, (size_t)(at - text)};
    deed_str stream = {at + 1, data.len - number.len - 1}; /* names may have the sign, too */
    if (stream.len == 0 || !text_u64(number, out_revision)) return false;
    *out_stream = stream;
    return true;
}

struct deed_event store_link_event(struct store *store, const struct deed_event *event,
                                   char data[STORE_LINK_DATA_SIZE_MAX])
{
    assert(event->link_stream.ptr != NULL);
    assert(event->stream.len <= UINT16_MAX);
    size_t size = u64_format(event->revision, data);
    data[size++] = '@';
    memcpy(data + size, event->stream.ptr, event->stream.len);
    size += event->stream.len;
    return (struct deed_event){
        .position = event->position,
        .revision = event->link_revision,
        .id = store_link_id(store, event->link_stream, event->link_revision),
        .time_ns = event->time_ns,
        .recorded_at_ns = event->recorded_at_ns,
        .stream = event->link_stream,
        .type = DEED_STR(STORE_LINK_TYPE),
        .content_type = DEED_STR(STORE_LINK_CONTENT_TYPE),
        .data = {(const uint8_t *)data, size},
    };
}
