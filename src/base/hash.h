// SPDX-License-Identifier: MIT
/* hash.h: XXH3 of 128 bits, for checksums and for telling files apart; not against people who want two files to look the same.
 * Algorithm: https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md */
#ifndef KVANT_BASE_HASH_H
#define KVANT_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

#define KVANT_HASH_BYTES 16

/* Only hash.c looks inside. */
typedef struct kvant_hash {
    _Alignas(64) uint8_t state[576];
} kvant_hash;

void kvant_hash_begin(kvant_hash *h);
void kvant_hash_add(kvant_hash *h, const void *bytes, size_t size);
void kvant_hash_add_u64(kvant_hash *h, uint64_t value); /* its 8 bytes, the lowest first */
/* Most significant byte first, as such numbers are written. More bytes may be added afterwards. */
void kvant_hash_get(const kvant_hash *h, uint8_t out[KVANT_HASH_BYTES]);
/* Of the bytes of a file but the KVANT_HASH_BYTES at `at`, where it holds this sum. */
void kvant_hash_around(const void *bytes, size_t size, size_t at, uint8_t out[KVANT_HASH_BYTES]);
/* Of bytes that lie together. */
void kvant_hash_of(const void *bytes, size_t size, uint8_t out[KVANT_HASH_BYTES]);

#endif
