// SPDX-License-Identifier: MIT
/* weight_test.h: random rows of every format, for the tests of weights. */
#ifndef WEIGHT_TEST_H
#define WEIGHT_TEST_H

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "weight/weight.h"

#define N_TYPES 16

static const uint32_t all_types[N_TYPES] = {
    KVANT_W_F32,  KVANT_W_F16,  KVANT_W_BF16, KVANT_W_Q4_0, KVANT_W_Q4_1, KVANT_W_Q5_0,   KVANT_W_Q5_1,   KVANT_W_Q8_0,
    KVANT_W_Q2_K, KVANT_W_Q3_K, KVANT_W_Q4_K, KVANT_W_Q5_K, KVANT_W_Q6_K, KVANT_W_IQ4_NL, KVANT_W_IQ4_XS, KVANT_W_MXFP4};

static inline bool type_is_float(uint32_t type) { return type == KVANT_W_F32 || type == KVANT_W_F16 || type == KVANT_W_BF16; }

static inline const char *type_name(uint32_t type) {
    kvant_weight_traits t;
    return kvant_weight_type_traits(type, &t) ? t.name : "?";
}

/* xorshift64*: a state of 0 would stay 0, so seeds are made odd. */
static inline uint64_t next_random(uint64_t *state) {
    *state |= 1;
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * UINT64_C(0x2545F4914F6CDD1D);
}

/* Uniform in [-1, 1). */
static inline float next_float(uint64_t *state) { return (float)((int32_t)(next_random(state) >> 32)) * 0x1p-31f; }

static inline void put_half(uint8_t *p, float v) {
    uint16_t h = kvant_f32_to_f16(v);
    p[0] = (uint8_t)h;
    p[1] = (uint8_t)(h >> 8);
}

/* Random bytes with scales of a sensible size: at[] are the places of binary16 numbers in a block, -1: none. */
static inline void random_block(uint32_t type, uint8_t *block, int bytes, uint64_t *state) {
    static const struct {
        uint32_t type;
        int at[2];
    } halves[] = {{KVANT_W_Q4_0, {0, -1}},    {KVANT_W_Q4_1, {0, 2}},   {KVANT_W_Q5_0, {0, -1}}, {KVANT_W_Q5_1, {0, 2}},
                  {KVANT_W_Q8_0, {0, -1}},    {KVANT_W_Q2_K, {80, 82}}, {KVANT_W_Q3_K, {108, -1}}, {KVANT_W_Q4_K, {0, 2}},
                  {KVANT_W_Q5_K, {0, 2}},     {KVANT_W_Q6_K, {208, -1}}, {KVANT_W_IQ4_NL, {0, -1}}, {KVANT_W_IQ4_XS, {0, -1}}};
    float value = next_float(state);
    if (type == KVANT_W_F32) memcpy(block, &value, 4);
    if (type == KVANT_W_F16) put_half(block, value);
    if (type == KVANT_W_BF16) {
        uint32_t bits = kvant_f32_bits(value);
        block[0] = (uint8_t)(bits >> 16);
        block[1] = (uint8_t)(bits >> 24);
    }
    if (type_is_float(type)) return;
    for (int i = 0; i < bytes; i++)
        block[i] = (uint8_t)(next_random(state) >> 40);
    for (size_t i = 0; i < sizeof halves / sizeof halves[0]; i++)
        for (int h = 0; h < 2; h++)
            if (halves[i].type == type && halves[i].at[h] >= 0) put_half(block + halves[i].at[h], next_float(state) * 0.02f);
    if (type == KVANT_W_MXFP4) block[0] = (uint8_t)(118 + block[0] % 10);
}

/* rows x cols of random weights as in a file; freed by the caller. */
static inline uint8_t *random_weight(uint32_t type, int rows, int cols, size_t *row_bytes, uint64_t *state) {
    kvant_weight_traits t;
    if (!kvant_weight_type_traits(type, &t) || kvant_weight_row_bytes(type, cols, row_bytes) != KVANT_OK) return NULL;
    uint8_t *data = malloc((size_t)rows * *row_bytes);
    for (size_t at = 0; data && at < (size_t)rows * *row_bytes; at += (size_t)t.block_bytes)
        random_block(type, data + at, t.block_bytes, state);
    return data;
}

#endif
