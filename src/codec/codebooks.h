// SPDX-License-Identifier: MIT
/* codebooks.h: the levels of the block codebook formats (bc2 to bc5, bz2 to bz4) and of one scalar quantizer per vector (lm2 to lm4).
 *
 * All are trained on vectors of unit Gaussian elements, which is what a Hadamard rotation leaves of any vector, divided by their
 * own rms. A block of neighbours picks one of the books, an element one of its levels; one scale per vector is stored. Levels
 * are int8, so that scores stay dot products of integers.
 *
 * codebooks.c is made by scripts/make_codebooks.py, which also states the encoder that the levels are trained for. */
#ifndef KVANT_CODEC_CODEBOOKS_H
#define KVANT_CODEC_CODEBOOKS_H

#include <stdint.h>

/* levels: [n_book][1 << bits], ascending within a book. An encoder looks at x / scale, where a level L stands for the interval
 * nearest to it; the best scale is near rms / units. */
typedef struct kvant_book_set {
    int bits;
    int n_book; /* 16 or 1 */
    const int8_t *levels;
    float units; /* int8 steps in one rms */
} kvant_book_set;

extern const int8_t kvant_books1[16][2], kvant_books2[16][4], kvant_books3[16][8], kvant_books4[16][16], kvant_books5[16][32];
extern const int8_t kvant_lloyd2[4], kvant_lloyd3[8], kvant_lloyd4[16];

/* n_book 16: bits 1 to 5; n_book 1: bits 2 to 4. NULL for anything else. */
const kvant_book_set *kvant_book_set_find(int bits, int n_book);

#endif
