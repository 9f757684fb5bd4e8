/* events.c - events as a target sends them. */
#include "cli/events.h"

#include "base/text.h"

#include <inttypes.h>
#include <string.h>

/* ---- the filter's options -----------------------------------------------------------------------
 */

enum {
    KEY_TYPE = 0x200,
    KEY_TAG,
    KEY_CATEGORY,
    KEY_STREAM,
    KEY_CORRELATION,
    KEY_FROM_TIME,
    KEY_TO_TIME,
    KEY_SYSTEM,
};

static const struct argp_option filter_options[] = {
    {"type", KEY_TYPE, "TYPE", 0, "only events of this type (may repeat: any of them)", 0},
    {"tag", KEY_TAG, "TAG", 0, "only events with this tag (may repeat: all of them)", 0},
    {"category", KEY_CATEGORY, "NAME", 0, "only streams of this category (may repeat)", 0},
    {"stream", KEY_STREAM, "STREAM", 0, "only these streams of the log (may repeat)", 0},
    {"correlation", KEY_CORRELATION, "ID", 0, "only events with this correlation id (may repeat)",
     0},
    {"from-time", KEY_FROM_TIME, "TIME", 0, "recorded at or after this RFC 3339 time", 0},
    {"to-time", KEY_TO_TIME, "TIME", 0, "recorded before this time", 0},
    {"system", KEY_SYSTEM, NULL, 0, "also streams whose name begins with $", 0},
    {0},
};

static error_t filter_parse(int key, char *argument, struct argp_state *state)
{
    struct events_filter *filter = state->input;
    switch (key) {
    case KEY_TYPE:
        cli_list_add(&filter->types, argument);
        return 0;
    case KEY_TAG:
        cli_list_add(&filter->tags, argument);
        return 0;
    case KEY_CATEGORY:
        cli_list_add(&filter->categories, argument);
        return 0;
    case KEY_STREAM:
        cli_list_add(&filter->streams, argument);
        return 0;
    case KEY_CORRELATION:
        cli_list_add(&filter->correlations, argument);
        return 0;
    case KEY_FROM_TIME:
        filter->from_time = argument;
        return 0;
    case KEY_TO_TIME:
        filter->to_time = argument;
        return 0;
    case KEY_SYSTEM:
        filter->system = true;
        return 0;
    case ARGP_KEY_END: {
        bool filters = filter->types.count > 0 || filter->tags.count > 0 ||
                       filter->categories.count > 0 || filter->streams.count > 0 ||
                       filter->correlations.count > 0 || filter->from_time != NULL ||
                       filter->to_time != NULL || filter->system;
        if (filter->stream != NULL && filters) {
            argp_error(state,
                       "a stream is read whole: filters are for the log; "
                       "use --stream %s to filter",
                       filter->stream);
        }
        if (filter->stream != NULL && filter->after != NULL) {
            argp_error(state, "--after is for the log; a stream begins at --from");
        }
        if (filter->stream == NULL && filter->from != NULL) {
            argp_error(state, "--from is for a stream; the log begins at --after");
        }
        return 0;
    }
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

const struct argp events_filter_argp = {.options = filter_options, .parser = filter_parse};
const struct argp_child events_children[] = {
    {&events_filter_argp, 0, "Which events of the log:", 5},
    {&cli_target_argp, 0, "Where, and how to print:", 10},
    {0},
};

error_t events_range_parse(struct events_filter *filter, int key, char *argument,
                           struct argp_state *state)
{
    switch (key) {
    case EVENTS_KEY_FROM:
        filter->from = argument;
        return 0;
    case EVENTS_KEY_AFTER:
        filter->after = argument;
        return 0;
    case EVENTS_KEY_UNTIL:
        filter->until = argument;
        return 0;
    case EVENTS_KEY_LIMIT:
        filter->limit = cli_number(state, "--limit", argument);
        return 0;
    case EVENTS_KEY_BACKWARDS:
        filter->backwards = true;
        return 0;
    case EVENTS_KEY_REMOVED:
        filter->removed = true;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* ---- asking for them ----------------------------------------------------------------------------
 */

static void list_params(struct url *url, const char *name, const struct cli_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        url_param(url, name, list->items[i]);
}

void events_url(struct url *url, const struct events_filter *filter)
{
    if (filter->stream != NULL) {
        url_init(url, "/streams");
        url_part(url, filter->stream);
        url_param(url, "from", filter->from);
    } else {
        url_init(url, "/events");
        url_param(url, "after", filter->after);
        list_params(url, "type", &filter->types);
        list_params(url, "tag", &filter->tags);
        list_params(url, "category", &filter->categories);
        list_params(url, "stream", &filter->streams);
        list_params(url, "correlation", &filter->correlations);
        url_param(url, "from_time", filter->from_time);
        url_param(url, "to_time", filter->to_time);
        if (filter->system) url_param(url, "system", "true");
    }
    url_param(url, "until", filter->until);
    if (filter->backwards) url_param(url, "direction", "backwards");
    if (filter->limit > 0) url_param_uint(url, "limit", filter->limit);
    if (filter->follow) url_param(url, "follow", "true");
    if (filter->exact) url_param(url, "exact", "true");
    if (filter->removed) url_param(url, "removed", "true");
}

deed_status events_read(struct target *target, const struct events_filter *filter,
                        splitter_line *line, void *context, struct deed_error *err)
{
    struct url url;
    events_url(&url, filter);
    struct request request = {.method = "GET",
                              .path = url_text(&url),
                              .accept = DEED_STR("application/x-ndjson"),
                              .follows = filter->follow};
    deed_status status = target_lines(target, &request, line, context, err);
    url_done(&url);
    return status;
}

/* ---- one event ----------------------------------------------------------------------------------
 */

static uint64_t number_of(json_value event, const char *key)
{
    json_value value = json_get(event, deed_str_of(key));
    uint64_t number = DEED_NONE;
    if (json_uint64(value, &number)) return number;
    return text_u64(json_text(value), &number) ? number : DEED_NONE;
}

static deed_str text_of(json_value event, const char *key)
{
    return json_text(json_get(event, deed_str_of(key)));
}

/* What was indented when it came is one line in a table. Without memory: as it came. */
static deed_str data_compact(struct arena *arena, json_value data)
{
    struct buf text;
    buf_init(&text, json_raw(data).len + 1);
    out_json_add(&text, data);
    deed_str copy = buf_ok(&text) ? arena_str(arena, buf_str(&text)) : (deed_str){0};
    buf_done(&text);
    return copy.ptr != NULL ? copy : json_raw(data);
}

deed_status events_parse(struct arena *arena, deed_str line, bool for_people,
                         struct events_view *out_view, struct deed_error *err)
{
    json_value event;
    /* The data may be as deep as the server's limit, whatever that is set to. */
    deed_status status = json_parse(arena, deed_bytes_of(line), 1024, &event, err);
    if (status != DEED_OK) {
        deed_wrap(err, "the answer holds a line that is no event");
        return status;
    }
    json_value data = json_get(event, DEED_STR("data"));
    json_value base64 = json_get(event, DEED_STR("data_base64"));
    bool linked = json_kind_of(json_get(event, DEED_STR("linkstream"))) != JSON_NONE;
    *out_view = (struct events_view){
        .stream = text_of(event, "subject"),
        .type = text_of(event, "type"),
        .id = text_of(event, "id"),
        .time = text_of(event, "time"),
        .tags = text_of(event, "tags"),
        .correlation = text_of(event, "correlationid"),
        .causation = text_of(event, "causationid"),
        .actor = text_of(event, "actor"),
        .data = json_text(base64),
        .position = number_of(event, "position"),
        .revision = number_of(event, "revision"),
        .place = number_of(event, linked ? "linkrevision" : "revision"),
        .removed = json_kind_of(json_get(event, DEED_STR("removed"))) == JSON_TRUE,
    };
    if (out_view->removed) out_view->data = DEED_STR("(removed)");
    if (for_people && json_kind_of(data) != JSON_NONE) out_view->data = data_compact(arena, data);
    return DEED_OK;
}

deed_str events_time_short(deed_str time, char out[32])
{
    if (time.len < 23 || time.ptr[10] != 'T' || time.ptr[19] != '.') return time;
    memcpy(out, time.ptr, 23);
    out[10] = ' ';
    return (deed_str){out, 23};
}

struct out_table *events_table_create(void)
{
    static const struct out_column columns[] = {
        {"POSITION", OUT_RIGHT}, {"STREAM", 0}, {"REVISION", OUT_RIGHT}, {"TYPE", 0}, {"TIME", 0},
        {"DATA", OUT_CUT},
    };
    return out_table_create(columns, sizeof columns / sizeof columns[0]);
}

void events_table_row(struct out_table *table, const struct events_view *view)
{
    char time[32];
    out_table_row(table);
    out_table_cell(table, "%" PRIu64, view->position);
    out_table_text(table, view->stream);
    out_table_cell(table, "%" PRIu64, view->revision);
    out_table_text(table, view->type);
    out_table_text(table, events_time_short(view->time, time));
    out_table_text(table, view->data);
}

void events_print_line(FILE *file, const struct events_view *view)
{
    char time[32];
    fprintf(file, "%s%" PRIu64 "%s  ", out_start(file, OUT_DIM), view->position, out_stop(file));
    out_text(file, view->stream);
    fprintf(file, "@%" PRIu64 "  %s", view->revision, out_start(file, OUT_BOLD));
    out_text(file, view->type);
    fprintf(file, "%s  %s", out_stop(file), out_start(file, OUT_DIM));
    out_text(file, events_time_short(view->time, time));
    fprintf(file, "%s  ", out_stop(file));
    out_text(file, view->data);
    fputc('\n', file);
}
