// SPDX-License-Identifier: MIT
/* jinja_print.c: values as text: str, repr and json.dumps as Python writes them. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "text/jinja_run.h"
#include "text/utf8.h"

typedef kvant_jinja_run run;
typedef kvant_jinja_value value;
typedef kvant_jinja_builder builder;

kvant_status kvant_jinja_finish(run *r, builder *b, value *out) {
    KVANT_TRY(kvant_jinja_step_bytes(r, b->size));
    kvant_status st = kvant_jinja_builder_finish(b, out);
    return st == KVANT_OK ? st : kvant_jinja_out_of_memory(r, st);
}

void kvant_jinja_fix_point(char *number) {
    for (char *p = number; *p; p++)
        if (!(*p >= '0' && *p <= '9') && !strchr("+-eE.", *p)) *p = '.';
}

/* The fewest digits that read back as the same number, with an exponent where Python writes one. */
void kvant_jinja_format_float(double d, char out[KVANT_JINJA_FLOAT_BYTES]) {
    if (!isfinite(d)) {
        snprintf(out, KVANT_JINJA_FLOAT_BYTES, "%s", isnan(d) ? "nan" : d < 0 ? "-inf" : "inf");
        return;
    }
    int digits = 1;
    do
        snprintf(out, KVANT_JINJA_FLOAT_BYTES, "%.*e", digits - 1, d);
    while (strtod(out, NULL) != d && digits++ < 17);
    int exponent = atoi(strchr(out, 'e') + 1);
    if (exponent < -4 || exponent >= 16) {
        kvant_jinja_fix_point(out);
        return;
    }
    int decimals = digits - 1 - exponent;
    snprintf(out, KVANT_JINJA_FLOAT_BYTES, "%.*f", decimals > 0 ? decimals : 0, d);
    kvant_jinja_fix_point(out);
    if (decimals <= 0) memcpy(out + strlen(out), ".0", 3);
}

static void print_number(builder *b, const value *v, const char *const names[2]) {
    char text[KVANT_JINJA_FLOAT_BYTES];
    if (v->kind == JINJA_BOOL) {
        kvant_jinja_add_str(b, names[v->as.boolean]);
        return;
    }
    if (v->kind == JINJA_FLOAT)
        kvant_jinja_format_float(v->as.real, text);
    else
        snprintf(text, sizeof text, "%lld", (long long)v->as.integer);
    kvant_jinja_add_str(b, text);
}

static void repr_text(builder *b, const kvant_jinja_text *t) {
    static const char FROM[] = "\\\n\r\t", TO[] = "\\nrt";
    bool single = t->size && memchr(t->bytes, '\'', t->size), twice = t->size && memchr(t->bytes, '"', t->size);
    char quote = single && !twice ? '"' : '\'', text[16];
    kvant_jinja_add(b, &quote, 1);
    for (size_t i = 0; i < t->size;) {
        uint32_t code;
        size_t n = kvant_utf8_read((const uint8_t *)t->bytes + i, t->size - i, &code);
        const char *known = code && code < 0x80 ? strchr(FROM, (int)code) : NULL;
        text[0] = '\\';
        text[1] = known ? TO[known - FROM] : (char)code;
        if (known || code == (uint8_t)quote)
            kvant_jinja_add(b, text, 2);
        else if (kvant_jinja_is_printable(code))
            kvant_jinja_add(b, t->bytes + i, n);
        else {
            snprintf(text, sizeof text, code < 0x100 ? "\\x%02x" : code < 0x10000 ? "\\u%04x" : "\\U%08x", (unsigned)code);
            kvant_jinja_add_str(b, text);
        }
        i += n;
    }
    kvant_jinja_add(b, &quote, 1);
}

static kvant_status repr_items(run *r, builder *b, const value *v) {
    const kvant_jinja_items *items = v->as.items;
    bool tuple = v->kind == JINJA_TUPLE;
    if (items->view && strcmp(items->view, "range") == 0) return kvant_jinja_wrong(r, "output", v, "range(...) | list");
    if (items->view) {
        kvant_jinja_add_str(b, items->view);
        kvant_jinja_add_str(b, "(");
    }
    kvant_jinja_add_str(b, tuple ? "(" : "[");
    for (size_t i = 0; i < items->n; i++) {
        if (i) kvant_jinja_add_str(b, ", ");
        KVANT_TRY(kvant_jinja_print_repr(r, b, &items->data[i]));
    }
    kvant_jinja_add_str(b, tuple ? (items->n == 1 ? ",)" : ")") : "]");
    if (items->view) kvant_jinja_add_str(b, ")");
    return KVANT_OK;
}

static kvant_status repr_map(run *r, builder *b, const kvant_jinja_map *m) {
    kvant_jinja_add_str(b, "{");
    for (size_t i = 0; i < m->n; i++) {
        if (i) kvant_jinja_add_str(b, ", ");
        KVANT_TRY(kvant_jinja_print_repr(r, b, &m->entries[i].key));
        kvant_jinja_add_str(b, ": ");
        KVANT_TRY(kvant_jinja_print_repr(r, b, &m->entries[i].value));
    }
    kvant_jinja_add_str(b, "}");
    return KVANT_OK;
}

static kvant_status check_room(run *r, const builder *b) {
    return b->failed ? kvant_jinja_out_of_memory(r, r->heap->failure) : KVANT_OK;
}

kvant_status kvant_jinja_print_repr(run *r, builder *b, const value *v) {
    static const char *const NAMES[2] = {"False", "True"};
    KVANT_TRY(kvant_jinja_deeper(r));
    KVANT_TRY(check_room(r, b));
    switch (v->kind) {
    case JINJA_UNDEFINED:
        kvant_jinja_add_str(b, "Undefined");
        break;
    case JINJA_NONE:
        kvant_jinja_add_str(b, "None");
        break;
    case JINJA_BOOL:
    case JINJA_INT:
    case JINJA_FLOAT:
        print_number(b, v, NAMES);
        break;
    case JINJA_STRING:
        KVANT_TRY(kvant_jinja_step_bytes(r, v->as.text->size));
        repr_text(b, v->as.text);
        break;
    case JINJA_LIST:
    case JINJA_TUPLE:
        KVANT_TRY(repr_items(r, b, v));
        break;
    case JINJA_DICT:
        KVANT_TRY(repr_map(r, b, v->as.map));
        break;
    case JINJA_NAMESPACE:
        kvant_jinja_add_str(b, "<Namespace ");
        KVANT_TRY(repr_map(r, b, v->as.map));
        kvant_jinja_add_str(b, ">");
        break;
    default:
        return kvant_jinja_wrong(r, "output", v, "a value with a text of its own");
    }
    kvant_jinja_leave(r);
    return KVANT_OK;
}

kvant_status kvant_jinja_print(run *r, builder *b, const value *v) {
    if (v->kind == JINJA_UNDEFINED) return KVANT_OK;
    if (v->kind != JINJA_STRING) return kvant_jinja_print_repr(r, b, v);
    kvant_jinja_add(b, v->as.text->bytes, v->as.text->size);
    return kvant_jinja_step_bytes(r, v->as.text->size);
}

kvant_status kvant_jinja_to_text(run *r, const value *v, value *out) {
    if (v->kind == JINJA_STRING) {
        *out = *v;
        return KVANT_OK;
    }
    builder b;
    kvant_jinja_builder_init(&b, r->heap);
    KVANT_TRY(kvant_jinja_print(r, &b, v));
    return kvant_jinja_finish(r, &b, out);
}

/* ---- JSON ---- */

static void json_escape(builder *b, uint32_t code) {
    static const char FROM[] = "\"\\\n\r\t\f\b", TO[] = "\"\\nrtfb";
    const char *known = code && code < 0x80 ? strchr(FROM, (int)code) : NULL;
    char text[16];
    if (known)
        snprintf(text, sizeof text, "\\%c", TO[known - FROM]);
    else if (code < 0x10000)
        snprintf(text, sizeof text, "\\u%04x", (unsigned)code);
    else
        snprintf(text, sizeof text, "\\u%04x\\u%04x", (unsigned)(0xD800 + ((code - 0x10000) >> 10)),
                 (unsigned)(0xDC00 + (code & 0x3FF)));
    kvant_jinja_add_str(b, text);
}

static void json_text(builder *b, const kvant_jinja_text *t, bool ascii) {
    kvant_jinja_add_str(b, "\"");
    for (size_t i = 0; i < t->size;) {
        uint32_t code;
        size_t n = kvant_utf8_read((const uint8_t *)t->bytes + i, t->size - i, &code);
        if (code < 0x20 || code == '"' || code == '\\' || (ascii && code > 0x7E && code != 0x7F))
            json_escape(b, code);
        else
            kvant_jinja_add(b, t->bytes + i, n);
        i += n;
    }
    kvant_jinja_add_str(b, "\"");
}

static void json_break(builder *b, const kvant_jinja_json_style *style, int level) {
    if (!style->indent) return;
    kvant_jinja_add_str(b, "\n");
    kvant_jinja_add_repeated(b, style->indent, strlen(style->indent), (size_t)level);
}

static kvant_status json_number(builder *b, const value *v) {
    static const char *const NAMES[2] = {"false", "true"};
    if (v->kind == JINJA_FLOAT && !isfinite(v->as.real))
        kvant_jinja_add_str(b, isnan(v->as.real) ? "NaN" : v->as.real < 0 ? "-Infinity" : "Infinity");
    else
        print_number(b, v, NAMES);
    return KVANT_OK;
}

static kvant_status json_key(run *r, builder *b, const value *key, bool ascii) {
    if (key->kind == JINJA_STRING) {
        json_text(b, key->as.text, ascii);
        return KVANT_OK;
    }
    if (key->kind != JINJA_NONE && !kvant_jinja_is_number(key))
        return kvant_jinja_wrong(r, "a key of JSON", key, "a str, a number or None");
    kvant_jinja_add_str(b, "\"");
    if (key->kind == JINJA_NONE)
        kvant_jinja_add_str(b, "null");
    else
        KVANT_TRY(json_number(b, key));
    kvant_jinja_add_str(b, "\"");
    return KVANT_OK;
}

static kvant_status json_map(run *r, builder *b, const kvant_jinja_map *m, const kvant_jinja_json_style *style, int level) {
    const kvant_jinja_entry *entries = m->entries;
    if (m->n == 0) {
        kvant_jinja_add_str(b, "{}");
        return KVANT_OK;
    }
    value keys;
    kvant_jinja_items order;
    KVANT_TRY(kvant_jinja_map_view(r, m, "dict_keys", &keys));
    order = *keys.as.items;
    if (style->sort_keys) {
        value *by = kvant_jinja_alloc(r->heap, m->n, sizeof *by);
        if (!by) return kvant_jinja_out_of_memory(r, r->heap->failure);
        memcpy(by, order.data, m->n * sizeof *by);
        KVANT_TRY(kvant_jinja_sort(r, &order, by, false));
    }
    kvant_jinja_add_str(b, "{");
    for (size_t i = 0; i < m->n; i++) {
        const value *v = style->sort_keys ? kvant_jinja_map_find(m, &order.data[i]) : &entries[i].value;
        if (i) kvant_jinja_add_str(b, style->item_separator);
        json_break(b, style, level + 1);
        KVANT_TRY(json_key(r, b, &order.data[i], style->ascii));
        kvant_jinja_add_str(b, style->key_separator);
        KVANT_TRY(kvant_jinja_print_json(r, b, v, style, level + 1));
    }
    json_break(b, style, level);
    kvant_jinja_add_str(b, "}");
    return KVANT_OK;
}

static kvant_status json_items(run *r, builder *b, const kvant_jinja_items *items, const kvant_jinja_json_style *style,
                               int level) {
    if (items->n == 0) {
        kvant_jinja_add_str(b, "[]");
        return KVANT_OK;
    }
    kvant_jinja_add_str(b, "[");
    for (size_t i = 0; i < items->n; i++) {
        if (i) kvant_jinja_add_str(b, style->item_separator);
        json_break(b, style, level + 1);
        KVANT_TRY(kvant_jinja_print_json(r, b, &items->data[i], style, level + 1));
    }
    json_break(b, style, level);
    kvant_jinja_add_str(b, "]");
    return KVANT_OK;
}

kvant_status kvant_jinja_print_json(run *r, builder *b, const value *v, const kvant_jinja_json_style *style, int level) {
    KVANT_TRY(kvant_jinja_deeper(r));
    KVANT_TRY(check_room(r, b));
    switch (v->kind) {
    case JINJA_NONE:
        kvant_jinja_add_str(b, "null");
        break;
    case JINJA_BOOL:
    case JINJA_INT:
    case JINJA_FLOAT:
        KVANT_TRY(json_number(b, v));
        break;
    case JINJA_STRING:
        KVANT_TRY(kvant_jinja_step_bytes(r, v->as.text->size));
        json_text(b, v->as.text, style->ascii);
        break;
    case JINJA_LIST:
        if (v->as.items->view) return kvant_jinja_wrong(r, "JSON", v, "a str, number, list or dict");
        KVANT_TRY(json_items(r, b, v->as.items, style, level));
        break;
    case JINJA_TUPLE:
        KVANT_TRY(json_items(r, b, v->as.items, style, level));
        break;
    case JINJA_DICT:
        KVANT_TRY(json_map(r, b, v->as.map, style, level));
        break;
    default:
        return kvant_jinja_wrong(r, "JSON", v, "a str, number, list or dict");
    }
    kvant_jinja_leave(r);
    return KVANT_OK;
}
