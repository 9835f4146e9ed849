// SPDX-License-Identifier: MIT
/* jinja_methods.c: the methods of lists, dicts, loops and cyclers; those of str are in jinja_text_methods.c. */
#include "text/jinja_run.h"

typedef kvant_jinja_run run;
typedef kvant_jinja_value value;
typedef kvant_jinja_call call;

static kvant_status keys(run *r, call *c, value *out) { return kvant_jinja_map_view(r, c->self.as.map, "dict_keys", out); }
static kvant_status values(run *r, call *c, value *out) { return kvant_jinja_map_view(r, c->self.as.map, "dict_values", out); }
static kvant_status items(run *r, call *c, value *out) { return kvant_jinja_map_view(r, c->self.as.map, "dict_items", out); }

static kvant_status get(run *r, call *c, value *out) {
    if (!kvant_jinja_is_key(&c->arg[0], 0) && c->arg[0].kind != JINJA_UNDEFINED)
        return kvant_jinja_wrong(r, "get()", &c->arg[0], "a key");
    const value *v = kvant_jinja_map_find(c->self.as.map, &c->arg[0]);
    *out = v ? *v : c->arg[1].kind == JINJA_MISSING ? kvant_jinja_none() : c->arg[1];
    return KVANT_OK;
}

static kvant_status copy(run *r, call *c, value *out) {
    kvant_status st;
    if (c->self.kind == JINJA_LIST) {
        st = kvant_jinja_new_items(r->heap, JINJA_LIST, c->self.as.items->n, out);
        for (size_t i = 0; i < c->self.as.items->n && st == KVANT_OK; i++)
            st = kvant_jinja_push(r->heap, out->as.items, c->self.as.items->data[i]);
    } else {
        const kvant_jinja_map *m = c->self.as.map;
        st = kvant_jinja_dict(r->heap, out);
        for (size_t i = 0; i < m->n && st == KVANT_OK; i++)
            st = kvant_jinja_map_set(r->heap, out->as.map, m->entries[i].key, m->entries[i].value);
    }
    return st == KVANT_OK ? kvant_jinja_step(r, 1) : kvant_jinja_out_of_memory(r, st);
}

static kvant_status dict_pop(run *r, call *c, value *out) {
    const value *v = kvant_jinja_map_find(c->self.as.map, &c->arg[0]);
    if (!v && c->arg[1].kind == JINJA_MISSING)
        return kvant_jinja_fail(r, KVANT_EFORMAT, "pop() of a key that is not there", "one of the keys");
    *out = v ? *v : c->arg[1];
    KVANT_TRY(kvant_jinja_step(r, c->self.as.map->n / 16 + 1));
    kvant_status st = v ? kvant_jinja_map_remove(r->heap, c->self.as.map, &c->arg[0]) : KVANT_OK;
    return st == KVANT_OK ? st : kvant_jinja_out_of_memory(r, st);
}

static kvant_status update(run *r, call *c, value *out) {
    const value *v = &c->arg[0];
    if (v->kind != JINJA_DICT) return kvant_jinja_wrong(r, "update()", v, "a dict");
    *out = kvant_jinja_none();
    KVANT_TRY(kvant_jinja_step(r, v->as.map->n + 1));
    for (size_t i = 0; i < v->as.map->n; i++) {
        kvant_status st = kvant_jinja_map_set(r->heap, c->self.as.map, v->as.map->entries[i].key, v->as.map->entries[i].value);
        if (st != KVANT_OK) return kvant_jinja_out_of_memory(r, st);
    }
    return KVANT_OK;
}

static kvant_status append(run *r, call *c, value *out) {
    *out = kvant_jinja_none();
    kvant_status st = kvant_jinja_push(r->heap, c->self.as.items, c->arg[0]);
    return st == KVANT_OK ? st : kvant_jinja_out_of_memory(r, st);
}

static kvant_status extend(run *r, call *c, value *out) {
    kvant_jinja_items more;
    *out = kvant_jinja_none();
    KVANT_TRY(kvant_jinja_iterate(r, &c->arg[0], &more));
    KVANT_TRY(kvant_jinja_step(r, more.n / 16 + 1));
    for (size_t i = 0; i < more.n; i++) {
        kvant_status st = kvant_jinja_push(r->heap, c->self.as.items, more.data[i]);
        if (st != KVANT_OK) return kvant_jinja_out_of_memory(r, st);
    }
    return KVANT_OK;
}

/* Others may go through the items: they are not moved but copied. */
static kvant_status move_items(run *r, kvant_jinja_items *list, size_t room) {
    value *data = kvant_jinja_alloc(r->heap, room, sizeof *data);
    if (!data) return kvant_jinja_out_of_memory(r, r->heap->failure);
    if (list->n) memcpy(data, list->data, list->n * sizeof *data);
    list->data = data;
    list->room = room;
    return kvant_jinja_step(r, room / 16 + 1);
}

static kvant_status list_pop(run *r, call *c, value *out) {
    kvant_jinja_items *list = c->self.as.items;
    int64_t i;
    KVANT_TRY(kvant_jinja_int_arg(r, c, 0, -1, &i));
    if (i < 0) i += (int64_t)list->n;
    if (i < 0 || i >= (int64_t)list->n)
        return kvant_jinja_fail(r, KVANT_EFORMAT, "pop() of an item that is not there", "one of the items");
    *out = list->data[i];
    KVANT_TRY(move_items(r, list, list->n));
    memmove(list->data + i, list->data + i + 1, (list->n - (size_t)i - 1) * sizeof *list->data);
    list->n--;
    return KVANT_OK;
}

static kvant_status insert(run *r, call *c, value *out) {
    kvant_jinja_items *list = c->self.as.items;
    int64_t i, n = (int64_t)list->n;
    KVANT_TRY(kvant_jinja_int_arg(r, c, 0, 0, &i));
    i = i < -n ? 0 : i < 0 ? i + n : i > n ? n : i;
    KVANT_TRY(move_items(r, list, list->n + 4));
    memmove(list->data + i + 1, list->data + i, (size_t)(n - i) * sizeof *list->data);
    list->data[i] = c->arg[1];
    list->n++;
    *out = kvant_jinja_none();
    return KVANT_OK;
}

static kvant_status find_index(run *r, call *c, value *out) {
    const kvant_jinja_items *list = c->self.as.items;
    bool counts = strcmp(c->what->name, "count") == 0, same;
    int64_t n = 0;
    for (size_t i = 0; i < list->n; i++) {
        KVANT_TRY(kvant_jinja_step(r, 1));
        KVANT_TRY(kvant_jinja_equal(r, &list->data[i], &c->arg[0], &same));
        n += same;
        if (!same || counts) continue;
        *out = kvant_jinja_int((int64_t)i);
        return KVANT_OK;
    }
    if (!counts) return kvant_jinja_fail(r, KVANT_EFORMAT, "index() of a value that is not there", "one of the items");
    *out = kvant_jinja_int(n);
    return KVANT_OK;
}

/* One of the values in turn. */
static kvant_status cycle(run *r, call *c, value *out) {
    if (!c->n_values) return kvant_jinja_fail(r, KVANT_EFORMAT, "loop.cycle() of nothing", "values");
    *out = c->values[c->self.as.loop->index % c->n_values];
    return KVANT_OK;
}

/* Whether a value is another one than in the round before. */
static kvant_status changed(run *r, call *c, value *out) {
    kvant_jinja_loop *l = c->self.as.loop;
    value now;
    bool same = false;
    kvant_status st = kvant_jinja_new_items(r->heap, JINJA_TUPLE, c->n_values, &now);
    for (size_t i = 0; i < c->n_values && st == KVANT_OK; i++)
        st = kvant_jinja_push(r->heap, now.as.items, c->values[i]);
    if (st != KVANT_OK) return kvant_jinja_out_of_memory(r, st);
    if (l->changed_before) KVANT_TRY(kvant_jinja_equal(r, &l->changed, &now, &same));
    l->changed_before = true;
    l->changed = now;
    *out = kvant_jinja_bool(!same);
    return KVANT_OK;
}

static kvant_status next(run *r, call *c, value *out) { return kvant_jinja_call_value(r, &c->self, c, out); }

static kvant_status reset(run *r, call *c, value *out) {
    (void)r;
    c->self.as.items->room = 0;
    *out = kvant_jinja_none();
    return KVANT_OK;
}

#define FIND(table) kvant_jinja_find_in(table, sizeof table / sizeof *table, name, strlen(name))

const kvant_jinja_builtin *kvant_jinja_find_method(const value *owner, const char *name) {
    static const kvant_jinja_builtin DICT[] = {
        {"keys", keys, "", 0},          {"values", values, "", 0},           {"items", items, "", 0},
        {"get", get, "key default", 1}, {"pop", dict_pop, "key default", 1}, {"update", update, "other", 1},
        {"copy", copy, "", 0},
    };
    static const kvant_jinja_builtin LIST[] = {
        {"append", append, "object", 1},
        {"extend", extend, "iterable", 1},
        {"pop", list_pop, "index", 0},
        {"insert", insert, "index object", 2},
        {"copy", copy, "", 0},
        {"index", find_index, "value", 1},
        {"count", find_index, "value", 1},
    };
    static const kvant_jinja_builtin TUPLE[] = {{"index", find_index, "value", 1}, {"count", find_index, "value", 1}};
    static const kvant_jinja_builtin LOOP[] = {{"cycle", cycle, NULL, 0}, {"changed", changed, NULL, 0}};
    static const kvant_jinja_builtin CYCLER[] = {{"next", next, "", 0}, {"reset", reset, "", 0}};
    switch (owner->kind) {
    case JINJA_STRING:
        return kvant_jinja_find_text_method(name);
    case JINJA_DICT:
        return FIND(DICT);
    case JINJA_LIST:
        return owner->as.items->view ? NULL : FIND(LIST);
    case JINJA_TUPLE:
        return FIND(TUPLE);
    case JINJA_LOOP:
        return FIND(LOOP);
    case JINJA_CYCLER:
        return FIND(CYCLER);
    default:
        return NULL;
    }
}
