/* run_writer.h - write a run's file: terms in order, each with its positions in order.
 *
 * Memory does not grow with the run: what cannot be written in its place yet goes into files beside
 * it. The first failure is kept, and told by run_writer_finish; until then nothing has its name. */
#ifndef INDEX_RUN_WRITER_H
#define INDEX_RUN_WRITER_H

#include "index/run_format.h"
#include "os/os.h"

struct run_writer;

/* What the caller knows of the run beforehand; the writer counts the rest. */
struct run_meta {
    deed_uuid log_id;
    uint64_t hash_seed;
    uint32_t first_segment, last_segment;
    uint64_t first_position, last_position;
    uint8_t hash[SHA256_SIZE];
    uint64_t terms_max;      /* there will be no more terms than this: the filter's size */
    uint64_t spill_size_max; /* bytes of a section in memory; 0: 1 MiB */
    uint32_t terms_unknown;  /* RUN_KNOWS_...: what an input of a merge was made without */
    uint32_t part;           /* not 0: NAME.part1, ... : some of the positions, to be merged */
};

DEED_MUST_CHECK deed_status run_writer_create(struct os *os, struct os_dir *dir,
                                              const struct run_meta *meta,
                                              struct run_writer **out_writer,
                                              struct deed_error *err);
/* Removes what was not finished. Accepts NULL. */
void run_writer_destroy(struct run_writer *writer);

/* Begin a term, behind the one before in order of (hash, kind, bytes). `base`: of a stream, the
 * revision of its first position here. */
void run_writer_term(struct run_writer *writer, uint64_t hash, enum index_kind kind, deed_bytes term,
                     uint64_t base);
/* At least one for each term; they do not descend. */
void run_writer_position(struct run_writer *writer, uint64_t position);

/* So far; a run that failed says so here, early. */
deed_status run_writer_status(const struct run_writer *writer);
uint64_t run_writer_size(const struct run_writer *writer); /* bytes taken in, about */

/* Write what is left, sync, give the file its name and make that durable. DEED_IO, DEED_FULL,
 * DEED_NO_MEMORY. */
DEED_MUST_CHECK deed_status run_writer_finish(struct run_writer *writer, struct deed_error *err);

#endif
