// SPDX-License-Identifier: MIT
/* weight_mlx.c: MLX's quantized matrices, whose scales and biases lie apart from the codes.
 *
 * Affine: value = scale * code + bias for each group of 32, 64 or 128 neighbours; MXFP4: a power of two times an FP4 level for
 * each
 * 32. Scales and biases keep their own type in the panels (a bfloat16 would overflow a binary16), one for each group; sub-blocks
 * of 32 let the kernels see groups as they see all others. 8-bit codes become signed, as the kernels want them, which the zero
 * point undoes. */
#include "base/bytes.h"
#include "base/mlx_type.h"
#include "weight/weight_formats.h"

/* n codes of 3, 5 or 6 bits, or of any width. */
static void unpack_stream(const uint8_t *restrict src, int bits, int n, uint8_t *restrict codes) {
    uint32_t window = 0, mask = (1u << bits) - 1;
    int have = 0;
    for (int i = 0; i < n; i++) {
        if (have < bits) { /* 8 more are enough, as bits <= 8 */
            window |= (uint32_t)*src++ << have;
            have += 8;
        }
        codes[i] = (uint8_t)(window & mask);
        window >>= bits;
        have -= bits;
    }
}

static void unpack_4(const uint8_t *restrict src, int n, uint8_t *restrict codes) {
    for (int i = 0; i < n / 2; i++) {
        codes[2 * i] = src[i] & 15;
        codes[2 * i + 1] = src[i] >> 4;
    }
}

static void unpack_8(const uint8_t *restrict src, int n, uint8_t *restrict codes) {
    for (int i = 0; i < n; i++)
        codes[i] = src[i] ^ 0x80;
}

static uint32_t read_number(kvant_scale_kind kind, const uint8_t *p) {
    return kind == KVANT_SCALE_F32 ? kvant_read_u32(p) : kvant_read_u16(p);
}

static void split_apart(const kvant_weight_format *f, const kvant_weight_source *source, int64_t row, int64_t index,
                        kvant_weight_block *out) {
    const uint8_t *codes = source->data + (size_t)row * source->row_bytes + (size_t)index * (size_t)f->block_bytes;
    size_t at = (size_t)row * source->scale_row_bytes;
    if (f->code_bits == 4)
        unpack_4(codes, f->block_elements, out->codes);
    else if (f->code_bits == 8)
        unpack_8(codes, f->block_elements, out->codes);
    else
        unpack_stream(codes, f->code_bits, f->block_elements, out->codes);
    if (f->sub == KVANT_SUB_E8M0) {
        out->sub_scale[0] = source->scales[at + (size_t)index];
        return;
    }
    at += (size_t)index * kvant_scale_bytes(f->scale);
    out->d = read_number(f->scale, source->scales + at);
    out->m = read_number(f->scale, source->biases + at);
}

void kvant_split_source(const kvant_weight_format *f, const kvant_weight_source *source, int64_t row, int64_t index,
                        kvant_weight_block *out) {
    if (f->apart)
        split_apart(f, source, row, index, out);
    else
        f->split(source->data + (size_t)row * source->row_bytes + (size_t)index * (size_t)f->block_bytes, out);
}

#define ROW(bits, group, mlx, kind, zero)                                                                                        \
    {KVANT_MLX_TYPE(bits, group, mlx),                                                                                           \
     "AFFINE" #bits "_G" #group,                                                                                                 \
     group,                                                                                                                      \
     group * bits / 8,                                                                                                           \
     bits,                                                                                                                       \
     32,                                                                                                                         \
     zero,                                                                                                                       \
     true,                                                                                                                       \
     KVANT_SUB_NONE,                                                                                                             \
     NULL,                                                                                                                       \
     NULL,                                                                                                                       \
     kind,                                                                                                                       \
     true},
#define GROUPS(bits, mlx, kind, zero)                                                                                            \
    ROW(bits, 32, mlx, kind, zero) ROW(bits, 64, mlx, kind, zero) ROW(bits, 128, mlx, kind, zero)
#define KINDS(bits, zero)                                                                                                        \
    GROUPS(bits, KVANT_MLX_F32, KVANT_SCALE_F32, zero)                                                                           \
    GROUPS(bits, KVANT_MLX_F16, KVANT_SCALE_F16, zero)                                                                           \
    GROUPS(bits, KVANT_MLX_BF16, KVANT_SCALE_BF16, zero)

static const kvant_weight_format formats[] = {
    KINDS(2, 0) KINDS(3, 0) KINDS(4, 0) KINDS(5, 0) KINDS(6, 0)
        KINDS(8, -128){KVANT_MLX_TYPE(4, 32, KVANT_MLX_E8M0), "MXFP4", 32, 16, 4, 32, 0, false, KVANT_SUB_E8M0, kvant_fp4_levels,
                       NULL, KVANT_SCALE_F16, true},
};

const kvant_weight_format *kvant_weight_format_find_mlx(uint32_t type) {
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++)
        if (formats[i].type == type) return &formats[i];
    return NULL;
}
