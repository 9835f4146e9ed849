// SPDX-License-Identifier: MIT
/* pixtral_internal.h: a loaded tower, as the file that loads it and the file that runs it see it (private to src/vision). */
#ifndef KVANT_VISION_PIXTRAL_INTERNAL_H
#define KVANT_VISION_PIXTRAL_INTERNAL_H

#include "vision/pixtral_tower.h"
#include "weight/weight.h"

#define KVANT_PIXTRAL_MAX_PATCHES 16384

typedef struct kvant_pixtral_layer {
    float *attn_norm, *ffn_norm; /* [n_embd] */
    kvant_weight *q, *k, *v, *o, *gate, *up, *down;
} kvant_pixtral_layer;

struct kvant_pixtral {
    kvant_context *ctx;
    kvant_pixtral_rules rules;
    int n_layer, n_embd, n_head, head_dim, n_ff, n_text, n_projector;
    float eps;
    double rope_base;
    bool halves;         /* a head's pairs are (i, i + head_dim / 2); else (2i, 2i + 1) */
    bool channels_last;  /* rows of patch_conv are [y][x][colour]; else [colour][y][x] */
    kvant_weight *patch; /* [n_embd][3 * patch * patch] */
    float *pre_norm;     /* [n_embd] */
    kvant_pixtral_layer *layers;
    kvant_weight *in, *out;    /* the projector */
    float *in_bias, *out_bias; /* NULL: none */
    size_t bytes;
};

#endif
