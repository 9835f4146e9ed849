// SPDX-License-Identifier: MIT
/* jinja_parser.c: statements of templates, and what parsing is made of. Expressions: jinja_expression.c. */
#include "text/jinja_node.h"

#define MAX_TEMPLATE_BYTES ((size_t)4 << 20)
#define MAX_PARSE_BYTES ((size_t)512 << 20)
#define MAX_DEPTH 200

typedef kvant_jinja_parser parser;
typedef kvant_jinja_node node;

const kvant_jinja_token *kvant_jinja_peek(const parser *p, size_t ahead) {
    size_t last = p->t->n_tokens - 1;
    return &p->t->tokens[ahead > last - p->at ? last : p->at + ahead];
}

bool kvant_jinja_at(const parser *p, kvant_jinja_token_kind kind, const char *text) {
    const kvant_jinja_token *t = kvant_jinja_peek(p, 0);
    return t->kind == kind && (!text || (t->size == strlen(text) && memcmp(t->text, text, t->size) == 0));
}

bool kvant_jinja_skip(parser *p, kvant_jinja_token_kind kind, const char *text) {
    if (!kvant_jinja_at(p, kind, text)) return false;
    p->at++;
    return true;
}

kvant_status kvant_jinja_unexpected(const parser *p, const char *expected) {
    const kvant_jinja_token *t = kvant_jinja_peek(p, 0);
    if (t->kind == TOKEN_END)
        return kvant_fail(p->err, KVANT_EFORMAT, "%s: chat template, line %d: found its end, expected %s", p->t->name, t->line,
                          expected);
    return kvant_fail(p->err, KVANT_EFORMAT, "%s: chat template, line %d: found \"%.*s\", expected %s", p->t->name, t->line,
                      t->size > 40 ? 40 : (int)t->size, t->text, expected);
}

kvant_status kvant_jinja_expect(parser *p, kvant_jinja_token_kind kind, const char *text, const char *expected) {
    return kvant_jinja_skip(p, kind, text) ? KVANT_OK : kvant_jinja_unexpected(p, expected);
}

static kvant_status no_memory(const parser *p) {
    return kvant_fail(p->err, p->t->heap->failure, "%s: chat template: no memory for its tree", p->t->name);
}

kvant_status kvant_jinja_new_node(parser *p, kvant_jinja_node_kind kind, node **out) {
    node *n = kvant_jinja_alloc(p->t->heap, 1, sizeof *n);
    if (!n) return no_memory(p);
    n->kind = kind;
    n->line = kvant_jinja_peek(p, 0)->line;
    *out = n;
    return KVANT_OK;
}

kvant_status kvant_jinja_enter(parser *p) {
    if (++p->depth <= MAX_DEPTH) return KVANT_OK;
    return kvant_fail(p->err, KVANT_EFULL,
                      "%s: chat template, line %d: found more than %d levels of expressions and blocks, expected fewer",
                      p->t->name, kvant_jinja_peek(p, 0)->line, MAX_DEPTH);
}

kvant_status kvant_jinja_intern(parser *p, const char *text, size_t size, const char **out) {
    const kvant_jinja_value *known = kvant_jinja_map_find_text(&p->t->names, text, size);
    if (!known) {
        kvant_jinja_value key;
        char *copy = kvant_jinja_alloc(p->t->heap, size + 1, 1);
        if (!copy) return no_memory(p);
        memcpy(copy, text, size);
        if (kvant_jinja_share(p->t->heap, copy, size, &key) != KVANT_OK ||
            kvant_jinja_map_set(p->t->heap, &p->t->names, key, key) != KVANT_OK)
            return no_memory(p);
        known = kvant_jinja_map_find_text(&p->t->names, text, size);
    }
    *out = known->as.text->bytes;
    return KVANT_OK;
}

kvant_status kvant_jinja_parse_name(parser *p, const char **out) {
    if (!kvant_jinja_at(p, TOKEN_NAME, NULL)) return kvant_jinja_unexpected(p, "a name");
    const kvant_jinja_token *t = kvant_jinja_peek(p, 0);
    p->at++;
    return kvant_jinja_intern(p, t->text, t->size, out);
}

static bool at_word(const parser *p, const char *s) { return kvant_jinja_at(p, TOKEN_NAME, s); }
static bool skip_word(parser *p, const char *s) { return kvant_jinja_skip(p, TOKEN_NAME, s); }
static bool skip_op(parser *p, const char *s) { return kvant_jinja_skip(p, TOKEN_OPERATOR, s); }
static kvant_status expect_op(parser *p, const char *s) { return kvant_jinja_expect(p, TOKEN_OPERATOR, s, s); }
static kvant_status expect_block_end(parser *p) { return kvant_jinja_expect(p, TOKEN_BLOCK_END, NULL, "%}"); }

static kvant_status parse_body(parser *p, const char *const *ends, node **out);

/* The body of a block that ends with {% end %}. */
static kvant_status parse_block_body(parser *p, const char *end, node **out) {
    const char *ends[] = {end, NULL};
    KVANT_TRY(expect_block_end(p));
    KVANT_TRY(parse_body(p, ends, out));
    p->at++;
    return expect_block_end(p);
}

/* x, or x, y: what a loop or a set gives values to. */
static kvant_status parse_target(parser *p, bool attributes, node **out) {
    node *first = NULL, **place = &first;
    bool tuple = false;
    do {
        if (tuple && !kvant_jinja_at(p, TOKEN_NAME, NULL)) {
            if (!skip_op(p, "(")) break;
            KVANT_TRY(kvant_jinja_enter(p));
            KVANT_TRY(parse_target(p, false, place));
            p->depth--;
            KVANT_TRY(expect_op(p, ")"));
        } else if (!tuple && skip_op(p, "(")) {
            KVANT_TRY(kvant_jinja_enter(p));
            KVANT_TRY(parse_target(p, false, place));
            p->depth--;
            KVANT_TRY(expect_op(p, ")"));
        } else {
            KVANT_TRY(kvant_jinja_new_node(p, NODE_NAME, place));
            KVANT_TRY(kvant_jinja_parse_name(p, &(*place)->name));
        }
        if (!tuple && attributes && skip_op(p, ".")) {
            KVANT_TRY(kvant_jinja_new_node(p, NODE_ATTRIBUTE, out));
            (*out)->a = first;
            return kvant_jinja_parse_name(p, &(*out)->name);
        }
        place = &(*place)->next;
        if (!skip_op(p, ",")) break;
        tuple = true;
    } while (true);
    *out = first;
    if (!tuple) return KVANT_OK;
    KVANT_TRY(kvant_jinja_new_node(p, NODE_TUPLE, out));
    (*out)->a = first;
    return KVANT_OK;
}

static kvant_status parse_if(parser *p, node **out) {
    static const char *const ENDS[] = {"elif", "else", "endif", NULL};
    KVANT_TRY(kvant_jinja_new_node(p, NODE_IF, out));
    node **place = &(*out)->a;
    for (bool conditional = true;;) {
        KVANT_TRY(kvant_jinja_new_node(p, NODE_BRANCH, place));
        if (conditional) KVANT_TRY(kvant_jinja_parse_tuple(p, false, &(*place)->a));
        KVANT_TRY(expect_block_end(p));
        KVANT_TRY(parse_body(p, conditional ? ENDS : ENDS + 2, &(*place)->d));
        place = &(*place)->next;
        if (skip_word(p, "endif")) return expect_block_end(p);
        conditional = at_word(p, "elif");
        p->at++;
    }
}

static kvant_status parse_for(parser *p, node **out) {
    static const char *const ENDS[] = {"else", "endfor", NULL};
    KVANT_TRY(kvant_jinja_new_node(p, NODE_FOR, out));
    node *n = *out;
    KVANT_TRY(parse_target(p, false, &n->a));
    KVANT_TRY(kvant_jinja_expect(p, TOKEN_NAME, "in", "in"));
    KVANT_TRY(kvant_jinja_parse_tuple(p, false, &n->b));
    if (skip_word(p, "if")) KVANT_TRY(kvant_jinja_parse_expression(p, &n->c));
    if (at_word(p, "recursive"))
        return kvant_fail(p->err, KVANT_EUNSUPPORTED,
                          "%s: chat template, line %d: found a recursive loop, expected a macro that calls itself", p->t->name,
                          n->line);
    KVANT_TRY(expect_block_end(p));
    p->loops++;
    KVANT_TRY(parse_body(p, ENDS, &n->d));
    p->loops--;
    if (skip_word(p, "else")) return parse_block_body(p, "endfor", &n->e);
    p->at++;
    return expect_block_end(p);
}

static kvant_status parse_captured(parser *p, node **out) {
    KVANT_TRY(kvant_jinja_new_node(p, NODE_CAPTURED, out));
    return KVANT_OK;
}

static kvant_status parse_set(parser *p, node **out) {
    KVANT_TRY(kvant_jinja_new_node(p, NODE_SET, out));
    node *n = *out;
    KVANT_TRY(parse_target(p, true, &n->a));
    if (skip_op(p, "=")) {
        KVANT_TRY(kvant_jinja_parse_tuple(p, true, &n->b));
        return expect_block_end(p);
    }
    n->kind = NODE_SET_BLOCK;
    KVANT_TRY(parse_captured(p, &n->b));
    KVANT_TRY(kvant_jinja_parse_filters(p, &n->b, true));
    return parse_block_body(p, "endset", &n->d);
}

static kvant_status parse_parameters(parser *p, node **out) {
    KVANT_TRY(expect_op(p, "("));
    while (!kvant_jinja_at(p, TOKEN_OPERATOR, ")")) {
        KVANT_TRY(kvant_jinja_new_node(p, NODE_PARAMETER, out));
        KVANT_TRY(kvant_jinja_parse_name(p, &(*out)->name));
        if (skip_op(p, "=")) KVANT_TRY(kvant_jinja_parse_expression(p, &(*out)->a));
        out = &(*out)->next;
        if (!skip_op(p, ",")) break;
    }
    return expect_op(p, ")");
}

/* A body that loops outside do not reach into. */
static kvant_status parse_own_body(parser *p, const char *end, node **out) {
    int loops = p->loops;
    p->loops = 0;
    KVANT_TRY(parse_block_body(p, end, out));
    p->loops = loops;
    return KVANT_OK;
}

static kvant_status parse_macro(parser *p, node **out) {
    KVANT_TRY(kvant_jinja_new_node(p, NODE_MACRO, out));
    KVANT_TRY(kvant_jinja_parse_name(p, &(*out)->name));
    KVANT_TRY(parse_parameters(p, &(*out)->a));
    return parse_own_body(p, "endmacro", &(*out)->d);
}

static kvant_status parse_call_block(parser *p, node **out) {
    KVANT_TRY(kvant_jinja_new_node(p, NODE_CALL_BLOCK, out));
    node *n = *out;
    if (kvant_jinja_at(p, TOKEN_OPERATOR, "(")) KVANT_TRY(parse_parameters(p, &n->a));
    KVANT_TRY(kvant_jinja_parse_expression(p, &n->b));
    if (n->b->kind != NODE_CALL) return kvant_jinja_unexpected(p, "the call of a macro");
    return parse_own_body(p, "endcall", &n->d);
}

static kvant_status parse_filter_block(parser *p, node **out) {
    KVANT_TRY(kvant_jinja_new_node(p, NODE_FILTER_BLOCK, out));
    KVANT_TRY(parse_captured(p, &(*out)->b));
    KVANT_TRY(kvant_jinja_parse_filters(p, &(*out)->b, false));
    return parse_block_body(p, "endfilter", &(*out)->d);
}

static kvant_status parse_with(parser *p, node **out) {
    KVANT_TRY(kvant_jinja_new_node(p, NODE_WITH, out));
    node *n = *out, **place = &n->a;
    while (!kvant_jinja_at(p, TOKEN_BLOCK_END, NULL)) {
        if (n->a) KVANT_TRY(expect_op(p, ","));
        KVANT_TRY(kvant_jinja_new_node(p, NODE_SET, place));
        KVANT_TRY(kvant_jinja_new_node(p, NODE_NAME, &(*place)->a));
        KVANT_TRY(kvant_jinja_parse_name(p, &(*place)->a->name));
        KVANT_TRY(expect_op(p, "="));
        KVANT_TRY(kvant_jinja_parse_expression(p, &(*place)->b));
        place = &(*place)->next;
    }
    return parse_block_body(p, "endwith", &n->d);
}

/* The part of an answer that training looks at; for a prompt it is its body. */
static kvant_status parse_generation(parser *p, node **out) {
    KVANT_TRY(kvant_jinja_new_node(p, NODE_WITH, out));
    return parse_block_body(p, "endgeneration", &(*out)->d);
}

static kvant_status parse_jump(parser *p, kvant_jinja_node_kind kind, node **out) {
    if (!p->loops)
        return kvant_fail(p->err, KVANT_EFORMAT, "%s: chat template, line %d: found %s outside a loop, expected it in one",
                          p->t->name, kvant_jinja_peek(p, 0)->line, kind == NODE_BREAK ? "break" : "continue");
    KVANT_TRY(kvant_jinja_new_node(p, kind, out));
    return expect_block_end(p);
}

static kvant_status parse_statement(parser *p, node **out) {
    const kvant_jinja_token *t = kvant_jinja_peek(p, 0);
    if (skip_word(p, "if")) return parse_if(p, out);
    if (skip_word(p, "for")) return parse_for(p, out);
    if (skip_word(p, "set")) return parse_set(p, out);
    if (skip_word(p, "macro")) return parse_macro(p, out);
    if (skip_word(p, "call")) return parse_call_block(p, out);
    if (skip_word(p, "filter")) return parse_filter_block(p, out);
    if (skip_word(p, "with")) return parse_with(p, out);
    if (skip_word(p, "generation")) return parse_generation(p, out);
    if (skip_word(p, "break")) return parse_jump(p, NODE_BREAK, out);
    if (skip_word(p, "continue")) return parse_jump(p, NODE_CONTINUE, out);
    if (t->kind != TOKEN_NAME || (t->size > 3 && memcmp(t->text, "end", 3) == 0) || at_word(p, "else") || at_word(p, "elif"))
        return kvant_jinja_unexpected(p, "a statement");
    return kvant_fail(p->err, KVANT_EUNSUPPORTED,
                      "%s: chat template, line %d: found the statement \"%.*s\", expected one of if, for, set, macro, call, "
                      "filter, with, generation, break, continue and raw",
                      p->t->name, t->line, t->size > 40 ? 40 : (int)t->size, t->text);
}

/* Until {% and one of `ends` (which is not taken), or to the template's end when ends is NULL. */
static kvant_status parse_body(parser *p, const char *const *ends, node **out) {
    KVANT_TRY(kvant_jinja_enter(p));
    for (;;) {
        const kvant_jinja_token *t = kvant_jinja_peek(p, 0);
        if (t->kind == TOKEN_END) {
            if (ends) return kvant_jinja_unexpected(p, ends[0]);
            break;
        }
        p->at++;
        if (t->kind == TOKEN_TEXT) {
            KVANT_TRY(kvant_jinja_new_node(p, NODE_TEXT, out));
            if (kvant_jinja_share(p->t->heap, t->text, t->size, &(*out)->constant) != KVANT_OK) return no_memory(p);
        } else if (t->kind == TOKEN_OUTPUT_BEGIN) {
            KVANT_TRY(kvant_jinja_new_node(p, NODE_OUTPUT, out));
            KVANT_TRY(kvant_jinja_parse_tuple(p, true, &(*out)->a));
            KVANT_TRY(kvant_jinja_expect(p, TOKEN_OUTPUT_END, NULL, "}}"));
        } else {
            bool ended = false;
            for (int i = 0; ends && ends[i]; i++)
                ended = ended || at_word(p, ends[i]);
            if (ended) break;
            KVANT_TRY(parse_statement(p, out));
        }
        out = &(*out)->next;
    }
    p->depth--;
    return KVANT_OK;
}

/* Line ends become \n, and the last one is not part of the template. */
static kvant_status copy_text(kvant_template *t, const char *text, size_t size) {
    char *copy = kvant_jinja_alloc(t->heap, size + 1, 1);
    if (!copy) return t->heap->failure;
    size_t n = 0;
    for (size_t i = 0; i < size; i++) {
        copy[n++] = text[i] == '\r' ? '\n' : text[i];
        if (text[i] == '\r' && i + 1 < size && text[i + 1] == '\n') i++;
    }
    if (n && copy[n - 1] == '\n') n--;
    t->text = copy;
    t->size = n;
    return KVANT_OK;
}

static kvant_status build(kvant_template *t, const char *name, const char *text, size_t size, kvant_error *err) {
    char *copy = kvant_jinja_alloc(t->heap, strlen(name) + 1, 1);
    if (copy) memcpy(copy, name, strlen(name) + 1);
    t->name = copy;
    if (!copy || copy_text(t, text, size) != KVANT_OK)
        return kvant_fail(err, t->heap->failure, "%s: chat template: no memory for its text", name);
    KVANT_TRY(kvant_jinja_tokenize(t, err));
    parser p = {.t = t, .err = err};
    return parse_body(&p, NULL, &t->body);
}

kvant_status kvant_template_parse(const char *name, const char *text, size_t size, kvant_template **out, kvant_error *err) {
    if (size > MAX_TEMPLATE_BYTES)
        return kvant_fail(err, KVANT_EFULL, "%s: chat template: found %zu bytes, expected at most %zu", name, size,
                          MAX_TEMPLATE_BYTES);
    kvant_template *t = kvant_alloc(1, sizeof *t);
    if (!t || kvant_jinja_heap_create(MAX_PARSE_BYTES, &t->heap) != KVANT_OK) {
        kvant_free(t);
        return kvant_fail(err, KVANT_ENOMEM, "%s: chat template: out of memory", name);
    }
    kvant_status st = build(t, name, text, size, err);
    if (st != KVANT_OK) {
        kvant_template_destroy(t);
        return st;
    }
    *out = t;
    return KVANT_OK;
}

void kvant_template_destroy(kvant_template *t) {
    if (!t) return;
    kvant_jinja_heap_destroy(t->heap);
    kvant_free(t);
}
