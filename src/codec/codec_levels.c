// SPDX-License-Identifier: MIT
/* codec_levels.c: Kvant's own formats: a vector is rotated to look Gaussian, and stored as codes of int8 levels with one scale.
 *
 *   bc2..bc5  each block of 32 elements (16 at 2 bits) uses the best of 16 codebooks, named by a 4-bit selector
 *   i6, i8    integers
 *   lm2..lm4  one Lloyd-Max codebook (the first stage of TurboQuant, https://arxiv.org/abs/2504.19874), for comparison
 *
 * A part, K or V: the planes of the codes (kernel/kernels.h, level rows), each [64 tokens]; selectors [64]; scales, binary16 [64],
 * times 16 so that small vectors keep all bits. Attention multiplies int8 levels with 16-bit queries and weights in integers:
 * nothing is dequantized, and the rounding is far below that of the formats.
 *
 * Not here: the rotation and the mean of the keys (cache/transform.h), the loops (kernel/). */
#include <math.h>
#include <string.h>

#include "base/half.h"
#include "codec/book_search.h"
#include "codec/codec.h"

#define TOKENS KVANT_PAGE_TOKENS
#define HALF 16
#define SCALE_UP 16.0f

/* Where the arrays of a part begin. */
typedef struct level_layout {
    int bits, block, selector_bytes; /* selector_bytes: of a row, 0 without selectors */
    size_t plane4, plane2, plane1, selectors, scales, bytes;
} level_layout;

static bool has_books(const kvant_format *f) { return f->codec != KVANT_CODEC_INT; }

static int book_count(const kvant_format *f) { return f->codec == KVANT_CODEC_BOOK ? KVANT_BOOKS : 1; }

static level_layout layout_of(const kvant_format *f, int head_dim) {
    size_t d = (size_t)head_dim, at = 0;
    level_layout l = {.bits = f->bits, .block = has_books(f) ? kvant_book_set_find(f->bits, book_count(f))->block : head_dim};
    if (f->codec == KVANT_CODEC_BOOK) l.selector_bytes = ((head_dim + l.block - 1) / l.block + 1) / 2;
    l.plane4 = at;
    if (f->bits == 8) at += TOKENS * d;
    if (f->bits == 4 || f->bits == 5 || f->bits == 6) at += TOKENS * d / 2;
    l.plane2 = at;
    if (f->bits == 2 || f->bits == 3 || f->bits == 6) at += TOKENS * d / 4;
    l.plane1 = at;
    if (f->bits == 3 || f->bits == 5) at += TOKENS * d / 8;
    l.selectors = at;
    at += TOKENS * (size_t)l.selector_bytes;
    l.scales = at;
    l.bytes = at + TOKENS * sizeof(uint16_t);
    return l;
}

static kvant_status check_levels(const kvant_format *f, int head_dim, kvant_error *err) {
    char name[KVANT_FORMAT_NAME_MAX];
    if (head_dim >= HALF && head_dim <= KVANT_HEAD_DIM_MAX && head_dim % HALF == 0) return KVANT_OK;
    kvant_format_name(f, name);
    return kvant_fail(err, KVANT_EUNSUPPORTED, "format %s: head_dim %d is not a multiple of 16 up to %d; the nearest format is f16", name,
                      head_dim, KVANT_HEAD_DIM_MAX);
}

static size_t part_bytes(const kvant_format *f, kvant_side side, int head_dim) {
    (void)side;
    return layout_of(f, head_dim).bytes;
}

static kvant_query_form form(const kvant_format *f) {
    (void)f;
    return KVANT_QUERY_Q16;
}

static kvant_rotation rotation(const kvant_format *f, kvant_side side, int head_dim) {
    (void)f;
    (void)side;
    return (kvant_rotation){head_dim, true};
}

static uint16_t *scales_of(const level_layout *l, const uint8_t *bytes) {
    return (uint16_t *)(void *)(uintptr_t)(bytes + l->scales);
}

static kvant_level_rows rows_of(const kvant_part *part, const level_layout *l, const uint8_t *bytes, int first, int n) {
    size_t d = (size_t)part->head_dim, row = (size_t)first;
    kvant_level_rows r = {.block = l->block, .d = part->head_dim, .n = n};
    if (l->bits >= 4) r.plane4 = bytes + l->plane4 + row * d / 2;
    if (l->plane1 > l->plane2) r.plane2 = bytes + l->plane2 + row * d / 4;
    if (l->selectors > l->plane1) r.plane1 = bytes + l->plane1 + row * d / 8;
    if (l->selector_bytes) r.selectors = bytes + l->selectors + row * (size_t)l->selector_bytes;
    if (has_books(&part->format)) r.books = kvant_book_set_find(l->bits, book_count(&part->format))->levels;
    return r;
}

/* The levels of n rows: [n][head_dim] in `room`, or the codes themselves at 8 bits. */
static const int8_t *levels_of(const kvant_part *part, const level_layout *l, const uint8_t *bytes, int first, int n, int8_t *room,
                               const kvant_kernels *k) {
    if (l->bits == 8) return (const int8_t *)bytes + (size_t)first * (size_t)part->head_dim;
    kvant_level_rows rows = rows_of(part, l, bytes, first, n);
    switch (l->bits) {
    case 2: k->levels2(room, &rows); break;
    case 3: k->levels3(room, &rows); break;
    case 4: k->levels4(room, &rows); break;
    case 5: k->levels5(room, &rows); break;
    default: k->levels6(room, &rows); break;
    }
    return room;
}

/* ---- encoding ---- */

static void put_planes(const level_layout *l, uint8_t *bytes, int slot, const uint8_t *code, int d) {
    int n_half = d / HALF, up1 = l->bits - 1;
    uint8_t *p4 = bytes + l->plane4 + (size_t)slot * (size_t)n_half * 8, *p2 = bytes + l->plane2 + (size_t)slot * (size_t)n_half * 4,
            *p1 = bytes + l->plane1 + (size_t)slot * (size_t)n_half * 2;
    bool has4 = l->plane2 > l->plane4, has2 = l->plane1 > l->plane2, has1 = l->selectors > l->plane1;
    int up2 = has4 ? 4 : 0;
    for (const uint8_t *c = code; c < code + d; c += HALF, p4 += 8, p2 += 4, p1 += 2) {
        for (int j = 0; has4 && j < 8; j++)
            p4[j] = (uint8_t)((c[j] & 15) | (c[8 + j] & 15) << 4);
        for (int j = 0; has2 && j < 4; j++)
            p2[j] = (uint8_t)((c[j] >> up2 & 3) | (c[4 + j] >> up2 & 3) << 2 | (c[8 + j] >> up2 & 3) << 4 | (c[12 + j] >> up2 & 3) << 6);
        unsigned high = 0;
        for (int j = 0; has1 && j < HALF; j++)
            high |= (unsigned)(c[j] >> up1 & 1) << j;
        if (has1) {
            p1[0] = (uint8_t)high;
            p1[1] = (uint8_t)(high >> 8);
        }
    }
}

/* A scale as it is stored; what is not a number becomes 0. */
static uint16_t store_scale(float scale) {
    float up = scale * SCALE_UP;
    if (!(up > 0.0f)) return 0;
    return up < 65504.0f ? kvant_f32_to_f16(up) : 0x7BFF;
}

static float max_magnitude(const float *x, int d) {
    float largest = 0.0f;
    for (int i = 0; i < d; i++)
        if (fabsf(x[i]) > largest) largest = fabsf(x[i]);
    return largest;
}

static void encode_int(const kvant_part *part, const level_layout *l, uint8_t *bytes, int slot, const float *x) {
    uint8_t code[KVANT_HEAD_DIM_MAX];
    int d = part->head_dim, most = l->bits == 8 ? 127 : 31, middle = l->bits == 8 ? 0 : 32;
    uint16_t stored = store_scale(max_magnitude(x, d) / (float)most);
    float scale = kvant_f16_to_f32(stored) / SCALE_UP, inverse = scale > 0.0f ? 1.0f / scale : 0.0f;
    for (int i = 0; i < d; i++) {
        float v = x[i] * inverse;
        v = v < (float)most ? v : (float)most;
        v = v > (float)-most ? v : (float)-most;
        code[i] = (uint8_t)((int)rintf(v) + middle);
    }
    scales_of(l, bytes)[slot] = stored;
    if (l->bits == 8)
        memcpy(bytes + (size_t)slot * (size_t)d, code, (size_t)d);
    else
        put_planes(l, bytes, slot, code, d);
}

/* What one scale of the search found: books, codes, and how much of the vector they explain. */
typedef struct book_choice {
    uint8_t book[KVANT_HEAD_DIM_MAX / HALF + 1], code[KVANT_HEAD_DIM_MAX];
    float along, square; /* sum of x * level, sum of level^2 */
} book_choice;

static void choose_books(const kvant_book_set *set, const kvant_book_search *search, const float *x, int d, float factor, book_choice *out,
                         const kvant_kernels *k) {
    int16_t cell[KVANT_HEAD_DIM_MAX];
    float level[KVANT_HEAD_DIM_MAX];
    int whole = d / set->block, rest = d - whole * set->block, square = 0;
    k->book_cells(cell, x, factor, d);
    if (set->n_book == 1) {
        memset(out->book, 0, sizeof out->book);
    } else {
        k->search_books(out->book, search->errors, cell, set->block, whole);
        if (rest) k->search_books(out->book + whole, search->errors, cell + whole * set->block, rest, 1);
    }
    for (int b = 0, i = 0; i < d; b++) {
        const uint8_t *code = search->code[out->book[b]];
        const int8_t *levels = set->levels + ((size_t)out->book[b] << set->bits);
        for (int end = i + set->block < d ? i + set->block : d; i < end; i++) {
            int v = levels[out->code[i] = code[cell[i]]];
            level[i] = (float)v;
            square += v * v;
        }
    }
    out->along = k->dot_f32(x, level, d);
    out->square = (float)square;
}

/* Several scales are tried, because a book that fits at one may fit better at another; the best explains most of the vector. */
static void encode_books(const kvant_part *part, const level_layout *l, uint8_t *bytes, int slot, const float *x, const kvant_kernels *k) {
    const kvant_book_set *set = kvant_book_set_find(l->bits, book_count(&part->format));
    const kvant_book_search *search = kvant_book_search_find(l->bits, book_count(&part->format));
    book_choice choices[KVANT_BOOK_FACTORS], *best = &choices[0];
    int d = part->head_dim;
    float rms = sqrtf(k->dot_f32(x, x, d) / (float)d), best_gain = -1.0f;
    bool is_number = rms > 0.0f && rms <= 3.4e38f;
    for (int i = 0; i < KVANT_BOOK_FACTORS; i++) {
        choose_books(set, search, x, d, is_number ? 2.0f * set->units / (rms * set->factor[i]) : 0.0f, &choices[i], k);
        float gain = choices[i].along * (choices[i].along / choices[i].square);
        if (!(gain > best_gain)) continue;
        best_gain = gain;
        best = &choices[i];
    }
    put_planes(l, bytes, slot, best->code, d);
    for (int b = 0; b < 2 * l->selector_bytes; b++) {
        uint8_t *at = bytes + l->selectors + (size_t)slot * (size_t)l->selector_bytes + b / 2;
        int book = b < (d + l->block - 1) / l->block ? best->book[b] : 0;
        *at = (uint8_t)(b % 2 ? *at | book << 4 : book);
    }
    scales_of(l, bytes)[slot] = is_number ? store_scale(best->along / best->square) : 0;
}

static void encode(const kvant_part *part, uint8_t *bytes, int slot, const float *x, const kvant_kernels *k) {
    level_layout l = layout_of(&part->format, part->head_dim);
    if (has_books(&part->format))
        encode_books(part, &l, bytes, slot, x, k);
    else
        encode_int(part, &l, bytes, slot, x);
}

static void decode(const kvant_part *part, const uint8_t *bytes, int slot, float *x, const kvant_kernels *k) {
    level_layout l = layout_of(&part->format, part->head_dim);
    int8_t room[KVANT_HEAD_DIM_MAX];
    const int8_t *levels = levels_of(part, &l, bytes, slot, 1, room, k);
    float scale = kvant_f16_to_f32(scales_of(&l, bytes)[slot]) / SCALE_UP;
    for (int i = 0; i < part->head_dim; i++)
        x[i] = scale * (float)levels[i];
}

/* ---- attention ---- */

static const int8_t *expand(const kvant_part *part, const uint8_t *bytes, const kvant_kernels *k, kvant_codec_scratch *s) {
    level_layout l = layout_of(&part->format, part->head_dim);
    kvant_fetch_next(s);
    k->f16_to_f32(s->scale, scales_of(&l, bytes), TOKENS);
    k->scale_f32(s->scale, 1.0f / SCALE_UP, TOKENS);
    return levels_of(part, &l, bytes, 0, TOKENS, (int8_t *)s->tile, k);
}

static void score(const kvant_part *part, const uint8_t *bytes, const kvant_query *q, float *scores, const kvant_kernels *k,
                  kvant_codec_scratch *s) {
    kvant_score_levels args = {expand(part, bytes, k, s), s->scale, part->head_dim, q->n, q->q16, q->q16_scale, scores};
    k->score_levels(&args);
}

static void mix(const kvant_part *part, const uint8_t *bytes, const float *weights, int n, bool exact, float *acc, size_t acc_stride,
                const kvant_kernels *k, kvant_codec_scratch *s) {
    (void)exact; /* 16 bits are as good as floats here */
    kvant_mix_levels args = {expand(part, bytes, k, s), part->head_dim, n, s->w16, s->w16_scale, acc, acc_stride};
    for (int i = 0; i < n; i++)
        s->w16_scale[i] = k->weigh_q16(s->w16 + (size_t)i * TOKENS, weights + (size_t)i * TOKENS, s->scale, TOKENS);
    k->mix_levels(&args);
}

const kvant_codec kvant_codec_book = {KVANT_CODEC_BOOK, "bc", check_levels, part_bytes, form, rotation, encode, decode, score, mix};
const kvant_codec kvant_codec_int = {KVANT_CODEC_INT, "i", check_levels, part_bytes, form, rotation, encode, decode, score, mix};
const kvant_codec kvant_codec_lloyd = {KVANT_CODEC_LLOYD, "lm", check_levels, part_bytes, form, rotation, encode, decode, score, mix};
