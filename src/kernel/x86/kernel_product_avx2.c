// SPDX-License-Identifier: MIT
/* kernel_product_avx2.c: see below. */
#include "kernel/kernel_table.h"

#if defined(__x86_64__)
void kvant_kernels_set_avx2(kvant_kernels *k) { (void)k; }
void kvant_kernels_set_avx512(kvant_kernels *k) { (void)k; }
#endif
