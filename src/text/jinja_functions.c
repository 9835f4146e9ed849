// SPDX-License-Identifier: MIT
/* jinja_functions.c: what templates call by name: range, dict, namespace, cycler, joiner, raise_exception, strftime_now. */
#include <stdio.h>

#include "text/jinja_run.h"

#define MAX_RANGE 100000

typedef kvant_jinja_run run;
typedef kvant_jinja_value value;
typedef kvant_jinja_call call;

static kvant_status refuse(run *r, call *c, value *out) {
    value text;
    (void)out;
    KVANT_TRY(kvant_jinja_to_text(r, &c->arg[0], &text));
    int size = text.as.text->size > 600 ? 600 : (int)text.as.text->size;
    return kvant_fail(r->err, KVANT_EINVAL, "%s: the chat template does not take this chat: %.*s", r->t->name, size,
                      text.as.text->bytes);
}

static kvant_status make_range(run *r, call *c, value *out) {
    int64_t n[3];
    for (int i = 0; i < 3; i++)
        KVANT_TRY(kvant_jinja_int_arg(r, c, i, i == 2, &n[i]));
    int64_t start = c->arg[1].kind == JINJA_MISSING ? 0 : n[0], end = c->arg[1].kind == JINJA_MISSING ? n[0] : n[1], step = n[2];
    if (step == 0) return kvant_jinja_fail(r, KVANT_EFORMAT, "range() with step 0", "another step");
    kvant_status st = kvant_jinja_list(r->heap, out);
    for (int64_t i = start; (step > 0 ? i < end : i > end) && st == KVANT_OK; i += step) {
        if (out->as.items->n >= MAX_RANGE)
            return kvant_jinja_fail(r, KVANT_EFULL, "a range of more than 100000 numbers", "fewer");
        st = kvant_jinja_push(r->heap, out->as.items, kvant_jinja_int(i));
        if (step > 0 ? i > INT64_MAX - step : i < INT64_MIN - step) break;
    }
    if (st != KVANT_OK) return kvant_jinja_out_of_memory(r, st);
    out->as.items->view = "range";
    return kvant_jinja_step(r, out->as.items->n / 16 + 1);
}

/* dict(other, name=value ...) and namespace(...). */
static kvant_status make_dict(run *r, call *c, value *out) {
    kvant_status st = kvant_jinja_dict(r->heap, out);
    if (c->n_values > 1)
        return kvant_jinja_fail(r, KVANT_EFORMAT, "two values for dict() or namespace()", "a dict and named values");
    if (c->n_values && c->values[0].kind == JINJA_DICT) {
        const kvant_jinja_map *m = c->values[0].as.map;
        for (size_t i = 0; i < m->n && st == KVANT_OK; i++)
            st = kvant_jinja_map_set(r->heap, out->as.map, m->entries[i].key, m->entries[i].value);
    } else if (c->n_values) {
        kvant_jinja_items pairs, pair;
        KVANT_TRY(kvant_jinja_iterate(r, &c->values[0], &pairs));
        for (size_t i = 0; i < pairs.n && st == KVANT_OK; i++) {
            KVANT_TRY(kvant_jinja_iterate(r, &pairs.data[i], &pair));
            if (pair.n != 2 || !kvant_jinja_is_key(&pair.data[0], 0))
                return kvant_jinja_fail(r, KVANT_EFORMAT, "an item of dict() that is no pair", "a key and a value");
            st = kvant_jinja_map_set(r->heap, out->as.map, pair.data[0], pair.data[1]);
        }
    }
    for (size_t i = 0; i < c->n_named && st == KVANT_OK; i++)
        st = kvant_jinja_dict_set(r->heap, out, c->named[i].name, c->named[i].value);
    return st == KVANT_OK ? kvant_jinja_step(r, out->as.map->n + 1) : kvant_jinja_out_of_memory(r, st);
}

static kvant_status make_namespace(run *r, call *c, value *out) {
    KVANT_TRY(make_dict(r, c, out));
    out->kind = JINJA_NAMESPACE;
    return KVANT_OK;
}

static kvant_status make_cycler(run *r, call *c, value *out) {
    kvant_status st = kvant_jinja_new_items(r->heap, JINJA_LIST, c->n_values, out);
    if (st != KVANT_OK) return kvant_jinja_out_of_memory(r, st);
    for (size_t i = 0; i < c->n_values; i++)
        out->as.items->data[out->as.items->n++] = c->values[i];
    out->as.items->room = 0; /* from here on: calls so far */
    out->kind = JINJA_CYCLER;
    return KVANT_OK;
}

/* Its items: the separator, and the empty text of the first call. */
static kvant_status make_joiner(run *r, call *c, value *out) {
    value separator = c->arg[0];
    kvant_status st = kvant_jinja_new_items(r->heap, JINJA_JOINER, 2, out);
    if (st == KVANT_OK && separator.kind == JINJA_MISSING) st = kvant_jinja_string(r->heap, ", ", 2, &separator);
    if (st != KVANT_OK) return kvant_jinja_out_of_memory(r, st);
    out->as.items->data[0] = separator;
    st = kvant_jinja_string(r->heap, "", 0, &out->as.items->data[1]);
    out->as.items->n = 1; /* 2 once it was called */
    return st == KVANT_OK ? st : kvant_jinja_out_of_memory(r, st);
}

/* ---- strftime_now ---- */

static bool is_leap(int year) { return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0; }

static int day_of_year(const kvant_jinja_time *t) {
    static const int BEFORE[] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334};
    int month = t->month < 1 ? 1 : t->month > 12 ? 12 : t->month;
    return BEFORE[month - 1] + t->day + (month > 2 && is_leap(t->year));
}

static int weekday(const kvant_jinja_time *t) { /* 0: Sunday */
    long y = t->year - 1;
    return (int)((y * 365 + y / 4 - y / 100 + y / 400 + day_of_year(t)) % 7 + 7) % 7;
}

/* A part that is a number: its value and the digits it has at least. */
static bool time_number(const kvant_jinja_time *t, char kind, int *number, int *width) {
    int day = weekday(t);
    const struct {
        char kind;
        int number, width;
    } NUMBERS[] = {{'Y', t->year, 1}, {'y', t->year % 100, 2}, {'m', t->month, 2},      {'d', t->day, 2},
                   {'H', t->hour, 2}, {'M', t->minute, 2},     {'S', t->second, 2},     {'I', (t->hour + 11) % 12 + 1, 2},
                   {'w', day, 1},     {'u', day ? day : 7, 1}, {'j', day_of_year(t), 3}};
    for (size_t i = 0; i < sizeof NUMBERS / sizeof *NUMBERS; i++) {
        if (NUMBERS[i].kind != kind) continue;
        *number = NUMBERS[i].number;
        *width = NUMBERS[i].width;
        return true;
    }
    return false;
}

/* One letter behind %; bare: without leading zeros (%-d). */
static bool add_time(kvant_jinja_builder *b, const kvant_jinja_time *t, char kind, bool bare) {
    static const char *const MONTHS[] = {"January", "February", "March",     "April",   "May",      "June",
                                         "July",    "August",   "September", "October", "November", "December"};
    static const char *const DAYS[] = {"Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"};
    const char *month = MONTHS[(t->month < 1 ? 1 : t->month > 12 ? 12 : t->month) - 1], *day = DAYS[weekday(t)];
    char text[96] = "";
    int number, width;
    if (time_number(t, kind, &number, &width)) {
        snprintf(text, sizeof text, "%0*d", bare ? 1 : width, number);
        kvant_jinja_add_str(b, text);
        return true;
    }
    switch (kind) {
    case 'e':
        snprintf(text, sizeof text, bare ? "%d" : "%2d", t->day);
        break;
    case 'B':
        snprintf(text, sizeof text, "%s", month);
        break;
    case 'b':
    case 'h':
        snprintf(text, sizeof text, "%.3s", month);
        break;
    case 'A':
        snprintf(text, sizeof text, "%s", day);
        break;
    case 'a':
        snprintf(text, sizeof text, "%.3s", day);
        break;
    case 'p':
        snprintf(text, sizeof text, "%s", t->hour < 12 ? "AM" : "PM");
        break;
    case 'Z': /* local time, without a zone */
    case 'z':
        break;
    case 'n':
        snprintf(text, sizeof text, "\n");
        break;
    case 't':
        snprintf(text, sizeof text, "\t");
        break;
    case '%':
        snprintf(text, sizeof text, "%%");
        break;
    case 'F':
        snprintf(text, sizeof text, "%04d-%02d-%02d", t->year, t->month, t->day);
        break;
    case 'T':
    case 'X':
        snprintf(text, sizeof text, "%02d:%02d:%02d", t->hour, t->minute, t->second);
        break;
    case 'R':
        snprintf(text, sizeof text, "%02d:%02d", t->hour, t->minute);
        break;
    case 'D':
    case 'x':
        snprintf(text, sizeof text, "%02d/%02d/%02d", t->month, t->day, t->year % 100);
        break;
    case 'c':
        snprintf(text, sizeof text, "%.3s %.3s %2d %02d:%02d:%02d %d", day, month, t->day, t->hour, t->minute, t->second,
                 t->year);
        break;
    default:
        return false;
    }
    kvant_jinja_add_str(b, text);
    return true;
}

static kvant_status strftime_now(run *r, call *c, value *out) {
    const kvant_jinja_text *t;
    kvant_jinja_builder b;
    KVANT_TRY(kvant_jinja_text_arg(r, c, 0, &t));
    kvant_jinja_builder_init(&b, r->heap);
    for (size_t i = 0; i < t->size; i++) {
        if (t->bytes[i] != '%' || i + 1 == t->size) {
            kvant_jinja_add(&b, t->bytes + i, 1);
            continue;
        }
        bool bare = t->bytes[i + 1] == '-' && i + 2 < t->size;
        i += bare ? 2 : 1;
        if (!add_time(&b, &r->options->now, t->bytes[i], bare))
            return kvant_jinja_fail(r, KVANT_EUNSUPPORTED, "a part of strftime_now's format that is not known",
                                    "one of the usual letters behind %");
    }
    return kvant_jinja_finish(r, &b, out);
}

const kvant_jinja_builtin *kvant_jinja_find_function(const char *name) {
    static const kvant_jinja_builtin FUNCTIONS[] = {
        {"raise_exception", refuse, "message", 1},   {"strftime_now", strftime_now, "format", 1},
        {"range", make_range, "start stop step", 1}, {"dict", make_dict, NULL, 0},
        {"namespace", make_namespace, NULL, 0},      {"cycler", make_cycler, NULL, 0},
        {"joiner", make_joiner, "sep", 0},
    };
    return kvant_jinja_find_in(FUNCTIONS, sizeof FUNCTIONS / sizeof *FUNCTIONS, name, strlen(name));
}
