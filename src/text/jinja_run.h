// SPDX-License-Identifier: MIT
/* jinja_run.h: a template at work: scopes, calls, and what expressions, statements and built-in things ask of each other. */
#ifndef KVANT_TEXT_JINJA_RUN_H
#define KVANT_TEXT_JINJA_RUN_H

#include "text/jinja_node.h"

#define KVANT_JINJA_MAX_PARAMETERS 6

typedef struct kvant_jinja_variable {
    const char *name; /* interned */
    kvant_jinja_value value;
} kvant_jinja_variable;

typedef struct kvant_jinja_scope {
    struct kvant_jinja_scope *parent;
    kvant_jinja_variable *variables;
    size_t n, room;
} kvant_jinja_scope;

typedef struct kvant_jinja_run {
    const kvant_template *t;
    kvant_jinja_heap *heap;
    const kvant_template_options *options;
    kvant_error *err;
    kvant_jinja_builder *out; /* of the template, or of what captures */
    kvant_jinja_scope *scope;
    kvant_jinja_value captured; /* NODE_CAPTURED */
    uint64_t steps;             /* left */
    int depth, macros, line;
    enum { JUMP_NONE, JUMP_BREAK, JUMP_CONTINUE } jump;
} kvant_jinja_run;

typedef struct kvant_jinja_named {
    const char *name;
    kvant_jinja_value value;
} kvant_jinja_named;

/* A call of something built in: what it is called on (a filter's input, a method's owner, what a test looks at), what was given,
 * and the same by the place of the parameter: JINJA_MISSING where it was not given. */
typedef struct kvant_jinja_call {
    const struct kvant_jinja_builtin *what;
    kvant_jinja_value self;
    const kvant_jinja_value *values;
    size_t n_values;
    const kvant_jinja_named *named;
    size_t n_named;
    kvant_jinja_value arg[KVANT_JINJA_MAX_PARAMETERS];
} kvant_jinja_call;

typedef kvant_status (*kvant_jinja_builtin_fn)(kvant_jinja_run *r, kvant_jinja_call *c, kvant_jinja_value *out);

typedef struct kvant_jinja_builtin {
    const char *name;
    kvant_jinja_builtin_fn fn;
    const char *parameters; /* "old new count"; NULL: it looks at values and named itself */
    size_t n_required;
} kvant_jinja_builtin;

typedef struct kvant_jinja_method {
    const kvant_jinja_builtin *builtin;
    kvant_jinja_value self;
} kvant_jinja_method;

typedef struct kvant_jinja_macro {
    const char *name; /* NULL: the body of a call block */
    const kvant_jinja_node *parameters, *body;
    kvant_jinja_scope *scope; /* where it was written */
    bool uses_caller, takes_more, takes_named;
} kvant_jinja_macro;

typedef struct kvant_jinja_loop {
    kvant_jinja_items *items;
    size_t index;
    int depth;
    bool changed_before;
    kvant_jinja_value changed; /* what loop.changed() saw last */
} kvant_jinja_loop;

/* Sentences: "FILE: chat template, line L: found FOUND, expected EXPECTED". */
kvant_status kvant_jinja_fail(kvant_jinja_run *r, kvant_status st, const char *found, const char *expected);
/* "found a list for NAME, expected EXPECTED" */
kvant_status kvant_jinja_wrong(kvant_jinja_run *r, const char *name, const kvant_jinja_value *v, const char *expected);
kvant_status kvant_jinja_out_of_memory(kvant_jinja_run *r, kvant_status st);
/* KVANT_EFULL when the template has used up its steps. */
kvant_status kvant_jinja_step(kvant_jinja_run *r, uint64_t n);
/* The cost of going over so many bytes. */
kvant_status kvant_jinja_step_bytes(kvant_jinja_run *r, size_t size);
/* For what calls itself: enter before, leave after success. */
kvant_status kvant_jinja_deeper(kvant_jinja_run *r);
static inline void kvant_jinja_leave(kvant_jinja_run *r) { r->depth--; }

/* jinja_eval.c */
kvant_status kvant_jinja_eval(kvant_jinja_run *r, const kvant_jinja_node *n, kvant_jinja_value *out);
kvant_status kvant_jinja_call_value(kvant_jinja_run *r, const kvant_jinja_value *f, kvant_jinja_call *c, kvant_jinja_value *out);
kvant_status kvant_jinja_call_builtin(kvant_jinja_run *r, const kvant_jinja_builtin *b, kvant_jinja_call *c,
                                      kvant_jinja_value *out);
/* KVANT_EUNSUPPORTED: there is no such filter or test. */
kvant_status kvant_jinja_apply_filter(kvant_jinja_run *r, const char *name, size_t size, kvant_jinja_call *c,
                                      kvant_jinja_value *out);
kvant_status kvant_jinja_apply_test(kvant_jinja_run *r, const char *name, size_t size, kvant_jinja_call *c, bool *out);
/* v.name and v[key]; undefined where there is nothing. */
kvant_status kvant_jinja_get_attribute(kvant_jinja_run *r, const kvant_jinja_value *v, const char *name, kvant_jinja_value *out);
kvant_status kvant_jinja_get_item(kvant_jinja_run *r, const kvant_jinja_value *v, const kvant_jinja_value *key,
                                  kvant_jinja_value *out);

/* jinja_statements.c */
kvant_status kvant_jinja_call_macro(kvant_jinja_run *r, const kvant_jinja_macro *m, kvant_jinja_call *c, kvant_jinja_value *out);
kvant_status kvant_jinja_define(kvant_jinja_run *r, const char *name, kvant_jinja_value v);

/* jinja_operators.c */
kvant_status kvant_jinja_binary(kvant_jinja_run *r, kvant_jinja_op op, const kvant_jinja_value *a, const kvant_jinja_value *b,
                                kvant_jinja_value *out);
kvant_status kvant_jinja_negate(kvant_jinja_run *r, const kvant_jinja_value *a, kvant_jinja_value *out);
kvant_status kvant_jinja_compare(kvant_jinja_run *r, kvant_jinja_op op, const kvant_jinja_value *a, const kvant_jinja_value *b,
                                 bool *out);
kvant_status kvant_jinja_equal(kvant_jinja_run *r, const kvant_jinja_value *a, const kvant_jinja_value *b, bool *out);
kvant_status kvant_jinja_contains(kvant_jinja_run *r, const kvant_jinja_value *what, const kvant_jinja_value *in, bool *out);
kvant_status kvant_jinja_slice(kvant_jinja_run *r, const kvant_jinja_value *v, const kvant_jinja_value bounds[3],
                               kvant_jinja_value *out);
/* The first place of a text in another from `from` on, or SIZE_MAX. */
kvant_status kvant_jinja_find_bytes(kvant_jinja_run *r, const char *s, size_t n, size_t from, const char *what, size_t size,
                                    size_t *at);

/* jinja_sequence.c: what can be gone through, as items. An iterator is empty afterwards. `out` may share the value's own items.
 */
kvant_status kvant_jinja_iterate(kvant_jinja_run *r, const kvant_jinja_value *v, kvant_jinja_items *out);
kvant_status kvant_jinja_length(kvant_jinja_run *r, const kvant_jinja_value *v, size_t *out);
kvant_status kvant_jinja_pair(kvant_jinja_run *r, kvant_jinja_value a, kvant_jinja_value b, kvant_jinja_value *out);
kvant_status kvant_jinja_map_view(kvant_jinja_run *r, const kvant_jinja_map *m, const char *view, kvant_jinja_value *out);
/* In place, stable. by: one key for each item, ordered with them. */
kvant_status kvant_jinja_sort(kvant_jinja_run *r, kvant_jinja_items *items, kvant_jinja_value *by, bool reverse);

/* jinja_print.c: str(v), repr(v), json.dumps(v) as Python writes them. */
typedef struct kvant_jinja_json_style {
    const char *indent; /* of one level, or NULL: one line */
    const char *item_separator, *key_separator;
    bool sort_keys, ascii;
} kvant_jinja_json_style;
kvant_status kvant_jinja_print(kvant_jinja_run *r, kvant_jinja_builder *b, const kvant_jinja_value *v);
kvant_status kvant_jinja_print_repr(kvant_jinja_run *r, kvant_jinja_builder *b, const kvant_jinja_value *v);
kvant_status kvant_jinja_print_json(kvant_jinja_run *r, kvant_jinja_builder *b, const kvant_jinja_value *v,
                                    const kvant_jinja_json_style *style, int level);
kvant_status kvant_jinja_to_text(kvant_jinja_run *r, const kvant_jinja_value *v, kvant_jinja_value *out);
kvant_status kvant_jinja_finish(kvant_jinja_run *r, kvant_jinja_builder *b, kvant_jinja_value *out);
#define KVANT_JINJA_FLOAT_BYTES 40
void kvant_jinja_format_float(double d, char out[KVANT_JINJA_FLOAT_BYTES]);
void kvant_jinja_fix_point(char *number); /* a decimal point, whatever the locale writes */

/* jinja_format.c: "..." % args and "...".format(args) */
kvant_status kvant_jinja_percent(kvant_jinja_run *r, const kvant_jinja_text *format, const kvant_jinja_value *args,
                                 kvant_jinja_value *out);
kvant_status kvant_jinja_format(kvant_jinja_run *r, const kvant_jinja_text *format, const kvant_jinja_call *c,
                                kvant_jinja_value *out);

/* jinja_case.c */
typedef enum kvant_jinja_case { CASE_UPPER, CASE_LOWER, CASE_CAPITALIZE, CASE_TITLE, CASE_TITLE_METHOD } kvant_jinja_case;
kvant_status kvant_jinja_change_case(kvant_jinja_run *r, const kvant_jinja_text *t, kvant_jinja_case to, kvant_jinja_value *out);
/* Whether Python shows a character as it is; letters and digits of all scripts. */
bool kvant_jinja_is_printable(uint32_t code);
bool kvant_jinja_is_letter(uint32_t code);
bool kvant_jinja_is_digit(uint32_t code);

/* Tables by name: NULL when there is none. */
const kvant_jinja_builtin *kvant_jinja_find_filter(const char *name, size_t size);
const kvant_jinja_builtin *kvant_jinja_find_list_filter(const char *name, size_t size);
const kvant_jinja_builtin *kvant_jinja_find_test(const char *name, size_t size);
const kvant_jinja_builtin *kvant_jinja_find_function(const char *name);
const kvant_jinja_builtin *kvant_jinja_find_method(const kvant_jinja_value *owner, const char *name);
const kvant_jinja_builtin *kvant_jinja_find_text_method(const char *name);
static inline const kvant_jinja_builtin *kvant_jinja_find_in(const kvant_jinja_builtin *table, size_t n, const char *name,
                                                             size_t size) {
    for (size_t i = 0; i < n; i++)
        if (strlen(table[i].name) == size && memcmp(table[i].name, name, size) == 0) return &table[i];
    return NULL;
}

/* An integer argument, or `fallback` where none (or None) was given. */
kvant_status kvant_jinja_int_arg(kvant_jinja_run *r, const kvant_jinja_call *c, int index, int64_t fallback, int64_t *out);
/* The text of an argument: KVANT_EFORMAT when it is none. */
kvant_status kvant_jinja_text_arg(kvant_jinja_run *r, const kvant_jinja_call *c, int index, const kvant_jinja_text **out);

#endif
