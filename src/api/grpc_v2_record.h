/* grpc_v2_record.h - one record of the second generation, as an event.
 *
 * Its properties become the event's metadata, a JSON object, so that whoever reads it, over whatever
 * protocol, finds them: with $schema.name, $schema.format and, if it has one, $schema.id. */
#ifndef API_GRPC_V2_RECORD_H
#define API_GRPC_V2_RECORD_H

#include "api/grpc_write.h"

enum v2_fault {
    V2_RECORD_OK,
    V2_RECORD_BAD,    /* the message says what is wrong */
    V2_RECORD_SIZE,   /* it is over the limit: id, size, limit of the trouble */
    V2_RECORD_GATHER, /* any other of gathered_add's troubles */
};

struct v2_trouble {
    char message[256];
    struct gather_trouble gather;
};

/* Read an AppendRecord into `g`. `stream`: where it goes; ptr NULL: as the record says. `out_stream` is
 * its stream's name, in g's memory. `scratch` is the message's. */
DEED_MUST_CHECK enum v2_fault v2_record_take(struct grpc_gathered *g, deed_bytes record,
                                             deed_str stream, struct arena *scratch,
                                             deed_str *out_stream, struct v2_trouble *out_trouble);

/* What a stream may be called; `out_trouble` says what is wrong otherwise. */
DEED_MUST_CHECK bool v2_stream_valid(deed_str stream, struct v2_trouble *out_trouble);

#endif
