// SPDX-License-Identifier: MIT
/* exercise_tokenizer.h: what the fuzz targets do with a tokenizer that was accepted: encode, decode, stream. */
#ifndef KVANT_FUZZ_EXERCISE_TOKENIZER_H
#define KVANT_FUZZ_EXERCISE_TOKENIZER_H

#include <stdlib.h>

#include "text/tokenizer.h"

static inline void expect(bool ok) {
    if (!ok) abort();
}

/* By structure: every lead byte has its continuation bytes. */
static inline void expect_whole_characters(const char *text, size_t size) {
    const unsigned char *p = (const unsigned char *)text;
    for (size_t i = 0; i < size;) {
        size_t n = p[i] < 0x80 ? 1 : p[i] >= 0xF0 ? 4 : p[i] >= 0xE0 ? 3 : p[i] >= 0xC0 ? 2 : 0;
        expect(n > 0 && n <= size - i);
        for (size_t k = 1; k < n; k++)
            expect((p[i + k] & 0xC0) == 0x80);
        i += n;
    }
}

static inline void stream_ids(const kvant_tokenizer *t, const int32_t *ids, int n, bool special) {
    kvant_detokenizer *d;
    const char *text;
    size_t size;
    if (kvant_detokenizer_create(t, special, &d) != KVANT_OK) return;
    for (int i = 0; i < n; i++) {
        expect(kvant_detokenizer_push(d, ids[i], &text, &size) == KVANT_OK);
        expect_whole_characters(text, size);
        expect(text[size] == '\0');
    }
    expect(kvant_detokenizer_finish(d, &text, &size) == KVANT_OK);
    expect_whole_characters(text, size);
    expect(kvant_detokenizer_push(d, -1, &text, &size) == KVANT_EINVAL);
    expect(kvant_detokenizer_push(d, kvant_tokenizer_n_token(t), &text, &size) == KVANT_EINVAL);
    kvant_detokenizer_destroy(d);
}

static inline void exercise_tokenizer(const kvant_tokenizer *t, const char *text, size_t size) {
    int n_token = kvant_tokenizer_n_token(t);
    expect(n_token > 0 && kvant_tokenizer_bos(t) < n_token && kvant_tokenizer_eos(t) < n_token);
    for (int flags = 0; flags < 4; flags++) {
        int32_t *ids = NULL;
        int n = 0;
        kvant_error err;
        kvant_tokenize_options options = {.add_special = flags & 1, .parse_special = flags & 2};
        if (kvant_tokenizer_encode(t, text, size, options, &ids, &n, &err) != KVANT_OK) continue;
        expect(n >= 0 && (size_t)n <= 8 * size + 8);
        for (int i = 0; i < n; i++)
            expect(ids[i] >= 0 && ids[i] < n_token);
        stream_ids(t, ids, n, flags & 1);
        kvant_free(ids);
    }
    for (int32_t id = 0; id < n_token && id < 64; id++) {
        stream_ids(t, &id, 1, true);
        kvant_tokenizer_is_end(t, id);
    }
    kvant_buffer small;
    kvant_buffer_init(&small, 3);
    for (int32_t id = -1; id <= n_token && id < 64; id++)
        kvant_tokenizer_decode(t, id, false, &small);
    expect(small.size <= 3);
    kvant_buffer_free(&small);
    kvant_tokenizer_is_end(t, -1);
    kvant_tokenizer_is_end(t, n_token);
    kvant_tokenizer_find(t, text, size);
}

#endif
