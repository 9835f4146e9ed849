// SPDX-License-Identifier: MIT
/* jinja_eval.c: the values of expressions: names, attributes, items, calls. Arithmetic is in jinja_operators.c. */
#include <stdio.h>

#include "text/jinja_run.h"

#define MAX_DEPTH 1000

typedef kvant_jinja_run run;
typedef kvant_jinja_value value;
typedef kvant_jinja_node node;
typedef kvant_jinja_call call;

kvant_status kvant_jinja_fail(run *r, kvant_status st, const char *found, const char *expected) {
    return kvant_fail(r->err, st, "%s: chat template, line %d: found %s, expected %s", r->t->name, r->line, found, expected);
}

kvant_status kvant_jinja_wrong(run *r, const char *name, const value *v, const char *expected) {
    if (v->kind == JINJA_UNDEFINED && v->as.hint)
        return kvant_fail(r->err, KVANT_EFORMAT, "%s: chat template, line %d: found \"%.60s\" undefined for %s, expected %s",
                          r->t->name, r->line, v->as.hint, name, expected);
    return kvant_fail(r->err, KVANT_EFORMAT, "%s: chat template, line %d: found %s for %s, expected %s", r->t->name, r->line,
                      kvant_jinja_type_name(v), name, expected);
}

kvant_status kvant_jinja_out_of_memory(run *r, kvant_status st) {
    if (st == KVANT_ENOMEM) return kvant_fail(r->err, st, "%s: chat template, line %d: out of memory", r->t->name, r->line);
    return kvant_fail(r->err, st, "%s: chat template, line %d: found more than %zu bytes of values or output, expected fewer",
                      r->t->name, r->line, r->heap->max < r->options->max_output ? r->heap->max : r->options->max_output);
}

kvant_status kvant_jinja_step(run *r, uint64_t n) {
    if (n <= r->steps) {
        r->steps -= n;
        return KVANT_OK;
    }
    return kvant_fail(r->err, KVANT_EFULL,
                      "%s: chat template, line %d: found more than %llu steps, expected fewer (does it end?)", r->t->name,
                      r->line, (unsigned long long)r->options->max_steps);
}

kvant_status kvant_jinja_step_bytes(run *r, size_t size) { return kvant_jinja_step(r, size / 256 + 1); }

kvant_status kvant_jinja_deeper(run *r) {
    if (++r->depth <= MAX_DEPTH) return kvant_jinja_step(r, 1);
    return kvant_fail(r->err, KVANT_EFULL,
                      "%s: chat template, line %d: found more than %d levels of calls, blocks and values, expected fewer",
                      r->t->name, r->line, MAX_DEPTH);
}

kvant_status kvant_jinja_int_arg(run *r, const call *c, int index, int64_t fallback, int64_t *out) {
    const value *v = &c->arg[index];
    *out = fallback;
    if (v->kind == JINJA_MISSING || v->kind == JINJA_NONE) return KVANT_OK;
    if (!kvant_jinja_is_integral(v)) return kvant_jinja_wrong(r, c->what->name, v, "an int");
    *out = kvant_jinja_integral(v);
    return KVANT_OK;
}

kvant_status kvant_jinja_text_arg(run *r, const call *c, int index, const kvant_jinja_text **out) {
    const value *v = &c->arg[index];
    if (v->kind != JINJA_STRING) return kvant_jinja_wrong(r, c->what->name, v, "a str");
    *out = v->as.text;
    return KVANT_OK;
}

/* ---- names, attributes, items ---- */

static kvant_status eval_name(run *r, const char *name, value *out) {
    for (const kvant_jinja_scope *s = r->scope; s; s = s->parent)
        for (size_t i = s->n; i-- > 0;)
            if (s->variables[i].name == name) {
                *out = s->variables[i].value;
                return KVANT_OK;
            }
    const kvant_jinja_builtin *f = kvant_jinja_find_function(name);
    *out = f ? (value){.kind = JINJA_FUNCTION, .as.builtin = f} : kvant_jinja_undefined(name);
    return KVANT_OK;
}

static kvant_status no_attributes(run *r, const value *v, const char *name) {
    return kvant_fail(r->err, KVANT_EFORMAT,
                      "%s: chat template, line %d: found \"%.60s\" undefined, expected something with \"%.60s\"", r->t->name,
                      r->line, v->as.hint ? v->as.hint : "a value", name);
}

static kvant_status bind_method(run *r, const value *v, const char *name, value *out, bool *found) {
    const kvant_jinja_builtin *b = kvant_jinja_find_method(v, name);
    *found = b != NULL;
    if (!b) return KVANT_OK;
    kvant_jinja_method *m = kvant_jinja_alloc(r->heap, 1, sizeof *m);
    if (!m) return kvant_jinja_out_of_memory(r, r->heap->failure);
    *m = (kvant_jinja_method){b, *v};
    *out = (value){.kind = JINJA_METHOD, .as.method = m};
    return KVANT_OK;
}

static value loop_attribute(const kvant_jinja_loop *l, const char *name) {
    int64_t i = (int64_t)l->index, n = (int64_t)l->items->n;
    const struct {
        const char *name;
        int64_t number;
    } NUMBERS[] = {{"index", i + 1}, {"index0", i},       {"revindex", n - i},     {"revindex0", n - i - 1},
                   {"length", n},    {"depth", l->depth}, {"depth0", l->depth - 1}};
    for (size_t k = 0; k < sizeof NUMBERS / sizeof *NUMBERS; k++)
        if (strcmp(name, NUMBERS[k].name) == 0) return kvant_jinja_int(NUMBERS[k].number);
    if (strcmp(name, "first") == 0) return kvant_jinja_bool(i == 0);
    if (strcmp(name, "last") == 0) return kvant_jinja_bool(i == n - 1);
    if (strcmp(name, "previtem") == 0 && i > 0) return l->items->data[i - 1];
    if (strcmp(name, "nextitem") == 0 && i < n - 1) return l->items->data[i + 1];
    return kvant_jinja_undefined(name);
}

static kvant_status map_item(run *r, const value *v, const value *key, value *out, bool *found) {
    (void)r;
    const value *item = kvant_jinja_map_find(v->as.map, key);
    *found = item != NULL;
    if (item) *out = *item;
    return KVANT_OK;
}

kvant_status kvant_jinja_get_attribute(run *r, const value *v, const char *name, value *out) {
    bool found = false;
    *out = kvant_jinja_undefined(name);
    if (v->kind == JINJA_UNDEFINED) return no_attributes(r, v, name);
    if (v->kind != JINJA_NAMESPACE) KVANT_TRY(bind_method(r, v, name, out, &found));
    if (found) return KVANT_OK;
    if (v->kind == JINJA_LOOP) *out = loop_attribute(v->as.loop, name);
    if (v->kind == JINJA_MACRO && strcmp(name, "name") == 0 && v->as.macro->name)
        return kvant_jinja_string(r->heap, v->as.macro->name, strlen(v->as.macro->name), out) == KVANT_OK
                   ? KVANT_OK
                   : kvant_jinja_out_of_memory(r, r->heap->failure);
    if (v->kind == JINJA_CYCLER && strcmp(name, "current") == 0 && v->as.items->n)
        *out = v->as.items->data[v->as.items->room % v->as.items->n];
    if (v->kind != JINJA_DICT && v->kind != JINJA_NAMESPACE) return KVANT_OK;
    const value *item = kvant_jinja_map_find_text(v->as.map, name, strlen(name));
    if (item) *out = *item;
    return KVANT_OK;
}

static kvant_status char_at(run *r, const kvant_jinja_text *t, size_t index, value *out) {
    size_t at = kvant_jinja_char_offset(t, index), end = at + 1;
    KVANT_TRY(kvant_jinja_step_bytes(r, t->n_chars == t->size ? 1 : at));
    while (end < t->size && t->n_chars != t->size && ((uint8_t)t->bytes[end] & 0xC0) == 0x80)
        end++;
    kvant_status st = kvant_jinja_share(r->heap, t->bytes + at, end - at, out);
    return st == KVANT_OK ? st : kvant_jinja_out_of_memory(r, st);
}

kvant_status kvant_jinja_get_item(run *r, const value *v, const value *key, value *out) {
    bool found = false;
    char name[64];
    *out = kvant_jinja_undefined("an item");
    if (v->kind == JINJA_UNDEFINED)
        return no_attributes(r, v, key->kind == JINJA_STRING && key->as.text->size ? "an item" : "items");
    if (v->kind == JINJA_DICT) KVANT_TRY(map_item(r, v, key, out, &found));
    if (found) return KVANT_OK;
    if (kvant_jinja_is_integral(key) && (v->kind == JINJA_STRING || v->kind == JINJA_LIST || v->kind == JINJA_TUPLE)) {
        if (v->kind == JINJA_LIST && v->as.items->view && strcmp(v->as.items->view, "range") != 0) return KVANT_OK;
        int64_t i = kvant_jinja_integral(key);
        int64_t n = v->kind == JINJA_STRING ? (int64_t)v->as.text->n_chars : (int64_t)v->as.items->n;
        if (i < 0) i += n;
        if (i < 0 || i >= n) return KVANT_OK;
        if (v->kind == JINJA_STRING) return char_at(r, v->as.text, (size_t)i, out);
        *out = v->as.items->data[i];
        return KVANT_OK;
    }
    if (key->kind != JINJA_STRING) return KVANT_OK;
    /* What is no item may be an attribute. */
    if (key->as.text->size >= sizeof name) return KVANT_OK;
    memcpy(name, key->as.text->bytes, key->as.text->size);
    name[key->as.text->size] = '\0';
    KVANT_TRY(kvant_jinja_get_attribute(r, v, name, out));
    if (out->kind == JINJA_UNDEFINED) { /* the hint must outlive this function */
        kvant_status st = kvant_jinja_string(r->heap, name, strlen(name) + 1, out);
        if (st != KVANT_OK) return kvant_jinja_out_of_memory(r, st);
        *out = kvant_jinja_undefined(out->as.text->bytes);
    }
    return KVANT_OK;
}

static kvant_status eval_item(run *r, const node *n, value *out) {
    value v, key;
    KVANT_TRY(kvant_jinja_eval(r, n->a, &v));
    if (n->b->kind != NODE_SLICE) {
        KVANT_TRY(kvant_jinja_eval(r, n->b, &key));
        r->line = n->line;
        return kvant_jinja_get_item(r, &v, &key, out);
    }
    const node *parts[3] = {n->b->a, n->b->b, n->b->c};
    value bounds[3];
    for (int i = 0; i < 3; i++) {
        bounds[i] = kvant_jinja_none();
        if (parts[i]) KVANT_TRY(kvant_jinja_eval(r, parts[i], &bounds[i]));
    }
    r->line = n->line;
    return kvant_jinja_slice(r, &v, bounds, out);
}

/* ---- calls ---- */

/* The arguments of a call, filter or test. */
static kvant_status eval_arguments(run *r, const node *n, call *c) {
    size_t n_values = 0, n_named = 0;
    for (const node *a = n->b; a; a = a->next)
        n_values++;
    for (const node *a = n->c; a; a = a->next)
        n_named++;
    value *values = n_values ? kvant_jinja_alloc(r->heap, n_values, sizeof *values) : NULL;
    kvant_jinja_named *named = n_named ? kvant_jinja_alloc(r->heap, n_named, sizeof *named) : NULL;
    if ((n_values && !values) || (n_named && !named)) return kvant_jinja_out_of_memory(r, r->heap->failure);
    c->values = values;
    c->named = named;
    for (const node *a = n->b; a; a = a->next)
        KVANT_TRY(kvant_jinja_eval(r, a, &values[c->n_values++]));
    for (const node *a = n->c; a; a = a->next) {
        KVANT_TRY(kvant_jinja_eval(r, a->a, &named[c->n_named].value));
        named[c->n_named++].name = a->name;
    }
    r->line = n->line;
    return KVANT_OK;
}

static kvant_status wrong_arguments(run *r, const kvant_jinja_builtin *b, const char *what) {
    return kvant_fail(r->err, KVANT_EFORMAT, "%s: chat template, line %d: found %s in a call of %s, expected (%s)", r->t->name,
                      r->line, what, b->name, b->parameters);
}

/* The place of a parameter's name in "a b c", or -1. */
static int parameter_index(const char *parameters, const char *name) {
    size_t size = strlen(name);
    int index = 0;
    for (const char *p = parameters; *p; index++) {
        size_t n = strcspn(p, " ");
        if (n == size && memcmp(p, name, n) == 0) return index;
        p += n;
        p += *p == ' ';
    }
    return -1;
}

kvant_status kvant_jinja_call_builtin(run *r, const kvant_jinja_builtin *b, call *c, value *out) {
    c->what = b;
    if (!b->parameters) return b->fn(r, c, out);
    size_t n_parameters = *b->parameters ? 1 : 0;
    for (const char *p = b->parameters; *p; p++)
        n_parameters += *p == ' ';
    if (c->n_values > n_parameters) return wrong_arguments(r, b, "too many values");
    for (size_t i = 0; i < KVANT_JINJA_MAX_PARAMETERS; i++)
        c->arg[i] = i < c->n_values ? c->values[i] : (value){.kind = JINJA_MISSING};
    for (size_t i = 0; i < c->n_named; i++) {
        int index = parameter_index(b->parameters, c->named[i].name);
        if (index < 0 || c->arg[index].kind != JINJA_MISSING)
            return wrong_arguments(r, b, index < 0 ? "an unknown name" : "one value twice");
        c->arg[index] = c->named[i].value;
    }
    for (size_t i = 0; i < b->n_required; i++)
        if (c->arg[i].kind == JINJA_MISSING) return wrong_arguments(r, b, "too few values");
    return b->fn(r, c, out);
}

static kvant_status next_of_cycle(run *r, const value *f, value *out) {
    kvant_jinja_items *items = f->as.items;
    if (!items->n) return kvant_jinja_fail(r, KVANT_EFORMAT, "a cycler of nothing", "values");
    *out = items->data[items->room++ % items->n]; /* a cycler never grows: room counts its calls */
    return KVANT_OK;
}

static kvant_status next_of_joiner(const value *f, value *out) {
    kvant_jinja_items *items = f->as.items;
    *out = items->data[items->n > 1 ? 0 : 1];
    items->n = 2;
    return KVANT_OK;
}

kvant_status kvant_jinja_call_value(run *r, const value *f, call *c, value *out) {
    switch (f->kind) {
    case JINJA_FUNCTION:
        return kvant_jinja_call_builtin(r, f->as.builtin, c, out);
    case JINJA_METHOD:
        c->self = f->as.method->self;
        return kvant_jinja_call_builtin(r, f->as.method->builtin, c, out);
    case JINJA_MACRO:
        return kvant_jinja_call_macro(r, f->as.macro, c, out);
    case JINJA_CYCLER:
        return next_of_cycle(r, f, out);
    case JINJA_JOINER:
        return next_of_joiner(f, out);
    default:
        return kvant_jinja_wrong(r, "a call", f, "a macro, a function or a method that Kvant knows");
    }
}

static kvant_status eval_call(run *r, const node *n, value *out) {
    value f;
    call c = {0};
    KVANT_TRY(kvant_jinja_eval(r, n->a, &f));
    KVANT_TRY(eval_arguments(r, n, &c));
    return kvant_jinja_call_value(r, &f, &c, out);
}

static kvant_status unknown(run *r, const char *kind, const char *name, size_t size) {
    return kvant_fail(r->err, KVANT_EUNSUPPORTED,
                      "%s: chat template, line %d: found the %s \"%.*s\", expected one that Kvant knows", r->t->name, r->line,
                      kind, size > 60 ? 60 : (int)size, name);
}

kvant_status kvant_jinja_apply_filter(run *r, const char *name, size_t size, call *c, value *out) {
    const kvant_jinja_builtin *b = kvant_jinja_find_filter(name, size);
    if (!b) b = kvant_jinja_find_list_filter(name, size);
    return b ? kvant_jinja_call_builtin(r, b, c, out) : unknown(r, "filter", name, size);
}

kvant_status kvant_jinja_apply_test(run *r, const char *name, size_t size, call *c, bool *out) {
    value v;
    const kvant_jinja_builtin *b = kvant_jinja_find_test(name, size);
    if (!b) return unknown(r, "test", name, size);
    KVANT_TRY(kvant_jinja_call_builtin(r, b, c, &v));
    *out = kvant_jinja_truth(&v);
    return KVANT_OK;
}

static kvant_status eval_applied(run *r, const node *n, value *out) {
    call c = {0};
    KVANT_TRY(kvant_jinja_eval(r, n->a, &c.self));
    KVANT_TRY(eval_arguments(r, n, &c));
    if (n->kind == NODE_FILTER) return kvant_jinja_apply_filter(r, n->name, strlen(n->name), &c, out);
    bool yes = false;
    KVANT_TRY(kvant_jinja_apply_test(r, n->name, strlen(n->name), &c, &yes));
    *out = kvant_jinja_bool(yes);
    return KVANT_OK;
}

/* ---- the rest ---- */

static kvant_status eval_elements(run *r, const node *n, value *out) {
    kvant_status st = kvant_jinja_new_items(r->heap, n->kind == NODE_TUPLE ? JINJA_TUPLE : JINJA_LIST, 0, out);
    if (st != KVANT_OK) return kvant_jinja_out_of_memory(r, st);
    for (const node *a = n->a; a; a = a->next) {
        value v;
        KVANT_TRY(kvant_jinja_eval(r, a, &v));
        st = kvant_jinja_push(r->heap, out->as.items, v);
        if (st != KVANT_OK) return kvant_jinja_out_of_memory(r, st);
    }
    return KVANT_OK;
}

static kvant_status eval_dict(run *r, const node *n, value *out) {
    kvant_status st = kvant_jinja_dict(r->heap, out);
    if (st != KVANT_OK) return kvant_jinja_out_of_memory(r, st);
    for (const node *a = n->a; a; a = a->next->next) {
        value key, v;
        KVANT_TRY(kvant_jinja_eval(r, a, &key));
        KVANT_TRY(kvant_jinja_eval(r, a->next, &v));
        if (!kvant_jinja_is_key(&key, 0))
            return kvant_jinja_wrong(r, "the key of a dict", &key, "a str, a number, None or a tuple of such");
        st = kvant_jinja_map_set(r->heap, out->as.map, key, v);
        if (st != KVANT_OK) return kvant_jinja_out_of_memory(r, st);
    }
    return KVANT_OK;
}

static kvant_status eval_compare(run *r, const node *n, value *out) {
    value left, right;
    bool yes = true;
    KVANT_TRY(kvant_jinja_eval(r, n->a, &left));
    for (const node *o = n->b; o && yes; o = o->next) {
        KVANT_TRY(kvant_jinja_eval(r, o->a, &right));
        r->line = n->line;
        KVANT_TRY(kvant_jinja_compare(r, o->op, &left, &right, &yes));
        left = right;
    }
    *out = kvant_jinja_bool(yes);
    return KVANT_OK;
}

static kvant_status eval_concat(run *r, const node *n, value *out) {
    kvant_jinja_builder b;
    kvant_jinja_builder_init(&b, r->heap);
    for (const node *a = n->a; a; a = a->next) {
        value v;
        KVANT_TRY(kvant_jinja_eval(r, a, &v));
        KVANT_TRY(kvant_jinja_print(r, &b, &v));
    }
    return kvant_jinja_finish(r, &b, out);
}

static kvant_status eval_logic(run *r, const node *n, value *out) {
    KVANT_TRY(kvant_jinja_eval(r, n->kind == NODE_CHOICE ? n->b : n->a, out));
    bool yes = kvant_jinja_truth(out);
    switch (n->kind) {
    case NODE_AND:
        return yes ? kvant_jinja_eval(r, n->b, out) : KVANT_OK;
    case NODE_OR:
        return yes ? KVANT_OK : kvant_jinja_eval(r, n->b, out);
    case NODE_NOT:
        *out = kvant_jinja_bool(!yes);
        return KVANT_OK;
    default:
        break;
    }
    if (yes) return kvant_jinja_eval(r, n->a, out);
    *out = kvant_jinja_undefined("the value of an \"if\" without \"else\"");
    return n->c ? kvant_jinja_eval(r, n->c, out) : KVANT_OK;
}

static kvant_status eval_arithmetic(run *r, const node *n, value *out) {
    value a, b;
    KVANT_TRY(kvant_jinja_eval(r, n->a, &a));
    if (n->kind == NODE_BINARY) KVANT_TRY(kvant_jinja_eval(r, n->b, &b));
    r->line = n->line;
    if (n->kind == NODE_BINARY) return kvant_jinja_binary(r, n->op, &a, &b, out);
    if (n->kind == NODE_NEGATE) return kvant_jinja_negate(r, &a, out);
    if (!kvant_jinja_is_number(&a)) return kvant_jinja_wrong(r, "+", &a, "a number");
    *out = a.kind == JINJA_BOOL ? kvant_jinja_int(a.as.boolean) : a;
    return KVANT_OK;
}

static kvant_status eval_inner(run *r, const node *n, value *out) {
    value v;
    switch (n->kind) {
    case NODE_CONST:
        *out = n->constant;
        return KVANT_OK;
    case NODE_CAPTURED:
        *out = r->captured;
        return KVANT_OK;
    case NODE_NAME:
        return eval_name(r, n->name, out);
    case NODE_LIST:
    case NODE_TUPLE:
        return eval_elements(r, n, out);
    case NODE_DICT:
        return eval_dict(r, n, out);
    case NODE_COMPARE:
        return eval_compare(r, n, out);
    case NODE_CONCAT:
        return eval_concat(r, n, out);
    case NODE_ITEM:
        return eval_item(r, n, out);
    case NODE_CALL:
        return eval_call(r, n, out);
    case NODE_FILTER:
    case NODE_TEST:
        return eval_applied(r, n, out);
    case NODE_AND:
    case NODE_OR:
    case NODE_NOT:
    case NODE_CHOICE:
        return eval_logic(r, n, out);
    case NODE_ATTRIBUTE:
        KVANT_TRY(kvant_jinja_eval(r, n->a, &v));
        r->line = n->line;
        return kvant_jinja_get_attribute(r, &v, n->name, out);
    case NODE_BINARY:
    case NODE_NEGATE:
    case NODE_PLUS:
        return eval_arithmetic(r, n, out);
    default:
        return kvant_jinja_fail(r, KVANT_EFORMAT, "a slice", "it in brackets behind a value");
    }
}

kvant_status kvant_jinja_eval(run *r, const node *n, value *out) {
    r->line = n->line;
    KVANT_TRY(kvant_jinja_deeper(r));
    KVANT_TRY(eval_inner(r, n, out));
    kvant_jinja_leave(r);
    return KVANT_OK;
}
