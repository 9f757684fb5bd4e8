/* group_match.h - a consumer group's filter by name: what "match" means in it.
 *
 *     {"of": "stream" | "type", "prefix": ["order-", …]}
 *     {"of": "stream" | "type", "regex": "^[^\\$].*"}
 *
 * as event_filter.h has it. */
#ifndef API_GROUP_MATCH_H
#define API_GROUP_MATCH_H

#include "groups/groups.h"

/* For groups_open. */
void group_match_hooks(struct groups_options *out);

#endif
