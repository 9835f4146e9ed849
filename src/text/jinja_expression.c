// SPDX-License-Identifier: MIT
/* jinja_expression.c: expressions of templates, from tokens to a tree: one function a level of binding, the loosest first. */
#include "text/jinja_node.h"

typedef kvant_jinja_parser parser;
typedef kvant_jinja_node node;

static bool at_op(const parser *p, const char *s) { return kvant_jinja_at(p, TOKEN_OPERATOR, s); }
static bool at_word(const parser *p, const char *s) { return kvant_jinja_at(p, TOKEN_NAME, s); }
static bool skip_op(parser *p, const char *s) { return kvant_jinja_skip(p, TOKEN_OPERATOR, s); }
static bool skip_word(parser *p, const char *s) { return kvant_jinja_skip(p, TOKEN_NAME, s); }
static kvant_status expect_op(parser *p, const char *s) { return kvant_jinja_expect(p, TOKEN_OPERATOR, s, s); }

static kvant_status parse_unary(parser *p, bool filters, node **out);

/* Wraps *left and what `right` parses into a node with two sides. */
static kvant_status join_sides(parser *p, kvant_jinja_node_kind kind, kvant_jinja_op op, kvant_status (*right)(parser *, node **),
                               node **left) {
    node *n;
    KVANT_TRY(kvant_jinja_new_node(p, kind, &n));
    n->op = op;
    n->a = *left;
    KVANT_TRY(right(p, &n->b));
    *left = n;
    return KVANT_OK;
}

static kvant_status parse_filtered_unary(parser *p, node **out) { return parse_unary(p, true, out); }

static kvant_status parse_power(parser *p, node **out) {
    KVANT_TRY(parse_unary(p, true, out));
    while (skip_op(p, "**"))
        KVANT_TRY(join_sides(p, NODE_BINARY, OP_POW, parse_filtered_unary, out));
    return KVANT_OK;
}

static kvant_status parse_product(parser *p, node **out) {
    KVANT_TRY(parse_power(p, out));
    for (;;) {
        kvant_jinja_op op;
        if (skip_op(p, "*"))
            op = OP_MUL;
        else if (skip_op(p, "/"))
            op = OP_DIV;
        else if (skip_op(p, "//"))
            op = OP_FLOOR_DIV;
        else if (skip_op(p, "%"))
            op = OP_MOD;
        else
            return KVANT_OK;
        KVANT_TRY(join_sides(p, NODE_BINARY, op, parse_power, out));
    }
}

static kvant_status parse_concat(parser *p, node **out) {
    KVANT_TRY(parse_product(p, out));
    if (!at_op(p, "~")) return KVANT_OK;
    node *n, *last = *out;
    KVANT_TRY(kvant_jinja_new_node(p, NODE_CONCAT, &n));
    n->a = *out;
    while (skip_op(p, "~")) {
        KVANT_TRY(parse_product(p, &last->next));
        last = last->next;
    }
    *out = n;
    return KVANT_OK;
}

static kvant_status parse_sum(parser *p, node **out) {
    KVANT_TRY(parse_concat(p, out));
    for (;;) {
        if (skip_op(p, "+"))
            KVANT_TRY(join_sides(p, NODE_BINARY, OP_ADD, parse_concat, out));
        else if (skip_op(p, "-"))
            KVANT_TRY(join_sides(p, NODE_BINARY, OP_SUB, parse_concat, out));
        else
            return KVANT_OK;
    }
}

static bool skip_comparison(parser *p, kvant_jinja_op *op) {
    static const struct {
        const char *text;
        kvant_jinja_op op;
    } OPS[] = {{"==", OP_EQ}, {"!=", OP_NE}, {"<", OP_LT}, {"<=", OP_LE}, {">", OP_GT}, {">=", OP_GE}};
    for (size_t i = 0; i < sizeof OPS / sizeof *OPS; i++) {
        if (!skip_op(p, OPS[i].text)) continue;
        *op = OPS[i].op;
        return true;
    }
    *op = OP_IN;
    if (skip_word(p, "in")) return true;
    const kvant_jinja_token *next = kvant_jinja_peek(p, 1);
    if (!at_word(p, "not") || next->kind != TOKEN_NAME || next->size != 2 || memcmp(next->text, "in", 2) != 0) return false;
    p->at += 2;
    *op = OP_NOT_IN;
    return true;
}

static kvant_status parse_comparison(parser *p, node **out) {
    KVANT_TRY(parse_sum(p, out));
    node *n = NULL, **place = NULL;
    for (kvant_jinja_op op; skip_comparison(p, &op);) {
        if (!n) {
            KVANT_TRY(kvant_jinja_new_node(p, NODE_COMPARE, &n));
            n->a = *out;
            *out = n;
            place = &n->b;
        }
        KVANT_TRY(kvant_jinja_new_node(p, NODE_OPERAND, place));
        (*place)->op = op;
        KVANT_TRY(parse_sum(p, &(*place)->a));
        place = &(*place)->next;
    }
    return KVANT_OK;
}

static kvant_status parse_not(parser *p, node **out) {
    if (!skip_word(p, "not")) return parse_comparison(p, out);
    KVANT_TRY(kvant_jinja_new_node(p, NODE_NOT, out));
    KVANT_TRY(kvant_jinja_enter(p));
    KVANT_TRY(parse_not(p, &(*out)->a));
    p->depth--;
    return KVANT_OK;
}

static kvant_status parse_and(parser *p, node **out) {
    KVANT_TRY(parse_not(p, out));
    while (skip_word(p, "and"))
        KVANT_TRY(join_sides(p, NODE_AND, OP_ADD, parse_not, out));
    return KVANT_OK;
}

static kvant_status parse_or(parser *p, node **out) {
    KVANT_TRY(parse_and(p, out));
    while (skip_word(p, "or"))
        KVANT_TRY(join_sides(p, NODE_OR, OP_ADD, parse_and, out));
    return KVANT_OK;
}

static kvant_status parse_choice(parser *p, node **out) {
    KVANT_TRY(kvant_jinja_enter(p));
    KVANT_TRY(parse_or(p, out));
    while (skip_word(p, "if")) {
        node *n;
        KVANT_TRY(kvant_jinja_new_node(p, NODE_CHOICE, &n));
        n->a = *out;
        KVANT_TRY(parse_or(p, &n->b));
        if (skip_word(p, "else")) KVANT_TRY(parse_choice(p, &n->c));
        *out = n;
    }
    p->depth--;
    return KVANT_OK;
}

kvant_status kvant_jinja_parse_expression(parser *p, node **out) { return parse_choice(p, out); }

static bool tuple_ends(const parser *p) {
    return kvant_jinja_at(p, TOKEN_OUTPUT_END, NULL) || kvant_jinja_at(p, TOKEN_BLOCK_END, NULL) || at_op(p, ")") ||
           at_word(p, "in");
}

kvant_status kvant_jinja_parse_tuple(parser *p, bool conditional, node **out) {
    node *first = NULL, **place = &first;
    bool comma = false;
    KVANT_TRY(kvant_jinja_enter(p));
    while (!tuple_ends(p)) {
        KVANT_TRY(conditional ? parse_choice(p, place) : parse_or(p, place));
        place = &(*place)->next;
        if (!skip_op(p, ",")) break;
        comma = true;
    }
    p->depth--;
    if (!first) return kvant_jinja_unexpected(p, "an expression");
    *out = first;
    if (!comma) return KVANT_OK;
    KVANT_TRY(kvant_jinja_new_node(p, NODE_TUPLE, out));
    (*out)->a = first;
    return KVANT_OK;
}

static kvant_status parse_list(parser *p, node **out) {
    KVANT_TRY(kvant_jinja_new_node(p, NODE_LIST, out));
    node **place = &(*out)->a;
    while (!at_op(p, "]")) {
        KVANT_TRY(parse_choice(p, place));
        place = &(*place)->next;
        if (!skip_op(p, ",")) break;
    }
    return expect_op(p, "]");
}

static kvant_status parse_dict(parser *p, node **out) {
    KVANT_TRY(kvant_jinja_new_node(p, NODE_DICT, out));
    node **place = &(*out)->a;
    while (!at_op(p, "}")) {
        KVANT_TRY(parse_choice(p, place));
        KVANT_TRY(expect_op(p, ":"));
        place = &(*place)->next;
        KVANT_TRY(parse_choice(p, place));
        place = &(*place)->next;
        if (!skip_op(p, ",")) break;
    }
    return expect_op(p, "}");
}

static kvant_status parse_word(parser *p, node **out) {
    static const char *const TRUE_NAMES[] = {"true", "True"}, *const FALSE_NAMES[] = {"false", "False"},
                             *const NONE_NAMES[] = {"none", "None"};
    KVANT_TRY(kvant_jinja_new_node(p, NODE_CONST, out));
    for (int i = 0; i < 2; i++) {
        bool yes = skip_word(p, TRUE_NAMES[i]);
        if (yes || skip_word(p, FALSE_NAMES[i])) {
            (*out)->constant = kvant_jinja_bool(yes);
            return KVANT_OK;
        }
        if (skip_word(p, NONE_NAMES[i])) {
            (*out)->constant = kvant_jinja_none();
            return KVANT_OK;
        }
    }
    (*out)->kind = NODE_NAME;
    return kvant_jinja_parse_name(p, &(*out)->name);
}

static kvant_status parse_literal(parser *p, node **out) {
    KVANT_TRY(kvant_jinja_new_node(p, NODE_CONST, out));
    bool text = kvant_jinja_at(p, TOKEN_STRING, NULL);
    KVANT_TRY(kvant_jinja_token_value(p->t, kvant_jinja_peek(p, 0), &(*out)->constant, p->err));
    p->at++;
    if (!text || !kvant_jinja_at(p, TOKEN_STRING, NULL)) return KVANT_OK;
    kvant_jinja_builder b; /* strings side by side are one */
    kvant_jinja_builder_init(&b, p->t->heap);
    kvant_jinja_add(&b, (*out)->constant.as.text->bytes, (*out)->constant.as.text->size);
    for (kvant_jinja_value v; kvant_jinja_at(p, TOKEN_STRING, NULL); p->at++) {
        KVANT_TRY(kvant_jinja_token_value(p->t, kvant_jinja_peek(p, 0), &v, p->err));
        kvant_jinja_add(&b, v.as.text->bytes, v.as.text->size);
    }
    kvant_status st = kvant_jinja_builder_finish(&b, &(*out)->constant);
    return st == KVANT_OK ? st : kvant_fail(p->err, st, "%s: chat template: no memory for its strings", p->t->name);
}

kvant_status kvant_jinja_parse_primary(parser *p, node **out) {
    if (kvant_jinja_at(p, TOKEN_NAME, NULL)) return parse_word(p, out);
    if (kvant_jinja_at(p, TOKEN_STRING, NULL) || kvant_jinja_at(p, TOKEN_INT, NULL) || kvant_jinja_at(p, TOKEN_FLOAT, NULL))
        return parse_literal(p, out);
    if (skip_op(p, "[")) return parse_list(p, out);
    if (skip_op(p, "{")) return parse_dict(p, out);
    if (!skip_op(p, "(")) return kvant_jinja_unexpected(p, "an expression");
    if (at_op(p, ")"))
        KVANT_TRY(kvant_jinja_new_node(p, NODE_TUPLE, out));
    else
        KVANT_TRY(kvant_jinja_parse_tuple(p, true, out));
    return expect_op(p, ")");
}

/* (a, b, name=c): n->b and n->c. */
static kvant_status parse_arguments(parser *p, node *n) {
    node **place = &n->b, **named = &n->c;
    KVANT_TRY(expect_op(p, "("));
    while (!at_op(p, ")")) {
        const kvant_jinja_token *next = kvant_jinja_peek(p, 1);
        if (at_op(p, "*") || at_op(p, "**"))
            return kvant_fail(p->err, KVANT_EUNSUPPORTED,
                              "%s: chat template, line %d: found arguments from a list or dict (* or **), expected them "
                              "one by one",
                              p->t->name, n->line);
        if (kvant_jinja_at(p, TOKEN_NAME, NULL) && next->kind == TOKEN_OPERATOR && next->size == 1 && *next->text == '=') {
            KVANT_TRY(kvant_jinja_new_node(p, NODE_KEYWORD, named));
            KVANT_TRY(kvant_jinja_parse_name(p, &(*named)->name));
            p->at++;
            KVANT_TRY(parse_choice(p, &(*named)->a));
            named = &(*named)->next;
        } else {
            if (n->c) return kvant_jinja_unexpected(p, "a named argument behind a named argument");
            KVANT_TRY(parse_choice(p, place));
            place = &(*place)->next;
        }
        if (!skip_op(p, ",")) break;
    }
    return expect_op(p, ")");
}

static bool at_slice_end(const parser *p) { return at_op(p, "]") || at_op(p, ","); }

static kvant_status parse_index(parser *p, node **out) {
    node *start = NULL;
    if (!at_op(p, ":")) {
        KVANT_TRY(parse_choice(p, &start));
        *out = start;
        if (!at_op(p, ":")) return KVANT_OK;
    }
    p->at++;
    KVANT_TRY(kvant_jinja_new_node(p, NODE_SLICE, out));
    (*out)->a = start;
    if (!at_op(p, ":") && !at_slice_end(p)) KVANT_TRY(parse_choice(p, &(*out)->b));
    if (skip_op(p, ":") && !at_slice_end(p)) KVANT_TRY(parse_choice(p, &(*out)->c));
    return KVANT_OK;
}

static kvant_status parse_item(parser *p, node *n) {
    KVANT_TRY(parse_index(p, &n->b));
    if (at_op(p, ",")) {
        node *tuple, *last = n->b;
        KVANT_TRY(kvant_jinja_new_node(p, NODE_TUPLE, &tuple));
        tuple->a = n->b;
        while (skip_op(p, ",") && !at_op(p, "]")) {
            KVANT_TRY(parse_choice(p, &last->next));
            last = last->next;
        }
        n->b = tuple;
    }
    return expect_op(p, "]");
}

kvant_status kvant_jinja_parse_postfix(parser *p, node **out) {
    for (node *n;; *out = n) {
        if (at_op(p, "(")) {
            KVANT_TRY(kvant_jinja_new_node(p, NODE_CALL, &n));
            n->a = *out;
            KVANT_TRY(parse_arguments(p, n));
        } else if (skip_op(p, "[")) {
            KVANT_TRY(kvant_jinja_new_node(p, NODE_ITEM, &n));
            n->a = *out;
            KVANT_TRY(parse_item(p, n));
        } else if (skip_op(p, ".")) {
            bool number = kvant_jinja_at(p, TOKEN_INT, NULL);
            KVANT_TRY(kvant_jinja_new_node(p, number ? NODE_ITEM : NODE_ATTRIBUTE, &n));
            n->a = *out;
            KVANT_TRY(number ? parse_literal(p, &n->b) : kvant_jinja_parse_name(p, &n->name));
        } else {
            return KVANT_OK;
        }
    }
}

static kvant_status parse_dotted_name(parser *p, const char **out) {
    KVANT_TRY(kvant_jinja_parse_name(p, out));
    while (skip_op(p, "."))
        KVANT_TRY(kvant_jinja_parse_name(p, out));
    return KVANT_OK;
}

static bool begins_test_argument(const parser *p) {
    const kvant_jinja_token *t = kvant_jinja_peek(p, 0);
    if (t->kind == TOKEN_NAME) return !at_word(p, "else") && !at_word(p, "or") && !at_word(p, "and");
    return t->kind == TOKEN_STRING || t->kind == TOKEN_INT || t->kind == TOKEN_FLOAT || at_op(p, "[") || at_op(p, "{");
}

static kvant_status parse_test(parser *p, node **out) {
    bool negated = skip_word(p, "not");
    node *n;
    KVANT_TRY(kvant_jinja_new_node(p, NODE_TEST, &n));
    n->a = *out;
    KVANT_TRY(parse_dotted_name(p, &n->name));
    if (at_op(p, "(")) {
        KVANT_TRY(parse_arguments(p, n));
    } else if (begins_test_argument(p)) {
        if (at_word(p, "is")) return kvant_jinja_unexpected(p, "one test, not a chain of them");
        KVANT_TRY(kvant_jinja_parse_primary(p, &n->b));
        KVANT_TRY(kvant_jinja_parse_postfix(p, &n->b));
    }
    *out = n;
    if (!negated) return KVANT_OK;
    KVANT_TRY(kvant_jinja_new_node(p, NODE_NOT, out));
    (*out)->a = n;
    return KVANT_OK;
}

kvant_status kvant_jinja_parse_filters(parser *p, node **out, bool bar_first) {
    for (node *n;; bar_first = true) {
        if (!bar_first || skip_op(p, "|")) {
            KVANT_TRY(kvant_jinja_new_node(p, NODE_FILTER, &n));
            n->a = *out;
            KVANT_TRY(parse_dotted_name(p, &n->name));
            if (at_op(p, "(")) KVANT_TRY(parse_arguments(p, n));
            *out = n;
        } else if (skip_word(p, "is")) {
            KVANT_TRY(parse_test(p, out));
        } else if (at_op(p, "(")) {
            KVANT_TRY(kvant_jinja_new_node(p, NODE_CALL, &n));
            n->a = *out;
            KVANT_TRY(parse_arguments(p, n));
            *out = n;
        } else {
            return KVANT_OK;
        }
    }
}

static kvant_status parse_unary(parser *p, bool filters, node **out) {
    bool minus = at_op(p, "-");
    KVANT_TRY(kvant_jinja_enter(p));
    if (minus || at_op(p, "+")) {
        p->at++;
        KVANT_TRY(kvant_jinja_new_node(p, minus ? NODE_NEGATE : NODE_PLUS, out));
        KVANT_TRY(parse_unary(p, false, &(*out)->a));
    } else {
        KVANT_TRY(kvant_jinja_parse_primary(p, out));
    }
    KVANT_TRY(kvant_jinja_parse_postfix(p, out));
    if (filters) KVANT_TRY(kvant_jinja_parse_filters(p, out, true));
    p->depth--;
    return KVANT_OK;
}
