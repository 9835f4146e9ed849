// SPDX-License-Identifier: MIT
/* kernel_avx512.h: what the AVX-512 files share. A test compiles them with emulated intrinsics (KVANT_AVX512_EMULATED), which it
 * includes itself; nothing else differs then. */
#ifndef KVANT_KERNEL_X86_KERNEL_AVX512_H
#define KVANT_KERNEL_X86_KERNEL_AVX512_H

#include "kernel/kernels.h"

#if defined(KVANT_AVX512_EMULATED)
#define AVX512
#define AVX512_INLINE static inline
#define UNROLL
#else
#include <immintrin.h>

#include "kernel/x86/kernel_inline.h"
#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")))
#define AVX512_INLINE KERNEL_INLINE("avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")
#endif

void kvant_kernels_set_avx512_levels(kvant_kernels *k);
void kvant_kernels_set_avx512_product(kvant_kernels *k);
void kvant_kernels_set_avx512_unpack(kvant_kernels *k);
void kvant_kernels_set_avx512_vector(kvant_kernels *k);

#endif
