// SPDX-License-Identifier: MIT
/* test_convert.c: kvant convert: the same logits from the other kind of file, interrupted runs, and what is refused. */
#define _POSIX_C_SOURCE 200809L
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "cli/program_test.h"

#define TEXT_MODELS KVANT_DATA "/mlx/text/"
#define WORK "test_convert_work"

static int run_with(const char *format, const char *a, const char *b, const char *c) {
    char command[4096];
    snprintf(command, sizeof command, format, a, b, c);
    return run_program(NULL, BOTH_STREAMS, command);
}

static long long size_of(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 ? (long long)st.st_size : -1;
}

static int set_up(void **state) {
    (void)state;
    return system("rm -rf " WORK " && mkdir " WORK);
}

static int clean(void **state) {
    (void)state;
    return system("rm -rf " WORK);
}

static void need(const char *path) {
    if (is_there(path)) return;
    printf("skipped: %s is not there\n", path);
    skip();
}

/* ---- logits ---- */

static float *read_logits(const char *model, const char *name, int *n) {
    char path[256];
    snprintf(path, sizeof path, WORK "/%s.logits", name);
    if (run_with("logits -m '%s' --ids " WORK "/ids.txt -o %s", model, path, "") != 0) fail_msg("%s: %s", model, output);
    FILE *f = fopen(path, "rb");
    int32_t head[4];
    assert_non_null(f);
    assert_int_equal(fread(head, 4, 4, f), 4);
    *n = head[2] * head[3];
    float *x = malloc((size_t)*n * sizeof *x);
    assert_int_equal(fseek(f, 4 * head[2], SEEK_CUR), 0);
    assert_int_equal(fread(x, sizeof *x, (size_t)*n, f), *n);
    fclose(f);
    return x;
}

static void write_ids(int n_vocab) {
    FILE *f = fopen(WORK "/ids.txt", "w");
    for (int i = 0; i < 40; i++)
        fprintf(f, "%d ", (i * 37 + 5) % n_vocab);
    fclose(f);
}

/* The relative difference of all logits. */
static double difference(const char *a, const char *b) {
    int n, m;
    float *x = read_logits(a, "a", &n), *y = read_logits(b, "b", &m);
    double d2 = 0, e2 = 0;
    assert_int_equal(n, m);
    for (int i = 0; i < n; i++) {
        double d = (double)x[i] - (double)y[i];
        d2 += d * d;
        e2 += (double)x[i] * (double)x[i];
    }
    free(x);
    free(y);
    return sqrt(d2 / e2);
}

static void convert(const char *source, const char *target, const char *flags) {
    if (run_with("convert '%s' '%s' %s", source, target, flags) != 0) fail_msg("%s: %s", source, output);
}

static void folders_become_gguf_files_with_the_same_logits(void **state) {
    static const struct {
        const char *name, *flags;
        double bound;
    } cases[] = {{"llama-f16", "", 1e-4},
                 {"qwen2-bf16", "", 1e-6},
                 {"mistral-q8g64-hd128", "--weights f32", 1e-4},
                 {"gemma3_text-bf16", "", 1e-4},
                 {"phi3-f16", "", 1e-6},
                 {"qwen3-q4g64", "--weights f32", 1e-4},
                 {"mixtral-q4g64-2shards", "--weights f32", 1e-4},
                 {"llama-f16", "--weights q8_0", 3e-2},
                 {"llama-f16", "--weights q4_0", 0.5}};
    (void)state;
    need(TEXT_MODELS "llama-f16");
    write_ids(300);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char source[512];
        snprintf(source, sizeof source, TEXT_MODELS "%s", cases[i].name);
        remove(WORK "/model.gguf");
        convert(source, WORK "/model.gguf", cases[i].flags);
        double d = difference(source, WORK "/model.gguf");
        printf("  %-24s %-16s off by %.1e\n", cases[i].name, cases[i].flags, d);
        if (!(d <= cases[i].bound)) fail_msg("%s %s: off by %g", cases[i].name, cases[i].flags, d);
        assert_false(is_there(WORK "/model.gguf.part"));
        assert_false(is_there(WORK "/model.gguf.part.state"));
    }
}

/* SentencePiece's kinds too, which GGUF's own values cannot say: there and back, every text gets the same tokens. */
static void vocabularies_are_the_same(void **state) {
    static const char *const names[] = {"llama-f16", "mistral-q8g64-hd128", "gemma3_text-bf16", "qwen2-bf16", "phi3-f16", "qwen3-q4g64"};
    static const char *const texts[] = {"\"it's 12345 w\xC3\xB6rds<|eot_id|> \"", "' a<s> b</s>  c'", "'e\xCC\x81 \xF0\x9F\x99\x82\t\n x'"};
    (void)state;
    need(TEXT_MODELS "llama-f16");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char source[512];
        snprintf(source, sizeof source, TEXT_MODELS "%s", names[i]);
        if (!is_there(source)) continue;
        assert_int_equal(system("rm -rf " WORK "/model.gguf " WORK "/folder"), 0);
        convert(source, WORK "/model.gguf", "");
        /* A pattern of windows cannot go back into config.json: see what_a_folder_cannot_say_is_refused. */
        bool back = !strstr(names[i], "gemma3");
        if (back) convert(WORK "/model.gguf", WORK "/folder", strstr(names[i], "q8") || strstr(names[i], "q4") ? "--weights affine8:64" : "");
        for (size_t t = 0; t < sizeof texts / sizeof *texts; t++) {
            assert_int_equal(run_with("tokenize -m '%s' -p %s%s", source, texts[t], ""), 0);
            char *expected = strdup(output);
            assert_int_equal(run_with("tokenize -m '%s' -p %s%s", WORK "/model.gguf", texts[t], ""), 0);
            assert_string_equal(output, expected);
            if (back) assert_int_equal(run_with("tokenize -m '%s' -p %s%s", WORK "/folder", texts[t], ""), 0);
            assert_string_equal(output, expected);
            free(expected);
        }
    }
}

/* A run that is cut off leaves a part; another goes on and gives the same bytes. */
static void interrupted_runs_go_on(void **state) {
    (void)state;
    need(TEXT_MODELS "llama-f16");
    convert(TEXT_MODELS "llama-f16", WORK "/whole.gguf", "");
    /* A limit on the size of files stands for a full disk. */
    char command[2048];
    snprintf(command, sizeof command,
             "(trap '' XFSZ; ulimit -f 600; '%s' convert '%s' " WORK "/model.gguf) > " WORK "/said.txt 2>&1", KVANT_PROGRAM,
             TEXT_MODELS "llama-f16");
    int status = system(command);
    assert_int_equal(WEXITSTATUS(status), 1);
    assert_int_equal(system("grep -q 'cannot be written' " WORK "/said.txt"), 0);
    assert_false(is_there(WORK "/model.gguf"));
    assert_true(is_there(WORK "/model.gguf.part"));
    assert_true(is_there(WORK "/model.gguf.part.state"));
    convert(TEXT_MODELS "llama-f16", WORK "/model.gguf", "");
    assert_int_equal(system("cmp -s " WORK "/model.gguf " WORK "/whole.gguf"), 0);
    /* A part of another run is not gone on with. */
    assert_int_equal(system("rm " WORK "/model.gguf && echo x > " WORK "/model.gguf.part && "
                            "echo 'kvant convert 1 00000000000000000000000000000000 3 2' > " WORK "/model.gguf.part.state"),
                     0);
    convert(TEXT_MODELS "llama-f16", WORK "/model.gguf", "");
    assert_int_equal(system("cmp -s " WORK "/model.gguf " WORK "/whole.gguf"), 0);
}

static void gguf_files_get_other_weights(void **state) {
    const char *source = KVANT_SOURCE "/tests/golden/models/llama-rope-llama3.gguf";
    (void)state;
    need(source);
    write_ids(20);
    convert(source, WORK "/same.gguf", "");
    convert(source, WORK "/f32.gguf", "--weights f32");
    assert_true(difference(source, WORK "/same.gguf") == 0);
    assert_true(difference(source, WORK "/f32.gguf") < 1e-5);
    assert_true(size_of(WORK "/f32.gguf") >= size_of(WORK "/same.gguf"));
}

static void gguf_files_become_folders_with_the_same_logits(void **state) {
    static const char *const names[] = {"llama-f16", "qwen2-bf16", "phi3-f16"};
    (void)state;
    need(TEXT_MODELS "llama-f16");
    write_ids(300);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char source[512];
        snprintf(source, sizeof source, TEXT_MODELS "%s", names[i]);
        assert_int_equal(system("rm -rf " WORK "/model.gguf " WORK "/folder " WORK "/small"), 0);
        if (run_with("convert '%s' '%s' %s", source, WORK "/model.gguf", "") != 0) fail_msg("%s", output);
        if (run_with("convert '%s' '%s' %s", WORK "/model.gguf", WORK "/folder", "") != 0) fail_msg("%s", output);
        double d = difference(source, WORK "/folder");
        if (run_with("convert '%s' '%s' %s", WORK "/model.gguf", WORK "/small", "--weights affine8:64") != 0) fail_msg("%s", output);
        double e = difference(source, WORK "/small");
        printf("  %-24s to a file and back: off by %.1e; as affine8:64: %.1e\n", names[i], d, e);
        assert_true(d <= 1e-6 && e <= 0.1);
        assert_false(is_there(WORK "/folder.part") || is_there(WORK "/folder.part.state"));
    }
}

/* Frequencies, scales and vocabularies that no folder has. */
static void what_a_folder_cannot_say_is_refused(void **state) {
    static const char *const models[][2] = {{"random-llama-dense", "frequencies of RoPE"},
                                            {"random-gemma3-dense", "has no name in a folder"},
                                            {"stories260K", "not byte-level BPE"}};
    (void)state;
    need(KVANT_DATA "/models/random-llama-dense.gguf");
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        char source[512];
        snprintf(source, sizeof source, KVANT_DATA "/models/%s.gguf", models[i][0]);
        if (!is_there(source)) continue;
        int code = run_with("convert '%s' '%s' %s", source, WORK "/folder", "");
        if (code != 1 || !strstr(output, models[i][1])) fail_msg("%s: exit %d: %s", source, code, output);
        assert_false(is_there(WORK "/folder"));
    }
}

/* Quantized folders stay as they are; a part that was stopped is gone on with. */
static void folders_are_written_anew(void **state) {
    char command[2048];
    (void)state;
    need(TEXT_MODELS "qwen3-q4g64");
    write_ids(300);
    convert(TEXT_MODELS "qwen3-q4g64", WORK "/same", "");
    assert_true(difference(TEXT_MODELS "qwen3-q4g64", WORK "/same") == 0);
    snprintf(command, sizeof command, "(trap '' XFSZ; ulimit -f 400; '%s' convert '%s' " WORK "/again) > " WORK "/said.txt 2>&1",
             KVANT_PROGRAM, TEXT_MODELS "qwen3-q4g64");
    int status = system(command);
    assert_int_equal(WEXITSTATUS(status), 1);
    assert_false(is_there(WORK "/again"));
    convert(TEXT_MODELS "qwen3-q4g64", WORK "/again", "");
    assert_int_equal(system("diff -r " WORK "/again " WORK "/same"), 0);
}

static void refuses(int code, const char *source, const char *target, const char *flags, const char *piece) {
    int got = run_with("convert '%s' '%s' %s", source, target, flags);
    if (got != code || !strstr(output, piece)) fail_msg("exit %d, expected %d and \"%s\", said: %s", got, code, piece, output);
    assert_false(is_there(target) && size_of(target) != 1);
}

static void what_cannot_be_said_is_refused(void **state) {
    (void)state;
    need(TEXT_MODELS "llama-f16");
    refuses(2, TEXT_MODELS "llama-f16", WORK "/model.gguf", "--weights q3", "expected f32, f16");
    refuses(2, TEXT_MODELS "llama-f16", WORK "/model.gguf", "--weights affine4:64", "no affine weights");
    refuses(2, TEXT_MODELS "llama-f16", WORK "/model", "--weights q4_0", "no q4_0 or q8_0 weights");
    refuses(1, WORK "/none", WORK "/model.gguf", "", "none");
    refuses(1, TEXT_MODELS "llama-f16", WORK "/no/folder/model.gguf", "", "cannot be made");
    assert_int_equal(system("printf x > " WORK "/there.gguf"), 0);
    refuses(2, TEXT_MODELS "llama-f16", WORK "/there.gguf", "", "is there already");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(folders_become_gguf_files_with_the_same_logits, set_up, clean),
        cmocka_unit_test_setup_teardown(vocabularies_are_the_same, set_up, clean),
        cmocka_unit_test_setup_teardown(interrupted_runs_go_on, set_up, clean),
        cmocka_unit_test_setup_teardown(gguf_files_get_other_weights, set_up, clean),
        cmocka_unit_test_setup_teardown(gguf_files_become_folders_with_the_same_logits, set_up, clean),
        cmocka_unit_test_setup_teardown(what_a_folder_cannot_say_is_refused, set_up, clean),
        cmocka_unit_test_setup_teardown(folders_are_written_anew, set_up, clean),
        cmocka_unit_test_setup_teardown(what_cannot_be_said_is_refused, set_up, clean),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
