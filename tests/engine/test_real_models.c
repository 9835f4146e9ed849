// SPDX-License-Identifier: MIT
/* test_real_models.c: the real models that KVANT_TEST_MODEL and KVANT_TEST_MODELS name (paths with white space between) run, and
 * their perplexity agrees with llama.cpp's on the same tokens (tests/golden/perplexity.csv, scripts/make_perplexity_golden.py). */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kvant/engine.h"

#define TOKENS 512
#define STEP 64

static char *read_file(const char *path, size_t *size) {
    FILE *f = fopen(path, "rb");
    if (!f) fail_msg("%s cannot be opened", path);
    char *data = malloc(1 << 20);
    *size = fread(data, 1, 1 << 20, f);
    fclose(f);
    return data;
}

/* llama.cpp's perplexity of a model by the name of its file; 0: not in the table. */
static double expected_perplexity(const char *path) {
    size_t size;
    char *csv = read_file(KVANT_SOURCE "/tests/golden/perplexity.csv", &size), name[256];
    const char *slash = strrchr(path, '/');
    snprintf(name, sizeof name, "\n%s", slash ? slash + 1 : path);
    char *dot = strrchr(name, '.');
    if (dot) strcpy(dot, ",");
    csv[size < (1 << 20) ? size : (1 << 20) - 1] = '\0';
    const char *line = strstr(csv, name);
    int tokens = 0;
    double perplexity = 0;
    if (line && sscanf(line + strlen(name), "%d,%lf", &tokens, &perplexity) == 2) assert_int_equal(tokens, TOKENS);
    free(csv);
    return perplexity;
}

static double measured_perplexity(kvant_model *m) {
    size_t size;
    char *text = read_file(KVANT_SOURCE "/scripts/text/loomings.txt", &size);
    int32_t *ids = NULL;
    int n = 0;
    kvant_error err = {0};
    if (kvant_tokenize(m, text, size, true, false, &ids, &n, &err) != KVANT_OK) fail_msg("%s", err.message);
    assert_true(n >= TOKENS);
    free(text);
    kvant_session_params params;
    kvant_session_params_default(&params);
    params.n_context = TOKENS;
    params.precision = KVANT_EXACT;
    kvant_session *s = NULL;
    if (kvant_session_create(m, &params, &s, &err) != KVANT_OK) fail_msg("%s", err.message);
    kvant_model_info info;
    kvant_model_get_info(m, &info);
    float *logits = malloc((size_t)STEP * (size_t)info.n_vocab * sizeof *logits);
    double nll = 0;
    for (int first = 0; first < TOKENS; first += STEP) {
        if (kvant_session_step(s, ids + first, STEP, logits, &err) != KVANT_OK) fail_msg("%s", err.message);
        for (int i = 0; i < STEP && first + i + 1 < TOKENS; i++) {
            const float *row = logits + (size_t)i * (size_t)info.n_vocab;
            double max = row[0], sum = 0;
            for (int v = 1; v < info.n_vocab; v++) max = row[v] > max ? row[v] : max;
            for (int v = 0; v < info.n_vocab; v++) sum += exp(row[v] - max);
            nll -= row[ids[first + i + 1]] - max - log(sum);
        }
    }
    free(logits);
    kvant_session_destroy(s);
    kvant_ids_free(ids);
    return exp(nll / (TOKENS - 1));
}

static void check_model(const char *path) {
    double expected = expected_perplexity(path);
    kvant_load_params load;
    kvant_load_params_default(&load);
    kvant_model *m = NULL;
    kvant_error err = {0};
    if (kvant_model_open(path, &load, &m, &err) != KVANT_OK) fail_msg("%s", err.message);
    double found = measured_perplexity(m);
    print_message("%s: perplexity %.4f, llama.cpp %.4f (%+.2f %%)\n", path, found, expected, 100 * (found / expected - 1));
    if (expected == 0) fail_msg("%s is not in tests/golden/perplexity.csv", path);
    assert_true(fabs(found / expected - 1) < 0.005);
    kvant_model_close(m);
}

static void real_models_have_the_perplexity_of_llama_cpp(void **state) {
    (void)state;
    const char *one = getenv("KVANT_TEST_MODEL"), *more = getenv("KVANT_TEST_MODELS");
    char list[8192];
    snprintf(list, sizeof list, "%s %s", one ? one : "", more ? more : "");
    int n = 0;
    for (char *path = strtok(list, " \n"); path; path = strtok(NULL, " \n"), n++) check_model(path);
    if (n > 0) return;
    print_message("skipped: KVANT_TEST_MODEL names no real model\n");
    skip();
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(real_models_have_the_perplexity_of_llama_cpp)};
    return cmocka_run_group_tests_name("real_models", tests, NULL, NULL);
}
