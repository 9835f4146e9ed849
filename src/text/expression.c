// SPDX-License-Identifier: MIT
/* expression.c: expressions translated to PCRE2's syntax, compiled, and matched with limits.
 *
 * PCRE2 runs in UTF mode with Unicode properties and its just-in-time compiler where there is one. The translation goes through the
 * text once and changes only what the two would read differently. */
#include "text/expression.h"

#include <stdio.h>
#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#define MAX_EXPRESSION (256u * 1024)
#define MATCH_LIMIT 0x10000000u
#define FILE_MATCH_LIMIT 10000000u /* of expressions that a file brings */
#define HEAP_LIMIT_KIB (256u * 1024)
#define JIT_STACK_MIN (64u * 1024)
#define JIT_STACK_MAX (32u * 1024 * 1024)

struct kvant_expression {
    pcre2_general_context *memory;
    pcre2_code *code;
    uint32_t match_limit;
};

struct kvant_matcher {
    pcre2_general_context *memory;
    pcre2_match_data *data;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
    int error;
};

static void *pcre_alloc(size_t size, void *user) {
    (void)user;
    return kvant_alloc(size, 1);
}

static void pcre_free(void *p, void *user) {
    (void)user;
    kvant_free(p);
}

/* ---- translating ---- */

typedef struct translation {
    const char *p, *end;
    bool oniguruma;
    kvant_buffer out;
    const char *problem; /* why it cannot be translated */
} translation;

static kvant_status refuse(translation *x, const char *why) {
    x->problem = why;
    return KVANT_EUNSUPPORTED;
}

static kvant_status put(translation *x, const char *text) { return kvant_buffer_append_str(&x->out, text); }

/* Oniguruma's \w has the superscripts and fractions of Latin-1 too, unless it stands in brackets. */
#define WORD KVANT_WORD_CHARACTERS "\\xB2\\xB3\\xB9\\xBC-\\xBE"

/* A backslash and what follows; p stands on the backslash. */
static kvant_status translate_escape(translation *x, bool in_class) {
    if (x->end - x->p < 2) return refuse(x, "it ends in a backslash");
    char c = x->p[1];
    x->p += 2;
    if (c == 's') return put(x, in_class ? KVANT_WHITE_SPACE : "[" KVANT_WHITE_SPACE "]");
    if (c == 'S' && !in_class) return put(x, "[^" KVANT_WHITE_SPACE "]");
    if (x->oniguruma) {
        if (c == 'S') return refuse(x, "\\S inside brackets is not supported");
        if (c == 'w') return put(x, in_class ? KVANT_WORD_CHARACTERS : "[" WORD "]");
        if (c == 'W' && !in_class) return put(x, "[^" WORD "]");
        if (c == 'W') return refuse(x, "\\W inside brackets is not supported");
        if (c == 'b' && !in_class) return put(x, "(?:(?<=[" WORD "])(?![" WORD "])|(?<![" WORD "])(?=[" WORD "]))");
        if (c == 'B' && !in_class) return put(x, "(?:(?<=[" WORD "])(?=[" WORD "])|(?<![" WORD "])(?![" WORD "]))");
        if (c == 'h') return put(x, in_class ? "0-9a-fA-F" : "[0-9a-fA-F]");
        if (strchr("HNOQEyYC", c)) return refuse(x, "\\H, \\N, \\O, \\Q, \\E, \\C, \\y and \\Y are not supported");
        if (c == 'u' && x->end - x->p >= 4) {
            KVANT_TRY(put(x, "\\x{"));
            KVANT_TRY(kvant_buffer_append(&x->out, x->p, 4));
            x->p += 4;
            return put(x, "}");
        }
    } else if (c == 'S') { /* the table has it outside brackets only */
        return put(x, "[^" KVANT_WHITE_SPACE "]");
    }
    return kvant_buffer_append(&x->out, x->p - 2, 2);
}

static bool at_text(const translation *x, const char *text) {
    size_t n = strlen(text);
    return (size_t)(x->end - x->p) >= n && memcmp(x->p, text, n) == 0;
}

static kvant_status translate_class(translation *x);

#define NESTED "of brackets inside brackets only [a[bc]], [[a]&&[b]] and some [:names:] are supported"

/* [:name:] inside brackets; p stands on its '['. */
static kvant_status translate_name(translation *x) {
    static const char *const names[][2] = {{"[:punct:]", "\\p{P}\\p{S}"}, {"[:space:]", KVANT_WHITE_SPACE},
                                           {"[:alpha:]", "\\p{Alphabetic}"}, {"[:digit:]", "\\p{Nd}"},
                                           {"[:alnum:]", "\\p{Alphabetic}\\p{Nd}"}, {"[:word:]", KVANT_WORD_CHARACTERS}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (!at_text(x, names[i][0])) continue;
        x->p += strlen(names[i][0]);
        return put(x, names[i][1]);
    }
    return refuse(x, NESTED);
}

/* Brackets among other characters of brackets: their characters too. p stands on '['. */
static kvant_status translate_union(translation *x) {
    x->p++;
    if (x->p == x->end || *x->p == '^' || *x->p == ']') return refuse(x, NESTED);
    while (x->p < x->end && *x->p != ']') {
        if (*x->p == '[' || at_text(x, "&&")) return refuse(x, NESTED);
        if (*x->p == '\\') KVANT_TRY(translate_escape(x, true));
        else KVANT_TRY(kvant_buffer_append(&x->out, x->p++, 1));
    }
    if (x->p == x->end) return refuse(x, "a bracket is not closed");
    x->p++;
    return KVANT_OK;
}

/* The inside of brackets up to "&&" or the closing one, as a class of its own. p stands behind '[' and '^'. */
static kvant_status translate_operand(translation *x, bool negated) {
    size_t begin = x->out.size;
    bool first = true, whole = false;
    KVANT_TRY(put(x, negated ? "[^" : "["));
    while (x->p < x->end) {
        if (*x->p == ']' && !first) break;
        if (at_text(x, "&&")) break;
        if (whole) return refuse(x, NESTED);
        if (*x->p == '\\') {
            KVANT_TRY(translate_escape(x, true));
        } else if (at_text(x, "[:")) {
            KVANT_TRY(translate_name(x));
        } else if (*x->p == '[' && (!first || negated)) {
            KVANT_TRY(translate_union(x));
        } else if (*x->p == '[') {
            x->out.size = begin; /* the operand is the inner class */
            KVANT_TRY(translate_class(x));
            whole = true;
        } else {
            KVANT_TRY(kvant_buffer_append(&x->out, x->p++, 1));
        }
        first = false;
    }
    if (x->p >= x->end) return refuse(x, "a bracket is not closed");
    return whole ? KVANT_OK : put(x, "]");
}

/* [A&&B] becomes (?:(?=[A])[B]). p stands on '['. */
static kvant_status translate_class(translation *x) {
    size_t begin = x->out.size, depth = 0;
    x->p++;
    bool negated = x->p < x->end && *x->p == '^';
    if (negated) x->p++;
    KVANT_TRY(translate_operand(x, negated));
    while (at_text(x, "&&")) {
        if (negated || ++depth > 8) return refuse(x, "&& in negated brackets is not supported");
        size_t n = x->out.size - begin; /* what was written since `begin` goes into a look-ahead */
        char *copy = kvant_alloc(n + 1, 1);
        if (!copy) return KVANT_ENOMEM;
        memcpy(copy, x->out.data + begin, n);
        x->out.size = begin;
        kvant_status st = put(x, "(?:(?=");
        if (st == KVANT_OK) st = kvant_buffer_append(&x->out, copy, n);
        kvant_free(copy);
        if (st != KVANT_OK) return st;
        KVANT_TRY(put(x, ")"));
        x->p += 2;
        bool not_b = x->p < x->end && *x->p == '^';
        if (not_b) x->p++;
        KVANT_TRY(translate_operand(x, not_b));
        KVANT_TRY(put(x, ")"));
    }
    if (x->p >= x->end || *x->p != ']') return refuse(x, "a bracket is not closed");
    x->p++;
    return KVANT_OK;
}

/* {,n} is {0,n}, and {n,m}+ repeats instead of being possessive. p stands on '{'. */
static kvant_status translate_interval(translation *x) {
    const char *p = x->p + 1;
    bool digits = false, comma = false;
    for (; p < x->end && ((*p >= '0' && *p <= '9') || (*p == ',' && !comma)); p++) {
        if (*p == ',') comma = true;
        else digits = true;
    }
    bool interval = digits && p < x->end && *p == '}';
    if (interval && p + 1 < x->end && p[1] == '+') return refuse(x, "a + behind an interval is not supported");
    KVANT_TRY(put(x, interval && x->p[1] == ',' ? "{0" : "{"));
    x->p++;
    return KVANT_OK;
}

static kvant_status translate(translation *x) {
    while (x->p < x->end) {
        if (*x->p == '\\') {
            KVANT_TRY(translate_escape(x, false));
        } else if (x->oniguruma && *x->p == '[') {
            KVANT_TRY(translate_class(x));
        } else if (x->oniguruma && *x->p == '{') {
            KVANT_TRY(translate_interval(x));
        } else if (x->oniguruma && at_text(x, "(*")) {
            return refuse(x, "(*...) is not supported");
        } else if (x->oniguruma && at_text(x, "(?")) {
            const char *p = x->p + 2;
            for (; p < x->end && ((*p >= 'a' && *p <= 'z') || *p == '-'); p++)
                if (*p == 'm') return refuse(x, "the option (?m) is not supported");
            KVANT_TRY(put(x, "(?"));
            x->p += 2;
        } else if (!x->oniguruma && *x->p == '[') { /* as it is, white space spelled out */
            do {
                if (*x->p == '\\') KVANT_TRY(translate_escape(x, true));
                else KVANT_TRY(kvant_buffer_append(&x->out, x->p++, 1));
            } while (x->p < x->end && *x->p != ']');
        } else {
            KVANT_TRY(kvant_buffer_append(&x->out, x->p++, 1));
        }
    }
    return KVANT_OK;
}

/* ---- compiling ---- */

static kvant_status compile(kvant_expression *e, const kvant_buffer *text, kvant_dialect dialect,
                            char reason[KVANT_EXPRESSION_REASON]) {
    int code = 0;
    PCRE2_SIZE at = 0;
    uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C;
    if (dialect == KVANT_DIALECT_ONIGURUMA) options |= PCRE2_MULTILINE;
    pcre2_compile_context *context = pcre2_compile_context_create(e->memory);
    if (context) {
        pcre2_set_newline(context, PCRE2_NEWLINE_LF);
        e->code = pcre2_compile((PCRE2_SPTR)(text->data ? text->data : ""), text->size, options, &code, &at, context);
        pcre2_compile_context_free(context);
    }
    if (!e->code) {
        PCRE2_UCHAR why[128] = "memory is out";
        if (code) pcre2_get_error_message(code, why, sizeof why);
        snprintf(reason, KVANT_EXPRESSION_REASON, "fails at byte %zu: %s", (size_t)at, (const char *)why);
        return code ? KVANT_EUNSUPPORTED : KVANT_ENOMEM;
    }
    pcre2_jit_compile(e->code, PCRE2_JIT_COMPLETE); /* without it the interpreter gives the same matches */
    return KVANT_OK;
}

kvant_status kvant_expression_create(const char *text, size_t size, kvant_dialect dialect, kvant_expression **out,
                                     char reason[KVANT_EXPRESSION_REASON]) {
    translation x = {.p = text, .end = text + size, .oniguruma = dialect == KVANT_DIALECT_ONIGURUMA};
    kvant_buffer_init(&x.out, MAX_EXPRESSION);
    snprintf(reason, KVANT_EXPRESSION_REASON, "memory is out");
    kvant_expression *e = kvant_alloc(1, sizeof *e);
    if (e) e->memory = pcre2_general_context_create(pcre_alloc, pcre_free, NULL);
    kvant_status st = e && e->memory ? translate(&x) : KVANT_ENOMEM;
    if (st == KVANT_EFULL) snprintf(reason, KVANT_EXPRESSION_REASON, "is longer than %u bytes", MAX_EXPRESSION);
    if (st == KVANT_EUNSUPPORTED) snprintf(reason, KVANT_EXPRESSION_REASON, "%s", x.problem);
    if (e) e->match_limit = x.oniguruma ? FILE_MATCH_LIMIT : MATCH_LIMIT;
    if (st == KVANT_OK) st = compile(e, &x.out, dialect, reason);
    kvant_buffer_free(&x.out);
    if (st != KVANT_OK) {
        kvant_expression_destroy(e);
        return st;
    }
    *out = e;
    return KVANT_OK;
}

void kvant_expression_destroy(kvant_expression *e) {
    if (!e) return;
    if (e->code) pcre2_code_free(e->code);
    if (e->memory) pcre2_general_context_free(e->memory);
    kvant_free(e);
}

/* ---- matching ---- */

kvant_status kvant_matcher_create(kvant_matcher **out) {
    kvant_matcher *m = kvant_alloc(1, sizeof *m);
    if (m) m->memory = pcre2_general_context_create(pcre_alloc, pcre_free, NULL);
    if (!m || !m->memory) {
        kvant_free(m);
        return KVANT_ENOMEM;
    }
    m->data = pcre2_match_data_create(1, m->memory);
    m->context = pcre2_match_context_create(m->memory);
    m->stack = pcre2_jit_stack_create(JIT_STACK_MIN, JIT_STACK_MAX, m->memory); /* NULL without JIT: not needed then */
    if (!m->data || !m->context) {
        kvant_matcher_destroy(m);
        return KVANT_ENOMEM;
    }
    pcre2_set_heap_limit(m->context, HEAP_LIMIT_KIB);
    if (m->stack) pcre2_jit_stack_assign(m->context, NULL, m->stack);
    *out = m;
    return KVANT_OK;
}

void kvant_matcher_destroy(kvant_matcher *m) {
    if (!m) return;
    pcre2_match_data_free(m->data);
    pcre2_match_context_free(m->context);
    pcre2_jit_stack_free(m->stack);
    pcre2_general_context_free(m->memory);
    kvant_free(m);
}

void kvant_matcher_reason(const kvant_matcher *m, char reason[KVANT_EXPRESSION_REASON]) {
    PCRE2_UCHAR why[128] = "memory is out";
    if (m && m->error) pcre2_get_error_message(m->error, why, sizeof why);
    snprintf(reason, KVANT_EXPRESSION_REASON, "%s", (const char *)why);
}

kvant_status kvant_expression_find(const kvant_expression *e, kvant_matcher *m, const char *text, size_t size, size_t at,
                                   bool anchored, kvant_span *match, bool *found) {
    uint32_t options = PCRE2_NO_UTF_CHECK | (anchored ? PCRE2_ANCHORED : 0);
    pcre2_set_match_limit(m->context, e->match_limit);
    int r = pcre2_match(e->code, (PCRE2_SPTR)text, size, at, options, m->data, m->context);
    *found = r >= 0;
    if (r == PCRE2_ERROR_NOMATCH) return KVANT_OK;
    if (r < 0) {
        m->error = r;
        return KVANT_EUNSUPPORTED;
    }
    const PCRE2_SIZE *pair = pcre2_get_ovector_pointer(m->data);
    /* \K can end a match before it begins, or put its beginning before `at` in a look-behind: such a match is empty here. */
    *match = pair[1] < pair[0] || pair[0] < at ? (kvant_span){at, at} : (kvant_span){pair[0], pair[1]};
    return KVANT_OK;
}
