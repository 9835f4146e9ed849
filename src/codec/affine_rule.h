// SPDX-License-Identifier: MIT
/* affine_rule.h: the arithmetic of MLX's affine quantization, apart from any layout. */
#ifndef KVANT_CODEC_AFFINE_RULE_H
#define KVANT_CODEC_AFFINE_RULE_H

#include "base/status.h"

/* One group: x[group] -> codes[group], one scale and one bias. group and bits are valid. */
void kvant_affine_group(const float *x, int group, int bits, uint8_t *codes, float *scale, float *bias);

#endif
