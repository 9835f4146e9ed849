// SPDX-License-Identifier: MIT
/* kernel_ref.h: the parts that fill the reference table together, and the numbers that every level's exp shares. */
#ifndef KVANT_KERNEL_KERNEL_REF_H
#define KVANT_KERNEL_KERNEL_REF_H

#include "kernel/kernels.h"

void kvant_kernels_set_ref_product(kvant_kernels *k);
void kvant_kernels_set_ref_vector(kvant_kernels *k);
void kvant_kernels_set_ref_levels(kvant_kernels *k);
void kvant_kernels_set_ref_means(kvant_kernels *k);

/* exp(x) for -87 <= x <= 0, the same operations in the same order at every level:
 *   t = fma(x, LOG2E, ROUND), n = t - ROUND (the nearest integer), r = fma(-n, LN2_LO, fma(-n, LN2_HI, x)),
 *   q = fma(fma(fma(fma(E6, r, E5), r, E4), r, E3), r, E2), p = fma(fma(q, r, 1), r, 1), exp = p * 2^n,
 * 2^n being made of the low bits of t. |r| <= ln(2)/2 nearly; E2..E6 are the minimax fit of (e^r - 1 - r) / r^2 there with
 * respect to the relative error of e^r (3e-9), found by iteratively reweighted least squares and rounded to float. */
#define KVANT_EXP_LOWEST (-87.0f)
#define KVANT_EXP_LOG2E 0x1.715476p+0f
#define KVANT_EXP_ROUND 0x1.8p+23f
#define KVANT_EXP_LN2_HI 0x1.62e4p-1f /* 15 bits: n * LN2_HI is exact */
#define KVANT_EXP_LN2_LO 0x1.7f7d1cp-20f
#define KVANT_EXP_E2 0x1.fffffcp-2f
#define KVANT_EXP_E3 0x1.555490p-3f
#define KVANT_EXP_E4 0x1.5558f4p-5f
#define KVANT_EXP_E5 0x1.123a6cp-7f
#define KVANT_EXP_E6 0x1.6a2352p-10f

/* 2^(i/8) for i = 0..7. */
#define KVANT_EIGHTHS \
    0x1p+0f, 0x1.172b84p+0f, 0x1.306fe0p+0f, 0x1.4bfdaep+0f, 0x1.6a09e6p+0f, 0x1.8ace54p+0f, 0x1.ae89fap+0f, 0x1.d5818ep+0f

/* gelu: 2 * sqrt(2/pi) and that times 0.044715, so that gelu(g) = g * sigmoid(g * fma(g * g, CUBIC, LINEAR)). */
#define KVANT_GELU_LINEAR 0x1.988454p+0f
#define KVANT_GELU_CUBIC 0x1.2444f2p-4f

#endif
