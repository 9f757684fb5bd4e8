/* connection2.h - HTTP/2 on a link, and gRPC's calls on that. */
#ifndef SERVER_CONNECTION2_H
#define SERVER_CONNECTION2_H

#include "server/link.h"

/* The link's client has sent HTTP/2's preface, and `rest` behind it. From here on the link's bytes are
 * HTTP/2's; the link's former protocol still frees it. */
void connection2_begin(struct link *link, deed_bytes rest);

#endif
