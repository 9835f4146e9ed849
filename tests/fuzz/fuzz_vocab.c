// SPDX-License-Identifier: MIT
/* fuzz_vocab.c: the tokenizer metadata of a GGUF file, by the path that loading a model takes.
 * Input: two bytes (little-endian) with the size of the text, the text, the file. */
#include "engine/vocab.h"
#include "exercise_tokenizer.h"
#include "fuzz_target.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2) return 0;
    size_t text_size = (size_t)data[0] | (size_t)data[1] << 8;
    if (text_size > size - 2) text_size = size - 2;
    const char *text = (const char *)data + 2;
    kvant_gguf *f;
    kvant_tokenizer *t;
    kvant_text chat;
    if (kvant_gguf_parse("fuzz.gguf", data + 2 + text_size, size - 2 - text_size, NULL, &f, NULL) != KVANT_OK) return 0;
    kvant_vocab_chat_template(f, &chat, NULL);
    kvant_error err = {0};
    kvant_status st = kvant_vocab_load(f, &t, &err);
    kvant_gguf_close(f); /* nothing of it may be kept */
    if (st != KVANT_OK) {
        expect(err.message[0] != '\0');
        return 0;
    }
    exercise_tokenizer(t, text, text_size);
    kvant_tokenizer_destroy(t);
    return 0;
}
