// SPDX-License-Identifier: MIT
/* test_kernels.c: runs every kernel of every instruction level against the reference, bit for bit.
 *
 * test_kernels [--seed N]   the checks; levels that this machine lacks are named and left out
 * test_kernels --bench      times the kernels of every level instead */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/half.h"
#include "kernel_test.h"

#define SLOT_BYTES (1u << 20)
#define GUARD_BYTES (1u << 16)

static uint64_t random_state = 1;

void seed_random(uint64_t seed) { random_state = seed * 0x9E3779B97F4A7C15u + 1; }

uint32_t random_u32(void) { /* xorshift64* */
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return (uint32_t)(random_state * 0x2545F4914F6CDD1Du >> 32);
}

int random_between(int lowest, int highest) { return lowest + (int)(random_u32() % (uint32_t)(highest - lowest + 1)); }

float random_float(float magnitude) { return magnitude * ((float)random_u32() * 0x1p-31f - 1.0f); }

float random_hard_float(void) {
    switch (random_u32() % 8) {
    case 0: return 0.0f;
    case 1: return -0.0f;
    case 2: return kvant_bits_f32((random_u32() & 0x807FFFFFu)); /* denormal */
    case 3: return random_float(1e-30f);
    case 4: return random_float(1e15f);
    default: return random_float(8.0f);
    }
}

void *guarded(int slot, size_t size) {
    static uint8_t *start[N_SLOTS];
    if (size > SLOT_BYTES) fail_msg("a test buffer of %zu bytes: at most %u", size, SLOT_BYTES);
    if (!start[slot]) {
        void *p = mmap(NULL, SLOT_BYTES + GUARD_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED || mprotect((uint8_t *)p + SLOT_BYTES, GUARD_BYTES, PROT_NONE) != 0) fail_msg("mmap failed");
        start[slot] = p;
    }
    return start[slot] + SLOT_BYTES - size;
}

void *guarded_random(int slot, size_t size) {
    uint8_t *p = guarded(slot, size);
    for (size_t i = 0; i < size; i++)
        p[i] = (uint8_t)(random_u32() >> 13);
    return p;
}

static void fail_with(size_t i, const char *found, const char *format, va_list args) {
    char input[256];
    vsnprintf(input, sizeof input, format, args);
    fail_msg("%s: element %zu: %s", input, i, found);
}

void expect_same_floats(const float *ref, const float *got, size_t n, const char *format, ...) {
    for (size_t i = 0; i < n; i++) {
        uint32_t a = kvant_f32_bits(ref[i]), b = kvant_f32_bits(got[i]);
        if (a == b || (ref[i] != ref[i] && got[i] != got[i])) continue;
        char found[128];
        snprintf(found, sizeof found, "found %.9g (%08x), expected %.9g (%08x)", (double)got[i], b, (double)ref[i], a);
        va_list args;
        va_start(args, format);
        fail_with(i, found, format, args);
        va_end(args);
    }
}

void expect_same_bytes(const void *ref, const void *got, size_t size, const char *format, ...) {
    const uint8_t *a = ref, *b = got;
    for (size_t i = 0; i < size; i++) {
        if (a[i] == b[i]) continue;
        char found[128];
        snprintf(found, sizeof found, "found byte %d, expected %d", b[i], a[i]);
        va_list args;
        va_start(args, format);
        fail_with(i, found, format, args);
        va_end(args);
    }
}

/* ---- the loop over kernels and levels ---- */

typedef void (*check_fn)(const kvant_kernels *ref, const kvant_kernels *k);

static const struct {
    const char *name;
    check_fn check;
} checks[] = {
#define LIST_CHECK(type, name, params) {#name, check_##name},
    KVANT_KERNEL_LIST(LIST_CHECK)
#undef LIST_CHECK
};
#define N_KERNELS (sizeof checks / sizeof checks[0])

typedef struct kernel_case {
    const kvant_kernels *kernels;
    check_fn check;
    uint64_t seed;
} kernel_case;

static void run_case(void **state) {
    const kernel_case *one = *state;
    seed_random(one->seed);
    one->check(kvant_kernels_for(KVANT_ISA_REF), one->kernels);
}

static int check_level(const char *level, const kvant_kernels *kernels, uint64_t seed) {
    struct CMUnitTest tests[N_KERNELS];
    kernel_case cases[N_KERNELS];
    for (size_t i = 0; i < N_KERNELS; i++) {
        cases[i] = (kernel_case){kernels, checks[i].check, seed};
        tests[i] = (struct CMUnitTest){checks[i].name, run_case, NULL, NULL, &cases[i]};
    }
    return cmocka_run_group_tests_name(level, tests, NULL, NULL);
}

static void test_levels_are_ordered_and_complete(void **state) {
    (void)state;
    kvant_isa best = kvant_isa_detect();
    assert_ptr_equal(kvant_kernels_for(KVANT_ISA_BEST), kvant_kernels_for(best));
    for (int isa = KVANT_ISA_REF; isa <= KVANT_ISA_AVX512; isa++) {
        const kvant_kernels *k = kvant_kernels_for((kvant_isa)isa);
        if (isa > (int)best) {
            assert_null(k);
            continue;
        }
        assert_non_null(k);
#define EXPECT_ENTRY(type, name, params) assert_true(k->name != NULL);
        KVANT_KERNEL_LIST(EXPECT_ENTRY)
#undef EXPECT_ENTRY
    }
    assert_null(kvant_kernels_for((kvant_isa)7));
}

int main(int argc, char **argv) {
    uint64_t seed = 20240611;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--bench") == 0) return run_benchmarks();
        if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc) {
            seed = strtoull(argv[++i], NULL, 10);
        } else {
            fprintf(stderr, "usage: test_kernels [--seed N] | --bench\n");
            return 2;
        }
    }
    printf("seed %llu (--seed)\n", (unsigned long long)seed);
    seed_random(seed);
    const struct CMUnitTest general[] = {
        cmocka_unit_test(test_levels_are_ordered_and_complete),
        cmocka_unit_test(test_exp_is_accurate),
        cmocka_unit_test(test_silu_is_accurate),
        cmocka_unit_test(test_gelu_is_accurate),
        cmocka_unit_test(test_quantized_values_are_within_half_a_step),
    };
    int failed = cmocka_run_group_tests_name("reference", general, NULL, NULL);
    for (int isa = KVANT_ISA_REF; isa <= KVANT_ISA_AVX512; isa++) {
        const kvant_kernels *k = kvant_kernels_for((kvant_isa)isa);
        if (k)
            failed += check_level(kvant_isa_name((kvant_isa)isa), k, seed);
        else
            printf("skipped: level %s, which this machine lacks\n", kvant_isa_name((kvant_isa)isa));
    }
    kvant_kernels emulated = *kvant_kernels_for(KVANT_ISA_REF);
    if (kvant_kernels_set_avx512_emulated(&emulated))
        failed += check_level("avx512 emulated", &emulated, seed);
    else
        printf("skipped: avx512 with emulated intrinsics, which needs the headers of SIMDe\n");
    return failed != 0;
}
