// SPDX-License-Identifier: MIT
/* mlx_type.h: the numbers of tensor types that model folders have beyond ggml's: MLX's quantized matrices.
 *
 * Such a matrix is three arrays: codes, a little-endian bit stream for each row; a scale, and (affine) a bias, for each group of
 * neighbours in a row. Bits, group and the type of the scales are part of the number, so that one number says how to read all
 * three. No ggml type reaches KVANT_MLX_BASE. */
#ifndef KVANT_BASE_MLX_TYPE_H
#define KVANT_BASE_MLX_TYPE_H

#include <stdint.h>

#define KVANT_MLX_BASE 0x10000

/* How the scales (and biases) of the groups are stored. E8M0: MXFP4, without biases. */
typedef enum kvant_mlx_scale { KVANT_MLX_F32, KVANT_MLX_F16, KVANT_MLX_BF16, KVANT_MLX_E8M0 } kvant_mlx_scale;

/* bits 2, 3, 4, 5, 6, 8; group 32, 64, 128 */
#define KVANT_MLX_TYPE(bits, group, scale)                                                                                       \
    (KVANT_MLX_BASE | (uint32_t)(scale) << 12 | (uint32_t)(bits) << 8 | (uint32_t)(group) / 32)

static inline int kvant_mlx_is(uint32_t type) { return (type & KVANT_MLX_BASE) != 0 && type < 2 * KVANT_MLX_BASE; }
static inline int kvant_mlx_bits(uint32_t type) { return (int)(type >> 8 & 15); }
static inline int kvant_mlx_group(uint32_t type) { return 32 * (int)(type & 255); }
static inline kvant_mlx_scale kvant_mlx_scale_of(uint32_t type) { return (kvant_mlx_scale)(type >> 12 & 15); }
/* Bytes of one scale. */
static inline int kvant_mlx_scale_bytes(kvant_mlx_scale s) { return s == KVANT_MLX_F32 ? 4 : s == KVANT_MLX_E8M0 ? 1 : 2; }

#endif
