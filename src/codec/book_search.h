// SPDX-License-Identifier: MIT
/* book_search.h: tables that make choosing codes a matter of looking up: for each cell of a fine grid, the squared error under
 * every book, and the nearest code of every book. */
#ifndef KVANT_CODEC_BOOK_SEARCH_H
#define KVANT_CODEC_BOOK_SEARCH_H

#include "codec/codebooks.h"
#include "kernel/kernels.h"

typedef struct kvant_book_search {
    uint16_t errors[KVANT_BOOK_CELLS][KVANT_BOOKS]; /* 4 * squared error of the cell's middle, rounded; 65535 at most */
    uint8_t code[KVANT_BOOKS][KVANT_BOOK_CELLS];
} kvant_book_search;

/* Cells are half a unit of the levels wide, so thresholds between int8 levels lie on their borders: the code is the nearest one.
 * Built on first use, then shared; bits and n_book as in kvant_book_set_find. */
const kvant_book_search *kvant_book_search_find(int bits, int n_book);

#endif
