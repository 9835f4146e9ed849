// SPDX-License-Identifier: MIT
/* kernel_table.h: which kernels run at which instruction level. */
#ifndef KVANT_KERNEL_KERNEL_TABLE_H
#define KVANT_KERNEL_KERNEL_TABLE_H

#include "kernel/kernels.h"
#include "kvant/kvant.h"

/* The table of a level, or NULL when this machine or build lacks the level. KVANT_ISA_BEST gives the best table there is. */
const kvant_kernels *kvant_kernels_for(kvant_isa isa);
/* The level that KVANT_ISA_BEST stands for here. */
kvant_isa kvant_isa_detect(void);

/* Each level overwrites the entries that it has. */
void kvant_kernels_set_ref(kvant_kernels *k);
void kvant_kernels_set_avx2(kvant_kernels *k);
void kvant_kernels_set_avx512(kvant_kernels *k);

/* The level of an x86-64 processor, and of its operating system. */
kvant_isa kvant_cpu_x86_level(void);

#endif
