// SPDX-License-Identifier: MIT
/* divergence.h: how far one next-token distribution is from another, and what a sample of such distances says.
 *
 * Pure arithmetic on rows of logits: no model, no files. Everything is in nats. */
#ifndef KVANT_APP_DIVERGENCE_H
#define KVANT_APP_DIVERGENCE_H

#include <stdbool.h>
#include <stdint.h>

/* What is kept of the softmax of one row. The log-probability of token i is logits[i] - max - log_sum. */
typedef struct softmax_row {
    float max;
    int top;        /* the first token with the largest logit */
    double log_sum; /* log of the sum of exp(logits[i] - max) */
} softmax_row;

/* logits [n], n > 0. weights [n] (may be NULL): exp(logits[i] - max), not normalized. */
void softmax_row_init(softmax_row *row, const float *logits, int n, float *weights);
/* -log p(token). */
double softmax_row_nll(const softmax_row *row, const float *logits, int token);

/* KL(reference || other) of two rows of n logits. weights [n] are the reference's, from softmax_row_init. Not negative;
 * infinite where a logit is not finite. */
double divergence_kl(const softmax_row *reference, const float *reference_logits, const float *weights, const softmax_row *other,
                     const float *other_logits, int n);

/* One KL divergence per position, and what was counted along with it. */
typedef struct divergence_sample {
    float *kl; /* [n] */
    int64_t n, capacity;
    int64_t same_top; /* positions where both rows have the same most probable token */
    double nll;       /* of the text, summed over n_nll tokens */
    int64_t n_nll;
} divergence_sample;

/* false: out of memory, nothing was added. */
bool divergence_sample_add(divergence_sample *s, double kl, bool same_top);
void divergence_sample_free(divergence_sample *s);

/* Positions of a text are correlated: the standard error takes blocks of this many neighbours as independent. */
#define DIVERGENCE_BLOCK 64

typedef struct divergence_summary {
    double mean, se; /* se is NaN with fewer than two blocks */
    double median, p99, p999, max;
    double top1;       /* 0...1 */
    double perplexity; /* NaN where no token was predicted */
} divergence_summary;

/* false: out of memory. An empty sample gives NaN throughout. */
bool divergence_summarize(const divergence_sample *s, divergence_summary *out);
/* The q-quantile of ascending values [n], n > 0, linear between neighbours (position q * (n - 1)). */
double divergence_quantile(const float *sorted, int64_t n, double q);

#endif
