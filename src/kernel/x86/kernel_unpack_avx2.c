// SPDX-License-Identifier: MIT
/* kernel_unpack_avx2.c: packed panels to tiles with AVX2.
 *
 * Planes are laid out so that a chunk of a tile (4 columns of 16 rows) is a shift and a mask of whole registers. Shifts are of
 * 16 bits, but a bit never leaves its byte: it moves straight to its place there, and the mask removes the others. */
#include "kernel/kernel_table.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include "kernel/x86/kernel_avx2.h"

#define CHUNK 64
#define TILE_BLOCK 512
#define PLANE2 128
#define PLANE4 256

/* v with every bit moved `left` places to the left (to the right where negative), then masked. */
AVX2_INLINE __m256i move_bits(__m256i v, int left, int mask) {
    __m256i moved = left >= 0 ? _mm256_slli_epi16(v, left) : _mm256_srli_epi16(v, -left);
    return _mm256_and_si256(moved, _mm256_set1_epi8((char)mask));
}

/* The bits of 32 bytes (half h) of chunk c of a plane, moved to bit `to`. c is a constant after unrolling. */
AVX2_INLINE __m256i plane4(const uint8_t *plane, int c, int h) {
    return move_bits(_mm256_load_si256((const __m256i *)(plane + c / 2 * CHUNK + 32 * h)), -4 * (c % 2), 15);
}
AVX2_INLINE __m256i plane2(const uint8_t *plane, int c, int h, int to) {
    return move_bits(_mm256_load_si256((const __m256i *)(plane + c / 4 * CHUNK + 32 * h)), to - 2 * (c % 4), 3 << to);
}
AVX2_INLINE __m256i plane1(const uint8_t *plane, int c, int h, int to) {
    return move_bits(_mm256_load_si256((const __m256i *)(plane + 32 * h)), to - c, 1 << to);
}

AVX2_INLINE void unpack(uint8_t *tile, const uint8_t *packed, int n_block, int bits) {
    for (int b = 0; b < n_block; b++) {
        UNROLL for (int c = 0; c < 8; c++)
            UNROLL for (int h = 0; h < 2; h++) {
                __m256i v = bits >= 4 ? plane4(packed, c, h) : plane2(packed, c, h, 0);
                if (bits == 3) v = _mm256_or_si256(v, plane1(packed + PLANE2, c, h, 2));
                if (bits == 5) v = _mm256_or_si256(v, plane1(packed + PLANE4, c, h, 4));
                if (bits == 6) v = _mm256_or_si256(v, plane2(packed + PLANE4, c, h, 4));
                _mm256_store_si256((__m256i *)(tile + c * CHUNK + 32 * h), v);
            }
        tile += TILE_BLOCK;
        packed += 64 * bits;
    }
}

AVX2 static void avx2_unpack2(uint8_t *tile, const uint8_t *packed, int n_block) { unpack(tile, packed, n_block, 2); }
AVX2 static void avx2_unpack3(uint8_t *tile, const uint8_t *packed, int n_block) { unpack(tile, packed, n_block, 3); }
AVX2 static void avx2_unpack4(uint8_t *tile, const uint8_t *packed, int n_block) { unpack(tile, packed, n_block, 4); }
AVX2 static void avx2_unpack5(uint8_t *tile, const uint8_t *packed, int n_block) { unpack(tile, packed, n_block, 5); }
AVX2 static void avx2_unpack6(uint8_t *tile, const uint8_t *packed, int n_block) { unpack(tile, packed, n_block, 6); }

AVX2 static void avx2_unpack_table4(uint8_t *tile, const uint8_t *packed, int n_block, const int8_t *table) {
    const __m256i levels = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)table));
    for (int b = 0; b < n_block; b++, tile += TILE_BLOCK, packed += PLANE4)
        UNROLL for (int c = 0; c < 8; c++)
            UNROLL for (int h = 0; h < 2; h++)
                _mm256_store_si256((__m256i *)(tile + c * CHUNK + 32 * h), _mm256_shuffle_epi8(levels, plane4(packed, c, h)));
}

void kvant_kernels_set_avx2_unpack(kvant_kernels *k) {
    k->unpack2 = avx2_unpack2;
    k->unpack3 = avx2_unpack3;
    k->unpack4 = avx2_unpack4;
    k->unpack5 = avx2_unpack5;
    k->unpack6 = avx2_unpack6;
    k->unpack_table4 = avx2_unpack_table4;
}

#else
typedef int kvant_kernel_unpack_avx2_unused; /* a translation unit must not be empty */
#endif
