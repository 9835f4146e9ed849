// SPDX-License-Identifier: MIT
/* weight_panel.h: how a repacked weight lies in memory (private to src/weight).
 *
 * One panel of 16 rows after another, each of panel_bytes (a multiple of 64):
 *   codes     [cols/32] block32s at code_bits (kernel/kernels.h), or floats: [cols][16] of 4 or 2 bytes
 *   d         binary16 [cols/block_elements][16]                (quantized formats but MXFP4)
 *   m         binary16 [cols/block_elements][16]                (formats with minima)
 *   sub_scale uint8    [cols/sub_elements][16]                  (formats with sub-block scales)
 *   sub_min   uint8    [cols/sub_elements][16]                  (formats with both, unless they share a byte)
 * Rows beyond the last are zero. */
#ifndef KVANT_WEIGHT_WEIGHT_PANEL_H
#define KVANT_WEIGHT_WEIGHT_PANEL_H

#include "kernel/kernels.h"
#include "weight/weight_formats.h"

struct kvant_weight {
    kvant_context *ctx;
    const kvant_weight_format *format;
    int64_t rows, cols, n_panel;
    size_t d_offset, m_offset, sub_scale_offset, sub_min_offset; /* bytes from a panel's start */
    size_t panel_bytes;
    uint8_t *panels; /* [n_panel][panel_bytes] */
};

#endif
