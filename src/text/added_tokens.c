// SPDX-License-Identifier: MIT
/* added_tokens.c: finds the added tokens of a tokenizer.json in a text: the leftmost one first, of those that begin there the
 * longest, and then on behind it.
 *
 * As in special_tokens.c a length is tried only where some token of that length begins with the byte there. */
#include <stdlib.h>

#include "text/tokenizer_rules.h"
#include "text/utf8.h"

kvant_status kvant_added_add(kvant_added_set *s, const char *text, size_t size, kvant_added_token token) {
    int32_t index;
    if (size == 0) return KVANT_OK;
    if (!s->texts.offsets) KVANT_TRY(kvant_symbols_init(&s->texts, 64));
    kvant_status st = kvant_symbols_add(&s->texts, text, size, &index);
    if (st == KVANT_EFORMAT) return KVANT_OK;
    if (st != KVANT_OK) return st;
    if (index >= s->room) {
        int room = s->room ? s->room * 2 : 64;
        kvant_added_token *tokens = kvant_realloc(s->tokens, (size_t)room, sizeof *tokens);
        if (!tokens) return KVANT_ENOMEM;
        s->tokens = tokens;
        s->room = room;
    }
    s->tokens[index] = token;
    return KVANT_OK;
}

static int compare_classes(const void *a, const void *b) {
    uint32_t x = ((const kvant_special_class *)a)->size, y = ((const kvant_special_class *)b)->size;
    return x < y ? 1 : x > y ? -1 : 0;
}

kvant_status kvant_added_prepare(kvant_added_set *s) {
    if (!s->texts.n) return KVANT_OK;
    int32_t *class_of_size = kvant_alloc((size_t)s->texts.max_size + 1, sizeof *class_of_size);
    s->classes = kvant_alloc((size_t)s->texts.n, sizeof *s->classes);
    if (!class_of_size || !s->classes) {
        kvant_free(class_of_size);
        return KVANT_ENOMEM;
    }
    for (int32_t i = 0; i < s->texts.n; i++) {
        size_t size;
        uint8_t byte = (uint8_t)kvant_symbol_text(&s->texts, i, &size)[0];
        if (!class_of_size[size]) {
            s->classes[s->n_class].size = (uint32_t)size;
            class_of_size[size] = ++s->n_class;
        }
        s->classes[class_of_size[size] - 1].first[byte >> 6] |= 1ull << (byte & 63);
    }
    kvant_free(class_of_size);
    qsort(s->classes, (size_t)s->n_class, sizeof *s->classes, compare_classes);
    return KVANT_OK;
}

void kvant_added_free(kvant_added_set *s) {
    kvant_symbols_free(&s->texts);
    kvant_free(s->tokens);
    kvant_free(s->classes);
}

/* The longest token at a place, or -1. */
static int32_t longest_at(const kvant_added_set *s, const char *text, size_t size, size_t at, size_t *length) {
    uint8_t byte = (uint8_t)text[at];
    for (int i = 0; i < s->n_class; i++) {
        const kvant_special_class *c = &s->classes[i];
        if (c->size > size - at || !(c->first[byte >> 6] >> (byte & 63) & 1)) continue;
        int32_t index = kvant_symbols_find(&s->texts, text + at, c->size);
        if (index < 0) continue;
        *length = c->size;
        return index;
    }
    return -1;
}

static uint32_t character_before(const char *text, size_t at, size_t *begin) {
    uint32_t code;
    *begin = at - 1;
    while (*begin > 0 && ((uint8_t)text[*begin] & 0xC0) == 0x80) --*begin;
    kvant_utf8_read((const uint8_t *)text + *begin, at - *begin, &code);
    return code;
}

/* Whether words end on both sides of text[begin .. end). */
static bool stands_alone(const char *text, size_t size, size_t begin, size_t end) {
    size_t before;
    uint32_t code;
    if (begin > 0 && kvant_is_word_character(character_before(text, begin, &before))) return false;
    if (end == size) return true;
    kvant_utf8_read((const uint8_t *)text + end, size - end, &code);
    return !kvant_is_word_character(code);
}

typedef struct fragment_list {
    kvant_fragment *items;
    size_t n, room;
} fragment_list;

static kvant_status add_fragment(fragment_list *list, size_t begin, size_t end, int32_t id) {
    if (begin >= end) return KVANT_OK;
    if (list->n == list->room) {
        size_t room = list->room ? list->room * 2 : 16;
        kvant_fragment *items = kvant_realloc(list->items, room, sizeof *items);
        if (!items) return KVANT_ENOMEM;
        list->items = items;
        list->room = room;
    }
    list->items[list->n++] = (kvant_fragment){begin, end - begin, id};
    return KVANT_OK;
}

static kvant_status partition(const kvant_added_set *s, const char *text, size_t size, bool parse_special, fragment_list *out) {
    size_t done = 0, at = 0, length = 0, before;
    while (at < size) {
        int32_t index = s->n_class ? longest_at(s, text, size, at, &length) : -1;
        if (index < 0) {
            at++;
            continue;
        }
        kvant_added_token token = s->tokens[index];
        size_t begin = at, end = at + length;
        at = end;
        if (token.special && !parse_special) continue;
        if (token.single_word && !stands_alone(text, size, begin, end)) continue;
        while (token.left && begin > done && kvant_is_white_space(character_before(text, begin, &before))) begin = before;
        while (token.right && end < size) {
            uint32_t code;
            size_t n = kvant_utf8_read((const uint8_t *)text + end, size - end, &code);
            if (!kvant_is_white_space(code)) break;
            end += n;
        }
        if (begin > done) KVANT_TRY(add_fragment(out, done, begin, KVANT_NO_SYMBOL));
        KVANT_TRY(add_fragment(out, begin, end, token.id));
        done = end;
        if (at < done) at = done;
    }
    return add_fragment(out, done, size, KVANT_NO_SYMBOL);
}

kvant_status kvant_added_partition(const kvant_added_set *s, const char *text, size_t size, bool parse_special,
                                   kvant_fragment **out, size_t *n) {
    fragment_list list = {0};
    kvant_status st = KVANT_OK;
    if (!s->n_class) st = add_fragment(&list, 0, size, KVANT_NO_SYMBOL);
    else st = partition(s, text, size, parse_special, &list);
    if (st != KVANT_OK) {
        kvant_free(list.items);
        return st;
    }
    *out = list.items;
    *n = list.n;
    return KVANT_OK;
}
