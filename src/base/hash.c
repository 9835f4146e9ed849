// SPDX-License-Identifier: MIT
/* hash.c: XXH3 of 128 bits, from the header of xxhash, which is compiled in here: nothing is linked. */
#include "base/hash.h"

#include <assert.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

static_assert(sizeof(XXH3_state_t) <= sizeof(kvant_hash) && _Alignof(XXH3_state_t) <= _Alignof(kvant_hash), "the state of xxhash fits");

static XXH3_state_t *inside(kvant_hash *h) { return (XXH3_state_t *)(void *)h->state; }

static void put(XXH128_hash_t value, uint8_t out[KVANT_HASH_BYTES]) {
    XXH128_canonical_t bytes;
    XXH128_canonicalFromHash(&bytes, value);
    for (int i = 0; i < KVANT_HASH_BYTES; i++)
        out[i] = bytes.digest[i];
}

void kvant_hash_begin(kvant_hash *h) {
    XXH3_INITSTATE(inside(h));
    XXH3_128bits_reset(inside(h));
}

void kvant_hash_add(kvant_hash *h, const void *bytes, size_t size) {
    if (size > 0) XXH3_128bits_update(inside(h), bytes, size);
}

void kvant_hash_add_u64(kvant_hash *h, uint64_t value) {
    uint8_t bytes[8];
    for (int i = 0; i < 8; i++)
        bytes[i] = (uint8_t)(value >> 8 * i);
    kvant_hash_add(h, bytes, sizeof bytes);
}

void kvant_hash_get(const kvant_hash *h, uint8_t out[KVANT_HASH_BYTES]) {
    put(XXH3_128bits_digest((const XXH3_state_t *)(const void *)h->state), out);
}

void kvant_hash_around(const void *bytes, size_t size, size_t at, uint8_t out[KVANT_HASH_BYTES]) {
    const uint8_t *p = bytes;
    size_t behind = at + KVANT_HASH_BYTES;
    kvant_hash h;
    kvant_hash_begin(&h);
    kvant_hash_add(&h, p, at);
    kvant_hash_add(&h, p + behind, size - behind);
    kvant_hash_get(&h, out);
}

void kvant_hash_of(const void *bytes, size_t size, uint8_t out[KVANT_HASH_BYTES]) { put(XXH3_128bits(bytes, size), out); }
