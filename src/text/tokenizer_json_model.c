// SPDX-License-Identifier: MIT
/* tokenizer_json_model.c: the model of a tokenizer.json: its vocabulary, then merges or scores. */
#include <stdio.h>

#include "text/tokenizer_json_internal.h"

/* The penalty of an unknown character below the lowest score. */
#define UNKNOWN_PENALTY 10.0

/* Files from before the field existed: what they hold tells. */
static const char *model_type(const kvant_json_reader *j) {
    const json_t *type = json_object_get(j->model, "type");
    if (json_is_string(type)) return json_string_value(type);
    return json_is_array(j->vocab) ? "Unigram" : json_object_get(j->model, "merges") ? "BPE" : "WordLevel";
}

static kvant_status read_bpe_vocabulary(kvant_json_reader *j) {
    const char *text;
    json_t *id;
    if (!json_is_object(j->vocab)) return kvant_json_wrong(j, "model.vocab", j->vocab, "an object of token ids");
    size_t n = json_object_size(j->vocab);
    j->n_named = n < (1 << 20) ? (int)n : 1 << 20; /* so that ids may come in any order */
    json_object_foreach(j->vocab, text, id) {
        if (!json_is_integer(id)) return kvant_json_wrong(j, "model.vocab: an id", id, "an integer");
        KVANT_TRY(kvant_json_add_token(j, text, strlen(text), json_integer_value(id), true));
    }
    return KVANT_OK;
}

static kvant_status read_unigram_vocabulary(kvant_json_reader *j) {
    const json_t *entry;
    size_t i;
    if (!json_is_array(j->vocab)) return kvant_json_wrong(j, "model.vocab", j->vocab, "an array of [piece, score]");
    json_array_foreach(j->vocab, i, entry) {
        const json_t *text = json_array_get(entry, 0);
        if (!json_is_string(text)) return kvant_json_wrong(j, "model.vocab: a piece", text, "a string");
        if (!json_is_number(json_array_get(entry, 1)))
            return kvant_json_wrong(j, "model.vocab: a score", json_array_get(entry, 1), "a number");
        KVANT_TRY(kvant_json_add_token(j, json_string_value(text), json_string_length(text), (json_int_t)i, true));
    }
    return KVANT_OK;
}

kvant_status kvant_json_read_vocabulary(kvant_json_reader *j) {
    j->model = json_object_get(j->root, "model");
    if (!json_is_object(j->model)) return kvant_json_wrong(j, "model", j->model, "an object");
    j->vocab = json_object_get(j->model, "vocab");
    const char *type = model_type(j);
    j->r->is_unigram = strcmp(type, "Unigram") == 0;
    if (j->r->is_unigram) return read_unigram_vocabulary(j);
    if (strcmp(type, "BPE") != 0) return kvant_json_refuse(j, "model", type, "BPE and Unigram");
    return read_bpe_vocabulary(j);
}

/* ---- BPE ---- */

/* The two parts of a merge, as one string with a space or as a pair. */
static kvant_status merge_parts(const kvant_json_reader *j, const json_t *merge, const char *part[2], size_t size[2]) {
    if (json_is_string(merge)) {
        const char *text = json_string_value(merge), *space = strchr(text, ' ');
        if (!space || strchr(space + 1, ' ')) return kvant_json_wrong(j, "model.merges: a merge", merge, "two parts with a space between");
        part[0] = text;
        size[0] = (size_t)(space - text);
        part[1] = space + 1;
        size[1] = json_string_length(merge) - size[0] - 1;
        return KVANT_OK;
    }
    for (size_t i = 0; i < 2; i++) {
        const json_t *x = json_array_get(merge, i);
        if (!json_is_string(x) || json_array_size(merge) != 2)
            return kvant_json_wrong(j, "model.merges: a merge", merge, "a string or two strings");
        part[i] = json_string_value(x);
        size[i] = json_string_length(x);
    }
    return KVANT_OK;
}

static kvant_status read_merge(kvant_json_reader *j, const json_t *merge, int rank, kvant_buffer *joined) {
    const char *part[2];
    size_t size[2];
    kvant_merge m = {.rank = rank};
    KVANT_TRY(merge_parts(j, merge, part, size));
    joined->size = 0;
    if (kvant_buffer_append(joined, part[0], size[0]) != KVANT_OK || kvant_buffer_append(joined, part[1], size[1]) != KVANT_OK)
        return kvant_json_no_memory(j);
    m.left = kvant_symbols_find(&j->t->symbols, part[0], size[0]);
    m.right = kvant_symbols_find(&j->t->symbols, part[1], size[1]);
    m.result = kvant_symbols_find(&j->t->symbols, joined->data, joined->size);
    if (m.left < 0 || m.right < 0 || m.result < 0) {
        char shown[48];
        return kvant_fail(j->err, KVANT_EFORMAT, "%s/%s: merge %d makes \"%s\" of tokens, of which at least one is not in the vocabulary",
                          j->name, j->file, rank, kvant_json_show(joined->data, shown));
    }
    kvant_merges_add(j->t->merges, j->t->merge_mask, m);
    return KVANT_OK;
}

static kvant_status read_merges(kvant_json_reader *j) {
    const json_t *merges = json_object_get(j->model, "merges");
    size_t n = json_array_size(merges);
    if (!json_is_array(merges)) return kvant_json_wrong(j, "model.merges", merges, "an array");
    if (n > INT32_MAX / 4 || kvant_merges_create((int)n, &j->t->merges, &j->t->merge_mask) != KVANT_OK) return kvant_json_no_memory(j);
    kvant_buffer joined;
    kvant_buffer_init(&joined, KVANT_TOKENIZER_JSON_MAX);
    kvant_status st = KVANT_OK;
    /* From the end: of two merges of one pair the later one counts. */
    for (size_t i = n; i-- > 0 && st == KVANT_OK;) st = read_merge(j, json_array_get(merges, i), (int)i, &joined);
    kvant_buffer_free(&joined);
    return st;
}

/* An affix that must be absent. */
static kvant_status check_no_affix(const kvant_json_reader *j, const char *key) {
    const char *text;
    size_t size;
    char where[64];
    KVANT_TRY(kvant_json_string(j, j->model, "model", key, &text, &size));
    if (!text || !size) return KVANT_OK;
    snprintf(where, sizeof where, "model.%s", key);
    return kvant_json_refuse(j, where, text, "models without it");
}

static kvant_status read_bpe(kvant_json_reader *j) {
    const char *unknown;
    size_t size;
    const json_t *dropout = json_object_get(j->model, "dropout");
    if (dropout && !json_is_null(dropout) && !(json_is_number(dropout) && json_number_value(dropout) == 0))
        return kvant_json_wrong(j, "model.dropout", dropout, "null");
    KVANT_TRY(check_no_affix(j, "continuing_subword_prefix"));
    KVANT_TRY(check_no_affix(j, "end_of_word_suffix"));
    KVANT_TRY(kvant_json_flag(j, j->model, "model", "fuse_unk", false, &j->r->fuse_unk));
    KVANT_TRY(kvant_json_flag(j, j->model, "model", "ignore_merges", false, &j->r->ignore_merges));
    KVANT_TRY(kvant_json_string(j, j->model, "model", "unk_token", &unknown, &size));
    if (unknown) j->t->unk = kvant_json_find(j, unknown, size);
    return read_merges(j);
}

/* ---- Unigram ---- */

static kvant_status read_unigram(kvant_json_reader *j) {
    kvant_unigram *u = &j->r->unigram;
    size_t n = json_array_size(j->vocab);
    double lowest = 0;
    u->scores = kvant_alloc((size_t)j->n, sizeof *u->scores);
    if (!u->scores) return kvant_json_no_memory(j);
    for (size_t i = 0; i < n; i++) {
        double score = json_number_value(json_array_get(json_array_get(j->vocab, i), 1));
        u->scores[i] = score;
        if (i == 0 || score < lowest) lowest = score;
    }
    u->unknown_score = lowest - UNKNOWN_PENALTY;
    KVANT_TRY(kvant_json_int(j, j->model, "model", "unk_id", 0, n ? (int)n - 1 : 0, -1, &j->t->unk));
    return kvant_unigram_prepare(j->t) == KVANT_OK ? KVANT_OK : kvant_json_no_memory(j);
}

kvant_status kvant_json_read_model(kvant_json_reader *j) {
    KVANT_TRY(kvant_json_flag(j, j->model, "model", "byte_fallback", false, &j->r->byte_fallback));
    for (unsigned b = 0; b < 256; b++) {
        char text[8];
        int n = snprintf(text, sizeof text, "<0x%02X>", b);
        int32_t id = kvant_json_find(j, text, (size_t)n);
        j->t->byte_ids[b] = id >= 0 && j->r->in_model[id] ? id : KVANT_NO_SYMBOL;
    }
    return j->r->is_unigram ? read_unigram(j) : read_bpe(j);
}
