/* model.h - the whole of an app on one page: aggregates with their attributes, commands, events,
 * and the projections and queries that each event reaches.
 *
 * Pure: the domain's model (host_model or executor_model), and what the caller knows of
 * projections and queries, go in; text, JSON or a Mermaid diagram comes out. */
#ifndef DOMAIN_MODEL_H
#define DOMAIN_MODEL_H

#include "base/buf.h"
#include "base/error.h"

struct model_projection {
    deed_str name;
    const deed_str *event_types; /* it answers to */
    size_t event_type_count;
    const deed_str *tables;
    size_t table_count;
};

struct model_query {
    deed_str name, comment;
    const deed_str *parameters;
    size_t parameter_count;
    const deed_str *projections; /* whose tables it reads */
    size_t projection_count;
};

struct model_parts {
    deed_str domain; /* JSON; empty: no domain, only projections and queries */
    const struct model_projection *projections;
    size_t projection_count;
    const struct model_query *queries;
    size_t query_count;
};

enum model_format {
    MODEL_TEXT,
    MODEL_JSON,
    MODEL_MERMAID, /* a flowchart: command → aggregate → event → projection → query */
};

/* Append the page to `out`. DEED_INVALID: `domain` is not a model. */
DEED_MUST_CHECK deed_status model_write(const struct model_parts *parts, enum model_format format,
                                        struct buf *out, struct deed_error *err);

#endif
