// SPDX-License-Identifier: MIT
/* test_calibration_store.c: a model is calibrated once: the next load finds the file. Whatever is wrong with the cache folder costs
 * another calibration, never an error; a file that the user names is refused when it is wrong. What the library tells is counted. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "engine/fingerprint.h"
#include "kvant/engine.h"

#define MODEL KVANT_SOURCE "/tests/golden/models/qwen2.gguf"
#define OTHER KVANT_SOURCE "/tests/golden/models/llama-experts.gguf" /* of the same shape */
#define FOLDER "test_calibration_files/cache"
#define FILE_MAX 65536

static struct {
    int made, again, warnings;
    char last[512];
} heard;

static void hear(void *user, kvant_log_level level, const char *line) {
    (void)user;
    heard.made += strncmp(line, "calibrating: ", 13) == 0;
    heard.again += strstr(line, "it is made again") != NULL;
    heard.warnings += level == KVANT_LOG_WARNING;
    snprintf(heard.last, sizeof heard.last, "%s", line);
}

static char path[256]; /* of the file that the last load used */

static kvant_model *open_model(const char *model, const char *folder, const char *file) {
    kvant_load_params p;
    kvant_model *m;
    kvant_error err = {0};
    kvant_load_params_default(&p);
    p.n_threads = 1;
    p.cache_dir = folder;
    p.calibration_file = file;
    if (kvant_model_open(model, &p, &m, &err) != KVANT_OK) fail_msg("%s", err.message);
    return m;
}

/* Opens the model and needs its calibration: what was heard is counted anew, the means are copied. */
static void load(const char *model, const char *folder, const char *file, float mean[8]) {
    kvant_error err = {0};
    kvant_model_info info;
    const float *found, *scale;
    memset(&heard, 0, sizeof heard);
    kvant_model *m = open_model(model, folder, file);
    if (kvant_model_need_calibration(m, &err) != KVANT_OK) fail_msg("%s", err.message);
    kvant_model_get_info(m, &info);
    assert_non_null(info.calibration);
    snprintf(path, sizeof path, "%s", info.calibration_file ? info.calibration_file : "");
    assert_int_equal(kvant_calibration_get(kvant_model_calibration(m), 1, 0, &found, &scale), KVANT_OK);
    memcpy(mean, found, 8 * sizeof *mean);
    kvant_model_close(m);
}

static size_t read_bytes(const char *name, uint8_t *out) {
    FILE *f = fopen(name, "rb");
    if (!f) fail_msg("%s is not there", name);
    size_t n = fread(out, 1, FILE_MAX, f);
    fclose(f);
    return n;
}

static void write_bytes(const char *name, const uint8_t *bytes, size_t size) {
    FILE *f = fopen(name, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, size, f), size);
    assert_int_equal(fclose(f), 0);
}

/* A folder without the model's file. */
static int set_up(void **state) {
    (void)state;
    float mean[8];
    kvant_set_log(hear, NULL);
    load(MODEL, FOLDER, NULL, mean);
    if (path[0]) remove(path);
    return 0;
}

static void the_second_load_finds_what_the_first_one_made(void **state) {
    (void)state;
    float first[8], second[8];
    load(MODEL, FOLDER, NULL, first);
    assert_int_equal(heard.made, 1);
    assert_non_null(strstr(heard.last, path));
    assert_int_equal(strncmp(path, FOLDER "/", sizeof FOLDER), 0);
    load(MODEL, FOLDER, NULL, second);
    assert_int_equal(heard.made + heard.warnings, 0);
    assert_memory_equal(first, second, sizeof first);
}

static void without_a_folder_nothing_is_kept(void **state) {
    (void)state;
    float mean[8];
    for (int i = 0; i < 2; i++) {
        load(MODEL, NULL, NULL, mean);
        assert_int_equal(heard.made, 1);
        assert_int_equal(heard.warnings, 0);
        assert_string_equal(path, "");
    }
}

static void a_damaged_file_is_told_and_made_again(void **state) {
    (void)state;
    static uint8_t whole[FILE_MAX], bad[FILE_MAX];
    float first[8], again[8];
    load(MODEL, FOLDER, NULL, first);
    size_t size = read_bytes(path, whole);
    const size_t cuts[] = {0, 1, 63, 64, size - 1};
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts + 2; i++) {
        memcpy(bad, whole, size);
        bool cut = i < sizeof cuts / sizeof *cuts;
        if (!cut) bad[i % 2 ? 70 : 12] ^= 0x10;
        write_bytes(path, bad, cut ? cuts[i] : size);
        load(MODEL, FOLDER, NULL, again);
        if (heard.again != 1 || heard.made != 1 || heard.warnings != 0) fail_msg("case %zu: heard %s", i, heard.last);
        assert_memory_equal(first, again, sizeof first);
        assert_int_equal(read_bytes(path, bad), size);
        assert_memory_equal(bad, whole, size);
    }
}

/* The file of another model in the place of the right one: names can be copied. */
static void another_models_file_in_the_folder_is_made_again(void **state) {
    (void)state;
    static uint8_t bytes[FILE_MAX];
    char right[256];
    float first[8], again[8];
    load(MODEL, FOLDER, NULL, first);
    snprintf(right, sizeof right, "%s", path);
    load(OTHER, FOLDER, NULL, again);
    assert_string_not_equal(path, right);
    write_bytes(right, bytes, read_bytes(path, bytes));
    load(MODEL, FOLDER, NULL, again);
    assert_int_equal(heard.again, 1);
    assert_memory_equal(first, again, sizeof first);
}

/* A folder that cannot be made, one that is a file, one whose file's place is taken: one warning, and the same answer. */
static void a_folder_that_cannot_be_written_costs_a_warning(void **state) {
    (void)state;
    float first[8], again[8];
    char taken[256];
    load(MODEL, FOLDER, NULL, first);
    write_bytes("test_calibration_files/file", (const uint8_t *)"x", 1);
    static const char *const folders[] = {"test_calibration_files/file", "test_calibration_files/file/below", "/proc/kvant", ""};
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        load(MODEL, folders[i], NULL, again);
        if (heard.made != 1 || heard.warnings != 1) fail_msg("\"%s\": %d warnings: %s", folders[i], heard.warnings, heard.last);
        assert_string_equal(path, "");
        assert_memory_equal(first, again, sizeof first);
    }
    load(MODEL, FOLDER, NULL, again);
    snprintf(taken, sizeof taken, "%s", path);
    remove(taken);
    assert_int_equal(kvant_os_make_folder(taken, NULL), KVANT_OK);
    load(MODEL, FOLDER, NULL, again);
    assert_int_equal(heard.made, 1);
    assert_int_equal(heard.warnings, 1);
    assert_int_equal(remove(taken), 0);
}

static void refused(const char *model, const char *file, kvant_status status, const char *says) {
    kvant_load_params p;
    kvant_model *m;
    kvant_error err = {0};
    kvant_load_params_default(&p);
    p.n_threads = 1;
    p.kv.kv = "f16"; /* which needs none: the file is checked all the same */
    p.calibration_file = file;
    kvant_status st = kvant_model_open(model, &p, &m, &err);
    if (st == KVANT_OK) kvant_model_close(m);
    if (st != status) fail_msg("%s: status %d: %s", file, st, err.message);
    if (!strstr(err.message, file) || !strstr(err.message, says)) fail_msg("does not say \"%s\": %s", says, err.message);
}

static void a_file_that_is_named_is_used_or_refused(void **state) {
    (void)state;
    static uint8_t bytes[FILE_MAX];
    float first[8], named[8];
    load(MODEL, FOLDER, NULL, first);
    size_t size = read_bytes(path, bytes);
    write_bytes("test_calibration_files/own.kvcalib", bytes, size);
    load(MODEL, NULL, "test_calibration_files/own.kvcalib", named);
    assert_int_equal(heard.made, 0);
    assert_string_equal(path, "test_calibration_files/own.kvcalib");
    assert_memory_equal(first, named, sizeof first);
    refused(OTHER, "test_calibration_files/own.kvcalib", KVANT_EINVAL, "another model");
    bytes[size - 1] ^= 1;
    write_bytes("test_calibration_files/bad.kvcalib", bytes, size);
    refused(MODEL, "test_calibration_files/bad.kvcalib", KVANT_EFORMAT, "checksum");
    refused(MODEL, "test_calibration_files/none.kvcalib", KVANT_EIO, "cannot be opened");
    refused(MODEL, "test_calibration_files", KVANT_EIO, "folder");
}

static void a_calibration_of_ones_own_comes_before_the_built_in_one(void **state) {
    (void)state;
    kvant_error err = {0};
    kvant_model_info info;
    int32_t ids[200];
    float built_in[8], own[8];
    for (int i = 0; i < 200; i++)
        ids[i] = i * i % 24;
    load(MODEL, FOLDER, NULL, built_in);
    kvant_model *m = open_model(MODEL, FOLDER, NULL);
    if (kvant_model_calibrate(m, ids, 200, NULL, &err) != KVANT_OK) fail_msg("%s", err.message);
    double share = kvant_calibration_mean_share(kvant_model_calibration(m), 0, 0);
    assert_true(share > 0 && share < 1);
    kvant_model_close(m);
    load(MODEL, FOLDER, NULL, own);
    assert_int_equal(heard.made, 0);
    assert_memory_not_equal(own, built_in, sizeof own);
    m = open_model(MODEL, FOLDER, NULL);
    assert_int_equal(kvant_model_calibrate(m, NULL, 0, NULL, &err), KVANT_OK);
    kvant_model_get_info(m, &info);
    assert_non_null(strstr(info.calibration, info.calibration_file));
    kvant_model_close(m);
    load(MODEL, FOLDER, NULL, own);
    assert_int_equal(heard.made, 0);
    assert_memory_equal(own, built_in, sizeof own);
}

static void calibrating_by_wish_refuses_what_cannot_be(void **state) {
    (void)state;
    kvant_error err = {0};
    int32_t ids[300] = {0};
    kvant_model *m = open_model(MODEL, NULL, NULL);
    assert_int_equal(kvant_model_calibrate(m, ids, 15, NULL, &err), KVANT_EINVAL);
    assert_int_equal(kvant_model_calibrate(m, ids, 257, NULL, &err), KVANT_EINVAL); /* a context of 256 */
    assert_non_null(strstr(err.message, "256"));
    assert_int_equal(kvant_model_calibrate(m, ids, 200, "test_calibration_files/file/x", &err), KVANT_EIO);
    ids[100] = 24;
    assert_int_equal(kvant_model_calibrate(m, ids, 200, NULL, &err), KVANT_EINVAL);
    assert_null(kvant_model_calibration(m));
    kvant_model_close(m);
}

/* ---- the fingerprint ---- */

static void fingerprint_of(const uint8_t *bytes, size_t size, uint8_t out[KVANT_FINGERPRINT_BYTES]) {
    kvant_gguf *f;
    kvant_error err = {0};
    if (kvant_gguf_parse("model", bytes, size, NULL, &f, &err) != KVANT_OK) fail_msg("%s", err.message);
    kvant_fingerprint_file(f, out);
    kvant_gguf_close(f);
}

static void the_fingerprint_changes_with_any_tensor_and_hyperparameter(void **state) {
    (void)state;
    static uint8_t bytes[FILE_MAX];
    uint8_t first[KVANT_FINGERPRINT_BYTES], other[KVANT_FINGERPRINT_BYTES];
    kvant_gguf *f;
    size_t size = read_bytes(MODEL, bytes);
    fingerprint_of(bytes, size, first);
    fingerprint_of(bytes, size, other);
    assert_memory_equal(first, other, sizeof first);
    assert_int_equal(kvant_gguf_parse("model", bytes, size, NULL, &f, NULL), KVANT_OK);
    for (int i = 0; i < f->n_tensors; i++) {
        const kvant_gguf_tensor *t = &f->tensors[i];
        for (int end = 0; end < 2; end++) {
            uint8_t *byte = bytes + (t->data - bytes) + (end ? t->bytes - 1 : 0);
            *byte ^= 1;
            fingerprint_of(bytes, size, other);
            *byte ^= 1;
            if (memcmp(first, other, sizeof first) == 0) fail_msg("tensor %d, end %d", i, end);
        }
    }
    const kvant_gguf_value *v = kvant_gguf_find(f, "qwen2.attention.layer_norm_rms_epsilon");
    assert_non_null(v);
    uint8_t *byte = bytes + (v->data - bytes);
    *byte ^= 1;
    fingerprint_of(bytes, size, other);
    assert_memory_not_equal(first, other, sizeof first);
    kvant_gguf_close(f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(the_second_load_finds_what_the_first_one_made, set_up),
        cmocka_unit_test_setup(without_a_folder_nothing_is_kept, set_up),
        cmocka_unit_test_setup(a_damaged_file_is_told_and_made_again, set_up),
        cmocka_unit_test_setup(another_models_file_in_the_folder_is_made_again, set_up),
        cmocka_unit_test_setup(a_folder_that_cannot_be_written_costs_a_warning, set_up),
        cmocka_unit_test_setup(a_file_that_is_named_is_used_or_refused, set_up),
        cmocka_unit_test_setup(a_calibration_of_ones_own_comes_before_the_built_in_one, set_up),
        cmocka_unit_test_setup(calibrating_by_wish_refuses_what_cannot_be, set_up),
        cmocka_unit_test(the_fingerprint_changes_with_any_tensor_and_hyperparameter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
