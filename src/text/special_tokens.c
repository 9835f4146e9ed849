// SPDX-License-Identifier: MIT
/* special_tokens.c: takes the special tokens out of a text before anything else looks at it.
 *
 * Longer tokens come first, over the whole text; a shorter one is found only in what they leave. Tokens are grouped by length,
 * and a length is tried at a position only when some token of that length begins with the byte there, so that the thousands of
 * special tokens of some vocabularies cost nothing on ordinary text. */
#include "text/tokenizer_internal.h"

#include <stdlib.h>

#define SPECIAL (KVANT_IS_CONTROL | KVANT_IS_USER_DEFINED | KVANT_IS_UNKNOWN)
#define HIDDEN (KVANT_IS_CONTROL | KVANT_IS_UNKNOWN) /* found only when the caller parses special tokens */

/* What became of a byte of the text. */
enum { FREE = 0, TAKEN = 1, DROPPED = 2 };

typedef struct match {
    size_t offset;
    int32_t id;
} match;

typedef struct match_list {
    match *items;
    size_t n, room;
} match_list;

static int compare_classes(const void *a, const void *b) {
    uint32_t x = ((const kvant_special_class *)a)->size, y = ((const kvant_special_class *)b)->size;
    return x < y ? 1 : x > y ? -1 : 0;
}

static int compare_matches(const void *a, const void *b) {
    size_t x = ((const match *)a)->offset, y = ((const match *)b)->offset;
    return x < y ? -1 : x > y;
}

/* Groups the special tokens by length. */
kvant_status kvant_special_prepare(kvant_tokenizer *t) {
    int32_t *class_of_size = kvant_alloc((size_t)t->symbols.max_size + 1, sizeof *class_of_size);
    int room = 0;
    kvant_status st = class_of_size ? KVANT_OK : KVANT_ENOMEM;
    for (int32_t id = 0; id < t->n_token && st == KVANT_OK; id++) {
        size_t size;
        const char *text = kvant_symbol_text(&t->symbols, id, &size);
        if (!(t->kinds[id] & SPECIAL) || size == 0) continue;
        if (!class_of_size[size]) {
            if (t->n_class == room) {
                room = room ? room * 2 : 16;
                kvant_special_class *classes = kvant_realloc(t->classes, (size_t)room, sizeof *classes);
                if (!classes) {
                    st = KVANT_ENOMEM;
                    break;
                }
                t->classes = classes;
            }
            t->classes[t->n_class] = (kvant_special_class){.size = (uint32_t)size};
            class_of_size[size] = ++t->n_class;
        }
        uint8_t byte = (uint8_t)text[0];
        t->classes[class_of_size[size] - 1].first[byte >> 6] |= 1ull << (byte & 63);
    }
    kvant_free(class_of_size);
    if (st == KVANT_OK && t->n_class) qsort(t->classes, (size_t)t->n_class, sizeof *t->classes, compare_classes);
    return st;
}

static bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

static kvant_status take(const kvant_tokenizer *t, const char *text, size_t size, size_t at, size_t n, int32_t id, uint8_t *state,
                         match_list *out) {
    if (out->n == out->room) {
        size_t room = out->room ? out->room * 2 : 64;
        match *items = kvant_realloc(out->items, room, sizeof *items);
        if (!items) return KVANT_ENOMEM;
        out->items = items;
        out->room = room;
    }
    out->items[out->n++] = (match){at, id};
    memset(state + at, TAKEN, n);
    if (t->kinds[id] & KVANT_SWALLOWS_LEFT)
        for (size_t i = at; i > 0 && state[i - 1] == FREE && is_space(text[i - 1]); i--) state[i - 1] = DROPPED;
    if (t->kinds[id] & KVANT_SWALLOWS_RIGHT)
        for (size_t i = at + n; i < size && state[i] == FREE && is_space(text[i]); i++) state[i] = DROPPED;
    return KVANT_OK;
}

static kvant_status find_class(const kvant_tokenizer *t, const kvant_special_class *c, const char *text, size_t size,
                               bool parse_special, uint8_t *state, match_list *out) {
    for (size_t at = 0; at + c->size <= size; at++) {
        uint8_t byte = (uint8_t)text[at];
        /* What is taken is at least as long as this token, so that it overlaps it at one of the ends or not at all; dropped white
         * space may also lie inside. */
        if (!(c->first[byte >> 6] >> (byte & 63) & 1) || state[at] != FREE || state[at + c->size - 1] != FREE) continue;
        int32_t id = kvant_symbols_find(&t->symbols, text + at, c->size);
        if (id < 0 || id >= t->n_token || !(t->kinds[id] & SPECIAL)) continue;
        if (!parse_special && (t->kinds[id] & HIDDEN)) continue;
        if (memchr(state + at, DROPPED, c->size)) continue;
        KVANT_TRY(take(t, text, size, at, c->size, id, state, out));
        at += c->size - 1;
    }
    return KVANT_OK;
}

/* The matches in order, and the free stretches between them. */
static kvant_status list_fragments(const kvant_tokenizer *t, const match_list *matches, const uint8_t *state, size_t size,
                                   kvant_fragment **out, size_t *n) {
    kvant_fragment *list = kvant_alloc(matches->n * 2 + 1, sizeof *list);
    if (!list) return KVANT_ENOMEM;
    size_t k = 0, at = 0;
    for (size_t i = 0; i <= matches->n; i++) {
        size_t end = i < matches->n ? matches->items[i].offset : size, begin = at;
        while (begin < end && state && state[begin] == DROPPED) begin++;
        size_t stop = end;
        while (stop > begin && state && state[stop - 1] == DROPPED) stop--;
        if (stop > begin) list[k++] = (kvant_fragment){begin, stop - begin, KVANT_NO_SYMBOL};
        if (i == matches->n) break;
        int32_t id = matches->items[i].id;
        size_t length;
        kvant_symbol_text(&t->symbols, id, &length);
        list[k++] = (kvant_fragment){end, length, id};
        at = end + length;
    }
    *out = list;
    *n = k;
    return KVANT_OK;
}

kvant_status kvant_special_partition(const kvant_tokenizer *t, const char *text, size_t size, bool parse_special,
                                     kvant_fragment **out, size_t *n) {
    match_list matches = {0};
    uint8_t *state = NULL;
    kvant_status st = KVANT_OK;
    if (t->n_class) {
        state = kvant_alloc(size, 1);
        if (!state) return KVANT_ENOMEM;
        for (int i = 0; i < t->n_class && st == KVANT_OK; i++)
            st = find_class(t, &t->classes[i], text, size, parse_special, state, &matches);
        if (matches.n) qsort(matches.items, matches.n, sizeof *matches.items, compare_matches);
    }
    if (st == KVANT_OK) st = list_fragments(t, &matches, state, size, out, n);
    kvant_free(matches.items);
    kvant_free(state);
    return st;
}
