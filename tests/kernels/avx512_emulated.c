// SPDX-License-Identifier: MIT
/* avx512_emulated.c: the AVX-512 kernels, compiled a second time with the intrinsics that SIMDe emulates, so that any machine
 * tests them.
 *
 * The emulated fused multiply-adds round twice, and SIMDe 0.7 lacks some conversions: those are given here, exactly. What this
 * cannot show is whether the processor's own instructions do what their manual says. */
#include "kernel_test.h"

#if defined(KVANT_HAVE_SIMDE)

/* SIMDe's own code is not held to this project's warnings. */
#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow"
#pragma GCC diagnostic ignored "-Wextra"
#endif
#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>
#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif

#include <math.h>

#include "base/half.h"

#define N 16

static __m512 exact_fma(__m512 a, __m512 b, __m512 c, float sign) {
    float x[N], y[N], z[N];
    simde_mm512_storeu_ps(x, a);
    simde_mm512_storeu_ps(y, b);
    simde_mm512_storeu_ps(z, c);
    for (int i = 0; i < N; i++)
        z[i] = fmaf(sign * x[i], y[i], z[i]);
    return simde_mm512_loadu_ps(z);
}

static __m512 exact_int_to_float(__m512i a) {
    int32_t x[N];
    float y[N];
    simde_mm512_storeu_si512(x, a);
    for (int i = 0; i < N; i++)
        y[i] = (float)x[i];
    return simde_mm512_loadu_ps(y);
}

static __m512 exact_half_to_float(__m256i a) {
    uint16_t x[N];
    float y[N];
    simde_mm256_storeu_si256((simde__m256i *)x, a);
    for (int i = 0; i < N; i++)
        y[i] = kvant_f16_to_f32(x[i]);
    return simde_mm512_loadu_ps(y);
}

static __m512i shift_32(__m512i a, int left, bool is_signed) {
    uint32_t x[N];
    simde_mm512_storeu_si512(x, a);
    for (int i = 0; i < N; i++) {
        uint32_t sign = is_signed && x[i] >> 31 ? ~0u : 0;
        x[i] = left >= 0 ? x[i] << left : ((x[i] ^ sign) >> -left) ^ sign;
    }
    return simde_mm512_loadu_si512(x);
}

static __m512i shift_16(__m512i a, int left) {
    uint16_t x[2 * N];
    simde_mm512_storeu_si512(x, a);
    for (int i = 0; i < 2 * N; i++)
        x[i] = (uint16_t)(left >= 0 ? x[i] << left : x[i] >> -left);
    return simde_mm512_loadu_si512(x);
}

#undef _mm512_fmadd_ps
#define _mm512_fmadd_ps(a, b, c) exact_fma(a, b, c, 1.0f)
#undef _mm512_fnmadd_ps
#define _mm512_fnmadd_ps(a, b, c) exact_fma(a, b, c, -1.0f)
#undef _mm512_cvtepi32_ps
#define _mm512_cvtepi32_ps(a) exact_int_to_float(a)
#undef _mm512_cvtph_ps
#define _mm512_cvtph_ps(a) exact_half_to_float(a)
/* SIMDe's shifts insist on constants, which the counts are only after unrolling. */
#undef _mm512_slli_epi32
#define _mm512_slli_epi32(a, bits) shift_32(a, (int)(bits), false)
#undef _mm512_srli_epi32
#define _mm512_srli_epi32(a, bits) shift_32(a, -(int)(bits), false)
#undef _mm512_srai_epi32
#define _mm512_srai_epi32(a, bits) shift_32(a, -(int)(bits), true)
#undef _mm512_slli_epi16
#define _mm512_slli_epi16(a, bits) shift_16(a, (int)(bits))
#undef _mm512_srli_epi16
#define _mm512_srli_epi16(a, bits) shift_16(a, -(int)(bits))
#define __mmask16 simde__mmask16
#define __mmask64 simde__mmask64

/* The same sources under other names; each file's own macros and functions must not meet. */
#define KVANT_AVX512_EMULATED
#define kvant_kernels_set_avx512 kvant_kernels_set_avx512_all_emulated
#define kvant_kernels_set_avx512_levels kvant_kernels_set_avx512_levels_emulated
#define kvant_kernels_set_avx512_product kvant_kernels_set_avx512_product_emulated
#define kvant_kernels_set_avx512_unpack kvant_kernels_set_avx512_unpack_emulated
#define kvant_kernels_set_avx512_vector kvant_kernels_set_avx512_vector_emulated
void kvant_kernels_set_avx512_all_emulated(kvant_kernels *k);

#undef N
#include "kernel/x86/kernel_product_avx512.c"
#undef CHUNK
#include "kernel/x86/kernel_unpack_avx512.c"
#include "kernel/x86/kernel_vector_avx512.c"
#include "kernel/x86/kernel_levels_avx512.c"

bool kvant_kernels_set_avx512_emulated(kvant_kernels *k) {
    kvant_kernels_set_avx512(k);
    return true;
}

#else

bool kvant_kernels_set_avx512_emulated(kvant_kernels *k) {
    (void)k;
    return false;
}

#endif
