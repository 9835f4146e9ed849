// SPDX-License-Identifier: MIT
/* test_attend_centred.c: centring changes what is stored, never what attention means.
 *
 * Every setup runs three layers (whole RoPE in halves; part of the elements turned in neighbours, with a magnitude; no positions)
 * and compares rows with a float64 computation on the keys as they were given. Floats stored centred, by a calibration of random
 * numbers, lose no more than floats; formats of few bits lose little where keys have a large mean, and much without centring.
 * Bits of a row do not depend on steps, threads, kernels, forks or truncations. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cache/calibration_internal.h"
#include "kvant/kvant.h"

#define SEED 90210u
#define N_LAYER 3

typedef struct setup {
    const char *kv;
    bool center_floats;
    int n_head, n_kv_head, head_dim, n;
    int window, max_kv_size;
    float softcap;
    bool sinks;
    int start; /* quantized_kv_start */
    bool after_step;
    float mean;   /* of the keys before RoPE, in deviations */
    float wrong;  /* 0: calibrated from these keys; else by random means of this size .. */
    int spread;   /* .. and random scales from 2^-spread to 2^spread */
    double bound; /* of a row's relative error */
} setup;

static uint64_t seed;

static double random_unit(void) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (double)(seed >> 11) / 9007199254740992.0;
}

static float random_normal(void) {
    double u = random_unit() + 1e-300;
    return (float)(sqrt(-2 * log(u)) * cos(6.283185307179586 * random_unit()));
}

/* ---- a model's layers ---- */

static double frequency[2][256];

static kvant_calibration_config layers_of(const setup *t, kvant_rope_config ropes[2]) {
    static const int layer_rope[N_LAYER] = {0, 1, -1};
    int d = t->head_dim, part = d / 4 * 2;
    for (int i = 0; i < d / 2; i++)
        frequency[0][i] = pow(10000, -2.0 * i / d);
    for (int i = 0; i < part / 2; i++)
        frequency[1][i] = pow(5e5, -2.0 * i / part);
    ropes[0] = (kvant_rope_config){d, false, 1.0f, frequency[0]};
    ropes[1] = (kvant_rope_config){part, true, 1.3f, frequency[1]};
    return (kvant_calibration_config){N_LAYER, t->n_head, t->n_kv_head, d, 2, ropes, layer_rope};
}

static const kvant_rope_config *rope_of(const kvant_calibration_config *c, int layer) {
    return c->layer_rope[layer] < 0 ? NULL : &c->ropes[c->layer_rope[layer]];
}

static void places(const kvant_rope_config *r, int i, int *a, int *b) {
    *a = r->interleaved ? 2 * i : i;
    *b = r->interleaved ? 2 * i + 1 : r->n_rot / 2 + i;
}

static void turn(const kvant_rope_config *r, int64_t position, float *x) {
    for (int i = 0; r && i < r->n_rot / 2; i++) {
        int a, b;
        places(r, i, &a, &b);
        double angle = (double)position * r->frequency[i], c = cos(angle) * r->magnitude, s = sin(angle) * r->magnitude;
        double re = x[a] * c - x[b] * s, im = x[a] * s + x[b] * c;
        x[a] = (float)re;
        x[b] = (float)im;
    }
}

/* Rows of all layers: [layer][token][head][head_dim]. */
typedef struct rows {
    float *q, *k, *v, *sinks;
    size_t q_row, kv_row;
} rows;

static float *row_at(float *x, const setup *t, size_t row, int layer, int token) {
    return x + ((size_t)layer * (size_t)t->n + (size_t)token) * row;
}

/* Where the mean of the keys lies: all pairs alike, or only the slower ones, as in real models. */
static void make_mean(const setup *t, const kvant_rope_config *r, bool slow, float *mean) {
    double square = 0;
    int d = t->head_dim;
    for (int i = 0; i < d; i++)
        mean[i] = random_normal();
    for (int i = 0; slow && r && i < r->n_rot / 2; i++) {
        int a, b;
        places(r, i, &a, &b);
        if (r->frequency[i] > 0.01) mean[a] = mean[b] = 0;
    }
    for (int i = 0; i < d; i++)
        square += mean[i] * mean[i];
    for (int i = 0; i < d; i++)
        mean[i] *= t->mean * sqrtf((float)d / (float)square);
}

static rows make_rows(const setup *t, bool slow) {
    kvant_rope_config ropes[2];
    kvant_calibration_config layers = layers_of(t, ropes);
    int d = t->head_dim;
    rows r = {.q_row = (size_t)t->n_head * (size_t)d, .kv_row = (size_t)t->n_kv_head * (size_t)d};
    r.q = malloc(N_LAYER * (size_t)t->n * r.q_row * sizeof(float));
    r.k = malloc(N_LAYER * (size_t)t->n * r.kv_row * sizeof(float));
    r.v = malloc(N_LAYER * (size_t)t->n * r.kv_row * sizeof(float));
    r.sinks = malloc((size_t)t->n_head * sizeof(float));
    for (int h = 0; h < t->n_head; h++)
        r.sinks[h] = 2 * random_normal();
    for (int layer = 0; layer < N_LAYER; layer++) {
        static float mean[16][512];
        for (int h = 0; h < t->n_kv_head; h++)
            make_mean(t, rope_of(&layers, layer), slow, mean[h]);
        for (int p = 0; p < t->n; p++) {
            float *q = row_at(r.q, t, r.q_row, layer, p), *k = row_at(r.k, t, r.kv_row, layer, p),
                  *v = row_at(r.v, t, r.kv_row, layer, p);
            for (int i = 0; i < t->n_head * d; i++)
                q[i] = random_normal();
            for (int i = 0; i < t->n_kv_head * d; i++) {
                k[i] = mean[i / d][i % d] + random_normal();
                v[i] = random_normal();
            }
            for (int h = 0; h < t->n_kv_head; h++)
                turn(rope_of(&layers, layer), p, k + h * d);
        }
    }
    return r;
}

static void drop_rows(rows *r) {
    free(r->q);
    free(r->k);
    free(r->v);
    free(r->sinks);
}

/* From the rows themselves, or of random numbers: what comes out of attention must not depend on it. */
static kvant_calibration *calibrate(const setup *t, const rows *r) {
    kvant_rope_config ropes[2];
    kvant_calibration_config layers = layers_of(t, ropes);
    kvant_calibration *c = NULL;
    assert_int_equal(kvant_calibration_create(&layers, &c, NULL), KVANT_OK);
    for (int layer = 0; layer < N_LAYER; layer++)
        assert_int_equal(kvant_calibration_add(c, layer, 0, row_at(r->k, t, r->kv_row, layer, 0),
                                               row_at(r->q, t, r->q_row, layer, 0), t->n < 512 ? t->n : 512),
                         KVANT_OK);
    assert_int_equal(kvant_calibration_finish(c, NULL), KVANT_OK);
    for (int cell = 0; t->wrong != 0 && cell < N_LAYER * t->n_kv_head; cell++) {
        const kvant_rope_config *rope = rope_of(&layers, cell / t->n_kv_head);
        float *mean = c->mean + cell * t->head_dim, *scale = c->scale + cell * t->head_dim;
        for (int i = 0; i < t->head_dim; i++) {
            mean[i] = t->wrong * random_normal();
            scale[i] = (float)exp2(t->spread * (2 * random_unit() - 1));
        }
        for (int i = 0; rope && i < rope->n_rot / 2; i++) {
            int a, b;
            places(rope, i, &a, &b);
            scale[b] = scale[a];
        }
    }
    return c;
}

/* ---- running ---- */

typedef struct machine {
    kvant_context *ctx;
    kvant_cache *cache;
    kvant_sequence *s;
} machine;

static machine open_machine(const setup *t, const kvant_calibration *c, int threads, kvant_isa isa) {
    machine m = {0};
    kvant_error err = {0};
    kvant_cache_config config;
    int windows[N_LAYER] = {t->window, t->window, t->window};
    kvant_cache_config_default(&config);
    config.n_layer = N_LAYER;
    config.n_kv_head = t->n_kv_head;
    config.head_dim = t->head_dim;
    config.layer_window = windows;
    config.max_kv_size = t->max_kv_size;
    config.calibration = c;
    config.center_floats = t->center_floats;
    config.quantized_kv_start = t->start;
    config.quantize_after_step = t->after_step;
    assert_int_equal(kvant_format_parse_pair(t->kv, &config.k, &config.v, NULL), KVANT_OK);
    assert_int_equal(kvant_context_create(threads, isa, &m.ctx, NULL), KVANT_OK);
    if (kvant_cache_create(m.ctx, &config, &m.cache, &err) != KVANT_OK) fail_msg("%s", err.message);
    assert_int_equal(kvant_sequence_create(m.cache, &m.s), KVANT_OK);
    return m;
}

static void close_machine(machine *m) {
    kvant_sequence_destroy(m->s);
    assert_int_equal(kvant_cache_bytes(m->cache), 0);
    kvant_cache_destroy(m->cache);
    kvant_context_destroy(m->ctx);
}

static float score_scale(const setup *t) {
    /* A large mean makes large scores; smaller queries keep the softmax from choosing one token alone. */
    return 1.0f / sqrtf((float)t->head_dim) / (1 + 0.1f * t->mean);
}

/* Appends tokens [from, from + n) to all layers and attends from them; out: NULL, or rows as in `rows`. */
static void step(const setup *t, kvant_sequence *s, const rows *r, int from, int n, kvant_precision precision, float *out) {
    kvant_attend_params params = {t->n_head, score_scale(t), t->softcap, t->sinks ? r->sinks : NULL, precision};
    for (int layer = 0; layer < N_LAYER; layer++) {
        float *k = row_at(r->k, t, r->kv_row, layer, from), *v = row_at(r->v, t, r->kv_row, layer, from);
        assert_int_equal(kvant_sequence_append(s, layer, k, v, n), KVANT_OK);
        if (out)
            assert_int_equal(
                kvant_attend(s, layer, &params, row_at(r->q, t, r->q_row, layer, from), n, row_at(out, t, r->q_row, layer, from)),
                KVANT_OK);
    }
    assert_int_equal(kvant_maybe_quantize_kv_cache(s, NULL), KVANT_OK);
}

/* The whole text in steps; tokens from `slowly` on one by one. */
static float *run(const setup *t, const kvant_calibration *c, const rows *r, int threads, kvant_isa isa,
                  kvant_precision precision, int size, int slowly) {
    machine m = open_machine(t, c, threads, isa);
    float *out = calloc(N_LAYER * (size_t)t->n * r->q_row, sizeof *out);
    for (int at = 0; at < t->n;) {
        int n = at >= slowly ? 1 : slowly - at < size ? slowly - at : size;
        if (t->n - at < n) n = t->n - at;
        step(t, m.s, r, at, n, precision, out);
        at += n;
    }
    close_machine(&m);
    return out;
}

/* ---- the definition ---- */

static bool visible(const setup *t, int token, int position) {
    int size = t->window, keep = 0;
    if (t->max_kv_size && (!size || size > t->max_kv_size - KVANT_SINK_TOKENS)) {
        size = t->max_kv_size - KVANT_SINK_TOKENS;
        keep = KVANT_SINK_TOKENS;
    }
    return token <= position && (!size || position - token < size || token < keep);
}

static void reference_row(const setup *t, const rows *r, int layer, int position, int head, double *out) {
    int d = t->head_dim, kv = head / (t->n_head / t->n_kv_head);
    double *p = malloc((size_t)(position + 1) * sizeof *p), max = t->sinks ? r->sinks[head] : -INFINITY, sum = 0;
    const float *q = row_at(r->q, t, r->q_row, layer, position) + head * d;
    for (int j = 0; j <= position; j++) {
        const float *k = row_at(r->k, t, r->kv_row, layer, j) + kv * d;
        double dot = 0;
        for (int i = 0; i < d; i++)
            dot += (double)q[i] * k[i];
        p[j] = dot * score_scale(t);
        if (t->softcap > 0) p[j] = t->softcap * tanh(p[j] / t->softcap);
        if (!visible(t, j, position)) p[j] = -INFINITY;
        if (p[j] > max) max = p[j];
    }
    memset(out, 0, (size_t)d * sizeof *out);
    if (t->sinks) sum += exp(r->sinks[head] - max);
    for (int j = 0; j <= position; j++) {
        double w = exp(p[j] - max);
        const float *v = row_at(r->v, t, r->kv_row, layer, j) + kv * d;
        sum += w;
        for (int i = 0; i < d; i++)
            out[i] += w * v[i];
    }
    for (int i = 0; i < d; i++)
        out[i] /= sum;
    free(p);
}

/* Root of the mean square and largest relative error of the first `end` rows of one layer, or of all (-1). */
typedef struct row_error {
    double rms, worst;
} row_error;

static row_error error_of(const setup *t, const rows *r, float *out, int only, int end) {
    double row[512], sum = 0;
    int n = 0, far = t->n > 2000 ? 401 : 29;
    row_error e = {0, 0};
    for (int layer = 0; layer < N_LAYER; layer++)
        for (int p = 0; p < end && (only < 0 || layer == only); p += p < 8 || end - p < 10 ? 1
                                                                     : end - p - 9 < far   ? end - p - 9
                                                                                           : far)
            for (int h = 0; h < t->n_head; h++) {
                const float *got = row_at(out, t, r->q_row, layer, p) + h * t->head_dim;
                double error = 0, norm = 0;
                reference_row(t, r, layer, p, h, row);
                for (int i = 0; i < t->head_dim; i++) {
                    error += (got[i] - row[i]) * (got[i] - row[i]);
                    norm += row[i] * row[i];
                }
                sum += error / norm;
                n++;
                if (!(sqrt(error / norm) <= e.worst)) e.worst = sqrt(error / norm);
            }
    e.rms = sqrt(sum / n);
    return e;
}

static void describe(const setup *t, const char *what, row_error e) {
    print_message("%-10s d %3d, %4d tokens, window %d, kept %d, cap %g, sinks %d, start %d%s, mean %g, calibration %s%g: %s "
                  "%.1e, at most %.1e\n",
                  t->kv, t->head_dim, t->n, t->window, t->max_kv_size, (double)t->softcap, t->sinks, t->start,
                  t->after_step ? " after" : "", (double)t->mean, t->wrong != 0 ? "wrong by " : "good ", (double)t->wrong, what,
                  e.rms, e.worst);
}

/* ---- any calibration ---- */

/* What float32 alone costs: keys of 30 deviations are added and subtracted with 24 bits. */
#define F32 6e-6
static const setup exact[] = {
    {"f32", true, 4, 2, 64, 300, 0, 0, 0, false, 0, false, 0, 3, 3, F32},
    {"f32", true, 4, 2, 64, 300, 0, 0, 0, false, 0, false, 5, 0, 0, F32},
    {"f32", true, 6, 2, 80, 300, 0, 0, 0, true, 0, false, 5, 30, 4, 4e-5},
    {"f32", true, 4, 1, 96, 300, 0, 0, 20, false, 0, false, 3, 5, 4, F32},
    {"f32", true, 2, 2, 128, 400, 70, 0, 0, false, 0, false, 3, 5, 4, F32},
    {"f32", true, 2, 1, 256, 300, 50, 0, 30, true, 0, false, 3, 5, 4, F32},
    {"f32", true, 3, 1, 64, 700, 0, 100, 0, false, 0, false, 3, 5, 4, F32},
    {"f32", true, 3, 3, 64, 700, 130, 90, 10, true, 0, false, 3, 5, 4, F32},
    {"f32", true, 2, 1, 64, 5000, 0, 0, 0, false, 0, false, 3, 5, 4, F32},
    {"f32", true, 2, 1, 64, 2600, 1200, 0, 0, true, 0, false, 3, 5, 4, F32},
    {"f32", true, 2, 1, 64, 2600, 0, 1200, 0, false, 0, false, 3, 5, 4, F32},
    {"f32", true, 8, 8, 16, 1100, 0, 0, 0, false, 0, false, 3, 5, 4, F32},
    {"f32", true, 2, 1, 40, 200, 0, 0, 0, false, 0, false, 3, 5, 4, F32},
};

static void any_calibration_leaves_float32_attention_as_it_is(void **state) {
    (void)state;
    int n_wrong = 0;
    for (size_t i = 0; i < sizeof exact / sizeof *exact; i++) {
        const setup *t = &exact[i];
        seed = SEED + i;
        rows r = make_rows(t, false);
        kvant_calibration *c = calibrate(t, &r);
        for (int precision = t->n > 300; precision < 2; precision++) { /* floats are not rounded when they are fast, either */
            float *out = run(t, c, &r, 2, KVANT_ISA_BEST, (kvant_precision)precision, t->n > 2000 ? 512 : 61, t->n - 20);
            row_error e = error_of(t, &r, out, -1, t->n);
            describe(t, precision ? "exact" : "fast", e);
            n_wrong += !(e.worst < t->bound);
            free(out);
        }
        kvant_calibration_destroy(c);
        drop_rows(&r);
    }
    assert_int_equal(n_wrong, 0);
}

static const setup halves[] = {
    {"f16", true, 4, 2, 64, 300, 0, 0, 0, false, 0, false, 3, 3, 3, 0},
    {"f16", true, 4, 2, 80, 300, 0, 0, 20, true, 0, false, 3, 3, 3, 0},
    {"f16", true, 2, 1, 128, 400, 70, 0, 0, false, 0, false, 3, 3, 3, 0},
    {"f16", true, 3, 1, 64, 700, 0, 100, 0, false, 0, false, 3, 3, 3, 0},
    {"f16", true, 2, 1, 64, 1500, 0, 0, 0, true, 0, false, 3, 3, 3, 0},
    {"f16", true, 4, 2, 64, 600, 0, 0, 0, false, 0, false, 30, 0, 0, 0},
};

/* Binary16 rounds what is stored, so a mean that is as large as the keys costs about what the keys themselves do. */
static void any_calibration_leaves_binary16_attention_as_good_as_it_is(void **state) {
    (void)state;
    int n_wrong = 0;
    for (size_t i = 0; i < sizeof halves / sizeof *halves; i++) {
        const setup *t = &halves[i];
        setup plain = *t;
        plain.center_floats = false;
        seed = SEED + 100 + i;
        rows r = make_rows(t, false);
        kvant_calibration *c = calibrate(t, &r);
        int size = t->n > 2000 ? 512 : 61;
        float *out = run(t, c, &r, 2, KVANT_ISA_BEST, KVANT_EXACT, size, t->n - 20);
        float *bare = run(&plain, NULL, &r, 2, KVANT_ISA_BEST, KVANT_EXACT, size, t->n - 20);
        row_error e = error_of(t, &r, out, -1, t->n), b = error_of(t, &r, bare, -1, t->n);
        describe(t, "centred", e);
        describe(t, "as they are", b);
        n_wrong += !(e.rms < 2.5 * b.rms);
        n_wrong += !(e.worst < 4 * b.worst);
        free(out);
        free(bare);
        kvant_calibration_destroy(c);
        drop_rows(&r);
    }
    assert_int_equal(n_wrong, 0);
}

/* ---- few bits ---- */

/* Keys with a mean of 30 deviations in the slow pairs; V in float32, so that only K loses. */
static const setup few_bits[] = {
    {"bc4/f32", false, 4, 2, 64, 600, 0, 0, 0, false, 0, false, 30, 0, 0, 0.025},
    {"bc5/f32", false, 4, 2, 128, 600, 0, 0, 0, false, 0, false, 30, 0, 0, 0.012},
    {"i8/f32", false, 4, 2, 80, 600, 0, 0, 0, false, 0, false, 30, 0, 0, 0.002},
    {"i6/f32", false, 4, 2, 96, 600, 0, 0, 0, false, 0, false, 30, 0, 0, 0.008},
    {"bc3/f32", false, 2, 1, 256, 600, 0, 0, 0, false, 0, false, 30, 0, 0, 0.05},
    {"lm4/f32", false, 2, 1, 128, 600, 0, 0, 0, false, 0, false, 30, 0, 0, 0.03},
    {"bc4/f32", false, 3, 1, 64, 1500, 300, 0, 50, true, 0, false, 30, 0, 0, 0.025},
    {"bc4/f32", false, 2, 1, 64, 2200, 0, 0, 0, false, 0, false, 30, 0, 0, 0.025},
    {"i8/f32", false, 2, 1, 64, 2200, 0, 1200, 0, false, 0, false, 30, 0, 0, 0.002},
};

static void centred_keys_of_few_bits_lose_far_less_than_bare_ones(void **state) {
    (void)state;
    int n_wrong = 0;
    for (size_t i = 0; i < sizeof few_bits / sizeof *few_bits; i++) {
        const setup *t = &few_bits[i];
        char name[KVANT_FORMAT_NAME_MAX];
        setup bare = *t;
        const char *slash = strchr(t->kv, '/');
        snprintf(name, sizeof name, "%.*s.bare%s", (int)(slash - t->kv), t->kv, slash);
        bare.kv = name;
        seed = SEED + 200 + i;
        rows r = make_rows(t, true);
        kvant_calibration *c = calibrate(t, &r);
        int size = t->n > 2000 ? 512 : 61;
        float *out = run(t, c, &r, 2, KVANT_ISA_BEST, KVANT_FAST, size, t->n - 20);
        float *other = run(&bare, NULL, &r, 2, KVANT_ISA_BEST, KVANT_FAST, size, t->n - 20);
        for (int layer = 0; layer < N_LAYER; layer++) {
            row_error e = error_of(t, &r, out, layer, t->n), b = error_of(t, &r, other, layer, t->n);
            print_message("%-8s d %3d, %4d tokens, layer %d: centred %.4f, bare %.4f: %.1f times\n", t->kv, t->head_dim, t->n,
                          layer, e.rms, b.rms, b.rms / e.rms);
            n_wrong += !(e.rms < t->bound);
            n_wrong += !(b.rms > 10 * t->bound);
        }
        free(out);
        free(other);
        kvant_calibration_destroy(c);
        drop_rows(&r);
    }
    assert_int_equal(n_wrong, 0);
}

/* ---- the same bits ---- */

static const setup same[] = {
    {"f32", true, 3, 1, 64, 200, 0, 0, 0, false, 0, false, 3, 5, 4, 0},
    {"f16", true, 4, 2, 80, 300, 50, 0, 0, true, 0, false, 3, 3, 3, 0},
    {"bc4", false, 6, 2, 64, 1100, 0, 0, 0, false, 0, false, 10, 0, 0, 0},
    {"bc5/bc3", false, 4, 1, 96, 300, 0, 100, 30, false, 0, false, 10, 0, 0, 0},
    {"i8/bc4", false, 2, 2, 128, 300, 0, 0, 0, true, 0, false, 10, 5, 3, 0},
    {"bc2/i6", false, 3, 3, 80, 300, 70, 0, 0, false, 0, false, 10, 0, 0, 0},
    {"lm3/lm2", false, 4, 2, 64, 200, 0, 0, 0, false, 0, false, 10, 0, 0, 0},
    {"i8/affine4:64", false, 4, 2, 64, 200, 0, 0, 0, false, 0, false, 10, 0, 0, 0},
    {"bc4:16/bc5:16", false, 4, 2, 128, 300, 0, 0, 0, false, 0, false, 10, 0, 0, 0},
    {"bz2/bc3:16", false, 4, 2, 80, 300, 0, 0, 0, false, 0, false, 10, 0, 0, 0},
    {"bc4.bare/bc4", false, 5, 1, 256, 200, 0, 0, 0, false, 0, false, 1, 0, 0, 0},
};

static void bits_do_not_depend_on_steps_threads_or_kernels(void **state) {
    (void)state;
    static const struct {
        int threads, size;
        kvant_isa isa;
    } ways[] = {{1, 1, KVANT_ISA_BEST}, {3, 7, KVANT_ISA_REF}, {2, 64, KVANT_ISA_BEST}, {4, 1, KVANT_ISA_BEST}};
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        const setup *t = &same[i];
        seed = SEED + 300 + i;
        rows r = make_rows(t, true);
        kvant_calibration *c = calibrate(t, &r);
        size_t bytes = N_LAYER * (size_t)t->n * r.q_row * sizeof(float);
        for (int precision = 0; precision < (t->n > 200 ? 1 : 2); precision++) {
            float *whole = run(t, c, &r, 1, KVANT_ISA_BEST, (kvant_precision)precision, t->n, t->n);
            for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
                if (t->n > 1000 && ways[w].isa == KVANT_ISA_REF) continue; /* slow, and nothing new */
                float *out = run(t, c, &r, ways[w].threads, ways[w].isa, (kvant_precision)precision, ways[w].size, t->n);
                if (memcmp(whole, out, bytes) != 0)
                    fail_msg("%s, head_dim %d: %d threads, steps of %d, %s", t->kv, t->head_dim, ways[w].threads, ways[w].size,
                             kvant_isa_name(ways[w].isa));
                free(out);
            }
            free(whole);
        }
        kvant_calibration_destroy(c);
        drop_rows(&r);
    }
}

/* Forks that go their own ways and come back by truncation have the bits of a sequence that went straight. */
static void forks_and_truncations_leave_no_trace(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        setup t = same[i];
        seed = SEED + 400 + i;
        rows r = make_rows(&t, true), other = make_rows(&t, true); /* other tokens, at the same positions */
        kvant_calibration *c = calibrate(&t, &r);
        size_t bytes = N_LAYER * (size_t)t.n * r.q_row * sizeof(float);
        float *whole = run(&t, c, &r, 2, KVANT_ISA_BEST, KVANT_FAST, 61, t.n);
        machine m = open_machine(&t, c, 2, KVANT_ISA_BEST);
        float *out = calloc(1, bytes), *aside = calloc(1, bytes);
        for (int at = 0; at < t.n;) {
            int n = 1 + (int)(random_unit() * 70), wrong = 1 + (int)(random_unit() * 40);
            if (n > t.n - at) n = t.n - at;
            if (wrong > t.n - at) wrong = t.n - at;
            kvant_sequence *fork;
            assert_int_equal(kvant_sequence_fork(m.s, &fork), KVANT_OK);
            step(&t, fork, &other, at, wrong, KVANT_FAST, aside);
            bool windowed = t.window || t.max_kv_size;
            if (!windowed || random_unit() < 0.5) { /* the fork is thrown away, or takes the place of its parent */
                kvant_status st = kvant_sequence_truncate(fork, at);
                if (st == KVANT_OK) {
                    kvant_sequence *parent = m.s;
                    m.s = fork;
                    fork = parent;
                } else {
                    assert_true(windowed);
                    assert_int_equal(st, KVANT_EUNSUPPORTED);
                }
            }
            step(&t, m.s, &r, at, n, KVANT_FAST, out);
            if (random_unit() < 0.5 && kvant_sequence_length(fork) == at) step(&t, fork, &other, at, wrong, KVANT_FAST, aside);
            kvant_sequence_destroy(fork);
            at += n;
        }
        if (memcmp(whole, out, bytes) != 0) fail_msg("%s, head_dim %d", t.kv, t.head_dim);
        close_machine(&m);
        free(out);
        free(aside);
        free(whole);
        kvant_calibration_destroy(c);
        drop_rows(&r);
        drop_rows(&other);
    }
}

/* ---- conversion ---- */

static const setup converted[] = {
    {"f32", true, 4, 2, 64, 400, 0, 0, 0, false, 100, false, 3, 3, 3, 0},
    {"f32", true, 4, 2, 64, 400, 0, 0, 0, false, 150, true, 3, 3, 3, 0},
    {"i8", false, 4, 2, 80, 400, 0, 0, 0, true, 100, false, 30, 0, 0, 0},
    {"i8", false, 2, 1, 128, 500, 0, 120, 0, false, 200, true, 30, 0, 0, 0},
    {"bc4", false, 4, 2, 64, 400, 70, 0, 30, false, 64, false, 30, 0, 0, 0},
    {"bc4", false, 4, 2, 96, 400, 0, 0, 0, false, 0, true, 30, 0, 0, 0},
};

/* Pages that were binary16 at first, centred like the others, are worth what pages of the format are worth; before the conversion
 * rows have the precision of binary16. */
static void conversion_loses_what_the_format_loses(void **state) {
    (void)state;
    int n_wrong = 0;
    for (size_t i = 0; i < sizeof converted / sizeof *converted; i++) {
        const setup *t = &converted[i];
        setup at_once = *t, half = *t;
        at_once.start = 0;
        at_once.after_step = false;
        half.kv = "f16";
        half.center_floats = true;
        seed = SEED + 500 + i;
        rows r = make_rows(t, true);
        kvant_calibration *c = calibrate(t, &r);
        float *out = run(t, c, &r, 2, KVANT_ISA_BEST, KVANT_EXACT, 37, t->n);
        float *direct = run(&at_once, c, &r, 2, KVANT_ISA_BEST, KVANT_EXACT, 37, t->n);
        float *plain = run(&half, c, &r, 2, KVANT_ISA_BEST, KVANT_EXACT, 37, t->n);
        row_error e = error_of(t, &r, out, -1, t->n), d = error_of(t, &r, direct, -1, t->n), f = error_of(t, &r, plain, -1, t->n);
        describe(t, "converted", e);
        describe(&at_once, "at once", d);
        n_wrong += !(e.rms < 1.1 * d.rms + 1.5 * f.rms);
        n_wrong += !(e.worst < 1.5 * d.worst + 2 * f.worst);
        int before = t->after_step ? t->start / 37 * 37 + 37 : t->start; /* rows that only binary16 was there for */
        if (!t->after_step) before = before / 37 * 37;
        row_error early = error_of(t, &r, out, -1, before), early_plain = error_of(t, &r, plain, -1, before);
        print_message("%10s the first %d rows: %.1e, binary16 %.1e\n", "", before, early.rms, early_plain.rms);
        n_wrong += !(early.rms < 1.5 * early_plain.rms);
        free(out);
        free(direct);
        free(plain);
        kvant_calibration_destroy(c);
        drop_rows(&r);
    }
    assert_int_equal(n_wrong, 0);
}

/* The first tokens of a sequence are kept as binary16: a needle among them is read back to that precision at 2 bits. */
static void first_tokens_are_kept_in_full_precision(void **state) {
    (void)state;
    const setup t = {"bc2", false, 2, 1, 64, 90, 0, 0, 0, false, 0, false, 10, 0, 0, 0};
    seed = SEED + 600;
    rows r = make_rows(&t, true);
    kvant_calibration *c = calibrate(&t, &r);
    machine m = open_machine(&t, c, 1, KVANT_ISA_BEST);
    step(&t, m.s, &r, 0, t.n, KVANT_FAST, NULL);
    for (int layer = 0; layer < N_LAYER; layer++)
        for (int p = 0; p < 8; p++) {
            float k[64], v[64];
            double error = 0, norm = 0;
            assert_int_equal(kvant_sequence_decode(m.s, layer, p, 0, k, v), KVANT_OK);
            for (int i = 0; i < 64; i++) {
                error += pow((double)v[i] - row_at(r.v, &t, r.kv_row, layer, p)[i], 2);
                norm += pow((double)v[i], 2);
                if (p < KVANT_SINK_TOKENS) assert_true(fabs(k[i] - row_at(r.k, &t, r.kv_row, layer, p)[i]) < 0.02);
            }
            if (p < KVANT_SINK_TOKENS ? !(sqrt(error / norm) < 1e-3) : !(sqrt(error / norm) > 0.1))
                fail_msg("layer %d, token %d: %g", layer, p, sqrt(error / norm));
        }
    close_machine(&m);
    kvant_calibration_destroy(c);
    drop_rows(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_calibration_leaves_float32_attention_as_it_is),
        cmocka_unit_test(any_calibration_leaves_binary16_attention_as_good_as_it_is),
        cmocka_unit_test(centred_keys_of_few_bits_lose_far_less_than_bare_ones),
        cmocka_unit_test(bits_do_not_depend_on_steps_threads_or_kernels),
        cmocka_unit_test(forks_and_truncations_leave_no_trace),
        cmocka_unit_test(conversion_loses_what_the_format_loses),
        cmocka_unit_test(first_tokens_are_kept_in_full_precision),
    };
    print_message("seed %u\n", SEED);
    return cmocka_run_group_tests_name("attend centred", tests, NULL, NULL);
}
