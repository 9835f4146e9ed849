// SPDX-License-Identifier: MIT
/* panel.h: which kernel expands a packed panel of a number of bits: what weights and cache pages ask alike. */
#ifndef KVANT_KERNEL_PANEL_H
#define KVANT_KERNEL_PANEL_H

#include "kernel/kernels.h"

/* Expands n_block block32s of 2, 3, 4, 5, 6 or 8 bits into tile and gives the tile: packed itself at 8 bits, which are one already. */
static inline const uint8_t *kvant_panel_unpack(const kvant_kernels *k, int bits, const uint8_t *packed, int n_block, uint8_t *tile) {
    switch (bits) {
    case 2: k->unpack2(tile, packed, n_block); break;
    case 3: k->unpack3(tile, packed, n_block); break;
    case 4: k->unpack4(tile, packed, n_block); break;
    case 5: k->unpack5(tile, packed, n_block); break;
    case 6: k->unpack6(tile, packed, n_block); break;
    default: return packed;
    }
    return tile;
}

#endif
