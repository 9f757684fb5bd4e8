/* routes_openapi.c - the table of routes as OpenAPI 3.1, with the schemas of what goes in and out.
 *
 * (1) Paths, methods, parameters, bodies and statuses come from the table and from nowhere else. */
#include <stdio.h>

#include "api/reply.h"
#include "base/text.h"

/* JSON written as it is: the preprocessor makes it a string, without looking for macros in it. */
#define TEXT(...) #__VA_ARGS__

static const struct {
    const char *name, *schema;
} schemas[] = {
    {"Event", TEXT({
         "type": "object",
         "description": "a CloudEvent 1.0; 64-bit numbers are strings",
         "required": ["specversion", "id", "source", "type", "subject", "time", "revision",
                      "position", "recordedat"],
         "properties": {
             "specversion": {"const": "1.0"},
             "id": {"type": "string", "format": "uuid"},
             "source": {"type": "string", "description": "/deedbook/ and the log's id"},
             "type": {"type": "string"},
             "subject": {"type": "string", "description": "the stream"},
             "time": {"type": "string", "format": "date-time"},
             "revision": {"type": "string", "pattern": "^[0-9]+$"},
             "position": {"type": "string", "pattern": "^[0-9]+$"},
             "recordedat": {"type": "string", "format": "date-time"},
             "tags": {"type": "string",
                      "description": "separated by commas; comma and percent sign are %2C and %25"},
             "correlationid": {"type": "string"},
             "causationid": {"type": "string"},
             "actor": {"type": "string"},
             "metadata": {"type": "string", "contentMediaType": "application/json"},
             "metadatabase64": {"type": "string", "contentEncoding": "base64"},
             "datacontenttype": {"type": "string"},
             "data": {"description": "JSON, as it was stored"},
             "data_base64": {"type": "string", "contentEncoding": "base64"},
             "removed": {"const": true, "description": "its content was removed: there is no data"},
             "linkstream": {"type": "string", "description": "the virtual stream it was read from"},
             "linkrevision": {"type": "string", "pattern": "^[0-9]+$",
                              "description": "its place in that stream"}
         }
     })},
    {"NewEvent", TEXT({
         "type": "object",
         "required": ["type"],
         "additionalProperties": false,
         "properties": {
             "stream": {"type": "string", "description": "in POST /append only"},
             "type": {"type": "string", "minLength": 1},
             "data": {"description": "any JSON; or a text under a content type that is not JSON"},
             "data_base64": {"type": "string", "contentEncoding": "base64"},
             "id": {"type": "string", "format": "uuid"},
             "metadata": {"type": ["object", "null"]},
             "tags": {"type": ["array", "null"], "items": {"type": "string"}},
             "time": {"type": ["string", "null"], "format": "date-time"},
             "datacontenttype": {"type": ["string", "null"]},
             "correlation_id": {"type": ["string", "null"]},
             "causation_id": {"type": ["string", "null"]},
             "actor": {"type": ["string", "null"]}
         }
     })},
    {"Appended", TEXT({
         "type": "object",
         "required": ["stream", "first_revision", "revision", "position"],
         "properties": {
             "stream": {"type": "string"},
             "first_revision": {"type": "integer"},
             "revision": {"type": "integer"},
             "position": {"type": "integer"},
             "repeated": {"type": "boolean", "description": "true: the first answer to a retry"},
             "unsafe": {"type": "boolean", "description": "true: answered before it was durable"}
         }
     })},
    {"Append", TEXT({
         "type": "object",
         "required": ["events"],
         "additionalProperties": false,
         "properties": {
             "events": {"type": "array", "minItems": 1,
                        "items": {"$ref": "#/components/schemas/NewEvent"}},
             "conditions": {"type": ["array", "null"],
                            "items": {"$ref": "#/components/schemas/Condition"}}
         }
     })},
    {"Condition", TEXT({
         "oneOf": [
             {"type": "object", "required": ["stream", "revision"], "additionalProperties": false,
              "properties": {
                  "stream": {"type": "string"},
                  "revision": {"anyOf": [{"type": "integer"}, {"enum": ["none", "exists"]}]}
              }},
             {"type": "object", "required": ["no_match"], "additionalProperties": false,
              "properties": {
                  "no_match": {"type": "array", "minItems": 1, "items": {
                      "type": "object", "additionalProperties": false,
                      "properties": {
                          "types": {"type": "array", "items": {"type": "string"}},
                          "tags": {"type": "array", "items": {"type": "string"}}
                      }}},
                  "after": {"type": ["integer", "null"]}
              }}
         ]
     })},
    {"AppendedAll", TEXT({
         "type": "object",
         "required": ["first_position", "position", "events"],
         "properties": {
             "first_position": {"type": "integer"},
             "position": {"type": "integer"},
             "events": {"type": "array", "items": {
                 "type": "object", "required": ["stream", "revision"],
                 "properties": {"stream": {"type": "string"}, "revision": {"type": "integer"},
                                "position": {"type": "integer"}}}},
             "repeated": {"type": "boolean"},
             "unsafe": {"type": "boolean"}
         }
     })},
    {"Deleted", TEXT({
         "type": "object",
         "required": ["stream", "deleted", "position"],
         "properties": {"stream": {"type": "string"}, "deleted": {"enum": ["soft", "tombstone"]},
                        "position": {"type": "integer"}, "repeated": {"type": "boolean"},
                        "unsafe": {"type": "boolean"}}
     })},
    {"Compaction", TEXT({
         "type": "object",
         "required": ["state", "kind", "segments", "segments_done", "events_removed"],
         "properties": {
             "state": {"enum": ["idle", "running", "done", "failed"]},
             "kind": {"enum": ["compact", "erase"]},
             "segments": {"type": "integer", "description": "to look at"},
             "segments_done": {"type": "integer"},
             "rewritten": {"type": "integer"},
             "skipped": {"type": "integer", "description": "damaged: they stay as they are"},
             "events_removed": {"type": "integer", "description": "by this one"},
             "bytes_before": {"type": "integer", "description": "of the rewritten segments"},
             "bytes_after": {"type": "integer"},
             "error": {"type": ["string", "null"]}
         }
     })},
    {"StreamMetadata", TEXT({
         "type": "object",
         "description": "members that are not here are kept as they are",
         "properties": {
             "$maxAge": {"type": ["integer", "null"], "minimum": 1, "maximum": 9223372036,
                         "description": "seconds: older events are hidden"},
             "$maxCount": {"type": ["integer", "null"], "minimum": 1,
                           "description": "so many of the newest events are shown"},
             "$tb": {"type": ["integer", "null"], "minimum": 0,
                     "description": "revisions below this are hidden"},
             "$acl": {"description": "who may do what"}
         }
     })},
    {"Metadata", TEXT({
         "type": "object",
         "required": ["stream", "revision", "metadata"],
         "properties": {"stream": {"type": "string"}, "revision": {"type": ["integer", "null"]},
                        "metadata": {"$ref": "#/components/schemas/StreamMetadata"}}
     })},
    {"MetadataWritten", TEXT({
         "type": "object",
         "required": ["stream", "revision", "position"],
         "properties": {"stream": {"type": "string"},
                        "revision": {"type": "integer", "description": "of the metadata"},
                        "position": {"type": "integer"}, "repeated": {"type": "boolean"},
                        "unsafe": {"type": "boolean"}}
     })},
    {"State", TEXT({
         "type": "object",
         "required": ["stream", "revision", "position", "state"],
         "properties": {"stream": {"type": "string"}, "revision": {"type": "integer"},
                        "position": {"type": "integer"}, "state": {"type": "object"}}
     })},
    {"ExplainedEvent", TEXT({
         "type": "object",
         "required": ["revision", "position", "type", "changes"],
         "properties": {
             "revision": {"type": "integer"},
             "position": {"type": "integer"},
             "type": {"type": "string"},
             "id": {"type": "string", "format": "uuid"},
             "time": {"type": "string", "format": "date-time"},
             "recorded_at": {"type": "string", "format": "date-time"},
             "actor": {"type": ["string", "null"]},
             "data": {},
             "changes": {"type": "array", "items": {
                 "type": "object", "required": ["path"],
                 "properties": {"path": {"type": "string"}, "from": {}, "to": {}}}}
         }
     })},
    {"Command", TEXT({
         "type": "object",
         "required": ["name", "aggregate"],
         "properties": {"name": {"type": "string"}, "aggregate": {"type": "string"}}
     })},
    {"CommandData", TEXT({
         "type": "object",
         "description": "the command's fields, see GET /commands"
     })},
    {"Decided", TEXT({
         "type": "object",
         "required": ["stream", "first_revision", "revision", "position", "events"],
         "properties": {
             "stream": {"type": "string"},
             "first_revision": {"type": ["integer", "null"]},
             "revision": {"type": ["integer", "null"]},
             "position": {"type": "integer"},
             "repeated": {"type": "boolean"},
             "events": {"type": "array", "items": {"$ref": "#/components/schemas/Event"}}
         }
     })},
    {"Query", TEXT({
         "type": "object",
         "required": ["name", "comment", "parameters", "projections"],
         "properties": {"name": {"type": "string"}, "comment": {"type": "string"},
                        "parameters": {"type": "array", "items": {"type": "string"}},
                        "projections": {"type": "array", "items": {"type": "string"}}}
     })},
    {"Row", TEXT({
         "type": "object",
         "description": "a member for each column of the SELECT"
     })},
    {"Projection", TEXT({
         "type": "object",
         "required": ["name", "file", "state", "generation", "position", "lag", "error", "rebuild"],
         "properties": {
             "name": {"type": "string"},
             "file": {"type": "string"},
             "file_error": {"type": ["string", "null"], "description": "the file is refused"},
             "state": {"enum": ["running", "paused", "failed"]},
             "generation": {"type": "integer"},
             "position": {"type": "integer"},
             "lag": {"type": "integer"},
             "events": {"type": "integer"},
             "transactions": {"type": "integer"},
             "removed_events": {"type": "integer",
                                "description": "that the rows were built without, by force"},
             "rate": {"type": ["number", "null"], "description": "events a second"},
             "size": {"type": "integer"},
             "event_types": {"type": "array", "items": {"type": "string"}},
             "tables": {"type": "array", "items": {"type": "string"}},
             "error": {"type": ["object", "null"], "properties": {
                 "message": {"type": "string"}, "statement": {"type": "string"},
                 "position": {"type": ["integer", "null"], "description": "of the event"}}},
             "rebuild": {"type": ["object", "null"], "properties": {
                 "position": {"type": "integer"}, "target": {"type": "integer"},
                 "rate": {"type": ["number", "null"]},
                 "seconds_left": {"type": ["number", "null"]}}},
             "rebuild_error": {"type": ["string", "null"], "description": "of the last rebuild"}
         }
     })},
    {"GroupSettings", TEXT({
         "type": "object",
         "additionalProperties": false,
         "properties": {
             "start": {"oneOf": [{"enum": ["start", "end"]}, {"type": "integer", "minimum": 0}],
                       "description": "the first revision, or position, to deliver"},
             "strategy": {"enum": ["DispatchToSingle", "RoundRobin", "Pinned",
                                   "PinnedByCorrelation"]},
             "resolve_links": {"type": "boolean"},
             "extra_statistics": {"type": "boolean"},
             "message_timeout_ms": {"type": "integer", "description": "0: never"},
             "retry_count_max": {"type": "integer", "description": "failed more often: parked"},
             "checkpoint_after_ms": {"type": "integer", "description": "0: not by time"},
             "checkpoint_count_min": {"type": "integer"},
             "checkpoint_count_max": {"type": "integer", "description": "0: no limit"},
             "consumer_count_max": {"type": "integer", "description": "0: no limit"},
             "live_buffer_size": {"type": "integer"},
             "history_buffer_size": {"type": "integer"},
             "read_batch_size": {"type": "integer"},
             "filter": {"type": "object", "description": "of $all alone", "properties": {
                 "types": {"type": "array", "items": {"type": "string"}},
                 "tags": {"type": "array", "items": {"type": "string"}},
                 "categories": {"type": "array", "items": {"type": "string"}},
                 "system": {"type": "boolean"},
                 "match": {"type": "object", "properties": {
                     "of": {"enum": ["stream", "type"]},
                     "prefix": {"type": "array", "items": {"type": "string"}},
                     "regex": {"type": "string"}}}}}
         }
     })},
    {"Group", TEXT({
         "type": "object",
         "required": ["source", "group", "state", "checkpoint", "parked", "consumers", "settings"],
         "properties": {
             "source": {"type": "string"},
             "group": {"type": "string"},
             "state": {"enum": ["live", "behind", "stopped"]},
             "error": {"type": ["string", "null"], "description": "why it is stopped"},
             "checkpoint": {"type": ["integer", "null"],
                            "description": "all up to this revision, or position, was dealt with"},
             "last": {"type": ["integer", "null"], "description": "the source's newest"},
             "delivered": {"type": "integer"},
             "per_second": {"type": "integer"},
             "waiting": {"type": "integer"},
             "retrying": {"type": "integer"},
             "in_flight": {"type": "integer"},
             "parked": {"type": "integer"},
             "replaying": {"type": "boolean"},
             "consumers": {"type": "array", "items": {"type": "object"}},
             "settings": {"$ref": "#/components/schemas/GroupSettings"}
         }
     })},
    {"Message", TEXT({
         "type": "object",
         "required": ["id", "retry_count", "event"],
         "properties": {
             "id": {"type": "string", "format": "uuid", "description": "to acknowledge it by"},
             "retry_count": {"type": "integer", "description": "how often it was delivered before"},
             "event": {"oneOf": [{"$ref": "#/components/schemas/Event"}, {"type": "null"}],
                       "description": "null: what the link points to is gone"},
             "link": {"type": "object", "properties": {"stream": {"type": "string"},
                                                       "revision": {"type": "integer"}}}
         }
     })},
    {"MessageIds", TEXT({
         "type": "object",
         "required": ["ids"],
         "properties": {
             "ids": {"type": "array", "items": {"type": "string", "format": "uuid"}},
             "action": {"enum": ["retry", "park", "skip"], "description": "of nack"},
             "reason": {"type": "string", "description": "of nack: kept with what is parked"}
         }
     })},
    {"Parked", TEXT({
         "type": "object",
         "required": ["number", "stream", "revision", "reason", "added", "event"],
         "properties": {
             "number": {"type": "integer"},
             "stream": {"type": "string"},
             "revision": {"type": "integer"},
             "reason": {"type": ["string", "null"]},
             "added": {"type": ["string", "null"], "format": "date-time"},
             "event": {"oneOf": [{"$ref": "#/components/schemas/Event"}, {"type": "null"}]}
         }
     })},
    {"Count", TEXT({
         "type": "object", "required": ["count"], "properties": {"count": {"type": "integer"}}
     })},
    {"Backup", TEXT({
         "type": "object",
         "required": ["state", "name", "last"],
         "properties": {
             "state": {"enum": ["none", "running", "done", "failed"]},
             "name": {"type": ["string", "null"]},
             "done": {"type": "integer", "description": "bytes, about"},
             "all": {"type": "integer"},
             "error": {"type": "object", "properties": {"status": {"type": "string"},
                                                        "message": {"type": "string"}}},
             "last": {"type": ["object", "null"], "properties": {
                 "name": {"type": "string"},
                 "position": {"type": "integer"},
                 "epoch": {"type": "integer"},
                 "recorded_at": {"type": "string", "format": "date-time"},
                 "made_at": {"type": "string", "format": "date-time"},
                 "chain_hash": {"type": "string"},
                 "events": {"type": "integer"},
                 "files": {"type": "integer"},
                 "size": {"type": "integer"},
                 "copied_files": {"type": "integer"},
                 "copied_size": {"type": "integer"},
                 "seconds": {"type": "integer"}
             }}
         }
     })},
    {"Health", TEXT({"type": "object", "properties": {"status": {"const": "ok"}}})},
    {"Readiness", TEXT({
         "type": "object",
         "required": ["ready", "reasons"],
         "properties": {"ready": {"type": "boolean"},
                        "reasons": {"type": "array", "items": {"type": "string"}}}
     })},
    {"Index", TEXT({
         "type": "object",
         "required": ["name", "version", "log_id", "epoch", "position", "writable", "routes"],
         "properties": {
             "name": {"const": "deedbook"},
             "version": {"type": "string"},
             "log_id": {"type": "string", "format": "uuid"},
             "epoch": {"type": "integer"},
             "position": {"type": "integer"},
             "recorded_at": {"type": "string", "format": "date-time"},
             "chain_hash": {"type": "string"},
             "streams": {"type": "integer"},
             "segments": {"type": "integer"},
             "log_size": {"type": "integer"},
             "horizon": {"type": "integer",
                         "description": "the first event that is stored, if any before it was removed"},
             "writable": {"type": "boolean"},
             "stopped_because": {"type": "string"},
             "unsafe": {"type": "boolean"},
             "corrupt_first": {"type": "integer"},
             "corrupt_last": {"type": "integer"},
             "routes": {"type": "array", "items": {"type": "string"}}
         }
     })},
    {"Problem", TEXT({
         "type": "object",
         "description": "RFC 9457",
         "required": ["type", "title", "status", "detail", "code"],
         "properties": {
             "type": {"type": "string"},
             "title": {"type": "string"},
             "status": {"type": "integer"},
             "detail": {"type": "string"},
             "code": {"type": "string", "description": "for programs; a rejection has its own"},
             "condition": {"type": "integer", "description": "index of the one that failed"},
             "position": {"type": "integer", "description": "of the event in the way"},
             "revision": {"type": "integer", "description": "that the stream is at"}
         }
     })},
};

static void put_ref(struct json_writer *w, const char *schema, bool is_array)
{
    char ref[80];
    (void)snprintf(ref, sizeof ref, "#/components/schemas/%s", schema);
    json_object_begin(w);
    if (is_array) {
        json_member_text(w, "type", DEED_STR("array"));
        json_key(w, DEED_STR("items"));
        json_object_begin(w);
    }
    json_member_text(w, "$ref", deed_str_of(ref));
    if (is_array) json_object_end(w);
    json_object_end(w);
}

/* ---- parameters ----------------------------------------------------------------------------- */

static void put_choices(struct json_writer *w, const char *choices)
{
    json_object_begin(w);
    json_key(w, DEED_STR("enum"));
    json_array_begin(w);
    for (const char *at = choices; *at != '\0';) {
        size_t size = strcspn(at, "|");
        json_put_text(w, (deed_str){at, size});
        at += size;
        if (*at == '|') at++;
    }
    json_array_end(w);
    json_object_end(w);
}

static void put_parameter_schema(struct json_writer *w, const struct route_parameter *p)
{
    static const char *const fixed[] = {
        [KIND_TEXT] = TEXT({"type": "string"}),
        [KIND_NUMBER] = TEXT({"type": "integer", "minimum": 0}),
        [KIND_FLAG] = TEXT({"type": "boolean"}),
        [KIND_TIME] = TEXT({"type": "string", "format": "date-time"}),
        [KIND_POSITION] = TEXT({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string"}]}),
        [KIND_DURATION] = TEXT({"type": "string", "pattern": "^[0-9]+(ms|s)?$"}),
        [KIND_EXPECTED] =
            TEXT({"anyOf": [{"enum": ["any", "none", "exists"]}, {"type": "integer"}]}),
        [KIND_CHOICE] = NULL,
    };
    json_key(w, DEED_STR("schema"));
    if (p->kind == KIND_CHOICE) {
        put_choices(w, p->choices);
        return;
    }
    deed_bytes schema = deed_bytes_of(deed_str_of(fixed[p->kind]));
    if (!p->is_list) {
        json_put_raw(w, schema);
        return;
    }
    json_object_begin(w);
    json_member_text(w, "type", DEED_STR("array"));
    json_member_raw(w, "items", schema);
    json_object_end(w);
}

static void put_parameter(struct json_writer *w, const struct route_parameter *p)
{
    static const char *const places[] = {
        [IN_PATH] = "path", [IN_QUERY] = "query", [IN_HEADER] = "header"};
    json_object_begin(w);
    json_member_text(w, "name", deed_str_of(p->name));
    json_member_text(w, "in", deed_str_of(places[p->in]));
    if (p->in == IN_PATH) json_member_bool(w, "required", true);
    json_member_text(w, "description", deed_str_of(p->text));
    put_parameter_schema(w, p);
    json_object_end(w);
}

static void put_parameters(struct json_writer *w, const struct api_route *route)
{
    json_key(w, DEED_STR("parameters"));
    json_array_begin(w);
    for (const struct route_parameter *p = route->parameters; p->name != NULL; p++) {
        put_parameter(w, p);
    }
    if (route->free_parameters) {
        static const char text[] = TEXT({
            "name": "parameters", "in": "query", "style": "form", "explode": true,
            "description": "the query's own parameters, see GET /queries",
            "schema": {"type": "object", "additionalProperties": {"type": "string"}}
        });
        json_put_raw(w, deed_bytes_of(deed_str_of(text)));
    }
    static const char log[] = TEXT({
        "name": "Deedbook-Log", "in": "header", "required": false,
        "description": "of an earlier answer: if the log is another one or was restored, 409",
        "schema": {"type": "string"}
    });
    json_put_raw(w, deed_bytes_of(deed_str_of(log)));
    json_array_end(w);
}

/* ---- bodies and replies --------------------------------------------------------------------- */

static void put_body(struct json_writer *w, const struct api_route *route)
{
    if (route->body_schema == NULL) return;
    json_key(w, DEED_STR("requestBody"));
    json_object_begin(w);
    json_member_bool(w, "required", true);
    json_key(w, DEED_STR("content"));
    json_object_begin(w);
    for (size_t i = 0; i < ROUTE_BODY_TYPES_MAX && route->body_types[i] != NULL; i++) {
        json_key(w, deed_str_of(route->body_types[i]));
        json_object_begin(w);
        json_key(w, DEED_STR("schema"));
        if (i > 0) { /* CloudEvents have a schema of their own, elsewhere */
            json_put_raw(w, deed_bytes_of(DEED_STR("{\"type\":[\"object\",\"array\"]}")));
        } else if (!route->body_array) {
            put_ref(w, route->body_schema, false);
        } else {
            json_object_begin(w);
            json_key(w, DEED_STR("anyOf"));
            json_array_begin(w);
            put_ref(w, route->body_schema, false);
            put_ref(w, route->body_schema, true);
            json_array_end(w);
            json_object_end(w);
        }
        json_object_end(w);
    }
    json_object_end(w);
    json_object_end(w);
}

static void put_content(struct json_writer *w, const struct route_reply *reply)
{
    json_key(w, deed_str_of(reply->type));
    json_object_begin(w);
    if (reply->schema != NULL) {
        json_key(w, DEED_STR("schema"));
        put_ref(w, reply->schema, reply->is_array);
    }
    json_object_end(w);
}

static void put_reply(struct json_writer *w, const char *status, const struct route_reply *replies,
                      size_t count)
{
    json_key(w, deed_str_of(status));
    json_object_begin(w);
    json_member_text(w, "description", deed_str_of(replies[0].text));
    json_key(w, DEED_STR("content"));
    json_object_begin(w);
    for (size_t i = 0; i < count; i++) put_content(w, &replies[i]);
    json_object_end(w);
    json_object_end(w);
}

/* Rows of one status stand side by side in the table: they are one reply of several types. */
static void put_replies(struct json_writer *w, const struct api_route *route)
{
    static const struct route_reply other = {
        .type = "application/problem+json", .schema = "Problem", .text = "any other trouble"};
    json_key(w, DEED_STR("responses"));
    json_object_begin(w);
    const struct route_reply *replies = route->replies;
    for (size_t i = 0; i < ROUTE_REPLIES_MAX && replies[i].status != 0;) {
        char status[16];
        size_t count = 1;
        while (i + count < ROUTE_REPLIES_MAX && replies[i + count].status == replies[i].status) {
            count++;
        }
        (void)snprintf(status, sizeof status, "%d", replies[i].status);
        put_reply(w, status, &replies[i], count);
        i += count;
    }
    put_reply(w, "default", &other, 1);
    json_object_end(w);
}

/* ---- paths -------------------------------------------------------------------------------- */

static void put_operation(struct json_writer *w, const struct api_route *route)
{
    char method[16];
    size_t i = 0;
    for (; route->method[i] != '\0' && i + 1 < sizeof method; i++) {
        method[i] = ascii_lower(route->method[i]);
    }
    method[i] = '\0';
    json_key(w, deed_str_of(method));
    json_object_begin(w);
    json_member_text(w, "operationId", deed_str_of(route->name));
    json_member_text(w, "summary", deed_str_of(route->summary));
    put_parameters(w, route);
    put_body(w, route);
    put_replies(w, route);
    json_object_end(w);
}

static bool seen_before(size_t index)
{
    for (size_t i = 0; i < index; i++) {
        if (strcmp(api_routes[i].pattern, api_routes[index].pattern) == 0) return true;
    }
    return false;
}

static void put_paths(struct json_writer *w)
{
    json_key(w, DEED_STR("paths"));
    json_object_begin(w);
    for (size_t i = 0; i < api_route_count; i++) {
        if (seen_before(i)) continue;
        json_key(w, deed_str_of(api_routes[i].pattern));
        json_object_begin(w);
        for (size_t k = i; k < api_route_count; k++) {
            if (strcmp(api_routes[k].pattern, api_routes[i].pattern) == 0) {
                put_operation(w, &api_routes[k]);
            }
        }
        json_object_end(w);
    }
    json_object_end(w);
}

void openapi_get(struct call *c)
{
    struct json_writer w;
    json_writer_init(&w, call_body(c));
    json_object_begin(&w);
    json_member_text(&w, "openapi", DEED_STR("3.1.0"));
    json_key(&w, DEED_STR("info"));
    json_object_begin(&w);
    json_member_text(&w, "title", DEED_STR("Deedbook"));
    json_member_text(&w, "version", deed_str_of(deed_version()));
    json_member_text(&w, "description",
                     DEED_STR("An event store with commands, projections and queries. HEAD goes "
                              "wherever GET goes; OPTIONS answers everywhere, with Allow."));
    json_object_end(&w);
    put_paths(&w);
    json_key(&w, DEED_STR("components"));
    json_object_begin(&w);
    json_key(&w, DEED_STR("schemas"));
    json_object_begin(&w);
    for (size_t i = 0; i < sizeof schemas / sizeof schemas[0]; i++) {
        json_key(&w, deed_str_of(schemas[i].name));
        json_put_raw(&w, deed_bytes_of(deed_str_of(schemas[i].schema)));
    }
    json_object_end(&w);
    json_object_end(&w);
    json_object_end(&w);
    buf_add_byte(&c->x->response.body, '\n');
    call_done(c, 200, "application/json");
}
