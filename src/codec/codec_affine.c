// SPDX-License-Identifier: MIT
/* codec_affine.c: MLX's affine format in pages: value = scale * code + bias for groups of 32, 64 or 128 along head_dim.
 *
 * Nothing is dequantized to attend: q.k = scale * (q . codes) + bias * sum(q) for K, and for V the scale of a token is folded
 * into its weight, so both are integer products of the codes.
 *
 *   K part: codes, four panels [head_dim/32] block32s; scales, then biases, binary16 [4 panels][groups][16 tokens]
 *   V part: codes, head_dim/16 panels of 2 block32s (64 tokens); scales, then biases, binary16 [groups][64 tokens]
 * (affine_f32: float instead of binary16)
 * 8-bit codes are stored minus 128 ("s" tiles); the bias grows by 128 scales when it is read.
 *
 * Not here: the choice of codes (affine_rule.c). */
#include <string.h>

#include "base/half.h"
#include "codec/affine_rule.h"
#include "codec/codec.h"
#include "kernel/panel.h"

#define ROWS KVANT_PANEL_ROWS
#define TOKENS KVANT_PAGE_TOKENS

static kvant_status check_affine(const kvant_format *f, int head_dim, kvant_error *err) {
    char name[KVANT_FORMAT_NAME_MAX];
    kvant_format_name(f, name);
    if (head_dim > 0 && head_dim <= KVANT_HEAD_DIM_MAX && head_dim % f->group == 0) return KVANT_OK;
    int nearest = head_dim % 128 == 0 ? 128 : head_dim % 64 == 0 ? 64 : head_dim % 32 == 0 ? 32 : 0;
    if (nearest > f->group) nearest = f->group;
    if (nearest == 0 || head_dim > KVANT_HEAD_DIM_MAX)
        return kvant_fail(err, KVANT_EUNSUPPORTED,
                          "format %s: head_dim %d is not a multiple of 32 up to %d; the nearest format is f16", name, head_dim,
                          KVANT_HEAD_DIM_MAX);
    return kvant_fail(err, KVANT_EUNSUPPORTED,
                      "format %s: groups of %d do not divide head_dim %d; the nearest format is affine%d:%d", name, f->group,
                      head_dim, f->bits, nearest);
}

static size_t codes_bytes(const kvant_format *f, int head_dim) { return (size_t)TOKENS * (size_t)head_dim * (size_t)f->bits / 8; }

static bool is_wide(const kvant_format *f) { return f->codec == KVANT_CODEC_AFFINE_F32; }

/* Of a scale or bias. */
static size_t number_bytes(const kvant_format *f) { return is_wide(f) ? sizeof(float) : sizeof(uint16_t); }

static size_t part_bytes(const kvant_format *f, kvant_side side, int head_dim) {
    (void)side;
    return codes_bytes(f, head_dim) + 2 * number_bytes(f) * (size_t)TOKENS * (size_t)(head_dim / f->group);
}

/* int8 queries and weights lose up to 0.4 % of the largest value of 32. That is well below the error of 4-bit codes, not of finer
 * ones; those are expanded to floats, which is faster than a second integer product of what the first one lost. */
static kvant_query_form form(const kvant_format *f) { return f->bits <= 4 ? KVANT_QUERY_Q8 : KVANT_QUERY_FLOAT; }

static const uint8_t *scales_of(const kvant_part *part, const uint8_t *bytes) {
    return bytes + codes_bytes(&part->format, part->head_dim);
}

static const uint8_t *biases_of(const kvant_part *part, const uint8_t *bytes) {
    return scales_of(part, bytes) + number_bytes(&part->format) * (size_t)TOKENS * (size_t)(part->head_dim / part->format.group);
}

/* n scales or biases as floats. */
static void get_numbers(const kvant_part *part, const uint8_t *from, int n, float *out, const kvant_kernels *k) {
    if (is_wide(&part->format)) memcpy(out, from, (size_t)n * sizeof *out);
    else k->f16_to_f32(out, (const uint16_t *)(const void *)from, n);
}

static float get_number(const kvant_part *part, const uint8_t *from, size_t at) {
    float x;
    if (!is_wide(&part->format)) return kvant_f16_to_f32(((const uint16_t *)(const void *)from)[at]);
    memcpy(&x, from + at * sizeof x, sizeof x);
    return x;
}

static void put_number(const kvant_part *part, const uint8_t *to, size_t at, float x) {
    uint8_t *p = (uint8_t *)(uintptr_t)to + at * number_bytes(&part->format);
    uint16_t half = kvant_f32_to_f16(x);
    if (is_wide(&part->format)) memcpy(p, &x, sizeof x);
    else memcpy(p, &half, sizeof half);
}

static size_t scale_at(const kvant_part *part, int slot, int group) {
    int n_group = part->head_dim / part->format.group;
    if (part->side == KVANT_SIDE_K) return (size_t)((slot / ROWS * n_group + group) * ROWS + slot % ROWS);
    return (size_t)(group * TOKENS + slot);
}

/* The codes of one row of a K panel: n columns, 4 rows of bytes apart in every plane (kernel/kernels.h). */
static void put_row(uint8_t *panel, int bits, int row, const uint8_t *codes, int n) {
    for (const uint8_t *c = codes; c < codes + n; c += KVANT_BLOCK, panel += 64 * bits) {
        uint8_t *at = panel + 4 * row;
        int shift = 0;
        for (int i = 0; bits == 8 && i < 8; i++)
            for (int j = 0; j < 4; j++)
                at[64 * i + j] = (uint8_t)(c[4 * i + j] ^ 0x80);
        if (bits == 8) continue;
        if (bits >= 4) {
            for (int i = 0; i < 4; i++)
                for (int j = 0; j < 4; j++)
                    at[64 * i + j] = (uint8_t)((c[8 * i + j] & 15) | c[8 * i + 4 + j] << 4);
            at += 256;
            shift = 4;
        }
        if (bits - shift >= 2) {
            for (int i = 0; i < 2; i++)
                for (int j = 0; j < 4; j++) {
                    int b = 0;
                    for (int m = 0; m < 4; m++)
                        b |= (c[16 * i + 4 * m + j] >> shift & 3) << 2 * m;
                    at[64 * i + j] = (uint8_t)b;
                }
            at += 128;
            shift += 2;
        }
        for (int j = 0; bits > shift && j < 4; j++) {
            int b = 0;
            for (int m = 0; m < 8; m++)
                b |= (c[4 * m + j] >> shift & 1) << m;
            at[j] = (uint8_t)b;
        }
    }
}

/* One field of a byte for each of n rows of V panels `step` bytes apart. */
static void put_field(uint8_t *at, size_t step, int up, int mask, int shift, const uint8_t *codes, int n) {
    for (const uint8_t *c = codes; c < codes + n; c += ROWS, at += step)
        for (int r = 0; r < ROWS; r++)
            at[4 * r] = (uint8_t)((at[4 * r] & ~(mask << up)) | (c[r] >> shift & mask) << up);
}

/* The codes of one column of the V panels: element i of a token is row i. */
static void put_column(uint8_t *panels, int bits, int column, const uint8_t *codes, int n) {
    size_t step = (size_t)TOKENS / KVANT_BLOCK * 64 * (size_t)bits;
    uint8_t *at = panels + (size_t)(column / 32) * 64 * (size_t)bits + column % 4;
    int chunk = column % 32 / 4, shift = 0;
    if (bits == 8) {
        at += 64 * chunk;
        for (const uint8_t *c = codes; c < codes + n; c += ROWS, at += step)
            for (int r = 0; r < ROWS; r++)
                at[4 * r] = (uint8_t)(c[r] ^ 0x80);
        return;
    }
    if (bits >= 4) {
        put_field(at + 64 * (chunk / 2), step, 4 * (chunk % 2), 15, 0, codes, n);
        at += 256;
        shift = 4;
    }
    if (bits - shift >= 2) {
        put_field(at + 64 * (chunk / 4), step, 2 * (chunk % 4), 3, shift, codes, n);
        at += 128;
        shift += 2;
    }
    if (bits > shift) put_field(at, step, chunk, 1, shift, codes, n);
}

/* One code of a packed panel at (row, column): planes as in kernel/kernels.h. */
static uint8_t get_code(const uint8_t *panel, int bits, int row, int column) {
    const uint8_t *at = panel + (size_t)(column / 32) * 64 * (size_t)bits + 4 * row + column % 4;
    int chunk = column % 32 / 4, shift = 0, code = 0;
    if (bits == 8) return (uint8_t)(at[64 * chunk] ^ 0x80);
    if (bits >= 4) {
        code = at[64 * (chunk / 2)] >> (4 * (chunk % 2)) & 15;
        at += 256;
        shift = 4;
    }
    if (bits - shift >= 2) {
        code |= (at[64 * (chunk / 4)] >> (2 * (chunk % 4)) & 3) << shift;
        at += 128;
        shift += 2;
    }
    if (bits > shift) code |= (*at >> chunk & 1) << shift;
    return (uint8_t)code;
}

/* The panel, row and column of element i of a slot. */
static size_t place(const kvant_part *part, int slot, int i, int *row, int *column) {
    size_t bits = (size_t)part->format.bits;
    if (part->side == KVANT_SIDE_K) {
        *row = slot % ROWS;
        *column = i;
        return (size_t)(slot / ROWS) * (size_t)(part->head_dim / 32) * 64 * bits;
    }
    *row = i % ROWS;
    *column = slot;
    return (size_t)(i / ROWS) * 2 * 64 * bits;
}

/* MLX quantizes what its cache holds, of a half precision model in half precision: the bias, one of these values, is then exact,
 * every stored number is finite, and a token that was kept as f16 first has the same codes. A float32 model's cache is float32;
 * there, too, a number that is not finite must not spoil whole rows. */
static void round_values(const kvant_part *part, const float *x, float *rounded, const kvant_kernels *k) {
    uint16_t half[KVANT_HEAD_DIM_MAX];
    if (is_wide(&part->format)) {
        for (int i = 0; i < part->head_dim; i++)
            rounded[i] = x[i] > 1e37f ? 1e37f : x[i] < -1e37f ? -1e37f : x[i];
        return;
    }
    kvant_round_to_half(half, x, part->head_dim, k);
    k->f16_to_f32(rounded, half, part->head_dim);
}

void kvant_affine_put_codes(const kvant_part *part, uint8_t *bytes, int slot, const uint8_t *codes, const float *scales,
                            const float *biases) {
    int d = part->head_dim, bits = part->format.bits;
    for (int g = 0; g * part->format.group < d; g++) {
        size_t at = scale_at(part, slot, g);
        put_number(part, scales_of(part, bytes), at, scales[g]);
        put_number(part, biases_of(part, bytes), at, biases[g]);
    }
    if (part->side == KVANT_SIDE_V)
        put_column(bytes, bits, slot, codes, d);
    else
        put_row(bytes + (size_t)(slot / ROWS) * (size_t)(d / KVANT_BLOCK) * 64 * (size_t)bits, bits, slot % ROWS, codes, d);
}

void kvant_affine_get_codes(const kvant_part *part, const uint8_t *bytes, int slot, uint8_t *codes, float *scales, float *biases) {
    int row, column;
    for (int i = 0; i < part->head_dim; i++) {
        size_t panel = place(part, slot, i, &row, &column);
        codes[i] = get_code(bytes + panel, part->format.bits, row, column);
    }
    for (int g = 0; g * part->format.group < part->head_dim; g++) {
        scales[g] = get_number(part, scales_of(part, bytes), scale_at(part, slot, g));
        biases[g] = get_number(part, biases_of(part, bytes), scale_at(part, slot, g));
    }
}

static void encode(const kvant_part *part, uint8_t *bytes, int slot, const float *x, const kvant_kernels *k) {
    float rounded[KVANT_HEAD_DIM_MAX], scales[KVANT_HEAD_DIM_MAX / 32], biases[KVANT_HEAD_DIM_MAX / 32];
    uint8_t codes[KVANT_HEAD_DIM_MAX];
    int group = part->format.group;
    round_values(part, x, rounded, k);
    for (int g = 0; g * group < part->head_dim; g++)
        kvant_affine_group(rounded + g * group, group, part->format.bits, codes + g * group, &scales[g], &biases[g]);
    kvant_affine_put_codes(part, bytes, slot, codes, scales, biases);
}

static void decode(const kvant_part *part, const uint8_t *bytes, int slot, float *x, const kvant_kernels *k) {
    (void)k;
    const uint8_t *scales = scales_of(part, bytes), *biases = biases_of(part, bytes);
    int row, column;
    for (int i = 0; i < part->head_dim; i++) {
        size_t panel = place(part, slot, i, &row, &column), at = scale_at(part, slot, i / part->format.group);
        float code = (float)get_code(bytes + panel, part->format.bits, row, column);
        x[i] = get_number(part, scales, at) * code + get_number(part, biases, at);
    }
}

/* Scales and biases of a K part, one row of 16 for every 32 columns: [4 panels][head_dim/32][16]. */
static void expand_scales(const kvant_part *part, const uint8_t *bytes, const kvant_kernels *k, kvant_codec_scratch *s) {
    int n_group = part->head_dim / part->format.group, repeat = part->format.group / 32, n = TOKENS * n_group;
    /* The compact rows are converted at the end of the room and spread from there. */
    float *scale = s->scale + (repeat - 1) * n, *bias = s->bias + (repeat - 1) * n;
    get_numbers(part, scales_of(part, bytes), n, scale, k);
    get_numbers(part, biases_of(part, bytes), n, bias, k);
    if (part->format.bits == 8) k->add_scaled_f32(bias, scale, 128.0f, n);
    if (repeat == 1) return;
    for (int row = 0; row < n / ROWS; row++) {
        float a[ROWS], b[ROWS];
        memcpy(a, scale + row * ROWS, sizeof a);
        memcpy(b, bias + row * ROWS, sizeof b);
        for (int r = 0; r < repeat; r++) {
            memcpy(s->scale + (row * repeat + r) * ROWS, a, sizeof a);
            memcpy(s->bias + (row * repeat + r) * ROWS, b, sizeof b);
        }
    }
}

static void score(const kvant_part *part, const uint8_t *bytes, const kvant_query *q, float *scores, const kvant_kernels *k,
                  kvant_codec_scratch *s) {
    size_t d = (size_t)part->head_dim;
    int n_block = part->head_dim / 32;
    bool is_signed = part->format.bits == 8;
    memset(scores, 0, (size_t)q->n * TOKENS * sizeof(float));
    kvant_fetch_next(s);
    expand_scales(part, bytes, k, s);
    const uint8_t *tile = kvant_panel_unpack(k, part->format.bits, bytes, 4 * n_block, s->tile);
    for (int p = 0; p < TOKENS / ROWS; p++) {
        const uint8_t *panel = tile + (size_t)p * ROWS * d;
        const float *scale = s->scale + p * n_block * ROWS, *bias = s->bias + p * n_block * ROWS;
        if (q->form == KVANT_QUERY_Q8) {
            kvant_product_f32 biases = {bias, n_block, q->n, q->q_total, d / 32, scores + p * ROWS, TOKENS};
            k->product_f32(&biases);
            kvant_product_q8 args = {.tile = panel,
                                     .scale = scale,
                                     .scale_block = 32,
                                     .n_block = n_block,
                                     .n = q->n,
                                     .x = q->q,
                                     .x_stride = d,
                                     .x_scale = q->q_scale,
                                     .x_scale_stride = d / 32,
                                     .x_sum = q->q_sum,
                                     .acc = scores + p * ROWS,
                                     .acc_stride = TOKENS,
                                     .max_code = (1 << part->format.bits) - 1};
            k->product_u(&args);
            continue;
        }
        (is_signed ? k->tile_s_to_f32 : k->tile_u_to_f32)(s->tile_f32, panel, scale, bias, 32, n_block);
        kvant_product_f32 args = {s->tile_f32, part->head_dim, q->n, q->x, d, scores + p * ROWS, TOKENS};
        k->product_f32(&args);
    }
}

static void multiply(float *restrict y, const float *restrict a, const float *restrict b) {
    for (int i = 0; i < TOKENS; i++)
        y[i] = a[i] * b[i];
}

/* shift * 1 is exact: adds a number to a row. */
static const float ones[128] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
                                1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
                                1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
                                1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};

/* acc[i][group] += sum over tokens of weight * scale * code, with w [n][64] the products of weight and scale; integer: int8 in
 * wq. */
static void mix_codes(const kvant_part *part, const uint8_t *tile, int group, int n, bool is_integer, float *acc,
                      size_t acc_stride, const kvant_kernels *k, kvant_codec_scratch *s) {
    bool is_signed = part->format.bits == 8;
    int n_panel = part->format.group / ROWS;
    for (int p = group * n_panel; p < (group + 1) * n_panel; p++) {
        const uint8_t *panel = tile + (size_t)p * ROWS * TOKENS;
        if (is_integer) {
            kvant_product_q8 args = {.tile = panel,
                                     .scale_block = 32,
                                     .n_block = 2,
                                     .n = n,
                                     .x = s->wq,
                                     .x_stride = TOKENS,
                                     .x_scale = s->wq_scale,
                                     .x_scale_stride = 2,
                                     .x_sum = s->wq_sum,
                                     .acc = acc + p * ROWS,
                                     .acc_stride = acc_stride,
                                     .max_code = (1 << part->format.bits) - 1};
            k->product_u(&args);
            continue;
        }
        (is_signed ? k->tile_s_to_f32 : k->tile_u_to_f32)(s->tile_f32, panel, NULL, NULL, 32, 2);
        kvant_product_f32 args = {s->tile_f32, TOKENS, n, s->w, TOKENS, acc + p * ROWS, acc_stride};
        k->product_f32(&args);
    }
}

/* The bias of a token is the same for all elements of a group: one number a group and query, added in floats.
 * Integer weights lose a little; what they lose would be multiplied by codes of 0..15, so the middle of the codes is taken out
 * of the integer product and joins the bias, where weights are floats: half the error. */
static void mix(const kvant_part *part, const uint8_t *bytes, const float *weights, int n, bool exact, float *acc,
                size_t acc_stride, const kvant_kernels *k, kvant_codec_scratch *s) {
    int group = part->format.group, n_group = part->head_dim / group;
    bool is_integer = !exact && form(&part->format) == KVANT_QUERY_Q8;
    float middle = is_integer ? (float)((1 << part->format.bits) - 1) * 0.5f : 0.0f;
    kvant_fetch_next(s);
    const uint8_t *tile = kvant_panel_unpack(k, part->format.bits, bytes, part->head_dim / ROWS * 2, s->tile);
    get_numbers(part, scales_of(part, bytes), TOKENS * n_group, s->scale, k);
    get_numbers(part, biases_of(part, bytes), TOKENS * n_group, s->bias, k);
    if (is_integer) k->add_scaled_f32(s->bias, s->scale, middle, TOKENS * n_group);
    if (part->format.bits == 8) k->add_scaled_f32(s->bias, s->scale, 128.0f, TOKENS * n_group);
    for (int g = 0; g < n_group; g++) {
        const float *scale = s->scale + g * TOKENS, *bias = s->bias + g * TOKENS;
        for (int i = 0; i < n; i++) {
            const float *weight = weights + (size_t)i * TOKENS;
            float *step = s->wq_scale + (size_t)i * 2, shift;
            int16_t *sum = s->wq_sum + (size_t)i * 4;
            if (is_integer) {
                shift = k->weigh_q8(s->wq + (size_t)i * TOKENS, step, sum, weight, scale, bias, TOKENS);
                shift -= middle * (step[0] * (float)(sum[0] + sum[1]) + step[1] * (float)(sum[2] + sum[3]));
            } else {
                shift = k->dot_f32(weight, bias, TOKENS);
                multiply(s->w + (size_t)i * TOKENS, weight, scale);
            }
            k->add_scaled_f32(acc + (size_t)i * acc_stride + g * group, ones, shift, group);
        }
        mix_codes(part, tile, g, n, is_integer, acc, acc_stride, k, s);
    }
}

const kvant_codec kvant_codec_affine = {
    KVANT_CODEC_AFFINE, "affine", check_affine, part_bytes, form, kvant_rotation_none, encode, decode, score, mix};

const kvant_codec kvant_codec_affine_f32 = {
    KVANT_CODEC_AFFINE_F32, "affine_f32", check_affine, part_bytes, form, kvant_rotation_none, encode, decode, score, mix};
