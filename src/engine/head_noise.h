// SPDX-License-Identifier: MIT
/* head_noise.h: how much a cache's format changes what each KV head answers, measured on the first tokens of a session (private
 * to src/engine).
 *
 * A recorder keeps exact keys, values and some queries of the first tokens; measuring decodes what the cache stored of them and
 * compares. It allocates once. Nothing is decoded and nothing computed until someone asks. */
#ifndef KVANT_ENGINE_HEAD_NOISE_H
#define KVANT_ENGINE_HEAD_NOISE_H

#include "model/decoder.h"

typedef struct kvant_head_noise kvant_head_noise;

#define KVANT_HEAD_NOISE_TOKENS_MAX 8192

/* For the first n_tokens (1 to KVANT_HEAD_NOISE_TOKENS_MAX) of a sequence; the queries of every query_stride-th token are kept,
 * and values where they are asked for. */
kvant_status kvant_head_noise_create(const kvant_decoder_info *model, int n_tokens, int query_stride, bool values,
                                     kvant_head_noise **out, kvant_error *err);
void kvant_head_noise_destroy(kvant_head_noise *h);
/* A kvant_observe_fn whose user is the recorder; tokens beyond n_tokens are left out. */
kvant_status kvant_head_noise_observe(void *recorder, int layer, int64_t first_position, const float *k, const float *v,
                                      const float *q, int n);
int kvant_head_noise_tokens(const kvant_head_noise *h);

/* The figures of kvant_session_head_noise (engine.h) from the tokens that the sequence has and the recorder saw. v_error NULL, or
 * the recorder keeps values. KVANT_EINVAL: no query sees enough keys that are still stored. */
kvant_status kvant_head_noise_measure(kvant_head_noise *h, const kvant_sequence *s, int layer, int kv_head, double *sigma2,
                                      double *v_error);

/* ---- the check that every session makes once ---- */

#define KVANT_HEAD_CHECK_TOKENS 64 /* a page */
#define KVANT_HEAD_CHECK_STRIDE 16 /* four tokens' queries */

/* Estimates sigma^2 of every KV head, from four keys where these leave no doubt: a few thousandths of a prefill. Where it is more
 * than any working model shows, one warning names the format, the worst head and what to choose instead. Returns whether it
 * warned. */
bool kvant_head_noise_warn(kvant_head_noise *h, const kvant_sequence *s);

#endif
