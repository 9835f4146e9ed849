// SPDX-License-Identifier: MIT
#include "kernel_test.h"
bool kvant_kernels_set_avx512_emulated(kvant_kernels *k) { (void)k; return false; }
