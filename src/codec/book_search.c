// SPDX-License-Identifier: MIT
/* book_search.c: builds the lookup tables of book_search.h from the codebooks. */
#include "codec/book_search.h"

#include <math.h>
#include <stdatomic.h>

#define BITS_MIN 1
#define N_WIDTHS 5

enum { NOT_BUILT, BEING_BUILT, BUILT };
static kvant_book_search tables[2][N_WIDTHS]; /* of 16 books, and of one */
static atomic_int state = NOT_BUILT;

static void build(const kvant_book_set *set, kvant_book_search *out) {
    int n_level = 1 << set->bits;
    for (int cell = 0; cell < KVANT_BOOK_CELLS; cell++) {
        float x = ((float)(cell - KVANT_BOOK_CELLS / 2) + 0.5f) * 0.5f;
        for (int b = 0; b < set->n_book; b++) {
            const int8_t *level = set->levels + b * n_level;
            int best = 0;
            for (int c = 1; c < n_level; c++)
                if (fabsf(x - (float)level[c]) < fabsf(x - (float)level[best])) best = c;
            float e = x - (float)level[best], error = rintf(4.0f * e * e);
            out->errors[cell][b] = (uint16_t)(error < 65535.0f ? error : 65535.0f);
            out->code[b][cell] = (uint8_t)best;
        }
    }
}

static void build_tables(void) {
    int expected = NOT_BUILT;
    if (atomic_compare_exchange_strong(&state, &expected, BEING_BUILT)) {
        for (int many = 0; many < 2; many++)
            for (int i = 0; i < N_WIDTHS; i++) {
                const kvant_book_set *set = kvant_book_set_find(BITS_MIN + i, many ? KVANT_BOOKS : 1);
                if (set) build(set, &tables[!many][i]);
            }
        atomic_store(&state, BUILT);
    }
    while (atomic_load(&state) != BUILT) { /* another thread is building: a few milliseconds, once a process */
    }
}

const kvant_book_search *kvant_book_search_find(int bits, int n_book) {
    if (atomic_load(&state) != BUILT) build_tables();
    return &tables[n_book == 1][bits - BITS_MIN];
}
