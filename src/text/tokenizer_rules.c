// SPDX-License-Identifier: MIT
/* tokenizer_rules.c: runs the stages of a tokenizer.json over a text. */
#include "text/tokenizer_rules.h"
#include "text/utf8.h"

/* Steps may make a text longer; this much is enough for any that exist. */
#define MAX_GROWTH 64
#define MAX_SMALL ((size_t)1 << 20)

void kvant_rules_destroy(kvant_tokenizer_rules *r) {
    if (!r) return;
    kvant_steps_free(&r->normalizer);
    kvant_steps_free(&r->pre_tokenizer);
    kvant_added_free(&r->raw);
    kvant_added_free(&r->normalized);
    kvant_token_decoder_free(&r->decoder);
    kvant_free(r->shown_as);
    kvant_free(r->in_model);
    kvant_free(r->unigram.order);
    kvant_free(r->unigram.scores);
    kvant_free(r);
}

int32_t kvant_rules_find(const kvant_tokenizer *t, const char *text, size_t size) {
    int32_t id = kvant_symbols_find(&t->symbols, text, size);
    bool usable = id >= 0 && id < t->n_token && t->rules->in_model[id] && !(t->kinds[id] & KVANT_IS_CONTROL);
    return usable ? id : KVANT_NO_SYMBOL;
}

/* What one text needs on its way. */
typedef struct work {
    const kvant_tokenizer *t;
    bool parse_special;
    kvant_matcher *matcher;
    kvant_buffer clean, stretch, spare;
    kvant_pieces pieces, spare_pieces;
    kvant_id_list *out;
} work;

/* Valid UTF-8: what is no character becomes U+FFFD. */
static kvant_status clean_text(const char *text, size_t size, kvant_buffer *out) {
    for (size_t i = 0; i < size;) {
        size_t begin = i;
        while (i < size && (uint8_t)text[i] < 0x80) i++;
        KVANT_TRY(kvant_buffer_append(out, text + begin, i - begin));
        if (i == size) break;
        uint32_t code;
        char bytes[4];
        size_t length = kvant_utf8_read((const uint8_t *)text + i, size - i, &code);
        bool wrong = (code >= 0xD800 && code <= 0xDFFF) || kvant_utf8_write(code, bytes) != length;
        if (wrong) KVANT_TRY(kvant_buffer_append_str(out, "\xEF\xBF\xBD"));
        else KVANT_TRY(kvant_buffer_append(out, text + i, length));
        i += wrong ? 1 : length;
    }
    return KVANT_OK;
}

static kvant_status encode_pieces(work *w, const char *text, size_t size, bool at_start) {
    const kvant_tokenizer_rules *r = w->t->rules;
    KVANT_TRY(kvant_pieces_cut(&r->pre_tokenizer, w->matcher, text, size, at_start, &w->pieces, &w->spare_pieces));
    return r->is_unigram ? kvant_unigram_encode(w->t, &w->pieces, w->out) : kvant_bpe_encode_pieces(w->t, &w->pieces, w->out);
}

/* A stretch between added tokens: normalized, then the added tokens that are found only now, then the rest. */
static kvant_status encode_stretch(work *w, const char *text, size_t size, bool at_start) {
    const kvant_tokenizer_rules *r = w->t->rules;
    kvant_fragment *list = NULL;
    size_t n = 0;
    w->stretch.size = 0;
    KVANT_TRY(kvant_buffer_append(&w->stretch, text, size));
    KVANT_TRY(kvant_steps_rewrite(&r->normalizer, w->matcher, at_start, &w->stretch, &w->spare));
    if (w->stretch.size == 0) return KVANT_OK;
    KVANT_TRY(kvant_added_partition(&r->normalized, w->stretch.data, w->stretch.size, w->parse_special, &list, &n));
    kvant_status st = KVANT_OK;
    for (size_t i = 0; i < n && st == KVANT_OK; i++)
        st = list[i].id >= 0 ? kvant_id_list_add(w->out, list[i].id)
                             : encode_pieces(w, w->stretch.data + list[i].offset, list[i].size, at_start && list[i].offset == 0);
    kvant_free(list);
    return st;
}

static kvant_status encode_text(work *w, const char *text, size_t size) {
    kvant_fragment *list = NULL;
    size_t n = 0;
    KVANT_TRY(clean_text(text, size, &w->clean));
    if (w->clean.size == 0) return KVANT_OK;
    KVANT_TRY(kvant_added_partition(&w->t->rules->raw, w->clean.data, w->clean.size, w->parse_special, &list, &n));
    kvant_status st = KVANT_OK;
    for (size_t i = 0; i < n && st == KVANT_OK; i++)
        st = list[i].id >= 0 ? kvant_id_list_add(w->out, list[i].id)
                             : encode_stretch(w, w->clean.data + list[i].offset, list[i].size, list[i].offset == 0);
    kvant_free(list);
    return st;
}

static kvant_status fail_encode(kvant_status st, const work *w, size_t size, kvant_error *err) {
    char reason[KVANT_EXPRESSION_REASON];
    if (st == KVANT_EFULL) return kvant_fail(err, st, "a text of %zu bytes becomes too long on its way to tokens", size);
    if (st != KVANT_EUNSUPPORTED) return kvant_fail(err, st, "no memory for the tokens of a text of %zu bytes", size);
    if (w->t->rules->is_unigram && w->t->unk < 0)
        return kvant_fail(err, st, "this text cannot be tokenized: the vocabulary has no token for one of its characters and "
                          "names none for unknown ones");
    kvant_matcher_reason(w->matcher, reason);
    return kvant_fail(err, st, "this text cannot be tokenized: an expression of the tokenizer gave up: %s", reason);
}

kvant_status kvant_rules_encode(const kvant_tokenizer *t, const char *text, size_t size, kvant_tokenize_options options,
                                kvant_id_list *out, kvant_error *err) {
    const kvant_tokenizer_rules *r = t->rules;
    work w = {.t = t, .parse_special = options.parse_special, .out = out};
    size_t cap = size * MAX_GROWTH + MAX_SMALL;
    if (cap > INT32_MAX) cap = INT32_MAX;
    kvant_buffer_init(&w.clean, cap);
    kvant_buffer_init(&w.stretch, cap);
    kvant_buffer_init(&w.spare, cap);
    kvant_buffer_init(&w.pieces.text, cap);
    kvant_buffer_init(&w.spare_pieces.text, cap);
    kvant_status st = kvant_matcher_create(&w.matcher);
    for (int i = 0; options.add_special && i < r->n_before && st == KVANT_OK; i++) st = kvant_id_list_add(out, r->before[i]);
    if (st == KVANT_OK) st = encode_text(&w, text, size);
    for (int i = 0; options.add_special && i < r->n_after && st == KVANT_OK; i++) st = kvant_id_list_add(out, r->after[i]);
    if (st != KVANT_OK) fail_encode(st, &w, size, err);
    kvant_buffer_free(&w.clean);
    kvant_buffer_free(&w.stretch);
    kvant_buffer_free(&w.spare);
    kvant_pieces_free(&w.pieces);
    kvant_pieces_free(&w.spare_pieces);
    kvant_matcher_destroy(w.matcher);
    return st;
}
