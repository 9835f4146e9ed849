// SPDX-License-Identifier: MIT
/* kernel_vector_avx2.c: kernels on plain rows of floats with AVX2, FMA and F16C.
 *
 * Every loop does 8 values at a time and the rest through a zero-filled register, so the tail has the same operations. Sums of
 * a tail are added lane by lane instead, since adding a zero may turn -0 into 0. */
#include "kernel/kernel_table.h"

#if defined(__x86_64__)

#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "kernel/kernel_ref.h"
#include "kernel/x86/kernel_avx2.h"

#define LANES 8

AVX2_INLINE float add_lanes(const float s[LANES]) { return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7])); }

AVX2_INLINE __m256 load_some(const float *p, int n) {
    float v[LANES] = {0};
    memcpy(v, p, (size_t)n * sizeof *p);
    return _mm256_loadu_ps(v);
}

AVX2_INLINE void store_some(float *p, __m256 x, int n) {
    float v[LANES];
    _mm256_storeu_ps(v, x);
    memcpy(p, v, (size_t)n * sizeof *p);
}

/* exp_nonpositive of kernel_ref_vector.c, 8 at a time. */
AVX2_INLINE __m256 exp_nonpositive(__m256 x) {
    const __m256 one = _mm256_set1_ps(1.0f), magic = _mm256_set1_ps(KVANT_EXP_ROUND);
    __m256 t = _mm256_fmadd_ps(x, _mm256_set1_ps(KVANT_EXP_LOG2E), magic);
    __m256 n = _mm256_sub_ps(t, magic);
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(KVANT_EXP_LN2_HI), x);
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(KVANT_EXP_LN2_LO), r);
    __m256 q = _mm256_fmadd_ps(_mm256_set1_ps(KVANT_EXP_E6), r, _mm256_set1_ps(KVANT_EXP_E5));
    q = _mm256_fmadd_ps(q, r, _mm256_set1_ps(KVANT_EXP_E4));
    q = _mm256_fmadd_ps(q, r, _mm256_set1_ps(KVANT_EXP_E3));
    q = _mm256_fmadd_ps(q, r, _mm256_set1_ps(KVANT_EXP_E2));
    __m256 p = _mm256_fmadd_ps(_mm256_fmadd_ps(q, r, one), r, one);
    __m256i power = _mm256_slli_epi32(_mm256_add_epi32(_mm256_castps_si256(t), _mm256_set1_epi32(127)), 23);
    __m256 too_low = _mm256_cmp_ps(x, _mm256_set1_ps(KVANT_EXP_LOWEST), _CMP_LT_OQ);
    return _mm256_andnot_ps(too_low, _mm256_mul_ps(p, _mm256_castsi256_ps(power)));
}

AVX2_INLINE __m256 sigmoid(__m256 z) {
    const __m256 one = _mm256_set1_ps(1.0f);
    __m256 e = exp_nonpositive(_mm256_or_ps(z, _mm256_set1_ps(-0.0f)));
    __m256 top = _mm256_blendv_ps(one, e, _mm256_cmp_ps(z, _mm256_setzero_ps(), _CMP_LT_OQ));
    return _mm256_div_ps(top, _mm256_add_ps(one, e));
}

/* 32 values -> their codes, scale and the sums of each 16 codes. */
AVX2_INLINE void quantize_block(int8_t *q, float *scale, int16_t *sum, const __m256 v[4]) {
    const __m256 sign = _mm256_set1_ps(-0.0f), top = _mm256_set1_ps(127.0f), bottom = _mm256_set1_ps(-127.0f);
    const __m256i one = _mm256_set1_epi16(1), order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    __m256 m[4];
    UNROLL for (int i = 0; i < 4; i++) /* a NaN in the first operand gives the second */
        m[i] = _mm256_max_ps(_mm256_andnot_ps(sign, v[i]), _mm256_setzero_ps());
    __m256 m8 = _mm256_max_ps(_mm256_max_ps(m[0], m[1]), _mm256_max_ps(m[2], m[3]));
    __m128 m4 = _mm_max_ps(_mm256_castps256_ps128(m8), _mm256_extractf128_ps(m8, 1));
    m4 = _mm_max_ps(m4, _mm_movehl_ps(m4, m4));
    float largest = _mm_cvtss_f32(_mm_max_ss(m4, _mm_movehdup_ps(m4)));
    __m256 inverse = _mm256_set1_ps(largest < KVANT_Q8_SMALLEST ? 0.0f : 127.0f / largest);
    *scale = largest < KVANT_Q8_SMALLEST ? 0.0f : largest / 127.0f;
    __m256i code[4];
    UNROLL for (int i = 0; i < 4; i++) {
        __m256 y = _mm256_min_ps(_mm256_mul_ps(v[i], inverse), top);
        code[i] = _mm256_cvtps_epi32(_mm256_max_ps(y, bottom));
    }
    __m256i first = _mm256_packs_epi32(code[0], code[1]), second = _mm256_packs_epi32(code[2], code[3]);
    __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(first, second), order);
    _mm256_storeu_si256((__m256i *)q, bytes);
    __m256i both = _mm256_hadd_epi32(_mm256_madd_epi16(first, one), _mm256_madd_epi16(second, one));
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1));
    four = _mm_hadd_epi32(four, four);
    sum[0] = (int16_t)_mm_cvtsi128_si32(four);
    sum[1] = (int16_t)_mm_extract_epi32(four, 1);
}

AVX2 static void avx2_quantize_q8(int8_t *q, float *scale, int16_t *sum, const float *x, int n) {
    for (int b = 0; b < n / KVANT_BLOCK; b++) {
        __m256 v[4];
        UNROLL for (int i = 0; i < 4; i++) v[i] = _mm256_loadu_ps(x + (size_t)b * KVANT_BLOCK + 8 * i);
        quantize_block(q + (size_t)b * KVANT_BLOCK, scale + b, sum + 2 * b, v);
    }
}

AVX2 static float avx2_weigh_q8(int8_t *q, float *scale, int16_t *sum, const float *x, const float *a, const float *b, int n) {
    __m256 total = _mm256_setzero_ps();
    float s[LANES];
    for (int i = 0; i < n; i += KVANT_BLOCK) {
        __m256 w[4];
        UNROLL for (int j = 0; j < 4; j++) {
            __m256 v = _mm256_loadu_ps(x + i + 8 * j);
            w[j] = _mm256_mul_ps(v, _mm256_loadu_ps(a + i + 8 * j));
            total = _mm256_fmadd_ps(v, _mm256_loadu_ps(b + i + 8 * j), total);
        }
        quantize_block(q + i, scale + i / KVANT_BLOCK, sum + i / (KVANT_BLOCK / 2), w);
    }
    _mm256_storeu_ps(s, total);
    return add_lanes(s);
}

AVX2 static void avx2_f16_to_f32(float *y, const uint16_t *x, int n) {
    int i = 0;
    for (; i + LANES <= n; i += LANES)
        _mm256_storeu_ps(y + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(x + i))));
    if (i == n) return;
    uint16_t rest[LANES] = {0};
    memcpy(rest, x + i, (size_t)(n - i) * sizeof *x);
    store_some(y + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)rest)), n - i);
}

AVX2 static void avx2_f32_to_f16(uint16_t *y, const float *x, int n) {
    int i = 0;
    for (; i + LANES <= n; i += LANES)
        _mm_storeu_si128((__m128i *)(y + i), _mm256_cvtps_ph(_mm256_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT));
    if (i == n) return;
    uint16_t rest[LANES];
    _mm_storeu_si128((__m128i *)rest, _mm256_cvtps_ph(load_some(x + i, n - i), _MM_FROUND_TO_NEAREST_INT));
    memcpy(y + i, rest, (size_t)(n - i) * sizeof *y);
}

AVX2 static float avx2_dot_f32(const float *a, const float *b, int n) {
    __m256 total = _mm256_setzero_ps();
    int i = 0;
    for (; i + LANES <= n; i += LANES)
        total = _mm256_fmadd_ps(_mm256_loadu_ps(a + i), _mm256_loadu_ps(b + i), total);
    float s[LANES];
    _mm256_storeu_ps(s, total);
    for (int lane = 0; i < n; i++, lane++)
        s[lane] = fmaf(a[i], b[i], s[lane]);
    return add_lanes(s);
}

AVX2 static void avx2_rms_norm(float *y, const float *x, const float *weight, int n, float eps) {
    float r = 1.0f / sqrtf(avx2_dot_f32(x, x, n) / (float)n + eps);
    __m256 r8 = _mm256_set1_ps(r);
    int i = 0;
    for (; i + LANES <= n; i += LANES) {
        __m256 v = _mm256_mul_ps(_mm256_loadu_ps(x + i), r8);
        _mm256_storeu_ps(y + i, weight ? _mm256_mul_ps(v, _mm256_loadu_ps(weight + i)) : v);
    }
    for (; i < n; i++)
        y[i] = weight ? x[i] * r * weight[i] : x[i] * r;
}

AVX2 static float avx2_exp_sum(float *x, int n, float max) {
    const __m256 max8 = _mm256_set1_ps(max);
    __m256 total = _mm256_setzero_ps();
    int i = 0;
    for (; i + LANES <= n; i += LANES) {
        __m256 e = exp_nonpositive(_mm256_sub_ps(_mm256_loadu_ps(x + i), max8));
        _mm256_storeu_ps(x + i, e);
        total = _mm256_add_ps(total, e);
    }
    float s[LANES];
    _mm256_storeu_ps(s, total);
    if (i < n) store_some(x + i, exp_nonpositive(_mm256_sub_ps(load_some(x + i, n - i), max8)), n - i);
    for (int lane = 0; i < n; i++, lane++)
        s[lane] += x[i];
    return add_lanes(s);
}

AVX2 static float avx2_max_f32(const float *x, int n) {
    __m256 m = _mm256_set1_ps(-INFINITY);
    int i = 0;
    for (; i + LANES <= n; i += LANES)
        m = _mm256_max_ps(_mm256_loadu_ps(x + i), m);
    float s[LANES], largest = -INFINITY;
    _mm256_storeu_ps(s, m);
    for (int lane = 0; lane < LANES; lane++)
        largest = s[lane] > largest ? s[lane] : largest;
    for (; i < n; i++)
        largest = x[i] > largest ? x[i] : largest;
    return largest + 0.0f;
}

AVX2 static void avx2_scale_f32(float *x, float a, int n) {
    const __m256 a8 = _mm256_set1_ps(a);
    int i = 0;
    for (; i + LANES <= n; i += LANES)
        _mm256_storeu_ps(x + i, _mm256_mul_ps(_mm256_loadu_ps(x + i), a8));
    for (; i < n; i++)
        x[i] *= a;
}

AVX2 static void avx2_add_f32(float *y, const float *x, int n) {
    int i = 0;
    for (; i + LANES <= n; i += LANES)
        _mm256_storeu_ps(y + i, _mm256_add_ps(_mm256_loadu_ps(y + i), _mm256_loadu_ps(x + i)));
    for (; i < n; i++)
        y[i] += x[i];
}

AVX2 static void avx2_add_scaled_f32(float *y, const float *x, float a, int n) {
    const __m256 a8 = _mm256_set1_ps(a);
    int i = 0;
    for (; i + LANES <= n; i += LANES)
        _mm256_storeu_ps(y + i, _mm256_fmadd_ps(a8, _mm256_loadu_ps(x + i), _mm256_loadu_ps(y + i)));
    for (; i < n; i++)
        y[i] = fmaf(a, x[i], y[i]);
}

AVX2_INLINE __m256 silu(__m256 g) { return _mm256_mul_ps(g, sigmoid(g)); }

AVX2_INLINE __m256 gelu(__m256 g) {
    __m256 inner = _mm256_fmadd_ps(_mm256_mul_ps(g, g), _mm256_set1_ps(KVANT_GELU_CUBIC), _mm256_set1_ps(KVANT_GELU_LINEAR));
    return _mm256_mul_ps(g, sigmoid(_mm256_mul_ps(g, inner)));
}

AVX2 static void avx2_silu_mul(float *gate, const float *up, int n) {
    int i = 0;
    for (; i + LANES <= n; i += LANES) {
        __m256 y = silu(_mm256_loadu_ps(gate + i));
        _mm256_storeu_ps(gate + i, up ? _mm256_mul_ps(y, _mm256_loadu_ps(up + i)) : y);
    }
    if (i == n) return;
    __m256 y = silu(load_some(gate + i, n - i));
    store_some(gate + i, up ? _mm256_mul_ps(y, load_some(up + i, n - i)) : y, n - i);
}

AVX2 static void avx2_gelu_mul(float *gate, const float *up, int n) {
    int i = 0;
    for (; i + LANES <= n; i += LANES) {
        __m256 y = gelu(_mm256_loadu_ps(gate + i));
        _mm256_storeu_ps(gate + i, up ? _mm256_mul_ps(y, _mm256_loadu_ps(up + i)) : y);
    }
    if (i == n) return;
    __m256 y = gelu(load_some(gate + i, n - i));
    store_some(gate + i, up ? _mm256_mul_ps(y, load_some(up + i, n - i)) : y, n - i);
}

void kvant_kernels_set_avx2_vector(kvant_kernels *k) {
    k->quantize_q8 = avx2_quantize_q8;
    k->weigh_q8 = avx2_weigh_q8;
    k->f16_to_f32 = avx2_f16_to_f32;
    k->f32_to_f16 = avx2_f32_to_f16;
    k->dot_f32 = avx2_dot_f32;
    k->rms_norm = avx2_rms_norm;
    k->exp_sum = avx2_exp_sum;
    k->max_f32 = avx2_max_f32;
    k->scale_f32 = avx2_scale_f32;
    k->add_f32 = avx2_add_f32;
    k->add_scaled_f32 = avx2_add_scaled_f32;
    k->silu_mul = avx2_silu_mul;
    k->gelu_mul = avx2_gelu_mul;
}

#else
typedef int kvant_kernel_vector_avx2_unused; /* a translation unit must not be empty */
#endif
