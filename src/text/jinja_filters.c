// SPDX-License-Identifier: MIT
/* jinja_filters.c: filters on texts, numbers and single values; those that go through lists are in jinja_list_filters.c. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "text/jinja_run.h"

typedef kvant_jinja_run run;
typedef kvant_jinja_value value;
typedef kvant_jinja_call call;

static bool given(const call *c, int index) { return c->arg[index].kind != JINJA_MISSING; }

/* The same on a text: the input as one, by a method of str. */
static kvant_status by_method(run *r, call *c, value *out, const char *name) {
    value text;
    KVANT_TRY(kvant_jinja_to_text(r, &c->self, &text));
    c->self = text;
    c->what = kvant_jinja_find_text_method(name);
    return c->what->fn(r, c, out);
}

static kvant_status trim(run *r, call *c, value *out) { return by_method(r, c, out, "strip"); }
static kvant_status replace(run *r, call *c, value *out) {
    value v;
    for (int i = 0; i < 2; i++) {
        KVANT_TRY(kvant_jinja_to_text(r, &c->arg[i], &v));
        c->arg[i] = v;
    }
    return by_method(r, c, out, "replace");
}
static kvant_status center(run *r, call *c, value *out) {
    if (!given(c, 0)) c->arg[0] = kvant_jinja_int(80);
    return by_method(r, c, out, "center");
}

static kvant_status change_case(run *r, call *c, value *out) {
    const char *name = c->what->name;
    value text;
    KVANT_TRY(kvant_jinja_to_text(r, &c->self, &text));
    kvant_jinja_case to = strcmp(name, "upper") == 0   ? CASE_UPPER
                          : strcmp(name, "lower") == 0 ? CASE_LOWER
                          : strcmp(name, "title") == 0 ? CASE_TITLE
                                                       : CASE_CAPITALIZE;
    return kvant_jinja_change_case(r, text.as.text, to, out);
}

static kvant_status string(run *r, call *c, value *out) { return kvant_jinja_to_text(r, &c->self, out); }

/* Nothing is escaped on output, so what is safe stays as it is. */
static kvant_status safe(run *r, call *c, value *out) { return kvant_jinja_to_text(r, &c->self, out); }

static kvant_status escape(run *r, call *c, value *out) {
    static const char SIGNS[] = "&<>'\"";
    static const char *const NAMES[] = {"&amp;", "&lt;", "&gt;", "&#39;", "&#34;"};
    value text;
    kvant_jinja_builder b;
    kvant_jinja_builder_init(&b, r->heap);
    KVANT_TRY(kvant_jinja_to_text(r, &c->self, &text));
    for (size_t i = 0; i < text.as.text->size; i++) {
        const char *s = text.as.text->bytes + i, *sign = memchr(SIGNS, *s, sizeof SIGNS - 1);
        if (sign)
            kvant_jinja_add_str(&b, NAMES[sign - SIGNS]);
        else
            kvant_jinja_add(&b, s, 1);
    }
    return kvant_jinja_finish(r, &b, out);
}

static kvant_status length(run *r, call *c, value *out) {
    size_t n;
    KVANT_TRY(kvant_jinja_length(r, &c->self, &n));
    *out = kvant_jinja_int((int64_t)n);
    return KVANT_OK;
}

static kvant_status fallback(run *r, call *c, value *out) {
    bool empty =
        c->self.kind == JINJA_UNDEFINED || (given(c, 1) && kvant_jinja_truth(&c->arg[1]) && !kvant_jinja_truth(&c->self));
    *out = c->self;
    if (!empty) return KVANT_OK;
    *out = c->arg[0];
    if (given(c, 0)) return KVANT_OK;
    kvant_status st = kvant_jinja_string(r->heap, "", 0, out);
    return st == KVANT_OK ? st : kvant_jinja_out_of_memory(r, st);
}

/* The white space around a number's text does not count. */
static const char *number_text(const value *v, char *copy, size_t room) {
    const kvant_jinja_text *t = v->as.text;
    size_t from = 0, to = t->size;
    while (from < to && kvant_jinja_is_space((uint8_t)t->bytes[from]))
        from++;
    while (to > from && kvant_jinja_is_space((uint8_t)t->bytes[to - 1]))
        to--;
    if (to == from || to - from >= room) return NULL;
    memcpy(copy, t->bytes + from, to - from);
    copy[to - from] = '\0';
    return strspn(copy, "0123456789+-.eE") == to - from ? copy : NULL;
}

static bool read_float(const value *v, double *out) {
    char copy[64], *end;
    const char *s = v->kind == JINJA_STRING ? number_text(v, copy, sizeof copy) : NULL;
    if (kvant_jinja_is_number(v)) *out = kvant_jinja_real(v);
    if (!s) return kvant_jinja_is_number(v);
    *out = strtod(s, &end);
    return *end == '\0' && end != s;
}

static kvant_status to_int(run *r, call *c, value *out) {
    int64_t base;
    char copy[64], *end;
    double d;
    KVANT_TRY(kvant_jinja_int_arg(r, c, 1, 10, &base));
    *out = given(c, 0) ? c->arg[0] : kvant_jinja_int(0);
    if (c->self.kind == JINJA_UNDEFINED) return kvant_jinja_wrong(r, "int", &c->self, "a value");
    if (kvant_jinja_is_integral(&c->self)) {
        *out = kvant_jinja_int(kvant_jinja_integral(&c->self));
        return KVANT_OK;
    }
    if (c->self.kind == JINJA_STRING && base >= 2 && base <= 36 && c->self.as.text->size < sizeof copy) {
        memcpy(copy, c->self.as.text->bytes, c->self.as.text->size);
        copy[c->self.as.text->size] = '\0';
        long long whole = strtoll(copy, &end, (int)base);
        bool digits = end != copy;
        while (kvant_jinja_is_space((uint8_t)*end))
            end++;
        if (digits && *end == '\0' && whole > INT64_MIN && whole < INT64_MAX) {
            *out = kvant_jinja_int(whole);
            return KVANT_OK;
        }
    }
    if (read_float(&c->self, &d) && isfinite(d)) {
        if (d <= -9.2e18 || d >= 9.2e18)
            return kvant_jinja_fail(r, KVANT_EUNSUPPORTED, "a number beyond 64 bits", "a smaller one");
        *out = kvant_jinja_int((int64_t)d);
    }
    return KVANT_OK;
}

static kvant_status to_float(run *r, call *c, value *out) {
    double d;
    if (c->self.kind == JINJA_UNDEFINED) return kvant_jinja_wrong(r, "float", &c->self, "a value");
    *out = read_float(&c->self, &d) ? kvant_jinja_float(d) : given(c, 0) ? c->arg[0] : kvant_jinja_float(0);
    return KVANT_OK;
}

static kvant_status absolute(run *r, call *c, value *out) {
    if (!kvant_jinja_is_number(&c->self)) return kvant_jinja_wrong(r, "abs", &c->self, "a number");
    *out = c->self.kind == JINJA_BOOL ? kvant_jinja_int(c->self.as.boolean) : c->self;
    if (c->self.kind == JINJA_FLOAT) *out = kvant_jinja_float(fabs(c->self.as.real));
    return c->self.kind == JINJA_INT && c->self.as.integer < 0 ? kvant_jinja_negate(r, &c->self, out) : KVANT_OK;
}

static kvant_status round_number(run *r, call *c, value *out) {
    int64_t precision;
    char text[400];
    const char *method = "common";
    KVANT_TRY(kvant_jinja_int_arg(r, c, 0, 0, &precision));
    if (!kvant_jinja_is_number(&c->self)) return kvant_jinja_wrong(r, "round", &c->self, "a number");
    if (given(c, 1) && kvant_jinja_text_is(&c->arg[1], "ceil"))
        method = "ceil";
    else if (given(c, 1) && kvant_jinja_text_is(&c->arg[1], "floor"))
        method = "floor";
    else if (given(c, 1) && !kvant_jinja_text_is(&c->arg[1], "common"))
        return kvant_jinja_wrong(r, "round", &c->arg[1], "common, ceil or floor");
    if (precision < -30 || precision > 30)
        return kvant_jinja_fail(r, KVANT_EUNSUPPORTED, "a precision beyond 30", "a smaller one");
    double d = kvant_jinja_real(&c->self), scale = pow(10, (double)precision);
    if (*method == 'c' && method[1] == 'o') {
        if (kvant_jinja_is_integral(&c->self) && precision >= 0) {
            *out = kvant_jinja_int(kvant_jinja_integral(&c->self));
            return KVANT_OK;
        }
        if (kvant_jinja_is_integral(&c->self))
            return kvant_jinja_fail(r, KVANT_EUNSUPPORTED, "an integer rounded to tens", "a float");
        if (precision >= 0) { /* by its exact decimal digits, ties to even, as Python does */
            snprintf(text, sizeof text, "%.*f", (int)precision, d);
            *out = kvant_jinja_float(isfinite(d) ? strtod(text, NULL) : d);
        } else {
            *out = kvant_jinja_float(rint(d * scale) / scale);
        }
        return KVANT_OK;
    }
    *out = kvant_jinja_float((*method == 'c' ? ceil(d * scale) : floor(d * scale)) / scale);
    return KVANT_OK;
}

static kvant_status word_count(run *r, call *c, value *out) {
    value text;
    int64_t n = 0;
    bool in_word = false;
    KVANT_TRY(kvant_jinja_to_text(r, &c->self, &text));
    for (size_t i = 0; i < text.as.text->size; i++) {
        uint8_t b = (uint8_t)text.as.text->bytes[i];
        bool word = b >= 0x80 || b == '_' || (b >= '0' && b <= '9') || (uint8_t)((b | 32) - 'a') < 26;
        n += word && !in_word;
        in_word = word;
    }
    *out = kvant_jinja_int(n);
    return kvant_jinja_step_bytes(r, text.as.text->size);
}

static kvant_status indent(run *r, call *c, value *out) {
    kvant_jinja_builder b, pad;
    value lines, padding, text;
    bool first = given(c, 1) && kvant_jinja_truth(&c->arg[1]), blank = given(c, 2) && kvant_jinja_truth(&c->arg[2]);
    int64_t width = 4;
    kvant_jinja_builder_init(&b, r->heap);
    kvant_jinja_builder_init(&pad, r->heap);
    if (c->self.kind != JINJA_STRING) return kvant_jinja_wrong(r, "indent", &c->self, "a str");
    if (c->arg[0].kind == JINJA_STRING) {
        padding = c->arg[0];
    } else {
        KVANT_TRY(kvant_jinja_int_arg(r, c, 0, 4, &width));
        kvant_jinja_add_repeated(&pad, " ", 1, width > 0 ? (size_t)width : 0);
        KVANT_TRY(kvant_jinja_finish(r, &pad, &padding));
    }
    kvant_jinja_add(&b, c->self.as.text->bytes, c->self.as.text->size);
    kvant_jinja_add_str(&b, "\n"); /* a last line break begins one more line */
    KVANT_TRY(kvant_jinja_finish(r, &b, &text));
    call split = {.self = text, .arg = {{.kind = JINJA_MISSING}}};
    KVANT_TRY(kvant_jinja_find_text_method("splitlines")->fn(r, &split, &lines));
    kvant_jinja_builder_init(&b, r->heap);
    for (size_t i = 0; i < lines.as.items->n; i++) {
        const kvant_jinja_text *line = lines.as.items->data[i].as.text;
        if (i) kvant_jinja_add_str(&b, "\n");
        if (i ? blank || line->size : first) kvant_jinja_add(&b, padding.as.text->bytes, padding.as.text->size);
        kvant_jinja_add(&b, line->bytes, line->size);
    }
    return kvant_jinja_finish(r, &b, out);
}

/* A text argument with its NUL, for json.dumps. */
static kvant_status terminated(run *r, const value *v, const char **out) {
    if (v->kind != JINJA_STRING) return kvant_jinja_wrong(r, "tojson", v, "a str");
    char *copy = kvant_jinja_alloc(r->heap, v->as.text->size + 1, 1);
    if (!copy) return kvant_jinja_out_of_memory(r, r->heap->failure);
    memcpy(copy, v->as.text->bytes, v->as.text->size);
    *out = copy;
    return KVANT_OK;
}

/* tojson(ensure_ascii, indent, separators, sort_keys), in the order of the programs for which chat templates are written. */
static kvant_status to_json(run *r, call *c, value *out) {
    kvant_jinja_builder b;
    kvant_jinja_json_style style = {.item_separator = ", ", .key_separator = ": "};
    kvant_jinja_builder_init(&b, r->heap);
    style.ascii = given(c, 0) && kvant_jinja_truth(&c->arg[0]);
    style.sort_keys = given(c, 3) && kvant_jinja_truth(&c->arg[3]);
    if (c->arg[1].kind == JINJA_STRING) {
        KVANT_TRY(terminated(r, &c->arg[1], &style.indent));
    } else if (given(c, 1) && c->arg[1].kind != JINJA_NONE) {
        int64_t width;
        KVANT_TRY(kvant_jinja_int_arg(r, c, 1, 0, &width));
        if (width > 1000) return kvant_jinja_fail(r, KVANT_EUNSUPPORTED, "an indent above 1000", "a smaller one");
        char *spaces = kvant_jinja_alloc(r->heap, width > 0 ? (size_t)width + 1 : 1, 1);
        if (!spaces) return kvant_jinja_out_of_memory(r, r->heap->failure);
        if (width > 0) memset(spaces, ' ', (size_t)width);
        style.indent = spaces;
    }
    if (style.indent) style.item_separator = ",";
    if (given(c, 2) && c->arg[2].kind != JINJA_NONE) {
        kvant_jinja_items two;
        KVANT_TRY(kvant_jinja_iterate(r, &c->arg[2], &two));
        if (two.n != 2) return kvant_jinja_wrong(r, "tojson's separators", &c->arg[2], "two texts");
        KVANT_TRY(terminated(r, &two.data[0], &style.item_separator));
        KVANT_TRY(terminated(r, &two.data[1], &style.key_separator));
    }
    KVANT_TRY(kvant_jinja_print_json(r, &b, &c->self, &style, 0));
    return kvant_jinja_finish(r, &b, out);
}

static kvant_status format(run *r, call *c, value *out) {
    value text, args;
    KVANT_TRY(kvant_jinja_to_text(r, &c->self, &text));
    kvant_status st = c->n_named ? kvant_jinja_dict(r->heap, &args) : kvant_jinja_new_items(r->heap, JINJA_TUPLE, 0, &args);
    for (size_t i = 0; i < c->n_values && !c->n_named && st == KVANT_OK; i++)
        st = kvant_jinja_push(r->heap, args.as.items, c->values[i]);
    for (size_t i = 0; i < c->n_named && st == KVANT_OK; i++)
        st = kvant_jinja_dict_set(r->heap, &args, c->named[i].name, c->named[i].value);
    if (st != KVANT_OK) return kvant_jinja_out_of_memory(r, st);
    return kvant_jinja_percent(r, text.as.text, &args, out);
}

static kvant_status attribute(run *r, call *c, value *out) {
    const char *name;
    KVANT_TRY(terminated(r, &c->arg[0], &name));
    *out = kvant_jinja_undefined(name);
    if (c->self.kind == JINJA_DICT) return KVANT_OK; /* items are not attributes */
    return kvant_jinja_get_attribute(r, &c->self, name, out);
}

const kvant_jinja_builtin *kvant_jinja_find_filter(const char *name, size_t size) {
    static const kvant_jinja_builtin FILTERS[] = {
        {"trim", trim, "chars", 0},
        {"upper", change_case, "", 0},
        {"lower", change_case, "", 0},
        {"title", change_case, "", 0},
        {"capitalize", change_case, "", 0},
        {"replace", replace, "old new count", 2},
        {"center", center, "width", 0},
        {"string", string, "", 0},
        {"safe", safe, "", 0},
        {"escape", escape, "", 0},
        {"e", escape, "", 0},
        {"length", length, "", 0},
        {"count", length, "", 0},
        {"default", fallback, "default_value boolean", 0},
        {"d", fallback, "default_value boolean", 0},
        {"int", to_int, "default base", 0},
        {"float", to_float, "default", 0},
        {"abs", absolute, "", 0},
        {"round", round_number, "precision method", 0},
        {"wordcount", word_count, "", 0},
        {"indent", indent, "width first blank", 0},
        {"tojson", to_json, "ensure_ascii indent separators sort_keys", 0},
        {"format", format, NULL, 0},
        {"attr", attribute, "name", 1},
    };
    return kvant_jinja_find_in(FILTERS, sizeof FILTERS / sizeof *FILTERS, name, size);
}
