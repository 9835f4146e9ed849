// SPDX-License-Identifier: MIT
/* bench_kernels.c: times kernels at every level that this machine has.
 *
 * A tile of 24 blocks (768 columns) stays in the first or second cache level, as it does in a matrix product; packed weights
 * of 64 MiB are read once a pass, as in decoding; so are cache pages, and 128 KiB of them too. Each figure is the best of some
 * runs, on one core. */
#include <stdio.h>
#include <stdlib.h>

#include "base/half.h"
#include "base/memory.h"
#include "base/os.h"
#include "kernel_test.h"

#define ROWS KVANT_PANEL_ROWS
#define TILE_BLOCKS 24
#define COLUMNS (TILE_BLOCKS * KVANT_BLOCK)
#define MAX_N 64
#define PACKED_BYTES (64u << 20) /* more than the caches hold */
#define CACHED_BYTES (128u << 10) /* of pages: the second cache level holds them beside what they are multiplied with */
#define PAGE_ROWS 64
#define MAX_D 128
#define MANY 96 /* queries of a prompt */
#define CALL_BYTES (64u << 10) /* of pages, for each call */
#define RUN_SECONDS 0.0005 /* short: other programs of a busy machine interrupt some runs, and not the best */
#define RUNS 100
#define MAX_SECONDS 0.5

typedef struct bench {
    const kvant_kernels *k;
    uint8_t *tile, *packed, *packed_tile;
    float *scale, *bias, *x, *acc, *x_scale, *float_tile;
    uint16_t *half_tile;
    int8_t *q;
    int16_t *x_sum;
    int n, bits, scale_block;
    int d, block; /* of pages: the length of a vector; the elements of a book, 0 without books */
    size_t first_page, pages; /* the next page to read, and how many there are */
    int8_t *levels;
    int16_t *words; /* queries or weights */
    uint16_t (*errors)[KVANT_BOOKS];
    bool is_mix;
} bench;

/* Seconds of one call: the best of RUNS, each at least RUN_SECONDS long; fewer runs where they take long. */
static double time_call(void (*call)(bench *), bench *b) {
    double best = 1e9, begin = kvant_clock_seconds();
    for (int run = 0; run < RUNS && kvant_clock_seconds() - begin < MAX_SECONDS; run++) {
        int calls = 0;
        double start = kvant_clock_seconds(), seconds;
        do {
            call(b);
            calls++;
            seconds = kvant_clock_seconds() - start;
        } while (seconds < RUN_SECONDS);
        if (seconds / calls < best) best = seconds / calls;
    }
    return best;
}

static kvant_product_q8 product_of(bench *b) {
    return (kvant_product_q8){.tile = b->tile, .scale = b->scale, .bias = b->bias, .scale_block = b->scale_block,
                              .n_block = TILE_BLOCKS, .n = b->n, .x = b->q, .x_stride = COLUMNS, .x_scale = b->x_scale,
                              .x_scale_stride = TILE_BLOCKS, .x_sum = b->x_sum, .acc = b->acc, .acc_stride = ROWS,
                              .max_code = b->bits ? (1 << b->bits) - 1 : 0};
}

static void call_product_u(bench *b) {
    kvant_product_q8 p = product_of(b);
    b->k->product_u(&p);
}

static void call_product_s(bench *b) {
    kvant_product_q8 p = product_of(b);
    p.bias = NULL;
    b->k->product_s(&p);
}

static void call_product_f32(bench *b) {
    kvant_product_f32 p = {.tile = b->float_tile, .k = COLUMNS, .n = b->n, .x = b->x, .x_stride = COLUMNS, .acc = b->acc,
                           .acc_stride = ROWS};
    b->k->product_f32(&p);
}

static void call_product_f16(bench *b) {
    kvant_product_f32 p = {.tile = b->half_tile, .k = COLUMNS, .n = b->n, .x = b->x, .x_stride = COLUMNS, .acc = b->acc,
                           .acc_stride = ROWS};
    b->k->product_f16(&p);
}

static void unpack(bench *b, const uint8_t *packed) {
    switch (b->bits) {
    case 2: b->k->unpack2(b->packed_tile, packed, TILE_BLOCKS); break;
    case 3: b->k->unpack3(b->packed_tile, packed, TILE_BLOCKS); break;
    case 4: b->k->unpack4(b->packed_tile, packed, TILE_BLOCKS); break;
    case 5: b->k->unpack5(b->packed_tile, packed, TILE_BLOCKS); break;
    default: b->k->unpack6(b->packed_tile, packed, TILE_BLOCKS); break;
    }
}

static size_t packed_step(const bench *b) { return (size_t)TILE_BLOCKS * 64 * (size_t)b->bits; }

static void call_unpack(bench *b) { unpack(b, b->packed); }

static void call_unpack_and_product(bench *b) {
    kvant_product_q8 p = product_of(b);
    p.tile = b->packed_tile;
    for (size_t at = 0; at + packed_step(b) <= PACKED_BYTES; at += packed_step(b)) {
        unpack(b, b->packed + at);
        b->k->product_u(&p);
    }
}

static void call_quantize(bench *b) { b->k->quantize_q8(b->q, b->x_scale, b->x_sum, b->x, COLUMNS * MAX_N); }
static void call_f16(bench *b) { b->k->f16_to_f32(b->float_tile, b->half_tile, COLUMNS * ROWS); }
static void call_dot(bench *b) { b->acc[0] += b->k->dot_f32(b->x, b->float_tile, COLUMNS); }
static void call_norm(bench *b) { b->k->rms_norm(b->float_tile, b->x, NULL, COLUMNS, 1e-5f); }
static void call_silu(bench *b) { b->k->silu_mul(b->float_tile, NULL, COLUMNS); }
static void call_gelu(bench *b) { b->k->gelu_mul(b->float_tile, NULL, COLUMNS); }
static void call_exp(bench *b) { b->acc[0] += b->k->exp_sum(b->float_tile, COLUMNS, 2.0f); }
static void call_max(bench *b) { b->acc[0] += b->k->max_f32(b->float_tile, COLUMNS); }
static void call_tile_to_f32(bench *b) { b->k->tile_u_to_f32(b->float_tile, b->tile, b->scale, b->bias, 32, TILE_BLOCKS); }

static void print_products(bench *b, const char *name, void (*call)(bench *), int bits) {
    static const int counts[] = {1, 4, MAX_N};
    printf("  %-24s", name);
    b->bits = bits;
    for (int i = 0; i < 3; i++) {
        b->n = counts[i];
        printf("  n %2d: %7.2f", b->n, 1e-9 * ROWS * COLUMNS * b->n / time_call(call, b));
    }
    printf("  GMAC/s\n");
}

static void print_rate(bench *b, const char *name, void (*call)(bench *), double values) {
    printf("  %-24s  %.2f G values/s\n", name, 1e-9 * values / time_call(call, b));
}

static void bench_level(bench *b) {
    b->scale_block = 32;
    print_products(b, "product_u 4-bit", call_product_u, 4);
    print_products(b, "product_u 5-bit", call_product_u, 5);
    print_products(b, "product_u 6-bit", call_product_u, 6);
    print_products(b, "product_s", call_product_s, 0);
    b->scale_block = 16;
    print_products(b, "product_u 6-bit, by 16", call_product_u, 6);
    b->scale_block = 32;
    print_products(b, "product_f32", call_product_f32, 0);
    print_products(b, "product_f16", call_product_f16, 0);
    b->n = 1;
    for (b->bits = 2; b->bits <= 6; b->bits++) {
        double packed = (double)packed_step(b), passes = (double)(PACKED_BYTES / packed_step(b));
        printf("  unpack%d  %.2f GB/s of packed bytes in cache; with product_u, n 1, from memory: %.2f GB/s\n", b->bits,
               1e-9 * packed / time_call(call_unpack, b), 1e-9 * packed * passes / time_call(call_unpack_and_product, b));
    }
    print_rate(b, "tile_u_to_f32", call_tile_to_f32, ROWS * COLUMNS);
    print_rate(b, "quantize_q8", call_quantize, COLUMNS * MAX_N);
    print_rate(b, "f16_to_f32", call_f16, COLUMNS * ROWS);
    print_rate(b, "dot_f32", call_dot, COLUMNS);
    print_rate(b, "rms_norm", call_norm, COLUMNS);
    print_rate(b, "exp_sum", call_exp, COLUMNS);
    print_rate(b, "max_f32", call_max, COLUMNS);
    print_rate(b, "silu_mul", call_silu, COLUMNS);
    print_rate(b, "gelu_mul", call_gelu, COLUMNS);
}

/* ---- cache pages: 64 vectors of one head ---- */

#define F16_BITS 16
#define TILES_OF_4 0 /* 4-bit codes in panels, as MLX's formats are kept */

static size_t page_bytes(const bench *b) {
    size_t values = (size_t)(PAGE_ROWS * b->d);
    if (b->bits == F16_BITS) return values * 2;
    if (b->bits == TILES_OF_4) return values / 2;
    return values * (size_t)b->bits / 8 + (b->block ? values / (size_t)b->block / 2 : 0);
}

/* One page of panels times n vectors: 4 panels of d columns for scores, d / 16 panels of 64 columns for a mix. */
static void multiply_panels(bench *b, const uint8_t *page) {
    const int panels = b->is_mix ? b->d / ROWS : PAGE_ROWS / ROWS, columns = b->is_mix ? PAGE_ROWS : b->d;
    const size_t panel_bytes = page_bytes(b) / (size_t)panels;
    for (int i = 0; i < panels; i++, page += panel_bytes) {
        kvant_product_f32 f = {.tile = page, .k = columns, .n = b->n, .x = b->x, .x_stride = (size_t)columns,
                               .acc = b->acc + i * ROWS, .acc_stride = MAX_D};
        kvant_product_q8 q = {.tile = b->packed_tile, .scale = b->scale, .bias = b->bias, .scale_block = 32,
                              .n_block = columns / KVANT_BLOCK, .n = b->n, .x = b->q, .x_stride = (size_t)columns,
                              .x_scale = b->x_scale, .x_scale_stride = (size_t)(columns / KVANT_BLOCK), .x_sum = b->x_sum,
                              .acc = b->acc + i * ROWS, .acc_stride = MAX_D, .max_code = 15};
        if (b->bits == F16_BITS) {
            b->k->product_f16(&f);
        } else {
            b->k->unpack4(b->packed_tile, page, q.n_block);
            b->k->product_u(&q);
        }
    }
}

static void unpack_levels(bench *b, const uint8_t *page) {
    const size_t eighth = (size_t)(PAGE_ROWS * b->d) / 8; /* a plane of one bit */
    kvant_level_rows r = {.block = b->block ? b->block : 32, .d = b->d, .n = PAGE_ROWS, .books = (const int8_t *)b->tile,
                          .plane4 = page, .plane2 = b->bits == 6 ? page + 4 * eighth : page,
                          .plane1 = page + (size_t)(b->bits - 1) * eighth,
                          .selectors = b->block ? page + (size_t)b->bits * eighth : NULL};
    if (b->bits < 4) r.plane4 = NULL;
    if (b->bits == 4 || b->bits == 5) r.plane2 = NULL;
    if (b->bits % 2 == 0) r.plane1 = NULL;
    switch (b->bits) {
    case 2: b->k->levels2(b->levels, &r); break;
    case 3: b->k->levels3(b->levels, &r); break;
    case 4: b->k->levels4(b->levels, &r); break;
    case 5: b->k->levels5(b->levels, &r); break;
    default: b->k->levels6(b->levels, &r); break;
    }
}

static void multiply_levels(bench *b, const uint8_t *next, size_t next_bytes) {
    kvant_score_levels s = {.levels = b->levels, .row_scale = b->scale, .d = b->d, .n = b->n, .q = b->words, .q_scale = b->bias,
                            .scores = b->acc, .next = next, .next_bytes = next_bytes};
    kvant_mix_levels m = {.levels = b->levels, .d = b->d, .n = b->n, .w = b->words, .w_scale = b->bias, .acc = b->acc,
                          .acc_stride = (size_t)b->d, .next = next, .next_bytes = next_bytes};
    if (b->is_mix)
        b->k->mix_levels(&m);
    else
        b->k->score_levels(&s);
}

static void call_multiply_levels(bench *b) { multiply_levels(b, NULL, 0); }

/* The next pages of those there are, which are read in a circle. */
static const uint8_t *next_page(bench *b) {
    const uint8_t *page = b->packed + b->first_page * page_bytes(b);
    b->first_page = (b->first_page + 1) % b->pages;
    return page;
}

static void call_pages(bench *b) {
    for (size_t i = 0; i < CALL_BYTES / page_bytes(b); i++) {
        const uint8_t *page = next_page(b);
        if (b->bits == F16_BITS || b->bits == TILES_OF_4) {
            multiply_panels(b, page);
        } else {
            unpack_levels(b, page);
            multiply_levels(b, b->packed + b->first_page * page_bytes(b), page_bytes(b));
        }
    }
}

static void call_unpack_pages(bench *b) {
    for (size_t i = 0; i < CALL_BYTES / page_bytes(b); i++)
        unpack_levels(b, next_page(b));
}

static double page_ns(bench *b, void (*call)(bench *), size_t bytes) {
    b->pages = bytes / page_bytes(b);
    b->first_page = 0;
    return 1e9 * time_call(call, b) / (double)(CALL_BYTES / page_bytes(b));
}

/* Nanoseconds of a page and n vectors, from the cache and from memory; for a prompt the rate of multiplications. */
static void bench_page(bench *b, const char *name, int bits, int block) {
    static const int counts[] = {1, 3, 4, 7};
    b->bits = bits;
    b->block = block;
    printf("    %-22s", name);
    for (int i = 0; i < 4; i++) {
        b->n = counts[i];
        double cached = page_ns(b, call_pages, CACHED_BYTES);
        printf("  n %d: %5.0f / %5.0f", b->n, cached, page_ns(b, call_pages, PACKED_BYTES));
    }
    b->n = MANY;
    printf("  n %d: %5.1f GMAC/s\n", MANY, (double)(PAGE_ROWS * b->d * MANY) / page_ns(b, call_pages, CACHED_BYTES));
}

static void bench_pages(bench *b) {
    for (b->d = MAX_D / 2; b->d <= MAX_D; b->d *= 2)
        for (int mix = 0; mix < 2; mix++) {
            b->is_mix = mix;
            printf("  a page of 64 x %d, %s, ns from cache / from memory\n", b->d, mix ? "mix" : "score");
            bench_page(b, "product_f16", F16_BITS, 0);
            bench_page(b, "unpack4, product_u", TILES_OF_4, 0);
            bench_page(b, "levels2, books by 32", 2, 32);
            bench_page(b, "levels3, books by 32", 3, 32);
            bench_page(b, "levels4, books by 32", 4, 32);
            bench_page(b, "levels4, books by 16", 4, 16);
            bench_page(b, "levels4, one book", 4, 0);
            bench_page(b, "levels5, books by 32", 5, 32);
            bench_page(b, "levels6", 6, 0);
            printf("    %-22s", "the levels alone");
            static const int counts[] = {1, 3, 4, 7};
            for (int i = 0; i < 4; i++) {
                b->n = counts[i];
                printf("  n %d: %13.0f", b->n, 1e9 * time_call(call_multiply_levels, b));
            }
            b->n = MANY;
            printf("  n %d: %5.1f GMAC/s\n", MANY, 1e-9 * PAGE_ROWS * b->d * MANY / time_call(call_multiply_levels, b));
        }
    b->d = MAX_D;
    printf("  codes to levels, 64 x %d, books by 32, ns from cache:", b->d);
    for (b->bits = 2; b->bits <= 6; b->bits++) {
        b->block = b->bits < 6 ? 32 : 0;
        printf("  levels%d: %.0f", b->bits, page_ns(b, call_unpack_pages, CACHED_BYTES));
    }
    printf("\n");
}

/* ---- what one vector of 128 costs to encode ---- */

static void call_hadamard(bench *b) {
    b->k->hadamard(b->float_tile, MAX_D);
    b->k->scale_f32(b->float_tile, 0.08838835f, MAX_D); /* so that it does not grow */
}
static void call_scale(bench *b) { b->k->scale_f32(b->float_tile, 1.0f, MAX_D); }
static void call_cells(bench *b) { b->k->book_cells(b->words, b->x, 300.0f, MAX_D); }
static void call_search(bench *b) {
    uint8_t book[MAX_D / 32];
    b->acc[0] += (float)b->k->search_books(book, (const uint16_t(*)[KVANT_BOOKS])b->errors, b->words, 32, MAX_D / 32);
}
static void call_quantize_q16(bench *b) { b->acc[0] += b->k->quantize_q16(b->words, b->x, MAX_D); }

static void bench_encode(bench *b) {
    double rest = time_call(call_scale, b);
    printf("  a vector of %d, ns:  hadamard %.0f", MAX_D, 1e9 * (time_call(call_hadamard, b) - rest));
    printf("  quantize_q16 %.0f", 1e9 * time_call(call_quantize_q16, b));
    printf("  book_cells %.0f", 1e9 * time_call(call_cells, b));
    printf("  search_books %.0f\n", 1e9 * time_call(call_search, b));
}

static void *allocate(size_t n, size_t size) {
    void *p = kvant_alloc_aligned(n, size);
    if (!p) exit(1);
    return p;
}

int run_benchmarks(void) {
    const int most = MANY > MAX_N ? MANY : MAX_N;
    bench b = {.tile = allocate(ROWS * COLUMNS, 1), .packed = allocate(PACKED_BYTES, 1),
               .packed_tile = allocate(ROWS * COLUMNS, 1),
               .scale = allocate(2 * TILE_BLOCKS * ROWS, 4), .bias = allocate(2 * TILE_BLOCKS * ROWS, 4),
               .x = allocate(COLUMNS * MAX_N, 4), .acc = allocate((size_t)most * MAX_D, 4),
               .x_scale = allocate(TILE_BLOCKS * MAX_N, 4),
               .float_tile = allocate(ROWS * COLUMNS, 4), .half_tile = allocate(ROWS * COLUMNS, 2),
               .q = allocate(COLUMNS * MAX_N, 1), .x_sum = allocate(2 * TILE_BLOCKS * MAX_N, 2),
               .levels = allocate(PAGE_ROWS * MAX_D, 1), .words = allocate(MANY * MAX_D, 2),
               .errors = allocate(KVANT_BOOK_CELLS, sizeof *b.errors)};
    for (int i = 0; i < ROWS * COLUMNS; i++) {
        b.tile[i] = random_u32() & 15;
        b.float_tile[i] = random_float(1.0f);
        b.half_tile[i] = kvant_f32_to_f16(b.float_tile[i]);
    }
    for (size_t i = 0; i < PACKED_BYTES; i++)
        b.packed[i] = (uint8_t)i;
    for (int i = 0; i < 2 * TILE_BLOCKS * ROWS; i++)
        b.scale[i] = random_float(0.01f), b.bias[i] = random_float(0.01f);
    for (int i = 0; i < COLUMNS * MAX_N; i++)
        b.x[i] = random_float(1.0f);
    for (int i = 0; i < most * MAX_D; i++)
        b.acc[i] = 0;
    for (int i = 0; i < PAGE_ROWS * MAX_D; i++)
        b.levels[i] = (int8_t)random_between(-127, 127);
    for (int i = 0; i < MANY * MAX_D; i++)
        b.words[i] = (int16_t)random_between(-32767, 32767);
    for (int i = 0; i < KVANT_BOOK_CELLS * KVANT_BOOKS; i++)
        b.errors[i / KVANT_BOOKS][i % KVANT_BOOKS] = (uint16_t)random_between(0, 4000);
    kvant_kernels_for(KVANT_ISA_REF)->quantize_q8(b.q, b.x_scale, b.x_sum, b.x, COLUMNS * MAX_N);
    for (int isa = KVANT_ISA_REF; isa <= KVANT_ISA_AVX512; isa++) {
        b.k = kvant_kernels_for((kvant_isa)isa);
        printf("%s%s\n", kvant_isa_name((kvant_isa)isa), b.k ? "" : ": this machine lacks it");
        if (!b.k) continue;
        bench_level(&b);
        if (isa != KVANT_ISA_REF) bench_pages(&b); /* the reference takes a minute, and says little */
        bench_encode(&b);
    }
    void *owned[] = {b.tile, b.packed, b.packed_tile, b.scale, b.bias, b.x, b.acc, b.x_scale,
                     b.float_tile, b.half_tile, b.q, b.x_sum, b.levels, b.words, b.errors};
    for (size_t i = 0; i < sizeof owned / sizeof owned[0]; i++)
        kvant_free_aligned(owned[i]);
    return 0;
}
