// SPDX-License-Identifier: MIT
/* kernel_vector_avx512.c: the kernels on plain rows that gain from 16 lanes: those that take exp.
 *
 * The others wait for memory or for their 8 chains of sums, and stay those of AVX2. */
#include "kernel/kernel_table.h"

#if defined(__x86_64__)

#include <string.h>

#include "kernel/kernel_ref.h"
#include "kernel/x86/kernel_avx512.h"

#define LANES 16
#define SUM_LANES 8

AVX512_INLINE __m512 load_some(const float *p, int n) {
    float v[LANES] = {0};
    memcpy(v, p, (size_t)n * sizeof *p);
    return _mm512_loadu_ps(v);
}

AVX512_INLINE void store_some(float *p, __m512 x, int n) {
    float v[LANES];
    _mm512_storeu_ps(v, x);
    memcpy(p, v, (size_t)n * sizeof *p);
}

/* exp_nonpositive of kernel_ref_vector.c, 16 at a time. */
AVX512_INLINE __m512 exp_nonpositive(__m512 x) {
    const __m512 one = _mm512_set1_ps(1.0f), magic = _mm512_set1_ps(KVANT_EXP_ROUND);
    __m512 t = _mm512_fmadd_ps(x, _mm512_set1_ps(KVANT_EXP_LOG2E), magic);
    __m512 n = _mm512_sub_ps(t, magic);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(KVANT_EXP_LN2_HI), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(KVANT_EXP_LN2_LO), r);
    __m512 q = _mm512_fmadd_ps(_mm512_set1_ps(KVANT_EXP_E6), r, _mm512_set1_ps(KVANT_EXP_E5));
    q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(KVANT_EXP_E4));
    q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(KVANT_EXP_E3));
    q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(KVANT_EXP_E2));
    __m512 p = _mm512_fmadd_ps(_mm512_fmadd_ps(q, r, one), r, one);
    __m512i power = _mm512_slli_epi32(_mm512_add_epi32(_mm512_castps_si512(t), _mm512_set1_epi32(127)), 23);
    __mmask16 in_range = _mm512_cmp_ps_mask(x, _mm512_set1_ps(KVANT_EXP_LOWEST), _CMP_NLT_UQ);
    return _mm512_maskz_mov_ps(in_range, _mm512_mul_ps(p, _mm512_castsi512_ps(power)));
}

AVX512_INLINE __m512 sigmoid(__m512 z) {
    const __m512 one = _mm512_set1_ps(1.0f);
    __m512i minus_abs = _mm512_or_si512(_mm512_castps_si512(z), _mm512_castps_si512(_mm512_set1_ps(-0.0f)));
    __m512 e = exp_nonpositive(_mm512_castsi512_ps(minus_abs));
    __m512 top = _mm512_mask_mov_ps(one, _mm512_cmp_ps_mask(z, _mm512_setzero_ps(), _CMP_LT_OQ), e);
    return _mm512_div_ps(top, _mm512_add_ps(one, e));
}

AVX512 static float avx512_exp_sum(float *x, int n, float max) {
    const __m512 max16 = _mm512_set1_ps(max);
    __m256 total = _mm256_setzero_ps();
    int i = 0;
    for (; i + LANES <= n; i += LANES) {
        _mm512_storeu_ps(x + i, exp_nonpositive(_mm512_sub_ps(_mm512_loadu_ps(x + i), max16)));
        total = _mm256_add_ps(total, _mm256_loadu_ps(x + i));
        total = _mm256_add_ps(total, _mm256_loadu_ps(x + i + SUM_LANES));
    }
    float s[SUM_LANES];
    _mm256_storeu_ps(s, total);
    if (i < n) store_some(x + i, exp_nonpositive(_mm512_sub_ps(load_some(x + i, n - i), max16)), n - i);
    for (int j = 0; i + j < n; j++)
        s[j % SUM_LANES] += x[i + j];
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}

AVX512_INLINE __m512 silu(__m512 g) { return _mm512_mul_ps(g, sigmoid(g)); }

AVX512_INLINE __m512 gelu(__m512 g) {
    __m512 inner = _mm512_fmadd_ps(_mm512_mul_ps(g, g), _mm512_set1_ps(KVANT_GELU_CUBIC), _mm512_set1_ps(KVANT_GELU_LINEAR));
    return _mm512_mul_ps(g, sigmoid(_mm512_mul_ps(g, inner)));
}

AVX512 static void avx512_silu_mul(float *gate, const float *up, int n) {
    int i = 0;
    for (; i + LANES <= n; i += LANES) {
        __m512 y = silu(_mm512_loadu_ps(gate + i));
        _mm512_storeu_ps(gate + i, up ? _mm512_mul_ps(y, _mm512_loadu_ps(up + i)) : y);
    }
    if (i == n) return;
    __m512 y = silu(load_some(gate + i, n - i));
    store_some(gate + i, up ? _mm512_mul_ps(y, load_some(up + i, n - i)) : y, n - i);
}

AVX512 static void avx512_gelu_mul(float *gate, const float *up, int n) {
    int i = 0;
    for (; i + LANES <= n; i += LANES) {
        __m512 y = gelu(_mm512_loadu_ps(gate + i));
        _mm512_storeu_ps(gate + i, up ? _mm512_mul_ps(y, _mm512_loadu_ps(up + i)) : y);
    }
    if (i == n) return;
    __m512 y = gelu(load_some(gate + i, n - i));
    store_some(gate + i, up ? _mm512_mul_ps(y, load_some(up + i, n - i)) : y, n - i);
}

void kvant_kernels_set_avx512_vector(kvant_kernels *k) {
    k->exp_sum = avx512_exp_sum;
    k->silu_mul = avx512_silu_mul;
    k->gelu_mul = avx512_gelu_mul;
}

#else
typedef int kvant_kernel_vector_avx512_unused; /* a translation unit must not be empty */
#endif
