/* backup_print.c - one report, two forms. */
#include "cli/backup_print.h"

#include "base/text.h"
#include "base/timetext.h"
#include "base/uuid.h"
#include "cli/out.h"

#include <inttypes.h>

static void print_json(const struct deed_backup_report *r, deed_str hash)
{
    char id[UUID_TEXT_SIZE + 1], recorded[TIME_TEXT_SIZE + 1], made[TIME_TEXT_SIZE + 1];
    uuid_format(r->log_id, id);
    time_format(r->recorded_at_ns, recorded);
    time_format(r->made_at_ns, made);
    printf("{\"log_id\":\"%s\",\"epoch\":%" PRIu64 ",\"position\":%" PRIu64
           ",\"recorded_at\":\"%s\",\"made_at\":\"%s\",\"chain_hash\":\"%.*s\",\"commits\":%" PRIu64
           ",\"events\":%" PRIu64 ",\"files\":%" PRIu64 ",\"size\":%" PRIu64
           ",\"copied_files\":%" PRIu64 ",\"copied_size\":%" PRIu64 "}\n",
           id, r->epoch, r->position, recorded, made, DEED_FMT(hash), r->commits, r->events,
           r->file_count, r->size, r->copied_count, r->copied_size);
}

void backup_print(const char *verb, const struct deed_backup_report *r, bool json)
{
    char position[OUT_NUMBER_SIZE], files[OUT_NUMBER_SIZE], size[OUT_NUMBER_SIZE];
    char copied[OUT_NUMBER_SIZE], copied_size[OUT_NUMBER_SIZE];
    struct buf hash;
    buf_init(&hash, 256);
    hex_encode((deed_bytes){r->chain_hash, sizeof r->chain_hash}, &hash);
    if (json) {
        print_json(r, buf_str(&hash));
    } else {
        printf("%s%s%s  up to position %s, epoch %" PRIu64 ", %s files, %s", out_start(stdout, OUT_GREEN),
               verb, out_stop(stdout), out_count(r->position, position), r->epoch,
               out_count(r->file_count, files), out_size(r->size, size));
        if (r->copied_count > 0) {
            printf("; copied %s files, %s", out_count(r->copied_count, copied),
                   out_size(r->copied_size, copied_size));
        }
        printf("\nchain hash %.*s\n", DEED_FMT(buf_str(&hash)));
    }
    buf_done(&hash);
}
