// SPDX-License-Identifier: MIT
#include "kernel/kernel_table.h"
#if defined(__x86_64__)
void kvant_kernels_set_avx512(kvant_kernels *k) { (void)k; }
#endif
