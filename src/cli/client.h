/* client.h - the HTTP API of a server, over libcurl. */
#ifndef CLI_CLIENT_H
#define CLI_CLIENT_H

#include "cli/request.h"

struct client;

/* `url`: "http://host:port", a path behind it is kept as a prefix. DEED_INVALID: not a URL. */
DEED_MUST_CHECK deed_status client_create(const char *url, uint32_t timeout_ms,
                                          struct client **out_client, struct deed_error *err);
void client_destroy(struct client *client); /* accepts NULL */

/* As target_call, but every HTTP status is DEED_OK. A 503 with Retry-After is asked again, a few
 * times, within the timeout: the server says that nothing was done. */
DEED_MUST_CHECK deed_status client_call(struct client *client, const struct request *request,
                                        struct reply *reply, struct deed_error *err);
/* As target_lines. */
DEED_MUST_CHECK deed_status client_lines(struct client *client, const struct request *request,
                                         struct splitter *splitter, struct deed_error *err);

#endif
