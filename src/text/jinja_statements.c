// SPDX-License-Identifier: MIT
/* jinja_statements.c: statements at work: output, conditions, loops, names, macros; and a whole rendering.
 *
 * A loop's round, a macro's call and a captured block have scopes of their own: what they set ends with them. Macros see the
 * names around the place where they were written, as these are when the macro is called. */
#include "text/jinja_run.h"

#define MAX_MACROS 150
#define MAX_TREE 2000
#define DEFAULT_STEPS 20000000
#define DEFAULT_OUTPUT ((size_t)64 << 20)

typedef kvant_jinja_run run;
typedef kvant_jinja_value value;
typedef kvant_jinja_node node;
typedef kvant_jinja_call call;

static kvant_status run_body(run *r, const node *n);

static kvant_status open_scope(run *r, kvant_jinja_scope *parent) {
    kvant_jinja_scope *s = kvant_jinja_alloc(r->heap, 1, sizeof *s);
    if (!s) return kvant_jinja_out_of_memory(r, r->heap->failure);
    s->parent = parent;
    r->scope = s;
    return KVANT_OK;
}

kvant_status kvant_jinja_define(run *r, const char *name, value v) {
    kvant_jinja_scope *s = r->scope;
    for (size_t i = 0; i < s->n; i++)
        if (s->variables[i].name == name) {
            s->variables[i].value = v;
            return KVANT_OK;
        }
    if (s->n == s->room) {
        size_t room = s->room ? 2 * s->room : 4;
        kvant_jinja_variable *grown = kvant_jinja_grow(r->heap, s->variables, s->room * sizeof *grown, room * sizeof *grown);
        if (!grown) return kvant_jinja_out_of_memory(r, r->heap->failure);
        s->variables = grown;
        s->room = room;
    }
    s->variables[s->n++] = (kvant_jinja_variable){name, v};
    return KVANT_OK;
}

static kvant_status assign_attribute(run *r, const node *target, value v) {
    value owner, key;
    KVANT_TRY(kvant_jinja_eval(r, target->a, &owner));
    if (owner.kind != JINJA_NAMESPACE) return kvant_jinja_wrong(r, "a set of an attribute", &owner, "a namespace");
    kvant_status st = kvant_jinja_share(r->heap, target->name, strlen(target->name), &key);
    if (st == KVANT_OK) st = kvant_jinja_map_set(r->heap, owner.as.map, key, v);
    return st == KVANT_OK ? st : kvant_jinja_out_of_memory(r, st);
}

static kvant_status assign(run *r, const node *target, value v) {
    if (target->kind == NODE_NAME) return kvant_jinja_define(r, target->name, v);
    if (target->kind == NODE_ATTRIBUTE) return assign_attribute(r, target, v);
    kvant_jinja_items items;
    size_t n = 0;
    for (const node *t = target->a; t; t = t->next)
        n++;
    KVANT_TRY(kvant_jinja_iterate(r, &v, &items));
    if (items.n != n)
        return kvant_fail(r->err, KVANT_EFORMAT, "%s: chat template, line %d: found %zu values to unpack, expected %zu",
                          r->t->name, r->line, items.n, n);
    n = 0;
    for (const node *t = target->a; t; t = t->next)
        KVANT_TRY(assign(r, t, items.data[n++]));
    return KVANT_OK;
}

/* What a body writes, as a text; the scope is the caller's business. */
static kvant_status capture(run *r, const node *body, value *out) {
    kvant_jinja_builder b, *outer = r->out;
    kvant_jinja_builder_init(&b, r->heap);
    r->out = &b;
    KVANT_TRY(run_body(r, body));
    r->out = outer;
    return kvant_jinja_finish(r, &b, out);
}

static kvant_status capture_filtered(run *r, const node *n, value *out) {
    kvant_jinja_scope *scope = r->scope;
    value text;
    KVANT_TRY(open_scope(r, scope));
    KVANT_TRY(capture(r, n->d, &text));
    r->scope = scope;
    r->captured = text;
    return kvant_jinja_eval(r, n->b, out);
}

static kvant_status run_if(run *r, const node *n) {
    for (const node *b = n->a; b; b = b->next) {
        value v = kvant_jinja_bool(true);
        if (b->a) KVANT_TRY(kvant_jinja_eval(r, b->a, &v));
        if (kvant_jinja_truth(&v)) return run_body(r, b->d);
    }
    return KVANT_OK;
}

/* The items for which the loop's condition holds. */
static kvant_status filter_items(run *r, const node *n, kvant_jinja_items *items) {
    kvant_jinja_scope *scope = r->scope;
    value kept;
    kvant_status st = kvant_jinja_list(r->heap, &kept);
    if (st != KVANT_OK) return kvant_jinja_out_of_memory(r, st);
    for (size_t i = 0; i < items->n; i++) {
        value v;
        KVANT_TRY(open_scope(r, scope));
        KVANT_TRY(assign(r, n->a, items->data[i]));
        KVANT_TRY(kvant_jinja_eval(r, n->c, &v));
        if (kvant_jinja_truth(&v)) st = kvant_jinja_push(r->heap, kept.as.items, items->data[i]);
        if (st != KVANT_OK) return kvant_jinja_out_of_memory(r, st);
    }
    r->scope = scope;
    *items = *kept.as.items;
    return KVANT_OK;
}

static kvant_status run_rounds(run *r, const node *n, kvant_jinja_loop *loop) {
    kvant_jinja_scope *scope = r->scope;
    const value *known = kvant_jinja_map_find_text(&r->t->names, "loop", 4);
    for (size_t i = 0; i < loop->items->n; i++) {
        loop->index = i;
        KVANT_TRY(kvant_jinja_step(r, 1));
        KVANT_TRY(open_scope(r, scope));
        if (known) KVANT_TRY(kvant_jinja_define(r, known->as.text->bytes, (value){.kind = JINJA_LOOP, .as.loop = loop}));
        KVANT_TRY(assign(r, n->a, loop->items->data[i]));
        KVANT_TRY(run_body(r, n->d));
        bool leave = r->jump == JUMP_BREAK;
        r->jump = JUMP_NONE;
        if (leave) break;
    }
    r->scope = scope;
    return KVANT_OK;
}

static kvant_status run_for(run *r, const node *n) {
    value v;
    kvant_jinja_loop *loop = kvant_jinja_alloc(r->heap, 1, sizeof *loop);
    kvant_jinja_items *items = kvant_jinja_alloc(r->heap, 1, sizeof *items);
    if (!loop || !items) return kvant_jinja_out_of_memory(r, r->heap->failure);
    KVANT_TRY(kvant_jinja_eval(r, n->b, &v));
    r->line = n->line;
    KVANT_TRY(kvant_jinja_iterate(r, &v, items));
    if (n->c) KVANT_TRY(filter_items(r, n, items));
    loop->items = items;
    loop->depth = 1; /* loops inside loops count anew: only recursive ones go deeper */
    if (items->n) return run_rounds(r, n, loop);
    kvant_jinja_scope *scope = r->scope;
    KVANT_TRY(open_scope(r, scope));
    KVANT_TRY(run_body(r, n->e));
    r->scope = scope;
    return KVANT_OK;
}

/* Whether a body uses a name, so that a macro takes what goes by it. */
static bool mentions(const node *n, const char *name, int depth) {
    for (; n && depth < MAX_TREE; n = n->next) { /* deeper ones cannot be run either */
        if (n->kind == NODE_NAME && n->name && strcmp(n->name, name) == 0) return true;
        const node *parts[] = {n->a, n->b, n->c, n->d, n->e};
        for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
            if (parts[i] && mentions(parts[i], name, depth + 1)) return true;
    }
    return false;
}

static kvant_status make_macro(run *r, const node *n, value *out) {
    kvant_jinja_macro *m = kvant_jinja_alloc(r->heap, 1, sizeof *m);
    if (!m) return kvant_jinja_out_of_memory(r, r->heap->failure);
    *m = (kvant_jinja_macro){.name = n->kind == NODE_MACRO ? n->name : NULL, .parameters = n->a, .body = n->d, .scope = r->scope};
    m->uses_caller = mentions(n->d, "caller", 0);
    m->takes_more = mentions(n->d, "varargs", 0);
    m->takes_named = mentions(n->d, "kwargs", 0);
    *out = (value){.kind = JINJA_MACRO, .as.macro = m};
    return KVANT_OK;
}

static const value *named_argument(const call *c, const char *name) {
    for (size_t i = 0; i < c->n_named; i++)
        if (strcmp(c->named[i].name, name) == 0) return &c->named[i].value;
    return NULL;
}

static bool is_parameter(const kvant_jinja_macro *m, const char *name) {
    for (const node *p = m->parameters; p; p = p->next)
        if (strcmp(p->name, name) == 0) return true;
    return false;
}

static kvant_status define_special(run *r, const char *name, value v) {
    const value *known = kvant_jinja_map_find_text(&r->t->names, name, strlen(name));
    return known ? kvant_jinja_define(r, known->as.text->bytes, v) : KVANT_OK;
}

/* caller, varargs and kwargs: what was given beside the parameters. */
static kvant_status take_the_rest(run *r, const kvant_jinja_macro *m, const call *c, size_t n_used) {
    const char *name = m->name ? m->name : "caller";
    const value *caller = named_argument(c, "caller");
    value more, named;
    kvant_status st = kvant_jinja_new_items(r->heap, JINJA_TUPLE, 0, &more);
    if (st == KVANT_OK) st = kvant_jinja_dict(r->heap, &named);
    for (size_t i = n_used; i < c->n_values && st == KVANT_OK; i++)
        st = kvant_jinja_push(r->heap, more.as.items, c->values[i]);
    for (size_t i = 0; i < c->n_named && st == KVANT_OK; i++) {
        if (is_parameter(m, c->named[i].name) || strcmp(c->named[i].name, "caller") == 0) continue;
        if (!m->takes_named)
            return kvant_fail(
                r->err, KVANT_EFORMAT,
                "%s: chat template, line %d: found the argument \"%.60s\" in a call of the macro %.60s, expected its "
                "parameters",
                r->t->name, r->line, c->named[i].name, name);
        st = kvant_jinja_dict_set(r->heap, &named, c->named[i].name, c->named[i].value);
    }
    if (st != KVANT_OK) return kvant_jinja_out_of_memory(r, st);
    if (more.as.items->n && !m->takes_more)
        return kvant_fail(r->err, KVANT_EFORMAT,
                          "%s: chat template, line %d: found %zu values in a call of the macro %.60s, expected %zu", r->t->name,
                          r->line, c->n_values, name, n_used);
    if (caller && !m->uses_caller && !is_parameter(m, "caller"))
        return kvant_jinja_fail(r, KVANT_EFORMAT, "a call block around a macro without caller()", "one that calls it");
    if (m->uses_caller && !is_parameter(m, "caller"))
        KVANT_TRY(define_special(r, "caller", caller ? *caller : kvant_jinja_undefined("caller")));
    if (m->takes_more) KVANT_TRY(define_special(r, "varargs", more));
    return m->takes_named ? define_special(r, "kwargs", named) : KVANT_OK;
}

static kvant_status bind_parameters(run *r, const kvant_jinja_macro *m, const call *c) {
    size_t i = 0;
    for (const node *p = m->parameters; p; p = p->next, i++) {
        const value *named = named_argument(c, p->name);
        value v = kvant_jinja_undefined(p->name);
        if (i < c->n_values) {
            if (named) return kvant_jinja_fail(r, KVANT_EFORMAT, "one parameter of a macro given twice", "it once");
            v = c->values[i];
        } else if (named) {
            v = *named;
        } else if (p->a) {
            KVANT_TRY(kvant_jinja_eval(r, p->a, &v));
        }
        KVANT_TRY(kvant_jinja_define(r, p->name, v));
    }
    return take_the_rest(r, m, c, i);
}

kvant_status kvant_jinja_call_macro(run *r, const kvant_jinja_macro *m, call *c, value *out) {
    kvant_jinja_scope *scope = r->scope;
    if (++r->macros > MAX_MACROS)
        return kvant_fail(r->err, KVANT_EFULL,
                          "%s: chat template, line %d: found macros inside one another more than %d times, expected fewer",
                          r->t->name, r->line, MAX_MACROS);
    KVANT_TRY(open_scope(r, m->scope));
    KVANT_TRY(bind_parameters(r, m, c));
    KVANT_TRY(capture(r, m->body, out));
    r->scope = scope;
    r->macros--;
    return KVANT_OK;
}

static kvant_status write_out(run *r, const value *v) {
    if (v->kind == JINJA_STRING) {
        kvant_jinja_add(r->out, v->as.text->bytes, v->as.text->size);
        KVANT_TRY(kvant_jinja_step_bytes(r, v->as.text->size));
    } else {
        KVANT_TRY(kvant_jinja_print(r, r->out, v));
    }
    return r->out->failed ? kvant_jinja_out_of_memory(r, r->heap->failure) : KVANT_OK;
}

/* {% call(x) f(y) %}: the call with one more argument, caller. */
static kvant_status run_call_block(run *r, const node *n) {
    value f, text;
    node keyword = {.kind = NODE_KEYWORD, .line = n->line, .name = "caller", .next = n->b->c};
    node constant = {.kind = NODE_CONST, .line = n->line};
    KVANT_TRY(make_macro(r, n, &f));
    constant.constant = f;
    keyword.a = &constant;
    node with_caller = *n->b;
    with_caller.c = &keyword;
    KVANT_TRY(kvant_jinja_eval(r, &with_caller, &text));
    return write_out(r, &text);
}

static kvant_status run_with(run *r, const node *n) {
    kvant_jinja_scope *outer = r->scope, *inner;
    KVANT_TRY(open_scope(r, outer));
    inner = r->scope;
    for (const node *s = n->a; s; s = s->next) {
        value v;
        r->scope = outer; /* the values do not see one another */
        KVANT_TRY(kvant_jinja_eval(r, s->b, &v));
        r->scope = inner;
        KVANT_TRY(assign(r, s->a, v));
    }
    KVANT_TRY(run_body(r, n->d));
    r->scope = outer;
    return KVANT_OK;
}

static kvant_status run_statement(run *r, const node *n) {
    value v;
    switch (n->kind) {
    case NODE_TEXT:
        return write_out(r, &n->constant);
    case NODE_OUTPUT:
        KVANT_TRY(kvant_jinja_eval(r, n->a, &v));
        return write_out(r, &v);
    case NODE_IF:
        return run_if(r, n);
    case NODE_FOR:
        return run_for(r, n);
    case NODE_SET:
        KVANT_TRY(kvant_jinja_eval(r, n->b, &v));
        return assign(r, n->a, v);
    case NODE_SET_BLOCK:
        KVANT_TRY(capture_filtered(r, n, &v));
        return assign(r, n->a, v);
    case NODE_FILTER_BLOCK:
        KVANT_TRY(capture_filtered(r, n, &v));
        return write_out(r, &v);
    case NODE_MACRO:
        KVANT_TRY(make_macro(r, n, &v));
        return kvant_jinja_define(r, n->name, v);
    case NODE_CALL_BLOCK:
        return run_call_block(r, n);
    case NODE_WITH:
        return run_with(r, n);
    case NODE_BREAK:
        r->jump = JUMP_BREAK;
        return KVANT_OK;
    case NODE_CONTINUE:
        r->jump = JUMP_CONTINUE;
        return KVANT_OK;
    default:
        return kvant_jinja_fail(r, KVANT_EFORMAT, "an expression", "a statement");
    }
}

static kvant_status run_body(run *r, const node *n) {
    KVANT_TRY(kvant_jinja_deeper(r));
    for (; n && r->jump == JUMP_NONE; n = n->next) {
        r->line = n->line;
        KVANT_TRY(kvant_jinja_step(r, 1));
        KVANT_TRY(run_statement(r, n));
    }
    kvant_jinja_leave(r);
    return KVANT_OK;
}

void kvant_template_options_default(kvant_template_options *o) {
    *o = (kvant_template_options){.now = {2000, 1, 1, 0, 0, 0}, .max_steps = DEFAULT_STEPS, .max_output = DEFAULT_OUTPUT};
}

/* The names that the template uses, as far as they were given. */
static kvant_status define_globals(run *r, const value *globals) {
    for (size_t i = 0; i < r->t->names.n; i++) {
        const kvant_jinja_text *name = r->t->names.entries[i].key.as.text;
        const value *v = kvant_jinja_map_find_text(globals->as.map, name->bytes, name->size);
        if (v) KVANT_TRY(kvant_jinja_define(r, name->bytes, *v));
    }
    return KVANT_OK;
}

kvant_status kvant_template_render(const kvant_template *t, kvant_jinja_heap *h, const value *globals,
                                   const kvant_template_options *options, kvant_buffer *out, kvant_error *err) {
    kvant_template_options defaults;
    if (!options) {
        kvant_template_options_default(&defaults);
        options = &defaults;
    }
    if (globals->kind != JINJA_DICT)
        return kvant_fail(err, KVANT_EINVAL, "%s: chat template: found no dict of names, expected one", t->name);
    kvant_jinja_builder b;
    kvant_jinja_builder_init(&b, h);
    b.max = options->max_output;
    run r = {.t = t, .heap = h, .options = options, .err = err, .out = &b, .steps = options->max_steps, .line = 1};
    KVANT_TRY(open_scope(&r, NULL));
    KVANT_TRY(define_globals(&r, globals));
    KVANT_TRY(run_body(&r, t->body));
    if (b.failed) return kvant_jinja_out_of_memory(&r, h->failure);
    kvant_status st = kvant_buffer_append(out, b.data ? b.data : "", b.size);
    return st == KVANT_OK
               ? st
               : kvant_fail(err, st, "%s: chat template: its output does not fit (%s)", t->name, kvant_status_name(st));
}
