// SPDX-License-Identifier: MIT
/* bytes.h: little-endian integers in a byte array of any alignment. The caller has checked the bounds. */
#ifndef KVANT_BASE_BYTES_H
#define KVANT_BASE_BYTES_H

#include <stdint.h>

static inline uint16_t kvant_read_u16(const uint8_t *p) { return (uint16_t)(p[0] | p[1] << 8); }

static inline uint32_t kvant_read_u32(const uint8_t *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline uint64_t kvant_read_u64(const uint8_t *p) {
    return (uint64_t)kvant_read_u32(p) | (uint64_t)kvant_read_u32(p + 4) << 32;
}

static inline void kvant_write_u16(uint8_t *p, uint16_t v) {
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

static inline void kvant_write_u32(uint8_t *p, uint32_t v) {
    kvant_write_u16(p, (uint16_t)v);
    kvant_write_u16(p + 2, (uint16_t)(v >> 16));
}

#endif
