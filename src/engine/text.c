// SPDX-License-Identifier: MIT
/* text.c: the text side of a model: tokens, streams of text. Prompts of chats are in chat_prompt.c. */
#include <string.h>

#include "base/memory.h"
#include "engine/model.h"

#define TEXT_MAX ((size_t)1 << 30)

void kvant_ids_free(int32_t *ids) { kvant_free(ids); }

void kvant_string_free(char *text) { kvant_free(text); }

kvant_status kvant_model_require_tokenizer(const kvant_model *m, kvant_error *err) {
    if (m->tokenizer) return KVANT_OK;
    if (err) *err = m->tokenizer_error;
    return m->tokenizer_error.status;
}

kvant_status kvant_tokenize(const kvant_model *m, const char *text, size_t size, bool add_special, bool parse_special, int32_t **ids,
                            int *n, kvant_error *err) {
    KVANT_TRY(kvant_model_require_tokenizer(m, err));
    return kvant_tokenizer_encode(m->tokenizer, text, size, (kvant_tokenize_options){add_special, parse_special}, ids, n, err);
}

static kvant_status append_text(kvant_buffer *b, const char *text, size_t size) { return kvant_buffer_append(b, text, size); }

static kvant_status detokenize_into(const kvant_model *m, const int32_t *ids, int n, bool special, kvant_buffer *out, kvant_error *err) {
    kvant_text_stream *stream = NULL;
    const char *text;
    size_t size;
    KVANT_TRY(kvant_text_stream_create(m, special, &stream));
    kvant_status st = KVANT_OK;
    for (int i = 0; i < n && st == KVANT_OK; i++) {
        st = kvant_text_stream_push(stream, ids[i], &text, &size);
        if (st == KVANT_EINVAL)
            kvant_fail(err, st, "token %d: found id %d, expected 0 to %d", i, ids[i], kvant_tokenizer_n_token(m->tokenizer) - 1);
        if (st == KVANT_OK) st = append_text(out, text, size);
    }
    if (st == KVANT_OK) st = kvant_text_stream_finish(stream, &text, &size);
    if (st == KVANT_OK) st = append_text(out, text, size);
    kvant_text_stream_destroy(stream);
    if (st != KVANT_OK && st != KVANT_EINVAL) kvant_fail(err, st, "detokenize: %s", kvant_status_name(st));
    return st;
}

kvant_status kvant_detokenize(const kvant_model *m, const int32_t *ids, int n, bool special, char **text, size_t *size, kvant_error *err) {
    KVANT_TRY(kvant_model_require_tokenizer(m, err));
    kvant_buffer b;
    kvant_buffer_init(&b, TEXT_MAX);
    kvant_status st = kvant_buffer_append(&b, "", 0);
    if (st == KVANT_OK) st = detokenize_into(m, ids, n, special, &b, err);
    if (st != KVANT_OK) {
        kvant_buffer_free(&b);
        return st;
    }
    *text = b.data;
    *size = b.size;
    return KVANT_OK;
}

bool kvant_token_is_end(const kvant_model *m, int32_t id) {
    return m->tokenizer && id >= 0 && id < kvant_tokenizer_n_token(m->tokenizer) && kvant_tokenizer_is_end(m->tokenizer, id);
}

struct kvant_text_stream {
    const kvant_model *model;
    kvant_detokenizer *detokenizer;
};

kvant_status kvant_text_stream_create(const kvant_model *m, bool special, kvant_text_stream **out) {
    KVANT_TRY(kvant_model_require_tokenizer(m, NULL));
    kvant_text_stream *s = kvant_alloc(1, sizeof *s);
    if (!s) return KVANT_ENOMEM;
    s->model = m;
    kvant_status st = kvant_detokenizer_create(m->tokenizer, special, &s->detokenizer);
    if (st != KVANT_OK) {
        kvant_free(s);
        return st;
    }
    *out = s;
    return KVANT_OK;
}

void kvant_text_stream_destroy(kvant_text_stream *s) {
    if (!s) return;
    kvant_detokenizer_destroy(s->detokenizer);
    kvant_free(s);
}

kvant_status kvant_text_stream_push(kvant_text_stream *s, int32_t id, const char **text, size_t *size) {
    /* Logits are often padded beyond the vocabulary: such an id is valid and has no text. */
    if (id >= kvant_tokenizer_n_token(s->model->tokenizer) && id < s->model->info.n_vocab) {
        *text = "";
        *size = 0;
        return KVANT_OK;
    }
    return kvant_detokenizer_push(s->detokenizer, id, text, size);
}

kvant_status kvant_text_stream_finish(kvant_text_stream *s, const char **text, size_t *size) {
    return kvant_detokenizer_finish(s->detokenizer, text, size);
}
