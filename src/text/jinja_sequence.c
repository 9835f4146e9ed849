// SPDX-License-Identifier: MIT
/* jinja_sequence.c: going through values, and putting them in order. */
#include "text/jinja_run.h"

typedef kvant_jinja_run run;
typedef kvant_jinja_value value;
typedef kvant_jinja_items items_t;

static kvant_status characters(run *r, const kvant_jinja_text *t, items_t *out) {
    value list;
    kvant_status st = kvant_jinja_new_items(r->heap, JINJA_LIST, t->n_chars, &list);
    for (size_t i = 0; i < t->size && st == KVANT_OK;) {
        size_t end = i + 1;
        value v;
        while (end < t->size && t->n_chars != t->size && ((uint8_t)t->bytes[end] & 0xC0) == 0x80)
            end++;
        st = kvant_jinja_share(r->heap, t->bytes + i, end - i, &v);
        if (st == KVANT_OK) st = kvant_jinja_push(r->heap, list.as.items, v);
        i = end;
    }
    if (st != KVANT_OK) return kvant_jinja_out_of_memory(r, st);
    *out = *list.as.items;
    return kvant_jinja_step(r, t->size + 1);
}

kvant_status kvant_jinja_pair(run *r, value a, value b, value *out) {
    kvant_status st = kvant_jinja_new_items(r->heap, JINJA_TUPLE, 2, out);
    if (st != KVANT_OK) return kvant_jinja_out_of_memory(r, st);
    out->as.items->data[0] = a;
    out->as.items->data[1] = b;
    out->as.items->n = 2;
    return KVANT_OK;
}

kvant_status kvant_jinja_map_view(run *r, const kvant_jinja_map *m, const char *view, value *out) {
    kvant_status st = kvant_jinja_new_items(r->heap, JINJA_LIST, m->n, out);
    if (st != KVANT_OK) return kvant_jinja_out_of_memory(r, st);
    bool keys = strcmp(view, "dict_keys") == 0, values = strcmp(view, "dict_values") == 0;
    for (size_t i = 0; i < m->n; i++) {
        value v = keys ? m->entries[i].key : m->entries[i].value;
        if (!keys && !values) KVANT_TRY(kvant_jinja_pair(r, m->entries[i].key, m->entries[i].value, &v));
        out->as.items->data[out->as.items->n++] = v;
    }
    out->as.items->view = view;
    return kvant_jinja_step(r, m->n / 4 + 1);
}

kvant_status kvant_jinja_iterate(run *r, const value *v, items_t *out) {
    value keys;
    *out = (items_t){0};
    switch (v->kind) {
    case JINJA_UNDEFINED:
        return KVANT_OK;
    case JINJA_STRING:
        return characters(r, v->as.text, out);
    case JINJA_LIST: /* later additions to it are not gone through */
    case JINJA_TUPLE:
        *out = *v->as.items;
        return KVANT_OK;
    case JINJA_ITERATOR:
        *out = *v->as.items;
        v->as.items->n = 0;
        return KVANT_OK;
    case JINJA_DICT:
        KVANT_TRY(kvant_jinja_map_view(r, v->as.map, "dict_keys", &keys));
        *out = *keys.as.items;
        return KVANT_OK;
    default:
        return kvant_jinja_wrong(r, "a loop or list", v, "something with items");
    }
}

kvant_status kvant_jinja_length(run *r, const value *v, size_t *out) {
    switch (v->kind) {
    case JINJA_UNDEFINED:
        *out = 0;
        return KVANT_OK;
    case JINJA_STRING:
        *out = v->as.text->n_chars;
        return KVANT_OK;
    case JINJA_LIST:
    case JINJA_TUPLE:
        *out = v->as.items->n;
        return KVANT_OK;
    case JINJA_DICT:
        *out = v->as.map->n;
        return KVANT_OK;
    case JINJA_LOOP:
        *out = v->as.loop->items->n;
        return KVANT_OK;
    default:
        return kvant_jinja_wrong(r, "length", v, "a str, list, tuple or dict");
    }
}

/* Whether b stands before a although it came after it. */
static kvant_status is_out_of_order(run *r, const value *a, const value *b, bool reverse, bool *out) {
    return reverse ? kvant_jinja_compare(r, OP_LT, a, b, out) : kvant_jinja_compare(r, OP_LT, b, a, out);
}

static kvant_status merge(run *r, size_t *order, size_t *spare, const value *by, size_t n, bool reverse) {
    for (size_t width = 1; width < n; width *= 2) {
        for (size_t low = 0; low < n; low += 2 * width) {
            size_t mid = low + width < n ? low + width : n, high = low + 2 * width < n ? low + 2 * width : n;
            size_t i = low, j = mid;
            for (size_t k = low; k < high; k++) {
                bool second = i >= mid;
                KVANT_TRY(kvant_jinja_step(r, 1));
                if (i < mid && j < high) KVANT_TRY(is_out_of_order(r, &by[order[i]], &by[order[j]], reverse, &second));
                spare[k] = second ? order[j++] : order[i++];
            }
        }
        memcpy(order, spare, n * sizeof *order);
    }
    return KVANT_OK;
}

kvant_status kvant_jinja_sort(run *r, items_t *items, value *by, bool reverse) {
    size_t n = items->n;
    if (n < 2) return KVANT_OK;
    size_t *order = kvant_jinja_alloc(r->heap, n, sizeof *order), *spare = kvant_jinja_alloc(r->heap, n, sizeof *spare);
    value *sorted = kvant_jinja_alloc(r->heap, 2 * n, sizeof *sorted);
    if (!order || !spare || !sorted) return kvant_jinja_out_of_memory(r, r->heap->failure);
    for (size_t i = 0; i < n; i++)
        order[i] = i;
    KVANT_TRY(merge(r, order, spare, by, n, reverse));
    for (size_t i = 0; i < n; i++) {
        sorted[i] = items->data[order[i]];
        sorted[n + i] = by[order[i]];
    }
    memcpy(items->data, sorted, n * sizeof *sorted);
    memcpy(by, sorted + n, n * sizeof *sorted);
    return KVANT_OK;
}
