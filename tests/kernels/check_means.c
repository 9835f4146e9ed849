// SPDX-License-Identifier: MIT
/* check_means.c: checks of the kernel that adds the mean of the keys to scores: against sums over the turns of every token in
 * float64, so that the reference is tested too, and bit by bit against the reference. */
#include <math.h>
#include <string.h>

#include "kernel_test.h"

#define ROWS 64
#define COLUMNS 8

static float *random_floats(int slot, int n) {
    if (n < 1) return NULL;
    float *x = guarded(slot, (size_t)n * sizeof *x);
    for (int i = 0; i < n; i++)
        x[i] = random_float(2.0f);
    return x;
}

static void check_case(const kvant_kernels *ref, const kvant_kernels *k, int n, int n_pair, int stride) {
    static float before[COLUMNS * ROWS];
    double frequency[KVANT_MEAN_PAIRS], start = random_between(0, 1000);
    float *centre = random_floats(SLOT_SCALE, 2 * n_pair), *sides = random_floats(SLOT_TILE, 64 * n_pair);
    for (int i = 0; i < n_pair; i++) {
        frequency[i] = (double)random_float(1.0f);
        centre[2 * i] = (float)cos((start + 31.5) * frequency[i]);
        centre[2 * i + 1] = (float)sin((start + 31.5) * frequency[i]);
        for (int u = 0; u < 32; u++) {
            float *at = sides + (u / 16 * n_pair + i) * 32 + u % 16;
            at[0] = (float)cos((u + 0.5) * frequency[i]);
            at[16] = (float)-sin((u + 0.5) * frequency[i]);
        }
    }
    kvant_mean_scores p = {.centre = centre, .sides = sides, .n_pair = n_pair, .n = n, .x_stride = (size_t)stride, .mean_stride = 5};
    float *x = random_floats(SLOT_X, (n - 1) * stride + 2 * n_pair), *mean = random_floats(SLOT_BIAS, (n - 1) * 5 + 4);
    float *expected = random_floats(SLOT_REF, n * ROWS), *got = guarded(SLOT_GOT, (size_t)(n * ROWS) * sizeof *got);
    memcpy(before, expected, (size_t)(n * ROWS) * sizeof *got);
    memcpy(got, expected, (size_t)(n * ROWS) * sizeof *got);
    p.x = x;
    p.mean = mean;
    p.scores = expected;
    ref->mean_scores(&p);
    p.scores = got;
    k->mean_scores(&p);
    expect_same_floats(expected, got, (size_t)(n * ROWS), "mean_scores: %d columns of %d pairs", n, n_pair);
    for (int c = 0; c < n; c++)
        for (int t = 0; t < ROWS; t++) {
            double sum = (double)before[c * ROWS + t] + mean[c * 5 + t / 16];
            for (int i = 0; i < n_pair; i++) {
                const float *pair = x + c * stride + 2 * i;
                double angle = (start + t) * frequency[i];
                sum += pair[0] * cos(angle) - pair[1] * sin(angle);
            }
            double found = expected[c * ROWS + t];
            if (!(fabs(sum - found) < 2e-5)) fail_msg("mean_scores: %d pairs, token %d: %g for %g", n_pair, t, found, sum);
        }
}

void check_mean_scores(const kvant_kernels *ref, const kvant_kernels *k) {
    for (int n_pair = 0; n_pair <= KVANT_MEAN_PAIRS; n_pair++)
        for (int n = 1; n <= COLUMNS; n++)
            check_case(ref, k, n, n_pair, 2 * n_pair + 3);
}
