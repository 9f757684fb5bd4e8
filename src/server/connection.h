/* connection.h - HTTP/1.1 on a link; a client that speaks HTTP/2 instead is handed over to
 * connection2.h with its first bytes. */
#ifndef SERVER_CONNECTION_H
#define SERVER_CONNECTION_H

#include "server/link.h"

#define RETRY_AFTER_SECONDS "1"

/* A link without a socket yet, that speaks HTTP/1.1. NULL: no memory. */
struct link *connection_create(struct service *service);

/* Those that were kept for the next requests. */
void exchanges_free(struct service *service);

#endif
