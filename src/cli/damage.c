/* damage.c - where, how much, which positions. */
#include "cli/damage.h"

#include "cli/out.h"
#include "json/json.h"

#include <inttypes.h>

static void damage_json(const struct store_damage *damage)
{
    struct buf line;
    struct json_writer w;
    buf_init(&line, 4096);
    json_writer_init(&w, &line);
    json_object_begin(&w);
    json_member_uint(&w, "segment", damage->segment);
    json_member_uint(&w, "offset", damage->offset);
    json_member_uint(&w, "size", damage->size);
    if (damage->first_position != DEED_NONE) {
        json_member_uint(&w, "first_position", damage->first_position);
        json_member_uint(&w, "last_position", damage->last_position);
    }
    json_member_bool(&w, "accepted", damage->accepted);
    json_member_text(&w, "what", deed_str_of(damage->what));
    json_object_end(&w);
    printf("%.*s\n", DEED_FMT(buf_str(&line)));
    buf_done(&line);
}

void damage_print(const struct store_damage *damage, bool json)
{
    if (json) {
        damage_json(damage);
        return;
    }
    printf("%s%s%s  segment %" PRIu32 "  offset %" PRIu64 "  %" PRIu64 " bytes",
           out_start(stdout, OUT_RED), damage->accepted ? "accepted loss" : "damage",
           out_stop(stdout), damage->segment, damage->offset, damage->size);
    if (damage->first_position == DEED_NONE) {
        printf("  no events lost");
    } else if (damage->first_position == damage->last_position) {
        printf("  position %" PRIu64, damage->first_position);
    } else {
        printf("  positions %" PRIu64 " to %" PRIu64, damage->first_position,
               damage->last_position);
    }
    printf("  %s\n", damage->what);
}
