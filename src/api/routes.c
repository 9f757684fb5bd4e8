/* routes.c - the table, and matching paths against it.
 *
 * (1) Whatever a handler takes or answers stands here, and only what stands here is taken. What
 *     any route may answer (500, 503, 504, 507) is openapi.json's "default", and what any route
 *     takes (the header Deedbook-Log) is added to each there.
 * (2) A path is split at its slashes as it was sent and decoded afterwards: a stream's name may
 *     hold an encoded slash. */
#include "api/routes.h"

#include <assert.h>

#define JSON   "application/json"
#define PROBLEM "application/problem+json"

/* ---- parameters ----------------------------------------------------------------------------- */

#define PATH(name_, text_) {.name = name_, .in = IN_PATH, .kind = KIND_TEXT, .text = text_}
#define QUERY(name_, kind_, text_) {.name = name_, .in = IN_QUERY, .kind = kind_, .text = text_}
#define LIST(name_, text_) \
    {.name = name_, .in = IN_QUERY, .kind = KIND_TEXT, .is_list = true, .text = text_}
#define CHOICE(name_, choices_, text_) \
    {.name = name_, .in = IN_QUERY, .kind = KIND_CHOICE, .choices = choices_, .text = text_}
#define HEADER(name_, text_) {.name = name_, .in = IN_HEADER, .kind = KIND_TEXT, .text = text_}

#define STREAM PATH("stream", "the stream's name, percent-encoded")
#define IF_MATCH \
    HEADER("If-Match", "the revision to be at, in quotes: \"5\"; otherwise 412")
#define IF_NONE_MATCH HEADER("If-None-Match", "*: there must be nothing yet; otherwise 412")
#define IDEMPOTENCY_KEY                                                                          \
    HEADER("Idempotency-Key", "a retry with the same key and request is given the first answer; " \
                              "with another request, 409")
#define ACTOR HEADER("Deedbook-Actor", "who does it, for the audit trail")
#define CORRELATION_ID \
    HEADER("Deedbook-Correlation-Id", "the correlation id of events that do not say")
#define CAUSATION_ID HEADER("Deedbook-Causation-Id", "the causation id of events that do not say")
#define LAST_EVENT_ID \
    HEADER("Last-Event-ID", "with text/event-stream: go on behind the event with this id")
#define FOLLOW                                                                                \
    QUERY("follow", KIND_FLAG, "do not end: send events as they come. Only lines and "        \
                               "Server-Sent Events can; these follow unless it is false")
#define LIMIT \
    QUERY("limit", KIND_NUMBER, "at most so many events (JSON array: 1,000 unless given)")
#define UNTIL QUERY("until", KIND_NUMBER, "nothing behind this position")
#define EXACT                                                                                   \
    QUERY("exact", KIND_FLAG, "JSON data whose bytes would not survive (white space around it, " \
                              "line breaks in a line) as data_base64")
#define REMOVED QUERY("removed", KIND_FLAG, "events whose content was removed, too, each marked so")
#define DIRECTION CHOICE("direction", "forwards|backwards", "forwards unless given")
#define AS_OF_POSITION QUERY("position", KIND_POSITION, "as of this position of the log")
#define AS_OF_TIME     QUERY("at", KIND_TIME, "as of this time")
#define END            {.name = NULL}

static const struct route_parameter none[] = {END};
static const struct route_parameter stream_get_parameters[] = {
    STREAM,
    QUERY("from", KIND_TEXT, "first revision to read, inclusive; or start, or (backwards) end"),
    REMOVED, DIRECTION, LIMIT, UNTIL, FOLLOW, EXACT, LAST_EVENT_ID, END};
static const struct route_parameter stream_post_parameters[] = {
    STREAM,
    QUERY("expected", KIND_EXPECTED, "what the stream must be at; otherwise 409"),
    IF_MATCH, IF_NONE_MATCH, IDEMPOTENCY_KEY, ACTOR, CORRELATION_ID, CAUSATION_ID, END};
static const struct route_parameter stream_parameters[] = {STREAM, END};
static const struct route_parameter stream_metadata_parameters[] = {
    STREAM,
    QUERY("expected", KIND_EXPECTED, "what the metadata must be at; otherwise 409"),
    IF_MATCH, IF_NONE_MATCH, IDEMPOTENCY_KEY, ACTOR, CORRELATION_ID, CAUSATION_ID, END};
static const struct route_parameter stream_delete_parameters[] = {
    STREAM,
    QUERY("expected", KIND_EXPECTED, "what the stream must be at; otherwise 409"),
    QUERY("tombstone", KIND_FLAG, "close it for good: nothing can be appended to it again"),
    IF_MATCH, IF_NONE_MATCH, ACTOR, END};
static const struct route_parameter stream_state_parameters[] = {
    STREAM, QUERY("revision", KIND_NUMBER, "as of this revision"), AS_OF_POSITION, AS_OF_TIME, END};
static const struct route_parameter stream_explain_parameters[] = {
    STREAM, QUERY("revision", KIND_NUMBER, "up to this revision; its end unless given"),
    QUERY("limit", KIND_NUMBER, "the last so many events; 1,000 unless given"), END};
static const struct route_parameter stream_erase_parameters[] = {STREAM, ACTOR, END};
static const struct route_parameter compaction_parameters[] = {
    QUERY("compress", KIND_NUMBER, "compress with this level of zstd's, 1 to 19; 0: not"),
    QUERY("active", KIND_FLAG, "close the segment that is being written, and look at it, too"), END};
static const struct route_parameter append_parameters[] = {IDEMPOTENCY_KEY, ACTOR, CORRELATION_ID,
                                                           CAUSATION_ID, END};
static const struct route_parameter events_parameters[] = {
    QUERY("after", KIND_POSITION, "begin behind this position, or token from a Link or event id"),
    UNTIL, LIST("type", "any of these types"), LIST("tag", "all of these tags"),
    LIST("category", "any of these categories"), LIST("stream", "any of these streams"),
    LIST("correlation", "any of these correlation ids"),
    QUERY("from_time", KIND_TIME, "recorded at or after this time"),
    QUERY("to_time", KIND_TIME, "recorded before this time"),
    QUERY("system", KIND_FLAG, "streams whose name begins with $, too"),
    REMOVED, DIRECTION, LIMIT, FOLLOW, EXACT, LAST_EVENT_ID, END};
static const struct route_parameter command_parameters[] = {
    PATH("name", "the command's name"),
    IF_MATCH, IF_NONE_MATCH, IDEMPOTENCY_KEY, ACTOR, CORRELATION_ID, CAUSATION_ID, END};
static const struct route_parameter query_parameters[] = {
    PATH("name", "the query's name"),
    QUERY("after", KIND_POSITION,
          "wait until the read models have come to this position: read your own writes"),
    QUERY("timeout", KIND_DURATION, "how long to wait and run at most: 500ms, 2s"),
    AS_OF_POSITION, AS_OF_TIME, END};
#define GROUP_SOURCE PATH("source", "the stream's name, percent-encoded; $all for the log")
#define GROUP_NAME PATH("group", "the group's name")
#define GROUP_CONSUMER \
    QUERY("consumer", KIND_TEXT, "the consumer's name; those without are one together")
static const struct route_parameter groups_source_parameters[] = {GROUP_SOURCE, END};
static const struct route_parameter group_parameters[] = {GROUP_SOURCE, GROUP_NAME, END};
static const struct route_parameter group_put_parameters[] = {GROUP_SOURCE, GROUP_NAME,
                                                              IF_NONE_MATCH, END};
static const struct route_parameter group_take_parameters[] = {
    GROUP_SOURCE, GROUP_NAME, GROUP_CONSUMER,
    QUERY("limit", KIND_NUMBER, "at most so many messages; 100 unless given"),
    QUERY("timeout", KIND_DURATION, "how long to wait for the first: 500ms, 30s; not at all unless "
                                    "given"), END};
static const struct route_parameter group_events_parameters[] = {
    GROUP_SOURCE, GROUP_NAME, GROUP_CONSUMER,
    QUERY("buffer", KIND_NUMBER, "so many may be here and not acknowledged; 100 unless given"), END};
static const struct route_parameter group_answer_parameters[] = {GROUP_SOURCE, GROUP_NAME,
                                                                 GROUP_CONSUMER, END};
static const struct route_parameter group_parked_parameters[] = {
    GROUP_SOURCE, GROUP_NAME, QUERY("from", KIND_NUMBER, "the first number; 0 unless given"),
    QUERY("limit", KIND_NUMBER, "at most so many; 100 unless given"), END};
static const struct route_parameter group_before_parameters[] = {
    GROUP_SOURCE, GROUP_NAME,
    QUERY("before", KIND_NUMBER, "only those with smaller numbers; all unless given"), END};
static const struct route_parameter projection_parameters[] = {
    PATH("name", "the projection's name"), END};
static const struct route_parameter projection_rebuild_parameters[] = {
    PATH("name", "the projection's name"),
    QUERY("force", KIND_FLAG, "go on without events that were removed from the log, and count them"),
    END};

static const struct route_parameter backup_parameters[] = {
    QUERY("name", KIND_TEXT, "the backup's directory below backup-dir; backup unless given"),
    QUERY("quick", KIND_FLAG, "read again only what is copied this time"), END};

/* ---- replies -------------------------------------------------------------------------------- */

#define R(status_, schema_, text_) \
    {.status = status_, .type = JSON, .schema = schema_, .text = text_}
#define R_ARRAY(schema_, text_) \
    {.status = 200, .type = JSON, .schema = schema_, .is_array = true, .text = text_}
#define R_TYPE(type_, text_) {.status = 200, .type = type_, .text = text_}
#define P(status_, text_) {.status = status_, .type = PROBLEM, .schema = "Problem", .text = text_}

#define P_SHAPE     P(400, "a parameter, header or body is malformed; the detail names it")
#define P_ACCEPT    P(406, "none of the media types that this route has is acceptable")
#define P_MEDIA     P(415, "the body's media type, charset or encoding is not accepted")
#define P_SIZE      P(413, "an event, the commit or the body is over a limit; the detail names it")
#define P_CONDITION P(409, "a condition does not hold, or an id or key is known with other content")
#define P_IF_MATCH  P(412, "If-Match or If-None-Match does not hold")
#define P_NO_GROUP  P(404, "there is no such group")
#define P_BUSY      P(503, "a queue is full or a part is stopped: try again after Retry-After")

#define STREAM_FORMATS                                                                          \
    R_ARRAY("Event", "a page of events; Link rel=next leads to the next"),                      \
        {.status = 200, .type = "application/cloudevents-batch+json", .schema = "Event",        \
         .is_array = true, .text = "the same"},                                                 \
        R_TYPE("application/x-ndjson", "an event a line"),                                      \
        R_TYPE("text/event-stream", "Server-Sent Events; an id is a token to go on from")

/* ---- the table ------------------------------------------------------------------------------ */

const struct api_route api_routes[] = {
    {.method = "POST",
     .pattern = "/streams/{stream}",
     .name = "appendToStream",
     .summary = "Append events to a stream, all or none. When it answers, they are durable.",
     .handle = stream_post,
     .where = API_INLINE,
     .parameters = stream_post_parameters,
     .body_schema = "NewEvent",
     .body_array = true,
     .body_types = {JSON, "application/cloudevents+json", "application/cloudevents-batch+json"},
     .replies = {R(200, "Appended", "the events are stored"), P_SHAPE, P_CONDITION,
                 P(410, "the stream has a tombstone"), P_IF_MATCH, P_SIZE, P_MEDIA, P_BUSY}},
    {.method = "GET",
     .pattern = "/streams/{stream}",
     .name = "readStream",
     .summary = "Read a stream, forwards or backwards, or follow it.",
     .handle = stream_get,
     .where = API_BRIEF,
     .parameters = stream_get_parameters,
     .replies = {STREAM_FORMATS, P_SHAPE, P(404, "the stream has no events"),
                 P(406, "none of the media types that this route has is acceptable"),
                 P(409, "Last-Event-ID is of another log or epoch"),
                 P(410, "the stream has a tombstone")}},
    {.method = "DELETE",
     .pattern = "/streams/{stream}",
     .name = "deleteStream",
     .summary = "Delete a stream softly (it may be written again), or close it for good.",
     .handle = stream_delete,
     .where = API_POOL,
     .parameters = stream_delete_parameters,
     .replies = {R(200, "Deleted", "the stream is deleted"), P_SHAPE,
                 P(404, "there is no such stream"), P_CONDITION,
                 P(410, "the stream has a tombstone already"), P_IF_MATCH, P_BUSY}},
    {.method = "GET",
     .pattern = "/streams/{stream}/metadata",
     .name = "readMetadata",
     .summary = "The stream's metadata: how long it is kept, and what its users keep there.",
     .handle = stream_metadata_get,
     .where = API_POOL,
     .parameters = stream_parameters,
     .replies = {R(200, "Metadata", "the metadata; {} of revision null if none was set"), P_SHAPE,
                 P(404, "neither the stream nor its metadata is there"),
                 P(410, "the stream has a tombstone")}},
    {.method = "POST",
     .pattern = "/streams/{stream}/metadata",
     .name = "writeMetadata",
     .summary = "Replace the stream's metadata as a whole.",
     .handle = stream_metadata_post,
     .where = API_INLINE,
     .parameters = stream_metadata_parameters,
     .body_schema = "StreamMetadata",
     .body_types = {JSON},
     .replies = {R(200, "MetadataWritten", "it is replaced"), P_SHAPE, P_CONDITION,
                 P(410, "the stream has a tombstone"), P_IF_MATCH, P_SIZE, P_MEDIA, P_BUSY}},
    {.method = "POST",
     .pattern = "/streams/{stream}/erase",
     .name = "eraseStream",
     .summary = "Delete the stream softly, and erase its content from the log in the background.",
     .handle = stream_erase,
     .where = API_POOL,
     .parameters = stream_erase_parameters,
     .replies = {R(202, "Compaction", "it has begun; GET /compact tells how it goes"), P_SHAPE,
                 P(404, "there is no such stream"), P_BUSY}},
    {.method = "GET",
     .pattern = "/streams/{stream}/state",
     .name = "readState",
     .summary = "The state of the stream's aggregate, now or then.",
     .handle = stream_state,
     .where = API_POOL,
     .parameters = stream_state_parameters,
     .replies = {R(200, "State", "the state"), P_SHAPE,
                 P(404, "no such stream, revision or position, or no aggregate for it"),
                 P(409, "a token is of another log or epoch"),
                 P(410, "an event that the state rests on was removed; position says which")}},
    {.method = "GET",
     .pattern = "/streams/{stream}/explain",
     .name = "explainStream",
     .summary = "The aggregate's life, event by event, with what each changed in its state.",
     .handle = stream_explain,
     .where = API_POOL,
     .parameters = stream_explain_parameters,
     .replies = {R_ARRAY("ExplainedEvent", "the events"), P_SHAPE,
                 P(404, "no such stream or revision, or no aggregate for it"),
                 P(410, "an event that the state rests on was removed; position says which")}},
    {.method = "POST",
     .pattern = "/append",
     .name = "append",
     .summary = "Append events to any streams under any conditions, all or none.",
     .handle = append_post,
     .where = API_INLINE,
     .parameters = append_parameters,
     .body_schema = "Append",
     .body_types = {JSON, "application/cloudevents-batch+json"},
     .replies = {R(200, "AppendedAll", "the events are stored"), P_SHAPE, P_CONDITION,
                 P(410, "a stream has a tombstone"), P_SIZE, P_MEDIA, P_BUSY}},
    {.method = "GET",
     .pattern = "/events",
     .name = "readEvents",
     .summary = "Read the log, filtered, or follow it.",
     .handle = events_get,
     .where = API_BRIEF,
     .parameters = events_parameters,
     .replies = {STREAM_FORMATS,
                 R_TYPE("application/vnd.deedbook.log", "whole commits, as they are stored"),
                 P_SHAPE, P_ACCEPT, P(409, "a token is of another log or epoch"),
                 P(410, "from there on events were removed; position is the first one still stored")}},
    {.method = "GET",
     .pattern = "/commands",
     .name = "listCommands",
     .summary = "The domain's commands and their fields.",
     .handle = commands_list,
     .where = API_POOL,
     .parameters = none,
     .replies = {R_ARRAY("Command", "the commands"), P_SHAPE}},
    {.method = "POST",
     .pattern = "/commands/{name}",
     .name = "runCommand",
     .summary = "Run a command. When it answers, its events are durable.",
     .handle = command_post,
     .where = API_INLINE,
     .parameters = command_parameters,
     .body_schema = "CommandData",
     .body_types = {JSON},
     .replies = {R(200, "Decided", "the command was accepted; its events are stored"), P_SHAPE,
                 P(404, "there is no such command"),
                 P(409, "the key is known with another command, or others won every retry"),
                 P(410, "an event of the aggregate was removed: it cannot decide any more"),
                 P_IF_MATCH, P_MEDIA, P(422, "the domain rejects it: code and detail say why"),
                 P_BUSY}},
    {.method = "GET",
     .pattern = "/queries",
     .name = "listQueries",
     .summary = "The queries, their parameters, and the read models they use.",
     .handle = queries_list_get,
     .where = API_POOL,
     .parameters = none,
     .replies = {R_ARRAY("Query", "the queries"), P_SHAPE}},
    {.method = "GET",
     .pattern = "/queries/{name}",
     .name = "runQuery",
     .summary = "Answer a query from the read models, now or then.",
     .handle = query_get,
     .where = API_PATIENT,
     .parameters = query_parameters,
     .free_parameters = true,
     .replies = {R_ARRAY("Row", "the rows; Deedbook-Position says as of when"), P_SHAPE,
                 P(404, "there is no such query, or nothing was stored then"),
                 P(409, "a token is of another log or epoch"),
                 P(410, "an event that the past's rows rest on was removed"),
                 P(413, "the answer has too many rows, or is too large"),
                 P(503, "a projection that it needs is stopped"),
                 P(504, "the read models did not get there, or the query not done, in time")}},
    {.method = "GET",
     .pattern = "/projections",
     .name = "listProjections",
     .summary = "The projections: state, position, lag, what went wrong, rebuilds.",
     .handle = projections_list_get,
     .where = API_POOL,
     .parameters = none,
     .replies = {R_ARRAY("Projection", "the projections"), P_SHAPE}},
    {.method = "GET",
     .pattern = "/projections/{name}",
     .name = "readProjection",
     .summary = "One projection.",
     .handle = projection_get,
     .where = API_POOL,
     .parameters = projection_parameters,
     .replies = {R(200, "Projection", "the projection"), P_SHAPE,
                 P(404, "there is no such projection")}},
    {.method = "POST",
     .pattern = "/projections/{name}/rebuild",
     .name = "rebuildProjection",
     .summary = "Build the read model anew beside the live one, and switch when it has caught up.",
     .handle = projection_rebuild,
     .where = API_POOL,
     .parameters = projection_rebuild_parameters,
     .replies = {R(202, "Projection", "the rebuild has begun"), P_SHAPE,
                 P(404, "there is no such projection"), P(409, "it is being rebuilt already")}},
    {.method = "POST",
     .pattern = "/projections/{name}/pause",
     .name = "pauseProjection",
     .summary = "Stop following the log; the read model stays as it is.",
     .handle = projection_pause,
     .where = API_POOL,
     .parameters = projection_parameters,
     .replies = {R(202, "Projection", "it stops behind the batch that runs"), P_SHAPE,
                 P(404, "there is no such projection")}},
    {.method = "POST",
     .pattern = "/projections/{name}/resume",
     .name = "resumeProjection",
     .summary = "Go on from a pause or a failure, at the checkpoint.",
     .handle = projection_resume,
     .where = API_POOL,
     .parameters = projection_parameters,
     .replies = {R(202, "Projection", "it goes on at once"), P_SHAPE,
                 P(404, "there is no such projection")}},
    {.method = "GET",
     .pattern = "/subscriptions",
     .name = "listGroups",
     .summary = "The consumer groups: settings, progress, consumers.",
     .handle = groups_list_get,
     .where = API_POOL,
     .parameters = none,
     .replies = {R_ARRAY("Group", "the groups"), P_SHAPE}},
    {.method = "GET",
     .pattern = "/subscriptions/{source}",
     .name = "listGroupsOfStream",
     .summary = "The consumer groups of a stream, or of the log.",
     .handle = groups_source_get,
     .where = API_POOL,
     .parameters = groups_source_parameters,
     .replies = {R_ARRAY("Group", "the groups"), P_SHAPE}},
    {.method = "GET",
     .pattern = "/subscriptions/{source}/{group}",
     .name = "readGroup",
     .summary = "One consumer group.",
     .handle = group_get,
     .where = API_POOL,
     .parameters = group_parameters,
     .replies = {R(200, "Group", "the group"), P_SHAPE, P_NO_GROUP}},
    {.method = "PUT",
     .pattern = "/subscriptions/{source}/{group}",
     .name = "putGroup",
     .summary = "Make a consumer group, or change its settings; a change drops its consumers.",
     .handle = group_put,
     .where = API_POOL,
     .parameters = group_put_parameters,
     .body_schema = "GroupSettings",
     .body_types = {JSON},
     .replies = {R(201, "Group", "it was made"), R(200, "Group", "it was there: it is so now"),
                 P_SHAPE, P(409, "the filter cannot be changed"), P(412, "it is there already"),
                 P_SIZE, P_MEDIA}},
    {.method = "DELETE",
     .pattern = "/subscriptions/{source}/{group}",
     .name = "deleteGroup",
     .summary = "Drop its consumers, forget its progress and what it has parked.",
     .handle = group_delete,
     .where = API_POOL,
     .parameters = group_parameters,
     .replies = {R(200, NULL, "it is gone"), P_SHAPE, P_NO_GROUP}},
    {.method = "POST",
     .pattern = "/subscriptions/{source}/{group}/take",
     .name = "takeMessages",
     .summary = "Take messages; they come again unless they are acknowledged in time.",
     .handle = group_take,
     .where = API_POOL,
     .parameters = group_take_parameters,
     .replies = {R_ARRAY("Message", "the messages; none: []"), P_SHAPE, P_NO_GROUP, P_BUSY}},
    {.method = "GET",
     .pattern = "/subscriptions/{source}/{group}/events",
     .name = "followMessages",
     .summary = "Messages as they come, as Server-Sent Events; the data of each is a Message.",
     .handle = group_events,
     .where = API_POOL,
     .parameters = group_events_parameters,
     .replies = {R_TYPE("text/event-stream", "the messages"), P_SHAPE, P_NO_GROUP, P_BUSY}},
    {.method = "POST",
     .pattern = "/subscriptions/{source}/{group}/ack",
     .name = "acknowledge",
     .summary = "Messages were dealt with. Those that the consumer does not have are passed over.",
     .handle = group_ack,
     .where = API_POOL,
     .parameters = group_answer_parameters,
     .body_schema = "MessageIds",
     .body_types = {JSON},
     .replies = {R(200, "Count", "how many it were"), P_SHAPE, P_NO_GROUP, P_SIZE, P_MEDIA}},
    {.method = "POST",
     .pattern = "/subscriptions/{source}/{group}/nack",
     .name = "giveBack",
     .summary = "Messages were not dealt with: deliver them again, park them, or skip them.",
     .handle = group_nack_post,
     .where = API_POOL,
     .parameters = group_answer_parameters,
     .body_schema = "MessageIds",
     .body_types = {JSON},
     .replies = {R(200, "Count", "how many it were"), P_SHAPE, P_NO_GROUP, P_SIZE, P_MEDIA}},
    {.method = "GET",
     .pattern = "/subscriptions/{source}/{group}/parked",
     .name = "listParked",
     .summary = "What was parked, and why.",
     .handle = group_parked_get,
     .where = API_POOL,
     .parameters = group_parked_parameters,
     .replies = {R_ARRAY("Parked", "the parked events"), P_SHAPE, P_NO_GROUP}},
    {.method = "POST",
     .pattern = "/subscriptions/{source}/{group}/parked/replay",
     .name = "replayParked",
     .summary = "Deliver what is parked once more.",
     .handle = group_parked_replay,
     .where = API_POOL,
     .parameters = group_before_parameters,
     .replies = {R(202, "Count", "so many will be"), P_SHAPE, P_NO_GROUP, P_BUSY}},
    {.method = "DELETE",
     .pattern = "/subscriptions/{source}/{group}/parked",
     .name = "dropParked",
     .summary = "Drop what is parked; the events themselves stay where they are.",
     .handle = group_parked_delete,
     .where = API_POOL,
     .parameters = group_before_parameters,
     .replies = {R(200, "Count", "how many were dropped"), P_SHAPE, P_NO_GROUP}},
    {.method = "POST",
     .pattern = "/backup",
     .name = "makeBackup",
     .summary = "Begin a backup into a directory below the server's backup-dir.",
     .handle = backup_post,
     .where = API_POOL,
     .parameters = backup_parameters,
     .replies = {R(202, "Backup", "it has begun: ask GET /backup how it goes"), P_SHAPE,
                 P(404, "this server has no backup-dir"), P(409, "one is being made already")}},
    {.method = "GET",
     .pattern = "/backup",
     .name = "readBackup",
     .summary = "How the backup goes, and what the newest one holds.",
     .handle = backup_get,
     .where = API_POOL,
     .parameters = none,
     .replies = {R(200, "Backup", "the backup"), P_SHAPE,
                 P(404, "this server has no backup-dir")}},
    {.method = "GET",
     .pattern = "/compact",
     .name = "readCompaction",
     .summary = "The compaction or erasure that runs, or the last one.",
     .handle = compaction_get,
     .where = API_INLINE,
     .parameters = none,
     .replies = {R(200, "Compaction", "where it stands"), P_SHAPE}},
    {.method = "POST",
     .pattern = "/compact",
     .name = "compact",
     .summary = "Remove what streams hide from the log's sealed segments, in the background.",
     .handle = compaction_post,
     .where = API_POOL,
     .parameters = compaction_parameters,
     .replies = {R(202, "Compaction", "it has begun; GET /compact tells how it goes"), P_SHAPE,
                 P_BUSY}},
    {.method = "GET",
     .pattern = "/healthz",
     .name = "health",
     .summary = "Does the process answer?",
     .handle = healthz_get,
     .care = true,
     .where = API_INLINE,
     .parameters = none,
     .replies = {R(200, "Health", "it does"), P_SHAPE}},
    {.method = "GET",
     .pattern = "/readyz",
     .name = "readiness",
     .summary = "May requests be sent here?",
     .handle = readyz_get,
     .care = true,
     .where = API_POOL,
     .parameters = none,
     .replies = {R(200, "Readiness", "they may"), P_SHAPE,
                 R(503, "Readiness", "not now: the reasons say why")}},
    {.method = "GET",
     .pattern = "/metrics",
     .name = "metrics",
     .summary = "Prometheus's text format, 0.0.4.",
     .handle = metrics_get,
     .care = true,
     .where = API_POOL,
     .parameters = none,
     .replies = {R_TYPE("text/plain; version=0.0.4; charset=utf-8", "the metrics"), P_SHAPE}},
    {.method = "GET",
     .pattern = "/openapi.json",
     .name = "openapi",
     .summary = "This description.",
     .handle = openapi_get,
     .where = API_POOL,
     .parameters = none,
     .replies = {R(200, NULL, "OpenAPI 3.1"), P_SHAPE}},
    {.method = "GET",
     .pattern = "/",
     .name = "index",
     .summary = "The log's identity and size, and where to go from here.",
     .handle = index_get,
     .where = API_POOL,
     .parameters = none,
     .replies = {R(200, "Index", "the log"), R_TYPE("text/html; charset=utf-8", "for people"),
                 P_SHAPE, P_ACCEPT}},
};
const size_t api_route_count = sizeof api_routes / sizeof api_routes[0];

/* ---- matching ------------------------------------------------------------------------------- */

/* The part up to the next slash; moves behind it. */
static deed_str segment_take(deed_str *rest)
{
    const char *slash = rest->len == 0 ? NULL : memchr(rest->ptr, '/', rest->len);
    deed_str segment = {rest->ptr, slash == NULL ? rest->len : (size_t)(slash - rest->ptr)};
    rest->ptr += segment.len;
    rest->len -= segment.len;
    return segment;
}

bool route_matches(const char *pattern, deed_str path, deed_str segments[ROUTE_SEGMENTS_MAX])
{
    deed_str want = deed_str_of(pattern);
    size_t taken = 0;
    for (;;) {
        if (want.len == 0 || path.len == 0) return want.len == path.len;
        if (want.ptr[0] != '/' || path.ptr[0] != '/') return false;
        want = (deed_str){want.ptr + 1, want.len - 1};
        path = (deed_str){path.ptr + 1, path.len - 1};
        deed_str wanted = segment_take(&want);
        deed_str got = segment_take(&path);
        if (wanted.len > 0 && wanted.ptr[0] == '{') {
            assert(taken < ROUTE_SEGMENTS_MAX);
            if (got.len == 0) return false; /* "/streams/" names no stream */
            segments[taken++] = got;
        } else if (!deed_str_equal(wanted, got)) {
            return false;
        }
    }
}

void routes_allow(deed_str path, struct buf *out)
{
    static const char *const methods[] = {"DELETE", "GET", "HEAD", "OPTIONS", "POST"};
    bool allowed[sizeof methods / sizeof methods[0]] = {false};
    bool any = false;
    bool all = deed_str_equal(path, DEED_STR("*")); /* OPTIONS * asks for the whole server */
    for (size_t i = 0; i < api_route_count; i++) {
        deed_str segments[ROUTE_SEGMENTS_MAX];
        if (!all && !route_matches(api_routes[i].pattern, path, segments)) continue;
        any = true;
        for (size_t k = 0; k < sizeof methods / sizeof methods[0]; k++) {
            if (strcmp(methods[k], api_routes[i].method) == 0) allowed[k] = true;
        }
    }
    if (!any) return;
    allowed[2] = allowed[1]; /* HEAD goes where GET goes */
    allowed[3] = true;
    bool first = true;
    for (size_t k = 0; k < sizeof methods / sizeof methods[0]; k++) {
        if (!allowed[k]) continue;
        buf_printf(out, "%s%s", first ? "" : ", ", methods[k]);
        first = false;
    }
}
