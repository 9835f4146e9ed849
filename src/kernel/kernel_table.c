// SPDX-License-Identifier: MIT
/* kernel_table.c: one table of kernels for each instruction level, and which levels this machine has.
 *
 * A level's table begins as a copy of the level below; the level overwrites what it has. The tables are built once. */
#include "kernel/kernel_table.h"

#include <stdatomic.h>

#include "kernel/kernel_ref.h"

void kvant_kernels_set_ref(kvant_kernels *k) {
    kvant_kernels_set_ref_product(k);
    kvant_kernels_set_ref_vector(k);
    kvant_kernels_set_ref_levels(k);
    kvant_kernels_set_ref_means(k);
}

#define N_LEVELS 3
static void (*const set_level[N_LEVELS])(kvant_kernels *) = {
    [KVANT_ISA_REF] = kvant_kernels_set_ref,
#if defined(__x86_64__)
    [KVANT_ISA_AVX2] = kvant_kernels_set_avx2,
    [KVANT_ISA_AVX512] = kvant_kernels_set_avx512,
#endif
};

enum { NOT_BUILT, BEING_BUILT, BUILT };
static kvant_kernels tables[N_LEVELS];
static atomic_int state = NOT_BUILT;

static void build_tables(void) {
    int expected = NOT_BUILT;
    if (atomic_compare_exchange_strong(&state, &expected, BEING_BUILT)) {
        for (int level = 0; level < N_LEVELS && set_level[level]; level++) {
            if (level > 0) tables[level] = tables[level - 1];
            set_level[level](&tables[level]);
        }
        atomic_store(&state, BUILT);
    }
    while (atomic_load(&state) != BUILT) { /* another thread is assigning some pointers */
    }
}

kvant_isa kvant_isa_detect(void) {
#if defined(__x86_64__)
    return kvant_cpu_x86_level();
#else
    return KVANT_ISA_REF;
#endif
}

const kvant_kernels *kvant_kernels_for(kvant_isa isa) {
    kvant_isa best = kvant_isa_detect();
    if (isa == KVANT_ISA_BEST) isa = best;
    if ((int)isa < 0 || isa > best) return NULL;
    build_tables();
    return &tables[isa];
}
