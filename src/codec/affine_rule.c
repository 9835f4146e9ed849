// SPDX-License-Identifier: MIT
/* affine_rule.c: MLX's group quantization, bit for bit (mx.quantize, mode affine, on the CPU).
 *
 * The end of the range that is larger in magnitude is represented exactly, and so is zero:
 *   scale = (max - min) / levels, its sign chosen so that codes grow from the larger end;
 *   the larger end divided by the scale is rounded to a whole number of steps, and the scale adjusted to it.
 * Codes use the scale before it is rounded to what it is stored as. */
#include "codec/affine_rule.h"

#include <math.h>

#include "base/half.h"

/* rint for |x| < 2^22, ties to even, without a call. */
static float round_even(float x) { return (x + 12582912.0f) - 12582912.0f; }

#define LANES 16 /* independent lanes, so that a compiler may use registers of any width without changing a bit */

/* The smallest and largest of the values that are numbers; 0 and 0 where none is. */
static void find_range(const float *x, int n, float *min_out, float *max_out) {
    float low[LANES], high[LANES], min = INFINITY, max = -INFINITY;
    for (int j = 0; j < LANES; j++) {
        low[j] = INFINITY;
        high[j] = -INFINITY;
    }
    for (int i = 0; i < n; i += LANES)
        for (int j = 0; j < LANES; j++) {
            low[j] = x[i + j] < low[j] ? x[i + j] : low[j];
            high[j] = x[i + j] > high[j] ? x[i + j] : high[j];
        }
    for (int j = 0; j < LANES; j++) {
        min = low[j] < min ? low[j] : min;
        max = high[j] > max ? high[j] : max;
    }
    *min_out = min <= max ? min : 0.0f;
    *max_out = min <= max ? max : 0.0f;
}

static void find_codes(const float *restrict x, float bias, float scale, float levels, uint8_t *restrict codes) {
    int32_t whole[LANES];
    for (int j = 0; j < LANES; j++) {
        float step = (x[j] - bias) / scale;
        step = step > 0.0f ? step : 0.0f; /* also what is not a number */
        step = step > levels ? levels : step;
        whole[j] = (int32_t)round_even(step);
    }
    for (int j = 0; j < LANES; j++)
        codes[j] = (uint8_t)whole[j];
}

void kvant_affine_group(const float *x, int group, int bits, uint8_t *codes, float *scale_out, float *bias_out) {
    float levels = (float)((1 << bits) - 1), min, max;
    find_range(x, group, &min, &max);
    float scale = (max - min) / levels;
    if (!(scale > 1e-7f)) scale = 1e-7f;
    bool from_min = fabsf(min) > fabsf(max);
    float edge = from_min ? min : max;
    if (!from_min) scale = -scale;
    float steps = rintf(edge / scale), bias = 0.0f;
    if (steps != 0.0f) {
        scale = edge / steps;
        bias = edge;
    }
    for (int i = 0; i < group; i += LANES)
        find_codes(x + i, bias, scale, levels, codes + i);
    *scale_out = scale;
    *bias_out = bias;
}

kvant_status kvant_affine_quantize(const float *x, int n_groups, int bits, int group, uint8_t *codes, uint16_t *scales,
                                   uint16_t *biases) {
    bool bits_ok = bits == 2 || bits == 3 || bits == 4 || bits == 5 || bits == 6 || bits == 8;
    if (!bits_ok || (group != 32 && group != 64 && group != 128) || n_groups < 0) return KVANT_EINVAL;
    for (int g = 0; g < n_groups; g++, x += group, codes += group) {
        float scale, bias;
        kvant_affine_group(x, group, bits, codes, &scale, &bias);
        scales[g] = kvant_f32_to_f16(scale);
        biases[g] = kvant_f32_to_f16(bias);
    }
    return KVANT_OK;
}
