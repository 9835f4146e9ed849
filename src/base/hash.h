// SPDX-License-Identifier: MIT
/* hash.h: FNV-1a of 128 bits, for telling files apart; not against people who want two files to look the same.
 * Algorithm and numbers: http://www.isthe.com/chongo/tech/comp/fnv/ */
#ifndef KVANT_BASE_HASH_H
#define KVANT_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

#define KVANT_HASH_BYTES 16

typedef struct kvant_hash {
    uint64_t high, low;
} kvant_hash;

void kvant_hash_begin(kvant_hash *h);
void kvant_hash_add(kvant_hash *h, const void *bytes, size_t size);
void kvant_hash_add_u64(kvant_hash *h, uint64_t value); /* its 8 bytes, the lowest first */
/* Most significant byte first, as such numbers are written. More bytes may be added afterwards. */
void kvant_hash_get(const kvant_hash *h, uint8_t out[KVANT_HASH_BYTES]);

#endif
