// SPDX-License-Identifier: MIT
/* kv_budget.h: formats for every layer that fit a number of bytes and cost the least (private to src/engine).
 *
 * Pure arithmetic on sensitivities and on the sizes of pages: no model is needed. */
#ifndef KVANT_ENGINE_KV_BUDGET_H
#define KVANT_ENGINE_KV_BUDGET_H

#include "kvant/engine.h"

/* "budget:" and a size (300M, 1.5GiB), bits a value (4.3), or a format or pair (bc4, small): as many bytes as it takes. */
typedef struct kvant_budget {
    size_t bytes; /* 0: by the others */
    double bits;  /* 0: by pair */
    kvant_format k, v;
} kvant_budget;

bool kvant_budget_is(const char *kv); /* NULL: it is not */
/* KVANT_EINVAL with what is possible. */
kvant_status kvant_budget_parse(const char *kv, kvant_budget *out, kvant_error *err);
/* What it comes to for n_tokens of a cache of this shape (its formats do not matter). */
kvant_status kvant_budget_bytes(const kvant_budget *b, const kvant_cache_config *shape, int64_t n_tokens, size_t *out, kvant_error *err);

/* The coarse format that sensitivities are measured with, and its relative mean squared error. KVANT_EUNSUPPORTED: no format with
 * fewer bits than f16 can store vectors of head_dim elements. */
kvant_status kvant_budget_probe(kvant_format *out, double *noise, int head_dim, kvant_error *err);

typedef struct kvant_budget_choice {
    size_t bytes;
    double kl;        /* expected: the sum of sensitivity times noise */
    bool is_lossless; /* the budget is as large as the preset needs: it was taken, whatever is left over */
} kvant_budget_choice;

/* The formats k, v [shape->n_layer] of the least expected divergence whose n_tokens take at most max_bytes. A larger budget never
 * gives a larger expectation. center_off: formats of K are bare.
 * KVANT_EFULL: too little; the sentence says the least that is possible and the context that fits. */
kvant_status kvant_budget_choose(const kvant_cache_config *shape, const double *k_sensitivity, const double *v_sensitivity,
                                 bool center_off, int64_t n_tokens, size_t max_bytes, kvant_format *k, kvant_format *v,
                                 kvant_budget_choice *out, kvant_error *err);

/* One character a layer for people: the bits of its format, f for f16. out: n_layer + 1. */
void kvant_budget_digits(const kvant_format *formats, int n_layer, char *out);

#endif
