// SPDX-License-Identifier: MIT
/* codec_levels.c: Kvant's own formats: a vector is rotated to look Gaussian, and stored as codes of int8 levels with one scale.
 *
 *   bc2..bc5  each block of 32 elements (16 at 2 bits) uses the best of 16 codebooks, named by a 4-bit selector
 *   i6, i8    integers
 *   lm2..lm4  one Lloyd-Max codebook (the first stage of TurboQuant, https://arxiv.org/abs/2504.19874), for comparison
 *
 * A part, K or V: the planes of the codes (kernel/kernels.h, level rows), each [64 tokens]; selectors [64]; scales [64], one byte:
 * 0 for a vector of zeros, else e for 2^((e - 161) / 8) a level. A scale is one of the search's three candidates, and codes are
 * chosen for what it really is, so its coarse steps cost 1 to 2 % of the noise and save a byte. Attention multiplies int8 levels with 16-bit queries and weights in integers:
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
#define SCALE_BIAS 161

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
    l.bytes = at + TOKENS;
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

/* 2^(i/8). */
static const float eighths[8] = {0x1p+0f,        0x1.172b84p+0f, 0x1.306fe0p+0f, 0x1.4bfdaep+0f,
                                 0x1.6a09e6p+0f, 0x1.8ace54p+0f, 0x1.ae89fap+0f, 0x1.d5818ep+0f};

static float scale_of(uint8_t e) {
    uint32_t power = (uint32_t)(e - SCALE_BIAS + 8 * 127); /* eighths of an exponent, biased as floats are */
    return e ? eighths[power % 8] * kvant_bits_f32(power / 8 << 23) : 0.0f;
}

/* The largest e whose scale is not above `scale`, 1 to 255 (a NaN is 1). */
static int scale_below(float scale) {
    int power, i = 7;
    if (!(scale > scale_of(1))) return 1;
    if (scale >= scale_of(255)) return 255;
    float mantissa = 2.0f * frexpf(scale, &power);
    while (eighths[i] > mantissa)
        i--;
    return 8 * (power - 1) + i + SCALE_BIAS;
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

static float max_magnitude(const float *x, int d) {
    float largest = 0.0f;
    for (int i = 0; i < d; i++)
        if (fabsf(x[i]) > largest) largest = fabsf(x[i]);
    return largest;
}

/* What one scale of the search found: books, codes, and the squared error less that of all zeros. */
typedef struct level_choice {
    uint8_t book[KVANT_HEAD_DIM_MAX / HALF + 1], code[KVANT_HEAD_DIM_MAX];
    float error;
} level_choice;

/* The squared error of scale * level against x, less that of zeros. */
static float error_of(float scale, const float *x, const float *level, int square, int d, const kvant_kernels *k) {
    return scale * (scale * (float)square - 2.0f * k->dot_f32(x, level, d));
}

static void choose_int(int bits, const float *x, int d, float scale, level_choice *out, const kvant_kernels *k) {
    float level[KVANT_HEAD_DIM_MAX], inverse = 1.0f / scale, most = bits == 8 ? 127.0f : 31.0f;
    int square = 0;
    for (int i = 0; i < d; i++) {
        float v = x[i] * inverse;
        v = v < most ? v : most;
        v = v > -most ? v : -most;
        level[i] = rintf(v);
        square += (int)level[i] * (int)level[i];
        out->code[i] = (uint8_t)((int)level[i] + (bits == 8 ? 0 : 32));
    }
    out->error = error_of(scale, x, level, square, d, k);
}

static void choose_books(const kvant_book_set *set, const kvant_book_search *search, const float *x, int d, float scale,
                         level_choice *out, const kvant_kernels *k) {
    int16_t cell[KVANT_HEAD_DIM_MAX];
    float level[KVANT_HEAD_DIM_MAX];
    int whole = d / set->block, rest = d - whole * set->block, square = 0;
    k->book_cells(cell, x, 2.0f / scale, d);
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
    out->error = error_of(scale, x, level, square, d, k);
}

static void put_selectors(const level_layout *l, uint8_t *bytes, int slot, const uint8_t *book, int n_block) {
    uint8_t *at = bytes + l->selectors + (size_t)slot * (size_t)l->selector_bytes;
    for (int b = 0; b < n_block; b += 2)
        at[b / 2] = (uint8_t)(book[b] | (b + 1 < n_block ? book[b + 1] << 4 : 0));
}

/* Three scales around the expected one are tried; the one with the least error stays. */
static void encode(const kvant_part *part, uint8_t *bytes, int slot, const float *x, const kvant_kernels *k) {
    level_layout l = layout_of(&part->format, part->head_dim);
    int d = part->head_dim;
    bool books = has_books(&part->format);
    const kvant_book_set *set = books ? kvant_book_set_find(l.bits, book_count(&part->format)) : NULL;
    const kvant_book_search *search = books ? kvant_book_search_find(l.bits, book_count(&part->format)) : NULL;
    level_choice choices[3], *best = &choices[0];
    float rms = sqrtf(k->dot_f32(x, x, d) / (float)d);
    float expected = books ? rms / set->units : max_magnitude(x, d) / (l.bits == 8 ? 127.0f : 31.0f);
    /* The middle one of three scales is the nearest to the expected one; integers may cut the largest value, or not. */
    int first = scale_below(books ? expected * 0.957603f : expected * 0.917004f), chosen = 0;
    if (first > 253) first = 253;
    for (int i = 0; i < 3; i++) {
        if (books)
            choose_books(set, search, x, d, scale_of((uint8_t)(first + i)), &choices[i], k);
        else
            choose_int(l.bits, x, d, scale_of((uint8_t)(first + i)), &choices[i], k);
        if (i > 0 && !(choices[i].error < best->error)) continue;
        best = &choices[i];
        chosen = first + i;
    }
    bool is_number = rms > 0.0f && rms <= 3.4e38f;
    bytes[l.scales + (size_t)slot] = (uint8_t)(is_number ? chosen : 0);
    if (l.selector_bytes) put_selectors(&l, bytes, slot, best->book, (d + l.block - 1) / l.block);
    if (l.bits == 8)
        memcpy(bytes + (size_t)slot * (size_t)d, best->code, (size_t)d);
    else
        put_planes(&l, bytes, slot, best->code, d);
}

static void decode(const kvant_part *part, const uint8_t *bytes, int slot, float *x, const kvant_kernels *k) {
    level_layout l = layout_of(&part->format, part->head_dim);
    int8_t room[KVANT_HEAD_DIM_MAX];
    const int8_t *levels = levels_of(part, &l, bytes, slot, 1, room, k);
    float scale = scale_of(bytes[l.scales + (size_t)slot]);
    for (int i = 0; i < part->head_dim; i++)
        x[i] = scale * (float)levels[i];
}

/* ---- attention ---- */

static const int8_t *expand(const kvant_part *part, const uint8_t *bytes, const kvant_kernels *k, kvant_codec_scratch *s) {
    level_layout l = layout_of(&part->format, part->head_dim);
    kvant_fetch_next(s);
    for (int t = 0; t < TOKENS; t++)
        s->scale[t] = scale_of(bytes[l.scales + (size_t)t]);
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
