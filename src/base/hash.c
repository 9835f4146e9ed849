// SPDX-License-Identifier: MIT
/* hash.c: FNV-1a of 128 bits in 64-bit arithmetic: each byte is XORed in, then the number is multiplied by 2^88 + 0x13B. */
#include "base/hash.h"

void kvant_hash_begin(kvant_hash *h) { *h = (kvant_hash){0x6C62272E07BB0142u, 0x62B821756295C58Du}; }

void kvant_hash_add(kvant_hash *h, const void *bytes, size_t size) {
    const uint8_t *p = bytes;
    uint64_t high = h->high, low = h->low;
    for (size_t i = 0; i < size; i++) {
        low ^= p[i];
        /* low * 0x13B has up to 73 bits: what is above 64 goes to the high word, and low * 2^88 is there alone. */
        uint64_t a = (low & 0xFFFFFFFFu) * 0x13B, b = (low >> 32) * 0x13B + (a >> 32);
        high = high * 0x13B + (b >> 32) + (low << 24);
        low = b << 32 | (a & 0xFFFFFFFFu);
    }
    *h = (kvant_hash){high, low};
}

void kvant_hash_add_u64(kvant_hash *h, uint64_t value) {
    uint8_t bytes[8];
    for (int i = 0; i < 8; i++)
        bytes[i] = (uint8_t)(value >> 8 * i);
    kvant_hash_add(h, bytes, sizeof bytes);
}

void kvant_hash_get(const kvant_hash *h, uint8_t out[KVANT_HASH_BYTES]) {
    for (int i = 0; i < 8; i++) {
        out[i] = (uint8_t)(h->high >> (56 - 8 * i));
        out[8 + i] = (uint8_t)(h->low >> (56 - 8 * i));
    }
}
