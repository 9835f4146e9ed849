// SPDX-License-Identifier: MIT
/* half.h: conversions between float and the two 16-bit floats, one value at a time, identical on every machine.
 * Rows are converted by the kernels f16_to_f32 and f32_to_f16 (kernel/kernels.h), which agree with these bit for bit. */
#ifndef KVANT_BASE_HALF_H
#define KVANT_BASE_HALF_H

#include <stdint.h>
#include <string.h>

static inline uint32_t kvant_f32_bits(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static inline float kvant_bits_f32(uint32_t u) {
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

/* IEEE binary16 to float: exact. NaNs are made quiet, as the hardware instruction does. */
static inline float kvant_f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    uint32_t exponent = (h >> 10) & 31u, mantissa = h & 0x3FFu;
    if (exponent == 31) return kvant_bits_f32(sign | 0x7F800000u | (mantissa << 13) | (mantissa ? 0x400000u : 0));
    if (exponent == 0) {
        float tiny = (float)mantissa * 0x1p-24f;
        return kvant_bits_f32(sign | kvant_f32_bits(tiny));
    }
    return kvant_bits_f32(sign | ((exponent + 112) << 23) | (mantissa << 13));
}

/* float to IEEE binary16, to nearest, ties to even; too large becomes infinity. */
static inline uint16_t kvant_f32_to_f16(float f) {
    uint32_t u = kvant_f32_bits(f);
    uint16_t sign = (uint16_t)((u >> 16) & 0x8000u);
    uint32_t a = u & 0x7FFFFFFFu;
    if (a > 0x7F800000u) return (uint16_t)(sign | 0x7E00u | ((a >> 13) & 0x3FFu));
    if (a >= 0x477FF000u) return (uint16_t)(sign | 0x7C00u);
    if (a < 0x38800000u) { /* subnormal half: let float addition do the rounding */
        uint32_t m = kvant_f32_bits(kvant_bits_f32(a) + 0.5f) - 0x3F000000u;
        return (uint16_t)(sign | m);
    }
    uint32_t odd = (a >> 13) & 1u;
    return (uint16_t)(sign | ((a + 0xC8000FFFu + odd) >> 13));
}

/* bfloat16 to float: exact. */
static inline float kvant_bf16_to_f32(uint16_t h) { return kvant_bits_f32((uint32_t)h << 16); }

#endif
