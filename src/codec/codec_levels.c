// SPDX-License-Identifier: MIT
/* codec_levels.c: Kvant's own formats: a vector is rotated to look Gaussian, and stored as codes of int8 levels with one scale.
 *
 *   bc2..bc5  each block of 32 elements (16 at 2 bits, or where the format says so) uses the best of 16 codebooks, named by a
 *             4-bit selector
 *   bz2..bz4  the same in blocks of 16 for keys, whose elements the cache has put in the order of their energies: a quarter of them gets a bit
 *             more, a quarter a bit less
 *   i6, i8    integers
 *   lm2..lm4  one Lloyd-Max codebook (the first stage of TurboQuant, https://arxiv.org/abs/2504.19874), for comparison
 *
 * A part, K or V: the planes of the codes (kernel/kernels.h, level rows), each [64 tokens]; selectors [64]; scales [64], one
 * byte: 0 for a vector of zeros or with an element that is not finite, else e for 2^((e - 161) / 8) a level. A scale is one of
 * the search's three candidates, and codes are chosen for what it really is, so its coarse steps cost 1 to 2 % of the noise and
 * save a byte. Attention multiplies int8 levels with queries and weights of 16 bits in integers: nothing is dequantized, and
 * the rounding is far below that of the formats. With KVANT_FAST queries of bc2..bc4 and lm have 8 bits.
 *
 * Not here: the rotation and the mean of the keys (cache/transform.h), the loops (kernel/). */
#include <math.h>
#include <string.h>

#include "base/bytes.h"
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
    if (z->bits % 2 == 1) at += TOKENS * d / 8;
    z->end = at;
    return at;
}

/* Elements that share a book. The books are trained for 16 elements up to 2 bits and for 32 above, where they are as good for 16. */
static int block_of(const kvant_format *f, int head_dim) {
    if (!has_books(f)) return head_dim;
    if (f->codec == KVANT_CODEC_LLOYD) return 2 * HALF;
    return f->group == HALF || f->bits == 2 || f->codec == KVANT_CODEC_ZONE ? HALF : 2 * HALF;
}

/* The zones that are not used stay as they are. */
static void lay_out(const kvant_format *f, int head_dim, level_layout *l) {
    bool selects = f->codec == KVANT_CODEC_BOOK || f->codec == KVANT_CODEC_ZONE;
    size_t at = 0;
    int first = 0;
    l->n_zone = f->codec == KVANT_CODEC_ZONE ? KVANT_ZONES : 1;
    l->n_selector = 0;
    for (int i = 0; i < l->n_zone; i++) {
        level_zone *z = &l->zone[i];
        z->first = first;
        z->d = zone_size(f, head_dim, i);
        z->bits = zone_bits(f, i);
        z->block = block_of(f, head_dim);
        z->selector = l->n_selector;
        if (selects) l->n_selector += z->block == HALF ? z->d / HALF : (z->d + HALF) / (2 * HALF);
        at = place_zone(z, at);
        first += z->d;
    }
    l->selector_bytes = (l->n_selector + 1) / 2;
    l->selectors = at;
    l->scales = at + TOKENS * (size_t)l->selector_bytes;
    l->bytes = l->scales + TOKENS;
}

static kvant_status check_levels(const kvant_format *f, int head_dim, kvant_error *err) {
    char name[KVANT_FORMAT_NAME_MAX];
    bool fits = head_dim >= HALF && head_dim <= KVANT_HEAD_DIM_MAX && head_dim % HALF == 0;
    kvant_format_name(f, name);
    if (fits && f->codec == KVANT_CODEC_ZONE && head_dim < 4 * HALF)
        return kvant_fail(err, KVANT_EUNSUPPORTED, "format %s: head_dim %d is less than 64; the nearest format is bc%d", name,
                          head_dim, f->bits);
    if (fits) return KVANT_OK;
    return kvant_fail(err, KVANT_EUNSUPPORTED,
                      "format %s: head_dim %d is not a multiple of 16 up to %d; the nearest format is f16", name, head_dim,
                      KVANT_HEAD_DIM_MAX);
}

static size_t part_bytes(const kvant_format *f, kvant_side side, int head_dim) {
    level_layout l;
    (void)side;
    lay_out(f, head_dim, &l);
    return l.bytes;
}

/* Rounding queries to 8 bits costs 0.5 to 1 % of the noise of 4 bits, but 2 to 4 % in zones, whose keys differ in size. */
static kvant_query_form form(const kvant_format *f) {
    bool is_coarse = (f->codec == KVANT_CODEC_BOOK || f->codec == KVANT_CODEC_LLOYD) && f->bits <= 4;
    return is_coarse ? KVANT_QUERY_PAIRS : KVANT_QUERY_Q16;
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

/* 2^(i/8), and the same times 2^p. */
#define EIGHTH0 0x1p+0f
#define EIGHTH1 0x1.172b84p+0f
#define EIGHTH2 0x1.306fe0p+0f
#define EIGHTH3 0x1.4bfdaep+0f
#define EIGHTH4 0x1.6a09e6p+0f
#define EIGHTH5 0x1.8ace54p+0f
#define EIGHTH6 0x1.ae89fap+0f
#define EIGHTH7 0x1.d5818ep+0f
#define EIGHTHS(p) p *EIGHTH0, p *EIGHTH1, p *EIGHTH2, p *EIGHTH3, p *EIGHTH4, p *EIGHTH5, p *EIGHTH6, p *EIGHTH7
#define OCTAVES4(p) EIGHTHS(p), EIGHTHS(2 * p), EIGHTHS(4 * p), EIGHTHS(8 * p)

static const float eighths[8] = {EIGHTHS(1.0f)};

/* The scale of each e; index 256 is unused. */
static const float scales[257] = {0.0f,
                                  OCTAVES4(0x1p-20f),
                                  OCTAVES4(0x1p-16f),
                                  OCTAVES4(0x1p-12f),
                                  OCTAVES4(0x1p-8f),
                                  OCTAVES4(0x1p-4f),
                                  OCTAVES4(0x1p+0f),
                                  OCTAVES4(0x1p+4f),
                                  OCTAVES4(0x1p+8f)};

static float scale_of(uint8_t e) { return scales[e]; }

/* The largest e whose scale is not above `scale`, 1 to 255 (a NaN is 1). */
static int scale_below(float scale) {
    int i = 7;
    if (!(scale > scale_of(1))) return 1;
    if (scale >= scale_of(255)) return 255;
    uint32_t bits = kvant_f32_bits(scale);
    float mantissa = kvant_bits_f32((bits & 0x7FFFFF) | 127u << 23);
    while (eighths[i] > mantissa)
        i--;
    return 8 * ((int)(bits >> 23) - 127) + i + SCALE_BIAS;
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
    case 1:
        k->levels1(levels, rows);
        break;
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

/* The selectors of a zone of one block, those of all rows one after another: out [(n + 1) / 2]. */
static void single_selectors(const level_layout *l, const level_zone *z, const uint8_t *rows, int n, uint8_t *out) {
    int r = 0, up = 4 * z->selector;
    for (; l->selector_bytes == 2 && r + 4 <= n; r += 4, out += 2) {
        uint64_t s = kvant_read_u64(rows + 2 * r) >> up & 0x000F000F000F000Fu;
        s |= s >> 12;
        kvant_write_u16(out, (uint16_t)((s & 0xFF) | s >> 24));
    }
    for (rows += r * l->selector_bytes + z->selector / 2; r < n; r++, rows += l->selector_bytes) {
        uint8_t s = z->selector % 2 ? *rows >> 4 : *rows & 15;
        if (r % 2)
            *out++ |= (uint8_t)(s << 4);
        else
            *out = s;
    }
}

/* The selectors of a zone of more blocks, as rows of their own: out [n][(blocks + 1) / 2]. A row that begins in the middle of a
 * byte may read the byte after it, which is another row's or a scale. */
static void row_selectors(const level_layout *l, const level_zone *z, const uint8_t *rows, int n, uint8_t *out) {
    int n_block = (z->d + z->block - 1) / z->block, n_byte = (n_block + 1) / 2, r = 0;
    for (; l->selector_bytes == 2 && n_block == 2 && r + 4 <= n; r += 4, out += 4) {
        uint64_t s = kvant_read_u64(rows + 2 * r) >> 4 * z->selector & 0x00FF00FF00FF00FFu;
        s |= s >> 8;
        kvant_write_u32(out, (uint32_t)((s & 0xFFFF) | (s >> 16 & 0xFFFF0000u)));
    }
    for (rows += r * l->selector_bytes + z->selector / 2; r < n; r++, rows += l->selector_bytes, out += n_byte) {
        for (int b = 0; b < n_byte; b++)
            out[b] = z->selector % 2 ? (uint8_t)(rows[b] >> 4 | rows[b + 1] << 4) : rows[b];
        if (n_block % 2) out[n_byte - 1] &= 15;
    }
}

/* Copies of a size that the compiler knows. */
static inline void copy_columns(int8_t *to, size_t to_stride, const int8_t *from, size_t from_stride, int n, size_t size) {
    for (int r = 0; r < n; r++)
        memcpy(to + (size_t)r * to_stride, from + (size_t)r * from_stride, size);
}

/* Zones are expanded one after another and put side by side. Rows of one block make one long row, which is expanded faster. */
static void expand_zones(const kvant_part *part, const level_layout *l, const uint8_t *bytes, int first, int n, int8_t *levels,
                         int8_t *room, const kvant_kernels *k) {
    uint8_t selectors[TOKENS * (KVANT_HEAD_DIM_MAX / HALF / 2 + 1)];
    const uint8_t *row = bytes + l->selectors + (size_t)first * (size_t)l->selector_bytes;
    size_t d = (size_t)part->head_dim;
    for (int i = 0; i < l->n_zone; i++) {
        const level_zone *z = &l->zone[i];
        kvant_level_rows rows = rows_of(part, z, bytes, first, n);
        rows.selectors = selectors;
        if (z->d <= z->block) {
            single_selectors(l, z, row, n, selectors);
            rows.block = z->d;
            rows.d = z->d * n;
            rows.n = 1;
        } else {
            row_selectors(l, z, row, n, selectors);
        }
        expand_rows(z->bits, room, &rows, k);
        int8_t *to = levels + z->first;
        size_t c = 0, size = (size_t)z->d;
        for (; c + 4 * HALF <= size; c += 4 * HALF)
            copy_columns(to + c, d, room + c, size, n, 4 * HALF);
        for (; c + 2 * HALF <= size; c += 2 * HALF)
            copy_columns(to + c, d, room + c, size, n, 2 * HALF);
        if (c < size) copy_columns(to + c, d, room + c, size, n, HALF);
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

#define EACH8(byte) (0x0101010101010101u * (uint64_t)(byte))
#define EACH4(byte) (0x01010101u * (uint32_t)(byte))

static void put_plane4(uint8_t *out, const uint8_t *code, int d) {
    for (int i = 0; i < d; i += HALF, out += 8) {
        uint64_t low = kvant_read_u64(code + i) & EACH8(15), high = kvant_read_u64(code + i + 8) & EACH8(15);
        uint64_t both = low | high << 4;
        kvant_write_u32(out, (uint32_t)both);
        kvant_write_u32(out + 4, (uint32_t)(both >> 32));
    }
}

/* Bits `up` and up + 1 of the codes. */
static void put_plane2(uint8_t *out, const uint8_t *code, int d, int up) {
    for (int i = 0; i < d; i += HALF, out += 4) {
        uint32_t all = 0;
        for (int j = 0; j < 4; j++)
            all |= (kvant_read_u32(code + i + 4 * j) >> up & EACH4(3)) << 2 * j;
        kvant_write_u32(out, all);
    }
}

/* Bit `up` of eight codes: the product moves that of byte j to bit 56 + j. */
static uint8_t gather_bits(const uint8_t *code, int up) {
    return (uint8_t)((kvant_read_u64(code) >> up & EACH8(1)) * 0x0102040810204080u >> 56);
}

static void put_planes(const level_zone *l, uint8_t *bytes, int slot, const uint8_t *code) {
    size_t half = (size_t)slot * (size_t)(l->d / HALF);
    bool has4 = l->plane2 > l->plane4, has2 = l->plane1 > l->plane2, has1 = l->end > l->plane1;
    if (has4) put_plane4(bytes + l->plane4 + half * 8, code, l->d);
    if (has2) put_plane2(bytes + l->plane2 + half * 4, code, l->d, has4 ? 4 : 0);
    uint8_t *p1 = bytes + l->plane1 + half * 2;
    for (int i = 0; has1 && i < l->d; i += 8)
        *p1++ = gather_bits(code + i, l->bits - 1);
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

/* Loops over halves have a fixed length inside, which compilers turn into vectors without being asked to. */
static float max_magnitude(const float *x, int d) {
    float most[HALF] = {0.0f}, largest = 0.0f;
    for (int i = 0; i < d; i += HALF)
        for (int j = 0; j < HALF; j++)
            most[j] = fabsf(x[i + j]) > most[j] ? fabsf(x[i + j]) : most[j];
    for (int j = 0; j < HALF; j++)
        largest = most[j] > largest ? most[j] : largest;
    return largest;
}

#define TO_NEAREST 0x1.8p+23f /* added and taken away again it leaves the nearest integer of a number below 2^22 */

/* The codes of integers, and the squared error less that of all zeros. */
static float choose_ints(int bits, const float *restrict x, int d, float scale, uint8_t *restrict code, const kvant_kernels *k) {
    float inverse = 1.0f / scale, most = bits == 8 ? 127.0f : 31.0f, level[KVANT_HEAD_DIM_MAX];
    int zero = bits == 8 ? 0 : 32, square[HALF] = {0}, sum = 0;
    for (int i = 0; i < d; i += HALF) {
        int whole[HALF];
        for (int j = 0; j < HALF; j++) {
            float v = x[i + j] * inverse;
            v = v < most ? v : most;
            v = v > -most ? v : -most;
            v = (v + TO_NEAREST) - TO_NEAREST;
            level[i + j] = v;
            whole[j] = (int)v;
        }
        for (int j = 0; j < HALF; j++)
            square[j] += (int)(level[i + j] * level[i + j]);
        for (int j = 0; j < HALF; j++)
            code[i + j] = (uint8_t)(whole[j] + zero);
    }
    for (int j = 0; j < HALF; j++)
        sum += square[j];
    return scale * (scale * (float)sum - 2.0f * k->dot_f32(x, level, d));
}

/* The largest value may be cut, or not: the first of the scales is 2^(-1/8) of the one that cuts nothing, or less. */
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
    for (int i = 0; n_book == 1 && i < z->d; i++)
        total += search->errors[cell[i]][0];
    if (n_book == 1) return total;
    total = k->search_books(book, search->errors, cell, z->block, whole);
    if (rest) total += k->search_books(book + whole, search->errors, cell + whole * z->block, rest, 1);
    return total;
}

static void look_up(uint8_t *restrict out, const uint8_t *restrict code, const int16_t *restrict cell) {
    for (int i = 0; i < HALF; i += 4) {
        out[i] = code[cell[i]];
        out[i + 1] = code[cell[i + 1]];
        out[i + 2] = code[cell[i + 2]];
        out[i + 3] = code[cell[i + 3]];
    }
}

/* What the tables of the search say of a scale is as good as the error itself: their cells are fine. Codes are looked up for the
 * best scale alone. */
static void search_scales(const kvant_format *f, const level_layout *l, const float *x, float rms, level_choice *out,
                          const kvant_kernels *k) {
    const kvant_book_search *search[KVANT_ZONES];
    int16_t cell[N_SCALE][KVANT_HEAD_DIM_MAX];
    uint8_t book[N_SCALE][KVANT_HEAD_DIM_MAX / HALF + 1] = {{0}};
    /* 2^(-1/16): the middle one of the scales is the nearest to the expected one. */
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
        for (int i = 0; i < z->d; i += HALF) {
            int b = book_count(f) == 1 ? 0 : book[best][z->selector + i / z->block];
            look_up(out->code + z->first + i, search[j]->code[b], cell[best] + z->first + i);
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
    level_layout l;
    int d = part->head_dim, bits = part->format.bits;
    level_choice choice;
    float rms = sqrtf(k->dot_f32(x, x, d) / (float)d);
    lay_out(&part->format, part->head_dim, &l);
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
    level_layout l;
    int8_t row[KVANT_HEAD_DIM_MAX], room[KVANT_HEAD_DIM_MAX];
    lay_out(&part->format, part->head_dim, &l);
    const int8_t *levels = levels_of(part, &l, bytes, slot, 1, row, room, k);
    float scale = scale_of(bytes[l.scales + (size_t)slot]);
    for (int i = 0; i < part->head_dim; i++)
        x[i] = scale * (float)levels[i];
}

/* ---- attention ---- */

static const int8_t *expand(const kvant_part *part, const uint8_t *bytes, const kvant_kernels *k, kvant_codec_scratch *s) {
    level_layout l;
    lay_out(&part->format, part->head_dim, &l);
    k->level_scales(s->scale, bytes + l.scales);
    return levels_of(part, &l, bytes, 0, TOKENS, (int8_t *)s->tile, (int8_t *)s->tile_f32, k);
}

/* Queries of 8 bits; with 4 bits few of them meet the levels as they come from the codes. */
static void score_fast(const kvant_part *part, const uint8_t *bytes, const kvant_query *q, float *scores, const kvant_kernels *k,
                       kvant_codec_scratch *s) {
    int8_t *room = (int8_t *)s->tile;
    level_layout l;
    kvant_score_bytes args = {.levels = room,
                              .row_scale = s->scale,
                              .d = part->head_dim,
                              .n = q->n,
                              .q = q->pairs,
                              .q_scale = q->pairs_scale,
                              .scores = scores,
                              .next = s->next,
                              .next_bytes = s->next_bytes};
    lay_out(&part->format, part->head_dim, &l);
    k->level_scales(s->scale, bytes + l.scales);
    if (part->format.bits == 4) {
        kvant_level_rows rows = rows_of(part, &l.zone[0], bytes, 0, TOKENS);
        if (l.n_selector) rows.selectors = bytes + l.selectors;
        k->score_rows4(room, &rows, &args);
        return;
    }
    levels_of(part, &l, bytes, 0, TOKENS, room, (int8_t *)s->tile_f32, k);
    k->score_bytes(&args);
}

static void score(const kvant_part *part, const uint8_t *bytes, const kvant_query *q, float *scores, const kvant_kernels *k,
                  kvant_codec_scratch *s) {
    if (q->form == KVANT_QUERY_PAIRS) {
        score_fast(part, bytes, q, scores, k, s);
        return;
    }
    kvant_score_levels args = {.levels = expand(part, bytes, k, s),
                               .row_scale = s->scale,
                               .d = part->head_dim,
                               .n = q->n,
                               .q = q->q16,
                               .q_scale = q->q16_scale,
                               .scores = scores,
                               .next = s->next,
                               .next_bytes = s->next_bytes};
    k->score_levels(&args);
}

static void mix(const kvant_part *part, const uint8_t *bytes, const float *weights, int n, bool exact, float *acc,
                size_t acc_stride, const kvant_kernels *k, kvant_codec_scratch *s) {
    (void)exact; /* 16 bits are as good as floats here */
    kvant_mix_levels args = {.levels = expand(part, bytes, k, s),
                             .d = part->head_dim,
                             .n = n,
                             .w = s->w16,
                             .w_scale = s->w16_scale,
                             .acc = acc,
                             .acc_stride = acc_stride,
                             .next = s->next,
                             .next_bytes = s->next_bytes};
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
