// SPDX-License-Identifier: MIT
/* test_folder_vision.c: model folders with a vision model: what becomes of Pixtral's, and sentences for others. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "file/folder.h"
#include "safetensors_builder.h"

#define TEXT                                                                                                                     \
    "\"text_config\":{\"model_type\":\"mistral\",\"hidden_size\":64,\"num_hidden_layers\":1,\"num_attention_heads\":2,"          \
    "\"num_key_value_heads\":1,\"intermediate_size\":32,\"rms_norm_eps\":1e-5}"
#define VISION(more)                                                                                                             \
    "\"vision_config\":{\"model_type\":\"pixtral\",\"hidden_size\":32,\"num_attention_heads\":2,\"num_hidden_layers\":1" more "}"

static kvant_status parse(const char *config, st_header *h, kvant_gguf **out, kvant_error *err) {
    static st_file last; /* borrowed by the model until it is closed */
    free(last.bytes);
    last = st_finish(h);
    *out = NULL;
    return kvant_folder_parse("/models/tiny-x", config, strlen(config), last.bytes, last.size, out, err);
}

static void add_text(st_header *h) {
    st_add(h, "language_model.model.embed_tokens.weight", "F16", "8,64", 1024);
    st_add(h, "language_model.model.norm.weight", "F32", "64", 256);
    st_add(h, "language_model.lm_head.weight", "F16", "8,64", 1024);
}

static void expect_tensor(const kvant_gguf *f, const char *name, int n_dims, int64_t d0, int64_t d_last) {
    const kvant_gguf_tensor *t = kvant_gguf_find_tensor(f, name);
    if (!t) fail_msg("%s is missing", name);
    assert_int_equal(t->n_dims, n_dims);
    assert_int_equal(t->dims[0], d0);
    assert_int_equal(t->dims[n_dims - 1], d_last);
}

static void both_parts_get_the_names_of_gguf(void **state) {
    (void)state;
    st_header h = {0};
    kvant_gguf *f;
    kvant_error err;
    uint32_t n;
    add_text(&h);
    st_add(&h, "vision_tower.vision_model.patch_conv.weight", "F16", "32,4,4,3", 3072); /* as MLX saves it */
    st_add(&h, "vision_tower.ln_pre.weight", "F16", "32", 64);                          /* as Hugging Face does */
    st_add(&h, "vision_tower.transformer.layers.0.attention.q_proj.weight", "F16", "32,32", 2048);
    st_add(&h, "multi_modal_projector.linear_1.weight", "F16", "64,32", 4096);
    st_add(&h, "multi_modal_projector.linear_1.bias", "F16", "64", 128);
    if (parse("{\"model_type\":\"pixtral\",\"image_token_index\":5," TEXT "," VISION(",\"patch_size\":4") "}", &h, &f, &err) !=
        KVANT_OK)
        fail_msg("%s", err.message);
    expect_tensor(f, "token_embd.weight", 2, 64, 8);
    expect_tensor(f, "output.weight", 2, 64, 8);
    expect_tensor(f, "v.patch_embd.weight", 4, 3, 32);
    expect_tensor(f, "v.pre_ln.weight", 1, 32, 32);
    expect_tensor(f, "v.blk.0.attn_q.weight", 2, 32, 32);
    expect_tensor(f, "mm.1.weight", 2, 32, 64);
    expect_tensor(f, "mm.1.bias", 1, 64, 64);
    assert_int_equal(kvant_gguf_u32(f, "llama.block_count", &n, NULL), KVANT_OK);
    assert_int_equal(n, 1);
    assert_int_equal(kvant_gguf_u32(f, "llama.attention.key_length", &n, NULL), KVANT_OK);
    assert_int_equal(n, 32); /* 64 / 2 */
    assert_int_equal(kvant_gguf_u32(f, "kvant.vision.head_dim", &n, NULL), KVANT_OK);
    assert_int_equal(n, 16);
    assert_int_equal(kvant_gguf_u32(f, "kvant.vision.image_token", &n, NULL), KVANT_OK);
    assert_int_equal(n, 5);
    kvant_gguf_close(f);
}

/* The embedding serves as the output, and a copy of it is no error, behind the prefix either. */
static void a_tied_output_is_passed_over(void **state) {
    (void)state;
    st_header h = {0};
    kvant_gguf *f;
    kvant_error err;
    add_text(&h);
    if (parse("{\"model_type\":\"llava\",\"tie_word_embeddings\":true," TEXT "," VISION("") "}", &h, &f, &err) != KVANT_OK)
        fail_msg("%s", err.message);
    assert_null(kvant_gguf_find_tensor(f, "output.weight"));
    kvant_gguf_close(f);
}

static void what_does_not_run_is_named(void **state) {
    (void)state;
    static const struct {
        const char *config, *word;
        kvant_status status;
    } cases[] = {
        {"{\"model_type\":\"llava\"," TEXT ",\"vision_config\":{\"model_type\":\"clip_vision_model\"}}",
         "llava is a model that reads", KVANT_EUNSUPPORTED},
        {"{\"model_type\":\"mistral3\"," TEXT "," VISION("") "}", "mistral3", KVANT_EUNSUPPORTED},
        {"{\"model_type\":\"gemma3\"," TEXT ",\"vision_config\":{}}", "pixtral", KVANT_EUNSUPPORTED},
        {"{\"model_type\":\"pixtral\",\"text_config\":{\"model_type\":\"qwen2\"}," VISION("") "}", "qwen2", KVANT_EUNSUPPORTED},
        {"{\"model_type\":\"pixtral\",\"projector_hidden_act\":\"relu\"," TEXT "," VISION("") "}", "relu", KVANT_EUNSUPPORTED},
        {"{\"model_type\":\"pixtral\",\"vision_feature_layer\":-2," TEXT "," VISION("") "}", "vision_feature_layer",
         KVANT_EUNSUPPORTED},
        {"{\"model_type\":\"pixtral\",\"spatial_merge_size\":2," TEXT "," VISION("") "}", "spatial_merge_size",
         KVANT_EUNSUPPORTED},
        {"{\"model_type\":\"pixtral\"," TEXT "," VISION(",\"num_channels\":4") "}", "num_channels", KVANT_EUNSUPPORTED},
        {"{\"model_type\":\"pixtral\"," TEXT "," VISION(",\"patch_size\":-1") "}", "patch_size", KVANT_EFORMAT},
        {"{\"model_type\":\"pixtral\"," TEXT "," VISION(",\"patch_size\":1e300") "}", "patch_size", KVANT_EFORMAT},
        {"{\"model_type\":\"pixtral\"," TEXT "," VISION(",\"head_dim\":0.5") "}", "head_dim", KVANT_EFORMAT},
        {"{\"model_type\":\"pixtral\",\"image_token_index\":-7," TEXT "," VISION("") "}", "image_token_index", KVANT_EFORMAT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        st_header h = {0};
        kvant_gguf *f;
        kvant_error err = {0};
        add_text(&h);
        kvant_status st = parse(cases[i].config, &h, &f, &err);
        if (st != cases[i].status || !strstr(err.message, cases[i].word) || strchr(err.message, '\n'))
            fail_msg("case %zu: expected status %d and \"%s\", found %d: %s", i, cases[i].status, cases[i].word, st, err.message);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_parts_get_the_names_of_gguf),
        cmocka_unit_test(a_tied_output_is_passed_over),
        cmocka_unit_test(what_does_not_run_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
