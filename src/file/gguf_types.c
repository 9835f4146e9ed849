// SPDX-License-Identifier: MIT
/* gguf_types.c: the names and sizes of what a GGUF file can hold, as ggml defines them.
 *
 * Every tensor type is here, also those that Kvant cannot multiply by: inspecting a file must name and measure them.
 * How blocks are decoded is no business of this folder. */
#include "file/gguf.h"

#include "base/memory.h"
#include "base/mlx_type.h"

typedef struct type_row {
    const char *name;
    uint16_t block_elements, block_bytes;
} type_row;

static const type_row tensor_types[] = {
    [0] = {"F32", 1, 4},         [1] = {"F16", 1, 2},         [2] = {"Q4_0", 32, 18},      [3] = {"Q4_1", 32, 20},
    [6] = {"Q5_0", 32, 22},      [7] = {"Q5_1", 32, 24},      [8] = {"Q8_0", 32, 34},      [9] = {"Q8_1", 32, 36},
    [10] = {"Q2_K", 256, 84},    [11] = {"Q3_K", 256, 110},   [12] = {"Q4_K", 256, 144},   [13] = {"Q5_K", 256, 176},
    [14] = {"Q6_K", 256, 210},   [15] = {"Q8_K", 256, 292},   [16] = {"IQ2_XXS", 256, 66}, [17] = {"IQ2_XS", 256, 74},
    [18] = {"IQ3_XXS", 256, 98}, [19] = {"IQ1_S", 256, 50},   [20] = {"IQ4_NL", 32, 18},   [21] = {"IQ3_S", 256, 110},
    [22] = {"IQ2_S", 256, 82},   [23] = {"IQ4_XS", 256, 136}, [24] = {"I8", 1, 1},         [25] = {"I16", 1, 2},
    [26] = {"I32", 1, 4},        [27] = {"I64", 1, 8},        [28] = {"F64", 1, 8},        [29] = {"IQ1_M", 256, 56},
    [30] = {"BF16", 1, 2},       [34] = {"TQ1_0", 256, 54},   [35] = {"TQ2_0", 256, 66},   [39] = {"MXFP4", 32, 17},
    [40] = {"NVFP4", 64, 36},    [41] = {"Q1_0", 128, 18},
};

static const type_row *find_type(uint32_t type) {
    if (type >= sizeof tensor_types / sizeof *tensor_types || !tensor_types[type].name) return NULL;
    return &tensor_types[type];
}

static const char *mlx_name(uint32_t type) {
    static const char *const names[9][3] = {
        [2] = {"AFFINE2_G32", "AFFINE2_G64", "AFFINE2_G128"}, [3] = {"AFFINE3_G32", "AFFINE3_G64", "AFFINE3_G128"},
        [4] = {"AFFINE4_G32", "AFFINE4_G64", "AFFINE4_G128"}, [5] = {"AFFINE5_G32", "AFFINE5_G64", "AFFINE5_G128"},
        [6] = {"AFFINE6_G32", "AFFINE6_G64", "AFFINE6_G128"}, [8] = {"AFFINE8_G32", "AFFINE8_G64", "AFFINE8_G128"}};
    int bits = kvant_mlx_bits(type), group = kvant_mlx_group(type);
    if (bits > 8 || (group != 32 && group != 64 && group != 128)) return NULL;
    return kvant_mlx_scale_of(type) == KVANT_MLX_E8M0 ? "MXFP4" : names[bits][group / 64];
}

const char *kvant_gguf_tensor_type_name(uint32_t type) {
    if (kvant_mlx_is(type)) return mlx_name(type);
    const type_row *row = find_type(type);
    return row ? row->name : NULL;
}

bool kvant_gguf_type_size(uint32_t type, int64_t n, size_t *bytes) {
    const type_row *row = find_type(type);
    if (!row || n < 0 || n % row->block_elements != 0 || (uint64_t)n > SIZE_MAX) return false;
    return kvant_mul_size((size_t)n / row->block_elements, row->block_bytes, bytes);
}

const char *kvant_gguf_value_type_name(kvant_gguf_type type) {
    switch (type) {
    case KVANT_GGUF_U8: return "u8";
    case KVANT_GGUF_I8: return "i8";
    case KVANT_GGUF_U16: return "u16";
    case KVANT_GGUF_I16: return "i16";
    case KVANT_GGUF_U32: return "u32";
    case KVANT_GGUF_I32: return "i32";
    case KVANT_GGUF_F32: return "f32";
    case KVANT_GGUF_BOOL: return "bool";
    case KVANT_GGUF_STRING: return "string";
    case KVANT_GGUF_ARRAY: return "array";
    case KVANT_GGUF_U64: return "u64";
    case KVANT_GGUF_I64: return "i64";
    case KVANT_GGUF_F64: return "f64";
    }
    return "unknown";
}
