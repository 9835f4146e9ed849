// SPDX-License-Identifier: MIT
/* test_cache_command.c: kvant cache, as a person or a script meets it, on a folder that the library filled. */
#define _POSIX_C_SOURCE 200809L
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/program_test.h"
#include "kvant/kvant.h"

#define FOLDER "test_cache_command_folder"

/* Runs kvant cache with both streams in `output` and gives its exit code. */
static int run_cache(const char *arguments) {
    char command[4096];
    snprintf(command, sizeof command, "cache %s", arguments);
    return run_program(NULL, BOTH_STREAMS, command);
}

static void says(int code, const char *arguments, const char *piece) {
    int got = run_cache(arguments);
    if (got != code || !strstr(output, piece)) fail_msg("%s: exit %d, expected %d and \"%s\", said: %s", arguments, got, code, piece, output);
}

static json_t *run_json(const char *arguments) {
    json_error_t error;
    int code = run_cache(arguments);
    json_t *j = json_loads(output, 0, &error);
    if (code != 0 || !j) fail_msg("%s: exit %d, said: %s", arguments, code, output);
    return j;
}

static int64_t number(const json_t *j, const char *key) { return json_integer_value(json_object_get(j, key)); }

/* Two conversations of one model that begin alike: 2 blocks together, then 3 and 1. */
static void fill_folder(const char *label) {
    kvant_context *ctx;
    kvant_cache *cache;
    kvant_store *store;
    kvant_cache_config config;
    kvant_store_config s = {.folder = FOLDER, .label = label};
    int32_t ids[320];
    float x[32];
    assert_int_equal(kvant_context_create(1, KVANT_ISA_BEST, &ctx, NULL), KVANT_OK);
    kvant_cache_config_default(&config);
    config.n_layer = 2;
    config.n_kv_head = 1;
    config.head_dim = 32;
    assert_int_equal(kvant_cache_create(ctx, &config, &cache, NULL), KVANT_OK);
    assert_int_equal(kvant_store_open(cache, &s, &store, NULL), KVANT_OK);
    for (int which = 0; which < 2; which++) {
        kvant_sequence *q;
        int n = which ? 192 : 320;
        assert_int_equal(kvant_sequence_create(cache, &q), KVANT_OK);
        for (int t = 0; t < n; t++) {
            ids[t] = t < 128 ? t : 1000 * which + t;
            for (int e = 0; e < 32; e++)
                x[e] = (float)((ids[t] * 7 + e) % 13);
            for (int layer = 0; layer < 2; layer++)
                assert_int_equal(kvant_sequence_append(q, layer, x, x, 1), KVANT_OK);
        }
        assert_int_equal(kvant_store_put(store, q, ids, NULL), KVANT_OK);
        kvant_sequence_destroy(q);
    }
    kvant_store_close(store);
    kvant_cache_destroy(cache);
    kvant_context_destroy(ctx);
}

static int clean(void **state) {
    (void)state;
    return system("rm -rf " FOLDER);
}

static void ls_sums_up_prefixes(void **state) {
    (void)state;
    fill_folder("a model, f16");
    says(0, "ls " FOLDER, "a model, f16");
    says(0, "ls " FOLDER, "6 files");
    json_t *j = run_json("ls " FOLDER " --json"), *f = json_array_get(json_object_get(j, "families"), 0);
    assert_int_equal(number(j, "n_files"), 6);
    assert_int_equal(number(f, "n_prefixes"), 2);
    assert_int_equal(number(f, "longest_tokens"), 320);
    assert_int_equal(number(f, "n_tokens"), 384);
    json_decref(j);
    j = run_json("ls " FOLDER " --json --blocks");
    assert_int_equal(json_array_size(json_object_get(j, "files")), 6);
    json_decref(j);
}

static void show_describes_one_file(void **state) {
    (void)state;
    fill_folder("a model, f16");
    json_t *j = run_json("ls " FOLDER " --json --blocks"), *e = json_array_get(json_object_get(j, "files"), 3);
    char arguments[300];
    snprintf(arguments, sizeof arguments, "show " FOLDER " %.12s", json_string_value(json_object_get(e, "name")));
    says(0, arguments, "2 layers, 1 KV heads, head_dim 32");
    strcat(arguments, " --json");
    json_t *one = run_json(arguments);
    assert_int_equal(json_array_size(json_object_get(one, "ids")), 64);
    assert_int_equal(json_array_size(json_object_get(one, "layers")), 2);
    assert_string_equal(json_string_value(json_object_get(json_array_get(json_object_get(one, "layers"), 0), "k")), "f16");
    json_decref(one);
    json_decref(j);
    says(1, "show " FOLDER " zz", "no file's name begins with zz");
    says(1, "show " FOLDER, "is not a regular file");
}

static void verify_finds_and_removes_damage(void **state) {
    (void)state;
    fill_folder("a model, f16");
    says(0, "verify " FOLDER, "6 files");
    assert_int_equal(system("f=$(ls " FOLDER "/*.kvp | head -n 1); printf x | dd of=$f bs=1 seek=2000 conv=notrunc 2>/dev/null"), 0);
    says(0, "ls " FOLDER, "6 files"); /* heads alone */
    says(1, "verify " FOLDER, "checksum of the page of layer 0 does not match");
    says(1, "verify " FOLDER " --remove", "1 damaged, 1 removed");
    says(0, "verify " FOLDER, "5 files");
}

static void prune_makes_it_smaller(void **state) {
    (void)state;
    fill_folder("a model, f16");
    says(0, "prune " FOLDER " --cache-disk 40K", "2 stay");
    says(0, "prune " FOLDER " --older-than 1", "0 files deleted");
    says(0, "prune " FOLDER " --cache-disk 0", "0 stay");
}

static void labels_do_not_reach_the_terminal_as_commands(void **state) {
    (void)state;
    fill_folder("a\x1b[2Jmodel\r\xe2\x80\xaeis");
    says(0, "ls " FOLDER, "a?[2Jmodel?");
    assert_null(strchr(output, 0x1b));
    says(0, "ls " FOLDER " --blocks", "a?[2Jmodel?");
}

static void wrong_lines_are_explained(void **state) {
    (void)state;
    says(2, "", "Usage: kvant cache ACTION");
    says(0, "--help", "Actions");
    says(2, "lst x", "did you mean ls?");
    says(2, "ls", "which folder?");
    says(1, "ls /nowhere/at/all", "cannot be read");
    says(2, "prune " FOLDER, "what may stay?");
    says(2, "verify a b", "no place for this argument");
    says(0, "verify --help", "exit code is 1");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(ls_sums_up_prefixes, clean, clean),
        cmocka_unit_test_setup_teardown(show_describes_one_file, clean, clean),
        cmocka_unit_test_setup_teardown(verify_finds_and_removes_damage, clean, clean),
        cmocka_unit_test_setup_teardown(prune_makes_it_smaller, clean, clean),
        cmocka_unit_test_setup_teardown(labels_do_not_reach_the_terminal_as_commands, clean, clean),
        cmocka_unit_test_setup_teardown(wrong_lines_are_explained, clean, clean),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
