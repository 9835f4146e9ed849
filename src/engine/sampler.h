// SPDX-License-Identifier: MIT
/* sampler.h: what a sampler tells of the token that it took last (private to src/engine). */
#ifndef KVANT_ENGINE_SAMPLER_H
#define KVANT_ENGINE_SAMPLER_H

#include "kvant/engine.h"

/* Log-probabilities are natural logarithms of the softmax over the whole vocabulary, after the penalty and before the temperature, as
 * mlx-lm gives them. */
typedef struct kvant_token_report {
    float logprob;                                       /* of the token that was taken */
    int n_top;
    kvant_token_logprob top[KVANT_TOP_LOGPROBS_MAX];     /* [n_top], the most probable first */
} kvant_token_report;

/* From now on every kvant_sampler_next leaves a report with the n_top most probable tokens; -1: none, and none of its cost. */
void kvant_sampler_keep_report(kvant_sampler *s, int n_top);
/* Of the last kvant_sampler_next; NULL: none is kept. */
const kvant_token_report *kvant_sampler_last_report(const kvant_sampler *s);

#endif
