// SPDX-License-Identifier: MIT
/* test_model_logits.c: logits agree with those of an independent engine, for every architecture.
 *
 * A pair NAME.gguf and NAME.logits holds a model and, for a text of token ids, one row of float32 logits a position. Pairs are
 * looked for in tests/golden/models (tiny, committed) and in the folder of test data. The logits must also be the same bits
 * however the text is split into steps and however many threads there are. */
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
#include "base/memory.h"
#include "model/decoder.h"

#define TOLERANCE 1e-3 /* of the largest logit of a row; GELU is a table of halves in the engine that made the files */

typedef struct golden {
    int n_tokens, n_vocab;
    int32_t *ids;
    float *logits;
} golden;

static bool read_golden(const char *path, golden *out) {
    FILE *f = fopen(path, "rb");
    if (!f) return false;
    int32_t head[4];
    assert_int_equal(fread(head, sizeof head, 1, f), 1);
    assert_int_equal(head[0], 0x4c4f4754);
    assert_int_equal(head[1], 1);
    assert_in_range(head[2], 1, 100000);
    assert_in_range(head[3], 1, 1000000);
    out->n_tokens = head[2];
    out->n_vocab = head[3];
    size_t n = (size_t)head[2] * (size_t)head[3];
    out->ids = malloc((size_t)head[2] * sizeof *out->ids);
    out->logits = malloc(n * sizeof *out->logits);
    assert_non_null(out->ids);
    assert_non_null(out->logits);
    assert_int_equal(fread(out->ids, sizeof *out->ids, (size_t)head[2], f), (size_t)head[2]);
    assert_int_equal(fread(out->logits, sizeof *out->logits, n, f), n);
    fclose(f);
    return true;
}

typedef struct run {
    kvant_context *ctx;
    kvant_decoder *d;
    kvant_gguf *f;
} run;

static void open_run(run *r, const char *path, int n_threads) {
    kvant_error err = {0};
    assert_int_equal(kvant_context_create(n_threads, KVANT_ISA_BEST, &r->ctx, &err), KVANT_OK);
    if (kvant_gguf_open(path, NULL, &r->f, &err) != KVANT_OK || kvant_decoder_load(r->ctx, r->f, &r->d, &err) != KVANT_OK)
        fail_msg("%s", err.message);
}

static void close_run(run *r) {
    kvant_decoder_destroy(r->d);
    kvant_gguf_close(r->f);
    kvant_context_destroy(r->ctx);
}

/* Logits of all positions, in steps of `chunk` tokens, with the cache in float32. */
static float *compute(const run *r, const golden *g, int chunk, kvant_precision precision) {
    kvant_error err = {0};
    kvant_decoder_info info;
    kvant_decoder_get_info(r->d, &info);
    assert_int_equal(info.n_vocab, g->n_vocab);
    kvant_cache_config config;
    kvant_cache_config_default(&config);
    config.n_layer = info.n_layer;
    config.n_kv_head = info.n_kv_head;
    config.head_dim = info.head_dim;
    config.layer_window = info.layer_window;
    config.k = config.v = (kvant_format){.codec = KVANT_CODEC_F32};
    kvant_cache *cache;
    kvant_sequence *s;
    kvant_workspace *w;
    if (kvant_cache_create(r->ctx, &config, &cache, &err) != KVANT_OK) fail_msg("%s", err.message);
    assert_int_equal(kvant_sequence_create(cache, &s), KVANT_OK);
    assert_int_equal(kvant_workspace_create(r->d, chunk, &w, &err), KVANT_OK);
    float *logits = malloc((size_t)g->n_tokens * (size_t)g->n_vocab * sizeof *logits);
    assert_non_null(logits);
    for (int i = 0; i < g->n_tokens; i += chunk) {
        int n = g->n_tokens - i < chunk ? g->n_tokens - i : chunk;
        assert_int_equal(kvant_decoder_forward(r->d, w, s, g->ids + i, n, precision, logits + (size_t)i * (size_t)g->n_vocab, n),
                         KVANT_OK);
    }
    kvant_workspace_destroy(w);
    kvant_sequence_destroy(s);
    kvant_cache_destroy(cache);
    return logits;
}

/* The largest difference of any row, relative to the largest logit of the row. */
static double worst_row(const golden *g, const float *logits) {
    double worst = 0;
    for (int i = 0; i < g->n_tokens; i++) {
        double largest = 0, difference = 0;
        for (int j = 0; j < g->n_vocab; j++) {
            size_t at = (size_t)i * (size_t)g->n_vocab + (size_t)j;
            double d = fabs((double)logits[at] - (double)g->logits[at]);
            largest = fmax(largest, fabs((double)g->logits[at]));
            if (!(d <= difference)) difference = d;
        }
        double error = largest > 0 ? difference / largest : difference;
        if (!(error <= worst)) worst = error;
    }
    return worst;
}

static bool check_pair(const char *folder, const char *name) {
    char model[1024], expected[1024];
    snprintf(model, sizeof model, "%s/%s.gguf", folder, name);
    snprintf(expected, sizeof expected, "%s/%s.logits", folder, name);
    golden g;
    if (!read_golden(expected, &g)) {
        printf("  %-28s skipped: %s is absent\n", name, expected);
        return true;
    }
    run one, many;
    open_run(&one, model, 1);
    open_run(&many, model, 3);
    size_t bytes = (size_t)g.n_tokens * (size_t)g.n_vocab * sizeof(float);
    float *whole = compute(&one, &g, g.n_tokens, KVANT_EXACT);
    float *single = compute(&one, &g, 1, KVANT_EXACT);
    float *threads = compute(&many, &g, 7, KVANT_EXACT);
    float *fast = compute(&one, &g, g.n_tokens, KVANT_FAST);
    float *fast_split = compute(&many, &g, 5, KVANT_FAST);
    double error = worst_row(&g, whole);
    bool same = memcmp(whole, single, bytes) == 0 && memcmp(whole, threads, bytes) == 0 && memcmp(fast, fast_split, bytes) == 0;
    bool ok = error < TOLERANCE && same;
    printf("  %-28s %3d tokens: error %.2g%s%s, with int8 activations %.2g\n", name, g.n_tokens, error,
           error < TOLERANCE ? "" : " TOO LARGE", same ? "" : ", BITS DEPEND ON THE SPLIT", worst_row(&g, fast));
    free(whole);
    free(single);
    free(threads);
    free(fast);
    free(fast_split);
    free(g.ids);
    free(g.logits);
    close_run(&one);
    close_run(&many);
    return ok;
}

static void check_folder(const char *folder) {
    DIR *dir = opendir(folder);
    if (!dir) {
        print_message("skipped: %s is absent\n", folder);
        skip();
    }
    int n_pairs = 0, n_wrong = 0;
    struct dirent *entry;
    while ((entry = readdir(dir))) {
        char name[256];
        size_t size = strlen(entry->d_name);
        if (size <= 5 || size >= sizeof name || strcmp(entry->d_name + size - 5, ".gguf") != 0) continue;
        memcpy(name, entry->d_name, size - 5);
        name[size - 5] = '\0';
        n_pairs++;
        n_wrong += !check_pair(folder, name);
    }
    closedir(dir);
    printf("%s: %d models, %d wrong\n", folder, n_pairs, n_wrong);
    assert_int_equal(n_wrong, 0);
}

static void tiny_models_agree_with_another_engine(void **state) {
    (void)state;
    check_folder(KVANT_SOURCE "/tests/golden/models");
}

static void test_data_models_agree_with_another_engine(void **state) {
    (void)state;
    check_folder(KVANT_DATA "/models");
}

static const char *extra_folder;

static void models_of_a_given_folder_agree(void **state) {
    (void)state;
    check_folder(extra_folder);
}

/* test_model_logits FOLDER checks the pairs of that folder instead (scripts/make_random_models.py --large). */
int main(int argc, char **argv) {
    if (argc > 1) {
        extra_folder = argv[1];
        const struct CMUnitTest given[] = {cmocka_unit_test(models_of_a_given_folder_agree)};
        return cmocka_run_group_tests(given, NULL, NULL);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tiny_models_agree_with_another_engine),
        cmocka_unit_test(test_data_models_agree_with_another_engine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
