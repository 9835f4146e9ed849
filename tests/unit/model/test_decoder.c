// SPDX-License-Identifier: MIT
/* test_decoder.c: what a decoder promises besides its logits: refusals with a sentence, steps that allocate nothing and undo
 * themselves when they fail. Broken models are made from the tiny golden ones by changing bytes in memory. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "file/folder.h"
#include "model/arch_traits.h"
#include "model/decoder.h"
#include "unit/file/gguf_builder.h"

typedef struct image {
    uint8_t *data;
    size_t size;
} image;

static image read_model(const char *name) {
    char path[1024];
    snprintf(path, sizeof path, "%s/tests/golden/models/%s.gguf", KVANT_SOURCE, name);
    FILE *f = fopen(path, "rb");
    if (!f) fail_msg("%s is absent", path);
    image m = {.data = malloc(1 << 20)};
    assert_non_null(m.data);
    m.size = fread(m.data, 1, 1 << 20, f);
    fclose(f);
    return m;
}

/* Where `bytes` stand for the first time. */
static uint8_t *find(const image *m, const void *bytes, size_t n) {
    for (size_t i = 0; i + n <= m->size; i++) {
        if (memcmp(m->data + i, bytes, n) == 0) return m->data + i;
    }
    fail_msg("not in the model");
    return NULL;
}

static kvant_context *make_context(void) {
    kvant_context *ctx;
    assert_int_equal(kvant_context_create(2, KVANT_ISA_BEST, &ctx, NULL), KVANT_OK);
    return ctx;
}

/* One step of a model that loaded: whatever its numbers are, it must come back. */
static void run_step(kvant_context *ctx, kvant_decoder *d) {
    kvant_decoder_info info;
    kvant_decoder_get_info(d, &info);
    kvant_cache_config config;
    kvant_cache_config_default(&config);
    config.n_layer = info.n_layer;
    config.n_kv_head = info.n_kv_head;
    config.head_dim = info.head_dim;
    config.layer_window = info.layer_window;
    kvant_cache *cache;
    kvant_sequence *s;
    kvant_workspace *w;
    if (kvant_cache_create(ctx, &config, &cache, NULL) != KVANT_OK) return;
    assert_int_equal(kvant_sequence_create(cache, &s), KVANT_OK);
    assert_int_equal(kvant_workspace_create(d, 3, &w, NULL), KVANT_OK);
    int32_t ids[3] = {0, info.n_vocab - 1, info.n_vocab / 2};
    float *logits = malloc((size_t)info.n_vocab * sizeof *logits);
    assert_int_equal(kvant_decoder_forward(d, w, s, ids, 3, KVANT_FAST, logits, 1), KVANT_OK);
    free(logits);
    kvant_workspace_destroy(w);
    kvant_sequence_destroy(s);
    kvant_cache_destroy(cache);
}

/* Opens, loads and runs one step; closes again. */
static kvant_status load(const image *m, kvant_error *err) {
    kvant_context *ctx = make_context();
    kvant_gguf *f = NULL;
    kvant_decoder *d = NULL;
    kvant_status st = kvant_gguf_parse("model.gguf", m->data, m->size, NULL, &f, err);
    if (st == KVANT_OK) st = kvant_decoder_load(ctx, f, &d, err);
    if (st == KVANT_OK) {
        run_step(ctx, d);
        kvant_decoder_destroy(d);
    }
    if (f) kvant_gguf_close(f);
    kvant_context_destroy(ctx);
    return st;
}

static void expect(const image *m, kvant_status status, const char *sentence_part, const char *second_part) {
    kvant_error err = {0};
    assert_int_equal(load(m, &err), status);
    if (!strstr(err.message, sentence_part) || !strstr(err.message, second_part))
        fail_msg("expected \"%s\" and \"%s\" in: %s", sentence_part, second_part, err.message);
}

static void a_missing_tensor_is_named(void **state) {
    (void)state;
    image m = read_model("qwen2");
    memcpy(find(&m, "blk.1.ffn_up.weight", 19) + 11, "x", 1);
    expect(&m, KVANT_EFORMAT, "blk.1.ffn_up.weight is missing", "16 x 16");
    free(m.data);
}

static void a_wrong_shape_is_told_with_both_shapes(void **state) {
    (void)state;
    image m = read_model("qwen2");
    uint8_t *dims = find(&m, "blk.0.attn_k.weight", 19) + 19 + 4;
    dims[0] = 8; /* 16 x 8 becomes 8 x 8 */
    expect(&m, KVANT_EFORMAT, "blk.0.attn_k.weight should be 16 x 8", "found 8 x 8");
    free(m.data);
}

static void an_unreadable_type_is_named(void **state) {
    (void)state;
    image m = read_model("qwen2");
    uint8_t *type = find(&m, "blk.0.attn_k.weight", 19) + 19 + 4 + 16;
    assert_int_equal(type[0], 0);
    type[0] = 28; /* F64 */
    kvant_error err = {0};
    kvant_status st = load(&m, &err);
    assert_true(st == KVANT_EUNSUPPORTED || st == KVANT_EFORMAT);
    assert_non_null(strstr(err.message, "blk.0.attn_k.weight"));
    free(m.data);
}

static void a_number_out_of_range_is_told(void **state) {
    (void)state;
    image m = read_model("qwen2");
    find(&m, "qwen2.attention.head_count", 26)[26 + 4] = 0;
    expect(&m, KVANT_EFORMAT, "qwen2.attention.head_count should be within 1..4096", "found 0");
    free(m.data);
}

static void expect_refused(const char *architecture, const char *why) {
    static gguf_builder b;
    put_header(&b, 3, 0, 1);
    put_string(&b, "general.architecture", architecture);
    put_padding(&b, 32);
    kvant_error err = {0};
    kvant_gguf *f;
    kvant_decoder_info info;
    assert_int_equal(kvant_gguf_parse("model.gguf", b.data, b.size, NULL, &f, &err), KVANT_OK);
    assert_int_equal(kvant_decoder_peek(f, &info, &err), KVANT_EUNSUPPORTED);
    kvant_gguf_close(f);
    if (!strstr(err.message, architecture) || !strstr(err.message, why) || !strstr(err.message, kvant_decoder_architectures()))
        fail_msg("expected %s, %s and the list in: %s", architecture, why, err.message);
}

static void unknown_architectures_are_refused_with_the_list(void **state) {
    (void)state;
    expect_refused("mamba2", "not one that Kvant knows");
    expect_refused("llama4", "not one that Kvant knows");
}

static void vision_files_are_refused_as_such(void **state) {
    (void)state;
    expect_refused("clip", "vision");
    expect_refused("qwen2vl", "vision");
    expect_refused("mllama", "vision");
}

static void the_list_holds_exactly_the_table(void **state) {
    (void)state;
    char list[512];
    snprintf(list, sizeof list, "%s", kvant_decoder_architectures());
    int n = 0;
    for (char *name = strtok(list, ", "); name; name = strtok(NULL, ", "), n++)
        assert_non_null(kvant_arch_find((kvant_text){name, strlen(name)}));
    assert_int_equal(n, 15);
}

typedef struct fixture {
    image m;
    kvant_context *ctx;
    kvant_gguf *f;
    kvant_decoder *d;
    kvant_decoder_info info;
    kvant_cache *cache;
    kvant_sequence *s;
    kvant_workspace *w;
} fixture;

static fixture make_fixture(const char *name, int n_max, size_t max_bytes) {
    fixture x = {.m = read_model(name), .ctx = make_context()};
    kvant_error err = {0};
    if (kvant_gguf_parse(name, x.m.data, x.m.size, NULL, &x.f, &err) != KVANT_OK) fail_msg("%s", err.message);
    if (kvant_decoder_load(x.ctx, x.f, &x.d, &err) != KVANT_OK) fail_msg("%s", err.message);
    kvant_decoder_get_info(x.d, &x.info);
    kvant_cache_config config;
    kvant_cache_config_default(&config);
    config.n_layer = x.info.n_layer;
    config.n_kv_head = x.info.n_kv_head;
    config.head_dim = x.info.head_dim;
    config.layer_window = x.info.layer_window;
    config.max_bytes = max_bytes;
    if (kvant_cache_create(x.ctx, &config, &x.cache, &err) != KVANT_OK) fail_msg("%s", err.message);
    assert_int_equal(kvant_sequence_create(x.cache, &x.s), KVANT_OK);
    assert_int_equal(kvant_workspace_create(x.d, n_max, &x.w, &err), KVANT_OK);
    return x;
}

static void destroy_fixture(fixture *x) {
    kvant_workspace_destroy(x->w);
    kvant_sequence_destroy(x->s);
    kvant_cache_destroy(x->cache);
    kvant_decoder_destroy(x->d);
    kvant_gguf_close(x->f);
    kvant_context_destroy(x->ctx);
    free(x->m.data);
}

static void a_step_within_a_page_allocates_nothing(void **state) {
    (void)state;
    static const char *const names[] = {"qwen2", "qwen3moe", "gemma3-window", "gpt-oss-yarn"};
    for (int i = 0; i < 4; i++) {
        fixture x = make_fixture(names[i], 8, 0);
        float logits[64];
        int32_t ids[8] = {1, 2, 3, 4, 5, 6, 7, 8};
        assert_int_equal(kvant_decoder_forward(x.d, x.w, x.s, ids, 8, KVANT_FAST, logits, 1), KVANT_OK);
        uint64_t before = kvant_alloc_count();
        for (int j = 0; j < 8; j++)
            assert_int_equal(kvant_decoder_forward(x.d, x.w, x.s, ids + j, 1, KVANT_FAST, logits, 1), KVANT_OK);
        assert_int_equal(kvant_alloc_count() - before, 0);
        destroy_fixture(&x);
    }
}

static void wrong_arguments_change_nothing(void **state) {
    (void)state;
    fixture x = make_fixture("qwen2", 4, 0);
    float logits[64];
    int32_t good[5] = {0, 1, 2, 3, 4}, high[1] = {x.info.n_vocab}, negative[1] = {-1};
    assert_int_equal(kvant_decoder_forward(x.d, x.w, x.s, high, 1, KVANT_FAST, logits, 1), KVANT_EINVAL);
    assert_int_equal(kvant_decoder_forward(x.d, x.w, x.s, negative, 1, KVANT_FAST, logits, 1), KVANT_EINVAL);
    assert_int_equal(kvant_decoder_forward(x.d, x.w, x.s, good, 5, KVANT_FAST, logits, 1), KVANT_EINVAL);
    assert_int_equal(kvant_decoder_forward(x.d, x.w, x.s, good, 0, KVANT_FAST, logits, 0), KVANT_EINVAL);
    assert_int_equal(kvant_decoder_forward(x.d, x.w, x.s, good, 1, KVANT_FAST, logits, 2), KVANT_EINVAL);
    assert_int_equal(kvant_sequence_length(x.s), 0);
    destroy_fixture(&x);
}

/* The budget holds the pages of one layer only: the second layer's append fails, and the first layer's must be undone. */
static void a_step_that_does_not_fit_is_undone(void **state) {
    (void)state;
    fixture probe = make_fixture("qwen2", 4, 0);
    int32_t ids[4] = {1, 2, 3, 4};
    assert_int_equal(kvant_decoder_forward(probe.d, probe.w, probe.s, ids, 4, KVANT_FAST, NULL, 0), KVANT_OK);
    size_t two_layers = kvant_cache_bytes(probe.cache);
    destroy_fixture(&probe);
    fixture x = make_fixture("qwen2", 4, two_layers - 1);
    assert_int_equal(kvant_decoder_forward(x.d, x.w, x.s, ids, 4, KVANT_FAST, NULL, 0), KVANT_EFULL);
    assert_int_equal(kvant_sequence_length(x.s), 0);
    for (int layer = 0; layer < x.info.n_layer; layer++) assert_int_equal(kvant_sequence_page_count(x.s, layer), 0);
    destroy_fixture(&x);
}

/* Two sequences of one cache whose budget lacks one page: whichever layer meets it, both are where they were, and go on alone. */
static void a_batch_that_does_not_fit_is_undone(void **state) {
    (void)state;
    fixture probe = make_fixture("qwen2", 8, 0);
    int32_t ids[4] = {1, 2, 3, 4};
    assert_int_equal(kvant_decoder_forward(probe.d, probe.w, probe.s, ids, 4, KVANT_FAST, NULL, 0), KVANT_OK);
    size_t one = kvant_cache_bytes(probe.cache);
    destroy_fixture(&probe);
    fixture x = make_fixture("qwen2", 8, 2 * one - 1);
    kvant_sequence *second;
    assert_int_equal(kvant_sequence_create(x.cache, &second), KVANT_OK);
    kvant_segment segments[2] = {{.s = x.s, .ids = ids, .n = 4}, {.s = second, .ids = ids, .n = 3}};
    assert_int_equal(kvant_decoder_forward_batch(x.d, x.w, segments, 2, KVANT_FAST), KVANT_EFULL);
    assert_int_equal(kvant_sequence_length(x.s), 0);
    assert_int_equal(kvant_sequence_length(second), 0);
    assert_int_equal(kvant_cache_bytes(x.cache), 0);
    assert_int_equal(kvant_decoder_forward_batch(x.d, x.w, segments, 1, KVANT_FAST), KVANT_OK);
    assert_int_equal(kvant_decoder_forward_batch(x.d, x.w, segments, 2, KVANT_FAST), KVANT_EFULL);
    assert_int_equal(kvant_sequence_length(x.s), 4);
    assert_int_equal(kvant_cache_bytes(x.cache), one);
    segments[1].s = x.s; /* a sequence twice, too many tokens, and none at all */
    assert_int_equal(kvant_decoder_forward_batch(x.d, x.w, segments, 2, KVANT_FAST), KVANT_EINVAL);
    segments[1] = (kvant_segment){.s = second, .ids = ids, .n = 5};
    assert_int_equal(kvant_decoder_forward_batch(x.d, x.w, segments, 2, KVANT_FAST), KVANT_EINVAL);
    assert_int_equal(kvant_decoder_forward_batch(x.d, x.w, segments, 0, KVANT_FAST), KVANT_EINVAL);
    kvant_sequence_destroy(second);
    destroy_fixture(&x);
}

/* The last rows' logits are the same bits whether or not those of earlier rows are wanted. */
static void fewer_rows_of_logits_have_the_same_bits(void **state) {
    (void)state;
    fixture all = make_fixture("granite", 6, 0), last = make_fixture("granite", 6, 0);
    int32_t ids[6] = {3, 1, 4, 1, 5, 9};
    int n_vocab = all.info.n_vocab;
    float *a = malloc(sizeof *a * 6 * (size_t)n_vocab), *b = malloc(sizeof *b * 2 * (size_t)n_vocab);
    assert_int_equal(kvant_decoder_forward(all.d, all.w, all.s, ids, 6, KVANT_EXACT, a, 6), KVANT_OK);
    assert_int_equal(kvant_decoder_forward(last.d, last.w, last.s, ids, 6, KVANT_EXACT, b, 2), KVANT_OK);
    assert_memory_equal(a + 4 * n_vocab, b, sizeof *b * 2 * (size_t)n_vocab);
    free(a);
    free(b);
    destroy_fixture(&all);
    destroy_fixture(&last);
}

/* Random bytes of the metadata changed: any status is right, a crash or a hang is not. */
static void damaged_models_are_survived(void **state) {
    (void)state;
    static const char *const names[] = {"qwen2", "gpt-oss-yarn", "phi3-longrope-long", "mistral3-yarn", "olmo2-window"};
    uint32_t seed = 12345;
    print_message("seed %u\n", seed);
    int n_loaded = 0;
    for (int i = 0; i < 5; i++) {
        image original = read_model(names[i]), m = {.data = malloc(original.size), .size = original.size};
        for (int round = 0; round < 150; round++) {
            memcpy(m.data, original.data, m.size);
            for (int k = 0; k < 1 + round % 3; k++) {
                seed = seed * 1664525u + 1013904223u;
                size_t at = (seed >> 8) % 4096;
                seed = seed * 1664525u + 1013904223u;
                m.data[at] = (uint8_t)(round % 2 ? m.data[at] ^ (1u << (seed >> 29)) : seed >> 24);
            }
            kvant_error err = {0};
            kvant_status st = load(&m, &err);
            n_loaded += st == KVANT_OK;
            assert_true(st == KVANT_OK || err.message[0] != '\0');
        }
        free(original.data);
        free(m.data);
    }
    print_message("%d of 750 still loaded\n", n_loaded);
}

static bool own_cache_of(const char *path) {
    kvant_gguf *f;
    kvant_decoder_info info;
    kvant_error err;
    if (kvant_model_file_open(path, &f, &err) != KVANT_OK) fail_msg("%s", err.message);
    if (kvant_decoder_peek(f, &info, &err) != KVANT_OK) fail_msg("%s", err.message);
    kvant_gguf_close(f);
    return info.mlx_own_cache;
}

static void models_whose_cache_mlx_makes_itself_are_known(void **state) {
    (void)state;
    static const char *const own[] = {"llama-rope-llama3", "gemma3-window", "gpt-oss-yarn", "olmo2-window"};
    static const char *const none[] = {"llama-experts", "mistral3-yarn", "qwen2", "qwen3", "qwen3moe", "gemma2-window",
                                       "phi3-longrope-long", "glm4", "granite", "smollm3", "starcoder2"};
    static const char *const folder = KVANT_DATA "/mlx/pixtral-f16";
    char path[1024];
    for (size_t i = 0; i < sizeof own / sizeof *own + sizeof none / sizeof *none; i++) {
        bool expected = i < sizeof own / sizeof *own;
        snprintf(path, sizeof path, "%s/tests/golden/models/%s.gguf", KVANT_SOURCE, expected ? own[i] : none[i - sizeof own / sizeof *own]);
        if (own_cache_of(path) != expected) fail_msg("%s: expected %s", path, expected ? "a cache of its own" : "none of its own");
    }
    FILE *config = fopen(KVANT_DATA "/mlx/pixtral-f16/config.json", "rb");
    if (config) {
        fclose(config);
        assert_false(own_cache_of(folder)); /* its decoder alone is a llama */
    } else {
        printf("skipped: %s is not there\n", folder);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_missing_tensor_is_named),
        cmocka_unit_test(a_wrong_shape_is_told_with_both_shapes),
        cmocka_unit_test(an_unreadable_type_is_named),
        cmocka_unit_test(a_number_out_of_range_is_told),
        cmocka_unit_test(unknown_architectures_are_refused_with_the_list),
        cmocka_unit_test(vision_files_are_refused_as_such),
        cmocka_unit_test(the_list_holds_exactly_the_table),
        cmocka_unit_test(a_step_within_a_page_allocates_nothing),
        cmocka_unit_test(wrong_arguments_change_nothing),
        cmocka_unit_test(a_step_that_does_not_fit_is_undone),
        cmocka_unit_test(a_batch_that_does_not_fit_is_undone),
        cmocka_unit_test(fewer_rows_of_logits_have_the_same_bits),
        cmocka_unit_test(damaged_models_are_survived),
        cmocka_unit_test(models_whose_cache_mlx_makes_itself_are_known),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
