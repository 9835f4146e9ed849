// SPDX-License-Identifier: MIT
/* fuzz_tokenizer_json.c: a tokenizer.json with the files beside it, and a text.
 * Input, separated by NUL: the text, tokenizer.json, tokenizer_config.json, generation_config.json. */
#include <string.h>

#include "exercise_tokenizer.h"
#include "fuzz_target.h"
#include "text/tokenizer_json.h"

/* Up to the next NUL; text NULL when nothing is left. */
static kvant_file_text next_field(const uint8_t *data, size_t size, size_t *at) {
    if (*at >= size) return (kvant_file_text){0};
    const uint8_t *begin = data + *at, *end = memchr(begin, 0, size - *at);
    size_t n = end ? (size_t)(end - begin) : size - *at;
    *at += n + 1;
    return (kvant_file_text){(const char *)begin, n};
}

static void exercise(const kvant_tokenizer *t, const char *text, size_t size) {
    int n_token = kvant_tokenizer_n_token(t);
    expect(n_token > 0 && kvant_tokenizer_bos(t) < n_token && kvant_tokenizer_eos(t) < n_token);
    for (int flags = 0; flags < 4; flags++) {
        int32_t *ids = NULL;
        int n = 0;
        kvant_error err = {0};
        kvant_tokenize_options options = {.add_special = flags & 1, .parse_special = flags & 2};
        if (kvant_tokenizer_encode(t, text, size, options, &ids, &n, &err) != KVANT_OK) {
            expect(err.message[0] != '\0');
            continue;
        }
        for (int i = 0; i < n; i++) expect(ids[i] >= 0 && ids[i] < n_token);
        stream_ids(t, ids, n < 256 ? n : 256, flags & 1);
        kvant_free(ids);
    }
    for (int32_t id = 0; id < n_token && id < 64; id++) {
        stream_ids(t, &id, 1, true);
        kvant_tokenizer_is_end(t, id);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    size_t at = 0, template_size;
    kvant_file_text text = next_field(data, size, &at);
    kvant_tokenizer_files files = {.name = "fuzz"};
    files.tokenizer = next_field(data, size, &at);
    files.tokenizer_config = next_field(data, size, &at);
    files.generation_config = next_field(data, size, &at);
    kvant_tokenizer *t;
    kvant_error err = {0};
    char *chat = NULL;
    kvant_tokenizer_json_template(&files, &chat, &template_size, NULL);
    kvant_free(chat);
    if (!text.text || kvant_tokenizer_create_from_json(&files, &t, &err) != KVANT_OK) {
        expect(!text.text || err.message[0] != '\0');
        return 0;
    }
    exercise(t, text.text, text.size);
    kvant_tokenizer_destroy(t);
    return 0;
}
