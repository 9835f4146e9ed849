// SPDX-License-Identifier: MIT
/* test_folder.c: model folders as GGUF's structure: keys, names, layouts of weights, and sentences for what is wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "base/mlx_type.h"
#include "file/folder.h"
#include "safetensors_builder.h"

#define LLAMA                                                                                                                    \
    "\"model_type\":\"llama\",\"hidden_size\":64,\"num_hidden_layers\":1,\"intermediate_size\":32,\"rms_norm_eps\":1e-5,"
#define CONFIG "{" LLAMA "\"num_attention_heads\":2}"

/* The tensors of a layer that no test looks at. */
static void add_rest(st_header *h) {
    st_add(h, "model.embed_tokens.weight", "F16", "8,64", 1024);
    st_add(h, "model.norm.weight", "F32", "64", 256);
}

static kvant_status parse(const char *config, st_header *h, kvant_gguf **out, kvant_error *err) {
    static st_file last; /* borrowed by the model until it is closed */
    free(last.bytes);
    last = st_finish(h);
    *out = NULL;
    return kvant_folder_parse("/models/tiny-x", config, strlen(config), last.bytes, last.size, out, err);
}

static kvant_gguf *expect_open(const char *config, st_header *h) {
    kvant_gguf *f;
    kvant_error err;
    if (parse(config, h, &f, &err) != KVANT_OK) fail_msg("%s", err.message);
    return f;
}

static void expect_refused(const char *config, st_header *h, kvant_status status, const char *word) {
    kvant_gguf *f;
    kvant_error err = {0};
    kvant_status st = parse(config, h, &f, &err);
    if (st != status || !strstr(err.message, word) || strchr(err.message, '\n'))
        fail_msg("expected status %d and \"%s\", found %d: %s", status, word, st, err.message);
    assert_null(f);
}

static void config_becomes_metadata(void **state) {
    (void)state;
    st_header h = {0};
    add_rest(&h);
    kvant_gguf *f = expect_open("{" LLAMA "\"num_attention_heads\":2,\"num_key_value_heads\":1,\"max_position_embeddings\":77,"
                                "\"rope_theta\":5000,\"num_experts\":null}",
                                &h);
    kvant_text text;
    uint32_t n;
    float x;
    assert_int_equal(kvant_gguf_string(f, "general.architecture", &text, NULL), KVANT_OK);
    assert_memory_equal(text.data, "llama", 5);
    assert_int_equal(kvant_gguf_string(f, "general.name", &text, NULL), KVANT_OK);
    assert_memory_equal(text.data, "tiny-x", 6);
    assert_int_equal(kvant_gguf_u32(f, "llama.context_length", &n, NULL), KVANT_OK);
    assert_int_equal(n, 77);
    assert_int_equal(kvant_gguf_u32(f, "llama.attention.key_length", &n, NULL), KVANT_OK);
    assert_int_equal(n, 32);
    assert_int_equal(kvant_gguf_u32(f, "llama.attention.head_count_kv", &n, NULL), KVANT_OK);
    assert_int_equal(n, 1);
    assert_int_equal(kvant_gguf_u32(f, "kvant.rope.pairs", &n, NULL), KVANT_OK);
    assert_int_equal(n, 1);
    assert_int_equal(kvant_gguf_f32_or(f, "llama.rope.freq_base", 0, &x, NULL), KVANT_OK);
    assert_float_equal(x, 5000, 0);
    assert_null(kvant_gguf_find(f, "llama.expert_count"));
    const kvant_gguf_tensor *t = kvant_gguf_find_tensor(f, "token_embd.weight");
    assert_non_null(t);
    assert_int_equal(t->dims[0], 64);
    assert_int_equal(t->dims[1], 8);
    assert_int_equal(t->type, 1);
    kvant_gguf_close(f);
}

static void layers_with_windows_choose_the_architecture_that_has_them(void **state) {
    (void)state;
    st_header h = {0}, again = {0};
    kvant_text text;
    add_rest(&h);
    add_rest(&again);
    kvant_gguf *f =
        expect_open("{" LLAMA "\"num_attention_heads\":2,\"sliding_window\":8,\"layer_types\":[\"full_attention\"]}", &h);
    kvant_gguf_string(f, "general.architecture", &text, NULL);
    assert_memory_equal(text.data, "llama", 5);
    kvant_gguf_close(f);
    f = expect_open("{" LLAMA "\"num_attention_heads\":2,\"sliding_window\":8,\"layer_types\":[\"sliding_attention\"]}", &again);
    kvant_gguf_string(f, "general.architecture", &text, NULL);
    assert_memory_equal(text.data, "mistral", 7);
    assert_int_equal(kvant_gguf_array_int(kvant_gguf_find(f, "mistral.attention.sliding_window_pattern"), 0), 1);
    kvant_gguf_close(f);
}

static void quantized_matrices_keep_their_three_arrays(void **state) {
    (void)state;
    st_header h = {0};
    add_rest(&h);
    /* 3 bits in groups of 32: 6 words and 2 scales a row; the default is 4 bits in groups of 64 */
    st_add(&h, "model.layers.0.self_attn.q_proj.weight", "U32", "16,6", 384);
    st_add(&h, "model.layers.0.self_attn.q_proj.scales", "BF16", "16,2", 64);
    st_add(&h, "model.layers.0.self_attn.q_proj.biases", "BF16", "16,2", 64);
    st_add(&h, "model.layers.0.self_attn.k_proj.weight", "U32", "4,8", 128);
    st_add(&h, "model.layers.0.self_attn.k_proj.scales", "F32", "4,1", 16);
    st_add(&h, "model.layers.0.self_attn.k_proj.biases", "F32", "4,1", 16);
    st_add(&h, "model.layers.0.self_attn.v_proj.weight", "F16", "4,64", 512);
    kvant_gguf *f = expect_open("{" LLAMA "\"num_attention_heads\":2,\"quantization\":{\"bits\":4,\"group_size\":64,"
                                "\"model.layers.0.self_attn.q_proj\":{\"bits\":3,\"group_size\":32},"
                                "\"model.layers.0.self_attn.v_proj\":false}}",
                                &h);
    const kvant_gguf_tensor *q = kvant_gguf_find_tensor(f, "blk.0.attn_q.weight"),
                            *k = kvant_gguf_find_tensor(f, "blk.0.attn_k.weight");
    assert_int_equal(q->type, KVANT_MLX_TYPE(3, 32, KVANT_MLX_BF16));
    assert_string_equal(kvant_gguf_tensor_type_name(q->type), "AFFINE3_G32");
    assert_int_equal(q->dims[0], 64);
    assert_int_equal(q->dims[1], 16);
    assert_int_equal(q->row_bytes, 24);
    assert_int_equal(q->scale_row_bytes, 4);
    assert_int_equal(q->parts[0].scales - q->parts[0].data, 384);
    assert_int_equal(q->parts[0].biases - q->parts[0].scales, 64);
    assert_int_equal(k->type, KVANT_MLX_TYPE(4, 64, KVANT_MLX_F32));
    assert_int_equal(kvant_gguf_find_tensor(f, "blk.0.attn_v.weight")->type, 1);
    kvant_gguf_close(f);
}

#define MIXTRAL                                                                                                                  \
    "{\"model_type\":\"mixtral\",\"hidden_size\":64,\"num_hidden_layers\":1,\"intermediate_size\":4,\"num_attention_heads\":2,"  \
    "\"num_key_value_heads\":2,\"num_local_experts\":2}"

static void experts_one_by_one_become_one_tensor_of_parts(void **state) {
    (void)state;
    st_header h = {0};
    add_rest(&h);
    st_add(&h, "model.layers.0.block_sparse_moe.experts.1.w1.weight", "BF16", "4,64", 512);
    st_add(&h, "model.layers.0.block_sparse_moe.experts.0.w1.weight", "BF16", "4,64", 512);
    kvant_gguf *f = expect_open(MIXTRAL, &h);
    const kvant_gguf_tensor *t = kvant_gguf_find_tensor(f, "blk.0.ffn_gate_exps.weight");
    assert_int_equal(t->n_parts, 2);
    assert_int_equal(t->part_rows, 4);
    assert_int_equal(t->dims[2], 2);
    assert_int_equal(t->parts[0].data - t->parts[1].data, 512);
    kvant_gguf_close(f);
}

static void blocks_of_two_matrices_are_told_apart(void **state) {
    (void)state;
    st_header h = {0};
    add_rest(&h);
    const char *name = "model.layers.0.mlp.experts.gate_up_proj";
    char blocks[96], scales[96], bias[96];
    snprintf(blocks, sizeof blocks, "%s_blocks", name);
    snprintf(scales, sizeof scales, "%s_scales", name);
    snprintf(bias, sizeof bias, "%s_bias", name);
    st_add(&h, blocks, "U8", "2,6,2,16", 384);
    st_add(&h, scales, "U8", "2,6,2", 24);
    st_add(&h, bias, "F32", "2,6", 48);
    kvant_gguf *f =
        expect_open("{\"model_type\":\"gpt_oss\",\"hidden_size\":64,\"num_hidden_layers\":1,\"num_local_experts\":2}", &h);
    const kvant_gguf_tensor *gate = kvant_gguf_find_tensor(f, "blk.0.ffn_gate_exps.weight"),
                            *up = kvant_gguf_find_tensor(f, "blk.0.ffn_up_exps.weight"),
                            *up_bias = kvant_gguf_find_tensor(f, "blk.0.ffn_up_exps.bias");
    assert_int_equal(gate->dims[0], 64);
    assert_int_equal(gate->dims[1], 3);
    assert_int_equal(gate->dims[2], 2);
    assert_int_equal(gate->row_bytes, 64);
    assert_int_equal(up->parts[0].data - gate->parts[0].data, 32);
    assert_int_equal(up->parts[1].data - up->parts[0].data, 192);
    assert_int_equal(up->parts[1].scales - gate->parts[0].scales, 14);
    assert_int_equal(up_bias->dims[0], 3);
    assert_int_equal(up_bias->dims[1], 2);
    kvant_gguf_close(f);
}

static void norms_that_add_one_are_folded(void **state) {
    (void)state;
    st_header h = {0};
    add_rest(&h);
    kvant_gguf *f =
        expect_open("{\"model_type\":\"gemma3_text\",\"hidden_size\":64,\"num_hidden_layers\":1,\"head_dim\":32}", &h);
    const kvant_gguf_tensor *t = kvant_gguf_find_tensor(f, "output_norm.weight");
    float x;
    memcpy(&x, t->data + 4, 4);
    /* The file's bytes count up, so element 1 is the float of bytes 4, 5, 6, 7. */
    assert_float_equal(x, 1.0f, 1e-6);
    assert_int_equal(t->type, 0);
    uint32_t unused;
    assert_int_equal(kvant_gguf_u32(f, "gemma3.attention.head_count", &unused, NULL), KVANT_OK); /* from the defaults */
    kvant_gguf_close(f);
}

static void llama_3_scales_slow_frequencies_only(void **state) {
    (void)state;
    st_header h = {0};
    add_rest(&h);
    kvant_gguf *f = expect_open("{" LLAMA "\"num_attention_heads\":2,\"head_dim\":64,\"rope_theta\":500000,\"rope_scaling\":{"
                                "\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1,\"high_freq_factor\":4,"
                                "\"original_max_position_embeddings\":8192}}",
                                &h);
    const kvant_gguf_tensor *t = kvant_gguf_find_tensor(f, "rope_freqs.weight");
    float x[32];
    assert_int_equal(t->dims[0], 32);
    memcpy(x, t->data, sizeof x);
    assert_float_equal(x[0], 1.0f, 0);
    assert_float_equal(x[31], 8.0f, 0);
    for (int i = 1; i < 32; i++)
        assert_true(x[i] >= x[i - 1]);
    /* Pair 16 turns once in 2 pi 500000^(1/2) = 4443 tokens, between 2048 and 8192. */
    float smooth = (8192.0f / 4442.883f - 1) / 3;
    assert_float_equal(x[16], 1 / ((1 - smooth) / 8 + smooth), 1e-4);
    kvant_gguf_close(f);
}

static void other_models_are_refused_by_name(void **state) {
    (void)state;
    const struct {
        const char *config, *word;
        kvant_status status;
    } cases[] = {
        {"{}", "model_type", KVANT_EFORMAT},
        {"[]", "not a JSON object", KVANT_EFORMAT},
        {"{\"model_type\":", "line 1", KVANT_EFORMAT},
        {"{\"model_type\":\"mamba\"}", "mamba is not one that Kvant knows: llama", KVANT_EUNSUPPORTED},
        {"{\"model_type\":\"a\\nb\"}", "a?b", KVANT_EUNSUPPORTED},
        {"{\"model_type\":\"qwen2_vl\"}", "qwen2_vl is a model that reads images", KVANT_EUNSUPPORTED},
        {"{\"model_type\":\"pixtral\"}", "pixtral", KVANT_EUNSUPPORTED},
        {"{\"model_type\":\"llama\",\"vision_config\":{}}", "reads images", KVANT_EUNSUPPORTED},
        {"{" LLAMA "\"num_attention_heads\":2,\"quantization_config\":{\"quant_method\":\"awq\"}}", "awq", KVANT_EUNSUPPORTED},
        {"{" LLAMA "\"num_attention_heads\":2,\"hidden_act\":\"relu\"}", "relu", KVANT_EUNSUPPORTED},
        {"{" LLAMA "\"num_attention_heads\":2.5}", "num_attention_heads", KVANT_EFORMAT},
        {"{" LLAMA "\"num_attention_heads\":\"2\"}", "num_attention_heads", KVANT_EFORMAT},
        {"{" LLAMA "\"num_attention_heads\":2,\"layer_types\":[]}", "layer_types", KVANT_EFORMAT},
        {"{" LLAMA "\"num_attention_heads\":2,\"layer_types\":[\"linear_attention\"]}", "layer 0", KVANT_EUNSUPPORTED},
        {"{" LLAMA "\"num_attention_heads\":2,\"rope_scaling\":{\"type\":\"dynamic\"}}", "dynamic", KVANT_EUNSUPPORTED},
        {"{" LLAMA "\"num_attention_heads\":2,\"rope_scaling\":{\"type\":\"linear\"}}", "factor", KVANT_EFORMAT},
        {"{\"model_type\":\"qwen3_moe\",\"num_hidden_layers\":1,\"norm_topk_prob\":false}", "norm_topk_prob", KVANT_EUNSUPPORTED},
        {"{\"model_type\":\"qwen3_moe\",\"num_hidden_layers\":1,\"mlp_only_layers\":[0]}", "some layers", KVANT_EUNSUPPORTED},
        {"{\"model_type\":\"llama\"}", "num_hidden_layers", KVANT_EFORMAT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        st_header h = {0};
        add_rest(&h);
        expect_refused(cases[i].config, &h, cases[i].status, cases[i].word);
    }
}

static void wrong_tensors_are_refused(void **state) {
    (void)state;
    const struct {
        const char *name, *dtype, *shape;
        size_t bytes;
        const char *word;
        kvant_status status;
    } cases[] = {
        {"model.layers.0.self_attn.rotary.weight", "F32", "1", 4, "has no place in a llama model", KVANT_EUNSUPPORTED},
        {"model.layers.0.self_attn.q_norm.weight", "F32", "1", 4, "has no place", KVANT_EUNSUPPORTED},
        {"model.layers.1.self_attn.q_proj.weight", "F32", "1,1", 4, "has no place", KVANT_EUNSUPPORTED},
        {"model.layers.0.self_attn.q_proj.weight", "I32", "1,1", 4, "I32", KVANT_EUNSUPPORTED},
        {"model.layers.0.self_attn.q_proj.weight", "U32", "1,1", 4, "U32", KVANT_EUNSUPPORTED},
        {"model.layers.0.self_attn.q_proj.weight", "F32", "1,1,1,1,1", 4, "5 dimensions", KVANT_EFORMAT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        st_header h = {0};
        add_rest(&h);
        st_add(&h, cases[i].name, cases[i].dtype, cases[i].shape, cases[i].bytes);
        expect_refused(CONFIG, &h, cases[i].status, cases[i].word);
    }
    st_header h = {0};
    add_rest(&h);
    expect_refused("{" LLAMA "\"num_attention_heads\":2,\"tie_word_embeddings\":false}", &h, KVANT_EFORMAT,
                   "lm_head.weight is missing");
}

static void wrong_quantizations_are_refused(void **state) {
    (void)state;
    const struct {
        const char *quantization, *scales, *word;
        size_t scale_bytes;
        kvant_status status;
    } cases[] = {
        {"\"x\":1", "4,1", "config.json has no quantization", 8, KVANT_EFORMAT},
        {"\"quantization\":{\"bits\":4,\"group_size\":32}", "4,1", "words for 1 groups", 8, KVANT_EFORMAT},
        {"\"quantization\":{\"bits\":7,\"group_size\":64}", "4,1", "7 bits", 8, KVANT_EUNSUPPORTED},
        {"\"quantization\":{\"bits\":4,\"group_size\":16}", "4,1", "groups of 16", 8, KVANT_EUNSUPPORTED},
        {"\"quantization\":{\"bits\":4,\"group_size\":16,\"mode\":\"nvfp4\"}", "4,1", "nvfp4", 8, KVANT_EUNSUPPORTED},
        {"\"quantization\":{\"bits\":4,\"group_size\":32,\"mode\":\"mxfp4\"}", "4,1", "expected U8", 8, KVANT_EFORMAT},
        {"\"quantization\":{\"bits\":4,\"group_size\":64}", "2,2", "another shape", 8, KVANT_EFORMAT},
        {"\"quantization\":{\"bits\":4,\"group_size\":64}", "4,1", "no biases", 8, KVANT_EFORMAT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char config[512];
        st_header h = {0};
        add_rest(&h);
        st_add(&h, "model.layers.0.self_attn.q_proj.weight", "U32", "4,8", 128);
        st_add(&h, "model.layers.0.self_attn.q_proj.scales", "F16", cases[i].scales, cases[i].scale_bytes);
        if (strcmp(cases[i].word, "no biases") != 0)
            st_add(&h, "model.layers.0.self_attn.q_proj.biases", "F16", cases[i].scales, cases[i].scale_bytes);
        snprintf(config, sizeof config, "{" LLAMA "\"num_attention_heads\":2,%s}", cases[i].quantization);
        expect_refused(config, &h, cases[i].status, cases[i].word);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(config_becomes_metadata),
        cmocka_unit_test(layers_with_windows_choose_the_architecture_that_has_them),
        cmocka_unit_test(quantized_matrices_keep_their_three_arrays),
        cmocka_unit_test(experts_one_by_one_become_one_tensor_of_parts),
        cmocka_unit_test(blocks_of_two_matrices_are_told_apart),
        cmocka_unit_test(norms_that_add_one_are_folded),
        cmocka_unit_test(llama_3_scales_slow_frequencies_only),
        cmocka_unit_test(other_models_are_refused_by_name),
        cmocka_unit_test(wrong_tensors_are_refused),
        cmocka_unit_test(wrong_quantizations_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
