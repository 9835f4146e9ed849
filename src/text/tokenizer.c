// SPDX-License-Identifier: MIT
/* tokenizer.c: makes a tokenizer from a vocabulary, and runs the stages of encoding and decoding.
 *
 * What a vocabulary file leaves unsaid is settled here once: the kinds of tokens that are known by their text, the tokens that
 * end a generation, the defaults of BOS and of the leading space. Encoding is: special tokens out (special_tokens.c), then the
 * rest by merges (tokenizer_bpe.c) or scores (tokenizer_spm.c). */
#include "text/tokenizer_rules.h"
#include "text/utf8.h"

#include <math.h>
#include <stdio.h>

#define MAX_TOKENS (1 << 26)

/* ---- what tokens are ---- */

/* Tokens that end a turn or a generation in some family of models. */
static const char *const END_TEXTS[] = {
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>", "<|endoftext|>",
    "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>", "<end_of_utterance>", "<eos>", "<turn|>",
    "<|tool_response>", ("<\xEF\xBD\x9C" "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>"), "[e~["};

/* Tokens of code completion that never belong to an answer: padding, repository and file separators. */
static const char *const END_FILL_TEXTS[] = {"<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]", "<|fim_repo|>",
                                             "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>", "<|file_sep|>"};

/* gpt-oss: part of an answer's structure, always shown and always found. */
static const char *const VISIBLE_TEXTS[] = {"<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"};

#define COUNT(a) (sizeof(a) / sizeof *(a))

int32_t kvant_tokenizer_find(const kvant_tokenizer *t, const char *text, size_t size) {
    int32_t id = kvant_symbols_find(&t->symbols, text, size);
    return id < t->n_token ? id : KVANT_NO_SYMBOL;
}

static int32_t find_text(const kvant_tokenizer *t, const char *text) { return kvant_tokenizer_find(t, text, strlen(text)); }

static bool ends(const kvant_tokenizer *t, const char *text) {
    int32_t id = find_text(t, text);
    return id >= 0 && t->ends[id];
}

static void mark_ends(kvant_tokenizer *t, int eot) {
    for (size_t i = 0; i < COUNT(END_FILL_TEXTS); i++) {
        int32_t id = find_text(t, END_FILL_TEXTS[i]);
        if (id < 0) continue;
        t->ends[id] = 1;
        t->kinds[id] |= KVANT_IS_CONTROL;
    }
    for (size_t i = 0; i < COUNT(END_TEXTS); i++) {
        int32_t id = find_text(t, END_TEXTS[i]);
        if (id < 0) continue;
        t->ends[id] = 1;
        t->kinds[id] |= KVANT_IS_CONTROL;
    }
    for (size_t i = 0; i < COUNT(VISIBLE_TEXTS); i++) {
        int32_t id = find_text(t, VISIBLE_TEXTS[i]);
        if (id >= 0) t->kinds[id] = KVANT_IS_USER_DEFINED;
    }
    if (t->eos >= 0) t->ends[t->eos] = 1;
    if (eot >= 0) t->ends[eot] = 1;
    /* <|end|> only closes a message where <|return|> and <|call|> exist; </s> means nothing to Gemma 4. */
    bool call = ends(t, "<|call|>") || ends(t, "<|calls|>");
    if (ends(t, "<|end|>") && call && (ends(t, "<|return|>") || ends(t, "<|flush|>"))) {
        int32_t id = find_text(t, "<|end|>");
        t->ends[id] = 0;
        t->kinds[id] = KVANT_IS_USER_DEFINED;
    }
    if (ends(t, "<|tool_response>") && ends(t, "</s>")) {
        int32_t id = find_text(t, "</s>");
        t->ends[id] = 0;
        t->kinds[id] = KVANT_IS_NORMAL;
    }
}

void kvant_tokenizer_mark_known_ends(kvant_tokenizer *t) {
    for (size_t i = 0; i < COUNT(END_TEXTS) + COUNT(END_FILL_TEXTS); i++) {
        const char *text = i < COUNT(END_TEXTS) ? END_TEXTS[i] : END_FILL_TEXTS[i - COUNT(END_TEXTS)];
        int32_t id = find_text(t, text);
        if (id >= 0 && t->kinds[id] & KVANT_IS_CONTROL) t->ends[id] = 1;
    }
    if (ends(t, "<|end|>") && ends(t, "<|call|>") && ends(t, "<|return|>")) t->ends[find_text(t, "<|end|>")] = 0;
}

/* Whether text holds word, without regard to case. */
static bool holds_word(const char *text, const char *word) {
    for (; *text; text++) {
        size_t i = 0;
        while (word[i] && (text[i] | 0x20) == (word[i] | 0x20)) i++;
        if (!word[i]) return true;
    }
    return false;
}

/* What files do not store: white space that special tokens swallow. */
static void mark_swallowing(kvant_tokenizer *t, const char *model_name, const char *pre) {
    if (model_name && (holds_word(model_name, "phi-3") || holds_word(model_name, "phi3"))) {
        int32_t keep[3] = {find_text(t, "<unk>"), find_text(t, "<s>"), find_text(t, "<|endoftext|>")},
                close = find_text(t, "</s>");
        for (int32_t id = 0; id < t->n_token; id++)
            if (t->kinds[id] & (KVANT_IS_CONTROL | KVANT_IS_USER_DEFINED | KVANT_IS_UNKNOWN))
                t->kinds[id] |= KVANT_SWALLOWS_RIGHT;
        if (close >= 0) t->kinds[close] |= KVANT_SWALLOWS_RIGHT;
        for (int i = 0; i < 3; i++)
            if (keep[i] >= 0) t->kinds[keep[i]] &= (uint8_t)~KVANT_SWALLOWS_RIGHT;
    }
    int32_t mask = find_text(t, "<mask>");
    if (mask >= 0 && pre && strncmp(pre, "jina-v2-", 8) == 0) t->kinds[mask] |= KVANT_SWALLOWS_LEFT;
}

static uint8_t kind_of_type(int type) {
    switch (type) {
    case KVANT_TOKEN_NORMAL: return KVANT_IS_NORMAL;
    case KVANT_TOKEN_UNKNOWN: return KVANT_IS_UNKNOWN;
    case KVANT_TOKEN_CONTROL: return KVANT_IS_CONTROL;
    case KVANT_TOKEN_USER_DEFINED: return KVANT_IS_USER_DEFINED;
    case KVANT_TOKEN_UNUSED: return KVANT_IS_UNUSED;
    case KVANT_TOKEN_BYTE: return KVANT_IS_BYTE;
    default: return 0; /* undefined: shown as nothing */
    }
}

/* ---- reading the vocabulary ---- */

static kvant_status read_tokens(kvant_tokenizer *t, const kvant_vocab_source *v, kvant_error *err) {
    for (int i = 0; i < v->n_token; i++) {
        size_t size = 0;
        const char *text = v->token(v->user, i, &size);
        if (!text && size) return kvant_fail(err, KVANT_EFORMAT, "%s: token %d cannot be read", v->name, i);
        int32_t id;
        kvant_status st = kvant_symbols_add(&t->symbols, text, size, &id);
        if (st == KVANT_EFORMAT)
            return kvant_fail(err, st, "%s: tokens %d and %d have the same text, of %zu bytes", v->name, (int)id, i, size);
        if (st != KVANT_OK)
            return kvant_fail(err, st, "%s: no room for token %d of %d, of %zu bytes", v->name, i, v->n_token, size);
        t->kinds[i] = v->type ? kind_of_type(v->type(v->user, i)) : KVANT_IS_NORMAL;
        if (t->scores && v->score) {
            float score = v->score(v->user, i);
            t->scores[i] = isnan(score) ? -INFINITY : score;
        }
    }
    return KVANT_OK;
}

/* The symbol of a text, added if it is new. */
static kvant_status intern(kvant_tokenizer *t, const char *text, size_t size, int32_t *id) {
    kvant_status st = kvant_symbols_add(&t->symbols, text, size, id);
    return st == KVANT_EFORMAT ? KVANT_OK : st;
}

static kvant_status read_merges(kvant_tokenizer *t, const kvant_vocab_source *v, kvant_error *err) {
    kvant_status st = kvant_merges_create(v->n_merge, &t->merges, &t->merge_mask);
    kvant_buffer joined;
    kvant_buffer_init(&joined, INT32_MAX);
    for (int i = 0; i < v->n_merge && st == KVANT_OK; i++) {
        size_t size = 0;
        const char *text = v->merge(v->user, i, &size);
        /* The parts hold no space, except that the first may be one. */
        const char *space = text && size > 2 ? memchr(text + 1, ' ', size - 1) : NULL;
        if (!space || space + 1 == text + size) {
            kvant_buffer_free(&joined);
            return kvant_fail(err, KVANT_EFORMAT, "%s: merge %d of %d is not two parts with a space between", v->name, i,
                              v->n_merge);
        }
        kvant_merge m = {.rank = i};
        size_t n_left = (size_t)(space - text);
        joined.size = 0;
        st = kvant_buffer_append(&joined, text, n_left);
        if (st == KVANT_OK) st = kvant_buffer_append(&joined, space + 1, size - n_left - 1);
        if (st == KVANT_OK) st = intern(t, text, n_left, &m.left);
        if (st == KVANT_OK) st = intern(t, space + 1, size - n_left - 1, &m.right);
        if (st == KVANT_OK) st = intern(t, joined.data, joined.size, &m.result);
        if (st == KVANT_OK) kvant_merges_add(t->merges, t->merge_mask, m);
    }
    kvant_buffer_free(&joined);
    return st == KVANT_OK ? st : kvant_fail(err, st, "%s: no memory for %d merges", v->name, v->n_merge);
}

/* Byte letters, or <0x..> tokens, or the bytes themselves where a vocabulary has those. */
static void find_byte_ids(kvant_tokenizer *t) {
    for (int b = 0; b < 256; b++) {
        char text[8];
        if (t->pre && !t->pre->raw) {
            t->byte_ids[b] = kvant_symbols_find(&t->symbols, text, kvant_utf8_write(kvant_byte_letter((uint8_t)b), text));
            continue;
        }
        snprintf(text, sizeof text, "<0x%02X>", (unsigned)b);
        t->byte_ids[b] = find_text(t, text);
        text[0] = (char)b;
        if (t->byte_ids[b] < 0) t->byte_ids[b] = kvant_tokenizer_find(t, text, 1);
    }
}

static kvant_status check_special(const kvant_vocab_source *v, const char *what, int id, int fallback, int *out,
                                  kvant_error *err) {
    if (id >= v->n_token || id < -1)
        return kvant_fail(err, KVANT_EFORMAT, "%s: the %s token is %d, but there are %d tokens", v->name, what, id, v->n_token);
    *out = id >= 0 ? id : fallback < v->n_token ? fallback : -1;
    return KVANT_OK;
}

static kvant_status choose_model(kvant_tokenizer *t, const kvant_vocab_source *v, kvant_error *err) {
    if (!v->model) return kvant_fail(err, KVANT_EFORMAT, "%s: tokenizer.ggml.model is missing", v->name);
    if (strcmp(v->model, "llama") == 0) {
        t->sentencepiece = true;
        return KVANT_OK;
    }
    bool gemma4 = strcmp(v->model, "gemma4") == 0;
    if (!gemma4 && strcmp(v->model, "gpt2") != 0)
        return kvant_fail(
            err, KVANT_EUNSUPPORTED,
            "%s: tokenizer model '%s' is not supported; supported are gpt2 (byte-level BPE), llama (SentencePiece BPE) "
            "and gemma4",
            v->name, v->model);
    const char *pre = gemma4 ? "gemma4" : v->pre;
    if (!pre || !*pre) {
        kvant_log(KVANT_LOG_WARNING,
                  "%s: tokenizer.ggml.pre is missing: using the pre-tokenizer 'default', which may not be the model's", v->name);
        pre = "default";
    }
    t->pre = kvant_pretokenizer_find(pre);
    if (t->pre) return KVANT_OK;
    char nearest[128];
    kvant_pretokenizer_nearest(pre, nearest, sizeof nearest);
    return kvant_fail(err, KVANT_EUNSUPPORTED,
                      "%s: pre-tokenizer '%.64s' (tokenizer.ggml.pre) is unknown; the nearest known names are %s", v->name, pre,
                      nearest);
}

static kvant_status choose_special(kvant_tokenizer *t, const kvant_vocab_source *v, kvant_error *err) {
    int eot = -1;
    bool spm = t->sentencepiece;
    KVANT_TRY(check_special(v, "BOS", v->bos_id, spm ? 1 : -1, &t->bos, err));
    KVANT_TRY(check_special(v, "EOS", v->eos_id, spm ? 2 : -1, &t->eos, err));
    KVANT_TRY(check_special(v, "unknown", v->unk_id, spm ? 0 : -1, &t->unk, err));
    KVANT_TRY(check_special(v, "EOT", v->eot_id, -1, &eot, err));
    if (v->add_bos == 1 && t->bos < 0)
        return kvant_fail(err, KVANT_EFORMAT, "%s: a text shall begin with BOS, but no token is BOS", v->name);
    if (v->add_eos == 1 && t->eos < 0)
        return kvant_fail(err, KVANT_EFORMAT, "%s: a text shall end with EOS, but no token is EOS", v->name);
    bool gemma4 = t->pre && t->pre->newline_runs; /* its files say false and mean true */
    t->add_bos = t->bos >= 0 && (gemma4 || (v->add_bos >= 0 ? v->add_bos != 0 : spm || t->pre->add_bos));
    t->add_eos = t->eos >= 0 && v->add_eos == 1;
    t->add_space_prefix = spm && v->add_space_prefix != 0;
    mark_ends(t, eot);
    mark_swallowing(t, v->model_name, v->pre);
    return KVANT_OK;
}

static kvant_status fill(kvant_tokenizer *t, const kvant_vocab_source *v, kvant_error *err) {
    KVANT_TRY(choose_model(t, v, err));
    if (v->n_token < 1 || v->n_token > MAX_TOKENS)
        return kvant_fail(err, KVANT_EFORMAT, "%s: %d tokens; expected 1 to %d", v->name, v->n_token, MAX_TOKENS);
    t->n_token = v->n_token;
    size_t n = (size_t)v->n_token;
    t->kinds = kvant_alloc(n, sizeof *t->kinds);
    t->ends = kvant_alloc(n, sizeof *t->ends);
    if (t->sentencepiece) t->scores = kvant_alloc(n, sizeof *t->scores);
    if (!t->kinds || !t->ends || (t->sentencepiece && !t->scores) || kvant_symbols_init(&t->symbols, v->n_token) != KVANT_OK)
        return kvant_fail(err, KVANT_ENOMEM, "%s: no memory for %d tokens", v->name, v->n_token);
    KVANT_TRY(read_tokens(t, v, err));
    if (!t->sentencepiece) KVANT_TRY(read_merges(t, v, err));
    find_byte_ids(t);
    KVANT_TRY(choose_special(t, v, err));
    if (kvant_special_prepare(t) != KVANT_OK) return kvant_fail(err, KVANT_ENOMEM, "%s: no memory for special tokens", v->name);
    return t->pre ? kvant_splitter_create(t->pre, &t->splitter, err) : KVANT_OK;
}

kvant_status kvant_tokenizer_create(const kvant_vocab_source *source, kvant_tokenizer **out, kvant_error *err) {
    kvant_tokenizer *t = kvant_alloc(1, sizeof *t);
    if (!t) return kvant_fail(err, KVANT_ENOMEM, "%s: no memory for a tokenizer", source->name);
    kvant_status st = fill(t, source, err);
    if (st != KVANT_OK) {
        kvant_tokenizer_destroy(t);
        return st;
    }
    *out = t;
    return KVANT_OK;
}

void kvant_tokenizer_destroy(kvant_tokenizer *t) {
    if (!t) return;
    kvant_rules_destroy(t->rules);
    kvant_splitter_destroy(t->splitter);
    kvant_symbols_free(&t->symbols);
    kvant_free(t->scores);
    kvant_free(t->kinds);
    kvant_free(t->ends);
    kvant_free(t->merges);
    kvant_free(t->classes);
    kvant_free(t);
}

int kvant_tokenizer_n_token(const kvant_tokenizer *t) { return t->n_token; }
int kvant_tokenizer_bos(const kvant_tokenizer *t) { return t->bos; }
int kvant_tokenizer_eos(const kvant_tokenizer *t) { return t->eos; }
bool kvant_tokenizer_adds_bos(const kvant_tokenizer *t) { return t->add_bos; }
bool kvant_tokenizer_is_end(const kvant_tokenizer *t, int32_t id) { return id >= 0 && id < t->n_token && t->ends[id]; }

/* ---- encoding ---- */

static kvant_status encode_fragments(const kvant_tokenizer *t, const char *text, const kvant_fragment *fragments, size_t n,
                                     kvant_id_list *out, kvant_error *err) {
    bool after_special = true; /* the beginning counts as one */
    for (size_t i = 0; i < n; i++) {
        const kvant_fragment *f = &fragments[i];
        if (f->id >= 0) {
            if (kvant_id_list_add(out, f->id) != KVANT_OK) return kvant_fail(err, KVANT_ENOMEM, "no memory for token ids");
        } else if (t->sentencepiece) {
            KVANT_TRY(kvant_spm_encode(t, text + f->offset, f->size, t->add_space_prefix && after_special, out, err));
        } else {
            KVANT_TRY(kvant_bpe_encode(t, text + f->offset, f->size, out, err));
        }
        after_special = f->id >= 0;
    }
    return KVANT_OK;
}

/* The list becomes the caller's, or is freed. */
static kvant_status finish_ids(kvant_status st, kvant_id_list *list, int32_t **ids, int *n, kvant_error *err) {
    if (st == KVANT_OK && list->n > INT32_MAX) st = kvant_fail(err, KVANT_EFULL, "a text of %zu tokens; at most %d", list->n, INT32_MAX);
    if (st == KVANT_OK && !list->ids) { /* no tokens: still an array that the caller frees */
        list->ids = kvant_alloc(1, sizeof *list->ids);
        if (!list->ids) st = kvant_fail(err, KVANT_ENOMEM, "no memory for token ids");
    }
    if (st != KVANT_OK) {
        kvant_free(list->ids);
        return st;
    }
    *ids = list->ids;
    *n = (int)list->n;
    return KVANT_OK;
}

kvant_status kvant_tokenizer_encode(const kvant_tokenizer *t, const char *text, size_t size, kvant_tokenize_options options,
                                    int32_t **ids, int *n, kvant_error *err) {
    if (size > KVANT_TOKENIZE_MAX_BYTES)
        return kvant_fail(err, KVANT_EINVAL, "a text of %zu bytes; at most %zu are tokenized at once", size,
                          KVANT_TOKENIZE_MAX_BYTES);
    kvant_fragment *fragments = NULL;
    size_t n_fragment = 0;
    kvant_id_list list = {0};
    kvant_status st = KVANT_OK;
    if (t->rules) {
        st = kvant_rules_encode(t, text, size, options, &list, err);
        return finish_ids(st, &list, ids, n, err);
    }
    if (options.add_special && t->add_bos) st = kvant_id_list_add(&list, t->bos);
    if (st == KVANT_OK && size) st = kvant_special_partition(t, text, size, options.parse_special, &fragments, &n_fragment);
    if (st != KVANT_OK) kvant_fail(err, st, "no memory for the tokens of a text of %zu bytes", size);
    else st = encode_fragments(t, text, fragments, n_fragment, &list, err);
    if (st == KVANT_OK && options.add_special && t->add_eos) st = kvant_id_list_add(&list, t->eos);
    kvant_free(fragments);
    return finish_ids(st, &list, ids, n, err);
}

/* ---- decoding ---- */

static int hex_digit(char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int kvant_byte_of_text(const char *text, size_t size) {
    if (size != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>') return -1;
    int high = hex_digit(text[3]), low = hex_digit(text[4]);
    return high < 0 || low < 0 ? -1 : high << 4 | low;
}

/* Visible spaces become spaces again. */
static kvant_status append_hiding_spaces(const char *text, size_t size, kvant_buffer *out) {
    size_t begin = 0;
    for (size_t i = 0; i + 3 <= size;) {
        if (memcmp(text + i, KVANT_VISIBLE_SPACE, 3) != 0) {
            i++;
            continue;
        }
        KVANT_TRY(kvant_buffer_append(out, text + begin, i - begin));
        KVANT_TRY(kvant_buffer_append(out, " ", 1));
        begin = i += 3;
    }
    return kvant_buffer_append(out, text + begin, size - begin);
}

/* Byte letters become bytes; what is none stays as it is. */
static kvant_status append_letters(const char *text, size_t size, kvant_buffer *out) {
    for (size_t i = 0; i < size;) {
        uint32_t code;
        size_t length = kvant_utf8_read((const uint8_t *)text + i, size - i, &code);
        int byte = kvant_letter_byte(code);
        char one = (char)byte;
        KVANT_TRY(byte >= 0 ? kvant_buffer_append(out, &one, 1) : kvant_buffer_append(out, text + i, length));
        i += length;
    }
    return KVANT_OK;
}

static kvant_status append_token(const kvant_tokenizer *t, int32_t id, bool special, bool first, kvant_buffer *out) {
    size_t size;
    const char *text = kvant_symbol_text(&t->symbols, id, &size);
    int kind = t->kinds[id];
    if (size == 0) return KVANT_OK;
    if (t->rules) {
        if (!special && kind & KVANT_IS_CONTROL) return KVANT_OK;
        int32_t shown = t->rules->shown_as ? t->rules->shown_as[id] : 0;
        if (shown) text = kvant_symbol_text(&t->rules->normalized.texts, shown - 1, &size);
        return kvant_token_decoder_spell(&t->rules->decoder, text, size, first, out);
    }
    if (kind & (KVANT_IS_CONTROL | KVANT_IS_UNKNOWN)) return special ? kvant_buffer_append(out, text, size) : KVANT_OK;
    if (kind & KVANT_IS_USER_DEFINED) return kvant_buffer_append(out, text, size);
    if (kind & KVANT_IS_NORMAL)
        return t->sentencepiece || t->pre->visible_spaces ? append_hiding_spaces(text, size, out)
               : t->pre->raw                              ? kvant_buffer_append(out, text, size)
                                                          : append_letters(text, size, out);
    int byte = kind & KVANT_IS_BYTE ? kvant_byte_of_text(text, size) : -1;
    char one = (char)byte;
    return byte >= 0 ? kvant_buffer_append(out, &one, 1) : KVANT_OK;
}

kvant_status kvant_tokenizer_decode(const kvant_tokenizer *t, int32_t id, bool special, kvant_buffer *out) {
    return kvant_tokenizer_decode_at(t, id, special, false, out);
}

kvant_status kvant_tokenizer_decode_at(const kvant_tokenizer *t, int32_t id, bool special, bool first, kvant_buffer *out) {
    if (id < 0 || id >= t->n_token) return KVANT_EINVAL;
    size_t before = out->size;
    kvant_status st = append_token(t, id, special, first, out);
    if (st != KVANT_OK && out->data) { /* all or nothing */
        out->size = before;
        out->data[before] = '\0';
    }
    return st;
}

bool kvant_tokenizer_drops_first_space(const kvant_tokenizer *t) { return t->add_space_prefix; }
