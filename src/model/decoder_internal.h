// SPDX-License-Identifier: MIT
/* decoder_internal.h: what the files of the decoder share: hyperparameters, weights, scratch. */
#ifndef KVANT_MODEL_DECODER_INTERNAL_H
#define KVANT_MODEL_DECODER_INTERNAL_H

#include "attn/attend.h"
#include "cache/page.h"
#include "kernel/kernels.h"
#include "model/arch_traits.h"
#include "model/decoder.h"
#include "model/rope.h"
#include "weight/weight.h"

#define KVANT_MAX_LAYERS 1024
#define KVANT_MAX_EXPERTS 1024
#define KVANT_MAX_EXPERTS_USED 64

/* The numbers of a model; every one is within the range that decoder_hparams.c states. */
typedef struct kvant_hparams {
    const kvant_arch_traits *traits;
    int n_layer, n_embd, n_head, n_kv_head, head_dim, n_rot, n_vocab;
    int n_ff;                       /* of the dense MLP, or of one expert */
    int n_expert, n_expert_used;    /* 0: dense */
    int64_t n_context;
    float norm_eps;
    float attention_scale, attn_softcap, final_softcap;
    float embedding_scale, residual_scale, logit_scale; /* factors; 1 when the family has none */
    float temperature_scale;        /* 0: none */
    double temperature_floor;       /* positions below it are not scaled */
    bool use_rope;
    kvant_rope_params rope, local_rope; /* factors not set yet */
    bool rope_long;                 /* LongRoPE: the factors for the long context */
    bool longrope_type;
    int window;                     /* of the layers that have one; 0: none */
    uint8_t windowed[KVANT_MAX_LAYERS];
    uint8_t no_rope[KVANT_MAX_LAYERS];
    bool mlx_own_cache;             /* as in kvant_decoder_info */
} kvant_hparams;

/* Reads and checks. KVANT_EUNSUPPORTED, KVANT_EFORMAT with a sentence. */
kvant_status kvant_hparams_read(const kvant_gguf *f, kvant_hparams *out, kvant_error *err);

/* The elements of all tensors whose type is known. */
int64_t kvant_count_parameters(const kvant_gguf *f);

/* y = (W x) * scale + bias. */
typedef struct kvant_linear {
    kvant_weight *w;
    float *bias;                    /* [rows] or NULL; owned; not multiplied by scale */
    float scale;                    /* 1 for nearly every file */
} kvant_linear;

typedef struct kvant_norm {
    float *weight;                  /* [n], NULL: the layer has no such norm */
    float *bias;                    /* [n], LayerNorm only */
} kvant_norm;

typedef struct kvant_layer {
    kvant_norm attn_norm, attn_post_norm, ffn_norm, ffn_post_norm;
    kvant_linear q, k, v, o;
    float *q_norm, *k_norm;         /* [head_dim], or whole projections */
    float *sinks;                   /* [n_head] */
    kvant_linear gate, up, down;    /* dense */
    kvant_linear router;            /* experts */
    kvant_linear *gate_experts, *up_experts, *down_experts; /* [n_expert] */
    int rope;                       /* index into the decoder's ropes, -1: none */
} kvant_layer;

struct kvant_decoder {
    kvant_context *ctx;
    kvant_hparams hp;
    int *layer_window;              /* [n_layer] */
    int *layer_rope;                /* [n_layer]: index into ropes, -1: none */
    kvant_rope ropes[2];            /* layers without and with a window */
    int n_rope;
    const kvant_gguf_tensor *embedding; /* rows are decoded from the map */
    kvant_weight_source embedding_rows;
    kvant_norm output_norm;
    kvant_linear output;
    kvant_layer *layers;            /* [n_layer] */
    size_t weight_bytes;
    int64_t n_parameters;
};

struct kvant_workspace {
    const kvant_decoder *d;
    int n_max;
    kvant_observe_fn observe;       /* NULL, or who is shown keys, values and queries */
    void *observer;
    kvant_activations *wide;        /* inputs of q, k, v, o, gate, up, output */
    kvant_activations *narrow;      /* inputs of down */
    float *x, *h;                   /* [n_max][n_embd]: residual stream, and a branch of it */
    float *q, *attended;            /* [n_max][n_head * head_dim] */
    float *k, *v;                   /* [n_max][n_kv_head * head_dim] */
    float *gate, *up;               /* [n_max][n_ff] */
    float *cosine[2], *sine[2];     /* [n_max][n_rot/2] for each rope */
    float *temperature;             /* [n_max] */
    int64_t *starts;                /* [n_max segments]: the length of each sequence before the step */
    kvant_append_item *appends;     /* [n_max segments] */
    kvant_attend_item *items;       /* [n_max segments] */
    float *logits;                  /* [logit_rows][n_vocab]: rows that go to several places; made when a batch first needs them */
    int logit_rows;
    /* experts */
    float *router;                  /* [n_max][n_expert] */
    float *gathered;                /* [n_max][n_embd]: rows of one expert */
    float *expert_out;              /* [n_max][n_embd] */
    float *mixture;                 /* [n_max][n_embd]: the sum over experts */
    float *chosen_weight;           /* [n_max][n_expert_used] */
    int *chosen;                    /* [n_max][n_expert_used] */
    int *members;                   /* [n_max]: rows of one expert */
    float *member_weight;           /* [n_max] */
};

/* out[i] = linear(activations), rows of `stride` floats. */
void kvant_linear_apply(const kvant_decoder *d, const kvant_linear *l, const kvant_activations *a, int n, float *out,
                        size_t stride);

/* Rows spread over the pool where there is enough to do (decoder_rows.c). A row never depends on another. */
void kvant_rows_norm(const kvant_decoder *d, float *y, const float *x, const kvant_norm *norm, int n, int width);
void kvant_rows_norm_heads(const kvant_decoder *d, float *x, const float *weight, int n, int n_head, int head_dim);
void kvant_rows_rope(const kvant_decoder *d, const kvant_rope *r, const float *cosine, const float *sine, float *x, int n,
                     int n_head);
void kvant_rows_activate(const kvant_decoder *d, float *gate, const float *up, int n, int width);
void kvant_rows_scale_add_bias(const kvant_decoder *d, float *x, float scale, const float *bias, int n, int width, size_t stride);
/* y += a * x */
void kvant_rows_add_scaled(const kvant_decoder *d, float *y, const float *x, float a, int n, int width);
void kvant_rows_softcap(const kvant_decoder *d, float *x, float cap, int n, int width);

/* The MLP of a layer with experts: h [n][n_embd] is read and replaced by the mixture's output. */
void kvant_experts_apply(const kvant_decoder *d, kvant_workspace *w, const kvant_layer *layer, float *h, int n,
                         kvant_precision precision);

#endif
