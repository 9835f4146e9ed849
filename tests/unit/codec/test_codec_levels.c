// SPDX-License-Identifier: MIT
/* test_codec_levels.c: Kvant's own formats lose what the theory of their codebooks says, at every head_dim; bytes do not depend
 * on the kernels; slots do not touch each other; nothing hostile leaves a number that is not finite; scores and mixes are those
 * of the decoded vectors. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "codec/codec.h"
#include "kernel/kernel_table.h"

#define SEED 20240611u
#define TOKENS KVANT_PAGE_TOKENS

static uint64_t seed = SEED;

static uint64_t next_random(void) {
    uint64_t z = seed += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

/* A true Gaussian (Box-Muller): the tails matter here. */
static float random_normal(void) {
    double u = ((double)(next_random() >> 11) + 0.5) / 9007199254740992.0, v = (double)(next_random() >> 11) / 9007199254740992.0;
    return (float)(sqrt(-2 * log(u)) * cos(6.283185307179586 * v));
}

/* The signal over the noise of unit Gaussian vectors of 128 elements, in dB.
 * promised: rate-distortion measurements of these designs (16 books in blocks of 16 at 2 bits, of 32 above; one Lloyd-Max book
 * with a scale a vector, TurboQuant's first stage) that were made apart from this code, before it; 0: none, of bc5, i6 and i8.
 * committed: what this encoder gave when it was written, with scales in steps of an eighth of an octave; bits: of one element,
 * all counted. */
static const struct {
    const char *name;
    double promised, committed, bits;
} formats[] = {{"bc2", 11.39, 11.48, 2.3125}, {"bc3", 16.47, 16.71, 3.1875}, {"bc4", 22.42, 22.78, 4.1875},
               {"bc5", 0, 28.71, 5.1875},     {"bc3:16", 17.36, 17.68, 3.3125}, {"bc4:16", 23.18, 23.75, 4.3125},
               {"bc5:16", 0, 29.70, 5.3125},  {"i6", 0, 31.45, 6.0625},      {"i8", 0, 43.45, 8.0625},
               {"lm2", 9.26, 9.40, 2.0625},   {"lm3", 14.71, 14.89, 3.0625}, {"lm4", 20.35, 20.74, 4.0625}};
#define N_FORMAT (sizeof formats / sizeof *formats)
static const int dims[] = {64, 80, 96, 128, 256};
#define N_DIM (sizeof dims / sizeof *dims)

typedef struct fixture {
    kvant_part part;
    uint8_t *bytes;
    kvant_codec_scratch scratch;
} fixture;

static fixture make(const char *name, kvant_side side, int d) {
    fixture f;
    kvant_format format;
    assert_int_equal(kvant_format_parse(name, &format, NULL), KVANT_OK);
    assert_int_equal(kvant_format_check(&format, d, NULL), KVANT_OK);
    f.part = kvant_part_make(&format, side, d);
    f.bytes = kvant_alloc_aligned(f.part.bytes, 1);
    assert_non_null(f.bytes);
    memset(f.bytes, 0, f.part.bytes);
    assert_int_equal(kvant_codec_scratch_create(d, &f.scratch), KVANT_OK);
    return f;
}

static void drop(fixture *f) {
    kvant_codec_scratch_destroy(&f->scratch);
    kvant_free_aligned(f->bytes);
}

static double relative_mse(const char *name, int d, int n_vector) {
    const kvant_kernels *k = kvant_kernels_for(KVANT_ISA_BEST);
    fixture f = make(name, KVANT_SIDE_K, d);
    float x[KVANT_HEAD_DIM_MAX], y[KVANT_HEAD_DIM_MAX];
    double noise = 0, energy = 0;
    for (int v = 0; v < n_vector; v++) {
        for (int i = 0; i < d; i++)
            x[i] = random_normal();
        f.part.codec->encode(&f.part, f.bytes, v % TOKENS, x, k);
        f.part.codec->decode(&f.part, f.bytes, v % TOKENS, y, k);
        for (int i = 0; i < d; i++) {
            noise += (x[i] - y[i]) * (x[i] - y[i]);
            energy += x[i] * x[i];
        }
    }
    drop(&f);
    return noise / energy;
}

static void the_noise_of_gaussian_vectors_is_the_published_one(void **state) {
    (void)state;
    int n_wrong = 0;
    for (size_t i = 0; i < N_FORMAT; i++) {
        double mse = relative_mse(formats[i].name, 128, 8192), committed = mse / pow(10, -formats[i].committed / 10);
        double promised = formats[i].promised > 0 ? mse / pow(10, -formats[i].promised / 10) : 1;
        print_message("%s: %.2f dB; the noise is %.4f of the committed, %.4f of the promised\n", formats[i].name,
                      -10 * log10(mse), committed, promised);
        n_wrong += !(promised < 1.01);
        n_wrong += !(fabs(committed - 1) < 0.01);
    }
    assert_int_equal(n_wrong, 0);
}

/* Other lengths: within a tenth of the noise at 128 for books (the scale follows the rms); integers follow the largest element.
 */
static void the_noise_hardly_depends_on_head_dim(void **state) {
    (void)state;
    int n_wrong = 0;
    for (size_t i = 0; i < N_FORMAT; i++) {
        double at128 = relative_mse(formats[i].name, 128, 2048), most = formats[i].name[0] == 'i' ? 1.3 : 1.1;
        for (size_t j = 0; j < N_DIM; j++) {
            double ratio = relative_mse(formats[i].name, dims[j], 2048) / at128;
            if (ratio < most && ratio > 1 / most) continue;
            print_message("%s, head_dim %d: %.3f times the noise at 128\n", formats[i].name, dims[j], ratio);
            n_wrong++;
        }
    }
    assert_int_equal(n_wrong, 0);
}

static void bits_are_those_of_the_layout(void **state) {
    (void)state;
    for (size_t i = 0; i < N_FORMAT; i++) {
        kvant_format f;
        assert_int_equal(kvant_format_parse(formats[i].name, &f, NULL), KVANT_OK);
        assert_true(kvant_format_bits(&f, 128) == formats[i].bits);
    }
}

/* The noise does not depend on how large a vector is, from 2^-14 to 2^12: the scale keeps its bits. */
static void vectors_of_all_sizes_lose_alike(void **state) {
    (void)state;
    const kvant_kernels *k = kvant_kernels_for(KVANT_ISA_BEST);
    for (size_t i = 0; i < N_FORMAT; i++) {
        fixture f = make(formats[i].name, KVANT_SIDE_V, 128);
        float unit[128], x[128], y[128];
        double first = 0;
        for (int e = 0; e < 128; e++)
            unit[e] = random_normal();
        for (int power = 0; power <= 14; power++)
            for (int sign = -1; sign <= (power <= 12); sign += 2) {
                double noise = 0;
                for (int e = 0; e < 128; e++)
                    x[e] = ldexpf(unit[e], sign * power);
                f.part.codec->encode(&f.part, f.bytes, 7, x, k);
                f.part.codec->decode(&f.part, f.bytes, 7, y, k);
                for (int e = 0; e < 128; e++)
                    noise += (x[e] - y[e]) * (x[e] - y[e]);
                noise = ldexp(noise, -2 * sign * power);
                if (power == 0) first = noise;
                if (!(noise < 1.05 * first))
                    fail_msg("%s at 2^%d: noise %g, at 1 %g", formats[i].name, sign * power, noise, first);
            }
        drop(&f);
    }
}

static void fill(float *x, int d, int kind) {
    static const float hostile[] = {INFINITY, -INFINITY, NAN, 1e30f, -1e30f, 3e38f, 1e-40f, -1e-45f, 0, -0.0f, 1e-20f, 65504};
    for (int i = 0; i < d; i++)
        x[i] = kind == 0 ? random_normal() : next_random() % (unsigned)(kind + 1) ? hostile[kind % 12] : random_normal();
    if (kind > 20) /* everything at once */
        for (int i = 0; i < d; i++)
            x[i] = hostile[next_random() % 12];
}

static void bytes_do_not_depend_on_the_kernels(void **state) {
    (void)state;
    int n_level = 0;
    for (int isa = KVANT_ISA_AVX2; isa <= KVANT_ISA_AVX512; isa++) {
        const kvant_kernels *fast = kvant_kernels_for((kvant_isa)isa), *ref = kvant_kernels_for(KVANT_ISA_REF);
        if (!fast) {
            print_message("skipped: this machine has no %s\n", kvant_isa_name((kvant_isa)isa));
            continue;
        }
        n_level++;
        for (size_t i = 0; i < N_FORMAT; i++)
            for (size_t j = 0; j < N_DIM; j++) {
                int d = dims[j];
                fixture a = make(formats[i].name, KVANT_SIDE_K, d), b = make(formats[i].name, KVANT_SIDE_K, d);
                float x[KVANT_HEAD_DIM_MAX], y[KVANT_HEAD_DIM_MAX], z[KVANT_HEAD_DIM_MAX];
                for (int t = 0; t < 3 * TOKENS; t++) {
                    fill(x, d, t % 3 ? 0 : t / 3 % 30);
                    a.part.codec->encode(&a.part, a.bytes, t % TOKENS, x, fast);
                    b.part.codec->encode(&b.part, b.bytes, t % TOKENS, x, ref);
                    a.part.codec->decode(&a.part, a.bytes, t % TOKENS, y, fast);
                    a.part.codec->decode(&a.part, a.bytes, t % TOKENS, z, ref);
                    assert_memory_equal(y, z, (size_t)d * sizeof *y);
                    if (t % TOKENS == TOKENS - 1 && memcmp(a.bytes, b.bytes, a.part.bytes) != 0)
                        fail_msg("%s, head_dim %d: bytes differ", formats[i].name, d);
                }
                drop(&a);
                drop(&b);
            }
    }
    if (n_level == 0) skip();
}

static void a_slot_changes_no_other(void **state) {
    (void)state;
    const kvant_kernels *k = kvant_kernels_for(KVANT_ISA_BEST);
    for (size_t i = 0; i < N_FORMAT; i++)
        for (size_t j = 0; j < N_DIM; j++) {
            int d = dims[j];
            fixture f = make(formats[i].name, KVANT_SIDE_V, d), alone = make(formats[i].name, KVANT_SIDE_V, d);
            static float x[TOKENS][KVANT_HEAD_DIM_MAX];
            float y[KVANT_HEAD_DIM_MAX], z[KVANT_HEAD_DIM_MAX];
            for (int step = 0; step < 3 * TOKENS; step++) { /* in any order, and again */
                int slot = step < TOKENS ? (37 * step) % TOKENS : (int)(next_random() % TOKENS);
                fill(x[slot], d, 0);
                f.part.codec->encode(&f.part, f.bytes, slot, x[slot], k);
            }
            for (int t = 0; t < TOKENS; t++) { /* each as if it had been written alone into another slot */
                int other = (t + 13) % TOKENS;
                alone.part.codec->encode(&alone.part, alone.bytes, other, x[t], k);
                f.part.codec->decode(&f.part, f.bytes, t, y, k);
                alone.part.codec->decode(&alone.part, alone.bytes, other, z, k);
                assert_memory_equal(y, z, (size_t)d * sizeof *y);
            }
            drop(&f);
            drop(&alone);
        }
}

/* What was decoded stays when it is encoded again, but for the rounding of the scale: no drift. */
static void decoded_vectors_are_nearly_fixed_points(void **state) {
    (void)state;
    const kvant_kernels *k = kvant_kernels_for(KVANT_ISA_BEST);
    for (size_t i = 0; i < N_FORMAT; i++) {
        fixture f = make(formats[i].name, KVANT_SIDE_K, 128);
        double first = 0, again = 0;
        for (int t = 0; t < 256; t++) {
            float x[128], y[128], z[128];
            fill(x, 128, 0);
            f.part.codec->encode(&f.part, f.bytes, 3, x, k);
            f.part.codec->decode(&f.part, f.bytes, 3, y, k);
            f.part.codec->encode(&f.part, f.bytes, 3, y, k);
            f.part.codec->decode(&f.part, f.bytes, 3, z, k);
            for (int e = 0; e < 128; e++) {
                first += (x[e] - y[e]) * (x[e] - y[e]);
                again += (y[e] - z[e]) * (y[e] - z[e]);
            }
        }
        print_message("%s: encoding again adds %.4f of the noise\n", formats[i].name, again / first);
        assert_true(again < 0.04 * first);
        drop(&f);
    }
}

static bool all_finite(const float *x, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!isfinite(x[i])) return false;
    return true;
}

typedef struct columns {
    int n, d;
    float *x, *scale, *scores, *weights, *acc;
    int16_t *q16;
} columns;

static columns make_columns(int n, int d, const kvant_kernels *k) {
    size_t rows = (size_t)n, cells = rows * (size_t)d;
    columns c = {n,
                 d,
                 kvant_alloc_aligned(cells, 4),
                 kvant_alloc_aligned(rows, 4),
                 kvant_alloc_aligned(rows * TOKENS, 4),
                 kvant_alloc_aligned(rows * TOKENS, 4),
                 kvant_alloc_aligned(cells, 4),
                 kvant_alloc_aligned(cells, 2)};
    for (size_t i = 0; i < cells; i++)
        c.x[i] = random_normal();
    for (size_t i = 0; i < rows; i++)
        c.scale[i] = k->quantize_q16(c.q16 + i * (size_t)d, c.x + i * (size_t)d, d);
    for (size_t i = 0; i < rows * TOKENS; i++) /* flat columns and sharp ones */
        c.weights[i] = expf((float)(i / TOKENS % 4) * (random_normal() - 3));
    return c;
}

static void drop_columns(columns *c) {
    kvant_free_aligned(c->x);
    kvant_free_aligned(c->scale);
    kvant_free_aligned(c->scores);
    kvant_free_aligned(c->weights);
    kvant_free_aligned(c->acc);
    kvant_free_aligned(c->q16);
}

/* Columns [first, first + n). */
static void score(const fixture *f, columns *c, int first, int n, float *scores, const kvant_kernels *k) {
    size_t at = (size_t)first * (size_t)c->d;
    kvant_query q = {
        .n = n, .head_dim = c->d, .x = c->x + at, .form = KVANT_QUERY_Q16, .q16 = c->q16 + at, .q16_scale = c->scale + first};
    kvant_codec_scratch s = f->scratch;
    f->part.codec->score(&f->part, f->bytes, &q, scores, k, &s);
}

static void hostile_vectors_give_finite_numbers(void **state) {
    (void)state;
    for (size_t i = 0; i < N_FORMAT; i++)
        for (size_t j = 0; j < N_DIM; j++)
            for (int level = 0; level < 2; level++) {
                const kvant_kernels *k = kvant_kernels_for(level ? KVANT_ISA_BEST : KVANT_ISA_REF);
                int d = dims[j];
                fixture f = make(formats[i].name, KVANT_SIDE_K, d);
                columns c = make_columns(4, d, k);
                float x[KVANT_HEAD_DIM_MAX], y[KVANT_HEAD_DIM_MAX];
                for (int t = 0; t < TOKENS; t++) {
                    fill(x, d, 1 + t % 30);
                    f.part.codec->encode(&f.part, f.bytes, t, x, k);
                    f.part.codec->decode(&f.part, f.bytes, t, y, k);
                    if (!all_finite(y, (size_t)d)) fail_msg("%s, head_dim %d, vector %d", formats[i].name, d, t);
                }
                score(&f, &c, 0, 4, c.scores, k);
                assert_true(all_finite(c.scores, 4 * TOKENS));
                memset(c.acc, 0, 4 * (size_t)d * sizeof *c.acc);
                f.part.codec->mix(&f.part, f.bytes, c.weights, 4, false, c.acc, (size_t)d, k, &f.scratch);
                assert_true(all_finite(c.acc, 4 * (size_t)d));
                memset(x, 0, sizeof x); /* nothing is nothing */
                f.part.codec->encode(&f.part, f.bytes, 1, x, k);
                f.part.codec->decode(&f.part, f.bytes, 1, y, k);
                for (int e = 0; e < d; e++)
                    assert_true(y[e] == 0);
                drop_columns(&c);
                drop(&f);
            }
}

/* A scale has a largest value: beyond, elements keep their signs and are as large as the format can say. */
static void vectors_too_large_keep_their_signs(void **state) {
    (void)state;
    const kvant_kernels *k = kvant_kernels_for(KVANT_ISA_BEST);
    for (size_t i = 0; i < N_FORMAT; i++) {
        fixture f = make(formats[i].name, KVANT_SIDE_V, 128);
        float x[128], y[128];
        for (int e = 0; e < 128; e++)
            x[e] = 1e15f * random_normal();
        f.part.codec->encode(&f.part, f.bytes, 9, x, k);
        f.part.codec->decode(&f.part, f.bytes, 9, y, k);
        for (int e = 0; e < 128; e++)
            if (fabsf(x[e]) > 1e15f && !(x[e] > 0 ? y[e] > 1000 : y[e] < -1000))
                fail_msg("%s: found %g for %g", formats[i].name, (double)y[e], (double)x[e]);
        drop(&f);
    }
}

static void an_empty_page_scores_and_mixes_nothing(void **state) {
    (void)state;
    const kvant_kernels *k = kvant_kernels_for(KVANT_ISA_BEST);
    for (size_t i = 0; i < N_FORMAT; i++) {
        fixture f = make(formats[i].name, KVANT_SIDE_K, 96);
        columns c = make_columns(2, 96, k);
        score(&f, &c, 0, 2, c.scores, k);
        memset(c.acc, 0, 2 * 96 * sizeof *c.acc);
        f.part.codec->mix(&f.part, f.bytes, c.weights, 2, true, c.acc, 96, k, &f.scratch);
        for (int t = 0; t < 2 * TOKENS; t++)
            assert_true(c.scores[t] == 0);
        for (int e = 0; e < 2 * 96; e++)
            assert_true(c.acc[e] == 0);
        drop_columns(&c);
        drop(&f);
    }
}

/* Largest error of a score and of a mixed vector, relative to the lengths of what is multiplied. */
static void errors_of(const columns *c, const float *y, double *score_error, double *mix_error) {
    int d = c->d;
    *score_error = *mix_error = 0;
    for (int q = 0; q < c->n; q++) {
        const float *x = c->x + q * d, *w = c->weights + q * TOKENS;
        double weight = 0, square = 0;
        for (int t = 0; t < TOKENS; t++) {
            double dot = 0, xx = 0, yy = 0;
            for (int e = 0; e < d; e++) {
                dot += (double)x[e] * y[t * d + e];
                xx += (double)x[e] * x[e];
                yy += (double)y[t * d + e] * y[t * d + e];
            }
            double error = fabs(c->scores[q * TOKENS + t] - dot) / sqrt(xx * yy);
            weight += w[t] * sqrt(yy);
            if (!(error <= *score_error)) *score_error = error;
        }
        for (int e = 0; e < d; e++) {
            double sum = 0;
            for (int t = 0; t < TOKENS; t++)
                sum += (double)w[t] * y[t * d + e];
            square += (c->acc[q * d + e] - sum) * (c->acc[q * d + e] - sum);
        }
        if (!(sqrt(square) / weight <= *mix_error)) *mix_error = sqrt(square) / weight;
    }
}

static void scores_and_mixes_are_those_of_the_decoded_vectors(void **state) {
    (void)state;
    const kvant_kernels *k = kvant_kernels_for(KVANT_ISA_BEST), *ref = kvant_kernels_for(KVANT_ISA_REF);
    static float y[TOKENS * 256], scores[KVANT_QUERY_MAX * TOKENS], acc[KVANT_QUERY_MAX * 256];
    for (size_t i = 0; i < N_FORMAT; i++) {
        double worst_score = 0, worst_mix = 0;
        for (size_t j = 0; j < N_DIM; j++) {
            int d = dims[j];
            size_t stride = (size_t)d;
            fixture f = make(formats[i].name, KVANT_SIDE_K, d);
            columns c = make_columns(KVANT_QUERY_MAX, d, k);
            for (int t = 0; t < TOKENS; t++) {
                float x[KVANT_HEAD_DIM_MAX];
                fill(x, d, 0);
                f.part.codec->encode(&f.part, f.bytes, t, x, k);
                f.part.codec->decode(&f.part, f.bytes, t, y + t * d, k);
            }
            score(&f, &c, 0, KVANT_QUERY_MAX, c.scores, k);
            memset(c.acc, 0, KVANT_QUERY_MAX * stride * sizeof *acc);
            f.part.codec->mix(&f.part, f.bytes, c.weights, KVANT_QUERY_MAX, false, c.acc, stride, k, &f.scratch);
            double score_error, mix_error;
            errors_of(&c, y, &score_error, &mix_error);
            worst_score = fmax(worst_score, score_error);
            worst_mix = fmax(worst_mix, mix_error);
            /* Any number of columns, from any place, with any kernels: the same bits. */
            for (int n = 1; n <= KVANT_QUERY_MAX; n++) {
                int first = (int)(next_random() % (unsigned)(KVANT_QUERY_MAX - n + 1));
                const kvant_kernels *which = n % 8 == 0 ? ref : k;
                score(&f, &c, first, n, scores, which);
                memset(acc, 0, (size_t)n * stride * sizeof *acc);
                f.part.codec->mix(&f.part, f.bytes, c.weights + first * TOKENS, n, n % 2, acc, stride, which, &f.scratch);
                assert_memory_equal(scores, c.scores + first * TOKENS, (size_t)n * TOKENS * sizeof *scores);
                assert_memory_equal(acc, c.acc + (size_t)first * stride, (size_t)n * stride * sizeof *acc);
            }
            drop_columns(&c);
            drop(&f);
        }
        print_message("%s: errors of scores %.1e, of mixes %.1e\n", formats[i].name, worst_score, worst_mix);
        assert_true(worst_score < 1e-4);
        assert_true(worst_mix < 1e-4);
    }
}

static void lengths_that_do_not_fit_are_refused(void **state) {
    (void)state;
    static const int wrong[] = {8, 72, 120, 520, 1024};
    for (size_t i = 0; i < N_FORMAT; i++)
        for (size_t j = 0; j < sizeof wrong / sizeof *wrong; j++) {
            kvant_format f;
            kvant_error err = {0};
            assert_int_equal(kvant_format_parse(formats[i].name, &f, NULL), KVANT_OK);
            assert_int_equal(kvant_format_check(&f, wrong[j], &err), KVANT_EUNSUPPORTED);
            assert_non_null(strstr(err.message, formats[i].name));
            assert_non_null(strstr(err.message, "f16"));
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_noise_of_gaussian_vectors_is_the_published_one),
        cmocka_unit_test(the_noise_hardly_depends_on_head_dim),
        cmocka_unit_test(bits_are_those_of_the_layout),
        cmocka_unit_test(vectors_of_all_sizes_lose_alike),
        cmocka_unit_test(bytes_do_not_depend_on_the_kernels),
        cmocka_unit_test(a_slot_changes_no_other),
        cmocka_unit_test(decoded_vectors_are_nearly_fixed_points),
        cmocka_unit_test(hostile_vectors_give_finite_numbers),
        cmocka_unit_test(vectors_too_large_keep_their_signs),
        cmocka_unit_test(an_empty_page_scores_and_mixes_nothing),
        cmocka_unit_test(scores_and_mixes_are_those_of_the_decoded_vectors),
        cmocka_unit_test(lengths_that_do_not_fit_are_refused),
    };
    print_message("seed %u\n", SEED);
    return cmocka_run_group_tests_name("codec levels", tests, NULL, NULL);
}
