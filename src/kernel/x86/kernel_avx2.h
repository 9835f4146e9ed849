// SPDX-License-Identifier: MIT
/* kernel_avx2.h: what the AVX2 files share. */
#ifndef KVANT_KERNEL_X86_KERNEL_AVX2_H
#define KVANT_KERNEL_X86_KERNEL_AVX2_H

#include "kernel/kernels.h"
#include "kernel/x86/kernel_inline.h"

#define AVX2 __attribute__((target("avx2,fma,f16c")))
#define AVX2_INLINE KERNEL_INLINE("avx2,fma,f16c")

/* Keeps a compiler from regrouping a chain of additions: GCC would multiply everything first and spill the products. */
#define IN_THIS_ORDER(v) __asm__("" : "+x"(v))

/* levels4 of this level, for kernels that begin with it. */
void kvant_kernels_avx2_levels4(int8_t *levels, const kvant_level_rows *rows);
void kvant_kernels_set_avx2_levels(kvant_kernels *k);
void kvant_kernels_set_avx2_bytes(kvant_kernels *k);
void kvant_kernels_set_avx2_attend(kvant_kernels *k);
void kvant_kernels_set_avx2_product(kvant_kernels *k);
void kvant_kernels_set_avx2_unpack(kvant_kernels *k);
void kvant_kernels_set_avx2_vector(kvant_kernels *k);

#endif
