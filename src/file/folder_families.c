// SPDX-License-Identifier: MIT
/* folder_families.c: the model_types of config.json that run, one row each, and their names of tensors.
 *
 * A new family is a row here, where the decoder has its architecture (model/arch_traits.c). */
#include "file/folder_internal.h"

#include <string.h>

const kvant_folder_name kvant_folder_top_names[] = {
    {"model.embed_tokens", "token_embd", KVANT_FORM_LINEAR},
    {"model.norm", "output_norm", KVANT_FORM_NORM},
    {"lm_head", "output", KVANT_FORM_LINEAR},
    {NULL, NULL, KVANT_FORM_LINEAR},
};

#define END                                                                                                                      \
    { NULL, NULL, KVANT_FORM_LINEAR }
#define LINEAR(from, to)                                                                                                         \
    { from, to, KVANT_FORM_LINEAR }
#define NORM(from, to)                                                                                                           \
    { from, to, KVANT_FORM_NORM }

static const kvant_folder_name pre_norms[] = {NORM("input_layernorm", "attn_norm"), NORM("post_attention_layernorm", "ffn_norm"),
                                              END};
static const kvant_folder_name oss_norms[] = {NORM("input_layernorm", "attn_norm"),
                                              NORM("post_attention_layernorm", "post_attention_norm"), END};
static const kvant_folder_name post_norms[] = {NORM("post_attention_layernorm", "post_attention_norm"),
                                               NORM("post_feedforward_layernorm", "post_ffw_norm"), END};
static const kvant_folder_name gemma_norms[] = {
    NORM("input_layernorm", "attn_norm"), NORM("post_attention_layernorm", "post_attention_norm"),
    NORM("pre_feedforward_layernorm", "ffn_norm"), NORM("post_feedforward_layernorm", "post_ffw_norm"), END};
static const kvant_folder_name glm_norms[] = {
    NORM("input_layernorm", "attn_norm"), NORM("post_self_attn_layernorm", "post_attention_norm"),
    NORM("post_attention_layernorm", "ffn_norm"), NORM("post_mlp_layernorm", "post_ffw_norm"), END};

static const kvant_folder_name attention[] = {LINEAR("self_attn.q_proj", "attn_q"), LINEAR("self_attn.k_proj", "attn_k"),
                                              LINEAR("self_attn.v_proj", "attn_v"), LINEAR("self_attn.o_proj", "attn_output"),
                                              END};
static const kvant_folder_name qk_norms[] = {NORM("self_attn.q_norm", "attn_q_norm"), NORM("self_attn.k_norm", "attn_k_norm"),
                                             END};
static const kvant_folder_name sinks[] = {{"self_attn.sinks", "attn_sinks", KVANT_FORM_BARE}, END};
static const kvant_folder_name fused_attention[] = {LINEAR("self_attn.qkv_proj", "attn_qkv"),
                                                    LINEAR("self_attn.o_proj", "attn_output"), END};

static const kvant_folder_name mlp[] = {LINEAR("mlp.gate_proj", "ffn_gate"), LINEAR("mlp.up_proj", "ffn_up"),
                                        LINEAR("mlp.down_proj", "ffn_down"), END};
static const kvant_folder_name fused_mlp[] = {LINEAR("mlp.gate_up_proj", "ffn_up"), LINEAR("mlp.down_proj", "ffn_down"), END};
static const kvant_folder_name plain_mlp[] = {LINEAR("mlp.c_fc", "ffn_up"), LINEAR("mlp.c_proj", "ffn_down"), END};

/* Experts: stacked by MLX, one by one from Hugging Face. */
static const kvant_folder_name mixtral_experts[] = {LINEAR("block_sparse_moe.gate", "ffn_gate_inp"),
                                                    LINEAR("block_sparse_moe.switch_mlp.gate_proj", "ffn_gate_exps"),
                                                    LINEAR("block_sparse_moe.switch_mlp.up_proj", "ffn_up_exps"),
                                                    LINEAR("block_sparse_moe.switch_mlp.down_proj", "ffn_down_exps"),
                                                    {"block_sparse_moe.experts.%d.w1", "ffn_gate_exps", KVANT_FORM_EXPERTS},
                                                    {"block_sparse_moe.experts.%d.w3", "ffn_up_exps", KVANT_FORM_EXPERTS},
                                                    {"block_sparse_moe.experts.%d.w2", "ffn_down_exps", KVANT_FORM_EXPERTS},
                                                    END};
static const kvant_folder_name qwen_experts[] = {LINEAR("mlp.gate", "ffn_gate_inp"),
                                                 LINEAR("mlp.switch_mlp.gate_proj", "ffn_gate_exps"),
                                                 LINEAR("mlp.switch_mlp.up_proj", "ffn_up_exps"),
                                                 LINEAR("mlp.switch_mlp.down_proj", "ffn_down_exps"),
                                                 {"mlp.experts.%d.gate_proj", "ffn_gate_exps", KVANT_FORM_EXPERTS},
                                                 {"mlp.experts.%d.up_proj", "ffn_up_exps", KVANT_FORM_EXPERTS},
                                                 {"mlp.experts.%d.down_proj", "ffn_down_exps", KVANT_FORM_EXPERTS},
                                                 END};
static const kvant_folder_name oss_experts[] = {LINEAR("mlp.router", "ffn_gate_inp"),
                                                LINEAR("mlp.experts.gate_proj", "ffn_gate_exps"),
                                                LINEAR("mlp.experts.up_proj", "ffn_up_exps"),
                                                LINEAR("mlp.experts.down_proj", "ffn_down_exps"),
                                                {"mlp.experts.gate_up_proj", "ffn_gate_exps", KVANT_FORM_BLOCKS_EVEN},
                                                {"mlp.experts.gate_up_proj", "ffn_up_exps", KVANT_FORM_BLOCKS_ODD},
                                                {"mlp.experts.down_proj", "ffn_down_exps", KVANT_FORM_BLOCKS},
                                                END};

static const kvant_folder_default mixtral_defaults[] = {{"hidden_size", 4096},      {"intermediate_size", 14336},
                                                        {"num_hidden_layers", 32},  {"num_attention_heads", 32},
                                                        {"num_experts_per_tok", 2}, {"num_key_value_heads", 8},
                                                        {"num_local_experts", 8},   {"rms_norm_eps", 1e-5},
                                                        {"rope_theta", 1e6},        {NULL, 0}};
static const kvant_folder_default gemma3_defaults[] = {{"hidden_size", 1152},
                                                       {"num_hidden_layers", 26},
                                                       {"intermediate_size", 6912},
                                                       {"num_attention_heads", 4},
                                                       {"head_dim", 256},
                                                       {"rms_norm_eps", 1e-6},
                                                       {"num_key_value_heads", 1},
                                                       {"rope_theta", 1e6},
                                                       {"rope_local_base_freq", 1e4},
                                                       {"query_pre_attn_scalar", 256},
                                                       {"sliding_window", 512},
                                                       {"sliding_window_pattern", 6},
                                                       {NULL, 0}};
static const kvant_folder_default gemma2_defaults[] = {{"attn_logit_softcapping", 50},
                                                       {"final_logit_softcapping", 30},
                                                       {"query_pre_attn_scalar", 144},
                                                       {"rms_norm_eps", 1e-6},
                                                       {NULL, 0}};
static const kvant_folder_default oss_defaults[] = {
    {"num_hidden_layers", 36},  {"num_local_experts", 128},  {"num_experts_per_tok", 4}, {"rms_norm_eps", 1e-5},
    {"hidden_size", 2880},      {"intermediate_size", 2880}, {"head_dim", 64},           {"num_attention_heads", 64},
    {"num_key_value_heads", 8}, {"sliding_window", 128},     {"rope_theta", 150000},     {NULL, 0}};
static const kvant_folder_default phi3_defaults[] = {
    {"max_position_embeddings", 131072}, {"original_max_position_embeddings", 4096}, {NULL, 0}};
static const kvant_folder_default glm_defaults[] = {{"partial_rotary_factor", 0.5}, {NULL, 0}};
static const kvant_folder_default starcoder_defaults[] = {{"norm_epsilon", 1e-5}, {"num_key_value_heads", 2}, {NULL, 0}};

#define SILU .act = KVANT_FOLDER_ACT_SILU
static const kvant_folder_family families[] = {
    {.model_type = "llama",
     .architecture = "llama",
     .windowed = "mistral",
     .lists = {pre_norms, attention, mlp},
     .rope_freqs = true,
     .long_rope = true,
     SILU},
    {.model_type = "mistral",
     .architecture = "llama",
     .windowed = "mistral",
     .lists = {pre_norms, attention, mlp},
     .rope_freqs = true,
     .long_rope = true,
     SILU},
    {.model_type = "mixtral",
     .architecture = "llama",
     .windowed = "mistral",
     .lists = {pre_norms, attention, mixtral_experts},
     .defaults = mixtral_defaults,
     SILU},
    {.model_type = "qwen2", .architecture = "qwen2", .lists = {pre_norms, attention, mlp}, SILU},
    {.model_type = "qwen3", .architecture = "qwen3", .lists = {pre_norms, attention, qk_norms, mlp}, SILU},
    {.model_type = "qwen3_moe", .architecture = "qwen3moe", .lists = {pre_norms, attention, qk_norms, qwen_experts}, SILU},
    {.model_type = "gemma2",
     .architecture = "gemma2",
     .lists = {gemma_norms, attention, mlp},
     .defaults = gemma2_defaults,
     .norm_plus_one = true},
    {.model_type = "gemma3_text",
     .architecture = "gemma3",
     .lists = {gemma_norms, attention, qk_norms, mlp},
     .defaults = gemma3_defaults,
     .norm_plus_one = true},
    {.model_type = "phi3",
     .architecture = "phi3",
     .lists = {pre_norms, fused_attention, fused_mlp},
     .defaults = phi3_defaults,
     .long_rope = true,
     SILU},
    {.model_type = "gpt_oss",
     .architecture = "gpt-oss",
     .lists = {oss_norms, attention, sinks, oss_experts},
     .defaults = oss_defaults},
    {.model_type = "glm4",
     .architecture = "glm4",
     .lists = {glm_norms, attention, fused_mlp},
     .defaults = glm_defaults,
     .interleaved = true,
     SILU},
    {.model_type = "granite", .architecture = "granite", .lists = {pre_norms, attention, mlp}, .rope_freqs = true, SILU},
    {.model_type = "olmo2", .architecture = "olmo2", .lists = {post_norms, attention, qk_norms, mlp}, SILU},
    {.model_type = "olmo3", .architecture = "olmo2", .lists = {post_norms, attention, qk_norms, mlp}, SILU},
    {.model_type = "smollm3", .architecture = "smollm3", .lists = {pre_norms, attention, mlp}, SILU},
    {.model_type = "starcoder2",
     .architecture = "starcoder2",
     .lists = {pre_norms, attention, plain_mlp},
     .defaults = starcoder_defaults,
     .act = KVANT_FOLDER_ACT_GELU},
};

const char *kvant_folder_model_types(void) {
    return "llama, mistral, mixtral, qwen2, qwen3, qwen3_moe, gemma2, gemma3_text, phi3, gpt_oss, glm4, granite, olmo2, olmo3, "
           "smollm3, starcoder2";
}

const kvant_folder_family *kvant_folder_find_family(const char *model_type) {
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        if (strcmp(families[i].model_type, model_type) == 0) return &families[i];
    return NULL;
}
