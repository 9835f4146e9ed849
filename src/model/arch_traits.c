// SPDX-License-Identifier: MIT
/* arch_traits.c: the table of decoder families.
 *
 * A new family whose graph differs in these traits only is one more row here and a tiny model in tests/golden/models. */
#include "model/arch_traits.h"

#include <string.h>

#include "model/decoder.h"

#define FFN_NORM "ffn_norm"

static const kvant_arch_traits table[] = {
    {.name = "llama", .pre_norm = true, .ffn_norm_name = FFN_NORM, .gated = true, .rope_pairs = KVANT_ROPE_INTERLEAVED,
     .rope_freqs = true, .rope_long_short = true, .gate = KVANT_GATE_SOFTMAX_TOPK, .own_cache = KVANT_OWN_CACHE_DENSE,
     .scales = KVANT_SCALE_ALL},
    /* Published inside a model that reads pictures, which leaves the cache to mlx-lm. */
    {.name = "mistral3", .pre_norm = true, .ffn_norm_name = FFN_NORM, .gated = true, .rope_pairs = KVANT_ROPE_INTERLEAVED,
     .rope_freqs = true, .rope_long_short = true, .gate = KVANT_GATE_SOFTMAX_TOPK, .position_temperature = true,
     .yarn_keys = true, .scales = KVANT_SCALE_ALL},
    {.name = "mistral", .pre_norm = true, .ffn_norm_name = FFN_NORM, .gated = true, .rope_pairs = KVANT_ROPE_INTERLEAVED,
     .rope_freqs = true, .rope_long_short = true, .window_period = 1, .gate = KVANT_GATE_SOFTMAX_TOPK,
     .position_temperature = true, .own_cache = KVANT_OWN_CACHE_DENSE, .yarn_keys = true, .scales = KVANT_SCALE_ALL},
    {.name = "qwen2", .pre_norm = true, .ffn_norm_name = FFN_NORM, .gated = true, .rope_pairs = KVANT_ROPE_HALVES,
     .scales = KVANT_SCALE_QKV | KVANT_SCALE_O},
    {.name = "qwen3", .pre_norm = true, .ffn_norm_name = FFN_NORM, .qk_norm = KVANT_QK_NORM_HEAD, .gated = true,
     .rope_pairs = KVANT_ROPE_HALVES, .scales = KVANT_SCALE_ALL},
    {.name = "qwen3moe", .pre_norm = true, .ffn_norm_name = FFN_NORM, .qk_norm = KVANT_QK_NORM_HEAD, .gated = true,
     .rope_pairs = KVANT_ROPE_HALVES, .gate = KVANT_GATE_SOFTMAX_TOPK, .expert_ff_shared_out = true, .scales = KVANT_SCALE_ALL},
    {.name = "gemma2", .pre_norm = true, .post_norm = true, .ffn_norm_name = FFN_NORM, .activation = KVANT_ACT_GELU,
     .gated = true, .rope_pairs = KVANT_ROPE_HALVES, .window_period = 2, .window_default = 4096,
     .attn_softcap = true, .final_softcap = true, .attn_softcap_default = 50.0f, .final_softcap_default = 30.0f, .tied = true,
     .embedding_sqrt = true, .wide_query_layers = 46, .scales = KVANT_SCALE_QKV | KVANT_SCALE_O},
    {.name = "gemma3", .pre_norm = true, .post_norm = true, .ffn_norm_name = FFN_NORM, .qk_norm = KVANT_QK_NORM_HEAD,
     .activation = KVANT_ACT_GELU, .gated = true, .rope_pairs = KVANT_ROPE_HALVES, .local_rope = KVANT_LOCAL_ROPE_10000,
     .window_period = 6, .final_softcap = true, .embedding_sqrt = true, .wide_query_layers = 62, .own_cache = KVANT_OWN_CACHE_ALL,
     .scales = KVANT_SCALE_QKV | KVANT_SCALE_O},
    /* All layers have the window of attention.sliding_window, as the model was trained; llama.cpp leaves it out. */
    {.name = "phi3", .pre_norm = true, .ffn_norm_name = FFN_NORM, .gated = true, .fused_gate_up = true,
     .rope_pairs = KVANT_ROPE_HALVES, .rope_long_short = true, .window_period = 1, .scales = KVANT_SCALE_QKV | KVANT_SCALE_O},
    {.name = "gpt-oss", .pre_norm = true, .ffn_norm_name = "post_attention_norm", .activation = KVANT_ACT_SWIGLU_OAI,
     .gated = true, .rope_pairs = KVANT_ROPE_HALVES, .window_period = 2, .sinks = true,
     .gate = KVANT_GATE_TOPK_SOFTMAX, .output_required = true, .own_cache = KVANT_OWN_CACHE_ALL,
     .scales = KVANT_SCALE_QKV | KVANT_SCALE_O},
    {.name = "glm4", .pre_norm = true, .post_norm = true, .ffn_norm_name = FFN_NORM, .gated = true, .fused_gate_up = true,
     .rope_pairs = KVANT_ROPE_INTERLEAVED, .rope_sections = true, .scales = KVANT_SCALE_QKV | KVANT_SCALE_O},
    {.name = "granite", .pre_norm = true, .ffn_norm_name = FFN_NORM, .gated = true, .rope_pairs = KVANT_ROPE_INTERLEAVED,
     .rope_freqs = true, .rope_long_short = true, .rope_finetuned_switch = true, .granite_scales = true,
     .gate = KVANT_GATE_SOFTMAX_TOPK, .scales = KVANT_SCALE_QKV | KVANT_SCALE_O},
    /* With windows it is OLMo 3. */
    {.name = "olmo2", .post_norm = true, .qk_norm = KVANT_QK_NORM_WHOLE, .gated = true,
     .rope_pairs = KVANT_ROPE_HALVES, .local_rope = KVANT_LOCAL_ROPE_PLAIN, .window_period = 4, .output_required = true,
     .own_cache = KVANT_OWN_CACHE_WINDOWED, .scales = KVANT_SCALE_QKV | KVANT_SCALE_O},
    {.name = "smollm3", .pre_norm = true, .ffn_norm_name = FFN_NORM, .gated = true, .rope_pairs = KVANT_ROPE_INTERLEAVED,
     .no_rope_step = 4, .scales = KVANT_SCALE_QKV | KVANT_SCALE_O},
    {.name = "starcoder2", .layer_norm = true, .pre_norm = true, .ffn_norm_name = FFN_NORM, .activation = KVANT_ACT_GELU,
     .rope_pairs = KVANT_ROPE_HALVES, .scales = KVANT_SCALE_QKV | KVANT_SCALE_O},
};

#define N_ARCH (sizeof table / sizeof table[0])

/* Names of files that hold a vision tower or a decoder that reads image positions: refused as what they are. */
static const char *const vision_names[] = {"clip", "qwen2vl", "qwen3vl", "qwen3vlmoe", "mllama", "gemma3n", "gemma4", "cogvlm",
                                           "chameleon", "pixtral", "llava", "minicpmv", "paddleocr", "deepseek2-ocr", "glm4v"};

const char *kvant_decoder_architectures(void) {
    return "llama, mistral3, mistral, qwen2, qwen3, qwen3moe, gemma2, gemma3, phi3, gpt-oss, glm4, granite, olmo2, smollm3, "
           "starcoder2";
}

static bool text_is(kvant_text t, const char *s) { return t.size == strlen(s) && memcmp(t.data, s, t.size) == 0; }

const kvant_arch_traits *kvant_arch_find(kvant_text name) {
    for (size_t i = 0; i < N_ARCH; i++) {
        if (text_is(name, table[i].name)) return &table[i];
    }
    return NULL;
}

kvant_status kvant_arch_of_file(const kvant_gguf *f, const kvant_arch_traits **out, kvant_error *err) {
    kvant_text name;
    KVANT_TRY(kvant_gguf_string(f, "general.architecture", &name, err));
    const kvant_arch_traits *traits = kvant_arch_find(name);
    int shown = name.size > 64 ? 64 : (int)name.size;
    if (traits) {
        *out = traits;
        return KVANT_OK;
    }
    for (size_t i = 0; i < sizeof vision_names / sizeof vision_names[0]; i++) {
        if (text_is(name, vision_names[i]))
            return kvant_fail(err, KVANT_EUNSUPPORTED,
                              "%s: the architecture %.*s is a vision tower or a decoder that needs one, which Kvant cannot run; "
                              "it runs the text decoders %s", f->path, shown, name.data, kvant_decoder_architectures());
    }
    return kvant_fail(err, KVANT_EUNSUPPORTED, "%s: the architecture %.*s is not one that Kvant knows: %s", f->path, shown,
                      name.data, kvant_decoder_architectures());
}
