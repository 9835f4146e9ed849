// SPDX-License-Identifier: MIT
/* tokenizer_bpe.c: byte-pair encoding by merge ranks.
 *
 * A text is cut into words by the pre-tokenizer; in each word, which begins as single characters, the neighbours with the lowest
 * rank are merged until no merge is left. A heap holds the possible merges, and entries whose symbols have changed since are
 * passed over when they come up, so a word of n characters takes n log n steps however long it is. */
#include "text/merge_heap.h"
#include "text/tokenizer_rules.h"
#include "text/utf8.h"

/* One symbol of the word; merged ones keep their left end. */
typedef struct node {
    int32_t id; /* KVANT_NO_SYMBOL: a character that is in no token, or a node that was merged away (size 0) */
    int32_t previous, next;
    uint32_t offset, size; /* in the text */
} node;

typedef struct scratch {
    const kvant_tokenizer *t;
    node *nodes;
    size_t n_node, node_room;
    kvant_merge_heap heap; /* check: the ids of the two nodes */
} scratch;

/* ---- merging one word ---- */

static kvant_status try_pair(scratch *s, int32_t left, int32_t right) {
    if (left < 0 || right < 0) return KVANT_OK;
    const node *l = &s->nodes[left], *r = &s->nodes[right];
    const kvant_merge *m = kvant_merges_find(s->t->merges, s->t->merge_mask, l->id, r->id);
    if (!m) return KVANT_OK;
    return kvant_merge_heap_push(&s->heap, (kvant_merge_entry){m->rank, left, right, {(uint32_t)l->id, (uint32_t)r->id}, m->result});
}

static kvant_status merge_nodes(scratch *s) {
    s->heap.n = 0;
    for (size_t i = 1; i < s->n_node; i++) KVANT_TRY(try_pair(s, (int32_t)i - 1, (int32_t)i));
    while (s->heap.n) {
        kvant_merge_entry c = kvant_merge_heap_pop(&s->heap);
        node *l = &s->nodes[c.left], *r = &s->nodes[c.right];
        if ((uint32_t)l->id != c.check[0] || (uint32_t)r->id != c.check[1] || l->next != c.right || l->size == 0) continue;
        l->id = c.result;
        l->size += r->size;
        l->next = r->next;
        r->size = 0;
        r->id = KVANT_NO_SYMBOL;
        if (l->next >= 0) s->nodes[l->next].previous = c.left;
        KVANT_TRY(try_pair(s, l->previous, c.left));
        KVANT_TRY(try_pair(s, c.left, l->next));
    }
    return KVANT_OK;
}

static kvant_status node_room(scratch *s, size_t n) {
    if (n <= s->node_room) return KVANT_OK;
    node *nodes = kvant_realloc(s->nodes, n, sizeof *nodes);
    if (!nodes) return KVANT_ENOMEM;
    s->nodes = nodes;
    s->node_room = n;
    return KVANT_OK;
}

/* The characters of a word as nodes: bytes, or UTF-8 characters for raw vocabularies. */
static kvant_status begin_word(scratch *s, const char *text, size_t offset, size_t size) {
    KVANT_TRY(node_room(s, size));
    bool raw = s->t->pre->raw;
    size_t n = 0;
    for (size_t i = 0; i < size; n++) {
        uint8_t byte = (uint8_t)text[offset + i];
        size_t length = raw ? kvant_utf8_length(byte) : 1;
        if (length > size - i) length = size - i;
        int32_t id = raw ? kvant_symbols_find(&s->t->symbols, text + offset + i, length) : s->t->byte_ids[byte];
        s->nodes[n] = (node){id, (int32_t)n - 1, (int32_t)n + 1, (uint32_t)(offset + i), (uint32_t)length};
        i += length;
    }
    if (n) s->nodes[n - 1].next = -1;
    s->n_node = n;
    return KVANT_OK;
}

static kvant_status emit(const scratch *s, const char *text, const node *x, kvant_id_list *out) {
    const kvant_tokenizer *t = s->t;
    if (x->id >= 0 && x->id < t->n_token) return kvant_id_list_add(out, x->id);
    for (uint32_t i = 0; i < x->size; i++) { /* no token: its bytes, as far as there are tokens for
                                                them; others are lost, as they are in the models' own tokenizers */
        int32_t id = t->byte_ids[(uint8_t)text[x->offset + i]];
        if (id >= 0 && id < t->n_token) KVANT_TRY(kvant_id_list_add(out, id));
    }
    return KVANT_OK;
}

/* ---- words that are tokens ---- */

/* The token of a whole word, or KVANT_NO_SYMBOL. */
static int32_t whole_word(const kvant_tokenizer *t, const char *word, size_t size) {
    char letters[256];
    if (t->pre->raw) {
        int32_t id = kvant_symbols_find(&t->symbols, word, size);
        return id < t->n_token ? id : KVANT_NO_SYMBOL;
    }
    if (size > sizeof letters / 2) return KVANT_NO_SYMBOL;
    size_t n = 0;
    for (size_t i = 0; i < size; i++) n += kvant_utf8_write(kvant_byte_letter((uint8_t)word[i]), letters + n);
    int32_t id = kvant_symbols_find(&t->symbols, letters, n);
    return id < t->n_token ? id : KVANT_NO_SYMBOL;
}

static bool all_newlines(const char *word, size_t size) {
    for (size_t i = 0; i < size; i++)
        if (word[i] != '\n') return false;
    return true;
}

static kvant_status encode_word(scratch *s, const char *text, size_t offset, size_t size, kvant_id_list *out) {
    const kvant_pretokenizer *pre = s->t->pre;
    if (pre->ignore_merges || (pre->newline_runs && all_newlines(text + offset, size))) {
        int32_t id = whole_word(s->t, text + offset, size);
        if (id >= 0) return kvant_id_list_add(out, id);
    }
    KVANT_TRY(begin_word(s, text, offset, size));
    KVANT_TRY(merge_nodes(s));
    for (int32_t i = 0; i >= 0 && s->n_node; i = s->nodes[i].next) KVANT_TRY(emit(s, text, &s->nodes[i], out));
    return KVANT_OK;
}

/* ---- a text ---- */

/* Well-formed UTF-8: what is no character becomes U+FFFD; spaces become visible where the vocabulary has them so. */
static kvant_status normalize(const kvant_tokenizer *t, const char *text, size_t size, char **out, size_t *out_size) {
    char *to = kvant_alloc(size * 3 + 1, 1); /* a stray byte becomes three */
    if (!to) return KVANT_ENOMEM;
    size_t n = 0;
    for (size_t i = 0; i < size;) {
        uint8_t byte = (uint8_t)text[i];
        if (byte < 0x80) {
            i++;
            if (byte == ' ' && t->pre->visible_spaces) {
                memcpy(to + n, KVANT_VISIBLE_SPACE, 3);
                n += 3;
            } else {
                to[n++] = (char)byte;
            }
            continue;
        }
        uint32_t code;
        i += kvant_utf8_read((const uint8_t *)text + i, size - i, &code);
        n += kvant_utf8_write(code, to + n);
    }
    *out = to;
    *out_size = n;
    return KVANT_OK;
}

kvant_status kvant_bpe_encode(const kvant_tokenizer *t, const char *text, size_t size, kvant_id_list *out, kvant_error *err) {
    char *clean = NULL;
    uint32_t *sizes = NULL;
    size_t n_clean = 0, n_words = 0, offset = 0;
    scratch s = {.t = t};
    kvant_status st = normalize(t, text, size, &clean, &n_clean);
    if (st == KVANT_OK) {
        st = kvant_splitter_run(t->splitter, clean, n_clean, &sizes, &n_words, err);
        if (st != KVANT_OK) {
            kvant_free(clean);
            return st;
        }
    }
    for (size_t i = 0; i < n_words && st == KVANT_OK; offset += sizes[i++]) st = encode_word(&s, clean, offset, sizes[i], out);
    kvant_free(clean);
    kvant_free(sizes);
    kvant_free(s.nodes);
    kvant_free(s.heap.entries);
    return st == KVANT_OK ? KVANT_OK : kvant_fail(err, st, "no memory for the tokens of a text of %zu bytes", size);
}

/* ---- the pieces of a tokenizer.json ---- */

/* The characters of a piece as tokens: themselves, their bytes, or the unknown token; without any of these a character is lost.
 * Unknown ones in a row may be one token. */
static kvant_status begin_piece(scratch *s, const char *text, size_t size) {
    const kvant_tokenizer *t = s->t;
    const kvant_tokenizer_rules *r = t->rules;
    bool pending = false; /* an unknown token that is not a node yet */
    size_t n = 0;
    KVANT_TRY(node_room(s, size + 1));
    for (size_t i = 0; i < size;) {
        size_t length = kvant_utf8_length((uint8_t)text[i]);
        if (length > size - i) length = size - i;
        int32_t id = kvant_rules_find(t, text + i, length);
        bool bytes = id < 0 && r->byte_fallback;
        for (size_t k = 0; k < length && bytes; k++) bytes = t->byte_ids[(uint8_t)text[i + k]] >= 0;
        if (pending && (id >= 0 || (!bytes && !r->fuse_unk && t->unk >= 0))) {
            s->nodes[n++].id = t->unk;
            pending = false;
        }
        if (id >= 0) s->nodes[n++].id = id;
        else if (bytes)
            for (size_t k = 0; k < length; k++) s->nodes[n++].id = t->byte_ids[(uint8_t)text[i + k]];
        else if (t->unk >= 0) pending = true;
        i += length;
    }
    if (pending) s->nodes[n++].id = t->unk;
    for (size_t i = 0; i < n; i++) {
        s->nodes[i].previous = (int32_t)i - 1;
        s->nodes[i].next = i + 1 < n ? (int32_t)i + 1 : -1;
        s->nodes[i].offset = (uint32_t)i;
        s->nodes[i].size = 1;
    }
    s->n_node = n;
    return KVANT_OK;
}

static kvant_status encode_piece(scratch *s, const char *text, size_t size, kvant_id_list *out) {
    if (s->t->rules->ignore_merges) {
        int32_t id = kvant_rules_find(s->t, text, size);
        if (id >= 0) return kvant_id_list_add(out, id);
    }
    KVANT_TRY(begin_piece(s, text, size));
    KVANT_TRY(merge_nodes(s));
    for (int32_t i = 0; i >= 0 && s->n_node; i = s->nodes[i].next) KVANT_TRY(kvant_id_list_add(out, s->nodes[i].id));
    return KVANT_OK;
}

kvant_status kvant_bpe_encode_pieces(const kvant_tokenizer *t, const kvant_pieces *p, kvant_id_list *out) {
    scratch s = {.t = t};
    const char *text = p->text.data;
    kvant_status st = KVANT_OK;
    for (size_t i = 0; i < p->n && st == KVANT_OK; text += p->sizes[i++]) st = encode_piece(&s, text, p->sizes[i], out);
    kvant_free(s.nodes);
    kvant_free(s.heap.entries);
    return st;
}
