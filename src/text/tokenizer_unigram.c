// SPDX-License-Identifier: MIT
/* tokenizer_unigram.c: the tokens whose scores have the largest sum.
 *
 * best[i] is the best way to spell the first i bytes; from each character on, all tokens that begin there are found at once by
 * narrowing a range of the sorted vocabulary byte by byte. A character without a token of its own may be unknown, at the lowest score
 * less ten; unknown ones in a row are one. */
#include <stdlib.h>

#include "text/tokenizer_rules.h"
#include "text/utf8.h"

typedef struct best {
    double score;
    int32_t begin, id; /* the last token; begin < 0: not reached */
} best;

typedef struct range {
    int low, high;
} range;

/* qsort has no context of its own. */
typedef struct sorted {
    const char *text;
    size_t size;
    int32_t id;
} sorted;

static int compare_texts(const void *a, const void *b) {
    const sorted *x = a, *y = b;
    int order = memcmp(x->text, y->text, x->size < y->size ? x->size : y->size);
    return order ? order : x->size < y->size ? -1 : x->size > y->size;
}

kvant_status kvant_unigram_prepare(kvant_tokenizer *t) {
    kvant_unigram *u = &t->rules->unigram;
    sorted *list = kvant_alloc((size_t)t->n_token, sizeof *list);
    u->order = kvant_alloc((size_t)t->n_token, sizeof *u->order);
    if (list && u->order) {
        for (int32_t id = 0; id < t->n_token; id++) {
            size_t size;
            const char *text = kvant_symbol_text(&t->symbols, id, &size);
            bool usable = t->rules->in_model[id] && (!(t->kinds[id] & KVANT_IS_CONTROL) || id == t->unk);
            if (usable && size) list[u->n++] = (sorted){text, size, id};
        }
        qsort(list, (size_t)u->n, sizeof *list, compare_texts);
        for (int i = 0; i < u->n; i++) u->order[i] = list[i].id;
    }
    kvant_free(list);
    return list && u->order ? KVANT_OK : KVANT_ENOMEM;
}

/* Of the tokens in r, which agree in their first `depth` bytes, those that have `byte` next. */
static range narrow(const kvant_tokenizer *t, range r, size_t depth, uint8_t byte) {
    const int32_t *order = t->rules->unigram.order;
    range out;
    for (int side = 0; side < 2; side++) { /* the first one not below byte, then the first one above it */
        int low = side ? out.low : r.low, high = r.high;
        while (low < high) {
            int middle = low + (high - low) / 2;
            size_t size;
            const char *text = kvant_symbol_text(&t->symbols, order[middle], &size);
            bool below = size <= depth || (side ? (uint8_t)text[depth] <= byte : (uint8_t)text[depth] < byte);
            if (below) low = middle + 1;
            else high = middle;
        }
        if (side) out.high = low;
        else out = (range){low, low};
    }
    return out;
}

static void offer(best *to, double score, size_t begin, int32_t id) {
    if (to->begin < 0 || score > to->score) *to = (best){score, (int32_t)begin, id};
}

/* Tokens that begin at `at`; returns whether one of them is the character there. */
static bool extend(const kvant_tokenizer *t, const char *text, size_t size, size_t at, size_t character, best *table) {
    const kvant_unigram *u = &t->rules->unigram;
    range r = {0, u->n};
    bool single = false;
    for (size_t depth = 0; at + depth < size; depth++) {
        r = narrow(t, r, depth, (uint8_t)text[at + depth]);
        if (r.low == r.high) break;
        size_t length;
        kvant_symbol_text(&t->symbols, u->order[r.low], &length);
        if (length != depth + 1) continue;
        if (length == character) single = true;
        offer(&table[at + length], table[at].score + u->scores[u->order[r.low]], at, u->order[r.low]);
    }
    return single;
}

/* A token, or a run of unknown characters: its own token after all, bytes, or the unknown token. */
static kvant_status emit(const kvant_tokenizer *t, const char *text, size_t size, int32_t id, kvant_id_list *out) {
    if (id != t->unk) return kvant_id_list_add(out, id);
    id = kvant_rules_find(t, text, size);
    if (id >= 0) return kvant_id_list_add(out, id);
    bool bytes = t->rules->byte_fallback;
    for (size_t i = 0; i < size && bytes; i++) bytes = t->byte_ids[(uint8_t)text[i]] >= 0;
    if (!bytes) return kvant_id_list_add(out, t->unk);
    for (size_t i = 0; i < size; i++) KVANT_TRY(kvant_id_list_add(out, t->byte_ids[(uint8_t)text[i]]));
    return KVANT_OK;
}

static kvant_status encode_piece(const kvant_tokenizer *t, const char *text, size_t size, best *table, kvant_id_list *out) {
    for (size_t i = 0; i <= size; i++) table[i] = (best){0, i ? -1 : 0, -1};
    for (size_t at = 0; at < size;) {
        uint32_t code;
        size_t character = kvant_utf8_read((const uint8_t *)text + at, size - at, &code);
        if (table[at].begin >= 0 && !extend(t, text, size, at, character, table)) {
            if (t->unk < 0) return KVANT_EUNSUPPORTED;
            offer(&table[at + character], table[at].score + t->rules->unigram.unknown_score, at, t->unk);
        }
        at += character;
    }
    /* Back from the end: each place learns where the next one is. */
    for (size_t end = size; end > 0;) {
        size_t begin = (size_t)table[end].begin;
        int32_t id = table[end].id;
        while (id == t->unk && begin > 0 && table[begin].id == t->unk) begin = (size_t)table[begin].begin;
        table[begin].score = (double)end; /* scores are done with */
        end = begin;
    }
    for (size_t at = 0; at < size;) {
        size_t end = (size_t)table[at].score;
        KVANT_TRY(emit(t, text + at, end - at, table[end].id, out));
        at = end;
    }
    return KVANT_OK;
}

kvant_status kvant_unigram_encode(const kvant_tokenizer *t, const kvant_pieces *p, kvant_id_list *out) {
    size_t largest = 0;
    for (size_t i = 0; i < p->n; i++)
        if (p->sizes[i] > largest) largest = p->sizes[i];
    best *table = kvant_alloc(largest + 1, sizeof *table);
    if (!table) return KVANT_ENOMEM;
    const char *text = p->text.data;
    kvant_status st = KVANT_OK;
    for (size_t i = 0; i < p->n && st == KVANT_OK; text += p->sizes[i++]) st = encode_piece(t, text, p->sizes[i], table, out);
    kvant_free(table);
    return st;
}
