// SPDX-License-Identifier: MIT
/* jinja_list_filters.c: filters that go through lists: map, select, join, sort and their kin. */
#include "text/jinja_run.h"

typedef kvant_jinja_run run;
typedef kvant_jinja_value value;
typedef kvant_jinja_call call;
typedef kvant_jinja_items items_t;

static bool given(const call *c, int index) { return c->arg[index].kind != JINJA_MISSING && c->arg[index].kind != JINJA_NONE; }

static kvant_status new_items(run *r, kvant_jinja_kind kind, value *out) {
    kvant_status st = kvant_jinja_new_items(r->heap, kind, 0, out);
    return st == KVANT_OK ? st : kvant_jinja_out_of_memory(r, st);
}

static kvant_status push(run *r, value *list, value v) {
    kvant_status st = kvant_jinja_push(r->heap, list->as.items, v);
    return st == KVANT_OK ? kvant_jinja_step(r, 1) : kvant_jinja_out_of_memory(r, st);
}

/* The items as a list of its own, which may be changed. */
static kvant_status copy_items(run *r, const value *v, kvant_jinja_kind kind, value *out) {
    items_t items;
    KVANT_TRY(kvant_jinja_iterate(r, v, &items));
    kvant_status st = kvant_jinja_new_items(r->heap, kind, items.n, out);
    if (st != KVANT_OK) return kvant_jinja_out_of_memory(r, st);
    if (items.n) memcpy(out->as.items->data, items.data, items.n * sizeof *items.data);
    out->as.items->n = items.n;
    return kvant_jinja_step(r, items.n / 16 + 1);
}

/* a.b.0 of an item: its parts are items or attributes, numbers are places. */
static kvant_status get_path(run *r, const value *item, const value *path, value *out) {
    *out = *item;
    if (path->kind != JINJA_STRING) return kvant_jinja_get_item(r, item, path, out);
    const char *s = path->as.text->bytes;
    size_t n = path->as.text->size;
    for (size_t i = 0; i <= n;) {
        const char *dot = i < n ? memchr(s + i, '.', n - i) : NULL;
        size_t end = dot ? (size_t)(dot - s) : n;
        bool digits = end > i && end - i < 10;
        int64_t number = 0;
        for (size_t k = i; k < end && digits; k++) {
            digits = s[k] >= '0' && s[k] <= '9';
            number = number * 10 + (s[k] - '0');
        }
        value key = kvant_jinja_int(number), from = *out;
        if (!digits && kvant_jinja_share(r->heap, s + i, end - i, &key) != KVANT_OK)
            return kvant_jinja_out_of_memory(r, r->heap->failure);
        KVANT_TRY(kvant_jinja_get_item(r, &from, &key, out));
        i = end + 1;
    }
    return kvant_jinja_step(r, 1);
}

/* What an item is ordered by: an attribute of it or itself, texts in lower case unless case counts. */
static kvant_status order_key(run *r, const value *item, const value *path, bool case_counts, value *out) {
    *out = *item;
    if (path && path->kind != JINJA_MISSING && path->kind != JINJA_NONE) KVANT_TRY(get_path(r, item, path, out));
    if (case_counts || out->kind != JINJA_STRING) return KVANT_OK;
    return kvant_jinja_change_case(r, out->as.text, CASE_LOWER, out);
}

/* Attributes with commas between them, as a list: what sort orders by. Nothing given: the item alone. */
static kvant_status sort_key(run *r, const value *item, const value *path, bool case_counts, value *out) {
    bool many = path->kind == JINJA_STRING;
    const char *s = many ? path->as.text->bytes : "";
    size_t n = many ? path->as.text->size : 0;
    KVANT_TRY(new_items(r, JINJA_LIST, out));
    for (size_t i = 0; i <= n;) {
        const char *comma = i < n ? memchr(s + i, ',', n - i) : NULL;
        size_t end = comma ? (size_t)(comma - s) : n;
        value part = *path, key;
        if (many && kvant_jinja_share(r->heap, s + i, end - i, &part) != KVANT_OK)
            return kvant_jinja_out_of_memory(r, r->heap->failure);
        KVANT_TRY(order_key(r, item, &part, case_counts, &key));
        KVANT_TRY(push(r, out, key));
        i = end + 1;
    }
    return KVANT_OK;
}

static kvant_status order_keys(run *r, const items_t *items, const value *path, bool case_counts, value **out) {
    *out = kvant_jinja_alloc(r->heap, items->n, sizeof **out);
    if (!*out) return kvant_jinja_out_of_memory(r, r->heap->failure);
    for (size_t i = 0; i < items->n; i++)
        KVANT_TRY(order_key(r, &items->data[i], path, case_counts, *out + i));
    return KVANT_OK;
}

/* ---- one from many ---- */

static kvant_status first(run *r, call *c, value *out) {
    items_t items;
    *out = kvant_jinja_undefined("the first of nothing");
    if (c->self.kind == JINJA_ITERATOR) { /* the others stay */
        items_t *rest = c->self.as.items;
        if (!rest->n) return KVANT_OK;
        *out = rest->data[0];
        rest->data++;
        rest->room -= rest->room > 0;
        rest->n--;
        return KVANT_OK;
    }
    KVANT_TRY(kvant_jinja_iterate(r, &c->self, &items));
    if (items.n) *out = items.data[0];
    return KVANT_OK;
}

static kvant_status last(run *r, call *c, value *out) {
    items_t items;
    *out = kvant_jinja_undefined("the last of nothing");
    if (c->self.kind == JINJA_ITERATOR) return kvant_jinja_wrong(r, "last", &c->self, "a list");
    KVANT_TRY(kvant_jinja_iterate(r, &c->self, &items));
    if (items.n) *out = items.data[items.n - 1];
    return KVANT_OK;
}

static kvant_status extreme(run *r, call *c, value *out) {
    items_t items;
    value *by;
    size_t best = 0;
    bool max = strcmp(c->what->name, "max") == 0, better;
    KVANT_TRY(kvant_jinja_iterate(r, &c->self, &items));
    *out = kvant_jinja_undefined("the least or most of nothing");
    if (!items.n) return KVANT_OK;
    KVANT_TRY(order_keys(r, &items, &c->arg[1], given(c, 0) && kvant_jinja_truth(&c->arg[0]), &by));
    for (size_t i = 1; i < items.n; i++) {
        KVANT_TRY(kvant_jinja_compare(r, max ? OP_GT : OP_LT, &by[i], &by[best], &better));
        if (better) best = i;
    }
    *out = items.data[best];
    return KVANT_OK;
}

static kvant_status sum(run *r, call *c, value *out) {
    items_t items;
    KVANT_TRY(kvant_jinja_iterate(r, &c->self, &items));
    *out = c->arg[1].kind == JINJA_MISSING ? kvant_jinja_int(0) : c->arg[1];
    for (size_t i = 0; i < items.n; i++) {
        value v = items.data[i], before = *out;
        if (given(c, 0)) KVANT_TRY(get_path(r, &items.data[i], &c->arg[0], &v));
        KVANT_TRY(kvant_jinja_step(r, 1));
        KVANT_TRY(kvant_jinja_binary(r, OP_ADD, &before, &v, out));
    }
    return KVANT_OK;
}

static kvant_status join(run *r, call *c, value *out) {
    items_t items;
    value separator = {.kind = JINJA_MISSING};
    kvant_jinja_builder b;
    kvant_jinja_builder_init(&b, r->heap);
    KVANT_TRY(kvant_jinja_iterate(r, &c->self, &items));
    if (c->arg[0].kind != JINJA_MISSING) KVANT_TRY(kvant_jinja_to_text(r, &c->arg[0], &separator));
    for (size_t i = 0; i < items.n; i++) {
        value v = items.data[i];
        if (given(c, 1)) KVANT_TRY(get_path(r, &items.data[i], &c->arg[1], &v));
        if (i && separator.kind == JINJA_STRING) kvant_jinja_add(&b, separator.as.text->bytes, separator.as.text->size);
        KVANT_TRY(kvant_jinja_print(r, &b, &v));
        KVANT_TRY(kvant_jinja_step(r, 1));
    }
    return kvant_jinja_finish(r, &b, out);
}

/* ---- many from many ---- */

static kvant_status list(run *r, call *c, value *out) { return copy_items(r, &c->self, JINJA_LIST, out); }

static kvant_status reverse(run *r, call *c, value *out) {
    if (c->self.kind == JINJA_STRING) {
        value bounds[3] = {kvant_jinja_none(), kvant_jinja_none(), kvant_jinja_int(-1)};
        return kvant_jinja_slice(r, &c->self, bounds, out);
    }
    KVANT_TRY(copy_items(r, &c->self, JINJA_ITERATOR, out));
    items_t *items = out->as.items;
    for (size_t i = 0; i < items->n / 2; i++) {
        value v = items->data[i];
        items->data[i] = items->data[items->n - 1 - i];
        items->data[items->n - 1 - i] = v;
    }
    return KVANT_OK;
}

static kvant_status sort(run *r, call *c, value *out) {
    KVANT_TRY(copy_items(r, &c->self, JINJA_LIST, out));
    items_t *items = out->as.items;
    value *by = kvant_jinja_alloc(r->heap, items->n, sizeof *by);
    if (!by) return kvant_jinja_out_of_memory(r, r->heap->failure);
    for (size_t i = 0; i < items->n; i++)
        KVANT_TRY(sort_key(r, &items->data[i], &c->arg[2], given(c, 1) && kvant_jinja_truth(&c->arg[1]), &by[i]));
    return kvant_jinja_sort(r, items, by, given(c, 0) && kvant_jinja_truth(&c->arg[0]));
}

static kvant_status unique(run *r, call *c, value *out) {
    items_t items;
    value *by;
    kvant_jinja_map seen = {0};
    KVANT_TRY(kvant_jinja_iterate(r, &c->self, &items));
    KVANT_TRY(order_keys(r, &items, &c->arg[1], given(c, 0) && kvant_jinja_truth(&c->arg[0]), &by));
    KVANT_TRY(new_items(r, JINJA_ITERATOR, out));
    for (size_t i = 0; i < items.n; i++) {
        if (!kvant_jinja_is_key(&by[i], 0))
            return kvant_jinja_wrong(r, "unique", &by[i], "a str, a number, None or a tuple of such");
        if (kvant_jinja_map_find(&seen, &by[i])) continue;
        if (kvant_jinja_map_set(r->heap, &seen, by[i], by[i]) != KVANT_OK) return kvant_jinja_out_of_memory(r, r->heap->failure);
        KVANT_TRY(push(r, out, items.data[i]));
    }
    return KVANT_OK;
}

static kvant_status items_of(run *r, call *c, value *out) {
    if (c->self.kind == JINJA_UNDEFINED) return new_items(r, JINJA_ITERATOR, out);
    if (c->self.kind != JINJA_DICT) return kvant_jinja_wrong(r, "items", &c->self, "a dict");
    KVANT_TRY(kvant_jinja_map_view(r, c->self.as.map, "dict_items", out));
    out->as.items->view = NULL;
    out->kind = JINJA_ITERATOR;
    return KVANT_OK;
}

static kvant_status dict_sort(run *r, call *c, value *out) {
    bool case_counts = given(c, 0) && kvant_jinja_truth(&c->arg[0]),
         by_value = given(c, 1) && kvant_jinja_text_is(&c->arg[1], "value");
    value *by, place = kvant_jinja_int(by_value);
    if (c->self.kind != JINJA_DICT) return kvant_jinja_wrong(r, "dictsort", &c->self, "a dict");
    if (given(c, 1) && !by_value && !kvant_jinja_text_is(&c->arg[1], "key"))
        return kvant_jinja_wrong(r, "dictsort", &c->arg[1], "key or value");
    KVANT_TRY(kvant_jinja_map_view(r, c->self.as.map, "dict_items", out));
    out->as.items->view = NULL;
    KVANT_TRY(order_keys(r, out->as.items, &place, case_counts, &by));
    return kvant_jinja_sort(r, out->as.items, by, given(c, 2) && kvant_jinja_truth(&c->arg[2]));
}

static kvant_status batch(run *r, call *c, value *out) {
    items_t items;
    int64_t n;
    value part = {.kind = JINJA_MISSING};
    KVANT_TRY(kvant_jinja_int_arg(r, c, 0, 1, &n));
    if (n < 1) return kvant_jinja_fail(r, KVANT_EFORMAT, "batches of none", "1 or more");
    KVANT_TRY(kvant_jinja_iterate(r, &c->self, &items));
    KVANT_TRY(new_items(r, JINJA_ITERATOR, out));
    for (size_t i = 0; i < items.n; i++) {
        if (i % (size_t)n == 0) {
            KVANT_TRY(new_items(r, JINJA_LIST, &part));
            KVANT_TRY(push(r, out, part));
        }
        KVANT_TRY(push(r, &part, items.data[i]));
    }
    while (given(c, 1) && part.kind == JINJA_LIST && (int64_t)part.as.items->n < n)
        KVANT_TRY(push(r, &part, c->arg[1]));
    return KVANT_OK;
}

/* Groups of equal attribute: (grouper, list), in the attribute's order. */
static kvant_status group_by(run *r, call *c, value *out) {
    value sorted, *by, group = {.kind = JINJA_MISSING}, pair;
    bool same = false;
    KVANT_TRY(copy_items(r, &c->self, JINJA_LIST, &sorted));
    items_t *items = sorted.as.items;
    KVANT_TRY(order_keys(r, items, &c->arg[0], false, &by));
    KVANT_TRY(kvant_jinja_sort(r, items, by, false));
    KVANT_TRY(new_items(r, JINJA_LIST, out));
    for (size_t i = 0; i < items->n; i++) {
        if (i) KVANT_TRY(kvant_jinja_equal(r, &by[i - 1], &by[i], &same));
        if (!i || !same) {
            value key;
            KVANT_TRY(get_path(r, &items->data[i], &c->arg[0], &key));
            KVANT_TRY(new_items(r, JINJA_LIST, &group));
            KVANT_TRY(kvant_jinja_pair(r, key, group, &pair));
            KVANT_TRY(push(r, out, pair));
        }
        KVANT_TRY(push(r, &group, items->data[i]));
    }
    return KVANT_OK;
}

/* ---- by other filters and tests ---- */

static const value *find_named(const call *c, const char *name) {
    for (size_t i = 0; i < c->n_named; i++)
        if (strcmp(c->named[i].name, name) == 0) return &c->named[i].value;
    return NULL;
}

static kvant_status map(run *r, call *c, value *out) {
    items_t items;
    const value *path = c->n_values ? NULL : find_named(c, "attribute"), *otherwise = find_named(c, "default");
    if (!path && (!c->n_values || c->values[0].kind != JINJA_STRING))
        return kvant_jinja_fail(r, KVANT_EFORMAT, "map without a name", "the name of a filter");
    KVANT_TRY(new_items(r, JINJA_ITERATOR, out));
    if (!kvant_jinja_truth(&c->self)) return KVANT_OK; /* None too is nothing to go through */
    KVANT_TRY(kvant_jinja_iterate(r, &c->self, &items));
    for (size_t i = 0; i < items.n; i++) {
        value v;
        if (path) {
            KVANT_TRY(get_path(r, &items.data[i], path, &v));
            if (v.kind == JINJA_UNDEFINED && otherwise) v = *otherwise;
        } else {
            call inner = {.self = items.data[i],
                          .values = c->values + 1,
                          .n_values = c->n_values - 1,
                          .named = c->named,
                          .n_named = c->n_named};
            KVANT_TRY(kvant_jinja_deeper(r));
            KVANT_TRY(kvant_jinja_apply_filter(r, c->values[0].as.text->bytes, c->values[0].as.text->size, &inner, &v));
            kvant_jinja_leave(r);
        }
        KVANT_TRY(push(r, out, v));
    }
    return KVANT_OK;
}

/* select, reject, selectattr, rejectattr */
static kvant_status choose(run *r, call *c, value *out) {
    items_t items;
    const char *name = c->what->name;
    bool wanted = *name == 's', by_attribute = strlen(name) > 6;
    size_t skipped = by_attribute ? 1 : 0;
    if (by_attribute && !c->n_values) return kvant_jinja_fail(r, KVANT_EFORMAT, "no attribute to choose by", "its name");
    const value *test = c->n_values > skipped ? &c->values[skipped] : NULL;
    if (test && test->kind != JINJA_STRING) return kvant_jinja_wrong(r, name, test, "the name of a test");
    KVANT_TRY(new_items(r, JINJA_ITERATOR, out));
    if (!kvant_jinja_truth(&c->self)) return KVANT_OK;
    KVANT_TRY(kvant_jinja_iterate(r, &c->self, &items));
    for (size_t i = 0; i < items.n; i++) {
        value v = items.data[i];
        if (by_attribute) KVANT_TRY(get_path(r, &items.data[i], &c->values[0], &v));
        bool yes = kvant_jinja_truth(&v);
        if (test) {
            call inner = {
                .self = v, .values = test + 1, .n_values = c->n_values - skipped - 1, .named = c->named, .n_named = c->n_named};
            KVANT_TRY(kvant_jinja_apply_test(r, test->as.text->bytes, test->as.text->size, &inner, &yes));
        }
        if (yes == wanted) KVANT_TRY(push(r, out, items.data[i]));
    }
    return KVANT_OK;
}

const kvant_jinja_builtin *kvant_jinja_find_list_filter(const char *name, size_t size) {
    static const kvant_jinja_builtin FILTERS[] = {
        {"first", first, "", 0},
        {"last", last, "", 0},
        {"min", extreme, "case_sensitive attribute", 0},
        {"max", extreme, "case_sensitive attribute", 0},
        {"sum", sum, "attribute start", 0},
        {"join", join, "d attribute", 0},
        {"list", list, "", 0},
        {"reverse", reverse, "", 0},
        {"sort", sort, "reverse case_sensitive attribute", 0},
        {"unique", unique, "case_sensitive attribute", 0},
        {"items", items_of, "", 0},
        {"dictsort", dict_sort, "case_sensitive by reverse", 0},
        {"batch", batch, "linecount fill_with", 1},
        {"groupby", group_by, "attribute", 1},
        {"map", map, NULL, 0},
        {"select", choose, NULL, 0},
        {"reject", choose, NULL, 0},
        {"selectattr", choose, NULL, 0},
        {"rejectattr", choose, NULL, 0},
    };
    return kvant_jinja_find_in(FILTERS, sizeof FILTERS / sizeof *FILTERS, name, size);
}
