// SPDX-License-Identifier: MIT
/* weight_decode.c: rows of a file as floats: the reference of every format, and how rows of an embedding are read. */
#include <math.h>
#include <string.h>

#include "base/bytes.h"
#include "base/half.h"
#include "weight/weight_formats.h"

bool kvant_weight_type_traits(uint32_t type, kvant_weight_traits *out) {
    const kvant_weight_format *f = kvant_weight_format_find(type);
    if (!f) return false;
    *out = (kvant_weight_traits){f->name, f->block_elements, f->block_bytes};
    return true;
}

kvant_status kvant_weight_row_bytes(uint32_t type, int64_t n, size_t *out) {
    const kvant_weight_format *f = kvant_weight_format_find(type);
    if (!f) return KVANT_EUNSUPPORTED;
    if (n < 0 || n % f->block_elements != 0 || (uint64_t)n > SIZE_MAX / 256) return KVANT_EFORMAT;
    *out = (size_t)(n / f->block_elements) * (size_t)f->block_bytes;
    return KVANT_OK;
}

static float number(kvant_scale_kind kind, uint32_t bits) {
    if (kind == KVANT_SCALE_F32) return kvant_bits_f32(bits);
    return kind == KVANT_SCALE_BF16 ? kvant_bf16_to_f32((uint16_t)bits) : kvant_f16_to_f32((uint16_t)bits);
}

static float sub_scale(const kvant_weight_format *f, const kvant_weight_block *b, int sub) {
    float d = number(f->scale, b->d);
    switch (f->sub) {
    case KVANT_SUB_U8: return d * (float)b->sub_scale[sub];
    case KVANT_SUB_U4: return d * (float)(b->sub_scale[sub] & 15);
    case KVANT_SUB_I8: return d * (float)(int8_t)b->sub_scale[sub];
    case KVANT_SUB_E8M0: return ldexpf(1.0f, b->sub_scale[sub] - 128);
    case KVANT_SUB_NONE: break;
    }
    return d;
}

static float sub_bias(const kvant_weight_format *f, const kvant_weight_block *b, int sub, float scale) {
    if (!f->has_min) return -(float)f->zero_point * scale;
    float m = number(f->scale, b->m);
    if (f->sub == KVANT_SUB_NONE) return m - (float)f->zero_point * scale;
    return -(m * (float)(f->sub == KVANT_SUB_U4 ? b->sub_scale[sub] >> 4 : b->sub_min[sub]));
}

static void decode_block(const kvant_weight_format *f, const kvant_weight_block *b, float *out) {
    for (int first = 0; first < f->block_elements; first += f->sub_elements) {
        float scale = sub_scale(f, b, first / f->sub_elements);
        float bias = sub_bias(f, b, first / f->sub_elements, scale);
        for (int i = first; i < first + f->sub_elements; i++) {
            int level = f->table ? f->table[b->codes[i]] : f->code_bits == 8 ? (int8_t)b->codes[i] : b->codes[i];
            out[i] = scale * (float)level + bias;
        }
    }
}

void kvant_weight_decode_source(const kvant_weight_source *source, int64_t row, int64_t n, float *out) {
    const kvant_weight_format *f = kvant_weight_format_find(source->type);
    if (!f) return;
    if (f->code_bits) {
        kvant_weight_block b;
        b.d = 0; /* not every format has one */
        for (int64_t i = 0; i < n; i += f->block_elements) {
            kvant_split_source(f, source, row, i / f->block_elements, &b);
            decode_block(f, &b, out + i);
        }
        return;
    }
    const uint8_t *src = source->data + (size_t)row * source->row_bytes;
    for (int64_t i = 0; i < n; i++, src += f->block_bytes) {
        if (f->type == KVANT_W_F32) out[i] = kvant_bits_f32(kvant_read_u32(src));
        else out[i] = f->type == KVANT_W_F16 ? kvant_f16_to_f32(kvant_read_u16(src)) : kvant_bf16_to_f32(kvant_read_u16(src));
    }
}

void kvant_weight_decode_row(uint32_t type, const uint8_t *src, int64_t n, float *out) {
    kvant_weight_source source = {.type = type, .data = src};
    kvant_weight_decode_source(&source, 0, n, out);
}
