// SPDX-License-Identifier: MIT
/* test_sensitivity.c: what a model's layers tolerate is measured once, found again, and spent by sessions within their bytes. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/os.h"
#include "engine/kv_budget.h"
#include "engine/sensitivity.h"

#define MODEL KVANT_DATA "/models/random-qwen3-dense.gguf"
#define OTHER KVANT_DATA "/models/random-llama-dense.gguf"
#define FOLDER "test_sensitivity_cache"

static struct {
    int measured, again;
    char chosen[512];
} heard;

static void hear(void *user, kvant_log_level level, const char *line) {
    (void)user;
    (void)level;
    heard.measured += strncmp(line, "measuring ", 10) == 0;
    heard.again += strstr(line, ".kvsens") && strstr(line, "it is made again");
    if (strncmp(line, "cache budget ", 13) == 0) snprintf(heard.chosen, sizeof heard.chosen, "%s", line);
}

static kvant_model *open_model(const char *path, const char *kv, size_t budget, int64_t tokens) {
    kvant_load_params p;
    kvant_model *m;
    kvant_error err = {0};
    memset(&heard, 0, sizeof heard);
    kvant_load_params_default(&p);
    p.n_threads = 1;
    p.cache_dir = FOLDER;
    p.kv.kv = kv;
    p.kv.kv_budget = budget;
    p.kv.kv_budget_tokens = tokens;
    if (kvant_model_open(path, &p, &m, &err) != KVANT_OK) fail_msg("%s", err.message);
    return m;
}

static int set_up(void **state) {
    (void)state;
    FILE *f = fopen(MODEL, "rb");
    if (!f) {
        printf("SKIPPED: %s is absent\n", MODEL);
        exit(77);
    }
    fclose(f);
    kvant_set_log(hear, NULL);
    return system("rm -rf " FOLDER);
}

static int tear_down(void **state) {
    (void)state;
    return system("rm -rf " FOLDER);
}

static void measure(kvant_model *m, const char *format, double noise, double *k, double *v) {
    int32_t *ids;
    int n;
    kvant_sensitivity *s;
    kvant_error err = {0};
    assert_int_equal(kvant_model_need_calibration(m, &err), KVANT_OK);
    assert_int_equal(kvant_model_calibration_ids(m, &ids, &n, &err), KVANT_OK);
    kvant_sensitivity_plan plan = {.ids = ids, .n_tokens = n < 128 ? n : 128, .k_noise = noise, .v_noise = noise, .precision = KVANT_EXACT};
    plan.n_scored = plan.n_tokens / 2;
    assert_int_equal(kvant_format_parse_pair(format, &plan.k, &plan.v, &err), KVANT_OK);
    if (kvant_sensitivity_measure(m, &plan, &s, &err) != KVANT_OK) fail_msg("%s", err.message);
    for (int i = 0; i < s->n_layer; i++) {
        k[i] = s->k[i];
        v[i] = s->v[i];
    }
    kvant_sensitivity_destroy(s);
    kvant_ids_free(ids);
}

/* Thirteen times the noise is thirteen times the divergence: what a budget's arithmetic rests on. A random model attends to everything
 * alike, so its keys have hardly any influence, and the values of its last layer the most. */
static void the_figure_hardly_depends_on_the_noise_it_was_measured_with(void **state) {
    (void)state;
    double coarse[2][2], fine[2][2];
    kvant_model *m = open_model(MODEL, NULL, 0, 0);
    measure(m, "bc2", 0.0711, coarse[0], coarse[1]);
    measure(m, "bc4", 0.00527, fine[0], fine[1]);
    print_message("V of layer 1: %g with bc2, %g with bc4; of layer 0: %g; K: %g, %g\n", coarse[1][1], fine[1][1], coarse[1][0],
                  coarse[0][0], coarse[0][1]);
    assert_true(coarse[1][1] / fine[1][1] < 2.5 && fine[1][1] / coarse[1][1] < 2.5);
    assert_true(coarse[1][1] > 2 * coarse[1][0]);
    assert_true(coarse[0][0] < coarse[1][0] && coarse[0][1] < coarse[1][0]);
    kvant_model_close(m);
}

static void it_is_measured_once_and_found_again(void **state) {
    (void)state;
    const kvant_sensitivity *s;
    kvant_error err = {0};
    double k, v;
    kvant_model *m = open_model(MODEL, NULL, 0, 0);
    assert_int_equal(kvant_model_need_sensitivity(m, &s, &err), KVANT_OK);
    assert_int_equal(heard.measured, 1);
    assert_int_equal(kvant_model_need_sensitivity(m, &s, &err), KVANT_OK);
    assert_int_equal(heard.measured, 1);
    k = s->k[1];
    v = s->v[0];
    kvant_model_close(m);
    m = open_model(MODEL, NULL, 0, 0);
    assert_int_equal(kvant_model_need_sensitivity(m, &s, &err), KVANT_OK);
    assert_int_equal(heard.measured, 0);
    assert_true(s->k[1] == k && s->v[0] == v);
    kvant_model_close(m);
    m = open_model(OTHER, NULL, 0, 0);
    assert_int_equal(kvant_model_need_sensitivity(m, &s, &err), KVANT_OK);
    assert_int_equal(heard.measured, 1);
    kvant_model_close(m);
    assert_int_equal(system("for f in " FOLDER "/*.kvsens; do printf x >> $f; done"), 0);
    m = open_model(MODEL, NULL, 0, 0);
    assert_int_equal(kvant_model_need_sensitivity(m, &s, &err), KVANT_OK);
    assert_int_equal(heard.measured, 1);
    assert_int_equal(heard.again, 1);
    assert_true(s->k[1] == k && s->v[0] == v); /* exact kernels: the same figures */
    kvant_model_close(m);
}

static void every_changed_byte_is_noticed(void **state) {
    (void)state;
    double figures[6] = {1, 2, 3, 4, 5, 6};
    kvant_sensitivity s = {.n_layer = 3, .n_tokens = 9, .k = figures, .v = figures + 3, .key = {1, 2, 3}}, *back;
    uint8_t *bytes;
    size_t size;
    assert_int_equal(kvant_sensitivity_write(&s, &bytes, &size), KVANT_OK);
    assert_int_equal(kvant_sensitivity_read(bytes, size, s.key, 3, "x", &back, NULL), KVANT_OK);
    assert_memory_equal(back->k, figures, sizeof figures);
    assert_int_equal(back->n_tokens, 9);
    kvant_sensitivity_destroy(back);
    for (size_t i = 0; i < size; i++) {
        bytes[i] ^= 4;
        assert_int_equal(kvant_sensitivity_read(bytes, size, s.key, 3, "x", &back, NULL), KVANT_EFORMAT);
        bytes[i] ^= 4;
        assert_int_equal(kvant_sensitivity_read(bytes, i, s.key, 3, "x", &back, NULL), KVANT_EFORMAT);
    }
    const uint8_t other[KVANT_HASH_BYTES] = {9};
    assert_int_equal(kvant_sensitivity_read(bytes, size, other, 3, "x", &back, NULL), KVANT_EFORMAT);
    kvant_free(bytes);
}

/* The bytes that a session with n tokens takes, and whether its pages have the formats that were said. */
static size_t fill_session(kvant_model *m, const char *kv, int n) {
    kvant_session_params p;
    kvant_session *s;
    kvant_error err = {0};
    int32_t ids[256];
    kvant_session_params_default(&p);
    p.n_context = n;
    p.kv = kv;
    for (int i = 0; i < n; i++)
        ids[i] = i * 31 % 100;
    if (kvant_session_create(m, &p, &s, &err) != KVANT_OK) fail_msg("%s", err.message);
    if (kvant_session_prefill(s, ids, n, NULL, NULL, &err) != KVANT_OK) fail_msg("%s", err.message);
    size_t bytes = kvant_session_cache_bytes(s);
    kvant_model_info info;
    kvant_model_get_info(m, &info);
    for (int i = 0; !kv && i < info.n_layer; i++) {
        kvant_page_info page;
        assert_int_equal(kvant_sequence_page_info(kvant_session_sequence(s), i, 0, &page), KVANT_OK);
        const kvant_format *k = info.layer_k ? &info.layer_k[i] : &info.k, *v = info.layer_v ? &info.layer_v[i] : &info.v;
        assert_true(page.k.codec == k->codec && page.k.bits == k->bits && page.v.codec == v->codec && page.v.bits == v->bits);
    }
    kvant_session_destroy(s);
    return bytes;
}

static void a_session_takes_no_more_than_its_budget(void **state) {
    (void)state;
    size_t f16, least;
    kvant_model *m = open_model(MODEL, NULL, 0, 0);
    assert_int_equal(kvant_model_cache_bytes_for(m, "f16", 200, &f16, NULL), KVANT_OK);
    assert_int_equal(kvant_model_cache_bytes_for(m, "bc2", 200, &least, NULL), KVANT_OK);
    kvant_model_close(m);
    for (size_t budget = least; budget <= f16; budget += (f16 - least) / 7) {
        kvant_model_info info;
        m = open_model(MODEL, NULL, budget, 200);
        kvant_model_get_info(m, &info);
        assert_true(heard.chosen[0] != '\0');
        size_t bytes = fill_session(m, NULL, 200);
        assert_true(bytes <= budget && bytes >= least);
        assert_int_equal(bytes, kvant_model_cache_bytes(m, 200));
        assert_true(info.kv_bits_total < 8.2);
        kvant_model_close(m);
    }
}

static void a_session_has_a_budget_of_its_own(void **state) {
    (void)state;
    size_t bc4, f16;
    kvant_model *m = open_model(MODEL, NULL, 0, 0);
    assert_int_equal(kvant_model_cache_bytes_for(m, "bc4", 200, &bc4, NULL), KVANT_OK);
    assert_int_equal(kvant_model_cache_bytes_for(m, "f16", 200, &f16, NULL), KVANT_OK);
    assert_true(fill_session(m, "budget:bc4", 200) <= bc4);
    assert_true(fill_session(m, "budget:4", 200) <= f16 / 4);
    assert_int_equal(fill_session(m, NULL, 200), f16); /* the others keep the model's */
    kvant_model_close(m);
}

static void what_no_budget_foresees_is_refused(void **state) {
    (void)state;
    kvant_load_params p;
    kvant_model *m;
    kvant_error err = {0};
    kvant_load_params_default(&p);
    p.cache_dir = FOLDER;
    p.kv.kv_budget = 1000;
    p.kv.kv_budget_tokens = 200;
    assert_int_equal(kvant_model_open(MODEL, &p, &m, &err), KVANT_EFULL);
    p.kv.kv_budget = 1 << 20;
    p.kv.kv_bits = 4;
    assert_int_equal(kvant_model_open(MODEL, &p, &m, &err), KVANT_EINVAL);
    p.kv.kv_bits = 0;
    p.kv.quantized_kv_start = 64;
    assert_int_equal(kvant_model_open(MODEL, &p, &m, &err), KVANT_EINVAL);
    assert_non_null(strstr(err.message, "quantized_kv_start"));
    p.kv = (kvant_kv_params){.kv = "budget:many"};
    assert_int_equal(kvant_model_open(MODEL, &p, &m, &err), KVANT_EINVAL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_figure_hardly_depends_on_the_noise_it_was_measured_with),
        cmocka_unit_test(it_is_measured_once_and_found_again),
        cmocka_unit_test(every_changed_byte_is_noticed),
        cmocka_unit_test(a_session_takes_no_more_than_its_budget),
        cmocka_unit_test(a_session_has_a_budget_of_its_own),
        cmocka_unit_test(what_no_budget_foresees_is_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
