// SPDX-License-Identifier: MIT
/* pretokenizer.c: compiles the expressions of a pre-tokenizer and runs them over a text.
 *
 * Each piece is a subject of its own, so that looking ahead or back ends at the piece, as the models' tokenizers have it. Not here:
 * PCRE2 (expression.c). */
#include "text/pretokenizer.h"

#include <string.h>

#include "text/expression.h"

struct kvant_splitter {
    const kvant_pretokenizer *table;
    kvant_expression *expressions[KVANT_PRETOKENIZER_MAX_EXPRESSIONS]; /* NULL for KVANT_DIGITS_IN_THREES */
};

/* ---- compiling ---- */

kvant_status kvant_splitter_create(const kvant_pretokenizer *p, kvant_splitter **out, kvant_error *err) {
    kvant_splitter *s = kvant_alloc(1, sizeof *s);
    if (!s) return kvant_fail(err, KVANT_ENOMEM, "no memory for a pre-tokenizer");
    s->table = p;
    for (int i = 0; p->expressions[i]; i++) {
        const char *text = p->expressions[i];
        char reason[KVANT_EXPRESSION_REASON];
        if (strcmp(text, KVANT_DIGITS_IN_THREES) == 0) continue;
        kvant_status st = kvant_expression_create(text, strlen(text), KVANT_DIALECT_PCRE, &s->expressions[i], reason);
        if (st != KVANT_OK) {
            kvant_splitter_destroy(s);
            return kvant_fail(err, st, "pre-tokenizer '%s': expression %d: %s", p->names[0], i, reason);
        }
    }
    *out = s;
    return KVANT_OK;
}

void kvant_splitter_destroy(kvant_splitter *s) {
    if (!s) return;
    for (int i = 0; i < KVANT_PRETOKENIZER_MAX_EXPRESSIONS; i++) kvant_expression_destroy(s->expressions[i]);
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

/* Cuts one piece at the matches of one expression. */
static kvant_status split_piece(const kvant_expression *e, kvant_matcher *m, const char *text, size_t size, piece_list *out) {
    size_t done = 0, at = 0;
    while (at < size) {
        kvant_span match;
        bool found;
        KVANT_TRY(kvant_expression_find(e, m, text, size, at, false, &match, &found));
        if (!found) break;
        if (match.end <= match.begin) { /* no expression of the table matches nothing; go on by a character if one did */
            at = match.begin + 1;
            while (at < size && ((uint8_t)text[at] & 0xC0) == 0x80) at++;
            continue;
        }
        KVANT_TRY(add_piece(out, match.begin - done));
        KVANT_TRY(add_piece(out, match.end - match.begin));
        done = at = match.end;
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
static kvant_status apply_expression(const kvant_splitter *s, int i, kvant_matcher *m, const char *text, const piece_list *in,
                                     piece_list *out) {
    const char *next = s->table->expressions[i + 1];
    bool threes = next && strcmp(next, KVANT_DIGITS_IN_THREES) == 0;
    piece_list matches = {0};
    kvant_status st = KVANT_OK;
    for (size_t p = 0; p < in->n && st == KVANT_OK; text += in->sizes[p++]) {
        if (!threes) {
            st = split_piece(s->expressions[i], m, text, in->sizes[p], out);
            continue;
        }
        matches.n = 0;
        st = split_piece(s->expressions[i], m, text, in->sizes[p], &matches);
        const char *at = text;
        for (size_t k = 0; k < matches.n && st == KVANT_OK; at += matches.sizes[k++]) {
            kvant_span match;
            bool found;
            st = kvant_expression_find(s->expressions[i], m, at, matches.sizes[k], 0, true, &match, &found);
            if (st == KVANT_OK) st = found ? split_in_threes(at, matches.sizes[k], out) : add_piece(out, matches.sizes[k]);
        }
    }
    kvant_free(matches.sizes);
    return st;
}

kvant_status kvant_splitter_run(const kvant_splitter *s, const char *text, size_t size, uint32_t **sizes, size_t *n,
                                kvant_error *err) {
    kvant_matcher *m = NULL;
    piece_list now = {0}, next = {0};
    kvant_status st = kvant_matcher_create(&m);
    if (st != KVANT_OK) return kvant_fail(err, st, "no memory for splitting a text");
    st = add_piece(&now, size);
    for (int i = 0; s->table->expressions[i] && st == KVANT_OK; i++) {
        if (!s->expressions[i]) continue;
        next.n = 0;
        st = apply_expression(s, i, m, text, &now, &next);
        piece_list swap = now;
        now = next;
        next = swap;
    }
    char reason[KVANT_EXPRESSION_REASON];
    kvant_matcher_reason(m, reason);
    kvant_matcher_destroy(m);
    kvant_free(next.sizes);
    if (st != KVANT_OK) {
        kvant_free(now.sizes);
        return kvant_fail(err, st, "pre-tokenizer '%s' cannot split this text: %s", s->table->names[0], reason);
    }
    *sizes = now.sizes;
    *n = now.n;
    return KVANT_OK;
}
