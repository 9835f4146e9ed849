// SPDX-License-Identifier: MIT
/* test_prompt_cache.c: prompt caches of mlx-lm: read, continued and compared with what mlx-lm continued; written and read back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

#include "base/bytes.h"
#include "engine/model.h"
#include "file/safetensors_write.h"
#include "kvant/engine.h"

#define MODEL KVANT_DATA "/mlx/text/llama-f16"
#define CASES KVANT_DATA "/mlx/cache/"
#define WRITTEN "test_prompt_cache.safetensors"
#define CONVERTED "test_prompt_cache.gguf"
#define N_ROWS 8

static char last_line[1200];

static void hear(void *user, kvant_log_level level, const char *line) {
    (void)user;
    (void)level;
    snprintf(last_line, sizeof last_line, "%s", line);
}

static bool is_there(const char *path) {
    FILE *f = fopen(path, "rb");
    if (f) fclose(f);
    return f != NULL;
}

static void need_data(void) {
    if (is_there(MODEL "/config.json") && is_there(CASES "kv_f16.safetensors")) return;
    printf("skipped: %s or %s is not there\n", MODEL, CASES);
    skip();
}

/* ---- models and sessions ---- */

static kvant_model *open_model(const char *path, const char *kv, int window) {
    kvant_load_params load;
    kvant_model *m;
    kvant_error err;
    kvant_load_params_default(&load);
    load.n_threads = 2;
    load.kv.kv = kv;
    load.kv.compat_mlx = true; /* what a step of several tokens sees through a window */
    if (kvant_model_open(path, &load, &m, &err) != KVANT_OK) fail_msg("%s", err.message);
    m->cache.max_kv_size = window; /* the rings are made by hand: mlx-lm makes none for a llama */
    return m;
}

static kvant_session *open_session(kvant_model *m) {
    kvant_session_params p;
    kvant_session *s;
    kvant_error err;
    kvant_session_params_default(&p);
    p.precision = KVANT_EXACT;
    if (kvant_session_create(m, &p, &s, &err) != KVANT_OK) fail_msg("%s", err.message);
    return s;
}

/* ---- the golden ones ---- */

typedef struct golden {
    kvant_safetensors *file;
    int32_t *prefix, *prompt, *ids;
    int n_prefix, n_prompt, n_ids, n_vocab;
} golden;

static int32_t *ints_of(const golden *g, const char *name, int *n) {
    const kvant_safetensor *t = kvant_safetensors_find(g->file, name);
    assert_non_null(t);
    *n = (int)t->dims[0];
    int32_t *ids = malloc((size_t)*n * sizeof *ids);
    for (int i = 0; i < *n; i++) ids[i] = (int32_t)kvant_read_u32(t->data + 4 * (size_t)i);
    return ids;
}

static golden open_golden(const char *name) {
    char path[512];
    golden g = {0};
    kvant_error err;
    snprintf(path, sizeof path, CASES "%s.golden.safetensors", name);
    if (kvant_safetensors_open(path, &g.file, &err) != KVANT_OK) fail_msg("%s", err.message);
    g.prefix = ints_of(&g, "prefix_ids", &g.n_prefix);
    g.prompt = ints_of(&g, "continuation_prompt_ids", &g.n_prompt);
    g.ids = ints_of(&g, "gen_ids", &g.n_ids);
    g.n_vocab = (int)kvant_safetensors_find(g.file, "gen_logits")->dims[1];
    return g;
}

static void close_golden(golden *g) {
    kvant_safetensors_close(g->file);
    free(g->prefix);
    free(g->prompt);
    free(g->ids);
}

static double difference(const golden *g, const char *name, int row, const float *found) {
    const kvant_safetensor *t = kvant_safetensors_find(g->file, name);
    double d2 = 0, e2 = 0;
    for (int i = 0; i < g->n_vocab; i++) {
        uint32_t bits = kvant_read_u32(t->data + 4 * ((size_t)row * (size_t)g->n_vocab + (size_t)i));
        float x;
        memcpy(&x, &bits, sizeof x);
        double d = (double)found[i] - (double)x;
        d2 += d * d;
        e2 += (double)x * (double)x;
    }
    return sqrt(d2 / e2);
}

static int largest(const float *x, int n) {
    int best = 0;
    for (int i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return best;
}

/* The prompt behind the cache, then the golden tokens: how far the worst row is off, and how many ids differ. */
static double follow(kvant_session *s, const golden *g, int *n_wrong) {
    kvant_error err;
    double worst = 0;
    float *rows = malloc((size_t)g->n_prompt * (size_t)g->n_vocab * sizeof *rows);
    *n_wrong = 0;
    /* mlx-lm leaves the last token of a prompt to a step of its own. */
    if (kvant_session_step(s, g->prompt, g->n_prompt - 1, rows, &err) != KVANT_OK) fail_msg("%s", err.message);
    if (kvant_session_step(s, g->prompt + g->n_prompt - 1, 1, rows + (size_t)(g->n_prompt - 1) * (size_t)g->n_vocab, &err) != KVANT_OK)
        fail_msg("%s", err.message);
    for (int i = 0; i < N_ROWS; i++) {
        double d = difference(g, "prompt_logits", i, rows + (size_t)(g->n_prompt - N_ROWS + i) * (size_t)g->n_vocab);
        if (!(d <= worst)) worst = d;
    }
    for (int i = 0; i < g->n_ids; i++) {
        const float *logits = kvant_session_logits(s);
        double d = difference(g, "gen_logits", i, logits);
        if (!(d <= worst)) worst = d;
        *n_wrong += largest(logits, g->n_vocab) != g->ids[i];
        if (kvant_session_decode(s, g->ids[i], &err) != KVANT_OK) fail_msg("%s", err.message);
    }
    free(rows);
    return worst;
}

typedef struct golden_case {
    const char *name, *kv;
    int window;
    double bound;
    bool same_ids, silent;
} golden_case;

static void caches_of_mlx_are_continued_as_mlx_does(void **state) {
    static const golden_case cases[] = {
        {"kv_f32", "f32", 0, 1e-3, true, true},
        {"quant4_g64_f32", "affine4:64.f32", 0, 1e-2, true, true},
        {"kv_f16", "f16", 0, 5e-2, true, true},
        {"quant4_g64_f16", "affine4:64", 0, 5e-1, true, true},
        {"rotating96_keep4_f16", "f16", 96, 5e-2, true, true},
        {"kv_f32", "f16", 0, 1e-2, true, false},
        {"kv_f16", "affine8:64", 0, 5e-1, true, false},
        {"quant4_g64_f32", "affine4:64", 0, 2e-2, true, false}, /* the same codes, scales rounded */
        {"quant4_g64_f16", "f16", 0, 5e-1, true, false},
    };
    (void)state;
    need_data();
    int bad = 0;
    kvant_set_log(hear, NULL);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const golden_case *c = &cases[i];
        char path[512];
        int n_wrong;
        kvant_error err;
        golden g = open_golden(c->name);
        kvant_model *m = open_model(MODEL, c->kv, c->window);
        kvant_session *s = open_session(m);
        snprintf(path, sizeof path, CASES "%s.safetensors", c->name);
        last_line[0] = '\0';
        if (kvant_session_import(s, path, g.prefix, g.n_prefix, &err) != KVANT_OK) fail_msg("%s", err.message);
        assert_int_equal(kvant_session_length(s), g.n_prefix);
        assert_null(kvant_session_logits(s));
        bool told = last_line[0] != '\0';
        double worst = follow(s, &g, &n_wrong);
        bool wrong = !(worst <= c->bound) || (c->same_ids && n_wrong) || told == c->silent;
        printf("  %-22s in %-15s off by %.2e, %d of %d ids differ%s%s%s\n", c->name, c->kv, worst, n_wrong, g.n_ids, told ? ", told: " : "",
               told ? strstr(last_line, ": ") + 2 : "", wrong ? "  <-- WRONG" : "");
        bad += wrong;
        kvant_session_destroy(s);
        kvant_model_close(m);
        close_golden(&g);
    }
    kvant_set_log(NULL, NULL);
    if (bad) fail_msg("%d caches were not continued as mlx-lm does", bad);
}

/* ---- written and read back ---- */

static void read_prefix(kvant_session *s, const golden *g, int n) {
    kvant_error err;
    if (kvant_session_prefill(s, g->prefix, n, NULL, NULL, &err) != KVANT_OK) fail_msg("%s", err.message);
}

/* The layers' values of the tokens that a window still sees, bit for bit. */
static void expect_same_cache(kvant_model *m, kvant_session *a, kvant_session *b, int window) {
    kvant_model_info info;
    float ka[512], va[512], kb[512], vb[512];
    kvant_model_get_info(m, &info);
    int64_t n = kvant_session_length(a);
    size_t bytes = (size_t)info.head_dim * sizeof(float);
    assert_int_equal(kvant_session_length(b), n);
    assert_memory_equal(kvant_session_tokens(a), kvant_session_tokens(b), (size_t)n * sizeof(int32_t));
    for (int layer = 0; layer < info.n_layer; layer++)
        for (int64_t t = 0; t < n; t++)
            for (int head = 0; head < info.n_kv_head; head++) {
                if (window > 0 && t >= 4 && t <= n - (window - 4)) continue;
                assert_int_equal(kvant_sequence_decode(kvant_session_sequence(a), layer, t, head, ka, va), KVANT_OK);
                assert_int_equal(kvant_sequence_decode(kvant_session_sequence(b), layer, t, head, kb, vb), KVANT_OK);
                if (memcmp(ka, kb, bytes) != 0 || memcmp(va, vb, bytes) != 0)
                    fail_msg("layer %d, token %lld, KV head %d differ", layer, (long long)t, head);
            }
}

static void expect_same_answer(kvant_model *m, kvant_session *a, kvant_session *b, const golden *g) {
    kvant_model_info info;
    kvant_model_get_info(m, &info);
    for (int i = 0; i < 8; i++) {
        assert_int_equal(kvant_session_decode(a, g->prompt[i], NULL), KVANT_OK);
        assert_int_equal(kvant_session_decode(b, g->prompt[i], NULL), KVANT_OK);
        assert_memory_equal(kvant_session_logits(a), kvant_session_logits(b), (size_t)info.n_vocab * sizeof(float));
    }
}

static void written_caches_read_back_equal(void **state) {
    static const struct {
        const char *kv;
        int window, n;
    } cases[] = {{"f16", 0, 200}, {"f32", 0, 200}, {"affine4:64", 0, 200}, {"affine3:32", 0, 131}, {"affine8:64.f32", 0, 64},
                 {"affine2:32/affine2:32", 0, 1}, {"f16", 96, 200}, {"f16", 96, 60}, {"f32", 70, 192}};
    (void)state;
    need_data();
    golden g = open_golden("kv_f16");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        kvant_error err;
        kvant_model *m = open_model(MODEL, cases[i].kv, cases[i].window);
        kvant_session *a = open_session(m), *b = open_session(m);
        printf("  %s, window %d, %d tokens\n", cases[i].kv, cases[i].window, cases[i].n);
        read_prefix(a, &g, cases[i].n);
        if (kvant_session_export(a, WRITTEN, &err) != KVANT_OK) fail_msg("%s", err.message);
        last_line[0] = '\0';
        kvant_set_log(hear, NULL);
        if (kvant_session_import(b, WRITTEN, NULL, 0, &err) != KVANT_OK) fail_msg("%s", err.message);
        kvant_set_log(NULL, NULL);
        assert_string_equal(last_line, ""); /* nothing was changed */
        expect_same_cache(m, a, b, cases[i].window);
        expect_same_answer(m, a, b, &g);
        kvant_session_destroy(a);
        kvant_session_destroy(b);
        kvant_model_close(m);
    }
    close_golden(&g);
    remove(WRITTEN);
}

/* A GGUF file of the llama family has the elements of keys in another order than mlx-lm; its own files read back equal too. */
static void other_orders_of_keys_read_back_equal(void **state) {
    const char *path = KVANT_DATA "/models/random-llama-dense.gguf";
    (void)state;
    need_data();
    if (!is_there(path)) path = KVANT_SOURCE "/tests/golden/models/random-llama-dense.gguf";
    if (!is_there(path)) {
        printf("skipped: random-llama-dense.gguf is not there\n");
        skip();
    }
    golden g = open_golden("kv_f16");
    kvant_error err;
    kvant_model *m = open_model(path, "f16", 0);
    kvant_session *a = open_session(m), *b = open_session(m);
    kvant_model_info info;
    kvant_model_get_info(m, &info);
    for (int i = 0; i < g.n_prefix; i++) g.prefix[i] %= info.n_vocab;
    for (int i = 0; i < g.n_prompt; i++) g.prompt[i] %= info.n_vocab;
    read_prefix(a, &g, 100);
    if (kvant_session_export(a, WRITTEN, &err) != KVANT_OK) fail_msg("%s", err.message);
    if (kvant_session_import(b, WRITTEN, g.prefix, 100, &err) != KVANT_OK) fail_msg("%s", err.message);
    expect_same_cache(m, a, b, 0);
    expect_same_answer(m, a, b, &g);
    kvant_session_destroy(a);
    kvant_session_destroy(b);
    kvant_model_close(m);
    close_golden(&g);
    remove(WRITTEN);
}

/* And mlx-lm's files are continued in such a model file as in the folder it was made from. */
static void gguf_files_continue_caches_of_mlx(void **state) {
    (void)state;
    need_data();
    golden g = open_golden("kv_f32");
    kvant_error err;
    int n_wrong;
    remove(CONVERTED);
    if (kvant_convert(MODEL, CONVERTED, NULL, NULL, &err) != KVANT_OK) fail_msg("%s", err.message);
    kvant_model *m = open_model(CONVERTED, "f32", 0);
    kvant_session *s = open_session(m);
    if (kvant_session_import(s, CASES "kv_f32.safetensors", g.prefix, g.n_prefix, &err) != KVANT_OK) fail_msg("%s", err.message);
    double worst = follow(s, &g, &n_wrong);
    printf("  off by %.2e, %d of %d ids differ\n", worst, n_wrong, g.n_ids);
    assert_true(worst <= 1e-3);
    assert_int_equal(n_wrong, 0);
    kvant_session_destroy(s);
    kvant_model_close(m);
    close_golden(&g);
    remove(CONVERTED);
}

/* ---- files of other versions, made from golden ones ---- */

typedef struct remade {
    kvant_safetensors_writer w;
    uint8_t *data;
    size_t size;
} remade;

static void add_array(remade *r, const char *name, const kvant_safetensor *t, const int64_t *rows, int64_t n) {
    int64_t dims[4] = {t->dims[0], t->dims[1], n, t->dims[3]};
    size_t row_bytes = t->bytes / (size_t)(t->dims[1] * t->dims[2]);
    kvant_safetensors_writer_tensor(&r->w, name, t->type, 4, dims);
    r->data = realloc(r->data, r->size + row_bytes * (size_t)(n * dims[1]));
    for (int64_t head = 0; head < dims[1]; head++)
        for (int64_t i = 0; i < n; i++) {
            memcpy(r->data + r->size, t->data + (size_t)(head * t->dims[2] + rows[i]) * row_bytes, row_bytes);
            r->size += row_bytes;
        }
}

static void write_remade(remade *r) {
    kvant_buffer header;
    kvant_error err;
    kvant_buffer_init(&header, 1 << 20);
    if (kvant_safetensors_writer_header(&r->w, &header, &err) != KVANT_OK) fail_msg("%s", err.message);
    FILE *f = fopen(WRITTEN, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(header.data, 1, header.size, f), header.size);
    assert_int_equal(fwrite(r->data, 1, r->size, f), r->size);
    fclose(f);
    kvant_buffer_free(&header);
    kvant_safetensors_writer_free(&r->w);
    free(r->data);
}

/* The three classes with their numbers as texts, as mlx-lm wrote them before; the ring turned by `turn` rows. */
static void remake_old(const char *name, const char *class, int turn) {
    char path[512], key[32], value[32];
    kvant_safetensors *f;
    remade r = {0};
    int64_t rows[256];
    snprintf(path, sizeof path, CASES "%s.safetensors", name);
    assert_int_equal(kvant_safetensors_open(path, &f, NULL), KVANT_OK);
    bool quantized = strcmp(class, "QuantizedKVCache") == 0, ring = strcmp(class, "RotatingKVCache") == 0;
    int n = ring ? 96 : 200;
    for (int i = 0; i < n; i++) rows[i] = i;
    for (int i = 4; ring && i < 96; i++) rows[4 + (i - 4 + turn) % 92] = i + 71; /* 75..166: the latest 92 of 167 rows */
    kvant_safetensors_writer_init(&r.w);
    kvant_safetensors_writer_text(&r.w, "1.model", "llama-f16");
    for (int layer = 0; layer < 3; layer++) {
        const char *const ring_state[] = {"4", "96", "200", value}, *const codes_state[] = {"256", "200", "64", "4"};
        snprintf(value, sizeof value, "%d", turn ? 4 + turn : 96);
        snprintf(key, sizeof key, "2.%d", layer);
        kvant_safetensors_writer_text(&r.w, key, class);
        for (int i = 0; i < 4; i++) {
            snprintf(key, sizeof key, "0.%d.%d", layer, i);
            if (ring || quantized) kvant_safetensors_writer_text(&r.w, key, ring ? ring_state[i] : codes_state[i]);
        }
        for (int side = 0; side < 2; side++)
            for (int part = 0; part < (quantized ? 3 : 1); part++) {
                snprintf(key, sizeof key, quantized ? "%d.%d.%d" : "%d.%d", layer, side, part);
                add_array(&r, key, kvant_safetensors_find(f, key), rows, n);
            }
    }
    write_remade(&r);
    kvant_safetensors_close(f);
}

static void older_files_and_turned_rings_are_the_same(void **state) {
    static const struct {
        const char *name, *class, *kv;
        int window, turn;
    } cases[] = {{"kv_f16", "KVCache", "f16", 0, 0}, {"quant4_g64_f16", "QuantizedKVCache", "affine4:64", 0, 0},
                 {"rotating96_keep4_f16", "RotatingKVCache", "f16", 96, 0}, {"rotating96_keep4_f16", "RotatingKVCache", "f16", 96, 17}};
    (void)state;
    need_data();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char path[512];
        kvant_error err;
        golden g = open_golden(cases[i].name);
        kvant_model *m = open_model(MODEL, cases[i].kv, cases[i].window);
        kvant_session *a = open_session(m), *b = open_session(m);
        printf("  %s, turned by %d\n", cases[i].class, cases[i].turn);
        remake_old(cases[i].name, cases[i].class, cases[i].turn);
        snprintf(path, sizeof path, CASES "%s.safetensors", cases[i].name);
        if (kvant_session_import(a, path, g.prefix, g.n_prefix, &err) != KVANT_OK) fail_msg("%s", err.message);
        if (kvant_session_import(b, WRITTEN, g.prefix, g.n_prefix, &err) != KVANT_OK) fail_msg("%s", err.message);
        expect_same_cache(m, a, b, cases[i].window);
        expect_same_answer(m, a, b, &g);
        kvant_session_destroy(a);
        kvant_session_destroy(b);
        kvant_model_close(m);
        close_golden(&g);
    }
    remove(WRITTEN);
}

/* ---- refusals ---- */

static void expect_refusal(kvant_session *s, const char *path, const int32_t *ids, int n, kvant_status status, const char *piece) {
    kvant_error err = {0};
    int64_t length = kvant_session_length(s);
    kvant_status st = kvant_session_import(s, path, ids, n, &err);
    if (st != status || !strstr(err.message, piece)) fail_msg("status %d, said: %s; expected \"%s\"", (int)st, err.message, piece);
    assert_int_equal(kvant_session_length(s), length);
}

static void what_does_not_fit_is_refused(void **state) {
    (void)state;
    need_data();
    golden g = open_golden("kv_f16");
    kvant_model *m = open_model(MODEL, "f16", 0), *narrow = open_model(MODEL, "f16", 96), *wide = open_model(MODEL, "f16", 180);
    kvant_session *s = open_session(m), *n = open_session(narrow), *w = open_session(wide);
    kvant_error err;
    read_prefix(s, &g, 10);
    expect_refusal(s, CASES "kv_f16.safetensors", g.prefix, 199, KVANT_EINVAL, "holds 200 tokens, but the prompt has 199");
    expect_refusal(s, CASES "kv_f16.safetensors", NULL, 0, KVANT_EINVAL, "does not say which 200 tokens");
    expect_refusal(s, CASES "kv_f16.golden.safetensors", g.prefix, 200, KVANT_EFORMAT, "is not a prompt cache of mlx-lm");
    expect_refusal(s, CASES "none.safetensors", g.prefix, 200, KVANT_EIO, "none.safetensors");
    expect_refusal(s, CASES "rotating96_keep4_f16.safetensors", g.prefix, 200, KVANT_EUNSUPPORTED, "no longer has the tokens 4 to 36");
    expect_refusal(w, CASES "rotating96_keep4_f16.safetensors", g.prefix, 200, KVANT_EUNSUPPORTED, "max_kv_size 96");
    g.prefix[3] = 1 << 30;
    expect_refusal(s, CASES "kv_f16.safetensors", g.prefix, 200, KVANT_EINVAL, "token 3");
    g.prefix[3] = 5;
    /* The ring lacks tokens: the session cannot become shorter, and begins again from nothing. */
    if (kvant_session_import(n, CASES "rotating96_keep4_f16.safetensors", g.prefix, 200, &err) != KVANT_OK) fail_msg("%s", err.message);
    assert_int_equal(kvant_session_truncate(n, 199, &err), KVANT_EUNSUPPORTED);
    assert_int_equal(kvant_session_keep(n, &err), KVANT_EUNSUPPORTED);
    assert_int_equal(kvant_session_truncate(n, 0, &err), KVANT_OK);
    assert_int_equal(kvant_session_keep(n, &err), KVANT_OK);
    kvant_session_destroy(s);
    kvant_session_destroy(n);
    kvant_session_destroy(w);
    kvant_model_close(m);
    kvant_model_close(narrow);
    kvant_model_close(wide);
    close_golden(&g);
}

/* Bytes of the header changed at random: read, or refused with a sentence; never anything else. */
static void damaged_files_are_refused(void **state) {
    static const char *const names[] = {"kv_f16", "quant4_g64_f16", "rotating96_keep4_f16"};
    (void)state;
    need_data();
    golden g = open_golden("kv_f16");
    kvant_model *m = open_model(MODEL, "affine4:64", 0), *r = open_model(MODEL, "f16", 96);
    uint32_t seed = 12345;
    int n_refused = 0;
    printf("  seed %u\n", seed);
    for (int i = 0; i < 300; i++) {
        char path[512];
        kvant_error err = {0};
        snprintf(path, sizeof path, CASES "%s.safetensors", names[i % 3]);
        FILE *f = fopen(path, "rb");
        static uint8_t bytes[4 << 20];
        size_t size = fread(bytes, 1, sizeof bytes, f);
        fclose(f);
        size_t header = (size_t)kvant_read_u32(bytes) + 8;
        for (int k = 0; k < 1 + i % 4; k++) {
            seed = seed * 1664525u + 1013904223u;
            /* digits become digits, so that the JSON often stays one; the numbers at the end too */
            size_t at = i % 5 == 0 ? size - 1 - (seed >> 8) % 48 : 8 + (seed >> 8) % (header - 8);
            bytes[at] = bytes[at] >= '0' && bytes[at] <= '9' ? (uint8_t)('0' + seed % 10) : i % 2 ? (uint8_t)(seed >> 3) : bytes[at];
        }
        f = fopen(WRITTEN, "wb");
        assert_int_equal(fwrite(bytes, 1, size, f), size);
        fclose(f);
        kvant_session *s = open_session(i % 3 == 2 ? r : m);
        if (kvant_session_import(s, WRITTEN, g.prefix, g.n_prefix, &err) != KVANT_OK) {
            assert_true(strlen(err.message) > 20);
            n_refused++;
        }
        kvant_session_destroy(s);
    }
    printf("  %d of 300 were refused\n", n_refused);
    assert_true(n_refused > 100);
    kvant_model_close(m);
    kvant_model_close(r);
    close_golden(&g);
    remove(WRITTEN);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(caches_of_mlx_are_continued_as_mlx_does),
        cmocka_unit_test(written_caches_read_back_equal),
        cmocka_unit_test(other_orders_of_keys_read_back_equal),
        cmocka_unit_test(gguf_files_continue_caches_of_mlx),
        cmocka_unit_test(older_files_and_turned_rings_are_the_same),
        cmocka_unit_test(what_does_not_fit_is_refused),
        cmocka_unit_test(damaged_files_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
