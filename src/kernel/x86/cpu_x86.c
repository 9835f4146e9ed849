// SPDX-License-Identifier: MIT
/* cpu_x86.c: the instruction level of an x86-64 processor: what it has, and what the operating system keeps the registers of. */
#include "kernel/kernel_table.h"

#if defined(__x86_64__)

#include <cpuid.h>

#define BIT(n) (1u << (n))

/* Extended control register 0: the register sets that the operating system saves. Only with CPUID's OSXSAVE. */
static unsigned read_xcr0(void) {
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

kvant_isa kvant_cpu_x86_level(void) {
    unsigned a, b, c, d;
    if (!__get_cpuid_count(1, 0, &a, &b, &c, &d)) return KVANT_ISA_REF;
    const unsigned fma = BIT(12), osxsave = BIT(27), avx = BIT(28), f16c = BIT(29), leaf1 = fma | osxsave | avx | f16c;
    if ((c & leaf1) != leaf1) return KVANT_ISA_REF;
    const unsigned ymm_state = BIT(1) | BIT(2), zmm_state = ymm_state | BIT(5) | BIT(6) | BIT(7);
    unsigned xcr0 = read_xcr0();
    if ((xcr0 & ymm_state) != ymm_state || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return KVANT_ISA_REF;
    const unsigned avx2 = BIT(5);
    if (!(b & avx2)) return KVANT_ISA_REF;
    const unsigned avx512f = BIT(16), avx512bw = BIT(30), avx512vl = BIT(31), leaf7b = avx512f | avx512bw | avx512vl;
    const unsigned avx512vnni = BIT(11); /* of ecx */
    if ((b & leaf7b) != leaf7b || !(c & avx512vnni) || (xcr0 & zmm_state) != zmm_state) return KVANT_ISA_AVX2;
    return KVANT_ISA_AVX512;
}

#else
typedef int kvant_cpu_x86_unused; /* a translation unit must not be empty */
#endif
