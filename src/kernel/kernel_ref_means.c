// SPDX-License-Identifier: MIT
/* kernel_ref_means.c: what the rotating mean of the keys adds to scores, in portable C.
 *
 * Two tokens at the same distance from the middle of a page share their products: a turn by -t differs from one by t in a sign. */
#include <math.h>

#include "kernel/kernel_ref.h"

#define ROWS 64
#define SIDE 32
#define LANES 16

static void ref_mean_scores(const kvant_mean_scores *p) {
    for (int c = 0; c < p->n; c++) {
        const float *x = p->x + (size_t)c * p->x_stride, *mean = p->mean + (size_t)c * p->mean_stride;
        float *scores = p->scores + (size_t)c * ROWS, turned[2 * KVANT_MEAN_PAIRS];
        for (int i = 0; i < 2 * p->n_pair; i += 2) {
            turned[i] = x[i] * p->centre[i] - x[i + 1] * p->centre[i + 1];
            turned[i + 1] = x[i] * p->centre[i + 1] + x[i + 1] * p->centre[i];
        }
        for (int u = 0; u < SIDE; u++) {
            const float *side = p->sides + u / LANES * 2 * p->n_pair * LANES + u % LANES;
            float even = 0.0f, odd = 0.0f;
            for (int i = 0; i < p->n_pair; i++, side += 2 * LANES) {
                even = fmaf(side[0], turned[2 * i], even);
                odd = fmaf(side[LANES], turned[2 * i + 1], odd);
            }
            scores[SIDE + u] += (even + odd) + mean[2 + u / LANES];
            scores[SIDE - 1 - u] += (even - odd) + mean[1 - u / LANES];
        }
    }
}

void kvant_kernels_set_ref_means(kvant_kernels *k) { k->mean_scores = ref_mean_scores; }
