// SPDX-License-Identifier: MIT
/* test_tokenizers.c: the published token ids of seven vocabularies, line by line, and what decoding must give back.
 *
 * NAME.gguf.inp holds texts separated by a line __ggml_vocab_test__, NAME.gguf.out the ids of each on a line, without BOS. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "engine/vocab.h"

#define SEPARATOR "\n__ggml_vocab_test__\n"

/* The whole file, NUL-terminated, or NULL. */
static char *read_file(const char *path, size_t *size) {
    FILE *f = fopen(path, "rb");
    if (!f) return NULL;
    char *data = malloc(1 << 22);
    *size = fread(data, 1, (1 << 22) - 1, f);
    data[*size] = '\0';
    fclose(f);
    return data;
}

/* NULL, after a line that says so, when the file is absent. */
static kvant_tokenizer *load(const char *name) {
    char path[512];
    kvant_error err = {0};
    snprintf(path, sizeof path, KVANT_DATA "/tokenizers/ggml-vocab-%s.gguf", name);
    FILE *f = fopen(path, "rb");
    if (!f) {
        print_message("skipped: %s is not there\n", path);
        return NULL;
    }
    fclose(f);
    kvant_gguf *file;
    kvant_tokenizer *t;
    if (kvant_gguf_open(path, NULL, &file, &err) != KVANT_OK) fail_msg("%s", err.message);
    if (kvant_vocab_load(file, &t, &err) != KVANT_OK) fail_msg("%s", err.message);
    kvant_gguf_close(file);
    return t;
}

static int32_t *encode(const kvant_tokenizer *t, const char *text, size_t size, int *n) {
    int32_t *ids;
    kvant_error err = {0};
    if (kvant_tokenizer_encode(t, text, size, (kvant_tokenize_options){false, false}, &ids, n, &err) != KVANT_OK)
        fail_msg("%s", err.message);
    return ids;
}

/* The ids of a text against a line of numbers. */
static void check_line(const kvant_tokenizer *t, const char *name, int index, const char *text, size_t size, const char *line) {
    int n;
    int32_t *ids = encode(t, text, size, &n);
    char *rest = (char *)line;
    for (int i = 0;; i++) {
        char *next;
        long id = strtol(rest, &next, 10);
        if (next == rest) {
            if (i != n) fail_msg("%s, text %d: %d tokens expected, %d found", name, index, i, n);
            break;
        }
        if (i >= n || ids[i] != id)
            fail_msg("%s, text %d \"%.*s\", token %d: %ld expected, %d found", name, index, (int)size, text, i, id,
                     i < n ? ids[i] : -1);
        rest = next;
    }
    kvant_free(ids);
}

static void check_vocabulary(const char *name) {
    kvant_tokenizer *t = load(name);
    if (!t) return;
    char path[512];
    size_t n_in, n_out;
    snprintf(path, sizeof path, KVANT_DATA "/tokenizers/ggml-vocab-%s.gguf.inp", name);
    char *in = read_file(path, &n_in), *text = in;
    snprintf(path, sizeof path, KVANT_DATA "/tokenizers/ggml-vocab-%s.gguf.out", name);
    char *out = read_file(path, &n_out), *line = out;
    assert_non_null(in);
    assert_non_null(out);
    int index = 0;
    while (line < out + n_out) {
        char *line_end = strchr(line, '\n'), *end = strstr(text, SEPARATOR);
        if (line_end) *line_end = '\0';
        check_line(t, name, index++, text, end ? (size_t)(end - text) : (size_t)(in + n_in - text), line);
        line = line_end ? line_end + 1 : out + n_out;
        if (!end) break;
        text = end + strlen(SEPARATOR);
    }
    print_message("%s: %d texts\n", name, index);
    assert_true(line >= out + n_out && index > 20);
    free(in);
    free(out);
    kvant_tokenizer_destroy(t);
}

static void ids_of_gemma_4_are_the_published_ones(void **state) { (void)state; check_vocabulary("gemma-4"); }
static void ids_of_gpt_2_are_the_published_ones(void **state) { (void)state; check_vocabulary("gpt-2"); }
static void ids_of_llama_bpe_are_the_published_ones(void **state) { (void)state; check_vocabulary("llama-bpe"); }
static void ids_of_llama_spm_are_the_published_ones(void **state) { (void)state; check_vocabulary("llama-spm"); }
static void ids_of_phi_3_are_the_published_ones(void **state) { (void)state; check_vocabulary("phi-3"); }
static void ids_of_qwen2_are_the_published_ones(void **state) { (void)state; check_vocabulary("qwen2"); }
static void ids_of_starcoder_are_the_published_ones(void **state) { (void)state; check_vocabulary("starcoder"); }

static const char *const NAMES[] = {"gemma-4", "gpt-2", "llama-bpe", "llama-spm", "phi-3", "qwen2", "starcoder"};

/* Well-formed UTF-8 by Unicode's definition? */
static bool is_utf8(const char *text, size_t size) {
    const uint8_t *p = (const uint8_t *)text, *end = p + size;
    while (p < end) {
        uint32_t code = *p;
        int n = code < 0x80                   ? 0
                : code >= 0xC2 && code < 0xE0 ? 1
                : code >= 0xE0 && code < 0xF0 ? 2
                : code >= 0xF0 && code < 0xF5 ? 3
                                              : -1;
        if (n < 0 || end - p <= n) return false;
        code &= n == 0 ? 0x7F : 0x3Fu >> n;
        for (int i = 1; i <= n; i++) {
            if ((p[i] & 0xC0) != 0x80) return false;
            code = code << 6 | (p[i] & 0x3Fu);
        }
        if ((n == 2 && code < 0x800) || (n == 3 && (code < 0x10000 || code > 0x10FFFF)) || (code >= 0xD800 && code < 0xE000))
            return false;
        p += n + 1;
    }
    return true;
}

/* Pushes ids one at a time; every part must be UTF-8. The whole in *out. */
static void stream(const kvant_tokenizer *t, const int32_t *ids, int n, kvant_buffer *out) {
    kvant_detokenizer *d;
    const char *part;
    size_t size;
    assert_int_equal(kvant_detokenizer_create(t, false, &d), KVANT_OK);
    for (int i = 0; i <= n; i++) {
        kvant_status st = i < n ? kvant_detokenizer_push(d, ids[i], &part, &size) : kvant_detokenizer_finish(d, &part, &size);
        assert_int_equal(st, KVANT_OK);
        assert_true(is_utf8(part, size));
        assert_int_equal(part[size], '\0');
        assert_int_equal(kvant_buffer_append(out, part, size), KVANT_OK);
    }
    kvant_detokenizer_destroy(d);
}

static void a_text_comes_back_from_its_tokens(void **state) {
    (void)state;
    for (size_t k = 0; k < sizeof NAMES / sizeof *NAMES; k++) {
        kvant_tokenizer *t = load(NAMES[k]);
        if (!t) continue;
        char path[512];
        size_t size;
        snprintf(path, sizeof path, KVANT_DATA "/tokenizers/ggml-vocab-%s.gguf.inp", NAMES[k]);
        char *text = read_file(path, &size);
        assert_non_null(text);
        int n;
        int32_t *ids = encode(t, text, size, &n);
        kvant_buffer out;
        kvant_buffer_init(&out, 1 << 22);
        stream(t, ids, n, &out);
        assert_int_equal(out.size, size);
        assert_memory_equal(out.data, text, size);
        kvant_buffer_free(&out);
        kvant_free(ids);
        free(text);
        kvant_tokenizer_destroy(t);
    }
}

/* Any ids, not only those of a text: the parts are UTF-8, and together what a single pass over all bytes gives. */
static void random_tokens_stream_as_whole_characters(void **state) {
    (void)state;
    uint64_t seed = 20240607;
    print_message("seed %llu\n", (unsigned long long)seed);
    for (size_t k = 0; k < sizeof NAMES / sizeof *NAMES; k++) {
        kvant_tokenizer *t = load(NAMES[k]);
        if (!t) continue;
        for (int round = 0; round < 50; round++) {
            int32_t ids[200];
            kvant_buffer parts, raw;
            kvant_buffer_init(&parts, 1 << 20);
            kvant_buffer_init(&raw, 1 << 20);
            for (int i = 0; i < 200; i++) {
                seed = seed * 6364136223846793005u + 1442695040888963407u;
                uint32_t range = round % 2 ? 300 : (uint32_t)kvant_tokenizer_n_token(t); /* low ids are bytes in most */
                ids[i] = (int32_t)((seed >> 33) % range);
                assert_int_equal(kvant_tokenizer_decode(t, ids[i], false, &raw), KVANT_OK);
            }
            stream(t, ids, 200, &parts);
            assert_true(is_utf8(parts.data, parts.size));
            if (raw.data && is_utf8(raw.data, raw.size)) { /* then nothing was replaced, only a first space may be gone */
                size_t gone = raw.size - parts.size;
                assert_true(gone <= 1);
                if (!gone) assert_memory_equal(parts.data, raw.data, raw.size);
            }
            kvant_buffer_free(&parts);
            kvant_buffer_free(&raw);
        }
        kvant_tokenizer_destroy(t);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_of_gemma_4_are_the_published_ones),
        cmocka_unit_test(ids_of_gpt_2_are_the_published_ones),
        cmocka_unit_test(ids_of_llama_bpe_are_the_published_ones),
        cmocka_unit_test(ids_of_llama_spm_are_the_published_ones),
        cmocka_unit_test(ids_of_phi_3_are_the_published_ones),
        cmocka_unit_test(ids_of_qwen2_are_the_published_ones),
        cmocka_unit_test(ids_of_starcoder_are_the_published_ones),
        cmocka_unit_test(a_text_comes_back_from_its_tokens),
        cmocka_unit_test(random_tokens_stream_as_whole_characters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
