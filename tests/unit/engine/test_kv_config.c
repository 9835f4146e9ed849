// SPDX-License-Identifier: MIT
/* test_kv_config.c: what cache settings mean together: sugar gives the formats it stands for, contradictions are named. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "engine/kv_config.h"

static int n_warnings;
static char last_line[256];

static void count_warning(void *user, kvant_log_level level, const char *line) {
    (void)user;
    snprintf(last_line, sizeof last_line, "%s", line);
    n_warnings += level == KVANT_LOG_WARNING;
}

static void assert_formats(kvant_kv_params p, int head_dim, const char *k, const char *v) {
    kvant_cache_config c;
    kvant_error err = {0};
    char name[KVANT_FORMAT_NAME_MAX];
    kvant_cache_config_default(&c);
    if (kvant_kv_config_resolve(&p, head_dim, &c, &err) != KVANT_OK) fail_msg("%s", err.message);
    kvant_format_name(&c.k, name);
    assert_string_equal(name, k);
    kvant_format_name(&c.v, name);
    assert_string_equal(name, v);
}

/* Refused by a sentence with all these words, and the configuration untouched. */
static void assert_refused(kvant_kv_params p, int head_dim, const char *const *words) {
    kvant_cache_config c, before;
    kvant_error err = {0};
    kvant_cache_config_default(&c);
    before = c;
    kvant_status st = kvant_kv_config_resolve(&p, head_dim, &c, &err);
    if (st != KVANT_EINVAL && st != KVANT_EUNSUPPORTED) fail_msg("%s ... was accepted with status %d", words[0], st);
    for (int i = 0; words[i]; i++)
        if (!strstr(err.message, words[i])) fail_msg("\"%s\" does not name %s", err.message, words[i]);
    assert_memory_equal(&c, &before, sizeof c);
}
#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})

static void bits_alone_choose_the_best_format_of_that_size(void **state) {
    (void)state;
    static const struct {
        int bits;
        const char *name;
    } all[] = {{2, "bc2"}, {3, "bc3"}, {4, "bc4"}, {5, "bc5"}, {6, "i6"}, {8, "i8"}};
    assert_formats((kvant_kv_params){0}, 64, "f16", "f16");
    for (int i = 0; i < 6; i++) {
        const char *k = all[i].bits == 2 ? "bz2" : all[i].bits == 3 ? "bz3" : all[i].bits == 4 ? "bz4" : all[i].name; /* zones, where keys are long enough */
        assert_formats((kvant_kv_params){.kv_bits = all[i].bits}, 128, k, all[i].name);
        assert_formats((kvant_kv_params){.kv_bits = all[i].bits, .kv_codec = "kvant"}, 80, k, all[i].name);
        assert_formats((kvant_kv_params){.kv_bits = all[i].bits}, 48, all[i].name, all[i].name);
    }
    assert_formats((kvant_kv_params){.kv_bits = 3, .kv_center_off = true}, 64, "bc3.bare", "bc3");
    assert_formats((kvant_kv_params){.k_bits = 5, .v_bits = 3}, 64, "bc5", "bc3");
    assert_formats((kvant_kv_params){.k_bits = 8}, 64, "i8", "f16");
    assert_formats((kvant_kv_params){.kv_bits = 4, .kv_center_off = true}, 64, "bc4.bare", "bc4");
    assert_formats((kvant_kv_params){.kv = "balanced"}, 64, "bc5", "bc4:16");
    assert_formats((kvant_kv_params){.kv = "auto"}, 64, "i8", "i8");
    assert_formats((kvant_kv_params){.kv = "auto"}, 72, "f16", "f16");
}

static void a_group_or_mlx_rules_make_bits_affine(void **state) {
    (void)state;
    static const int all[] = {2, 3, 4, 6, 8};
    for (int i = 0; i < 5; i++) {
        char name[32];
        snprintf(name, sizeof name, "affine%d:64", all[i]);
        assert_formats((kvant_kv_params){.kv_bits = all[i], .kv_codec = "affine"}, 128, name, name);
        snprintf(name, sizeof name, "affine%d:64.f32", all[i]);
        assert_formats((kvant_kv_params){.kv_bits = all[i], .compat_mlx = true}, 128, name, name);
    }
    assert_formats((kvant_kv_params){.kv_bits = 4, .kv_group_size = 32}, 64, "affine4:32", "affine4:32");
    assert_formats((kvant_kv_params){.k_bits = 5, .v_bits = 3, .kv_codec = "affine"}, 64, "affine5:64", "affine3:64");
    assert_formats((kvant_kv_params){.kv_bits = 4, .k_bits = 8, .kv_group_size = 64}, 64, "affine8:64", "affine4:64");
    assert_formats((kvant_kv_params){.kv_codec = "f32"}, 8, "f32", "f32");
    assert_formats((kvant_kv_params){.kv = "affine8/affine4:32"}, 64, "affine8:64", "affine4:32");
}

static void bits_outside_the_list_are_refused_with_the_list(void **state) {
    (void)state;
    static const int wrong[] = {-1, 1, 7, 9, 16, 64};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_refused((kvant_kv_params){.kv_bits = wrong[i]}, 64, WORDS("kv_bits", "2, 3, 4, 5, 6", "8"));
        assert_refused((kvant_kv_params){.k_bits = wrong[i]}, 64, WORDS("k_bits"));
        assert_refused((kvant_kv_params){.v_bits = wrong[i]}, 64, WORDS("v_bits"));
    }
    assert_refused((kvant_kv_params){.kv_bits = 4, .kv_group_size = 48}, 64, WORDS("kv_group_size", "32, 64, 128"));
}

static void contradictions_name_their_fields(void **state) {
    (void)state;
    assert_refused((kvant_kv_params){.kv_group_size = 64}, 64, WORDS("kv_group_size", "kv_bits"));
    assert_refused((kvant_kv_params){.kv = "f16", .kv_bits = 4}, 64, WORDS("kv", "kv_bits"));
    assert_refused((kvant_kv_params){.kv = "affine4", .kv_group_size = 32}, 64, WORDS("kv", "kv_group_size"));
    assert_refused((kvant_kv_params){.kv = "affine4", .kv_codec = "affine"}, 64, WORDS("kv", "kv_codec"));
    assert_refused((kvant_kv_params){.kv_codec = "f16", .kv_bits = 4}, 64, WORDS("kv_codec", "f16", "bits"));
    assert_refused((kvant_kv_params){.kv_codec = "affine"}, 64, WORDS("kv_codec", "kv_bits"));
    assert_refused((kvant_kv_params){.kv_codec = "kvant", .kv_bits = 4, .kv_group_size = 64}, 64, WORDS("kv_group_size", "kvant"));
    assert_refused((kvant_kv_params){.kv = "bc4/bc4.bare"}, 64, WORDS("bc4.bare", "only K"));
    assert_refused((kvant_kv_params){.kv_codec = "int4"}, 64, WORDS("kv_codec", "int4", "affine", "f16", "f32"));
    assert_refused((kvant_kv_params){.kv = "q3_0"}, 64, WORDS("q3_0", "affine", "q4_0"));
    assert_refused((kvant_kv_params){.kv = "q8_0"}, 80, WORDS("q8_0", "head_dim 80", "f16"));
    assert_refused((kvant_kv_params){.quantized_kv_start = 100}, 64, WORDS("quantized_kv_start", "100"));
    assert_refused((kvant_kv_params){.kv_bits = 4, .quantized_kv_start = -1}, 64, WORDS("quantized_kv_start"));
    assert_refused((kvant_kv_params){.max_kv_size = 4}, 64, WORDS("max_kv_size", "4"));
    assert_refused((kvant_kv_params){.max_kv_size = -1}, 64, WORDS("max_kv_size"));
}

static void a_group_that_does_not_divide_the_head_names_one_that_does(void **state) {
    (void)state;
    assert_refused((kvant_kv_params){.kv_bits = 4, .kv_group_size = 128}, 64, WORDS("128", "64", "affine4:64"));
    assert_refused((kvant_kv_params){.kv = "affine3:64"}, 96, WORDS("affine3:64", "96", "affine3:32"));
    assert_refused((kvant_kv_params){.kv_bits = 4}, 8, WORDS("head_dim 8", "f16"));
}

static void mlx_rules_refuse_5_bits_and_ignore_the_window_with_a_warning(void **state) {
    (void)state;
    kvant_cache_config c;
    kvant_error err = {0};
    kvant_kv_params p = {.kv_bits = 4, .max_kv_size = 256, .compat_mlx = true};
    assert_refused((kvant_kv_params){.kv_bits = 5, .compat_mlx = true}, 64, WORDS("kv_bits", "5", "2, 3, 4, 6"));
    kvant_set_log(count_warning, NULL);
    kvant_cache_config_default(&c);
    assert_int_equal(kvant_kv_config_resolve(&p, 64, &c, &err), KVANT_OK);
    assert_int_equal(c.max_kv_size, 0);
    assert_true(c.quantize_after_step);
    assert_int_equal(n_warnings, 1);
    p = (kvant_kv_params){.max_kv_size = 256, .compat_mlx = true};
    assert_int_equal(kvant_kv_config_resolve(&p, 64, &c, &err), KVANT_OK);
    assert_int_equal(c.max_kv_size, 256);
    p = (kvant_kv_params){.kv_bits = 4, .max_kv_size = 256};
    assert_int_equal(kvant_kv_config_resolve(&p, 64, &c, &err), KVANT_OK);
    assert_int_equal(c.max_kv_size, 256);
    assert_false(c.quantize_after_step);
    assert_int_equal(n_warnings, 1);
    kvant_set_log(NULL, NULL);
}

static void a_cache_that_mlx_makes_itself_has_no_window_and_a_sentence_says_so(void **state) {
    (void)state;
    kvant_kv_params p = {.max_kv_size = 256, .compat_mlx = true};
    kvant_cache_config c;
    kvant_cache_config_default(&c);
    kvant_set_log(count_warning, NULL);
    n_warnings = 0;
    c.max_kv_size = 256;
    kvant_kv_config_own_cache(&p, "gemma3", &c);
    assert_int_equal(c.max_kv_size, 0);
    assert_int_equal(n_warnings, 1);
    assert_non_null(strstr(last_line, "max_kv_size 256"));
    assert_non_null(strstr(last_line, "gemma3"));
    kvant_kv_config_own_cache(&p, "gemma3", &c); /* no window, or none any more: nothing to say */
    assert_int_equal(n_warnings, 1);
    p.compat_mlx = false;
    c.max_kv_size = 256;
    kvant_kv_config_own_cache(&p, "gemma3", &c);
    assert_int_equal(c.max_kv_size, 256);
    assert_int_equal(n_warnings, 1);
    kvant_set_log(NULL, NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bits_alone_choose_the_best_format_of_that_size),
        cmocka_unit_test(a_group_or_mlx_rules_make_bits_affine),
        cmocka_unit_test(bits_outside_the_list_are_refused_with_the_list),
        cmocka_unit_test(contradictions_name_their_fields),
        cmocka_unit_test(a_group_that_does_not_divide_the_head_names_one_that_does),
        cmocka_unit_test(mlx_rules_refuse_5_bits_and_ignore_the_window_with_a_warning),
        cmocka_unit_test(a_cache_that_mlx_makes_itself_has_no_window_and_a_sentence_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
