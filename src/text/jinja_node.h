// SPDX-License-Identifier: MIT
/* jinja_node.h: a template as text, as tokens and as a tree. Siblings are chained by `next`; names are interned, so that two
 * equal names of one template are one pointer. */
#ifndef KVANT_TEXT_JINJA_NODE_H
#define KVANT_TEXT_JINJA_NODE_H

#include "text/jinja_value.h"

typedef enum kvant_jinja_token_kind {
    TOKEN_END,
    TOKEN_TEXT,
    TOKEN_OUTPUT_BEGIN,
    TOKEN_OUTPUT_END,
    TOKEN_BLOCK_BEGIN,
    TOKEN_BLOCK_END,
    TOKEN_NAME,
    TOKEN_STRING, /* without its quotes, escapes as written */
    TOKEN_INT,
    TOKEN_FLOAT,
    TOKEN_OPERATOR
} kvant_jinja_token_kind;

typedef struct kvant_jinja_token {
    kvant_jinja_token_kind kind;
    int line;
    const char *text;
    size_t size;
} kvant_jinja_token;

typedef enum kvant_jinja_node_kind {
    /* expressions */
    NODE_CONST,     /* constant */
    NODE_NAME,      /* name */
    NODE_LIST,      /* a: elements */
    NODE_TUPLE,     /* a: elements */
    NODE_DICT,      /* a: key, value, key, value ... */
    NODE_BINARY,    /* op, a, b */
    NODE_AND,       /* a, b */
    NODE_OR,        /* a, b */
    NODE_NOT,       /* a */
    NODE_NEGATE,    /* a */
    NODE_PLUS,      /* a */
    NODE_COMPARE,   /* a, b: NODE_OPERANDs */
    NODE_OPERAND,   /* op, a */
    NODE_CONCAT,    /* a: two or more */
    NODE_CHOICE,    /* a if b else c (or NULL) */
    NODE_ATTRIBUTE, /* a.name */
    NODE_ITEM,      /* a[b] */
    NODE_SLICE,     /* as b of NODE_ITEM: a:b:c, each may be NULL */
    NODE_CALL,      /* a(b..., c...); c: NODE_KEYWORDs */
    NODE_KEYWORD,   /* name=a */
    NODE_FILTER,    /* a | name(b..., c...) */
    NODE_TEST,      /* a is name(b..., c...) */
    NODE_CAPTURED,  /* what a set or filter block wrote */
    /* statements */
    NODE_TEXT,         /* constant */
    NODE_OUTPUT,       /* a */
    NODE_IF,           /* a: NODE_BRANCHes */
    NODE_BRANCH,       /* a: condition or NULL, d: body */
    NODE_FOR,          /* a: target, b: what, c: condition or NULL, d: body, e: else */
    NODE_SET,          /* a: target, b: value */
    NODE_SET_BLOCK,    /* a: target, b: filters around NODE_CAPTURED, d: body */
    NODE_MACRO,        /* name, a: NODE_PARAMETERs, d: body */
    NODE_PARAMETER,    /* name, a: default or NULL */
    NODE_CALL_BLOCK,   /* b: call, a: parameters of caller, d: body */
    NODE_FILTER_BLOCK, /* b: filters around NODE_CAPTURED, d: body */
    NODE_WITH,         /* a: NODE_SETs, d: body */
    NODE_BREAK,
    NODE_CONTINUE
} kvant_jinja_node_kind;

typedef enum kvant_jinja_op {
    OP_ADD,
    OP_SUB,
    OP_MUL,
    OP_DIV,
    OP_FLOOR_DIV,
    OP_MOD,
    OP_POW,
    OP_EQ,
    OP_NE,
    OP_LT,
    OP_LE,
    OP_GT,
    OP_GE,
    OP_IN,
    OP_NOT_IN
} kvant_jinja_op;

typedef struct kvant_jinja_node {
    kvant_jinja_node_kind kind;
    kvant_jinja_op op;
    int line;
    const char *name;
    kvant_jinja_value constant;
    struct kvant_jinja_node *a, *b, *c, *d, *e, *next;
} kvant_jinja_node;

struct kvant_template {
    kvant_jinja_heap *heap; /* owns all below */
    const char *name, *text;
    size_t size;
    kvant_jinja_token *tokens;
    size_t n_tokens;
    kvant_jinja_map names; /* interned: the key's bytes */
    kvant_jinja_node *body;
};

typedef struct kvant_jinja_parser {
    kvant_template *t;
    kvant_error *err;
    size_t at; /* in t->tokens */
    int depth, loops;
} kvant_jinja_parser;

/* Fills t->tokens from t->text. */
kvant_status kvant_jinja_tokenize(kvant_template *t, kvant_error *err);
/* The value of a string's or number's token. */
kvant_status kvant_jinja_token_value(kvant_template *t, const kvant_jinja_token *token, kvant_jinja_value *out, kvant_error *err);

/* What both halves of the parser use. */
const kvant_jinja_token *kvant_jinja_peek(const kvant_jinja_parser *p, size_t ahead);
bool kvant_jinja_at(const kvant_jinja_parser *p, kvant_jinja_token_kind kind, const char *text); /* text NULL: any */
bool kvant_jinja_skip(kvant_jinja_parser *p, kvant_jinja_token_kind kind, const char *text);
/* KVANT_EFORMAT: something else is there; expected: for the sentence. */
kvant_status kvant_jinja_expect(kvant_jinja_parser *p, kvant_jinja_token_kind kind, const char *text, const char *expected);
kvant_status kvant_jinja_unexpected(const kvant_jinja_parser *p, const char *expected);
kvant_status kvant_jinja_new_node(kvant_jinja_parser *p, kvant_jinja_node_kind kind, kvant_jinja_node **out);
kvant_status kvant_jinja_intern(kvant_jinja_parser *p, const char *text, size_t size, const char **out);
kvant_status kvant_jinja_parse_name(kvant_jinja_parser *p, const char **out);
kvant_status kvant_jinja_enter(kvant_jinja_parser *p);

/* jinja_expression.c. A tuple may stand without parentheses; conditional: `x if y` is part of it. */
kvant_status kvant_jinja_parse_expression(kvant_jinja_parser *p, kvant_jinja_node **out);
kvant_status kvant_jinja_parse_tuple(kvant_jinja_parser *p, bool conditional, kvant_jinja_node **out);
kvant_status kvant_jinja_parse_primary(kvant_jinja_parser *p, kvant_jinja_node **out);
/* `.x`, `[x]`, `(x)` behind *node; then `|x` and `is x`. */
kvant_status kvant_jinja_parse_postfix(kvant_jinja_parser *p, kvant_jinja_node **node);
kvant_status kvant_jinja_parse_filters(kvant_jinja_parser *p, kvant_jinja_node **node, bool bar_first);

#endif
