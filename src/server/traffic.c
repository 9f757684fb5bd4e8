/* traffic.c - a small table of series under a lock, and atomic counters.
 *
 * (1) A series is (route pattern, method, status); all three come from closed sets, so the table
 *     cannot be made to grow by clients. Past its end requests count as route "other". */
#include "server/traffic.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <uv.h>

#define SERIES_MAX 2048 /* power of two; routes × methods × statuses seen are some hundred */
#define ROUTE_MAX 256

/* Upper bounds in microseconds; Prometheus wants them in seconds. Around the promise of 10 ms. */
static const struct {
    uint64_t us;
    const char *label;
} bounds[] = {{100, "0.0001"},  {250, "0.00025"}, {500, "0.0005"},  {1000, "0.001"},
              {2500, "0.0025"}, {5000, "0.005"},  {10000, "0.01"},  {25000, "0.025"},
              {50000, "0.05"},  {100000, "0.1"},  {250000, "0.25"}, {500000, "0.5"},
              {1000000, "1"},   {2500000, "2.5"}, {10000000, "10"}};
#define BOUND_COUNT (sizeof bounds / sizeof *bounds)

struct series {
    const char *route;  /* NULL: free */
    const char *method; /* one of `methods` */
    int status;
    uint64_t count;
};

struct histogram {
    const char *route;
    uint64_t buckets[BOUND_COUNT + 1];
    uint64_t count, sum_ns;
};

struct traffic {
    uv_mutex_t mutex;
    struct series series[SERIES_MAX];
    size_t series_count;
    struct histogram histograms[ROUTE_MAX];
    size_t histogram_count;
    _Atomic uint64_t gauges[TRAFFIC_GAUGE_COUNT];
    _Atomic uint64_t counters[TRAFFIC_COUNTER_COUNT];
};

static const char *const methods[] = {"GET", "POST", "HEAD", "DELETE", "PUT", "OPTIONS", "PATCH"};
static const char other[] = "other";
const char traffic_refused[] = "(refused)";

deed_status traffic_create(struct traffic **out_traffic, struct deed_error *err)
{
    struct traffic *m = calloc(1, sizeof *m);
    if (m == NULL || uv_mutex_init(&m->mutex) != 0) {
        free(m);
        return deed_fail(err, DEED_NO_MEMORY, "traffic: out of memory");
    }
    *out_traffic = m;
    return DEED_OK;
}

void traffic_destroy(struct traffic *m)
{
    if (m == NULL) return;
    uv_mutex_destroy(&m->mutex);
    free(m);
}

static const char *method_name(deed_str method)
{
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
        if (deed_str_equal(method, deed_str_of(methods[i]))) return methods[i];
    }
    return other;
}

static struct series *series_find(struct traffic *m, const char *route, const char *method,
                                  int status)
{
    size_t at = ((uintptr_t)route >> 3 ^ (uintptr_t)method >> 1 ^ (size_t)status * 31) %
                SERIES_MAX;
    for (;;) {
        struct series *s = &m->series[at];
        if (s->route == NULL) break;
        if (s->route == route && s->method == method && s->status == status) return s;
        at = (at + 1) % SERIES_MAX;
    }
    if (m->series_count >= SERIES_MAX / 2 && route != other) { /* (1) */
        return series_find(m, other, method, status);
    }
    if (m->series_count == SERIES_MAX - 1) return NULL;
    m->series_count++;
    m->series[at] = (struct series){.route = route, .method = method, .status = status};
    return &m->series[at];
}

static struct histogram *histogram_find(struct traffic *m, const char *route)
{
    for (size_t i = 0; i < m->histogram_count; i++) {
        if (m->histograms[i].route == route) return &m->histograms[i];
    }
    if (m->histogram_count == ROUTE_MAX) return &m->histograms[ROUTE_MAX - 1];
    if (m->histogram_count == ROUTE_MAX - 1) route = other;
    m->histograms[m->histogram_count].route = route;
    return &m->histograms[m->histogram_count++];
}

void traffic_request(struct traffic *m, const char *route, deed_str method, int status,
                     uint64_t duration_ns)
{
    const char *name = method_name(method);
    size_t bucket = 0;
    while (bucket < BOUND_COUNT && duration_ns > bounds[bucket].us * 1000) bucket++;

    traffic_add(m, TRAFFIC_REQUESTS, 1);
    uv_mutex_lock(&m->mutex);
    struct series *series = series_find(m, route, name, status);
    if (series != NULL) series->count++;
    struct histogram *histogram = histogram_find(m, route);
    histogram->buckets[bucket]++;
    histogram->count++;
    histogram->sum_ns += duration_ns;
    uv_mutex_unlock(&m->mutex);
}

void traffic_set(struct traffic *m, enum traffic_gauge gauge, uint64_t value)
{
    atomic_store_explicit(&m->gauges[gauge], value, memory_order_relaxed);
}

void traffic_add(struct traffic *m, enum traffic_counter counter, uint64_t value)
{
    atomic_fetch_add_explicit(&m->counters[counter], value, memory_order_relaxed);
}

uint64_t traffic_get(struct traffic *m, enum traffic_counter counter)
{
    return atomic_load_explicit(&m->counters[counter], memory_order_relaxed);
}

static void histogram_render(const struct histogram *h, struct buf *out)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < BOUND_COUNT; i++) {
        sum += h->buckets[i];
        buf_printf(out,
                   "deedbook_http_request_duration_seconds_bucket{route=\"%s\",le=\"%s\"} %llu\n",
                   h->route, bounds[i].label, (unsigned long long)sum);
    }
    buf_printf(out,
               "deedbook_http_request_duration_seconds_bucket{route=\"%s\",le=\"+Inf\"} %llu\n",
               h->route, (unsigned long long)h->count);
    buf_printf(out, "deedbook_http_request_duration_seconds_sum{route=\"%s\"} %llu.%09llu\n",
               h->route, (unsigned long long)(h->sum_ns / 1000000000),
               (unsigned long long)(h->sum_ns % 1000000000));
    buf_printf(out, "deedbook_http_request_duration_seconds_count{route=\"%s\"} %llu\n", h->route,
               (unsigned long long)h->count);
}

static void head_render(struct buf *out, const char *name, const char *type, const char *help)
{
    buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void single_render(struct buf *out, const char *name, const char *type, const char *help,
                          uint64_t value)
{
    head_render(out, name, type, help);
    buf_printf(out, "%s %llu\n", name, (unsigned long long)value);
}

void traffic_render(struct traffic *m, struct buf *out)
{
    static const struct {
        const char *name, *help;
    } gauges[TRAFFIC_GAUGE_COUNT] = {
        [TRAFFIC_CONNECTIONS] = {"deedbook_http_connections", "Open connections."},
        [TRAFFIC_REQUESTS_IN_FLIGHT] = {"deedbook_http_requests_in_flight",
                                        "Requests begun and not answered to the end."},
        [TRAFFIC_BYTES_IN_FLIGHT] = {"deedbook_http_in_flight_bytes",
                                     "Bodies held for requests in flight."},
        [TRAFFIC_STREAMS_WAITING] = {"deedbook_http_streams_waiting",
                                     "Responses that follow the log and wait at its end."},
        [TRAFFIC_POOL_QUEUE] = {"deedbook_http_pool_queue", "Requests that wait for a thread."},
    };
    static const struct {
        const char *name, *help;
    } counters[TRAFFIC_COUNTER_COUNT] = {
        [TRAFFIC_CONNECTIONS_ACCEPTED] = {"deedbook_http_connections_total",
                                          "Connections accepted."},
        [TRAFFIC_CONNECTIONS_REFUSED] = {"deedbook_http_connections_refused_total",
                                         "Connections closed at once: too many."},
        [TRAFFIC_TIMEOUTS] = {"deedbook_http_timeouts_total",
                              "Connections closed for slow heads, bodies or readers."},
        [TRAFFIC_OVERLOADS] = {"deedbook_http_overloads_total",
                               "Requests refused: too many bytes in flight."},
        [TRAFFIC_REQUESTS] = {"deedbook_http_answers_total", "Requests answered, of all routes."},
        [TRAFFIC_BYTES_READ] = {"deedbook_http_read_bytes_total", "Bytes read from clients."},
        [TRAFFIC_BYTES_WRITTEN] = {"deedbook_http_written_bytes_total",
                                   "Bytes written to clients."},
    };
    for (size_t i = 0; i < TRAFFIC_GAUGE_COUNT; i++) {
        single_render(out, gauges[i].name, "gauge", gauges[i].help, atomic_load(&m->gauges[i]));
    }
    for (size_t i = 0; i < TRAFFIC_COUNTER_COUNT; i++) {
        single_render(out, counters[i].name, "counter", counters[i].help,
                      atomic_load(&m->counters[i]));
    }
    uv_mutex_lock(&m->mutex);
    head_render(out, "deedbook_http_requests_total", "counter", "Requests answered.");
    for (size_t i = 0; i < SERIES_MAX; i++) {
        const struct series *s = &m->series[i];
        if (s->route == NULL) continue;
        buf_printf(out,
                   "deedbook_http_requests_total{route=\"%s\",method=\"%s\",status=\"%d\"} %llu\n",
                   s->route, s->method, s->status, (unsigned long long)s->count);
    }
    head_render(out, "deedbook_http_request_duration_seconds", "histogram",
                "From a request's last byte to its answer's last.");
    for (size_t i = 0; i < m->histogram_count; i++) histogram_render(&m->histograms[i], out);
    uv_mutex_unlock(&m->mutex);
}
