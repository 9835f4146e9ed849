// SPDX-License-Identifier: MIT
/* kernel_unpack_avx512.c: packed panels to tiles with AVX-512 F and BW: kernel_unpack_avx2.c with a chunk a register. */
#include "kernel/kernel_table.h"

#if defined(__x86_64__)

#include "kernel/x86/kernel_avx512.h"

#define CHUNK 64
#define TILE_BLOCK 512
#define PLANE2 128
#define PLANE4 256

/* v with every bit moved `left` places to the left (to the right where negative), then masked; no bit leaves its byte. */
AVX512_INLINE __m512i move_bits(__m512i v, int left, int mask) {
    __m512i moved = left >= 0 ? _mm512_slli_epi16(v, (unsigned)left) : _mm512_srli_epi16(v, (unsigned)-left);
    return _mm512_and_si512(moved, _mm512_set1_epi8((char)mask));
}

/* The bits of chunk c of a plane, moved to bit `to`. c is a constant after unrolling. */
AVX512_INLINE __m512i plane4(const uint8_t *plane, int c) {
    return move_bits(_mm512_load_si512((const void *)(plane + c / 2 * CHUNK)), -4 * (c % 2), 15);
}
AVX512_INLINE __m512i plane2(const uint8_t *plane, int c, int to) {
    return move_bits(_mm512_load_si512((const void *)(plane + c / 4 * CHUNK)), to - 2 * (c % 4), 3 << to);
}
AVX512_INLINE __m512i plane1(const uint8_t *plane, int c, int to) {
    return move_bits(_mm512_load_si512((const void *)plane), to - c, 1 << to);
}

AVX512_INLINE void unpack(uint8_t *tile, const uint8_t *packed, int n_block, int bits) {
    for (int b = 0; b < n_block; b++) {
        UNROLL for (int c = 0; c < 8; c++) {
            __m512i v = bits >= 4 ? plane4(packed, c) : plane2(packed, c, 0);
            if (bits == 3) v = _mm512_or_si512(v, plane1(packed + PLANE2, c, 2));
            if (bits == 5) v = _mm512_or_si512(v, plane1(packed + PLANE4, c, 4));
            if (bits == 6) v = _mm512_or_si512(v, plane2(packed + PLANE4, c, 4));
            _mm512_store_si512((void *)(tile + c * CHUNK), v);
        }
        tile += TILE_BLOCK;
        packed += 64 * bits;
    }
}

AVX512 static void avx512_unpack2(uint8_t *tile, const uint8_t *packed, int n_block) { unpack(tile, packed, n_block, 2); }
AVX512 static void avx512_unpack3(uint8_t *tile, const uint8_t *packed, int n_block) { unpack(tile, packed, n_block, 3); }
AVX512 static void avx512_unpack4(uint8_t *tile, const uint8_t *packed, int n_block) { unpack(tile, packed, n_block, 4); }
AVX512 static void avx512_unpack5(uint8_t *tile, const uint8_t *packed, int n_block) { unpack(tile, packed, n_block, 5); }
AVX512 static void avx512_unpack6(uint8_t *tile, const uint8_t *packed, int n_block) { unpack(tile, packed, n_block, 6); }

AVX512 static void avx512_unpack_table4(uint8_t *tile, const uint8_t *packed, int n_block, const int8_t *table) {
    const __m512i levels = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)table));
    for (int b = 0; b < n_block; b++, tile += TILE_BLOCK, packed += PLANE4)
        UNROLL for (int c = 0; c < 8; c++)
            _mm512_store_si512((void *)(tile + c * CHUNK), _mm512_shuffle_epi8(levels, plane4(packed, c)));
}

void kvant_kernels_set_avx512_unpack(kvant_kernels *k) {
    k->unpack2 = avx512_unpack2;
    k->unpack3 = avx512_unpack3;
    k->unpack4 = avx512_unpack4;
    k->unpack5 = avx512_unpack5;
    k->unpack6 = avx512_unpack6;
    k->unpack_table4 = avx512_unpack_table4;
}

#else
typedef int kvant_kernel_unpack_avx512_unused; /* a translation unit must not be empty */
#endif
