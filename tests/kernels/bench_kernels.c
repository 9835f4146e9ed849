// SPDX-License-Identifier: MIT
/* bench_kernels.c: times kernels at every level that this machine has.
 *
 * A tile of 24 blocks (768 columns) stays in the first or second cache level, as it does in a matrix product; packed weights
 * of 64 MiB are read once a pass, as in decoding. Each figure is the best of some runs, on one core. */
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
#define RUN_SECONDS 0.01
#define RUNS 5
#define MAX_SECONDS 0.5

typedef struct bench {
    const kvant_kernels *k;
    uint8_t *tile, *packed, *packed_tile;
    float *scale, *bias, *x, *acc, *x_scale, *float_tile;
    uint16_t *half_tile;
    int8_t *q;
    int16_t *x_sum;
    int n, bits, scale_block;
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

static void *allocate(size_t n, size_t size) {
    void *p = kvant_alloc_aligned(n, size);
    if (!p) exit(1);
    return p;
}

int run_benchmarks(void) {
    bench b = {.tile = allocate(ROWS * COLUMNS, 1), .packed = allocate(PACKED_BYTES, 1),
               .packed_tile = allocate(ROWS * COLUMNS, 1),
               .scale = allocate(2 * TILE_BLOCKS * ROWS, 4), .bias = allocate(2 * TILE_BLOCKS * ROWS, 4),
               .x = allocate(COLUMNS * MAX_N, 4), .acc = allocate(MAX_N * ROWS, 4), .x_scale = allocate(TILE_BLOCKS * MAX_N, 4),
               .float_tile = allocate(ROWS * COLUMNS, 4), .half_tile = allocate(ROWS * COLUMNS, 2),
               .q = allocate(COLUMNS * MAX_N, 1), .x_sum = allocate(2 * TILE_BLOCKS * MAX_N, 2)};
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
    for (int i = 0; i < MAX_N * ROWS; i++)
        b.acc[i] = 0;
    kvant_kernels_for(KVANT_ISA_REF)->quantize_q8(b.q, b.x_scale, b.x_sum, b.x, COLUMNS * MAX_N);
    for (int isa = KVANT_ISA_REF; isa <= KVANT_ISA_AVX512; isa++) {
        b.k = kvant_kernels_for((kvant_isa)isa);
        printf("%s%s\n", kvant_isa_name((kvant_isa)isa), b.k ? "" : ": this machine lacks it");
        if (b.k) bench_level(&b);
    }
    void *owned[] = {b.tile, b.packed, b.packed_tile, b.scale, b.bias, b.x, b.acc, b.x_scale,
                     b.float_tile, b.half_tile, b.q, b.x_sum};
    for (size_t i = 0; i < sizeof owned / sizeof owned[0]; i++)
        kvant_free_aligned(owned[i]);
    return 0;
}
