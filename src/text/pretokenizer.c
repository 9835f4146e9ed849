// SPDX-License-Identifier: MIT
/* pretokenizer.c: compiles the expressions of a pre-tokenizer and runs them over a text.
 *
 * PCRE2 does the matching, in UTF mode with Unicode properties and its just-in-time compiler where there is one. Two things are
 * ours: \s and \S are spelled out as Unicode's White_Space (PCRE2's own set also has U+180E), and each piece is a subject of its
 * own, so that looking ahead or back ends at the piece, as the models' tokenizers have it. */
#include "text/pretokenizer.h"

#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#define WHITE_SPACE "\\t-\\r \\x85\\xA0\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{3000}"
#define MAX_EXPRESSION 4096
#define MATCH_LIMIT 0x10000000u
#define HEAP_LIMIT_KIB (256u * 1024)
#define JIT_STACK_MIN (64u * 1024)
#define JIT_STACK_MAX (32u * 1024 * 1024)

struct kvant_splitter {
    const kvant_pretokenizer *table;
    pcre2_general_context *memory;
    pcre2_code *codes[KVANT_PRETOKENIZER_MAX_EXPRESSIONS]; /* NULL for KVANT_DIGITS_IN_THREES */
};

/* ---- compiling ---- */

static void *pcre_alloc(size_t size, void *user) {
    (void)user;
    return kvant_alloc(size, 1);
}

static void pcre_free(void *p, void *user) {
    (void)user;
    kvant_free(p);
}

/* Copies an expression of the table, spelling out \s and \S. */
static kvant_status expand_white_space(const char *expression, kvant_buffer *out) {
    bool in_class = false;
    for (const char *p = expression; *p; p++) {
        if (*p == '[' && !in_class) in_class = true;
        else if (*p == ']') in_class = false;
        if (*p != '\\') {
            KVANT_TRY(kvant_buffer_append(out, p, 1));
            continue;
        }
        p++;
        if (*p == 's') KVANT_TRY(kvant_buffer_append_str(out, in_class ? WHITE_SPACE : "[" WHITE_SPACE "]"));
        else if (*p == 'S') KVANT_TRY(kvant_buffer_append_str(out, "[^" WHITE_SPACE "]"));
        else KVANT_TRY(kvant_buffer_append(out, p - 1, 2));
    }
    return KVANT_OK;
}

static kvant_status compile_expression(kvant_splitter *s, int index, kvant_error *err) {
    kvant_buffer text;
    kvant_buffer_init(&text, MAX_EXPRESSION);
    kvant_status st = expand_white_space(s->table->expressions[index], &text);
    if (st != KVANT_OK) {
        kvant_buffer_free(&text);
        return kvant_fail(err, st, "pre-tokenizer '%s': expression %d cannot be expanded", s->table->names[0], index);
    }
    int code = 0;
    PCRE2_SIZE at = 0;
    pcre2_compile_context *context = pcre2_compile_context_create(s->memory);
    if (context) {
        s->codes[index] =
            pcre2_compile((PCRE2_SPTR)text.data, text.size, PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &code, &at, context);
        pcre2_compile_context_free(context);
    }
    kvant_buffer_free(&text);
    if (!s->codes[index]) {
        PCRE2_UCHAR reason[128] = "memory is out";
        if (code) pcre2_get_error_message(code, reason, sizeof reason);
        return kvant_fail(err, code ? KVANT_EUNSUPPORTED : KVANT_ENOMEM,
                          "pre-tokenizer '%s': expression %d fails at byte %zu: %s", s->table->names[0], index, (size_t)at,
                          (const char *)reason);
    }
    pcre2_jit_compile(s->codes[index], PCRE2_JIT_COMPLETE); /* without it the interpreter gives the same matches */
    return KVANT_OK;
}

kvant_status kvant_splitter_create(const kvant_pretokenizer *p, kvant_splitter **out, kvant_error *err) {
    kvant_splitter *s = kvant_alloc(1, sizeof *s);
    if (s) s->memory = pcre2_general_context_create(pcre_alloc, pcre_free, NULL);
    if (!s || !s->memory) {
        kvant_free(s);
        return kvant_fail(err, KVANT_ENOMEM, "no memory for a pre-tokenizer");
    }
    s->table = p;
    for (int i = 0; p->expressions[i]; i++) {
        if (strcmp(p->expressions[i], KVANT_DIGITS_IN_THREES) == 0) continue;
        kvant_status st = compile_expression(s, i, err);
        if (st != KVANT_OK) {
            kvant_splitter_destroy(s);
            return st;
        }
    }
    *out = s;
    return KVANT_OK;
}

void kvant_splitter_destroy(kvant_splitter *s) {
    if (!s) return;
    for (int i = 0; i < KVANT_PRETOKENIZER_MAX_EXPRESSIONS; i++)
        if (s->codes[i]) pcre2_code_free(s->codes[i]);
    pcre2_general_context_free(s->memory);
    kvant_free(s);
}

/* ---- splitting ---- */

typedef struct piece_list {
    uint32_t *sizes;
    size_t n, room;
} piece_list;

static kvant_status add_piece(piece_list *list, size_t size) {
    if (size == 0) return KVANT_OK;
    if (list->n == list->room) {
        size_t room = list->room ? list->room * 2 : 256;
        uint32_t *sizes = kvant_realloc(list->sizes, room, sizeof *sizes);
        if (!sizes) return KVANT_ENOMEM;
        list->sizes = sizes;
        list->room = room;
    }
    list->sizes[list->n++] = (uint32_t)size;
    return KVANT_OK;
}

/* What one run needs of PCRE2; made per run because a splitter is shared. */
typedef struct matcher {
    pcre2_match_data *data;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
} matcher;

static void close_matcher(matcher *m) {
    pcre2_match_data_free(m->data);
    pcre2_match_context_free(m->context);
    pcre2_jit_stack_free(m->stack);
}

static kvant_status open_matcher(const kvant_splitter *s, matcher *m) {
    m->data = pcre2_match_data_create(1, s->memory);
    m->context = pcre2_match_context_create(s->memory);
    m->stack = pcre2_jit_stack_create(JIT_STACK_MIN, JIT_STACK_MAX, s->memory); /* NULL without JIT: not needed then */
    if (!m->data || !m->context) {
        close_matcher(m);
        return KVANT_ENOMEM;
    }
    pcre2_set_match_limit(m->context, MATCH_LIMIT);
    pcre2_set_heap_limit(m->context, HEAP_LIMIT_KIB);
    if (m->stack) pcre2_jit_stack_assign(m->context, NULL, m->stack);
    return KVANT_OK;
}

/* Cuts one piece at the matches of one expression. *code_out: PCRE2's error, if any. */
static kvant_status split_piece(const pcre2_code *code, matcher *m, const char *text, size_t size, piece_list *out,
                                int *code_out) {
    size_t done = 0, at = 0;
    while (at < size) {
        int r = pcre2_match(code, (PCRE2_SPTR)text, size, at, PCRE2_NO_UTF_CHECK, m->data, m->context);
        if (r == PCRE2_ERROR_NOMATCH) break;
        if (r < 0) {
            *code_out = r;
            return KVANT_EUNSUPPORTED;
        }
        const PCRE2_SIZE *match = pcre2_get_ovector_pointer(m->data);
        if (match[1] <= match[0]) { /* no expression of the table matches nothing; go on by a character if one did */
            at = match[0] + 1;
            while (at < size && ((uint8_t)text[at] & 0xC0) == 0x80) at++;
            continue;
        }
        KVANT_TRY(add_piece(out, match[0] - done));
        KVANT_TRY(add_piece(out, match[1] - match[0]));
        done = at = match[1];
    }
    return add_piece(out, size - done);
}

/* Cuts a number into groups of three characters, counted from its right end. */
static kvant_status split_in_threes(const char *text, size_t size, piece_list *out) {
    size_t n_characters = 0, begin = 0;
    for (size_t i = 0; i < size; i++) n_characters += ((uint8_t)text[i] & 0xC0) != 0x80;
    for (size_t i = 0, left = n_characters; i < size; i++) {
        if (((uint8_t)text[i] & 0xC0) == 0x80) continue;
        if (left % 3 == 0) {
            KVANT_TRY(add_piece(out, i - begin));
            begin = i;
        }
        left--;
    }
    return add_piece(out, size - begin);
}

/* Applies expression i to every piece. Where the next step is "in threes", it is applied to the matches at once, since only here
 * is it known which pieces are matches. */
static kvant_status apply_expression(const kvant_splitter *s, int i, matcher *m, const char *text, const piece_list *in,
                                     piece_list *out, int *code) {
    const char *next = s->table->expressions[i + 1];
    bool threes = next && strcmp(next, KVANT_DIGITS_IN_THREES) == 0;
    piece_list matches = {0};
    kvant_status st = KVANT_OK;
    for (size_t p = 0; p < in->n && st == KVANT_OK; text += in->sizes[p++]) {
        if (!threes) {
            st = split_piece(s->codes[i], m, text, in->sizes[p], out, code);
            continue;
        }
        matches.n = 0;
        st = split_piece(s->codes[i], m, text, in->sizes[p], &matches, code);
        const char *at = text;
        for (size_t k = 0; k < matches.n && st == KVANT_OK; at += matches.sizes[k++]) {
            int r = pcre2_match(s->codes[i], (PCRE2_SPTR)at, matches.sizes[k], 0, PCRE2_NO_UTF_CHECK | PCRE2_ANCHORED, m->data,
                                m->context);
            st = r >= 0 ? split_in_threes(at, matches.sizes[k], out) : add_piece(out, matches.sizes[k]);
        }
    }
    kvant_free(matches.sizes);
    return st;
}

kvant_status kvant_splitter_run(const kvant_splitter *s, const char *text, size_t size, uint32_t **sizes, size_t *n,
                                kvant_error *err) {
    matcher m = {0};
    piece_list now = {0}, next = {0};
    int code = 0;
    kvant_status st = open_matcher(s, &m);
    if (st != KVANT_OK) return kvant_fail(err, st, "no memory for splitting a text");
    st = add_piece(&now, size);
    for (int i = 0; s->table->expressions[i] && st == KVANT_OK; i++) {
        if (!s->codes[i]) continue;
        next.n = 0;
        st = apply_expression(s, i, &m, text, &now, &next, &code);
        piece_list swap = now;
        now = next;
        next = swap;
    }
    close_matcher(&m);
    kvant_free(next.sizes);
    if (st != KVANT_OK) {
        kvant_free(now.sizes);
        PCRE2_UCHAR reason[128] = "memory is out";
        if (code) pcre2_get_error_message(code, reason, sizeof reason);
        return kvant_fail(err, st, "pre-tokenizer '%s' cannot split this text: %s", s->table->names[0], (const char *)reason);
    }
    *sizes = now.sizes;
    *n = now.n;
    return KVANT_OK;
}
