// SPDX-License-Identifier: MIT
/* weight_panel.h: how a repacked weight lies in memory (private to src/weight).
 *
 * One panel of 16 rows after another. A panel of a quantized format is a list of chunks of KVANT_CHUNK_COLS columns (the last may
 * be narrower), each of which is read from its first byte to its last, so that a product is one sequential stream:
 *   d         binary16 [chunk/block_elements][16]            (quantized formats but MXFP4; bfloat16 or float where the format
 *   m         binary16 [chunk/block_elements][16]             says so; m: formats with minima)
 *   sub_scale uint8    [chunk/sub_elements][16]              (formats with sub-block scales)
 *   sub_min   uint8    [chunk/sub_elements][16]              (formats with both, unless they share a byte)
 *   codes     [chunk/32] block32s at code_bits (kernel/kernels.h), 64-byte aligned
 * A panel of floats is [cols][16] of 4 or 2 bytes. Rows beyond the last are zero. */
#ifndef KVANT_WEIGHT_WEIGHT_PANEL_H
#define KVANT_WEIGHT_WEIGHT_PANEL_H

#include "kernel/kernels.h"
#include "weight/weight_formats.h"

#define KVANT_CHUNK_COLS 512 /* a multiple of every block; its tile of 8 KiB and scales stay in the first cache level */

/* Bytes from a chunk's start; d is at 0. */
typedef struct kvant_chunk_layout {
    size_t m, sub_scale, sub_min, codes, bytes; /* bytes: of the whole chunk, a multiple of 64 */
} kvant_chunk_layout;

struct kvant_weight {
    kvant_context *ctx;
    const kvant_weight_format *format;
    int64_t rows, cols, n_panel;
    int max_code;                   /* the largest magnitude in a tile of it */
    kvant_chunk_layout whole, last; /* of KVANT_CHUNK_COLS columns, and of what remains (0 bytes: nothing) */
    size_t panel_bytes;             /* a multiple of 64 */
    uint8_t *panels;                /* [n_panel][panel_bytes] */
};

/* The layout of the chunk that begins at column `first`. */
static inline const kvant_chunk_layout *kvant_weight_chunk_layout(const kvant_weight *w, int64_t first) {
    return w->cols - first < KVANT_CHUNK_COLS ? &w->last : &w->whole;
}

#endif
