/* wild.c - a domain that behaves as badly as its commands ask it to. */
#include <deedbook_domain.h>

#include <stdlib.h>
#include <unistd.h>

DEED_STRUCT(item, DEED_TEXT(name), DEED_INT(count));

DEED_STRUCT(wild, DEED_INT(deeds), DEED_TEXT(last), DEED_MAP(items, item), DEED_TEXTS(log));

DEED_STRUCT(WildHappened, DEED_TEXT(id), DEED_TEXT(what));

DEED_EVOLVE(WildHappened, wild, event)
{
    wild->deeds++;
    wild->last = event->what;
    deed_map_put(ctx, &wild->items, event->what)->count++;
    *deed_list_add(ctx, &wild->log) = event->what;
    if (wild->log.count > 8) deed_list_remove(&wild->log, 0); /* the last eight */
    if (deed_str_equal(event->what, DEED_STR("crash evolve"))) abort();
}

DEED_STRUCT(Misread, DEED_INT(number));
DEED_EVOLVE(Misread, wild, event)
{
    wild->deeds += event->number;
}

DEED_STRUCT(Stranger, DEED_TEXT(id));

DEED_STRUCT(Do, DEED_TEXT(id), DEED_TEXT(what), DEED_OPTIONAL_INT(times));

static void eat(size_t size)
{
    for (size_t eaten = 0; eaten < size; eaten += 1 << 20) {
        char *memory = malloc(1 << 20);
        if (memory == NULL) abort();
        for (size_t i = 0; i < 1 << 20; i += 4096)
            ((volatile char *)memory)[i] = 1;
    }
    for (;;)
        pause();
}

DEED_DECIDE(Do, wild, command)
{
    deed_str what = command->what;
    if (deed_str_equal(what, DEED_STR("crash"))) abort();
    if (deed_str_equal(what, DEED_STR("null"))) *(volatile int *)0 = 1;
    if (deed_str_equal(what, DEED_STR("exit"))) _exit(7);
    if (deed_str_equal(what, DEED_STR("loop"))) {
        for (volatile int i = 0;; i = 1 - i)
            continue;
    }
    if (deed_str_equal(what, DEED_STR("eat"))) eat((size_t)8 << 30);
    if (deed_str_equal(what, DEED_STR("alloc"))) {
        for (;;)
            deed_alloc(ctx, 1 << 20);
    }
    if (deed_str_equal(what, DEED_STR("emit for ever"))) {
        for (;;)
            DEED_EMIT(WildHappened, .id = command->id, .what = what);
    }
    if (deed_str_equal(what, DEED_STR("panic"))) deed_panic(ctx, "this must not be: %d", 42);
    if (deed_str_equal(what, DEED_STR("stranger"))) return DEED_EMIT(Stranger, .id = command->id);
    if (deed_str_equal(what, DEED_STR("half"))) return DEED_EMIT(WildHappened, .id = command->id);
    if (deed_str_equal(what, DEED_STR("refuse"))) return DEED_REFUSED;
    if (deed_str_equal(what, DEED_STR("scribble"))) {
        if (write(3, "nonsense that is no frame", 25) != 25) abort();
    }
    if (deed_str_equal(what, DEED_STR("nothing"))) return deed_accept(ctx);
    if (deed_str_equal(what, DEED_STR("reject"))) {
        DEED_EMIT(WildHappened, .id = command->id, .what = DEED_STR("taken back"));
        return deed_reject(ctx, "no_way", "not %lld deeds", (long long)wild->deeds);
    }
    int64_t times = command->times.has ? command->times.value : 1;
    for (int64_t i = 0; i < times; i++) {
        DEED_EMIT(WildHappened, .id = command->id, .what = what);
    }
    return deed_accept(ctx);
}

static const struct deed_event_type events[] = {DEED_EVENT(WildHappened), DEED_EVENT(Misread)};
static const struct deed_command_type commands[] = {DEED_COMMAND(Do, id)};
static const struct deed_aggregate aggregates[] = {DEED_AGGREGATE("wild", wild, events, commands)};

DEED_EXPORT_DOMAIN("wild", aggregates);
