// SPDX-License-Identifier: MIT
/* tokenizer_spm.c: SentencePiece's byte-pair encoding by scores.
 *
 * The text, spaces made visible, begins as single characters; the two neighbours whose joined text is the token with the highest
 * score are joined, until no two neighbours make a token. What is then no token is spelled in byte tokens. As in tokenizer_bpe.c
 * a heap keeps it at n log n, here over the whole text, since these vocabularies have no words. */
#include "text/merge_heap.h"
#include "text/tokenizer_internal.h"
#include "text/utf8.h"

typedef struct piece {
    int32_t previous, next;
    uint32_t offset, size; /* size 0: joined to the left */
} piece;

typedef struct scratch {
    const kvant_tokenizer *t;
    const char *text;
    piece *pieces;
    kvant_merge_heap heap; /* check[0]: the size of both pieces together, which pieces that have grown since do not match */
} scratch;

/* ---- joining ---- */

static kvant_status try_pair(scratch *s, int32_t left, int32_t right) {
    if (left < 0 || right < 0) return KVANT_OK;
    const piece *l = &s->pieces[left];
    uint32_t size = l->size + s->pieces[right].size;
    int32_t id = kvant_symbols_find(&s->t->symbols, s->text + l->offset, size);
    return id < 0 ? KVANT_OK : kvant_merge_heap_push(&s->heap, (kvant_merge_entry){-s->t->scores[id], left, right, {size, 0}, id});
}

static kvant_status join_pieces(scratch *s, size_t n) {
    for (size_t i = 1; i < n; i++) KVANT_TRY(try_pair(s, (int32_t)i - 1, (int32_t)i));
    while (s->heap.n) {
        kvant_merge_entry c = kvant_merge_heap_pop(&s->heap);
        piece *l = &s->pieces[c.left], *r = &s->pieces[c.right];
        if (l->size == 0 || r->size == 0 || l->size + r->size != c.check[0]) continue;
        l->size += r->size;
        r->size = 0;
        l->next = r->next;
        if (l->next >= 0) s->pieces[l->next].previous = c.left;
        KVANT_TRY(try_pair(s, l->previous, c.left));
        KVANT_TRY(try_pair(s, c.left, l->next));
    }
    return KVANT_OK;
}

static kvant_status emit(const scratch *s, const piece *p, kvant_id_list *out) {
    const kvant_tokenizer *t = s->t;
    int32_t id = kvant_symbols_find(&t->symbols, s->text + p->offset, p->size);
    if (id >= 0) return kvant_id_list_add(out, id);
    for (uint32_t i = 0; i < p->size; i++) {
        id = t->byte_ids[(uint8_t)s->text[p->offset + i]];
        if (id < 0) id = t->unk;
        if (id >= 0) KVANT_TRY(kvant_id_list_add(out, id));
    }
    return KVANT_OK;
}

/* The text with visible spaces; *out has room for the prefix and three bytes a byte. */
static size_t show_spaces(const char *text, size_t size, bool prefix_space, char *out) {
    size_t n = 0;
    if (prefix_space) {
        memcpy(out, KVANT_VISIBLE_SPACE, 3);
        n = 3;
    }
    for (size_t i = 0; i < size; i++) {
        if (text[i] == ' ') {
            memcpy(out + n, KVANT_VISIBLE_SPACE, 3);
            n += 3;
        } else {
            out[n++] = text[i];
        }
    }
    return n;
}

/* One piece a character, by what first bytes announce. pieces NULL: only counts. */
static size_t cut_characters(const char *text, size_t size, piece *pieces) {
    size_t n = 0;
    for (size_t i = 0; i < size; n++) {
        size_t length = kvant_utf8_length((uint8_t)text[i]);
        if (length > size - i) length = size - i;
        if (pieces) pieces[n] = (piece){(int32_t)n - 1, (int32_t)n + 1, (uint32_t)i, (uint32_t)length};
        i += length;
    }
    if (pieces && n) pieces[n - 1].next = -1;
    return n;
}

kvant_status kvant_spm_encode(const kvant_tokenizer *t, const char *text, size_t size, bool prefix_space, kvant_id_list *out,
                              kvant_error *err) {
    scratch s = {.t = t};
    size_t n_piece = 0;
    char *visible = kvant_alloc(size * 3 + 4, 1);
    if (visible) {
        size_t n = show_spaces(text, size, prefix_space, visible);
        n_piece = cut_characters(visible, n, NULL);
        s.pieces = kvant_alloc(n_piece + 1, sizeof *s.pieces);
        if (s.pieces) cut_characters(visible, n, s.pieces);
    }
    kvant_status st = s.pieces ? KVANT_OK : KVANT_ENOMEM;
    s.text = visible;
    if (st == KVANT_OK) st = join_pieces(&s, n_piece);
    for (int32_t i = 0; i >= 0 && n_piece && st == KVANT_OK; i = s.pieces[i].next) st = emit(&s, &s.pieces[i], out);
    kvant_free(visible);
    kvant_free(s.pieces);
    kvant_free(s.heap.entries);
    return st == KVANT_OK ? KVANT_OK : kvant_fail(err, st, "no memory for the tokens of a text of %zu bytes", size);
}
