// SPDX-License-Identifier: MIT
/* jinja_format.c: "%s" % x and "{}".format(x), with widths, signs and precisions of the usual kinds. */
#include <stdio.h>

#include "text/jinja_run.h"

#define MAX_WIDTH 10000

typedef kvant_jinja_run run;
typedef kvant_jinja_value value;
typedef kvant_jinja_builder builder;

/* How one value is to be written. */
typedef struct spec {
    char fill[4];
    size_t fill_size;
    char align, sign, type; /* 0: not given */
    bool zero, grouped;
    int width, precision; /* -1: not given */
} spec;

static kvant_status bad_format(run *r, const char *found) {
    return kvant_jinja_fail(r, KVANT_EUNSUPPORTED, found, "a format that Kvant knows");
}

static int read_width(const char *s, size_t n, size_t *at) {
    int width = -1;
    for (; *at < n && s[*at] >= '0' && s[*at] <= '9'; ++*at)
        width = width > MAX_WIDTH ? width : (width < 0 ? 0 : width * 10) + (s[*at] - '0');
    return width;
}

static void pad(builder *b, const spec *f, const char *text, size_t size, char align) {
    size_t n = kvant_jinja_count_chars(text, size), width = f->width > 0 ? (size_t)f->width : 0;
    size_t missing = width > n ? width - n : 0, left = align == '<' ? 0 : align == '^' ? missing / 2 : missing;
    bool signed_zeros = align == '=' && size && (*text == '-' || *text == '+' || *text == ' ');
    if (signed_zeros) kvant_jinja_add(b, text++, 1);
    kvant_jinja_add_repeated(b, f->fill, f->fill_size, left);
    kvant_jinja_add(b, text, size - signed_zeros);
    kvant_jinja_add_repeated(b, f->fill, f->fill_size, missing - left);
}

static void group_digits(char *text, size_t room) {
    size_t start = *text == '-' || *text == '+', n = start;
    while (text[n] >= '0' && text[n] <= '9')
        n++;
    for (size_t i = n; i > start + 3; i -= 3) {
        size_t size = strlen(text);
        if (size + 2 > room) return;
        memmove(text + i - 2, text + i - 3, size - i + 4);
        text[i - 3] = ',';
    }
}

static kvant_status format_number(run *r, builder *b, const spec *f, const value *v, char type) {
    char text[512];
    double d = kvant_jinja_real(v);
    int precision = f->precision < 0 ? 6 : f->precision;
    const char *sign = f->sign == '+' && d >= 0 ? "+" : f->sign == ' ' && d >= 0 ? " " : "";
    if (precision > 100) return bad_format(r, "a precision above 100");
    switch (type) {
    case 'd':
        if (!kvant_jinja_is_integral(v)) return bad_format(r, "a float for an integer's format");
        snprintf(text, sizeof text, "%s%lld", sign, (long long)kvant_jinja_integral(v));
        break;
    case 'x':
    case 'X':
    case 'o':
        if (!kvant_jinja_is_integral(v) || kvant_jinja_integral(v) < 0) return bad_format(r, "no natural number for x or o");
        snprintf(text, sizeof text,
                 type == 'x'   ? "%llx"
                 : type == 'X' ? "%llX"
                               : "%llo",
                 (unsigned long long)kvant_jinja_integral(v));
        break;
    case 'e':
    case 'E':
        snprintf(text, sizeof text, type == 'e' ? "%s%.*e" : "%s%.*E", sign, precision, d);
        break;
    case 'g':
        snprintf(text, sizeof text, "%s%.*g", sign, precision, d);
        break;
    case '%':
        snprintf(text, sizeof text, "%s%.*f%%", sign, precision, d * 100);
        break;
    default:
        snprintf(text, sizeof text, "%s%.*f", sign, precision, d);
        break;
    }
    if (type == 'f' || type == 'e' || type == 'E' || type == 'g') kvant_jinja_fix_point(text);
    if (f->grouped) group_digits(text, sizeof text);
    pad(b, f, text, strlen(text), f->align ? f->align : f->zero ? '=' : '>');
    return KVANT_OK;
}

static kvant_status format_text(run *r, builder *b, const spec *f, const value *v, char align) {
    value text;
    KVANT_TRY(kvant_jinja_to_text(r, v, &text));
    size_t size = text.as.text->size;
    if (f->precision >= 0) size = kvant_jinja_char_offset(text.as.text, (size_t)f->precision);
    pad(b, f, text.as.text->bytes, size, align);
    return KVANT_OK;
}

/* ---- % ---- */

/* The value for "%(name)s"; JINJA_MISSING without a name. */
static kvant_status percent_value(run *r, const kvant_jinja_text *t, size_t *at, const value *args, value *out) {
    if (*at < t->size && t->bytes[*at] == '(') {
        const char *end = memchr(t->bytes + *at, ')', t->size - *at);
        if (!end || args->kind != JINJA_DICT) return bad_format(r, "%( without ) or without a dict");
        const value *v = kvant_jinja_map_find_text(args->as.map, t->bytes + *at + 1, (size_t)(end - t->bytes) - *at - 1);
        if (!v) return kvant_jinja_fail(r, KVANT_EFORMAT, "a name in % that the dict has not", "one of its keys");
        *at = (size_t)(end - t->bytes) + 1;
        *out = *v;
        return KVANT_OK;
    }
    out->kind = JINJA_MISSING;
    return KVANT_OK;
}

static kvant_status percent_one(run *r, builder *b, const kvant_jinja_text *t, size_t *at, const value *args, size_t *used) {
    spec f = {.fill = " ", .fill_size = 1, .precision = -1};
    value v = {.kind = JINJA_MISSING};
    KVANT_TRY(percent_value(r, t, at, args, &v));
    for (; *at < t->size && strchr("-+ 0#", t->bytes[*at]) && t->bytes[*at]; ++*at) {
        char c = t->bytes[*at];
        if (c == '-') f.align = '<';
        if (c == '0') f.zero = true;
        if (c == '+' || c == ' ') f.sign = c;
    }
    f.width = read_width(t->bytes, t->size, at);
    if (*at < t->size && t->bytes[*at] == '.') {
        ++*at;
        f.precision = read_width(t->bytes, t->size, at);
        if (f.precision < 0) f.precision = 0;
    }
    if (*at >= t->size) return bad_format(r, "a % at the end of a format");
    if (f.width > MAX_WIDTH || f.precision > MAX_WIDTH) return bad_format(r, "a width above 10000");
    char type = t->bytes[(*at)++];
    if (type == '%') {
        kvant_jinja_add_str(b, "%");
        return KVANT_OK;
    }
    if (v.kind == JINJA_MISSING) {
        bool tuple = args->kind == JINJA_TUPLE;
        if (*used >= (tuple ? args->as.items->n : 1))
            return kvant_jinja_fail(r, KVANT_EFORMAT, "too few values for %", "one for each place");
        v = tuple ? args->as.items->data[*used] : *args;
        ++*used;
    }
    if (type == 's') return format_text(r, b, &f, &v, f.align ? f.align : '>');
    if (type == 'r') {
        builder repr;
        value text;
        kvant_jinja_builder_init(&repr, r->heap);
        KVANT_TRY(kvant_jinja_print_repr(r, &repr, &v));
        KVANT_TRY(kvant_jinja_finish(r, &repr, &text));
        return format_text(r, b, &f, &text, f.align ? f.align : '>');
    }
    if (!strchr("dixXofFeEg", type) || type == '\0')
        return bad_format(r, "a kind of % that is not one of s, r, d, i, x, X, o, f, e, g and %");
    if (!kvant_jinja_is_number(&v)) return kvant_jinja_wrong(r, "a number's %", &v, "a number");
    if (f.zero && !f.align) *f.fill = '0';
    value whole = v;
    bool integer = strchr("di", type) != NULL;
    if (integer && v.kind == JINJA_FLOAT) {
        if (!(v.as.real > -9e18 && v.as.real < 9e18)) return bad_format(r, "a number beyond 64 bits");
        whole = kvant_jinja_int((int64_t)v.as.real);
    }
    return format_number(r, b, &f, &whole, integer ? 'd' : type == 'F' ? 'f' : type);
}

kvant_status kvant_jinja_percent(run *r, const kvant_jinja_text *t, const value *args, value *out) {
    builder b;
    kvant_jinja_builder_init(&b, r->heap);
    size_t used = 0;
    for (size_t i = 0; i < t->size;) {
        const char *sign = memchr(t->bytes + i, '%', t->size - i);
        size_t end = sign ? (size_t)(sign - t->bytes) : t->size;
        kvant_jinja_add(&b, t->bytes + i, end - i);
        i = end + 1;
        KVANT_TRY(kvant_jinja_step_bytes(r, end));
        if (sign) KVANT_TRY(percent_one(r, &b, t, &i, args, &used));
    }
    if (args->kind == JINJA_TUPLE ? used < args->as.items->n : used == 0 && args->kind != JINJA_DICT && args->kind != JINJA_LIST)
        return kvant_jinja_fail(r, KVANT_EFORMAT, "more values for % than places", "one for each");
    return kvant_jinja_finish(r, &b, out);
}

/* ---- format() ---- */

static kvant_status read_spec(run *r, const char *s, size_t n, spec *f) {
    size_t i = 0;
    *f = (spec){.fill = " ", .fill_size = 1, .width = -1, .precision = -1};
    size_t first = n ? 1 : 0;
    while (first < n && ((uint8_t)s[first] & 0xC0) == 0x80)
        first++;
    if (first && first < n && first <= 4 && strchr("<>^=", s[first]) && s[first]) {
        memcpy(f->fill, s, first);
        f->fill_size = first;
        f->align = s[first];
        i = first + 1;
    } else if (n && strchr("<>^=", s[0]) && s[0]) {
        f->align = s[i++];
    }
    if (i < n && strchr("+- ", s[i]) && s[i]) f->sign = s[i++];
    if (i < n && s[i] == '0') {
        f->zero = true;
        if (!f->align) *f->fill = '0';
        i++;
    }
    f->width = read_width(s, n, &i);
    if (i < n && s[i] == ',') {
        f->grouped = true;
        i++;
    }
    if (i < n && s[i] == '.') {
        i++;
        f->precision = read_width(s, n, &i);
    }
    if (i < n && strchr("sdxXofFeEg%", s[i]) && s[i]) f->type = s[i++];
    return i == n && f->width <= MAX_WIDTH && f->precision <= MAX_WIDTH ? KVANT_OK
                                                                        : bad_format(r, "a format's {...} of an unknown kind");
}

static kvant_status format_value(run *r, builder *b, const char *s, size_t n, const value *v) {
    spec f;
    KVANT_TRY(read_spec(r, s, n, &f));
    bool number = v->kind == JINJA_INT || v->kind == JINJA_FLOAT || (v->kind == JINJA_BOOL && f.type);
    if (f.type == 's' && number) return bad_format(r, "a number for an s format");
    if (!number && f.type && f.type != 's') return kvant_jinja_wrong(r, "a number's format", v, "a number");
    char type = f.type ? f.type : v->kind == JINJA_INT || v->kind == JINJA_BOOL ? 'd' : f.precision >= 0 ? 'g' : 0;
    if (!number || !type) return format_text(r, b, &f, v, f.align ? f.align : number ? '>' : '<');
    return format_number(r, b, &f, v, type == 'F' ? 'f' : type);
}

/* name, 0 or nothing, then .attribute and [item] */
static kvant_status field_value(run *r, const char *s, size_t n, const kvant_jinja_call *c, size_t *next, value *out) {
    size_t size = 0;
    while (size < n && s[size] != '.' && s[size] != '[')
        size++;
    bool digits = size > 0 && size < 6;
    for (size_t i = 0; i < size; i++)
        digits = digits && s[i] >= '0' && s[i] <= '9';
    if (size != n) return bad_format(r, "an attribute or item inside {}");
    size_t index = *next;
    if (digits) {
        index = 0;
        for (size_t i = 0; i < size; i++)
            index = index * 10 + (size_t)(s[i] - '0');
    } else if (size == 0) {
        ++*next;
    }
    if (digits || size == 0) {
        if (index >= c->n_values) return kvant_jinja_fail(r, KVANT_EFORMAT, "too few values for format()", "one for each {}");
        *out = c->values[index];
        return KVANT_OK;
    }
    for (size_t i = 0; i < c->n_named; i++) {
        if (strlen(c->named[i].name) != size || memcmp(c->named[i].name, s, size) != 0) continue;
        *out = c->named[i].value;
        return KVANT_OK;
    }
    return kvant_jinja_fail(r, KVANT_EFORMAT, "a name in {} that format() was not given", "a named argument");
}

kvant_status kvant_jinja_format(run *r, const kvant_jinja_text *t, const kvant_jinja_call *c, value *out) {
    builder b;
    kvant_jinja_builder_init(&b, r->heap);
    size_t next = 0;
    const char *s = t->bytes;
    for (size_t i = 0; i < t->size;) {
        if ((s[i] == '{' || s[i] == '}') && i + 1 < t->size && s[i + 1] == s[i]) {
            kvant_jinja_add(&b, s + i, 1);
            i += 2;
        } else if (s[i] == '{') {
            const char *end = memchr(s + i, '}', t->size - i);
            size_t n = end ? (size_t)(end - s) - i - 1 : 0;
            if (!end || memchr(s + i + 1, '{', n) || (n && memchr(s + i + 1, '!', n)))
                return bad_format(r, "{ of an unknown kind");
            const char *colon = n ? memchr(s + i + 1, ':', n) : NULL;
            size_t name = colon ? (size_t)(colon - s) - i - 1 : n;
            value v;
            KVANT_TRY(kvant_jinja_step(r, 1));
            KVANT_TRY(field_value(r, s + i + 1, name, c, &next, &v));
            KVANT_TRY(format_value(r, &b, s + i + 1 + name + (colon != NULL), n - name - (colon != NULL), &v));
            i = (size_t)(end - s) + 1;
        } else if (s[i] == '}') {
            return kvant_jinja_fail(r, KVANT_EFORMAT, "a single } in a format", "}}");
        } else {
            kvant_jinja_add(&b, s + i++, 1);
        }
    }
    return kvant_jinja_finish(r, &b, out);
}
