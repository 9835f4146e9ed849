// SPDX-License-Identifier: MIT
/* rope.h: rotary positions: the frequencies of a model, and turning queries and keys by them. */
#ifndef KVANT_MODEL_ROPE_H
#define KVANT_MODEL_ROPE_H

#include "model/arch_traits.h"

/* One way of turning, shared by all layers that use it. */
typedef struct kvant_rope {
    int n_rot;               /* leading elements of a head that are turned; even */
    kvant_rope_pairs pairs;
    double *frequency;       /* [n_rot/2] radians a token, scaling included; owned */
    float magnitude;         /* multiplies cos and sin (YaRN, LongRoPE) */
} kvant_rope;

typedef struct kvant_rope_params {
    int n_rot;
    kvant_rope_pairs pairs;
    double base;
    double freq_scale;       /* 1 / scaling factor */
    double yarn_mix;         /* 0: plain or linear; 1: YaRN between its two corner dimensions */
    double attn_factor;      /* magnitude before YaRN's own term */
    double beta_fast, beta_slow;
    double n_ctx_orig;
    const float *factors;    /* NULL, or [n_rot/2] divisors of the frequencies */
} kvant_rope_params;

/* KVANT_ENOMEM. */
kvant_status kvant_rope_create(const kvant_rope_params *p, kvant_rope *out);
void kvant_rope_destroy(kvant_rope *r);

/* cos and sin of one position: [n_rot/2] each, times the magnitude. */
void kvant_rope_angles(const kvant_rope *r, int64_t position, float *cosine, float *sine);
/* Turns n_head heads of head_dim elements that lie one after another. */
void kvant_rope_apply(const kvant_rope *r, const float *cosine, const float *sine, int n_head, int head_dim, float *x);

#endif
