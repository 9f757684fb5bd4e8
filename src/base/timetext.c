/* timetext.c - RFC 3339, section 5.6, over days counted by the civil-from-days method (Hinnant,
 * "chrono-Compatible Low-Level Date Algorithms", 2013). */
#include "base/timetext.h"

#include "base/text.h"

#define NS_PER_SECOND INT64_C(1000000000)

static int64_t days_from_civil(int64_t year, int64_t month, int64_t day)
{
    year -= month <= 2;
    int64_t era = (year >= 0 ? year : year - 399) / 400;
    int64_t year_of_era = year - era * 400;
    int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    int64_t day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    return era * 146097 + day_of_era - 719468;
}

static void civil_from_days(int64_t days, int *year, int *month, int *day)
{
    days += 719468;
    int64_t era = (days >= 0 ? days : days - 146096) / 146097;
    int64_t doe = days - era * 146097;
    int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    int64_t mp = (5 * doy + 2) / 153;
    *day = (int)(doy - (153 * mp + 2) / 5 + 1);
    *month = (int)(mp < 10 ? mp + 3 : mp - 9);
    *year = (int)(yoe + era * 400 + (*month <= 2));
}

/* Two digits of a number below 100, and what stands behind them; the place behind that. */
static inline char *pair_put(char *at, uint32_t value, char mark)
{
    at[0] = (char)('0' + value / 10);
    at[1] = (char)('0' + value % 10);
    at[2] = mark;
    return at + 3;
}

#define SECOND_TEXT_SIZE 20 /* "2026-11-23T04:07:09." */

static void second_format(int64_t seconds, char out[SECOND_TEXT_SIZE + 1])
{
    int64_t days = seconds / 86400;
    int64_t rest = seconds % 86400;
    if (rest < 0) {
        rest += 86400;
        days--;
    }
    int year, month, day;
    civil_from_days(days, &year, &month, &day);

    uint32_t second_of_day = (uint32_t)rest;
    char *at = out;
    at = pair_put(at, (uint32_t)year / 100, '-') - 1;
    at = pair_put(at, (uint32_t)year % 100, '-');
    at = pair_put(at, (uint32_t)month, '-');
    at = pair_put(at, (uint32_t)day, 'T');
    at = pair_put(at, second_of_day / 3600, ':');
    at = pair_put(at, second_of_day / 60 % 60, ':');
    (void)pair_put(at, second_of_day % 60, '.');
}

/* By hand: printf was a third of the cost of reading events over HTTP, and the calendar and a
 * division a digit were still an eighth. Most times are of the second of the one before. */
void time_format(int64_t time_ns, char out[TIME_TEXT_SIZE + 1])
{
    static _Thread_local struct {
        bool filled;
        int64_t seconds;
        char text[SECOND_TEXT_SIZE + 1];
    } last;
    int64_t seconds = time_ns / NS_PER_SECOND;
    int64_t fraction = time_ns % NS_PER_SECOND;
    if (fraction < 0) {
        fraction += NS_PER_SECOND;
        seconds--;
    }
    if (!last.filled || last.seconds != seconds) {
        second_format(seconds, last.text);
        last.seconds = seconds;
        last.filled = true;
    }
    memcpy(out, last.text, SECOND_TEXT_SIZE);
    uint32_t nanoseconds = (uint32_t)fraction;
    char *at = out + SECOND_TEXT_SIZE;
    at = pair_put(at, nanoseconds / 10000000, '.') - 1;
    at = pair_put(at, nanoseconds / 100000 % 100, '.') - 1;
    at = pair_put(at, nanoseconds / 1000 % 100, '.') - 1;
    at = pair_put(at, nanoseconds / 10 % 100, '.') - 1;
    at[0] = (char)('0' + nanoseconds % 10);
    at[1] = 'Z';
    at[2] = '\0';
}

struct scan {
    deed_str text;
    size_t at;
    bool bad;
};

static int64_t scan_digits(struct scan *s, size_t count)
{
    int64_t value = 0;
    for (size_t i = 0; i < count; i++) {
        if (s->at >= s->text.len || s->text.ptr[s->at] < '0' || s->text.ptr[s->at] > '9') {
            s->bad = true;
            return 0;
        }
        value = value * 10 + (s->text.ptr[s->at++] - '0');
    }
    return value;
}

static bool scan_char(struct scan *s, char wanted)
{
    char lower = ascii_lower(wanted);
    if (s->at < s->text.len && (s->text.ptr[s->at] == wanted || s->text.ptr[s->at] == lower)) {
        s->at++;
        return true;
    }
    return false;
}

static void scan_expect(struct scan *s, char wanted)
{
    if (!scan_char(s, wanted)) s->bad = true;
}

static int64_t scan_date(struct scan *s)
{
    static const int month_days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    int64_t year = scan_digits(s, 4);
    scan_expect(s, '-');
    int64_t month = scan_digits(s, 2);
    scan_expect(s, '-');
    int64_t day = scan_digits(s, 2);
    if (s->bad || month < 1 || month > 12) {
        s->bad = true;
        return 0;
    }
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    int64_t last = month_days[month - 1] + (month == 2 && leap);
    if (day < 1 || day > last) s->bad = true;
    return days_from_civil(year, month, day);
}

static int64_t scan_fraction(struct scan *s)
{
    if (!scan_char(s, '.')) return 0;
    int64_t fraction = 0;
    int64_t unit = NS_PER_SECOND;
    size_t start = s->at;
    while (s->at < s->text.len && s->text.ptr[s->at] >= '0' && s->text.ptr[s->at] <= '9') {
        unit /= 10;
        fraction += (s->text.ptr[s->at++] - '0') * unit;
    }
    if (s->at == start) s->bad = true;
    return fraction;
}

static int64_t scan_offset_seconds(struct scan *s)
{
    if (scan_char(s, 'Z')) return 0;
    int64_t sign = 1;
    if (scan_char(s, '-')) {
        sign = -1;
    } else {
        scan_expect(s, '+');
    }
    int64_t hours = scan_digits(s, 2);
    scan_expect(s, ':');
    int64_t minutes = scan_digits(s, 2);
    if (hours > 23 || minutes > 59) s->bad = true;
    return sign * (hours * 3600 + minutes * 60);
}

bool time_parse(deed_str text, int64_t *out_time_ns)
{
    struct scan s = {.text = text};
    int64_t seconds = scan_date(&s) * 86400;
    int64_t fraction = 0;
    if (s.bad) return false;
    if (s.at < text.len) {
        if (!scan_char(&s, 'T')) scan_expect(&s, ' ');
        int64_t hour = scan_digits(&s, 2);
        scan_expect(&s, ':');
        int64_t minute = scan_digits(&s, 2);
        scan_expect(&s, ':');
        int64_t second = scan_digits(&s, 2);
        fraction = scan_fraction(&s);
        if (second == 60) fraction = 0; /* a leap second is one instant here */
        seconds += hour * 3600 + minute * 60 + second - scan_offset_seconds(&s);
        if (hour > 23 || minute > 59 || second > 60) s.bad = true;
    }
    if (s.bad || s.at != text.len) return false;

    /* Before 1970 the fraction counts back from the next second: the whole seconds of the first
     * instant in reach are themselves out of reach. */
    if (seconds < 0 && fraction > 0) {
        seconds++;
        fraction -= NS_PER_SECOND;
    }
    int64_t time_ns;
    if (__builtin_mul_overflow(seconds, NS_PER_SECOND, &time_ns)) return false;
    if (__builtin_add_overflow(time_ns, fraction, &time_ns)) return false;
    *out_time_ns = time_ns;
    return true;
}

bool date_valid(deed_str text)
{
    struct scan s = {.text = text};
    (void)scan_date(&s);
    return !s.bad && s.at == text.len;
}
