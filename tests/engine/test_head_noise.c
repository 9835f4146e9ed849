// SPDX-License-Identifier: MIT
/* test_head_noise.c: the noise that sessions measure of every KV head, and the warning of those whose format breaks the model.
 *
 * A model whose keys have a huge mean is made from a random one, written to a file, and opened as a user would. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/half.h"
#include "base/memory.h"
#include "engine/head_noise.h"
#include "kvant/engine.h"

#define SEED 4242u
#define SOURCE KVANT_DATA "/models/random-qwen2-dense.gguf"
#define CHANGED "test_head_noise.gguf"
#define HUGE_MEAN 1500
#define LAYER 1 /* of the head whose keys are changed */
#define KV_HEAD 1
#define N_LAYER 2
#define N_KV_HEAD 2
#define HEAD_DIM 128
#define N_VOCAB 128
#define N_TEXT 200

static uint64_t seed;
static int32_t text[N_TEXT];

static double random_unit(void) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (double)(seed >> 11) / 9007199254740992.0;
}

static float random_normal(void) {
    double u = random_unit() + 1e-300;
    return (float)(sqrt(-2 * log(u)) * cos(6.283185307179586 * random_unit()));
}

/* ---- the warnings that are told ---- */

static char told[4096];
static int n_told;

static void hear(void *user, kvant_log_level level, const char *line) {
    (void)user;
    if (level != KVANT_LOG_WARNING) return;
    snprintf(told, sizeof told, "%s", line);
    n_told++;
}

/* ---- a model with a huge mean in the keys of one head ---- */

static void set_float(uint8_t *bytes, const kvant_gguf_tensor *t, int64_t i, float x) {
    assert_int_equal(t->type, 0); /* float32 */
    kvant_write_u32(bytes + (t->data - bytes) + 4 * i, kvant_f32_bits(x));
}

/* Norms and scales of 1 make attention look at tokens; then the constant, in pairs that hardly turn: see test_centred_model.c. */
static void change(uint8_t *bytes, const kvant_gguf *f, float constant) {
    char name[64];
    for (int i = 0; i < f->n_tensors; i++) {
        const kvant_gguf_tensor *t = &f->tensors[i];
        size_t n = t->name.size;
        bool norm = n > 11 && memcmp(t->name.data + n - 11, "norm.weight", 11) == 0;
        bool scale = n > 5 && memcmp(t->name.data + n - 5, "scale", 5) == 0;
        bool query = n > 12 && memcmp(t->name.data + n - 12, "attn_q.scale", 12) == 0;
        for (int64_t e = 0; e < t->dims[0] && (norm || scale); e++)
            set_float(bytes, t, e, query ? 0.3f : 1.0f);
    }
    snprintf(name, sizeof name, "blk.%d.attn_k.bias", LAYER);
    const kvant_gguf_tensor *bias = kvant_gguf_find_tensor(f, name);
    assert_non_null(bias);
    assert_int_equal(bias->dims[0], N_KV_HEAD * HEAD_DIM);
    for (int e = HEAD_DIM / 4; e < HEAD_DIM / 2; e++)
        set_float(bytes, bias, KV_HEAD * HEAD_DIM + e, (random_unit() < 0.5 ? -1.0f : 1.0f) * constant);
}

static bool write_changed(float constant) {
    FILE *in = fopen(SOURCE, "rb");
    if (!in) {
        print_message("skipped: %s is absent\n", SOURCE);
        return false;
    }
    static uint8_t bytes[8 << 20];
    size_t size = fread(bytes, 1, sizeof bytes, in);
    assert_true(size > 0 && size < sizeof bytes);
    fclose(in);
    kvant_gguf *f;
    kvant_error err = {0};
    if (kvant_gguf_parse(SOURCE, bytes, size, NULL, &f, &err) != KVANT_OK) fail_msg("%s", err.message);
    seed = SEED;
    change(bytes, f, constant);
    kvant_gguf_close(f);
    FILE *out = fopen(CHANGED, "wb");
    assert_non_null(out);
    assert_int_equal(fwrite(bytes, 1, size, out), size);
    assert_int_equal(fclose(out), 0);
    for (int i = 0; i < N_TEXT; i++)
        text[i] = (int32_t)(random_unit() * N_VOCAB);
    return true;
}

static kvant_model *open_model(const kvant_kv_params *kv) {
    kvant_model *m;
    kvant_error err = {0};
    kvant_load_params load;
    kvant_load_params_default(&load);
    if (kv) load.kv = *kv;
    load.n_threads = 2;
    if (kvant_model_open(CHANGED, &load, &m, &err) != KVANT_OK) fail_msg("%s", err.message);
    n_told = 0;
    told[0] = '\0';
    return m;
}

static kvant_session *open_session(kvant_model *m, const char *kv, int measure_tokens) {
    kvant_session *s;
    kvant_error err = {0};
    kvant_session_params p;
    kvant_session_params_default(&p);
    p.kv = kv;
    p.measure_tokens = measure_tokens;
    if (kvant_session_create(m, &p, &s, &err) != KVANT_OK) fail_msg("%s: %s", kv, err.message);
    return s;
}

static void prefill(kvant_session *s, int from, int n) {
    kvant_error err = {0};
    if (kvant_session_prefill(s, text + from, n, NULL, NULL, &err) != KVANT_OK) fail_msg("%s", err.message);
}

/* Warnings of a session that reads the text, and the sigma^2 of the changed head. */
static int warnings(kvant_model *m, const char *kv, double *sigma2) {
    kvant_error err = {0};
    kvant_session *s = open_session(m, kv, N_TEXT);
    n_told = 0;
    told[0] = '\0';
    prefill(s, 0, N_TEXT);
    if (kvant_session_head_noise(s, LAYER, KV_HEAD, sigma2, NULL, &err) != KVANT_OK) fail_msg("%s", err.message);
    kvant_session_destroy(s);
    print_message("  %-14s sigma2 %.3g%s%s\n", kv, *sigma2, n_told ? ": " : "", told);
    return n_told;
}

/* ---- the warning ---- */

static void a_huge_mean_of_keys_warns_by_name_unless_it_is_centred(void **state) {
    (void)state;
    static const char *const broken[] = {"affine4:64", "bc4.bare/bc4", "affine2:128/f16"}, *const working[] = {"bc4", "i8", "bc3",
                                                                                                               "f16", "f16/bc2"};
    double sigma2;
    if (!write_changed(HUGE_MEAN)) skip();
    kvant_model *m = open_model(NULL);
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        char name[32];
        snprintf(name, sizeof name, "%.*s", (int)strcspn(broken[i], "/"), broken[i]);
        assert_int_equal(warnings(m, broken[i], &sigma2), 1);
        assert_true(sigma2 > 30);
        assert_non_null(strstr(told, name));
        assert_non_null(strstr(told, "layer 1, KV head 1"));
        assert_non_null(strstr(told, "1 of 4 KV heads"));
        assert_non_null(strstr(told, "bc4 and i8 centre keys"));
    }
    for (size_t i = 0; i < sizeof working / sizeof *working; i++) {
        assert_int_equal(warnings(m, working[i], &sigma2), 0);
        assert_true(sigma2 < 1);
    }
    kvant_model_close(m);
    assert_true(write_changed(0));
    m = open_model(NULL);
    assert_int_equal(warnings(m, "affine4:64", &sigma2), 0);
    kvant_model_close(m);
}

static void the_warning_comes_once_and_when_keys_are_quantized(void **state) {
    (void)state;
    if (!write_changed(HUGE_MEAN)) skip();
    kvant_model *m = open_model(NULL);
    kvant_session *s = open_session(m, "affine4:64", 0);
    prefill(s, 0, 63);
    assert_int_equal(n_told, 0);
    for (int i = 63; i < 150; i++)
        prefill(s, i, 1);
    assert_int_equal(n_told, 1);
    assert_int_equal(kvant_session_truncate(s, 0, NULL), KVANT_OK);
    prefill(s, 0, 150);
    assert_int_equal(n_told, 1);
    kvant_session_destroy(s);
    kvant_model_close(m);
    for (int mlx = 0; mlx < 2; mlx++) {
        kvant_kv_params kv = {.kv = "affine4:64", .quantized_kv_start = 100, .compat_mlx = mlx};
        m = open_model(&kv);
        s = open_session(m, NULL, 0);
        prefill(s, 0, 99);
        assert_int_equal(n_told, 0);
        prefill(s, 99, 2);
        assert_int_equal(n_told, 1);
        kvant_session_destroy(s);
        kvant_model_close(m);
    }
}

static void windows_warn_as_well(void **state) {
    (void)state;
    if (!write_changed(HUGE_MEAN)) skip();
    kvant_kv_params kv = {.kv = "affine4:64", .max_kv_size = 40};
    kvant_model *m = open_model(&kv);
    kvant_session *s = open_session(m, NULL, 100);
    kvant_error err = {0};
    double sigma2, v_error;
    for (int i = 0; i < N_TEXT; i++)
        prefill(s, i, 1);
    assert_int_equal(n_told, 1);
    /* Of the first 100 tokens, those of page 0 are still there. */
    assert_int_equal(kvant_session_head_noise(s, LAYER, KV_HEAD, &sigma2, &v_error, &err), KVANT_OK);
    assert_true(sigma2 > 30 && v_error > 0 && v_error < 1);
    kvant_session_destroy(s);
    kvant_model_close(m);
}

static void decoding_across_the_check_allocates_nothing(void **state) {
    (void)state;
    if (!write_changed(0)) skip();
    kvant_model *m = open_model(NULL);
    kvant_session *s = open_session(m, "affine4:64", 0);
    prefill(s, 0, 40);
    prefill(s, 40, 1);
    uint64_t before = kvant_alloc_count();
    for (int i = 41; i < 64; i++)
        prefill(s, i, 1);
    assert_int_equal(kvant_alloc_count() - before, 0);
    kvant_session_destroy(s);
    kvant_model_close(m);
}

/* ---- the figures ---- */

static void figures_of_more_bits_are_smaller_in_every_head(void **state) {
    (void)state;
    static const char *const formats[] = {"f16", "i8", "bc5", "bc4", "bc3", "bc2"};
    double previous[N_LAYER][N_KV_HEAD][2] = {{{0}}};
    if (!write_changed(0)) skip();
    kvant_model *m = open_model(NULL);
    for (size_t f = 0; f < sizeof formats / sizeof *formats; f++) {
        kvant_session *s = open_session(m, formats[f], 128);
        prefill(s, 0, N_TEXT);
        for (int l = 0; l < N_LAYER; l++)
            for (int k = 0; k < N_KV_HEAD; k++) {
                double x[2];
                assert_int_equal(kvant_session_head_noise(s, l, k, &x[0], &x[1], NULL), KVANT_OK);
                for (int i = 0; i < 2; i++) {
                    if (!(x[i] > previous[l][k][i]))
                        fail_msg("%s: layer %d, KV head %d: %g, before %g", formats[f], l, k, x[i], previous[l][k][i]);
                    previous[l][k][i] = x[i];
                }
                if (f == 0) assert_true(x[0] < 1e-6 && x[1] < 1e-3);
            }
        kvant_session_destroy(s);
    }
    assert_true(previous[0][0][1] > 0.05 && previous[0][0][1] < 0.5); /* two bits */
    kvant_model_close(m);
}

static void what_cannot_be_measured_is_refused(void **state) {
    (void)state;
    double x, y;
    kvant_error err = {0};
    if (!write_changed(0)) skip();
    kvant_model *m = open_model(NULL);
    kvant_session *s = open_session(m, "bc4", 0);
    assert_int_equal(kvant_session_head_noise(s, 0, 0, &x, &y, &err), KVANT_EINVAL);
    assert_non_null(strstr(err.message, "measure_tokens"));
    kvant_session_destroy(s);
    s = open_session(m, "bc4", 64);
    prefill(s, 0, 15);
    assert_int_equal(kvant_session_head_noise(s, 0, 0, &x, &y, &err), KVANT_EINVAL);
    assert_non_null(strstr(err.message, "too few"));
    prefill(s, 15, 1);
    assert_int_equal(kvant_session_head_noise(s, 0, 0, &x, &y, &err), KVANT_OK);
    assert_int_equal(kvant_session_head_noise(s, N_LAYER, 0, &x, &y, &err), KVANT_EINVAL);
    assert_int_equal(kvant_session_head_noise(s, 0, -1, &x, &y, &err), KVANT_EINVAL);
    assert_int_equal(kvant_session_truncate(s, 10, &err), KVANT_OK);
    assert_int_equal(kvant_session_head_noise(s, 0, 0, &x, &y, &err), KVANT_EINVAL);
    kvant_session_destroy(s);
    kvant_session_params p;
    kvant_session_params_default(&p);
    p.measure_tokens = -1;
    assert_int_equal(kvant_session_create(m, &p, &s, &err), KVANT_EINVAL);
    p.measure_tokens = KVANT_HEAD_NOISE_TOKENS_MAX + 1;
    assert_int_equal(kvant_session_create(m, &p, &s, &err), KVANT_EINVAL);
    kvant_model_close(m);
}

/* ---- against the definition ---- */

#define N 48
#define HEADS 4
#define KV_HEADS 2
#define D 64

/* sigma^2 and V error as engine.h defines them, from what the sequence decodes. */
static void by_definition(const kvant_sequence *s, const float *k, const float *v, const float *q, int kv_head, float scale,
                          float softcap, double *sigma2, double *v_error) {
    double variance = 0, wrong = 0, energy = 0;
    int n_query = 0;
    for (int p = 15; p < N; p += 8) {
        for (int h = kv_head * (HEADS / KV_HEADS); h < (kv_head + 1) * (HEADS / KV_HEADS); h++) {
            double noise[N], weight[N], mean = 0, square = 0, out[D] = {0}, bad[D] = {0};
            for (int t = 0; t <= p; t++) {
                float ks[D], vs[D];
                double exact = 0, stored = 0;
                assert_int_equal(kvant_sequence_decode(s, 0, t, kv_head, ks, vs), KVANT_OK);
                for (int e = 0; e < D; e++) {
                    exact += (double)q[(p * HEADS + h) * D + e] * k[(t * KV_HEADS + kv_head) * D + e] * scale;
                    stored += (double)q[(p * HEADS + h) * D + e] * ks[e] * scale;
                }
                if (softcap > 0) exact = softcap * tanh(exact / softcap), stored = softcap * tanh(stored / softcap);
                noise[t] = stored - exact;
                weight[t] = exp(exact);
                for (int e = 0; e < D; e++) {
                    out[e] += weight[t] * v[(t * KV_HEADS + kv_head) * D + e];
                    bad[e] += weight[t] * ((double)vs[e] - v[(t * KV_HEADS + kv_head) * D + e]);
                }
                if (t >= KVANT_SINK_TOKENS) mean += noise[t] / (p + 1 - KVANT_SINK_TOKENS);
            }
            for (int t = KVANT_SINK_TOKENS; t <= p; t++)
                square += (noise[t] - mean) * (noise[t] - mean) / (p + 1 - KVANT_SINK_TOKENS);
            double total = 0;
            for (int t = 0; t <= p; t++)
                total += weight[t];
            for (int e = 0; e < D; e++) {
                energy += out[e] * out[e] / (total * total);
                wrong += bad[e] * bad[e] / (total * total);
            }
            variance += square;
            n_query++;
        }
    }
    *sigma2 = variance / n_query;
    *v_error = sqrt(wrong / energy);
}

static void figures_are_those_of_the_definition(void **state) {
    (void)state;
    static float k[N * KV_HEADS * D], v[N * KV_HEADS * D], q[N * HEADS * D];
    kvant_context *ctx;
    kvant_cache *cache;
    kvant_sequence *s;
    kvant_cache_config config;
    seed = SEED;
    for (int i = 0; i < N * KV_HEADS * D; i++)
        k[i] = 1 + 2 * random_normal(), v[i] = random_normal();
    for (int i = 0; i < N * HEADS * D; i++)
        q[i] = random_normal();
    assert_int_equal(kvant_context_create(1, KVANT_ISA_BEST, &ctx, NULL), KVANT_OK);
    kvant_cache_config_default(&config);
    config.n_layer = 1, config.n_kv_head = KV_HEADS, config.head_dim = D;
    assert_int_equal(kvant_format_parse_pair("affine4:32/affine3:64", &config.k, &config.v, NULL), KVANT_OK);
    assert_int_equal(kvant_cache_create(ctx, &config, &cache, NULL), KVANT_OK);
    assert_int_equal(kvant_sequence_create(cache, &s), KVANT_OK);
    assert_int_equal(kvant_sequence_append(s, 0, k, v, N), KVANT_OK);
    for (int capped = 0; capped < 2; capped++) {
        kvant_decoder_info info = {.n_layer = 1,
                                   .n_head = HEADS,
                                   .n_kv_head = KV_HEADS,
                                   .head_dim = D,
                                   .attention_scale = 0.125f,
                                   .attention_softcap = capped ? 2.0f : 0.0f};
        kvant_head_noise *h;
        assert_int_equal(kvant_head_noise_create(&info, N, 8, true, &h, NULL), KVANT_OK);
        for (int at = 0; at < N; at += 20) /* in pieces, the last one longer than what is left */
            assert_int_equal(kvant_head_noise_observe(h, 0, at, k + at * KV_HEADS * D, v + at * KV_HEADS * D, q + at * HEADS * D,
                                                      N - at < 20 ? N - at : 20),
                             KVANT_OK);
        for (int head = 0; head < KV_HEADS; head++) {
            double sigma2, v_error, true_sigma2, true_v_error;
            assert_int_equal(kvant_head_noise_measure(h, s, 0, head, &sigma2, &v_error), KVANT_OK);
            by_definition(s, k, v, q, head, 0.125f, info.attention_softcap, &true_sigma2, &true_v_error);
            print_message("  KV head %d, soft-cap %g: sigma2 %.6g (%.6g), V error %.6g (%.6g)\n", head,
                          (double)info.attention_softcap, sigma2, true_sigma2, v_error, true_v_error);
            assert_true(fabs(sigma2 / true_sigma2 - 1) < 1e-3);
            assert_true(fabs(v_error / true_v_error - 1) < 1e-3);
        }
        kvant_head_noise_destroy(h);
    }
    kvant_sequence_destroy(s);
    kvant_cache_destroy(cache);
    kvant_context_destroy(ctx);
}

static int tear_down(void **state) {
    (void)state;
    remove(CHANGED);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_huge_mean_of_keys_warns_by_name_unless_it_is_centred),
        cmocka_unit_test(the_warning_comes_once_and_when_keys_are_quantized),
        cmocka_unit_test(windows_warn_as_well),
        cmocka_unit_test(decoding_across_the_check_allocates_nothing),
        cmocka_unit_test(figures_of_more_bits_are_smaller_in_every_head),
        cmocka_unit_test(what_cannot_be_measured_is_refused),
        cmocka_unit_test(figures_are_those_of_the_definition),
    };
    print_message("seed %u\n", SEED);
    kvant_set_log(hear, NULL);
    return cmocka_run_group_tests_name("head noise", tests, NULL, tear_down);
}
