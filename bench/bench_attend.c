// SPDX-License-Identifier: MIT
/* bench_attend.c: how fast a cache is filled and attended to, by format, at one depth.
 *
 * decode: one token's queries against the whole depth, layer after layer, so that pages come from memory, as they do in a model.
 * prefill: the queries of a chunk of 512 tokens that were just appended. append: encoding those tokens.
 * A token-head is one stored token of one KV head, K and V. Each figure is the best of some passes. With one thread the time
 * of the processor is taken, so that other programs count less. Not built by default:
 *
 *     cc -O2 -std=c17 -Isrc -Iinclude bench/bench_attend.c BUILD/libpart_attn.a BUILD/libpart_cache.a BUILD/libpart_codec.a \
 *        BUILD/libpart_kernel.a BUILD/libpart_base.a -lm -lpthread -o bench_attend
 *     ./bench_attend [threads [depth [format ...]]] */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/os.h"
#include "kvant/kvant.h"

#define CHUNK 512
#define BYTES_IN_TURN ((size_t)48 << 20) /* beyond any cache */
#define LAYERS_MAX 32

typedef struct shape {
    int n_head, n_kv_head, head_dim;
} shape;

static const shape shapes[] = {{9, 3, 64}, {8, 2, 128}};
static const char *const formats[] = {"f16", "affine8:64", "affine6:64", "affine5:64", "affine4:64", "affine3:64", "affine2:64"};

static float random_value(void) {
    static uint32_t state = 1;
    float sum = 0;
    for (int i = 0; i < 4; i++) {
        state = state * 1664525u + 1013904223u;
        sum += (float)(state >> 8) / 16777216.0f - 0.5f;
    }
    return sum * 1.7f;
}

static float *random_rows(size_t n) {
    float *x = malloc(n * sizeof *x);
    for (size_t i = 0; x && i < n; i++)
        x[i] = random_value();
    return x;
}

static void check(kvant_status st, const char *what) {
    if (st == KVANT_OK) return;
    fprintf(stderr, "bench_attend: %s: %s\n", what, kvant_status_name(st));
    exit(1);
}

static double seconds(int threads) { return threads == 1 ? (double)clock() / CLOCKS_PER_SEC : kvant_clock_seconds(); }

static void bench_one(const char *format, const shape *p, int threads, int depth, kvant_precision precision) {
    kvant_context *ctx;
    kvant_cache *cache;
    kvant_sequence *s;
    kvant_cache_config config;
    kvant_cache_config_default(&config);
    check(kvant_format_parse_pair(format, &config.k, &config.v, NULL), format);
    config.n_layer = 1;
    config.n_kv_head = p->n_kv_head;
    config.head_dim = p->head_dim;
    size_t layer_bytes = kvant_cache_bytes_for(&config, depth);
    config.n_layer = (int)(BYTES_IN_TURN / layer_bytes) + 1;
    if (config.n_layer > LAYERS_MAX) config.n_layer = LAYERS_MAX;
    check(kvant_context_create(threads, KVANT_ISA_BEST, &ctx, NULL), "context");
    check(kvant_cache_create(ctx, &config, &cache, NULL), "cache");
    check(kvant_sequence_create(cache, &s), "sequence");
    size_t kv_row = (size_t)p->n_kv_head * (size_t)p->head_dim, q_row = (size_t)p->n_head * (size_t)p->head_dim;
    float *k = random_rows(CHUNK * kv_row), *v = random_rows(CHUNK * kv_row), *q = random_rows(CHUNK * q_row);
    float *out = random_rows(CHUNK * q_row);
    if (!k || !v || !q || !out) check(KVANT_ENOMEM, "rows");
    double append = 1e9, decode = 1e9, prefill = 1e9;
    for (int at = 0; at < depth; at += CHUNK)
        for (int layer = 0; layer < config.n_layer; layer++) {
            double start = seconds(threads);
            check(kvant_sequence_append(s, layer, k, v, CHUNK), "append");
            append = fmin(append, seconds(threads) - start);
        }
    kvant_attend_params params = {p->n_head, 1.0f / sqrtf((float)p->head_dim), 0, NULL, precision};
    for (int pass = 0; pass < 5; pass++) {
        for (int layer = 0; layer < config.n_layer; layer++) {
            double start = seconds(threads);
            check(kvant_attend(s, layer, &params, q, 1, out), "decode");
            decode = fmin(decode, seconds(threads) - start);
        }
    }
    for (int pass = 0; pass < 3; pass++) {
        double start = seconds(threads);
        check(kvant_attend(s, pass % config.n_layer, &params, q, CHUNK, out), "prefill");
        prefill = fmin(prefill, seconds(threads) - start);
    }
    double token_heads = (double)depth * p->n_kv_head;
    double macs = 2.0 * (depth - CHUNK / 2) * (double)CHUNK * (double)q_row;
    printf("%-11s %-5s %2d/%d x %-4d %6d %3d  %8.2f %7.2f  %9.2f %8.1f  %8.1f\n", format,
           precision == KVANT_EXACT ? "exact" : "fast", p->n_head, p->n_kv_head, p->head_dim, depth, threads,
           decode * 1e9 / token_heads, (double)layer_bytes / decode / 1e9, prefill * 1e3, macs / prefill / 1e9,
           append * 1e9 / (CHUNK * p->n_kv_head));
    fflush(stdout);
    kvant_sequence_destroy(s);
    kvant_cache_destroy(cache);
    kvant_context_destroy(ctx);
    free(k);
    free(v);
    free(q);
    free(out);
}

int main(int argc, char **argv) {
    int threads = argc > 1 ? atoi(argv[1]) : 1, depth = argc > 2 ? atoi(argv[2]) : 8192;
    if (threads < 1 || depth < CHUNK || depth % CHUNK != 0) {
        fprintf(stderr, "usage: bench_attend [threads [depth, a multiple of %d [format ...]]]\n", CHUNK);
        return 1;
    }
    printf("%-11s %-5s %-11s %6s %3s  %8s %7s  %9s %8s  %8s\n", "format", "", "heads x dim", "depth", "thr", "decode:", "GB/s",
           "prefill:", "GMAC/s", "append:");
    printf("%40s  %8s %7s  %9s %8s  %8s\n", "", "ns/tok-h", "", "ms", "", "ns/tok-h");
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        if (argc > 3) {
            for (int a = 3; a < argc; a++)
                bench_one(argv[a], &shapes[i], threads, depth, KVANT_FAST);
            continue;
        }
        for (size_t f = 0; f < sizeof formats / sizeof formats[0]; f++)
            bench_one(formats[f], &shapes[i], threads, depth, KVANT_FAST);
        bench_one("affine4:64", &shapes[i], threads, depth, KVANT_EXACT);
    }
    return 0;
}
