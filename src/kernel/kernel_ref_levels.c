// SPDX-License-Identifier: MIT
/* kernel_ref_levels.c: kernels of Kvant's own cache formats in portable C: codes to levels, products with levels, the rotation,
 * and the search for the best book.
 *
 * Everything here is exact in integers or an addition of two floats in a fixed place, so each level of instructions gives the
 * same bits.
 *
 * Not here: how a vector is scaled and its codes are packed (codec/codec_levels.c). */
#include <math.h>

#include "kernel/kernel_ref.h"

#define HALF 16
#define ROWS 64

static int plane4_code(const uint8_t *half, int i) { return half[i % 8] >> 4 * (i / 8) & 15; }

static int plane2_code(const uint8_t *half, int i) { return half[i % 4] >> 2 * (i / 4) & 3; }

static int plane1_code(const uint8_t *half, int i) { return half[i / 8] >> i % 8 & 1; }

/* The code of element i of a row: its planes joined, the lowest bits first. */
static int code_at(const kvant_level_rows *r, int row, int i) {
    size_t half = (size_t)row * (size_t)(r->d / HALF) + (size_t)(i / HALF);
    int code = 0, shift = 0;
    if (r->plane4) {
        code = plane4_code(r->plane4 + 8 * half, i % HALF);
        shift = 4;
    }
    if (r->plane2) {
        code |= plane2_code(r->plane2 + 4 * half, i % HALF) << shift;
        shift += 2;
    }
    if (r->plane1) code |= plane1_code(r->plane1 + 2 * half, i % HALF) << shift;
    return code;
}

static int book_at(const kvant_level_rows *r, int row, int i) {
    if (!r->selectors) return 0;
    int n_block = (r->d + r->block - 1) / r->block, b = i / r->block;
    return r->selectors[row * ((n_block + 1) / 2) + b / 2] >> 4 * (b % 2) & 15;
}

static void levels_of_books(int8_t *levels, const kvant_level_rows *r, int bits) {
    for (int row = 0; row < r->n; row++)
        for (int i = 0; i < r->d; i++)
            *levels++ = r->books[(book_at(r, row, i) << bits) + code_at(r, row, i)];
}

static void ref_levels1(int8_t *levels, const kvant_level_rows *r) { levels_of_books(levels, r, 1); }

static void ref_levels2(int8_t *levels, const kvant_level_rows *r) { levels_of_books(levels, r, 2); }

static void ref_levels3(int8_t *levels, const kvant_level_rows *r) { levels_of_books(levels, r, 3); }

static void ref_levels4(int8_t *levels, const kvant_level_rows *r) { levels_of_books(levels, r, 4); }

static void ref_levels5(int8_t *levels, const kvant_level_rows *r) { levels_of_books(levels, r, 5); }

static void ref_levels6(int8_t *levels, const kvant_level_rows *r) {
    for (int row = 0; row < r->n; row++)
        for (int i = 0; i < r->d; i++)
            *levels++ = (int8_t)(code_at(r, row, i) - 32);
}

static void ref_level_scales(float *scale, const uint8_t *e) {
    static const float eighths[8] = {KVANT_EIGHTHS};
    for (int i = 0; i < ROWS; i++)
        scale[i] = e[i] == 0 ? 0.0f : ldexpf(eighths[(e[i] - 1) % 8], (e[i] - 1) / 8 - 20);
}

static void ref_score_levels(const kvant_score_levels *p) {
    size_t d = (size_t)p->d;
    for (int c = 0; c < p->n; c++) {
        const int16_t *q = p->q + (size_t)c * d;
        for (int r = 0; r < ROWS; r++) {
            const int8_t *level = p->levels + (size_t)r * d;
            int32_t sum = 0;
            for (size_t i = 0; i < d; i++)
                sum += level[i] * q[i];
            p->scores[(size_t)c * ROWS + (size_t)r] = (float)sum * (p->q_scale[c] * p->row_scale[r]);
        }
    }
}

static void ref_score_bytes(const kvant_score_bytes *p) {
    size_t d = (size_t)p->d;
    for (int c = 0; c < p->n; c++) {
        const int8_t *q = p->q + (size_t)c * d;
        for (int r = 0; r < ROWS; r++) {
            const int8_t *level = p->levels + (size_t)r * d;
            int32_t sum = 0;
            for (size_t i = 0; i < d; i++)
                sum += level[i] * q[i];
            p->scores[(size_t)c * ROWS + (size_t)r] = (float)sum * (p->q_scale[c] * p->row_scale[r]);
        }
    }
}

static void ref_score_rows4(int8_t *room, const kvant_level_rows *rows, const kvant_score_bytes *p) {
    kvant_score_bytes args = *p;
    args.levels = room;
    ref_levels4(room, rows);
    ref_score_bytes(&args);
}

static void ref_mix_levels(const kvant_mix_levels *p) {
    size_t d = (size_t)p->d;
    for (int c = 0; c < p->n; c++) {
        const int16_t *w = p->w + (size_t)c * ROWS;
        float *acc = p->acc + (size_t)c * p->acc_stride;
        for (size_t i = 0; i < d; i++) {
            int32_t sum = 0;
            for (size_t r = 0; r < ROWS; r++)
                sum += w[r] * p->levels[r * d + i];
            acc[i] = fmaf((float)sum, p->w_scale[c], acc[i]);
        }
    }
}

static float ref_quantize_q16(int16_t *q, const float *x, int n) {
    float largest = 0.0f;
    for (int i = 0; i < n; i++)
        largest = fabsf(x[i]) > largest ? fabsf(x[i]) : largest;
    float inverse = largest < KVANT_Q8_SMALLEST ? 0.0f : 32767.0f / largest;
    for (int i = 0; i < n; i++) {
        float v = x[i] * inverse;
        v = v < 32767.0f ? v : 32767.0f; /* a NaN becomes 32767 here */
        v = v > -32767.0f ? v : -32767.0f;
        q[i] = (int16_t)rintf(v);
    }
    return largest < KVANT_Q8_SMALLEST ? 0.0f : largest / 32767.0f;
}

static float positive(float x) { return x > 0.0f ? x : 0.0f; }

static float ref_quantize_pairs(int8_t *q, const float *x, int n) {
    float largest = 0.0f;
    for (int i = 0; i < n; i += 2) {
        float up = positive(x[i]) + positive(x[i + 1]), down = positive(-x[i]) + positive(-x[i + 1]);
        largest = up > largest ? up : largest;
        largest = down > largest ? down : largest;
    }
    float inverse = largest < KVANT_Q8_SMALLEST ? 0.0f : 127.0f / largest;
    for (int i = 0; i < n; i++) {
        float v = x[i] * inverse;
        q[i] = v == v ? (int8_t)rintf(v) : 0; /* a NaN is 0 */
    }
    return largest < KVANT_Q8_SMALLEST ? 0.0f : largest / 127.0f;
}

static float ref_weigh_q16(int16_t *q, const float *x, const float *a, int n) {
    float product[ROWS];
    for (int i = 0; i < n && i < ROWS; i++)
        product[i] = x[i] * a[i];
    return ref_quantize_q16(q, product, n);
}

static void ref_hadamard(float *x, int n) {
    for (int h = 1; h < n; h *= 2)
        for (int i = 0; i < n; i += 2 * h)
            for (int j = i; j < i + h; j++) {
                float a = x[j], b = x[j + h];
                x[j] = a + b;
                x[j + h] = a - b;
            }
}

static void ref_book_cells(int16_t *cell, const float *x, float factor, int n) {
    const float lowest = -KVANT_BOOK_CELLS / 2, highest = KVANT_BOOK_CELLS / 2 - 1;
    for (int i = 0; i < n; i++) {
        float v = floorf(x[i] * factor);
        v = v > lowest ? v : lowest; /* a NaN becomes the lowest here */
        v = v < highest ? v : highest;
        cell[i] = (int16_t)((int)v + KVANT_BOOK_CELLS / 2);
    }
}

static uint32_t ref_search_books(uint8_t *book, const uint16_t (*errors)[KVANT_BOOKS], const int16_t *cell, int block, int n_block) {
    uint32_t total = 0;
    for (int b = 0; b < n_block; b++, cell += block) {
        uint32_t sum[KVANT_BOOKS] = {0};
        for (int i = 0; i < block; i++)
            for (int k = 0; k < KVANT_BOOKS; k++)
                sum[k] += errors[cell[i]][k];
        int best = 0;
        for (int k = 0; k < KVANT_BOOKS; k++) {
            if (sum[k] > 65535) sum[k] = 65535;
            if (sum[k] < sum[best]) best = k;
        }
        book[b] = (uint8_t)best;
        total += sum[best];
    }
    return total;
}

void kvant_kernels_set_ref_levels(kvant_kernels *k) {
    k->levels1 = ref_levels1;
    k->levels2 = ref_levels2;
    k->levels3 = ref_levels3;
    k->levels4 = ref_levels4;
    k->levels5 = ref_levels5;
    k->levels6 = ref_levels6;
    k->level_scales = ref_level_scales;
    k->score_levels = ref_score_levels;
    k->score_bytes = ref_score_bytes;
    k->score_rows4 = ref_score_rows4;
    k->mix_levels = ref_mix_levels;
    k->quantize_q16 = ref_quantize_q16;
    k->quantize_pairs = ref_quantize_pairs;
    k->weigh_q16 = ref_weigh_q16;
    k->hadamard = ref_hadamard;
    k->book_cells = ref_book_cells;
    k->search_books = ref_search_books;
}
