// SPDX-License-Identifier: MIT
/* encode_attend.c: libkvant alone: learn the mean of the keys, store keys and values at 4 bits, attend to them, and compare with
 * floats. The keys are random around a mean that RoPE turns with the position, as those of a model are.
 *
 *     ./encode_attend [format]        for example small, bc5/bc4, bc4.bare, affine4:64, f16 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "kvant/kvant.h"

enum { TOKENS = 1000, N_HEAD = 8, N_KV_HEAD = 2, HEAD_DIM = 64 };

static float k[TOKENS][N_KV_HEAD][HEAD_DIM], v[TOKENS][N_KV_HEAD][HEAD_DIM], q[1][N_HEAD][HEAD_DIM];

/* What the cache is to know of the model, from the first tokens: any few hundred do. */
static kvant_calibration *calibrate(const double *frequency) {
    kvant_error err = {0};
    kvant_rope_config rope = {.n_rot = HEAD_DIM, .magnitude = 1, .frequency = frequency};
    kvant_calibration_config config = {
        .n_layer = 1, .n_head = N_HEAD, .n_kv_head = N_KV_HEAD, .head_dim = HEAD_DIM, .n_rope = 1, .ropes = &rope};
    kvant_calibration *c;
    kvant_status st = kvant_calibration_create(&config, &c, &err);
    for (int t = 0; t < 512 && st == KVANT_OK; t++)
        st = kvant_calibration_add(c, 0, t, &k[t][0][0], &q[0][0][0], 1);
    if (st == KVANT_OK) st = kvant_calibration_finish(c, &err);
    if (st == KVANT_OK) return c;
    fprintf(stderr, "encode_attend: %s\n", err.message[0] ? err.message : kvant_status_name(st));
    exit(1);
}

/* The outputs of the last token's query heads with everything stored as `format`; returns the bytes of the cache. */
static size_t attend(kvant_context *ctx, const kvant_calibration *c, const char *format, float out[N_HEAD][HEAD_DIM]) {
    kvant_error err = {0};
    kvant_cache_config config;
    kvant_cache *cache;
    kvant_sequence *sequence;
    kvant_attend_params params = {.n_head = N_HEAD, .scale = 1 / sqrtf(HEAD_DIM), .precision = KVANT_FAST};
    kvant_cache_config_default(&config);
    config.n_layer = 1;
    config.n_kv_head = N_KV_HEAD;
    config.head_dim = HEAD_DIM;
    config.calibration = c;
    kvant_status st = kvant_format_parse_pair(format, &config.k, &config.v, &err);
    if (st == KVANT_OK) st = kvant_cache_create(ctx, &config, &cache, &err);
    if (st == KVANT_OK) st = kvant_sequence_create(cache, &sequence);
    if (st == KVANT_OK) st = kvant_sequence_append(sequence, 0, &k[0][0][0], &v[0][0][0], TOKENS);
    if (st == KVANT_OK) st = kvant_attend(sequence, 0, &params, &q[0][0][0], 1, &out[0][0]);
    if (st != KVANT_OK) {
        fprintf(stderr, "encode_attend: %s\n", err.message[0] ? err.message : kvant_status_name(st));
        exit(1);
    }
    size_t bytes = kvant_cache_bytes(cache);
    kvant_sequence_destroy(sequence);
    kvant_cache_destroy(cache);
    return bytes;
}

static void fill(float *x, size_t n) {
    for (; n > 0; n--) *x++ = (float)rand() / (float)RAND_MAX * 2 - 1;
}

/* Adds a mean to the keys that is turned as RoPE turns it: element i and its partner HEAD_DIM/2 + i. */
static void add_turning_mean(const double *frequency) {
    for (int t = 0; t < TOKENS; t++)
        for (int h = 0; h < N_KV_HEAD; h++)
            for (int i = 0; i < HEAD_DIM / 2; i++) {
                double size = 5.0 * (i % 3 + 1), angle = t * frequency[i] + h;
                k[t][h][i] += (float)(size * cos(angle));
                k[t][h][HEAD_DIM / 2 + i] += (float)(size * sin(angle));
            }
}

int main(int argc, char **argv) {
    const char *format = argc > 1 ? argv[1] : "small";
    double frequency[HEAD_DIM / 2];
    static float exact[N_HEAD][HEAD_DIM], out[N_HEAD][HEAD_DIM];
    kvant_context *ctx;
    if (kvant_context_create(0, KVANT_ISA_BEST, &ctx, NULL) != KVANT_OK) return 1;
    fill(&k[0][0][0], sizeof k / sizeof(float));
    fill(&v[0][0][0], sizeof v / sizeof(float));
    fill(&q[0][0][0], sizeof q / sizeof(float));
    for (int i = 0; i < HEAD_DIM / 2; i++) frequency[i] = pow(10000, -2.0 * i / HEAD_DIM);
    add_turning_mean(frequency);
    kvant_calibration *c = calibrate(frequency);
    size_t full = attend(ctx, c, "f32", exact), packed = attend(ctx, c, format, out);
    double worst = 0;
    for (int i = 0; i < N_HEAD * HEAD_DIM; i++) worst = fmax(worst, fabs((&out[0][0])[i] - (&exact[0][0])[i]));
    printf("%d tokens: f32 %zu bytes, %s %zu bytes; largest difference of an output %.2g\n", TOKENS, full, format, packed, worst);
    kvant_calibration_destroy(c);
    kvant_context_destroy(ctx);
    return 0;
}
