// SPDX-License-Identifier: MIT
/* arch_traits.h: what distinguishes one decoder family from another, one row each.
 *
 * The forward pass (decoder_forward.c) reads these and the hyperparameters; it knows no family by name. */
#ifndef KVANT_MODEL_ARCH_TRAITS_H
#define KVANT_MODEL_ARCH_TRAITS_H

#include "base/status.h"
#include "file/gguf.h"

typedef enum kvant_activation { KVANT_ACT_SILU, KVANT_ACT_GELU, KVANT_ACT_SWIGLU_OAI } kvant_activation;

/* Norms of queries and keys before RoPE: none, over each head, or over the whole projection. */
typedef enum kvant_qk_norm { KVANT_QK_NORM_NONE, KVANT_QK_NORM_HEAD, KVANT_QK_NORM_WHOLE } kvant_qk_norm;

/* Which pairs RoPE turns: (2i, 2i + 1), or (i, i + n_rot / 2). */
typedef enum kvant_rope_pairs { KVANT_ROPE_INTERLEAVED, KVANT_ROPE_HALVES } kvant_rope_pairs;

/* How the chosen experts' weights come from the router's logits. */
typedef enum kvant_expert_gate {
    KVANT_GATE_NONE,          /* the family has no experts */
    KVANT_GATE_SOFTMAX_TOPK,  /* softmax over all, the best k, renormalised to sum 1 */
    KVANT_GATE_TOPK_SOFTMAX   /* the best k, softmax over those */
} kvant_expert_gate;

/* RoPE of the layers that have a sliding window. */
typedef enum kvant_local_rope {
    KVANT_LOCAL_ROPE_SAME,    /* as elsewhere, but rope.freq_base_swa when the file has it */
    KVANT_LOCAL_ROPE_10000,   /* base 10000 (or rope.freq_base_swa), not scaled */
    KVANT_LOCAL_ROPE_PLAIN    /* the same base, not scaled */
} kvant_local_rope;

/* Which models mlx-lm (0.32) makes the cache of itself (make_cache), so that max_kv_size has no effect on them there. */
typedef enum kvant_own_cache {
    KVANT_OWN_CACHE_NONE,
    KVANT_OWN_CACHE_ALL,
    KVANT_OWN_CACHE_DENSE,    /* not those with experts (Mixtral) or with a vision tower (Pixtral) */
    KVANT_OWN_CACHE_WINDOWED  /* those with windows */
} kvant_own_cache;

/* Per-tensor scales ("....scale", one float that multiplies the product) that the family's graph reads. */
enum {
    KVANT_SCALE_QKV = 1, KVANT_SCALE_O = 2, KVANT_SCALE_FFN = 4, KVANT_SCALE_EXPERTS = 8,
    KVANT_SCALE_ALL = 15
};

typedef struct kvant_arch_traits {
    const char *name;             /* general.architecture, and the prefix of its keys */
    bool layer_norm;              /* LayerNorm with biases; false: RMSNorm */
    bool pre_norm;                /* norm before attention and MLP */
    bool post_norm;               /* norm after attention and MLP, before the residual is added */
    const char *ffn_norm_name;    /* the tensor of the norm before the MLP */
    kvant_qk_norm qk_norm;
    kvant_activation activation;
    bool gated;                   /* act(gate) * up; false: act(up) */
    bool fused_gate_up;           /* ffn_up holds gate and up, one after the other */
    kvant_rope_pairs rope_pairs;
    kvant_local_rope local_rope;
    bool rope_freqs;              /* reads rope_freqs.weight (Llama 3) */
    bool rope_long_short;         /* reads rope_factors_long.weight and rope_factors_short.weight */
    bool rope_sections;           /* reads rope.dimension_sections (GLM-4V): with them pairs are halves */
    bool rope_finetuned_switch;   /* rope.scaling.finetuned = false means no RoPE at all (Granite) */
    int no_rope_step;             /* every n-th layer has no RoPE; 0: all have it */
    int window_period;            /* 0: never a window. 1: every layer. p: all but each p-th, unless the file has a pattern */
    int window_default;           /* when the file names none; 0: no windows then */
    bool attn_softcap, final_softcap;
    float attn_softcap_default, final_softcap_default;
    bool sinks;
    kvant_expert_gate gate;
    bool expert_ff_shared_out;    /* without expert_feed_forward_length an expert has feed_forward_length / expert_used_count */
    bool tied;                    /* output is always the embedding */
    bool output_required;         /* output.weight may not be left out */
    bool embedding_sqrt;          /* embeddings are multiplied by sqrt(n_embd) */
    bool granite_scales;          /* embedding_scale, residual_scale, attention.scale, logit_scale */
    int wide_query_layers;        /* the model of so many layers has 1 / sqrt(n_embd / n_head) for 1 / sqrt(head_dim) (27B) */
    bool position_temperature;    /* attention.temperature_scale (Ministral 3) */
    kvant_own_cache own_cache;    /* of mlx-lm's model of that name */
    bool yarn_keys;               /* reads the corners and the log multiplier of YaRN; others have the usual ones */
    unsigned scales;
} kvant_arch_traits;

/* NULL: not in the table. */
const kvant_arch_traits *kvant_arch_find(kvant_text name);
/* The row of the file's general.architecture. KVANT_EUNSUPPORTED names it, with the list; vision files are named as such. */
kvant_status kvant_arch_of_file(const kvant_gguf *f, const kvant_arch_traits **out, kvant_error *err);

#endif
