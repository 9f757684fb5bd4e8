/* routes_backup.c - have a backup made, and see how it goes. */
#include "api/backups.h"
#include "api/reply.h"
#include "base/text.h"
#include "base/timetext.h"

static void put_time(struct json_writer *w, const char *key, int64_t time_ns)
{
    char text[TIME_TEXT_SIZE + 1];
    time_format(time_ns, text);
    json_member_text(w, key, deed_str_of(text));
}

static void put_report(struct json_writer *w, const struct backups_status *s)
{
    const struct deed_backup_report *r = &s->report;
    struct buf hash;
    buf_init(&hash, 64);
    hex_encode((deed_bytes){r->chain_hash, sizeof r->chain_hash}, &hash);
    json_object_begin(w);
    json_member_text(w, "name", deed_str_of(s->made_name));
    json_member_uint(w, "position", r->position);
    json_member_uint(w, "epoch", r->epoch);
    put_time(w, "recorded_at", r->recorded_at_ns);
    put_time(w, "made_at", r->made_at_ns);
    json_member_text(w, "chain_hash", buf_str(&hash));
    json_member_uint(w, "events", r->events);
    json_member_uint(w, "files", r->file_count);
    json_member_uint(w, "size", r->size);
    json_member_uint(w, "copied_files", r->copied_count);
    json_member_uint(w, "copied_size", r->copied_size);
    json_member_uint(w, "seconds", s->seconds);
    json_object_end(w);
    buf_done(&hash);
}

static void status_answer(struct call *c, int http)
{
    struct backups_status s;
    struct json_writer w;
    backups_get_status(c->api->parts.backups, &s);
    json_writer_init(&w, call_body(c));
    json_object_begin(&w);
    json_member_text(&w, "state", s.running          ? DEED_STR("running")
                                  : s.failed         ? DEED_STR("failed")
                                  : s.name[0] == '\0' ? DEED_STR("none")
                                                     : DEED_STR("done"));
    json_member_text(&w, "name", s.name[0] == '\0' ? (deed_str){0} : deed_str_of(s.name));
    if (s.running) {
        json_member_uint(&w, "done", s.done);
        json_member_uint(&w, "all", s.all);
    }
    if (s.failed && !s.running) {
        json_key(&w, DEED_STR("error"));
        json_object_begin(&w);
        json_member_text(&w, "status", deed_str_of(deed_status_name(s.error.status)));
        json_member_text(&w, "message", deed_str_of(s.error.message));
        json_object_end(&w);
    }
    json_key(&w, DEED_STR("last"));
    if (s.made) {
        put_report(&w, &s);
    } else {
        json_put_null(&w);
    }
    json_object_end(&w);
    buf_add_byte(&c->x->response.body, '\n');
    call_done(c, http, "application/json");
}

/* Without a directory for them there are none. */
static bool has_backups(struct call *c)
{
    if (c->api->parts.backups == NULL) {
        call_wrong(c, DEED_NOT_FOUND, "this server makes no backups: it was given no backup-dir");
    }
    return c->status == DEED_OK;
}

void backup_post(struct call *c)
{
    deed_str name = call_text(c, "name");
    bool quick = call_flag(c, "quick", false);
    if (name.ptr == NULL) name = DEED_STR("backup");
    if (has_backups(c)) c->status = backups_start(c->api->parts.backups, name, quick, &c->err);
    if (c->status != DEED_OK) {
        call_fail(c);
        return;
    }
    status_answer(c, 202);
}

void backup_get(struct call *c)
{
    if (!has_backups(c)) {
        call_fail(c);
        return;
    }
    status_answer(c, 200);
}
