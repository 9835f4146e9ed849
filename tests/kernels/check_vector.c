// SPDX-License-Identifier: MIT
/* check_vector.c: checks of the kernels on rows of floats, and of their accuracy against float64. */
#include <math.h>
#include <string.h>

#include "base/half.h"
#include "kernel_test.h"

/* Lengths around the widths of registers and their multiples. */
static const int lengths[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 23, 24, 31, 32, 33, 47, 48, 63, 64, 65, 100, 1000, 4096};
#define N_LENGTHS ((int)(sizeof lengths / sizeof lengths[0]))

enum { ORDINARY, HARD, WITH_SPECIALS, ANY_BITS, N_KINDS };

static float value_of(int kind, float magnitude) {
    switch (kind) {
    case ORDINARY: return random_float(magnitude);
    case HARD: return random_hard_float();
    case WITH_SPECIALS: {
        uint32_t r = random_u32() % 16;
        return r == 0 ? INFINITY : r == 1 ? -INFINITY : r == 2 ? NAN : random_float(magnitude);
    }
    default: return kvant_bits_f32(random_u32());
    }
}

static float *values(int slot, int n, int kind, float magnitude) {
    float *x = guarded(slot, (size_t)n * sizeof *x);
    for (int i = 0; i < n; i++)
        x[i] = value_of(kind, magnitude);
    return x;
}

static float *copy(int slot, const float *x, int n) {
    float *y = guarded(slot, (size_t)n * sizeof *y);
    if (n) memcpy(y, x, (size_t)n * sizeof *y);
    return y;
}

void check_quantize_q8(const kvant_kernels *ref, const kvant_kernels *k) {
    for (int i = 0; i < 60; i++)
        for (int kind = 0; kind < N_KINDS; kind++) {
            int n_block = i % 6, n = n_block * KVANT_BLOCK;
            static const float magnitudes[] = {1.0f, 300.0f, 1e-35f, 2e-36f, 1e-40f, 3e38f};
            float *x = values(SLOT_X, n, kind, magnitudes[random_u32() % 6]);
            if (kind == ORDINARY && i % 3 == 0) /* ties of rounding: x * 127 / max is an integer and a half */
                for (int j = 0; j < n; j++)
                    x[j] = j % KVANT_BLOCK == 0 ? 127.0f : (float)random_between(-126, 126) + 0.5f;
            int8_t *qa = guarded_random(SLOT_REF, (size_t)n), *qb = guarded_random(SLOT_GOT, (size_t)n);
            float *sa = guarded_random(SLOT_REF2, (size_t)n_block * 4), *sb = guarded_random(SLOT_GOT2, (size_t)n_block * 4);
            int16_t *ta = guarded_random(SLOT_REF3, (size_t)n_block * 4), *tb = guarded_random(SLOT_GOT3, (size_t)n_block * 4);
            ref->quantize_q8(qa, sa, ta, x, n);
            k->quantize_q8(qb, sb, tb, x, n);
            expect_same_bytes(qa, qb, (size_t)n, "quantize_q8 codes: n %d, kind %d", n, kind);
            expect_same_floats(sa, sb, (size_t)n_block, "quantize_q8 scales: n %d, kind %d", n, kind);
            expect_same_bytes(ta, tb, (size_t)n_block * 4, "quantize_q8 sums: n %d, kind %d", n, kind);
            for (int j = 0; j < n; j++)
                assert_true(qa[j] >= -127);
        }
}

void check_weigh_q8(const kvant_kernels *ref, const kvant_kernels *k) {
    for (int i = 0; i < 60; i++)
        for (int kind = 0; kind < N_KINDS; kind++) {
            int n_block = i % 6, n = n_block * KVANT_BLOCK;
            static const float magnitudes[] = {1.0f, 300.0f, 1e-20f, 1e20f};
            float magnitude = magnitudes[random_u32() % 4];
            float *x = values(SLOT_X, n, kind, magnitude), *a = values(SLOT_SCALE, n, ORDINARY, magnitude);
            float *b = values(SLOT_BIAS, n, ORDINARY, 1.0f);
            int8_t *qa = guarded_random(SLOT_REF, (size_t)n), *qb = guarded_random(SLOT_GOT, (size_t)n);
            float *sa = guarded_random(SLOT_REF2, (size_t)n_block * 4), *sb = guarded_random(SLOT_GOT2, (size_t)n_block * 4);
            int16_t *ta = guarded_random(SLOT_REF3, (size_t)n_block * 4), *tb = guarded_random(SLOT_GOT3, (size_t)n_block * 4);
            float da = ref->weigh_q8(qa, sa, ta, x, a, b, n), db = k->weigh_q8(qb, sb, tb, x, a, b, n);
            expect_same_bytes(qa, qb, (size_t)n, "weigh_q8 codes: n %d, kind %d", n, kind);
            expect_same_floats(sa, sb, (size_t)n_block, "weigh_q8 scales: n %d, kind %d", n, kind);
            expect_same_bytes(ta, tb, (size_t)n_block * 4, "weigh_q8 sums: n %d, kind %d", n, kind);
            expect_same_floats(&da, &db, 1, "weigh_q8 dot: n %d, kind %d", n, kind);
        }
}

void check_f16_to_f32(const kvant_kernels *ref, const kvant_kernels *k) {
    const int n = 65536;
    uint16_t *x = guarded(SLOT_X, (size_t)n * sizeof *x);
    for (int i = 0; i < n; i++)
        x[i] = (uint16_t)i;
    float *a = guarded(SLOT_REF, (size_t)n * sizeof *a), *b = guarded(SLOT_GOT, (size_t)n * sizeof *b);
    ref->f16_to_f32(a, x, n);
    k->f16_to_f32(b, x, n);
    expect_same_bytes(a, b, (size_t)n * sizeof *a, "f16_to_f32 of all 65536 values, bytes");
    for (int i = 0; i < N_LENGTHS; i++) {
        size_t m = (size_t)lengths[i];
        x = guarded_random(SLOT_X, m * sizeof *x);
        a = guarded_random(SLOT_REF, m * sizeof *a);
        b = guarded_random(SLOT_GOT, m * sizeof *b);
        ref->f16_to_f32(a, x, lengths[i]);
        k->f16_to_f32(b, x, lengths[i]);
        expect_same_bytes(a, b, m * sizeof *a, "f16_to_f32: n %d", lengths[i]);
    }
}

void check_f32_to_f16(const kvant_kernels *ref, const kvant_kernels *k) {
    for (int i = 0; i < N_LENGTHS * 8; i++) {
        int n = lengths[i % N_LENGTHS];
        float *x = values(SLOT_X, n, i % N_KINDS, 70000.0f);
        for (int j = 0; j < n && i % 3 == 0; j++) { /* halfway between two binary16 values, and next to it */
            float low = kvant_f16_to_f32((uint16_t)(random_u32() % 0x7C00));
            float high = kvant_f16_to_f32((uint16_t)(kvant_f32_to_f16(low) + 1));
            x[j] = kvant_bits_f32(kvant_f32_bits(low + (high - low) * 0.5f) + (uint32_t)random_between(-1, 1));
        }
        uint16_t *a = guarded_random(SLOT_REF, (size_t)n * sizeof *a), *b = guarded_random(SLOT_GOT, (size_t)n * sizeof *b);
        ref->f32_to_f16(a, x, n);
        k->f32_to_f16(b, x, n);
        expect_same_bytes(a, b, (size_t)n * sizeof *a, "f32_to_f16: n %d, bytes", n);
    }
}

void check_dot_f32(const kvant_kernels *ref, const kvant_kernels *k) {
    for (int i = 0; i < N_LENGTHS; i++)
        for (int kind = 0; kind < N_KINDS; kind++) {
            int n = lengths[i];
            const float *x = values(SLOT_X, n, kind, 3.0f), *y = values(SLOT_SCALE, n, kind, 3.0f);
            float a = ref->dot_f32(x, y, n), b = k->dot_f32(x, y, n);
            expect_same_floats(&a, &b, 1, "dot_f32: n %d, kind %d", n, kind);
        }
    /* products that underflow to -0 show whether a tail adds zeros that are not there */
    float tiny[9], minus[9];
    for (int i = 0; i < 9; i++)
        tiny[i] = 1e-30f, minus[i] = -1e-30f;
    for (int n = 1; n <= 9; n++) {
        float a = ref->dot_f32(tiny, minus, n), b = k->dot_f32(tiny, minus, n);
        expect_same_floats(&a, &b, 1, "dot_f32 of underflows: n %d", n);
    }
}

void check_rms_norm(const kvant_kernels *ref, const kvant_kernels *k) {
    for (int i = 1; i < N_LENGTHS; i++)
        for (int kind = 0; kind < N_KINDS * 2; kind++) {
            int n = lengths[i];
            const float *x = values(SLOT_X, n, kind / 2, 3.0f), *weight = kind % 2 ? values(SLOT_SCALE, n, ORDINARY, 2.0f) : NULL;
            float *a = copy(SLOT_REF, x, n), *b = guarded_random(SLOT_GOT, (size_t)n * sizeof *b);
            ref->rms_norm(a, a, weight, n, 1e-5f); /* in place */
            k->rms_norm(b, x, weight, n, 1e-5f);
            expect_same_floats(a, b, (size_t)n, "rms_norm: n %d, kind %d", n, kind);
        }
}

void check_exp_sum(const kvant_kernels *ref, const kvant_kernels *k) {
    for (int i = 0; i < N_LENGTHS; i++)
        for (int kind = 0; kind < N_KINDS; kind++) {
            int n = lengths[i];
            float *a = values(SLOT_REF, n, kind, 100.0f);
            for (int j = 0; j < n; j++)
                if (a[j] > 0) a[j] = -a[j];
            float *b = copy(SLOT_GOT, a, n), max = random_float(5.0f) + 5.0f;
            float sum_a = ref->exp_sum(a, n, max), sum_b = k->exp_sum(b, n, max);
            expect_same_floats(a, b, (size_t)n, "exp_sum: n %d, kind %d", n, kind);
            expect_same_floats(&sum_a, &sum_b, 1, "exp_sum's sum: n %d, kind %d", n, kind);
        }
}

void check_max_f32(const kvant_kernels *ref, const kvant_kernels *k) {
    for (int i = 0; i < N_LENGTHS * 4; i++)
        for (int kind = 0; kind < N_KINDS; kind++) {
            int n = lengths[i / 4];
            float *x = values(SLOT_X, n, kind, 3.0f);
            for (int j = 0; j < n && i % 4 == 0; j++) /* the largest is a zero of either sign */
                x[j] = random_u32() % 2 ? 0.0f : -0.0f;
            float a = ref->max_f32(x, n), b = k->max_f32(x, n);
            expect_same_floats(&a, &b, 1, "max_f32: n %d, kind %d", n, kind);
        }
}

void check_scale_f32(const kvant_kernels *ref, const kvant_kernels *k) {
    for (int i = 0; i < N_LENGTHS; i++)
        for (int kind = 0; kind < N_KINDS; kind++) {
            int n = lengths[i];
            float *a = values(SLOT_REF, n, kind, 3.0f), *b = copy(SLOT_GOT, a, n), factor = random_hard_float();
            ref->scale_f32(a, factor, n);
            k->scale_f32(b, factor, n);
            expect_same_floats(a, b, (size_t)n, "scale_f32: n %d, kind %d", n, kind);
        }
}

void check_add_f32(const kvant_kernels *ref, const kvant_kernels *k) {
    for (int i = 0; i < N_LENGTHS; i++)
        for (int kind = 0; kind < N_KINDS; kind++) {
            int n = lengths[i];
            const float *x = values(SLOT_X, n, kind, 3.0f);
            float *a = values(SLOT_REF, n, kind, 3.0f), *b = copy(SLOT_GOT, a, n);
            ref->add_f32(a, x, n);
            k->add_f32(b, x, n);
            expect_same_floats(a, b, (size_t)n, "add_f32: n %d, kind %d", n, kind);
        }
}

void check_add_scaled_f32(const kvant_kernels *ref, const kvant_kernels *k) {
    for (int i = 0; i < N_LENGTHS; i++)
        for (int kind = 0; kind < N_KINDS; kind++) {
            int n = lengths[i];
            const float *x = values(SLOT_X, n, kind, 3.0f);
            float *a = values(SLOT_REF, n, kind, 3.0f), *b = copy(SLOT_GOT, a, n), factor = random_hard_float();
            ref->add_scaled_f32(a, x, factor, n);
            k->add_scaled_f32(b, x, factor, n);
            expect_same_floats(a, b, (size_t)n, "add_scaled_f32: n %d, kind %d", n, kind);
        }
}

typedef void (*activation_fn)(float *gate, const float *up, int n);

static void check_activation(activation_fn ref, activation_fn got, const char *name) {
    for (int i = 0; i < N_LENGTHS; i++)
        for (int kind = 0; kind < N_KINDS * 2; kind++) {
            int n = lengths[i];
            const float *up = kind % 2 ? values(SLOT_X, n, kind / 2, 3.0f) : NULL;
            float *a = values(SLOT_REF, n, kind / 2, 30.0f), *b = copy(SLOT_GOT, a, n);
            ref(a, up, n);
            got(b, up, n);
            expect_same_floats(a, b, (size_t)n, "%s: n %d, kind %d", name, n, kind);
        }
}

void check_silu_mul(const kvant_kernels *ref, const kvant_kernels *k) {
    check_activation(ref->silu_mul, k->silu_mul, "silu_mul");
}
void check_gelu_mul(const kvant_kernels *ref, const kvant_kernels *k) {
    check_activation(ref->gelu_mul, k->gelu_mul, "gelu_mul");
}

/* ---- accuracy ---- */

void test_exp_is_accurate(void **state) {
    (void)state;
    const kvant_kernels *k = kvant_kernels_for(KVANT_ISA_REF);
    double worst = 0;
    for (int i = 0; i <= 870000; i++) {
        float x = -(float)i * 1e-4f, y = x;
        if (x < -87.0f) continue;
        k->exp_sum(&y, 1, 0.0f);
        double error = fabs((double)y / exp((double)x) - 1);
        if (error > worst) worst = error;
    }
    print_message("exp: largest relative error %.3g\n", worst);
    assert_true(worst < 3e-7);
    float special[] = {0.0f, -0.0f, -87.0001f, -1000.0f, -INFINITY};
    float sum = k->exp_sum(special, 5, 0.0f);
    assert_true(special[0] == 1.0f && special[1] == 1.0f && special[2] == 0.0f && special[3] == 0.0f && special[4] == 0.0f);
    assert_true(sum == 2.0f);
}

static double silu_f64(double g) { return g / (1 + exp(-g)); }
static double gelu_f64(double g) { return 0.5 * g * (1 + tanh(0.79788456080286535588 * (g + 0.044715 * g * g * g))); }

static void check_accuracy(activation_fn f, double (*exact)(double), const char *name) {
    double worst_relative = 0;
    for (int i = -1200000; i <= 1200000; i++) {
        float g = (float)i * 1e-4f, y = g;
        f(&y, NULL, 1);
        double expected = exact((double)g), error = fabs((double)y - expected), relative = error / fabs(expected);
        if (error < 1e-7) continue;
        if (relative > worst_relative) worst_relative = relative;
    }
    print_message("%s: largest relative error where the absolute one is over 1e-7: %.3g\n", name, worst_relative);
    assert_true(worst_relative < 1e-6);
    static const float large[] = {1e10f, 1e20f, 3e38f, INFINITY};
    for (int i = 0; i < 4; i++) {
        float y = large[i];
        f(&y, NULL, 1);
        assert_true(y == large[i]);
        if (i == 3) continue;
        y = -large[i];
        f(&y, NULL, 1);
        assert_true(y == 0.0f);
    }
}

void test_silu_is_accurate(void **state) {
    (void)state;
    check_accuracy(kvant_kernels_for(KVANT_ISA_REF)->silu_mul, silu_f64, "silu");
}

void test_gelu_is_accurate(void **state) {
    (void)state;
    check_accuracy(kvant_kernels_for(KVANT_ISA_REF)->gelu_mul, gelu_f64, "gelu");
}

void test_quantized_values_are_within_half_a_step(void **state) {
    (void)state;
    const kvant_kernels *k = kvant_kernels_for(KVANT_ISA_BEST);
    for (int round = 0; round < 1000; round++) {
        float x[KVANT_BLOCK], scale;
        int8_t q[KVANT_BLOCK];
        int16_t sum[2];
        for (int j = 0; j < KVANT_BLOCK; j++)
            x[j] = random_float(round % 2 ? 1e-20f : 50.0f);
        k->quantize_q8(q, &scale, sum, x, KVANT_BLOCK);
        int total[2] = {0, 0};
        for (int j = 0; j < KVANT_BLOCK; j++) {
            assert_true(fabsf((float)q[j] * scale - x[j]) <= scale * 0.50001f);
            total[j / 16] += q[j];
        }
        assert_int_equal(sum[0], total[0]);
        assert_int_equal(sum[1], total[1]);
    }
}
