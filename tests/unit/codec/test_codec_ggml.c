// SPDX-License-Identifier: MIT
/* test_codec_ggml.c: llama.cpp's cache formats hold the bytes that ggml's own tools make, read them as those do, cost the bits
 * they say, ask for llama.cpp's rotation, stay finite, and attend to what they decode to.
 *
 * The golden blocks are gguf-py's (scripts/make_ggml_golden.py), which is not this implementation. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/half.h"
#include "base/memory.h"
#include "codec/codec.h"
#include "kernel/kernel_table.h"

#define COLUMNS 128
#define N_FORMAT 5

static const char *const names[N_FORMAT] = {"q8_0", "q5_1", "q5_0", "q4_1", "q4_0"}; /* in the order of ggml.bin */
static uint64_t seed = 7;

static float random_normal(void) {
    float sum = 0;
    for (int i = 0; i < 4; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        sum += (float)(seed >> 40) / 16777216.0f - 0.5f;
    }
    return sum * 1.7f;
}

static kvant_format format_of(const char *name) {
    kvant_format f;
    assert_int_equal(kvant_format_parse(name, &f, NULL), KVANT_OK);
    return f;
}

static uint8_t *create_part(const kvant_format *f, kvant_side side, int head_dim, kvant_part *part) {
    *part = kvant_part_make(f, side, head_dim);
    uint8_t *bytes = kvant_alloc_aligned(part->bytes, 1);
    assert_non_null(bytes);
    memset(bytes, 0, part->bytes);
    return bytes;
}

static uint8_t *read_golden(size_t *size) {
    FILE *file = fopen(KVANT_SOURCE "/tests/golden/ggml/ggml.bin", "rb");
    assert_non_null(file);
    uint8_t *data = malloc(1 << 20);
    assert_non_null(data);
    *size = fread(data, 1, 1 << 20, file);
    fclose(file);
    assert_true(*size > 4 && *size < 1 << 20);
    return data;
}

/* Slots are rows of blocks one after another, so a part begins with the golden bytes. */
static void blocks_and_values_are_those_of_ggml(void **state) {
    (void)state;
    const kvant_kernels *k = kvant_kernels_for(KVANT_ISA_BEST);
    size_t size;
    uint8_t *data = read_golden(&size);
    int rows = (int)kvant_read_u32(data);
    const uint8_t *x = data + 4, *p = x + (size_t)rows * COLUMNS * 4;
    assert_true(rows > 0 && rows <= KVANT_PAGE_TOKENS);
    for (int i = 0; i < 2 * N_FORMAT; i++) {
        kvant_format f = format_of(names[i / 2]);
        kvant_part part;
        uint8_t *bytes = create_part(&f, i % 2 ? KVANT_SIDE_V : KVANT_SIDE_K, COLUMNS, &part);
        size_t row = part.bytes / KVANT_PAGE_TOKENS, n = (size_t)rows * row;
        assert_true(p + n + (size_t)rows * COLUMNS * 4 <= data + size);
        for (int r = rows - 1; r >= 0; r--) {
            float v[COLUMNS];
            for (int e = 0; e < COLUMNS; e++)
                v[e] = kvant_bits_f32(kvant_read_u32(x + 4 * (r * COLUMNS + e)));
            part.codec->encode(&part, bytes, r, v, k);
        }
        for (size_t b = 0; b < n; b++)
            if (bytes[b] != p[b])
                fail_msg("%s: row %zu, byte %zu: found %02x, expected %02x", names[i / 2], b / row, b % row, bytes[b], p[b]);
        for (size_t b = n; b < part.bytes; b++)
            assert_int_equal(bytes[b], 0);
        for (int r = 0; r < rows; r++) {
            float v[COLUMNS];
            part.codec->decode(&part, bytes, r, v, k);
            for (int e = 0; e < COLUMNS; e++)
                assert_true(v[e] == kvant_bits_f32(kvant_read_u32(p + n + 4 * (size_t)(r * COLUMNS + e))));
        }
        if (i % 2) p += n + (size_t)rows * COLUMNS * 4;
        kvant_free_aligned(bytes);
    }
    assert_ptr_equal(p, data + size);
    free(data);
}

static void bits_are_those_of_ggml(void **state) {
    (void)state;
    static const double bits[N_FORMAT] = {8.5, 6, 5.5, 5, 4.5};
    for (int i = 0; i < N_FORMAT; i++) {
        kvant_format f = format_of(names[i]);
        for (int d = 32; d <= 512; d += 32)
            assert_true(kvant_format_bits(&f, d) == bits[i]);
    }
}

static void heads_that_blocks_of_32_do_not_divide_are_refused(void **state) {
    (void)state;
    static const int wrong[] = {8, 16, 48, 80, 544};
    for (int i = 0; i < N_FORMAT; i++)
        for (size_t j = 0; j < sizeof wrong / sizeof wrong[0]; j++) {
            kvant_format f = format_of(names[i]);
            kvant_error err = {0};
            assert_int_equal(kvant_format_check(&f, wrong[j], &err), KVANT_EUNSUPPORTED);
            assert_non_null(strstr(err.message, names[i]));
            assert_non_null(strstr(err.message, "f16"));
        }
}

static void the_rotation_is_that_of_llama_cpp(void **state) {
    (void)state;
    static const struct {
        int head_dim, k, v;
    } cases[] = {{32, 0, 0}, {64, 64, 64}, {96, 0, 0}, {128, 128, 64}, {192, 64, 64}, {256, 256, 64}, {320, 64, 64}, {512, 512, 64}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        kvant_format f = format_of(names[i % N_FORMAT]);
        const kvant_codec *c = kvant_codec_find(f.codec);
        kvant_rotation k = c->rotation(&f, KVANT_SIDE_K, cases[i].head_dim), v = c->rotation(&f, KVANT_SIDE_V, cases[i].head_dim);
        assert_int_equal(k.block, cases[i].k);
        assert_int_equal(v.block, cases[i].v);
        assert_false(k.signs || v.signs);
    }
}

static void only_bare_keys_are_not_centred(void **state) {
    (void)state;
    kvant_format k, v;
    assert_int_equal(kvant_format_parse_pair("q4_0.bare", &k, &v, NULL), KVANT_OK);
    assert_false(kvant_format_is_centred(&k));
    assert_false(kvant_format_is_own(&k)); /* so the first tokens are stored like the others */
    k = format_of("q4_0");
    assert_true(kvant_format_is_centred(&k));
}

static void what_no_half_can_hold_is_stored_as_the_nearest(void **state) {
    (void)state;
    const float hostile[] = {INFINITY, -INFINITY, NAN, 1e30f, -1e30f, 65520, 1e-40f, -1e-45f, 3e-39f, -0.0f, 65504, -65504, 6e-8f};
    for (size_t i = 0; i < N_FORMAT * sizeof hostile / sizeof hostile[0]; i++) {
        kvant_format f = format_of(names[i % N_FORMAT]);
        kvant_part part;
        uint8_t *bytes = create_part(&f, KVANT_SIDE_K, COLUMNS, &part);
        float x[COLUMNS], y[COLUMNS], h = hostile[i / N_FORMAT];
        for (int e = 0; e < COLUMNS; e++) /* block 0 mixed with normals, block 1 mixed with its negative, the others alone */
            x[e] = e < 32 && e % 3 == 0 ? random_normal() : e >= 32 && e < 64 && e % 2 ? -h : h;
        part.codec->encode(&part, bytes, 9, x, kvant_kernels_for(KVANT_ISA_BEST));
        part.codec->decode(&part, bytes, 9, y, kvant_kernels_for(KVANT_ISA_BEST));
        for (int e = 0; e < COLUMNS; e++) {
            assert_true(isfinite(y[e]) && fabsf(y[e]) <= 65600);
            if (isinf(h) && e >= 64) assert_true(fabsf(y[e]) > 65400 && signbit(y[e]) == signbit(h));
            if (isnan(h) && e >= 64) assert_true(y[e] == 0);
        }
        kvant_free_aligned(bytes);
    }
}

static void a_slot_is_written_alone_and_again(void **state) {
    (void)state;
    for (int i = 0; i < N_FORMAT; i++) {
        kvant_format f = format_of(names[i]);
        kvant_part part;
        uint8_t *once = create_part(&f, KVANT_SIDE_V, 96, &part), *often = create_part(&f, KVANT_SIDE_V, 96, &part);
        static float x[64][96];
        memset(x, 0, sizeof x);
        for (int slot = 0; slot < 64; slot++)
            part.codec->encode(&part, often, slot, x[slot], kvant_kernels_for(KVANT_ISA_REF));
        for (int step = 0; step < 150; step++) {
            seed = seed * 6364136223846793005u + 1;
            int slot = (int)(seed >> 58);
            for (int e = 0; e < 96; e++)
                x[slot][e] = random_normal();
            part.codec->encode(&part, often, slot, x[slot], kvant_kernels_for(step % 2 ? KVANT_ISA_REF : KVANT_ISA_BEST));
        }
        for (int slot = 0; slot < 64; slot++)
            part.codec->encode(&part, once, slot, x[slot], kvant_kernels_for(KVANT_ISA_REF));
        assert_memory_equal(once, often, part.bytes);
        kvant_free_aligned(once);
        kvant_free_aligned(often);
    }
}

/* Scores and mixes of random pages against sums in float64 of what the slots decode to. */
static void attend_to_a_page(const char *name, int d, int n) {
    const kvant_kernels *k = kvant_kernels_for(KVANT_ISA_BEST);
    kvant_format f = format_of(name);
    kvant_part part[2];
    kvant_codec_scratch s;
    assert_int_equal(kvant_codec_scratch_create(d, &s), KVANT_OK);
    uint8_t *bytes[2] = {create_part(&f, KVANT_SIDE_K, d, &part[0]), create_part(&f, KVANT_SIDE_V, d, &part[1])};
    float *x = calloc((size_t)(64 * d), sizeof *x), *q = calloc((size_t)(n * d), sizeof *q), *w = calloc((size_t)(n * 64), sizeof *w),
          *scores = calloc((size_t)(n * 64), sizeof *scores), *acc = calloc((size_t)(n * d), sizeof *acc);
    for (int t = 0; t < 64; t++) {
        float row[KVANT_HEAD_DIM_MAX];
        for (int e = 0; e < d; e++)
            row[e] = random_normal() + 1;
        part[0].codec->encode(&part[0], bytes[0], t, row, k);
        part[1].codec->encode(&part[1], bytes[1], t, row, k);
        part[0].codec->decode(&part[0], bytes[0], t, x + t * d, k);
    }
    for (int i = 0; i < n * d; i++) {
        q[i] = random_normal();
        acc[i] = (float)(i % 3); /* mixes are added */
    }
    for (int i = 0; i < n * 64; i++) {
        w[i] = random_normal();
        scores[i] = NAN; /* scores are written */
    }
    kvant_query query = {.n = n, .head_dim = d, .x = q, .form = part[0].codec->form(&f)};
    assert_int_equal(query.form, KVANT_QUERY_FLOAT);
    part[0].codec->score(&part[0], bytes[0], &query, scores, k, &s);
    part[1].codec->mix(&part[1], bytes[1], w, n, false, acc, (size_t)d, k, &s);
    for (int i = 0; i < n * 64; i++) {
        double sum = 0;
        for (int e = 0; e < d; e++)
            sum += (double)q[i / 64 * d + e] * x[i % 64 * d + e];
        if (!(fabs(scores[i] - sum) < 1e-4)) fail_msg("%s: score %d: found %g, expected %g", name, i, (double)scores[i], sum);
    }
    for (int i = 0; i < n * d; i++) {
        double sum = i % 3;
        for (int t = 0; t < 64; t++)
            sum += (double)w[i / d * 64 + t] * x[t * d + i % d];
        if (!(fabs(acc[i] - sum) < 1e-4)) fail_msg("%s: mix %d: found %g, expected %g", name, i, (double)acc[i], sum);
    }
    float *rows[] = {x, q, w, scores, acc};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        free(rows[i]);
    kvant_free_aligned(bytes[0]);
    kvant_free_aligned(bytes[1]);
    kvant_codec_scratch_destroy(&s);
}

static void attention_is_that_of_the_decoded_vectors(void **state) {
    (void)state;
    static const int head_dims[] = {32, 64, 96, 128, 512};
    for (int i = 0; i < N_FORMAT; i++)
        for (size_t j = 0; j < sizeof head_dims / sizeof head_dims[0]; j++)
            attend_to_a_page(names[i], head_dims[j], 1 + (int)j * 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_and_values_are_those_of_ggml),
        cmocka_unit_test(bits_are_those_of_ggml),
        cmocka_unit_test(heads_that_blocks_of_32_do_not_divide_are_refused),
        cmocka_unit_test(the_rotation_is_that_of_llama_cpp),
        cmocka_unit_test(only_bare_keys_are_not_centred),
        cmocka_unit_test(what_no_half_can_hold_is_stored_as_the_nearest),
        cmocka_unit_test(a_slot_is_written_alone_and_again),
        cmocka_unit_test(attention_is_that_of_the_decoded_vectors),
    };
    print_message("seed %llu\n", (unsigned long long)seed);
    return cmocka_run_group_tests_name("codec_ggml", tests, NULL, NULL);
}
