// SPDX-License-Identifier: MIT
/* check_levels.c: checks of the kernels of row formats: rows of codes, products with levels, 16-bit vectors, the rotation and
 * the search for books.
 *
 * Codes are packed here from the words of the contract, and sums are taken in 64 bits, so that the reference is tested too. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "kernel_test.h"

#define MAX_D 512
#define MAX_ROWS 64
#define COUNT(a) ((int)(sizeof(a) / sizeof((a)[0])))

enum { ORDINARY, HARD, WITH_SPECIALS, ANY_BITS, N_KINDS };

static float *floats(int slot, size_t n, int kind, float magnitude) {
    float *x = guarded(slot, n * sizeof *x);
    for (size_t i = 0; i < n; i++) {
        uint32_t r = random_u32() % 16;
        switch (kind) {
        case HARD: x[i] = random_hard_float(); break;
        case ANY_BITS: x[i] = kvant_bits_f32(random_u32()); break;
        case WITH_SPECIALS:
            x[i] = r == 0 ? INFINITY : r == 1 ? -INFINITY : r == 2 ? NAN : random_float(magnitude);
            break;
        default: x[i] = random_float(magnitude);
        }
    }
    return x;
}

/* ---- rows of codes ---- */

typedef void (*levels_fn)(int8_t *levels, const kvant_level_rows *rows);

/* Puts bits `at`.. of the codes into a plane of 4, 2 or 1 bits. */
static const uint8_t *pack_plane(int slot, const uint8_t *codes, int n, int bits, int at) {
    uint8_t *plane = guarded(slot, (size_t)n / 8 * (size_t)bits);
    memset(plane, 0, (size_t)n / 8 * (size_t)bits);
    for (int i = 0; i < n; i++) {
        uint8_t *half = plane + i / 16 * 2 * bits;
        int j = i % 16, code = codes[i] >> at & ((1 << bits) - 1);
        if (bits == 4) half[j % 8] |= (uint8_t)(code << (j < 8 ? 0 : 4));
        if (bits == 2) half[j % 4] |= (uint8_t)(code << 2 * (j / 4));
        if (bits == 1) half[j / 8] |= (uint8_t)(code << j % 8);
    }
    return plane;
}

static void check_rows(levels_fn ref, levels_fn got, int bits, int d, int n, int block, bool has_selectors) {
    static uint8_t codes[MAX_ROWS * MAX_D];
    static int8_t expected[MAX_ROWS * MAX_D];
    const int total = n * d, n_block = (d + block - 1) / block, selector_bytes = (n_block + 1) / 2, n_code = 1 << bits;
    for (int i = 0; i < total; i++)
        codes[i] = (uint8_t)random_between(0, n_code - 1);
    kvant_level_rows rows = {.block = block, .d = d, .n = n};
    if (bits >= 4) rows.plane4 = pack_plane(SLOT_TILE, codes, total, 4, 0);
    if (bits == 2 || bits == 3) rows.plane2 = pack_plane(SLOT_X, codes, total, 2, 0);
    if (bits == 6) rows.plane2 = pack_plane(SLOT_X, codes, total, 2, 4);
    if (bits % 2 == 1) rows.plane1 = pack_plane(SLOT_X_SUM, codes, total, 1, bits - 1);
    if (has_selectors) rows.selectors = guarded_random(SLOT_X_SCALE, (size_t)(n * selector_bytes));
    if (bits < 6) rows.books = guarded_random(SLOT_SCALE, (size_t)((has_selectors ? 16 : 1) * n_code));
    for (int i = 0; i < total; i++) {
        int b = i % d / block, book = 0;
        if (has_selectors) book = rows.selectors[i / d * selector_bytes + b / 2] >> (b % 2 ? 4 : 0) & 15;
        expected[i] = bits < 6 ? rows.books[book * n_code + codes[i]] : (int8_t)(codes[i] - 32);
    }
    int8_t *a = guarded_random(SLOT_REF, (size_t)total), *b = guarded_random(SLOT_GOT, (size_t)total);
    ref(a, &rows);
    got(b, &rows);
    const char *input = "levels%d: d %d, n %d, block %d, selectors %d";
    expect_same_bytes(expected, a, (size_t)total, input, bits, d, n, block, has_selectors);
    expect_same_bytes(expected, b, (size_t)total, input, bits, d, n, block, has_selectors);
}

static void check_levels(levels_fn ref, levels_fn got, int bits) {
    for (int d = 16; d <= MAX_D; d += 16)
        for (int variant = 0; variant < (bits == 6 ? 1 : 4); variant++) {
            const int counts[] = {1, 2, 3, MAX_ROWS, random_between(4, MAX_ROWS - 1)};
            for (int i = 0; i < COUNT(counts); i++)
                check_rows(ref, got, bits, d, counts[i], variant % 2 ? 16 : 32, variant / 2);
        }
    for (int n = 1; n <= MAX_ROWS; n++)
        check_rows(ref, got, bits, n % 2 ? 80 : 96, n, 32, bits != 6);
}

void check_levels1(const kvant_kernels *ref, const kvant_kernels *k) { check_levels(ref->levels1, k->levels1, 1); }
void check_levels2(const kvant_kernels *ref, const kvant_kernels *k) { check_levels(ref->levels2, k->levels2, 2); }
void check_levels3(const kvant_kernels *ref, const kvant_kernels *k) { check_levels(ref->levels3, k->levels3, 3); }
void check_levels4(const kvant_kernels *ref, const kvant_kernels *k) { check_levels(ref->levels4, k->levels4, 4); }
void check_levels5(const kvant_kernels *ref, const kvant_kernels *k) { check_levels(ref->levels5, k->levels5, 5); }
void check_levels6(const kvant_kernels *ref, const kvant_kernels *k) { check_levels(ref->levels6, k->levels6, 6); }

/* ---- products with levels ---- */

enum { RANDOM, LARGEST, LOWEST, ALTERNATING, N_FILLS };

static int8_t *fill_levels(int slot, int n, int fill) {
    int8_t *levels = guarded(slot, (size_t)n);
    for (int i = 0; i < n; i++)
        levels[i] = (int8_t)(fill == RANDOM ? random_between(-128, 127) : fill == LARGEST ? 127
                             : fill == LOWEST ? -128 : i % 2 ? 127 : -128);
    return levels;
}

static int16_t *fill_words(int slot, int n, int columns, int fill) {
    int16_t *q = guarded(slot, (size_t)(n * columns) * sizeof *q);
    for (int i = 0; i < n * columns; i++) {
        int sign = i / columns % 2 ? -1 : 1;
        q[i] = (int16_t)(fill == RANDOM ? random_between(-32767, 32767) : fill == ALTERNATING ? (i % 2 ? 32767 : -32767)
                         : sign * 32767);
    }
    return q;
}

static void check_score(const kvant_kernels *ref, const kvant_kernels *k, int d, int n, int fill, int kind) {
    kvant_score_levels p = {.levels = fill_levels(SLOT_TILE, MAX_ROWS * d, fill), .d = d, .n = n};
    p.q = fill_words(SLOT_X, n, d, fill);
    if (n % 2) { /* a hint changes nothing, whatever lies there */
        p.next = p.levels;
        p.next_bytes = (size_t)random_between(0, 20000);
    }
    p.row_scale = floats(SLOT_SCALE, MAX_ROWS, kind, 0.1f);
    p.q_scale = floats(SLOT_X_SCALE, (size_t)n, kind, 0.1f);
    const size_t size = (size_t)n * MAX_ROWS;
    float *a = guarded_random(SLOT_REF, size * sizeof *a), *b = guarded_random(SLOT_GOT, size * sizeof *b);
    p.scores = a;
    ref->score_levels(&p);
    p.scores = b;
    k->score_levels(&p);
    expect_same_floats(a, b, size, "score_levels: d %d, n %d, fill %d, kind %d", d, n, fill, kind);
    for (int c = 0; c < n; c++)
        for (int r = 0; r < MAX_ROWS; r += 21) {
            int64_t sum = 0;
            for (int i = 0; i < d; i++)
                sum += (int64_t)p.levels[r * d + i] * p.q[c * d + i];
            float expected = (float)sum * (p.q_scale[c] * p.row_scale[r]);
            expect_same_floats(&expected, b + c * MAX_ROWS + r, 1, "score_levels, row %d: d %d, n %d, fill %d", r, d, n, fill);
        }
}

static void check_mix(const kvant_kernels *ref, const kvant_kernels *k, int d, int n, int fill, int kind) {
    const size_t stride = (size_t)(d + random_between(0, 1) * 5), size = (size_t)(n - 1) * stride + (size_t)d;
    kvant_mix_levels p = {.levels = fill_levels(SLOT_TILE, MAX_ROWS * d, fill), .d = d, .n = n, .acc_stride = stride};
    if (n % 2) {
        p.next = p.levels;
        p.next_bytes = (size_t)random_between(0, 20000);
    }
    p.w = fill_words(SLOT_X, n, MAX_ROWS, fill);
    p.w_scale = floats(SLOT_X_SCALE, (size_t)n, kind, 0.1f);
    float *a = floats(SLOT_REF, size, kind, 1000.0f), *b = guarded(SLOT_GOT, size * sizeof *b);
    float *before = guarded(SLOT_REF2, size * sizeof *before);
    memcpy(b, a, size * sizeof *b);
    memcpy(before, a, size * sizeof *b);
    p.acc = a;
    ref->mix_levels(&p);
    p.acc = b;
    k->mix_levels(&p);
    expect_same_floats(a, b, size, "mix_levels: d %d, n %d, fill %d, kind %d", d, n, fill, kind);
    for (int c = 0; c < n; c++)
        for (int i = 0; i < d; i += 13) {
            int64_t sum = 0;
            for (int r = 0; r < MAX_ROWS; r++)
                sum += (int64_t)p.w[c * MAX_ROWS + r] * p.levels[r * d + i];
            size_t at = (size_t)c * stride + (size_t)i;
            float expected = fmaf((float)sum, p.w_scale[c], before[at]);
            expect_same_floats(&expected, b + at, 1, "mix_levels, element %d: d %d, n %d, fill %d", i, d, n, fill);
        }
}

/* Queries as quantize_pairs may make them, at their limits: neighbours of one sign are 128 together. */
static int8_t *fill_pairs(int slot, int n, int fill) {
    int8_t *q = guarded(slot, (size_t)n);
    for (int i = 0; i < n; i += 2) {
        int sum = 128, first = random_between(1, 127), sign = random_u32() % 2 ? 1 : -1;
        if (fill == RANDOM) sum = random_between(first, 128);
        q[i] = (int8_t)(sign * first);
        q[i + 1] = (int8_t)(sign * (sum - first));
        if (fill == ALTERNATING) {
            q[i] = (int8_t)(127 * sign);
            q[i + 1] = (int8_t)(-127 * sign);
        }
    }
    return q;
}

static void expect_byte_scores(const kvant_score_bytes *p, const int8_t *levels, const float *scores, const char *what) {
    for (int c = 0; c < p->n; c++)
        for (int r = 0; r < MAX_ROWS; r += 21) {
            int64_t sum = 0;
            for (int i = 0; i < p->d; i++)
                sum += (int64_t)levels[r * p->d + i] * p->q[c * p->d + i];
            float expected = (float)sum * (p->q_scale[c] * p->row_scale[r]);
            expect_same_floats(&expected, scores + c * MAX_ROWS + r, 1, "%s, row %d: d %d, n %d", what, r, p->d, p->n);
        }
}

static kvant_score_bytes make_byte_query(int d, int n, int fill, int kind) {
    kvant_score_bytes p = {.d = d, .n = n};
    p.q = fill_pairs(SLOT_X, n * d, fill);
    p.row_scale = floats(SLOT_REF2, MAX_ROWS, kind, 0.1f);
    p.q_scale = floats(SLOT_X_SCALE, (size_t)n, kind, 0.1f);
    return p;
}

static void check_bytes(const kvant_kernels *ref, const kvant_kernels *k, int d, int n, int fill, int kind) {
    kvant_score_bytes p = make_byte_query(d, n, fill, kind);
    p.levels = fill_levels(SLOT_TILE, MAX_ROWS * d, fill);
    if (n % 2) {
        p.next = p.levels;
        p.next_bytes = (size_t)random_between(0, 20000);
    }
    const size_t size = (size_t)n * MAX_ROWS;
    float *a = guarded_random(SLOT_REF, size * sizeof *a), *b = guarded_random(SLOT_GOT, size * sizeof *b);
    p.scores = a;
    ref->score_bytes(&p);
    p.scores = b;
    k->score_bytes(&p);
    expect_same_floats(a, b, size, "score_bytes: d %d, n %d, fill %d, kind %d", d, n, fill, kind);
    expect_byte_scores(&p, p.levels, b, "score_bytes");
}

static void check_rows4(const kvant_kernels *ref, const kvant_kernels *k, int d, int n, int fill, int kind) {
    static int8_t levels[MAX_ROWS * MAX_D], room[MAX_ROWS * MAX_D];
    const int block = random_u32() % 4 ? 32 : 16, n_block = (d + block - 1) / block;
    kvant_score_bytes p = make_byte_query(d, n, fill, kind);
    kvant_level_rows rows = {.block = block, .d = d, .n = MAX_ROWS};
    rows.plane4 = guarded_random(SLOT_TILE, (size_t)(MAX_ROWS * d / 2));
    rows.books = fill_levels(SLOT_SCALE, 256, fill);
    if (random_u32() % 4) rows.selectors = guarded_random(SLOT_X_SUM, (size_t)(MAX_ROWS * ((n_block + 1) / 2)));
    ref->levels4(levels, &rows);
    const size_t size = (size_t)n * MAX_ROWS;
    float *a = guarded_random(SLOT_REF, size * sizeof *a), *b = guarded_random(SLOT_GOT, size * sizeof *b);
    p.scores = a;
    ref->score_rows4(room, &rows, &p);
    p.scores = b;
    k->score_rows4(room, &rows, &p);
    expect_same_floats(a, b, size, "score_rows4: d %d, n %d, fill %d, kind %d", d, n, fill, kind);
    expect_byte_scores(&p, levels, b, "score_rows4");
}

typedef void (*check_case_fn)(const kvant_kernels *ref, const kvant_kernels *k, int d, int n, int fill, int kind);

static void check_shapes(check_case_fn check, const kvant_kernels *ref, const kvant_kernels *k) {
    for (int d = 16; d <= MAX_D; d += 16)
        for (int fill = 0; fill < N_FILLS; fill++)
            check(ref, k, d, random_between(1, 12), fill, (int)(random_u32() % N_KINDS));
    for (int n = 1; n <= 96; n++)
        check(ref, k, 16 * random_between(1, 8), n, n % 5 ? RANDOM : LOWEST, ORDINARY);
    check(ref, k, MAX_D, 96, LOWEST, ORDINARY);
}

void check_score_levels(const kvant_kernels *ref, const kvant_kernels *k) { check_shapes(check_score, ref, k); }
void check_score_bytes(const kvant_kernels *ref, const kvant_kernels *k) { check_shapes(check_bytes, ref, k); }

void check_score_rows4(const kvant_kernels *ref, const kvant_kernels *k) {
    check_shapes(check_rows4, ref, k);
    for (int n = 1; n <= 8; n++)
        for (int d = 64; d <= MAX_D; d += 64)
            check_rows4(ref, k, d, n, n % N_FILLS, ORDINARY);
}

void check_mix_levels(const kvant_kernels *ref, const kvant_kernels *k) { check_shapes(check_mix, ref, k); }

void check_level_scales(const kvant_kernels *ref, const kvant_kernels *k) {
    for (int first = 0; first < 256; first += 32) {
        uint8_t *e = guarded(SLOT_X, MAX_ROWS);
        for (int i = 0; i < MAX_ROWS; i++)
            e[i] = (uint8_t)(first + i);
        float *a = guarded_random(SLOT_REF, MAX_ROWS * sizeof *a), *b = guarded_random(SLOT_GOT, MAX_ROWS * sizeof *b);
        ref->level_scales(a, e);
        k->level_scales(b, e);
        expect_same_bytes(a, b, MAX_ROWS * sizeof *a, "level_scales from %d", first);
        for (int i = 0; i < MAX_ROWS; i++) {
            double expected = e[i] == 0 ? 0.0 : exp2((e[i] - 161) / 8.0);
            assert_true(fabs((double)b[i] - expected) <= 1e-7 * expected);
        }
    }
}

/* ---- vectors of 16 bits ---- */

static const float magnitudes[] = {1.0f, 300.0f, 1e-35f, 2e-36f, 1e-40f, 3e38f};

/* x * 32767 / max is an integer and a half. */
static void make_ties(float *x, int n) {
    for (int j = 0; j < n; j++)
        x[j] = j == n / 2 ? 32767.0f : (float)random_between(-32766, 32766) + 0.5f;
}

void check_quantize_q16(const kvant_kernels *ref, const kvant_kernels *k) {
    for (int i = 0; i <= 600; i++)
        for (int kind = 0; kind < N_KINDS; kind++) {
            int n = i <= 100 ? i : i <= 160 ? (i - 100) * 16 % 528 : random_between(0, 1100);
            float *x = floats(SLOT_X, (size_t)n, kind, magnitudes[random_u32() % COUNT(magnitudes)]);
            if (kind == ORDINARY && i % 3 == 0) make_ties(x, n);
            int16_t *a = guarded_random(SLOT_REF, (size_t)n * sizeof *a), *b = guarded_random(SLOT_GOT, (size_t)n * sizeof *b);
            float sa = ref->quantize_q16(a, x, n), sb = k->quantize_q16(b, x, n);
            expect_same_bytes(a, b, (size_t)n * sizeof *a, "quantize_q16: n %d, kind %d, bytes", n, kind);
            expect_same_floats(&sa, &sb, 1, "quantize_q16's scale: n %d, kind %d", n, kind);
            for (int j = 0; j < n; j++) {
                assert_true(b[j] >= -32767);
                if (kind == ORDINARY && sb > 1e-38f) assert_true(fabs((double)b[j] * sb - x[j]) <= 0.52 * sb);
            }
        }
}

void check_quantize_pairs(const kvant_kernels *ref, const kvant_kernels *k) {
    for (int i = 0; i <= 600; i++)
        for (int kind = 0; kind < N_KINDS; kind++) {
            int n = i <= 100 ? i % 33 * 16 : 16 * random_between(1, MAX_D / 16);
            float *x = floats(SLOT_X, (size_t)n, kind, magnitudes[random_u32() % COUNT(magnitudes)]);
            for (int j = 0; kind == ORDINARY && i % 3 == 0 && j < n; j++) /* x * 127 / m is an integer and a half */
                x[j] = j == 0 ? 127.0f : j == 1 ? 0.0f : (float)(j % 4 < 2 ? 1 : -1) * ((float)random_between(0, 62) + 0.5f);
            int8_t *a = guarded_random(SLOT_REF, (size_t)n), *b = guarded_random(SLOT_GOT, (size_t)n);
            float sa = ref->quantize_pairs(a, x, n), sb = k->quantize_pairs(b, x, n);
            expect_same_bytes(a, b, (size_t)n, "quantize_pairs: n %d, kind %d, bytes", n, kind);
            expect_same_floats(&sa, &sb, 1, "quantize_pairs's scale: n %d, kind %d", n, kind);
            for (int j = 0; j < n; j++) {
                assert_true(b[j] >= -127 && (j % 2 == 0 || abs(b[j] + b[j - 1]) <= 128));
                if (kind == ORDINARY && sb > 1e-37f && sb < 1e38f) assert_true(fabs((double)b[j] * sb - x[j]) <= 0.51 * sb);
            }
        }
}

void check_weigh_q16(const kvant_kernels *ref, const kvant_kernels *k) {
    for (int i = 0; i < 400; i++)
        for (int kind = 0; kind < N_KINDS; kind++) {
            int n = i % (MAX_ROWS + 1);
            static const float sizes[] = {1.0f, 300.0f, 1e-18f, 1e20f};
            float magnitude = sizes[random_u32() % COUNT(sizes)];
            const float *x = floats(SLOT_X, (size_t)n, kind, magnitude);
            const float *w = floats(SLOT_SCALE, (size_t)n, i % 2 ? ORDINARY : kind, magnitude);
            int16_t *a = guarded_random(SLOT_REF, (size_t)n * sizeof *a), *b = guarded_random(SLOT_GOT, (size_t)n * sizeof *b);
            float sa = ref->weigh_q16(a, x, w, n), sb = k->weigh_q16(b, x, w, n);
            expect_same_bytes(a, b, (size_t)n * sizeof *a, "weigh_q16: n %d, kind %d, bytes", n, kind);
            expect_same_floats(&sa, &sb, 1, "weigh_q16's scale: n %d, kind %d", n, kind);
        }
}

/* ---- the rotation ---- */

void check_hadamard(const kvant_kernels *ref, const kvant_kernels *k) {
    for (int n = 1; n <= MAX_D; n *= 2)
        for (int kind = 0; kind < N_KINDS; kind++)
            for (int round = 0; round < 8; round++) {
                float *a = floats(SLOT_REF, (size_t)n, kind, round % 2 ? 3e38f : 1.0f);
                float *b = guarded(SLOT_GOT, (size_t)n * sizeof *b);
                memcpy(b, a, (size_t)n * sizeof *b);
                ref->hadamard(a, n);
                k->hadamard(b, n);
                expect_same_floats(a, b, (size_t)n, "hadamard: n %d, kind %d", n, kind);
            }
    for (int n = 1; n <= MAX_D; n *= 2) /* one element's transform is a row of signs: that of the bits that both indices have */
        for (int at = 0; at < n; at++) {
            float *x = guarded(SLOT_GOT, (size_t)n * sizeof *x);
            memset(x, 0, (size_t)n * sizeof *x);
            x[at] = 1.0f;
            k->hadamard(x, n);
            for (int i = 0; i < n; i++) {
                int sign = 1;
                for (int common = i & at; common; common &= common - 1)
                    sign = -sign;
                assert_true(x[i] == (float)sign);
            }
        }
}

/* ---- the search for books ---- */

void check_book_cells(const kvant_kernels *ref, const kvant_kernels *k) {
    for (int i = 0; i <= 400; i++)
        for (int kind = 0; kind < N_KINDS; kind++) {
            int n = i <= 70 ? i : random_between(0, 1100);
            static const float limits[] = {1.0f, 127.0f, 250.0f, 1e-38f, 1e30f};
            float *x = floats(SLOT_X, (size_t)n, kind, limits[random_u32() % COUNT(limits)]);
            static const float factors[] = {2.0f, 3.0f, 0.37f, 1e9f, 0.0f, 1e-30f};
            float factor = factors[random_u32() % COUNT(factors)];
            if (kind == ORDINARY && i % 3 == 0) { /* just at, above and below the edges of cells */
                factor = 2.0f;
                for (int j = 0; j < n; j++) {
                    float edge = 0.5f * (float)random_between(-400, 400);
                    x[j] = kvant_bits_f32(kvant_f32_bits(edge) + (edge == 0.0f ? 0u : (uint32_t)random_between(-1, 1)));
                }
            }
            int16_t *a = guarded_random(SLOT_REF, (size_t)n * sizeof *a), *b = guarded_random(SLOT_GOT, (size_t)n * sizeof *b);
            ref->book_cells(a, x, factor, n);
            k->book_cells(b, x, factor, n);
            expect_same_bytes(a, b, (size_t)n * sizeof *a, "book_cells: n %d, kind %d, bytes", n, kind);
            for (int j = 0; j < n; j++)
                assert_in_range(b[j], 0, KVANT_BOOK_CELLS - 1);
        }
}

/* Errors that are: of any size (many sums saturate); about 65535 / block (some do); few and small (ties); all 65535; equal. */
static uint16_t book_error(int variant, int block) {
    switch (variant) {
    case 0: return (uint16_t)random_u32();
    case 1: return (uint16_t)random_between(0, 2 * 65535 / block);
    case 2: return (uint16_t)random_between(0, 1);
    case 3: return 65535;
    default: return 77;
    }
}

void check_search_books(const kvant_kernels *ref, const kvant_kernels *k) {
    for (int variant = 0; variant < 5; variant++)
        for (int block = 16; block <= 32; block += 16)
            for (int n_block = 0; n_block <= 33; n_block++) {
                uint16_t(*errors)[KVANT_BOOKS] = guarded(SLOT_TILE, KVANT_BOOK_CELLS * sizeof *errors);
                for (int i = 0; i < KVANT_BOOK_CELLS * KVANT_BOOKS; i++)
                    errors[i / KVANT_BOOKS][i % KVANT_BOOKS] = book_error(variant, block);
                int n = n_block * block;
                int16_t *cell = guarded(SLOT_X, (size_t)n * sizeof *cell);
                for (int i = 0; i < n; i++)
                    cell[i] = (int16_t)(n_block % 3 ? random_between(0, KVANT_BOOK_CELLS - 1)
                                        : random_u32() % 2 ? KVANT_BOOK_CELLS - 1 : 0);
                uint8_t *a = guarded_random(SLOT_REF, (size_t)n_block), *b = guarded_random(SLOT_GOT, (size_t)n_block);
                const uint16_t(*table)[KVANT_BOOKS] = (const uint16_t(*)[KVANT_BOOKS])errors;
                uint32_t total_a = ref->search_books(a, table, cell, block, n_block);
                uint32_t total_b = k->search_books(b, table, cell, block, n_block);
                expect_same_bytes(a, b, (size_t)n_block, "search_books: variant %d, block %d, n_block %d", variant, block,
                                  n_block);
                assert_int_equal(total_a, total_b);
                if (variant == 3) assert_int_equal(total_b, 65535u * (uint32_t)n_block);
                if (variant == 4) assert_int_equal(total_b, 77u * (uint32_t)n);
                for (int i = 0; variant >= 3 && i < n_block; i++)
                    assert_int_equal(b[i], 0);
            }
}
