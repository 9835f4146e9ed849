// SPDX-License-Identifier: MIT
/* transform.h: what is done to vectors before a codec sees them, and undone when they are read.
 *
 *   key    y = H (g * (k - M_b))    M_b: the mean of the keys, turned by RoPE and averaged over the block of 16 tokens
 *   query  y = H (q / g)            so that y_query . y_key = q . (k - M_b), and q . M_b is added to the scores, exactly
 *   value  y = H (v),  out = H (mixed)
 *
 * H is an orthonormal rotation with fixed random signs (its own inverse but for them), g one scale for each pair that RoPE turns.
 * Formats with zones first put the elements of a key in the order of their energies, and each zone is rotated by itself.
 * Formats that want neither get neither. Every page of a layer, full precision ones too, holds vectors in this form.
 *
 * M_b depends on the position alone: pair i of the mean is m_i = mean_i * average of e^(j u f_i) over u = 0..15, and a block that
 * begins at P + r turns it by e^(j P f_i) e^(j r f_i). Runs of 1,024 tokens share the table of e^(j r f_i), and each has a row of
 * e^(j P f_i); both are made in float64 and stored as float.
 * The fastest pairs turn so far within a block that nothing of their average is left: for these the mean is subtracted at every
 * token, m_i = mean_i, and a page has a table of e^(j t f_i) over its 64 tokens. */
#ifndef KVANT_CACHE_TRANSFORM_H
#define KVANT_CACHE_TRANSFORM_H

#include "codec/codec.h"

#define KVANT_RUN_PAGES 16
#define KVANT_RUN_TOKENS (KVANT_RUN_PAGES * KVANT_PAGE_TOKENS)
#define KVANT_MEAN_BLOCK 16 /* tokens that share a mean */
#define KVANT_RUN_BLOCKS (KVANT_RUN_TOKENS / KVANT_MEAN_BLOCK)
#define KVANT_FAST_PAIRS KVANT_MEAN_PAIRS /* whose mean is subtracted at every token */

/* The two elements of pair i. */
static inline void kvant_rope_pair(int n_rot, bool interleaved, int i, int *a, int *b) {
    *a = interleaved ? 2 * i : i;
    *b = interleaved ? 2 * i + 1 : n_rot / 2 + i;
}

/* The positions of one way of turning. */
typedef struct kvant_rope_table {
    int n_rot;
    bool interleaved;
    double *frequency; /* [n_rot/2] */
    float *within;     /* [KVANT_RUN_BLOCKS/16][n_rot][16 blocks]: panels whose columns are cos, -sin of pair 0, of pair 1, ..; 0 for
                          the fast pairs */
    int n_fast;        /* the first pairs */
    float *pages;      /* [KVANT_RUN_PAGES][2 n_fast]: cos, sin of the fast pairs at the first token of a page of a run */
    float *tokens;     /* [KVANT_PAGE_TOKENS/16][2 n_fast][16 tokens]: panels, as within */
    float *centres;    /* [KVANT_RUN_PAGES][2 n_fast]: as pages, half a token before token 32 of the page */
    float *sides;      /* [2][n_fast][2][16]: cos, -sin of u + 1/2 tokens, u = 0..31: what scores add (kernel mean_scores) */
    float *runs;       /* [n_run][n_rot]: cos, sin of pair 0, .. at the first token of a run */
    int n_run, room;
} kvant_rope_table;

/* What one layer does to its vectors; arrays are owned by the cache's transforms. */
typedef struct kvant_layer_transform {
    kvant_rotation k, v; /* block 0: none */
    bool centred;        /* K has a mean; k_in and k_out are set */
    int rope;            /* index of the table, -1: no positions, the mean does not turn */
    const uint16_t *k_order; /* [n_kv_head][head_dim]: the element of a key that comes at each place; NULL: as they are */
    const float *k_in;   /* [n_kv_head][head_dim], by place, times a key, before the rotation; NULL: 1 */
    const float *k_out;  /* [n_kv_head][head_dim], by place, times a query, and times a key after it is rotated back; NULL: 1 */
    const float *v_sign; /* [head_dim] times a value before, and after; NULL: 1 */
    const float *mean;   /* [n_kv_head][head_dim]: m_i in the places of the elements of pair i; 0 where not centred */
} kvant_layer_transform;

typedef struct kvant_transforms {
    int n_layer, n_kv_head, head_dim, n_rope;
    kvant_rope_table *ropes;      /* [n_rope] */
    kvant_layer_transform *layers; /* [n_layer] */
    float *memory;
    uint16_t *orders; /* NULL where no layer has zones */
} kvant_transforms;

/* k, v: the formats of each layer; calibration may be NULL where no K is centred. KVANT_ENOMEM. */
kvant_status kvant_transforms_create(const kvant_cache_config *config, const kvant_format *k, const kvant_format *v,
                                     kvant_transforms *out);
void kvant_transforms_destroy(kvant_transforms *t);
/* Makes the rows of runs for n_tokens; called before any of them is encoded or read. KVANT_ENOMEM. */
kvant_status kvant_transforms_reserve(kvant_transforms *t, int64_t n_tokens);

/* What is subtracted at `position` -> mean [head_dim]. */
void kvant_transform_mean(const kvant_transforms *t, int layer, int kv_head, int64_t position, float *mean);
/* The same where mean holds that of the token before, in the same block: only the fast pairs change. */
void kvant_transform_mean_next(const kvant_transforms *t, int layer, int kv_head, int64_t position, float *mean);
/* y = H (g * (x - mean)); mean may be NULL where the layer is not centred. */
void kvant_transform_key(const kvant_transforms *t, int layer, int kv_head, const float *x, const float *mean, float *y,
                         const kvant_kernels *k);
void kvant_transform_key_back(const kvant_transforms *t, int layer, int kv_head, const float *y, const float *mean, float *x,
                              const kvant_kernels *k);
/* In place. */
void kvant_transform_query(const kvant_transforms *t, int layer, int kv_head, float *q, const kvant_kernels *k);
void kvant_transform_value(const kvant_transforms *t, int layer, float *v, const kvant_kernels *k);
void kvant_transform_value_back(const kvant_transforms *t, int layer, float *v, const kvant_kernels *k);

/* The pairs of a query against the mean, before the query is transformed: query [head_dim] receives conj(q_i) m_i (re, im of pair 0,
 * ..); returns the part of q . M that does not turn. Only where the layer is centred. */
float kvant_transform_mean_query(const kvant_transforms *t, int layer, int kv_head, const float *q, float *query);
/* query at the first token of a run: every pair times e^(j P f_i). */
void kvant_transform_turn_run(const kvant_transforms *t, int layer, int64_t run, const float *query, float *turned);

#endif
