// SPDX-License-Identifier: MIT
/* bench_weights.c: how fast weights are repacked and multiplied, by format, shape, number of vectors and threads.
 *
 * At n = 1 a product should run at the speed of memory: enough copies of the matrix are multiplied in turn that none is in a
 * cache. Each figure is the best of some passes. Not built by default:
 *
 *     cc -O2 -std=c17 -Isrc -Iinclude bench/bench_weights.c BUILD/libpart_weight.a BUILD/libpart_kernel.a BUILD/libpart_base.a \
 *        -lm -lpthread -o bench_weights && ./bench_weights [seconds a figure [index of a shape]]
 *
 * Repacking is in bytes of the file, n = 1 in bytes of the weight in memory and in 1e9 multiplications a second, n = 512 in the
 * latter for both precisions. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "weight/weight.h"

#define BYTES_IN_TURN ((size_t)96 << 20) /* beyond any cache */
#define MAX_COPIES 256
#define MAX_N 512

typedef struct bench_shape {
    uint32_t type;
    int rows, cols;
} bench_shape;

static const bench_shape shapes[] = {
    {KVANT_W_Q4_1, 576, 1536},  {KVANT_W_Q4_1, 1536, 576},  {KVANT_W_Q8_0, 49152, 576}, {KVANT_W_Q5_0, 4864, 896},
    {KVANT_W_Q4_0, 2048, 8192}, {KVANT_W_Q4_K, 2048, 8192}, {KVANT_W_Q5_K, 2048, 8192}, {KVANT_W_Q6_K, 2048, 8192},
    {KVANT_W_Q2_K, 2048, 8192}, {KVANT_W_Q3_K, 2048, 8192}, {KVANT_W_IQ4_XS, 2048, 8192}, {KVANT_W_MXFP4, 2048, 8192},
    {KVANT_W_F16, 2048, 2048},  {KVANT_W_BF16, 2048, 2048}, {KVANT_W_F32, 2048, 2048}};

/* Bytes that are a row of any format: small positive binary16 numbers wherever a scale may stand. */
static void fill(uint8_t *p, size_t n) {
    uint32_t state = 1;
    for (size_t i = 0; i < n; i++) {
        state = state * 1664525u + 1013904223u;
        p[i] = i % 2 ? 0x20 : (uint8_t)(state >> 24);
    }
}

static void fail(const char *what) {
    fprintf(stderr, "bench_weights: %s\n", what);
    exit(1);
}

/* Seconds of one product of n vectors: the best pass over all copies. */
static double time_products(kvant_weight **w, int copies, kvant_activations *a, const float *x, int n, int cols, float *out,
                            int rows, kvant_precision precision, double seconds) {
    double best = 1e9, end = kvant_clock_seconds() + seconds;
    do {
        double start = kvant_clock_seconds();
        for (int i = 0; i < copies; i++) {
            kvant_activations_set(a, x, n, cols, precision);
            kvant_weight_product(w[i], a, NULL, out, (size_t)rows);
        }
        double s = (kvant_clock_seconds() - start) / copies;
        if (s < best) best = s;
    } while (kvant_clock_seconds() < end);
    return best;
}

static void bench_one(const bench_shape *s, int threads, const float *x, float *out, double seconds) {
    static kvant_weight *w[MAX_COPIES];
    kvant_context *ctx;
    kvant_activations *a;
    kvant_weight_traits t;
    size_t row_bytes, bytes;
    if (kvant_context_create(threads, KVANT_ISA_BEST, &ctx, NULL) != KVANT_OK) fail("no context");
    if (!kvant_weight_type_traits(s->type, &t) || kvant_weight_row_bytes(s->type, s->cols, &row_bytes) != KVANT_OK)
        fail("not a format");
    bytes = row_bytes * (size_t)s->rows;
    int copies = (int)(BYTES_IN_TURN / bytes) + 1;
    if (copies > MAX_COPIES) copies = MAX_COPIES;
    uint8_t *src = malloc(bytes);
    if (!src || kvant_activations_create(ctx, MAX_N, s->cols, &a) != KVANT_OK) fail("out of memory");
    fill(src, bytes);
    double start = kvant_clock_seconds();
    for (int i = 0; i < copies; i++)
        if (kvant_weight_create(ctx, s->type, src, s->rows, s->cols, &w[i], NULL) != KVANT_OK) fail("out of memory");
    double repack = (kvant_clock_seconds() - start) / copies;
    double one = time_products(w, copies, a, x, 1, s->cols, out, s->rows, KVANT_FAST, seconds);
    double many = time_products(w, 1, a, x, MAX_N, s->cols, out, s->rows, KVANT_FAST, seconds);
    double exact = time_products(w, 1, a, x, MAX_N, s->cols, out, s->rows, KVANT_EXACT, seconds);
    double macs = (double)s->rows * s->cols;
    printf("%-7s %6d x %-5d  %7d  %11.2f  %8.2f %8.1f  %12.1f  %5.1f\n", t.name, s->rows, s->cols, threads,
           (double)bytes / repack / 1e9, (double)kvant_weight_bytes(w[0]) / one / 1e9, macs / one / 1e9,
           macs * MAX_N / many / 1e9, macs * MAX_N / exact / 1e9);
    fflush(stdout);
    for (int i = 0; i < copies; i++)
        kvant_weight_destroy(w[i]);
    kvant_activations_destroy(a);
    kvant_context_destroy(ctx);
    free(src);
}

int main(int argc, char **argv) {
    double seconds = argc > 1 ? atof(argv[1]) : 0.3;
    float *x = malloc((size_t)MAX_N * 8192 * sizeof(float)), *out = malloc((size_t)MAX_N * 49152 * sizeof(float));
    if (!x || !out) fail("out of memory");
    for (int i = 0; i < MAX_N * 8192; i++)
        x[i] = (float)(i * 2654435761u >> 16 & 1023) / 512.0f - 1.0f;
    memset(out, 0, (size_t)MAX_N * 49152 * sizeof(float));
    printf("format    rows x cols  threads  repack GB/s  n=1 GB/s   GMAC/s  n=512 GMAC/s  exact\n");
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        if (argc > 2 && i != (size_t)atoi(argv[2])) continue;
        for (int threads = 1; threads <= 2; threads++)
            bench_one(&shapes[i], threads, x, out, seconds);
    }
    free(x);
    free(out);
    return 0;
}
