// SPDX-License-Identifier: MIT
/* kernel_avx2.h: what the AVX2 files share. */
#ifndef KVANT_KERNEL_X86_KERNEL_AVX2_H
#define KVANT_KERNEL_X86_KERNEL_AVX2_H

#include "kernel/kernels.h"

#define AVX2 __attribute__((target("avx2,fma,f16c")))
#define AVX2_INLINE static inline __attribute__((always_inline, target("avx2,fma,f16c")))

/* Loops over registers must be unrolled, or the arrays of registers stay in memory. */
#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

void kvant_kernels_set_avx2_product(kvant_kernels *k);
void kvant_kernels_set_avx2_unpack(kvant_kernels *k);
void kvant_kernels_set_avx2_vector(kvant_kernels *k);

#endif
