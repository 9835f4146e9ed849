// SPDX-License-Identifier: MIT
/* piece_steps.c: cuts a stretch of text into the pieces in which a model looks for tokens.
 *
 * Each step takes the pieces of the one before, each as a text of its own: it rewrites them (normalizer.c) or cuts them at what
 * matches. What becomes of a match (a piece, nothing, part of a neighbour) is decided on the list of spans, matching and not. */
#include "text/tokenizer_rules.h"

typedef struct part {
    size_t begin, end;
    bool is_match, is_removed;
} part;

typedef struct part_list {
    part *items;
    size_t n, room;
} part_list;

static kvant_status add_part(part_list *list, part p) {
    if (list->n == list->room) {
        size_t room = list->room ? list->room * 2 : 256;
        part *items = kvant_realloc(list->items, room, sizeof *items);
        if (!items) return KVANT_ENOMEM;
        list->items = items;
        list->room = room;
    }
    list->items[list->n++] = p;
    return KVANT_OK;
}

/* The last `size` bytes of the text are a piece. */
static kvant_status end_piece(kvant_pieces *p, size_t size) {
    if (size == 0) return KVANT_OK;
    if (p->n == p->room) {
        size_t room = p->room ? p->room * 2 : 256;
        uint32_t *sizes = kvant_realloc(p->sizes, room, sizeof *sizes);
        if (!sizes) return KVANT_ENOMEM;
        p->sizes = sizes;
        p->room = room;
    }
    p->sizes[p->n++] = (uint32_t)size;
    return KVANT_OK;
}

static kvant_status add_piece(kvant_pieces *p, const char *text, size_t size) {
    KVANT_TRY(kvant_buffer_append(&p->text, text, size));
    return end_piece(p, size);
}

void kvant_pieces_free(kvant_pieces *p) {
    kvant_buffer_free(&p->text);
    kvant_free(p->sizes);
    p->sizes = NULL;
    p->n = p->room = 0;
}

/* The next match of a literal text. */
static bool find_text(const kvant_step *s, const char *text, size_t size, size_t at, kvant_span *match) {
    if (s->find_size == 0) return false;
    for (; at + s->find_size <= size; at++) {
        const char *p = memchr(text + at, s->find[0], size - at - s->find_size + 1);
        if (!p) return false;
        at = (size_t)(p - text);
        if (memcmp(p, s->find, s->find_size) != 0) continue;
        *match = (kvant_span){at, at + s->find_size};
        return true;
    }
    return false;
}

/* All of the text as matches and what lies between them. */
static kvant_status list_parts(const kvant_step *s, kvant_matcher *m, const char *text, size_t size, part_list *out) {
    size_t done = 0, at = 0;
    bool any = false;
    out->n = 0;
    while (at <= size) {
        kvant_span match = {0};
        bool found;
        if (s->expression) KVANT_TRY(kvant_expression_find(s->expression, m, text, size, at, false, &match, &found));
        else found = find_text(s, text, size, at, &match);
        if (!found) break;
        if (match.begin == match.end && any && match.begin == done) { /* nothing, right behind a match, is no match */
            at++;
            while (at < size && ((uint8_t)text[at] & 0xC0) == 0x80) at++;
            continue;
        }
        if (match.begin > done) KVANT_TRY(add_part(out, (part){done, match.begin, s->invert, false}));
        KVANT_TRY(add_part(out, (part){match.begin, match.end, !s->invert, false}));
        done = at = match.end;
        any = true;
    }
    return done < size ? add_part(out, (part){done, size, s->invert, false}) : KVANT_OK;
}

/* Joins parts as the behaviour says; the list keeps its order. */
static void join_parts(kvant_split_behavior behavior, part_list *list) {
    part *p = list->items;
    size_t n = 0;
    bool before = false;
    if (behavior == KVANT_SPLIT_REMOVED)
        for (size_t i = 0; i < list->n; i++) p[i].is_removed = p[i].is_match;
    if (behavior == KVANT_SPLIT_REMOVED || behavior == KVANT_SPLIT_ISOLATED) return;
    if (behavior == KVANT_SPLIT_MERGED_WITH_NEXT) { /* from the right end, onto the right end of the list */
        size_t to = list->n;
        for (size_t i = list->n; i-- > 0;) {
            part x = p[i];
            if (x.is_match && !before && to < list->n) p[to].begin = x.begin;
            else p[--to] = x;
            before = x.is_match;
        }
        memmove(p, p + to, (list->n - to) * sizeof *p);
        list->n -= to;
        return;
    }
    for (size_t i = 0; i < list->n; i++) {
        part x = p[i];
        bool joins = behavior == KVANT_SPLIT_CONTIGUOUS ? x.is_match == before : x.is_match && !before;
        if (joins && n > 0) p[n - 1].end = x.end;
        else p[n++] = x;
        before = x.is_match;
    }
    list->n = n;
}

static kvant_status cut_piece(const kvant_step *s, kvant_matcher *m, const char *text, size_t size, bool at_start,
                              part_list *parts, kvant_pieces *out) {
    KVANT_TRY(list_parts(s, m, text, size, parts));
    if (!parts->n) return KVANT_OK;
    join_parts(s->behavior, parts);
    for (size_t i = 0; i < parts->n; i++) {
        part x = parts->items[i];
        if (x.is_removed || x.end == x.begin) continue;
        if (at_start && x.begin == 0) out->at_start = true;
        KVANT_TRY(add_piece(out, text + x.begin, x.end - x.begin));
    }
    return KVANT_OK;
}

static kvant_status apply(const kvant_step *s, kvant_matcher *m, const kvant_pieces *in, part_list *parts, kvant_pieces *out) {
    const char *text = in->text.data;
    out->n = out->text.size = 0;
    out->at_start = false;
    for (size_t i = 0; i < in->n; text += in->sizes[i++]) {
        bool at_start = in->at_start && i == 0;
        if (s->kind == KVANT_STEP_SPLIT) {
            KVANT_TRY(cut_piece(s, m, text, in->sizes[i], at_start, parts, out));
            continue;
        }
        size_t before = out->text.size;
        KVANT_TRY(kvant_step_rewrite(s, m, text, in->sizes[i], at_start, &out->text));
        KVANT_TRY(end_piece(out, out->text.size - before));
        if (at_start && out->text.size > before) out->at_start = true;
    }
    return KVANT_OK;
}

kvant_status kvant_pieces_cut(const kvant_steps *s, kvant_matcher *m, const char *text, size_t size, bool at_start,
                              kvant_pieces *out, kvant_pieces *spare) {
    part_list parts = {0};
    out->n = out->text.size = 0;
    out->at_start = at_start;
    kvant_status st = add_piece(out, text, size);
    for (int i = 0; i < s->n && st == KVANT_OK; i++) {
        st = apply(&s->steps[i], m, out, &parts, spare);
        kvant_pieces swap = *out;
        *out = *spare;
        *spare = swap;
    }
    kvant_free(parts.items);
    return st;
}
