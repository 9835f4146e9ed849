// SPDX-License-Identifier: MIT
/* test_codec.c: format names; parts keep what was encoded, slot by slot; hostile values stay finite; integer queries and
 * weights lose far less than the format does. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/half.h"
#include "base/memory.h"
#include "codec/codec.h"
#include "kernel/kernel_table.h"

static uint64_t seed = 99;

static float random_normal(void) {
    float sum = 0;
    for (int i = 0; i < 4; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        sum += (float)(seed >> 40) / 16777216.0f - 0.5f;
    }
    return sum * 1.7f;
}

static const char *const names[] = {"f16",        "f32",        "affine2:32",  "affine3:64",
                                    "affine4:64", "affine5:32", "affine6:128", "affine8:64"};

static void assert_read_and_written_alike(const char *name) {
    kvant_format f;
    char again[KVANT_FORMAT_NAME_MAX];
    assert_int_equal(kvant_format_parse(name, &f, NULL), KVANT_OK);
    kvant_format_name(&f, again);
    assert_string_equal(again, name);
}

static void names_are_read_and_written_alike(void **state) {
    (void)state;
    static const char *const others[] = {"bc2", "bc4", "bc4:16", "bc5:16.bare", "bz2", "bz4", "i8", "lm3", "q5_1.bare"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        assert_read_and_written_alike(names[i]);
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        assert_read_and_written_alike(others[i]);
    kvant_format k, v;
    assert_int_equal(kvant_format_parse_pair("affine8/affine4:32", &k, &v, NULL), KVANT_OK);
    assert_int_equal(k.bits * 1000 + k.group, 8064);
    assert_int_equal(v.bits * 1000 + v.group, 4032);
    static const char *const wrong[] = {
        "",         "f8",   "affine", "affine7",     "affine4:",       "affine4:48", "affine4:64x",
        "affine44", "f16/", "/f16",   "f16/f16/f16", "affine4:064000", "affine-4",   "AFFINE4",
        "bc2:16",   "bc4:32", "bz4:16", "bc4.16",      "bc4:",           "bc4:16:16",  "bz1"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        kvant_error err = {0};
        assert_int_equal(kvant_format_parse_pair(wrong[i], &k, &v, &err), KVANT_EINVAL);
        assert_non_null(strstr(err.message, "affine"));
    }
}

static void formats_that_do_not_fit_name_the_nearest(void **state) {
    (void)state;
    static const struct {
        const char *name;
        int head_dim;
        const char *nearest; /* NULL: fits */
    } cases[] = {{"f16", 80, NULL},         {"f16", 513, "512"},
                 {"affine4:64", 64, NULL},  {"affine4:64", 96, "affine4:32"},
                 {"affine4:64", 80, "f16"}, {"affine3:128", 64, "affine3:64"},
                 {"affine4:32", 640, "f16"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        kvant_format f;
        kvant_error err = {0};
        assert_int_equal(kvant_format_parse(cases[i].name, &f, NULL), KVANT_OK);
        kvant_status st = kvant_format_check(&f, cases[i].head_dim, &err);
        assert_int_equal(st, cases[i].nearest ? KVANT_EUNSUPPORTED : KVANT_OK);
        if (cases[i].nearest && !strstr(err.message, cases[i].nearest)) fail_msg("%s", err.message);
    }
}

static void bits_count_scales_and_biases(void **state) {
    (void)state;
    const kvant_format f16 = {KVANT_CODEC_F16, 0, 0, false}, a4 = {KVANT_CODEC_AFFINE, 4, 64, false}, a2 = {KVANT_CODEC_AFFINE, 2, 32, false};
    assert_true(kvant_format_bits(&f16, 64) == 16);
    assert_true(kvant_format_bits(&f16, 72) > 16); /* V is padded to 80 */
    assert_true(kvant_format_bits(&a4, 128) == 4.5);
    assert_true(kvant_format_bits(&a2, 128) == 3);
}

/* What a slot must decode to. */
static void expect_slot(const kvant_format *f, const float *x, const float *found, int head_dim) {
    uint8_t codes[KVANT_HEAD_DIM_MAX];
    uint16_t scales[KVANT_HEAD_DIM_MAX], biases[KVANT_HEAD_DIM_MAX];
    float half[KVANT_HEAD_DIM_MAX];
    for (int i = 0; i < head_dim; i++)
        half[i] = kvant_f16_to_f32(kvant_f32_to_f16(x[i]));
    if (f->codec == KVANT_CODEC_AFFINE)
        kvant_affine_quantize(half, head_dim / f->group, f->bits, f->group, codes, scales, biases);
    for (int i = 0; i < head_dim; i++) {
        float y = f->codec == KVANT_CODEC_F32 ? x[i] : half[i];
        if (f->codec == KVANT_CODEC_AFFINE) {
            int g = i / f->group;
            y = kvant_f16_to_f32(scales[g]) * (float)codes[i] + kvant_f16_to_f32(biases[g]);
        }
        if (y != found[i]) fail_msg("element %d: found %g, expected %g", i, (double)found[i], (double)y);
    }
}

static void a_slot_holds_what_the_rule_says_and_no_other_slot_changes(void **state) {
    (void)state;
    for (size_t i = 0; i < 2 * sizeof names / sizeof names[0]; i++) {
        kvant_format f;
        assert_int_equal(kvant_format_parse(names[i / 2], &f, NULL), KVANT_OK);
        int d = f.codec == KVANT_CODEC_AFFINE ? 128 : 72;
        kvant_part part = kvant_part_make(&f, i % 2 ? KVANT_SIDE_K : KVANT_SIDE_V, d);
        uint8_t *bytes = kvant_alloc_aligned(part.bytes, 1);
        float *x = calloc((size_t)(64 * d), sizeof *x), y[KVANT_HEAD_DIM_MAX];
        memset(bytes, 0, part.bytes);
        for (int step = 0; step < 100; step++) { /* slots are written in any order, and again */
            seed = seed * 6364136223846793005u + 1;
            int slot = (int)(seed >> 58);
            for (int e = 0; e < d; e++)
                x[slot * d + e] = random_normal() + (float)(slot % 5) * 3;
            part.codec->encode(&part, bytes, slot, x + slot * d, kvant_kernels_for(step % 2 ? KVANT_ISA_REF : KVANT_ISA_BEST));
        }
        for (int slot = 0; slot < 64; slot++) {
            part.codec->decode(&part, bytes, slot, y, kvant_kernels_for(KVANT_ISA_BEST));
            expect_slot(&f, x + slot * d, y, d);
        }
        free(x);
        kvant_free_aligned(bytes);
    }
}

static void values_that_no_half_can_hold_are_stored_as_the_nearest(void **state) {
    (void)state;
    const float hostile[] = {INFINITY, -INFINITY, NAN, 1e30f, -1e30f, 65520, 1e-40f, -0.0f, 0, 65504, -65504, 6e-8f};
    for (size_t i = 1; i < sizeof names / sizeof names[0]; i++) {
        kvant_format f;
        assert_int_equal(kvant_format_parse(names[i], &f, NULL), KVANT_OK);
        if (f.codec == KVANT_CODEC_F32) continue;
        kvant_part part = kvant_part_make(&f, KVANT_SIDE_K, 128);
        uint8_t *bytes = kvant_alloc_aligned(part.bytes, 1);
        memset(bytes, 0, part.bytes);
        for (size_t h = 0; h < sizeof hostile / sizeof hostile[0]; h++) {
            float x[128], y[128];
            for (int e = 0; e < 128; e++)
                x[e] = e % 3 ? hostile[h] : random_normal();
            part.codec->encode(&part, bytes, 5, x, kvant_kernels_for(KVANT_ISA_BEST));
            part.codec->decode(&part, bytes, 5, y, kvant_kernels_for(KVANT_ISA_BEST));
            for (int e = 0; e < 128; e++)
                assert_true(isfinite(y[e]) && fabsf(y[e]) <= 65600);
        }
        kvant_free_aligned(bytes);
    }
}

/* Scales may be as small as a half float's last bit (6e-8), and never 0: a group of equal values decodes to itself. */
static void equal_values_are_exact(void **state) {
    (void)state;
    const float values[] = {0, 1, -3.5f, 65504, -65504, 6e-8f, -6e-8f, 1e-4f};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        float x[32], y = kvant_f16_to_f32(kvant_f32_to_f16(values[i]));
        uint8_t codes[32];
        uint16_t scale, bias;
        for (int e = 0; e < 32; e++)
            x[e] = y;
        assert_int_equal(kvant_affine_quantize(x, 1, 4, 32, codes, &scale, &bias), KVANT_OK);
        assert_int_not_equal(scale & 0x7FFF, 0);
        float found = kvant_f16_to_f32(scale) * (float)codes[0] + kvant_f16_to_f32(bias);
        assert_true(fabsf(found - y) <= 6e-8f);
    }
}

typedef struct noise {
    double format, rounding; /* mean squares of the errors of scores or mixes */
} noise;

/* Scores of keys with a mean of `mean` deviations: what the format loses, and what int8 queries lose on top. */
static noise score_noise(const kvant_format *f, int d, float mean) {
    const kvant_kernels *k = kvant_kernels_for(KVANT_ISA_BEST);
    kvant_part part = kvant_part_make(f, KVANT_SIDE_K, d);
    kvant_codec_scratch s;
    assert_int_equal(kvant_codec_scratch_create(d, &s), KVANT_OK);
    uint8_t *bytes = kvant_alloc_aligned(part.bytes, 1);
    static float x[64 * 128], y[64 * 128], q[8 * 128], total[8 * 4], found[8 * 64], channel[128];
    static _Alignas(64) int8_t q8[8 * 128];
    static float q_scale[8 * 4];
    static int16_t q_sum[8 * 8];
    noise sum = {0, 0};
    memset(bytes, 0, part.bytes);
    for (int e = 0; e < d; e++)
        channel[e] = mean * random_normal();
    for (int t = 0; t < 64; t++) {
        for (int e = 0; e < d; e++)
            x[t * d + e] = random_normal() + channel[e];
        part.codec->encode(&part, bytes, t, x + t * d, k);
        part.codec->decode(&part, bytes, t, y + t * d, k);
    }
    for (int i = 0; i < 8 * d; i++)
        q[i] = random_normal();
    k->quantize_q8(q8, q_scale, q_sum, q, 8 * d);
    for (int i = 0; i < 8 * d / 32; i++)
        total[i] = q_scale[i] * (float)(q_sum[2 * i] + q_sum[2 * i + 1]);
    kvant_query query = {.n = 8,
                         .head_dim = d,
                         .x = q,
                         .form = f->bits <= 4 ? KVANT_QUERY_Q8 : KVANT_QUERY_FLOAT,
                         .q = q8,
                         .q_scale = q_scale,
                         .q_sum = q_sum,
                         .q_total = total};
    part.codec->score(&part, bytes, &query, found, k, &s);
    for (int i = 0; i < 8 * 64; i++) {
        double exact = 0, stored = 0;
        for (int e = 0; e < d; e++) {
            exact += (double)q[i / 64 * d + e] * x[i % 64 * d + e];
            stored += (double)q[i / 64 * d + e] * y[i % 64 * d + e];
        }
        sum.format += (stored - exact) * (stored - exact) / (8 * 64);
        sum.rounding += (found[i] - stored) * (found[i] - stored) / (8 * 64);
    }
    kvant_free_aligned(bytes);
    kvant_codec_scratch_destroy(&s);
    return sum;
}

static void integer_queries_lose_a_small_part_of_what_the_format_loses(void **state) {
    (void)state;
    for (int bits = 2; bits <= 8; bits++)
        for (int mean = 0; mean <= 20 && bits != 7; mean += 20) {
            kvant_format f = {KVANT_CODEC_AFFINE, bits, 64, false};
            noise n = score_noise(&f, 128, (float)mean);
            double part = n.rounding / n.format;
            print_message("K %d bits, mean %2d deviations: rounding adds %.2e to a noise of 1 (%.2e)\n", bits, mean, part,
                          n.format);
            assert_true(part < 0.02);
        }
}

/* Mixes with weights between flat (0) and nearly one token (6). */
static noise mix_noise(const kvant_format *f, int d, float sharpness) {
    const kvant_kernels *k = kvant_kernels_for(KVANT_ISA_BEST);
    kvant_part part = kvant_part_make(f, KVANT_SIDE_V, d);
    kvant_codec_scratch s;
    assert_int_equal(kvant_codec_scratch_create(d, &s), KVANT_OK);
    uint8_t *bytes = kvant_alloc_aligned(part.bytes, 1);
    static float x[64 * 128], y[64 * 128], w[8 * 64], found[8 * 128];
    noise sum = {0, 0};
    memset(bytes, 0, part.bytes);
    memset(found, 0, sizeof found);
    for (int t = 0; t < 64; t++) {
        for (int e = 0; e < d; e++)
            x[t * d + e] = random_normal();
        part.codec->encode(&part, bytes, t, x + t * d, k);
        part.codec->decode(&part, bytes, t, y + t * d, k);
    }
    for (int i = 0; i < 8 * 64; i++)
        w[i] = expf(sharpness * (random_normal() - 3));
    part.codec->mix(&part, bytes, w, 8, false, found, (size_t)d, k, &s);
    for (int i = 0; i < 8; i++) {
        double norm = 0;
        for (int t = 0; t < 64; t++)
            norm += (double)w[i * 64 + t] * w[i * 64 + t];
        for (int e = 0; e < d; e++) {
            double exact = 0, stored = 0;
            for (int t = 0; t < 64; t++) {
                exact += (double)w[i * 64 + t] * x[t * d + e];
                stored += (double)w[i * 64 + t] * y[t * d + e];
            }
            sum.format += (stored - exact) * (stored - exact) / norm / (8 * d);
            sum.rounding += (found[i * d + e] - stored) * (found[i * d + e] - stored) / norm / (8 * d);
        }
    }
    kvant_free_aligned(bytes);
    kvant_codec_scratch_destroy(&s);
    return sum;
}

static void integer_weights_lose_a_small_part_of_what_the_format_loses(void **state) {
    (void)state;
    for (int bits = 2; bits <= 8; bits++)
        for (int sharpness = 0; sharpness <= 6 && bits != 7; sharpness += 2) {
            kvant_format f = {KVANT_CODEC_AFFINE, bits, 64, false};
            noise n = mix_noise(&f, 128, (float)sharpness);
            double part = n.rounding / n.format;
            print_message("V %d bits, sharpness %d: rounding adds %.2e to a noise of 1 (%.2e)\n", bits, sharpness, part,
                          n.format);
            assert_true(part < 0.05);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_read_and_written_alike),
        cmocka_unit_test(formats_that_do_not_fit_name_the_nearest),
        cmocka_unit_test(bits_count_scales_and_biases),
        cmocka_unit_test(a_slot_holds_what_the_rule_says_and_no_other_slot_changes),
        cmocka_unit_test(values_that_no_half_can_hold_are_stored_as_the_nearest),
        cmocka_unit_test(equal_values_are_exact),
        cmocka_unit_test(integer_queries_lose_a_small_part_of_what_the_format_loses),
        cmocka_unit_test(integer_weights_lose_a_small_part_of_what_the_format_loses),
    };
    print_message("seed %llu\n", (unsigned long long)seed);
    return cmocka_run_group_tests_name("codec", tests, NULL, NULL);
}
