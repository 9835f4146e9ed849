// SPDX-License-Identifier: MIT
/* kernel_test.h: what the checks of kernels share: random numbers, buffers that end at an unmapped page, exact comparison. */
#ifndef KVANT_TESTS_KERNELS_KERNEL_TEST_H
#define KVANT_TESTS_KERNELS_KERNEL_TEST_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdbool.h>
#include <cmocka.h>

#include "kernel/kernel_table.h"

/* One check for each kernel of the list: k must equal ref bit for bit on every input tried. */
#define DECLARE_CHECK(type, name, params) void check_##name(const kvant_kernels *ref, const kvant_kernels *k);
KVANT_KERNEL_LIST(DECLARE_CHECK)
#undef DECLARE_CHECK

/* Accuracy of the reference against float64; every level has the same bits. */
void test_exp_is_accurate(void **state);
void test_silu_is_accurate(void **state);
void test_gelu_is_accurate(void **state);
void test_quantized_values_are_within_half_a_step(void **state);

/* The AVX-512 kernels compiled with emulated intrinsics; false where the build has no emulation. */
bool kvant_kernels_set_avx512_emulated(kvant_kernels *k);

int run_benchmarks(void);

void seed_random(uint64_t seed);
uint32_t random_u32(void);
int random_between(int lowest, int highest); /* both included */
float random_float(float magnitude);         /* -magnitude .. magnitude */
/* Values that break kernels: zeros of both signs, denormals, large, tiny and ordinary ones; never infinite or NaN. */
float random_hard_float(void);

/* `size` bytes whose end is the last byte before an unmapped page (so reading or writing beyond it ends the program), valid
 * until the slot is used again. Starts are aligned as far as size is a multiple of it. */
enum { SLOT_TILE, SLOT_X, SLOT_SCALE, SLOT_BIAS, SLOT_X_SCALE, SLOT_X_SUM, SLOT_REF, SLOT_GOT, SLOT_REF2, SLOT_GOT2,
       SLOT_REF3, SLOT_GOT3, N_SLOTS };
void *guarded(int slot, size_t size);
void *guarded_random(int slot, size_t size);

/* Fail with the place of the first difference and the input named by the format. NaNs are equal to each other. */
void expect_same_floats(const float *ref, const float *got, size_t n, const char *format, ...);
void expect_same_bytes(const void *ref, const void *got, size_t size, const char *format, ...);

#endif
