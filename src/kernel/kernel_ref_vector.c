// SPDX-License-Identifier: MIT
/* kernel_ref_vector.c: kernels on plain rows of floats in portable C: conversions, norms, softmax and activations.
 *
 * Sums run in 8 lanes, because that is what an 8-wide register does; exp is the same polynomial everywhere. So results have
 * the same bits at every level.
 *
 * Not here: anything on panels (kernel_ref_product.c). */
#include <math.h>

#include "base/half.h"
#include "kernel/kernel_ref.h"

#define LANES 8

static float add_lanes(const float s[LANES]) { return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7])); }

/* x <= 0 or NaN, which stays one. */
static float exp_nonpositive(float x) {
    if (x < KVANT_EXP_LOWEST) return 0.0f;
    float t = fmaf(x, KVANT_EXP_LOG2E, KVANT_EXP_ROUND);
    float n = t - KVANT_EXP_ROUND;
    float r = fmaf(-n, KVANT_EXP_LN2_LO, fmaf(-n, KVANT_EXP_LN2_HI, x));
    float q = fmaf(KVANT_EXP_E6, r, KVANT_EXP_E5);
    q = fmaf(q, r, KVANT_EXP_E4);
    q = fmaf(q, r, KVANT_EXP_E3);
    q = fmaf(q, r, KVANT_EXP_E2);
    float p = fmaf(fmaf(q, r, 1.0f), r, 1.0f);
    return p * kvant_bits_f32((kvant_f32_bits(t) + 127u) << 23);
}

/* 1 / (1 + exp(-z)) without overflow, and with a small relative error for z < 0 too. */
static float sigmoid(float z) {
    float e = exp_nonpositive(-fabsf(z));
    return (z < 0.0f ? e : 1.0f) / (1.0f + e);
}

static void ref_quantize_q8(int8_t *q, float *scale, int16_t *sum, const float *x, int n) {
    for (int b = 0; b < n / KVANT_BLOCK; b++) {
        const float *xb = x + (size_t)b * KVANT_BLOCK;
        float largest = 0.0f;
        for (int j = 0; j < KVANT_BLOCK; j++)
            largest = fabsf(xb[j]) > largest ? fabsf(xb[j]) : largest;
        float inverse = largest < KVANT_Q8_SMALLEST ? 0.0f : 127.0f / largest;
        scale[b] = largest < KVANT_Q8_SMALLEST ? 0.0f : largest / 127.0f;
        for (int half = 0; half < 2; half++) {
            int total = 0;
            for (int j = half * 16; j < half * 16 + 16; j++) {
                float v = xb[j] * inverse;
                v = v < 127.0f ? v : 127.0f; /* a NaN becomes 127 here */
                v = v > -127.0f ? v : -127.0f;
                int8_t code = (int8_t)rintf(v);
                q[(size_t)b * KVANT_BLOCK + (size_t)j] = code;
                total += code;
            }
            sum[2 * b + half] = (int16_t)total;
        }
    }
}

static void ref_f16_to_f32(float *y, const uint16_t *x, int n) {
    for (int i = 0; i < n; i++)
        y[i] = kvant_f16_to_f32(x[i]);
}

static void ref_f32_to_f16(uint16_t *y, const float *x, int n) {
    for (int i = 0; i < n; i++)
        y[i] = kvant_f32_to_f16(x[i]);
}

static float ref_dot_f32(const float *a, const float *b, int n) {
    float s[LANES] = {0};
    for (int i = 0; i < n; i++)
        s[i % LANES] = fmaf(a[i], b[i], s[i % LANES]);
    return add_lanes(s);
}

static float ref_weigh_q8(int8_t *q, float *scale, int16_t *sum, const float *x, const float *a, const float *b, int n) {
    for (int i = 0; i < n; i += KVANT_BLOCK) {
        float w[KVANT_BLOCK];
        for (int j = 0; j < KVANT_BLOCK; j++)
            w[j] = x[i + j] * a[i + j];
        ref_quantize_q8(q + i, scale + i / KVANT_BLOCK, sum + i / (KVANT_BLOCK / 2), w, KVANT_BLOCK);
    }
    return ref_dot_f32(x, b, n);
}

static void ref_rms_norm(float *y, const float *x, const float *weight, int n, float eps) {
    float r = 1.0f / sqrtf(ref_dot_f32(x, x, n) / (float)n + eps);
    for (int i = 0; i < n; i++)
        y[i] = weight ? x[i] * r * weight[i] : x[i] * r;
}

static float ref_exp_sum(float *x, int n, float max) {
    float s[LANES] = {0};
    for (int i = 0; i < n; i++) {
        x[i] = exp_nonpositive(x[i] - max);
        s[i % LANES] += x[i];
    }
    return add_lanes(s);
}

static float ref_max_f32(const float *x, int n) {
    float m = -INFINITY;
    for (int i = 0; i < n; i++)
        m = x[i] > m ? x[i] : m;
    return m + 0.0f; /* -0 becomes 0, so that the order in which zeros are met is not seen */
}

static void ref_scale_f32(float *x, float a, int n) {
    for (int i = 0; i < n; i++)
        x[i] *= a;
}

static void ref_add_f32(float *y, const float *x, int n) {
    for (int i = 0; i < n; i++)
        y[i] += x[i];
}

static void ref_add_scaled_f32(float *y, const float *x, float a, int n) {
    for (int i = 0; i < n; i++)
        y[i] = fmaf(a, x[i], y[i]);
}

static void ref_silu_mul(float *gate, const float *up, int n) {
    for (int i = 0; i < n; i++) {
        float y = gate[i] * sigmoid(gate[i]);
        gate[i] = up ? y * up[i] : y;
    }
}

static void ref_gelu_mul(float *gate, const float *up, int n) {
    for (int i = 0; i < n; i++) {
        float g = gate[i], y = g * sigmoid(g * fmaf(g * g, KVANT_GELU_CUBIC, KVANT_GELU_LINEAR));
        gate[i] = up ? y * up[i] : y;
    }
}

void kvant_kernels_set_ref_vector(kvant_kernels *k) {
    k->quantize_q8 = ref_quantize_q8;
    k->weigh_q8 = ref_weigh_q8;
    k->f16_to_f32 = ref_f16_to_f32;
    k->f32_to_f16 = ref_f32_to_f16;
    k->dot_f32 = ref_dot_f32;
    k->rms_norm = ref_rms_norm;
    k->exp_sum = ref_exp_sum;
    k->max_f32 = ref_max_f32;
    k->scale_f32 = ref_scale_f32;
    k->add_f32 = ref_add_f32;
    k->add_scaled_f32 = ref_add_scaled_f32;
    k->silu_mul = ref_silu_mul;
    k->gelu_mul = ref_gelu_mul;
}
