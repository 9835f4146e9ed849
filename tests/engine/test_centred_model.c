// SPDX-License-Identifier: MIT
/* test_centred_model.c: what centring promises of whole models.
 *
 * In every architecture, floats stored centred by random means give the logits of floats. A constant in the bias of the keys,
 * however large, changes neither logits nor greedy tokens where attention itself does not feel it (elements that RoPE does not
 * turn), and where it does, costs a format of few bits no more than without it. Keys that are not centred lose the model. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/half.h"
#include "cache/calibration_internal.h"
#include "model/decoder.h"

#define SEED 777u
#define N_TEXT 200
#define N_PROMPT 120 /* greedy tokens come after these */
#define BIASED KVANT_DATA "/models/random-qwen2-dense.gguf"

static uint64_t seed;

static double random_unit(void) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (double)(seed >> 11) / 9007199254740992.0;
}

static float random_normal(void) {
    double u = random_unit() + 1e-300;
    return (float)(sqrt(-2 * log(u)) * cos(6.283185307179586 * random_unit()));
}

/* ---- models in memory, so that their bytes can be changed ---- */

typedef struct machine {
    uint8_t *bytes;
    kvant_context *ctx;
    kvant_gguf *file;
    kvant_decoder *decoder;
    kvant_decoder_info info;
    kvant_calibration *calibration;
} machine;

static uint8_t *read_file(const char *path, size_t *size) {
    FILE *f = fopen(path, "rb");
    if (!f) return NULL;
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    long n = ftell(f);
    assert_true(n > 0);
    assert_int_equal(fseek(f, 0, SEEK_SET), 0);
    uint8_t *bytes = malloc((size_t)n);
    assert_int_equal(fread(bytes, 1, (size_t)n, f), (size_t)n);
    fclose(f);
    *size = (size_t)n;
    return bytes;
}

/* What is changed in a model: how many elements of a head turn (0: as it is), and what is added to the bias of the keys: c times
 * a random sign, to the elements from `from` on of every KV head, or (slow) to the pairs that turn by less than 0.01 a token. */
typedef struct change {
    int n_rot;
    float c;
    int from;
    bool slow;
} change;

static void add_constant(machine *m, const change *how, int n_rot) {
    for (int layer = 0; layer < m->info.n_layer; layer++) {
        char name[64];
        snprintf(name, sizeof name, "blk.%d.attn_k.bias", layer);
        const kvant_gguf_tensor *t = kvant_gguf_find_tensor(m->file, name);
        assert_non_null(t);
        assert_int_equal(t->type, 0); /* float32 */
        assert_int_equal(t->dims[0], m->info.n_kv_head * m->info.head_dim);
        uint8_t *at = m->bytes + (t->data - m->bytes);
        for (int i = 0; i < t->dims[0]; i++, at += 4) {
            int e = i % m->info.head_dim, pair = e % (n_rot / 2);
            float sign = random_unit() < 0.5 ? -1.0f : 1.0f;
            if (how->slow ? pow(10000, -2.0 * pair / n_rot) >= 0.01 : e < how->from) continue;
            kvant_write_u32(at, kvant_f32_bits(kvant_bits_f32(kvant_read_u32(at)) + how->c * sign));
        }
    }
}

/* The random model's norms and scales are random numbers around 0, which leaves attention flat; with 1 instead it looks at
 * tokens. */
static void make_lively(machine *m) {
    for (int i = 0; i < m->file->n_tensors; i++) {
        const kvant_gguf_tensor *t = &m->file->tensors[i];
        size_t n = t->name.size;
        bool norm = n > 11 && memcmp(t->name.data + n - 11, "norm.weight", 11) == 0;
        bool scale = n > 5 && memcmp(t->name.data + n - 5, "scale", 5) == 0;
        bool query = n > 12 && memcmp(t->name.data + n - 12, "attn_q.scale", 12) == 0;
        for (int64_t e = 0; e < t->dims[0] && (norm || scale); e++)
            kvant_write_u32(m->bytes + (t->data - m->bytes) + 4 * e, kvant_f32_bits(query ? 0.3f : 1.0f));
    }
}

/* NULL bytes: the file is absent. */
static machine open_machine(const char *path, const change *how) {
    machine m = {0};
    kvant_error err = {0};
    size_t size;
    m.bytes = read_file(path, &size);
    if (!m.bytes) return m;
    assert_int_equal(kvant_context_create(2, KVANT_ISA_BEST, &m.ctx, NULL), KVANT_OK);
    if (kvant_gguf_parse(path, m.bytes, size, NULL, &m.file, &err) != KVANT_OK) fail_msg("%s", err.message);
    if (how) {
        make_lively(&m);
        const kvant_gguf_value *n_rot = kvant_gguf_find(m.file, "qwen2.rope.dimension_count");
        assert_non_null(n_rot);
        assert_int_equal(n_rot->type, KVANT_GGUF_U32);
        if (how->n_rot) kvant_write_u32(m.bytes + (n_rot->data - m.bytes), (uint32_t)how->n_rot);
        assert_int_equal(kvant_decoder_peek(m.file, &m.info, &err), KVANT_OK);
        if (how->c != 0) add_constant(&m, how, (int)kvant_read_u32(n_rot->data));
    }
    if (kvant_decoder_load(m.ctx, m.file, &m.decoder, &err) != KVANT_OK) fail_msg("%s: %s", path, err.message);
    kvant_decoder_get_info(m.decoder, &m.info);
    return m;
}

static void close_machine(machine *m) {
    kvant_calibration_destroy(m->calibration);
    kvant_decoder_destroy(m->decoder);
    kvant_gguf_close(m->file);
    kvant_context_destroy(m->ctx);
    free(m->bytes);
}

static kvant_sequence *make_sequence(const machine *m, const char *kv, bool center_floats, kvant_cache **cache) {
    kvant_error err = {0};
    kvant_cache_config config;
    kvant_sequence *s;
    kvant_cache_config_default(&config);
    config.n_layer = m->info.n_layer;
    config.n_kv_head = m->info.n_kv_head;
    config.head_dim = m->info.head_dim;
    config.layer_window = m->info.layer_window;
    config.calibration = m->calibration;
    config.center_floats = center_floats;
    assert_int_equal(kvant_format_parse_pair(kv, &config.k, &config.v, NULL), KVANT_OK);
    if (kvant_cache_create(m->ctx, &config, cache, &err) != KVANT_OK) fail_msg("%s: %s", kv, err.message);
    assert_int_equal(kvant_sequence_create(*cache, &s), KVANT_OK);
    return s;
}

static void make_text(const machine *m, uint64_t from, int32_t ids[N_TEXT]) {
    seed = from;
    for (int i = 0; i < N_TEXT; i++)
        ids[i] = (int32_t)(random_unit() * m->info.n_vocab);
}

/* From a text that no test reads; nonsense: random means of that size and random scales instead. */
static void calibrate(machine *m, float nonsense) {
    kvant_rope_config ropes[KVANT_DECODER_ROPES];
    kvant_calibration_config config;
    kvant_cache *cache;
    kvant_workspace *w;
    int32_t ids[N_TEXT];
    make_text(m, SEED + 1, ids);
    kvant_decoder_calibration_config(m->decoder, ropes, &config);
    assert_int_equal(kvant_calibration_create(&config, &m->calibration, NULL), KVANT_OK);
    kvant_calibration *c = m->calibration;
    m->calibration = NULL;
    kvant_sequence *s = make_sequence(m, "f32", false, &cache);
    assert_int_equal(kvant_workspace_create(m->decoder, N_TEXT, &w, NULL), KVANT_OK);
    kvant_workspace_observe(w, kvant_observe_for_calibration, c);
    assert_int_equal(kvant_decoder_forward(m->decoder, w, s, ids, N_TEXT, KVANT_EXACT, NULL, 0), KVANT_OK);
    kvant_workspace_destroy(w);
    kvant_sequence_destroy(s);
    kvant_cache_destroy(cache);
    assert_int_equal(kvant_calibration_finish(c, NULL), KVANT_OK);
    m->calibration = c;
    for (int i = 0; nonsense != 0 && i < c->n_layer * c->n_kv_head; i++) {
        float *mean = c->mean + i * c->head_dim, *scale = c->scale + i * c->head_dim;
        const kvant_rope_config *r = c->layer_rope[i / c->n_kv_head] < 0 ? NULL : &c->ropes[c->layer_rope[i / c->n_kv_head]];
        for (int e = 0; e < c->head_dim; e++) {
            mean[e] = nonsense * random_normal();
            scale[e] = (float)exp2(8 * random_unit() - 4);
        }
        for (int p = 0; r && p < r->n_rot / 2; p++) {
            int a = r->interleaved ? 2 * p : p, b = r->interleaved ? 2 * p + 1 : r->n_rot / 2 + p;
            scale[b] = scale[a];
        }
    }
}

typedef struct answer {
    float *logits;          /* [N_TEXT][n_vocab]: every position of a text */
    int32_t greedy[N_TEXT]; /* what follows the first N_PROMPT of it */
    double lead[N_TEXT];    /* of each over the second best, relative to the spread of its logits */
} answer;

static int32_t best(const float *x, int n) {
    int32_t id = 0;
    for (int i = 1; i < n; i++)
        if (x[i] > x[id]) id = i;
    return id;
}

static double lead_of(const float *x, int32_t id, int n) {
    double mean = 0, spread = 0;
    float second = -INFINITY;
    for (int i = 0; i < n; i++) {
        mean += (double)x[i] / n;
        if (i != id && x[i] > second) second = x[i];
    }
    for (int i = 0; i < n; i++)
        spread += (x[i] - mean) * (x[i] - mean) / n;
    return ((double)x[id] - second) / sqrt(spread);
}

static answer run(const machine *m, const char *kv, bool center_floats) {
    answer a = {.logits = malloc((size_t)N_TEXT * (size_t)m->info.n_vocab * sizeof(float))};
    int32_t ids[N_TEXT];
    kvant_cache *cache;
    kvant_workspace *w;
    make_text(m, SEED, ids);
    kvant_sequence *s = make_sequence(m, kv, center_floats, &cache);
    assert_int_equal(kvant_workspace_create(m->decoder, N_TEXT, &w, NULL), KVANT_OK);
    assert_int_equal(kvant_decoder_forward(m->decoder, w, s, ids, N_TEXT, KVANT_EXACT, a.logits, N_TEXT), KVANT_OK);
    kvant_sequence_destroy(s);
    assert_int_equal(kvant_sequence_create(cache, &s), KVANT_OK);
    float *row = malloc((size_t)m->info.n_vocab * sizeof *row);
    assert_int_equal(kvant_decoder_forward(m->decoder, w, s, ids, N_PROMPT, KVANT_EXACT, row, 1), KVANT_OK);
    for (int i = N_PROMPT; i < N_TEXT; i++) {
        a.greedy[i] = best(row, m->info.n_vocab);
        a.lead[i] = lead_of(row, a.greedy[i], m->info.n_vocab);
        assert_int_equal(kvant_decoder_forward(m->decoder, w, s, &a.greedy[i], 1, KVANT_EXACT, row, 1), KVANT_OK);
    }
    free(row);
    kvant_workspace_destroy(w);
    kvant_sequence_destroy(s);
    kvant_cache_destroy(cache);
    return a;
}

/* Root of the mean square of the difference of two answers, relative to the spread of the logits of the second. */
static double difference(const machine *m, const answer *a, const answer *b) {
    double sum = 0, spread = 0;
    for (int p = 0; p < N_TEXT; p++) {
        const float *x = a->logits + p * m->info.n_vocab, *y = b->logits + p * m->info.n_vocab;
        double mean = 0;
        for (int i = 0; i < m->info.n_vocab; i++)
            mean += (double)y[i] / m->info.n_vocab;
        for (int i = 0; i < m->info.n_vocab; i++) {
            sum += ((double)x[i] - y[i]) * ((double)x[i] - y[i]);
            spread += (y[i] - mean) * (y[i] - mean);
        }
    }
    return sqrt(sum / spread);
}

static int same_tokens(const answer *a, const answer *b) {
    int n = 0;
    while (N_PROMPT + n < N_TEXT && a->greedy[N_PROMPT + n] == b->greedy[N_PROMPT + n])
        n++;
    return n;
}

/* ---- all architectures ---- */

static void check_model(const char *folder, const char *name, int *n_wrong) {
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    machine m = open_machine(path, NULL);
    calibrate(&m, 5);
    answer plain = run(&m, "f32", false), centred = run(&m, "f32", true);
    double error = difference(&m, &centred, &plain), eight = 0;
    bool wrong = !(error < 1e-5) || same_tokens(&plain, &centred) != N_TEXT - N_PROMPT;
    if (m.info.head_dim % 16 == 0) { /* and 8 bits, calibrated as they should be */
        kvant_calibration_destroy(m.calibration);
        calibrate(&m, 0);
        answer i8 = run(&m, "i8", false);
        eight = difference(&m, &i8, &plain);
        wrong = wrong || !(eight < 0.005);
        free(i8.logits);
    }
    print_message("  %-28s head_dim %3d: centred by nonsense %.1e, i8 %.1e, %d greedy tokens agree%s\n", name, m.info.head_dim,
                  error, eight, same_tokens(&plain, &centred), wrong ? "  WRONG" : "");
    *n_wrong += wrong;
    free(plain.logits);
    free(centred.logits);
    close_machine(&m);
}

static void check_folder(const char *folder) {
    DIR *dir = opendir(folder);
    int n_wrong = 0;
    struct dirent *entry;
    if (!dir) {
        print_message("skipped: %s is absent\n", folder);
        skip();
    }
    while ((entry = readdir(dir))) {
        size_t n = strlen(entry->d_name);
        if (n > 5 && strcmp(entry->d_name + n - 5, ".gguf") == 0) check_model(folder, entry->d_name, &n_wrong);
    }
    closedir(dir);
    assert_int_equal(n_wrong, 0);
}

static void nonsense_leaves_tiny_models_of_every_architecture_alone(void **state) {
    (void)state;
    check_folder(KVANT_SOURCE "/tests/golden/models");
}

static void nonsense_leaves_the_models_of_the_test_data_alone(void **state) {
    (void)state;
    check_folder(KVANT_DATA "/models");
}

/* ---- constants in the bias of the keys ---- */

static bool has_model(void) {
    FILE *f = fopen(BIASED, "rb");
    if (f) fclose(f);
    if (!f) print_message("skipped: %s is absent\n", BIASED);
    return f;
}

/* Half of the elements do not turn; a constant in them adds the same number to all scores of a query, which softmax takes away.
 * What a cache answers must not move, neither towards nor away from the truth. */
static void a_constant_that_does_not_turn_changes_nothing(void **state) {
    (void)state;
    if (!has_model()) skip();
    static const char *const formats[] = {"i8", "bc4", "bc4/i8", "lm4"};
    change without = {64, 0, 0, false}, with = {64, 50, 64, false};
    machine a = open_machine(BIASED, &without), b = open_machine(BIASED, &with);
    calibrate(&a, 0);
    calibrate(&b, 0);
    answer exact = run(&a, "f32", false), exact_with = run(&b, "f32", false);
    double floor = difference(&a, &exact_with, &exact);
    int n_same = same_tokens(&exact_with, &exact);
    print_message("f32: the constant moves logits by %.1e, %d of %d greedy tokens are the same\n", floor, n_same,
                  N_TEXT - N_PROMPT);
    assert_true(floor < 1e-4); /* what float32 makes of keys that are 30 times as large */
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        char bare[KVANT_FORMAT_NAME_MAX * 2];
        const char *slash = strchr(formats[i], '/');
        int n = slash ? (int)(slash - formats[i]) : (int)strlen(formats[i]);
        snprintf(bare, sizeof bare, "%.*s.bare/%s", n, formats[i], slash ? slash + 1 : formats[i]);
        answer x = run(&a, formats[i], false), y = run(&b, formats[i], false), z = run(&b, bare, false);
        double noise = difference(&a, &x, &exact), moved = difference(&a, &y, &x), lost = difference(&a, &z, &exact);
        n_same = same_tokens(&x, &y);
        print_message("%-8s noise %.1e, moved by the constant %.1e, %d greedy tokens are the same; bare: noise %.1e\n",
                      formats[i], noise, moved, n_same, lost);
        assert_true(moved < 1e-3 + 0.1 * noise);
        /* Texts may part where two tokens are as good as each other, and nowhere else. */
        if (n_same < N_TEXT - N_PROMPT) print_message("  they part at a lead of %.1e\n", x.lead[N_PROMPT + n_same]);
        assert_true(n_same == N_TEXT - N_PROMPT || x.lead[N_PROMPT + n_same] < 2 * moved);
        assert_true(lost > 5 * noise);
        free(x.logits);
        free(y.logits);
        free(z.logits);
    }
    free(exact.logits);
    free(exact_with.logits);
    close_machine(&a);
    close_machine(&b);
}

/* All elements turn: the constant is part of what the model computes, in float32 as well; a format must not lose more of it. */
static void a_constant_that_turns_costs_no_precision(void **state) {
    (void)state;
    if (!has_model()) skip();
    static const char *const formats[] = {"i8", "bc4"};
    change without = {0, 0, 0, false}, with = {0, 50, 0, true};
    machine a = open_machine(BIASED, &without), b = open_machine(BIASED, &with);
    calibrate(&a, 0);
    calibrate(&b, 0);
    answer exact = run(&a, "f32", false), exact_with = run(&b, "f32", false);
    print_message("f32: the constant moves logits by %.2f\n", difference(&a, &exact_with, &exact));
    for (size_t i = 0; i < 2; i++) {
        char bare[KVANT_FORMAT_NAME_MAX * 2];
        snprintf(bare, sizeof bare, "%s.bare/%s", formats[i], formats[i]);
        answer x = run(&a, formats[i], false), y = run(&b, formats[i], false), z = run(&b, bare, false);
        double noise = difference(&a, &x, &exact), noise_with = difference(&b, &y, &exact_with),
               lost = difference(&b, &z, &exact_with);
        print_message("%-4s noise %.1e, with the constant %.1e, bare %.1e; greedy tokens like f32: %d, %d\n", formats[i], noise,
                      noise_with, lost, same_tokens(&y, &exact_with), same_tokens(&z, &exact_with));
        assert_true(noise_with < 2 * noise);
        assert_true(lost > 5 * noise_with);
        free(x.logits);
        free(y.logits);
        free(z.logits);
    }
    free(exact.logits);
    free(exact_with.logits);
    close_machine(&a);
    close_machine(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nonsense_leaves_tiny_models_of_every_architecture_alone),
        cmocka_unit_test(nonsense_leaves_the_models_of_the_test_data_alone),
        cmocka_unit_test(a_constant_that_does_not_turn_changes_nothing),
        cmocka_unit_test(a_constant_that_turns_costs_no_precision),
    };
    print_message("seed %u\n", SEED);
    return cmocka_run_group_tests_name("centred models", tests, NULL, NULL);
}
