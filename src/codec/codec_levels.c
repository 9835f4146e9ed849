// SPDX-License-Identifier: MIT
/* codec_levels.c: Kvant's own formats: a vector is rotated to look Gaussian, and stored as codes of int8 levels with one scale.
 *
 *   bc2..bc5  each block of 32 elements (16 at 2 bits) uses the best of 16 codebooks, named by a 4-bit selector
 *   bz3, bz4  the same for keys, whose elements the cache has put in the order of their energies: a quarter of them gets a bit
 *             more, a quarter a bit less
 *   i6, i8    integers
 *   lm2..lm4  one Lloyd-Max codebook (the first stage of TurboQuant, https://arxiv.org/abs/2504.19874), for comparison
 *
 * A part, K or V: the planes of the codes (kernel/kernels.h, level rows), each [64 tokens]; selectors [64]; scales [64], one
 * byte: 0 for a vector of zeros, else e for 2^((e - 161) / 8) a level. A scale is one of the search's three candidates, and codes
 * are chosen for what it really is, so its coarse steps cost 1 to 2 % of the noise and save a byte. Attention multiplies int8
 * levels with 16-bit queries and weights in integers: nothing is dequantized, and the rounding is far below that of the formats.
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

/* A run of elements that are stored alike. All formats but bz have one. */
typedef struct level_zone {
    int first, d, bits, block, selector; /* selector: the nibble of its first block in a row of selectors */
    size_t plane4, plane2, plane1;       /* offsets in the part; equal to the next where there is none */
    size_t end;
} level_zone;

/* Where the arrays of a part begin. */
typedef struct level_layout {
    int n_zone, n_selector, selector_bytes; /* of a row; 0 without selectors */
    level_zone zone[KVANT_ZONES];
    size_t selectors, scales, bytes;
} level_layout;

static bool has_books(const kvant_format *f) { return f->codec != KVANT_CODEC_INT; }

static int book_count(const kvant_format *f) { return f->codec == KVANT_CODEC_LLOYD ? 1 : KVANT_BOOKS; }

static const kvant_book_set *books_of(const kvant_format *f, int bits) { return kvant_book_set_find(bits, book_count(f)); }

/* The zones of bz: a quarter of the elements with one bit more, a quarter with one less. */
static int zone_size(const kvant_format *f, int head_dim, int index) {
    int quarter = head_dim / 4 / HALF * HALF;
    if (f->codec != KVANT_CODEC_ZONE) return head_dim;
    return index == 1 ? head_dim - 2 * quarter : quarter;
}

static int zone_bits(const kvant_format *f, int index) { return f->codec == KVANT_CODEC_ZONE ? f->bits + 1 - index : f->bits; }

static size_t place_zone(level_zone *z, size_t at) {
    size_t d = (size_t)z->d;
    z->plane4 = at;
    if (z->bits == 8) at += TOKENS * d;
    if (z->bits == 4 || z->bits == 5 || z->bits == 6) at += TOKENS * d / 2;
    z->plane2 = at;
    if (z->bits == 2 || z->bits == 3 || z->bits == 6) at += TOKENS * d / 4;
    z->plane1 = at;
    if (z->bits == 3 || z->bits == 5) at += TOKENS * d / 8;
    z->end = at;
    return at;
}

static level_layout layout_of(const kvant_format *f, int head_dim) {
    level_layout l = {.n_zone = f->codec == KVANT_CODEC_ZONE ? KVANT_ZONES : 1};
    size_t at = 0;
    int first = 0;
    for (int i = 0; i < l.n_zone; i++) {
        level_zone *z = &l.zone[i];
        *z = (level_zone){.first = first, .d = zone_size(f, head_dim, i), .bits = zone_bits(f, i), .selector = l.n_selector};
        z->block = has_books(f) ? books_of(f, z->bits)->block : head_dim;
        if (f->codec == KVANT_CODEC_BOOK || f->codec == KVANT_CODEC_ZONE) l.n_selector += (z->d + z->block - 1) / z->block;
        at = place_zone(z, at);
        first += z->d;
    }
    l.selector_bytes = (l.n_selector + 1) / 2;
    l.selectors = at;
    l.scales = at + TOKENS * (size_t)l.selector_bytes;
    l.bytes = l.scales + TOKENS;
    return l;
}

static kvant_status check_levels(const kvant_format *f, int head_dim, kvant_error *err) {
    char name[KVANT_FORMAT_NAME_MAX];
    if (f->codec == KVANT_CODEC_ZONE && head_dim < 4 * HALF) {
        kvant_format_name(f, name);
        return kvant_fail(err, KVANT_EUNSUPPORTED, "format %s: head_dim %d is less than 64; the nearest format is bc%d", name,
                          head_dim, f->bits);
    }
    if (head_dim >= HALF && head_dim <= KVANT_HEAD_DIM_MAX && head_dim % HALF == 0) return KVANT_OK;
    kvant_format_name(f, name);
    return kvant_fail(err, KVANT_EUNSUPPORTED,
                      "format %s: head_dim %d is not a multiple of 16 up to %d; the nearest format is f16", name, head_dim,
                      KVANT_HEAD_DIM_MAX);
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
    (void)side;
    kvant_rotation r = {.block = head_dim, .signs = true};
    if (f->codec != KVANT_CODEC_ZONE) return r;
    r.n_zone = KVANT_ZONES;
    for (int i = 0; i < KVANT_ZONES; i++) {
        r.zone[i] = zone_size(f, head_dim, i);
        r.zone_units[i] = books_of(f, zone_bits(f, i))->units / books_of(f, f->bits)->units;
    }
    return r;
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

static kvant_level_rows rows_of(const kvant_part *part, const level_zone *z, const uint8_t *bytes, int first, int n) {
    size_t d = (size_t)z->d, row = (size_t)first;
    kvant_level_rows r = {.block = z->block, .d = z->d, .n = n};
    if (z->plane2 > z->plane4) r.plane4 = bytes + z->plane4 + row * d / 2;
    if (z->plane1 > z->plane2) r.plane2 = bytes + z->plane2 + row * d / 4;
    if (z->end > z->plane1) r.plane1 = bytes + z->plane1 + row * d / 8;
    if (has_books(&part->format)) r.books = books_of(&part->format, z->bits)->levels;
    return r;
}

static void expand_rows(int bits, int8_t *levels, const kvant_level_rows *rows, const kvant_kernels *k) {
    switch (bits) {
    case 2:
        k->levels2(levels, rows);
        break;
    case 3:
        k->levels3(levels, rows);
        break;
    case 4:
        k->levels4(levels, rows);
        break;
    case 5:
        k->levels5(levels, rows);
        break;
    default:
        k->levels6(levels, rows);
        break;
    }
}

/* The selectors of one zone, as rows of their own: out [n][(blocks + 1) / 2]. */
static void zone_selectors(const level_layout *l, const level_zone *z, const uint8_t *rows, int n, uint8_t *out) {
    int n_block = (z->d + z->block - 1) / z->block;
    for (int r = 0; r < n; r++, rows += l->selector_bytes)
        for (int b = 0; b < n_block; b += 2, out++) {
            int i = z->selector + b, low = rows[i / 2] >> 4 * (i % 2) & 15,
                high = b + 1 < n_block ? rows[(i + 1) / 2] >> 4 * ((i + 1) % 2) & 15 : 0;
            *out = (uint8_t)(low | high << 4);
        }
}

/* Zones are expanded one after another and put side by side. */
static void expand_zones(const kvant_part *part, const level_layout *l, const uint8_t *bytes, int first, int n, int8_t *levels,
                         int8_t *room, const kvant_kernels *k) {
    uint8_t selectors[TOKENS * (KVANT_HEAD_DIM_MAX / HALF / 2 + 1)];
    for (int i = 0; i < l->n_zone; i++) {
        const level_zone *z = &l->zone[i];
        kvant_level_rows rows = rows_of(part, z, bytes, first, n);
        zone_selectors(l, z, bytes + l->selectors + (size_t)first * (size_t)l->selector_bytes, n, selectors);
        rows.selectors = selectors;
        expand_rows(z->bits, room, &rows, k);
        for (int r = 0; r < n; r++)
            for (int c = 0; c < z->d; c += HALF)
                memcpy(levels + (size_t)r * (size_t)part->head_dim + z->first + c, room + (size_t)r * (size_t)z->d + c, HALF);
    }
}

/* The levels of n rows: [n][head_dim] in `levels`, or the codes themselves at 8 bits. room: as large, for zones. */
static const int8_t *levels_of(const kvant_part *part, const level_layout *l, const uint8_t *bytes, int first, int n,
                               int8_t *levels, int8_t *room, const kvant_kernels *k) {
    const level_zone *z = &l->zone[0];
    if (z->bits == 8) return (const int8_t *)bytes + (size_t)first * (size_t)part->head_dim;
    if (l->n_zone > 1) {
        expand_zones(part, l, bytes, first, n, levels, room, k);
        return levels;
    }
    kvant_level_rows rows = rows_of(part, z, bytes, first, n);
    if (l->n_selector) rows.selectors = bytes + l->selectors + (size_t)first * (size_t)l->selector_bytes;
    expand_rows(z->bits, levels, &rows, k);
    return levels;
}

/* ---- encoding ---- */

static void put_planes(const level_zone *l, uint8_t *bytes, int slot, const uint8_t *code) {
    int d = l->d, up1 = l->bits - 1;
    size_t half = (size_t)slot * (size_t)(d / HALF);
    uint8_t *p4 = bytes + l->plane4 + half * 8, *p2 = bytes + l->plane2 + half * 4, *p1 = bytes + l->plane1 + half * 2;
    bool has4 = l->plane2 > l->plane4, has2 = l->plane1 > l->plane2, has1 = l->end > l->plane1;
    int up2 = has4 ? 4 : 0;
    for (const uint8_t *c = code; c < code + d; c += HALF, p4 += 8, p2 += 4, p1 += 2) {
        for (int j = 0; has4 && j < 8; j++)
            p4[j] = (uint8_t)((c[j] & 15) | (c[8 + j] & 15) << 4);
        for (int j = 0; has2 && j < 4; j++)
            p2[j] = (uint8_t)((c[j] >> up2 & 3) | (c[4 + j] >> up2 & 3) << 2 | (c[8 + j] >> up2 & 3) << 4 |
                              (c[12 + j] >> up2 & 3) << 6);
        unsigned high = 0;
        for (int j = 0; has1 && j < HALF; j++)
            high |= (unsigned)(c[j] >> up1 & 1) << j;
        if (has1) {
            p1[0] = (uint8_t)high;
            p1[1] = (uint8_t)(high >> 8);
        }
    }
}

/* What the search found: the scale, the books and the codes. */
typedef struct level_choice {
    int scale;
    uint8_t book[KVANT_HEAD_DIM_MAX / HALF + 1], code[KVANT_HEAD_DIM_MAX];
} level_choice;

#define N_SCALE 3

/* The first of three scales around `expected`. */
static int first_scale(float expected) {
    int first = scale_below(expected);
    return first < 256 - N_SCALE ? first : 256 - N_SCALE;
}

static float max_magnitude(const float *x, int d) {
    float largest = 0.0f;
    for (int i = 0; i < d; i++)
        if (fabsf(x[i]) > largest) largest = fabsf(x[i]);
    return largest;
}

/* The codes of integers, and the squared error less that of all zeros. */
static float choose_ints(int bits, const float *x, int d, float scale, uint8_t *code, const kvant_kernels *k) {
    float inverse = 1.0f / scale, most = bits == 8 ? 127.0f : 31.0f, level[KVANT_HEAD_DIM_MAX];
    int square = 0;
    for (int i = 0; i < d; i++) {
        float v = x[i] * inverse;
        v = v < most ? v : most;
        v = v > -most ? v : -most;
        level[i] = rintf(v);
        square += (int)level[i] * (int)level[i];
        code[i] = (uint8_t)((int)level[i] + (bits == 8 ? 0 : 32));
    }
    return scale * (scale * (float)square - 2.0f * k->dot_f32(x, level, d));
}

/* The largest value may be cut, or not. */
static void search_ints(int bits, const float *x, int d, level_choice *out, const kvant_kernels *k) {
    int first = first_scale(max_magnitude(x, d) / (bits == 8 ? 127.0f : 31.0f) * 0.917004f);
    uint8_t code[KVANT_HEAD_DIM_MAX];
    float least = 0.0f;
    for (int i = 0; i < N_SCALE; i++) {
        float error = choose_ints(bits, x, d, scale_of((uint8_t)(first + i)), code, k);
        if (i > 0 && !(error < least)) continue;
        least = error;
        out->scale = first + i;
        memcpy(out->code, code, (size_t)d);
    }
}

/* The best book of each block of a zone; returns the sum of their errors, in the unit of the tables. */
static uint32_t search_zone(const kvant_book_search *search, int n_book, const level_zone *z, const int16_t *cell, uint8_t *book,
                            const kvant_kernels *k) {
    int whole = z->d / z->block, rest = z->d - whole * z->block;
    uint32_t total = 0;
    if (n_book == 1) {
        for (int i = 0; i < z->d; i++)
            total += search->errors[cell[i]][0];
        return total;
    }
    total = k->search_books(book, search->errors, cell, z->block, whole);
    if (rest) total += k->search_books(book + whole, search->errors, cell + whole * z->block, rest, 1);
    return total;
}

/* What the tables of the search say of a scale is as good as the error itself: their cells are fine. Codes are looked up for the
 * best scale alone. */
static void search_scales(const kvant_format *f, const level_layout *l, const float *x, float rms, level_choice *out,
                          const kvant_kernels *k) {
    const kvant_book_search *search[KVANT_ZONES];
    int16_t cell[N_SCALE][KVANT_HEAD_DIM_MAX];
    uint8_t book[N_SCALE][KVANT_HEAD_DIM_MAX / HALF + 1] = {{0}};
    /* The middle one of the scales is the nearest to the expected one. */
    int first = first_scale(rms / books_of(f, f->bits)->units * 0.957603f), best = 0, d = 0;
    float least = 0.0f;
    for (int i = 0; i < l->n_zone; i++) {
        search[i] = kvant_book_search_find(l->zone[i].bits, book_count(f));
        d += l->zone[i].d;
    }
    for (int i = 0; i < N_SCALE; i++) {
        float scale = scale_of((uint8_t)(first + i)), error;
        uint32_t total = 0;
        k->book_cells(cell[i], x, 2.0f / scale, d);
        for (int j = 0; j < l->n_zone; j++) {
            const level_zone *z = &l->zone[j];
            total += search_zone(search[j], book_count(f), z, cell[i] + z->first, book[i] + z->selector, k);
        }
        error = (float)total * (scale * scale);
        if (i > 0 && !(error < least)) continue;
        least = error;
        best = i;
    }
    out->scale = first + best;
    memcpy(out->book, book[best], sizeof out->book);
    for (int j = 0; j < l->n_zone; j++) {
        const level_zone *z = &l->zone[j];
        for (int b = 0, i = 0; i < z->d; b++) {
            const uint8_t *code = search[j]->code[book[best][z->selector + b]];
            for (int end = i + z->block < z->d ? i + z->block : z->d; i < end; i++)
                out->code[z->first + i] = code[cell[best][z->first + i]];
        }
    }
}

static void put_selectors(const level_layout *l, uint8_t *bytes, int slot, const uint8_t *book) {
    uint8_t *at = bytes + l->selectors + (size_t)slot * (size_t)l->selector_bytes;
    for (int b = 0; b < l->n_selector; b += 2)
        at[b / 2] = (uint8_t)(book[b] | (b + 1 < l->n_selector ? book[b + 1] << 4 : 0));
}

/* Three scales around the expected one are tried; the one with the least error stays. */
static void encode(const kvant_part *part, uint8_t *bytes, int slot, const float *x, const kvant_kernels *k) {
    level_layout l = layout_of(&part->format, part->head_dim);
    int d = part->head_dim, bits = part->format.bits;
    level_choice choice;
    float rms = sqrtf(k->dot_f32(x, x, d) / (float)d);
    if (has_books(&part->format))
        search_scales(&part->format, &l, x, rms, &choice, k);
    else
        search_ints(bits, x, d, &choice, k);
    bool is_number = rms > 0.0f && rms <= 3.4e38f;
    bytes[l.scales + (size_t)slot] = (uint8_t)(is_number ? choice.scale : 0);
    put_selectors(&l, bytes, slot, choice.book);
    if (bits == 8) memcpy(bytes + (size_t)slot * (size_t)d, choice.code, (size_t)d);
    for (int i = 0; i < l.n_zone && bits != 8; i++)
        put_planes(&l.zone[i], bytes, slot, choice.code + l.zone[i].first);
}

static void decode(const kvant_part *part, const uint8_t *bytes, int slot, float *x, const kvant_kernels *k) {
    level_layout l = layout_of(&part->format, part->head_dim);
    int8_t row[KVANT_HEAD_DIM_MAX], room[KVANT_HEAD_DIM_MAX];
    const int8_t *levels = levels_of(part, &l, bytes, slot, 1, row, room, k);
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
    return levels_of(part, &l, bytes, 0, TOKENS, (int8_t *)s->tile, (int8_t *)s->tile_f32, k);
}

static void score(const kvant_part *part, const uint8_t *bytes, const kvant_query *q, float *scores, const kvant_kernels *k,
                  kvant_codec_scratch *s) {
    kvant_score_levels args = {expand(part, bytes, k, s), s->scale, part->head_dim, q->n, q->q16, q->q16_scale, scores};
    k->score_levels(&args);
}

static void mix(const kvant_part *part, const uint8_t *bytes, const float *weights, int n, bool exact, float *acc,
                size_t acc_stride, const kvant_kernels *k, kvant_codec_scratch *s) {
    (void)exact; /* 16 bits are as good as floats here */
    kvant_mix_levels args = {expand(part, bytes, k, s), part->head_dim, n, s->w16, s->w16_scale, acc, acc_stride};
    for (int i = 0; i < n; i++)
        s->w16_scale[i] = k->weigh_q16(s->w16 + (size_t)i * TOKENS, weights + (size_t)i * TOKENS, s->scale, TOKENS);
    k->mix_levels(&args);
}

const kvant_codec kvant_codec_book = {KVANT_CODEC_BOOK, "bc",   check_levels, part_bytes, form,
                                      rotation,         encode, decode,       score,      mix};
const kvant_codec kvant_codec_int = {KVANT_CODEC_INT, "i", check_levels, part_bytes, form, rotation, encode, decode, score, mix};
const kvant_codec kvant_codec_lloyd = {KVANT_CODEC_LLOYD, "lm",   check_levels, part_bytes, form,
                                       rotation,          encode, decode,       score,      mix};
const kvant_codec kvant_codec_zone = {KVANT_CODEC_ZONE, "bz",   check_levels, part_bytes, form,
                                      rotation,         encode, decode,       score,      mix};
