// SPDX-License-Identifier: MIT
/* calibration_internal.h: a calibration, as the files that fill it and write it see it. */
#ifndef KVANT_CACHE_CALIBRATION_INTERNAL_H
#define KVANT_CACHE_CALIBRATION_INTERNAL_H

#include "cache/calibration.h"

#define KVANT_CALIBRATION_ROPES 4

struct kvant_calibration {
    int n_layer, n_head, n_kv_head, head_dim, n_rope;
    kvant_rope_config ropes[KVANT_CALIBRATION_ROPES]; /* frequencies are owned */
    int *layer_rope;                                  /* [n_layer] */
    int64_t *n_token;                                 /* [n_layer] */
    double *key_sum, *key_energy, *query_energy;      /* [n_layer][n_kv_head][head_dim], keys turned back; sums */
    float *mean, *scale, *energy;                     /* the same shape, once finished */
    bool finished;
};

#endif
