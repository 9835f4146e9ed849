// SPDX-License-Identifier: MIT
/* test_run.c: kvant run, tokenize, detokenize and logits as a person or a script meets them: output, exit codes, sentences,
 * signals.
 *
 * KVANT_TEST_MODEL may name a real model with a context of 8,192 tokens; the peak memory of long prompts is measured with it. */
#define _POSIX_C_SOURCE 200809L
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cli/program_test.h"

#define MODEL KVANT_DATA "/models/random-llama-dense.gguf"
#define GOLDEN KVANT_DATA "/models/random-llama-dense.logits"
#define STORIES KVANT_DATA "/models/stories260K.gguf"
#define VOCAB KVANT_DATA "/tokenizers/ggml-vocab-llama-bpe.gguf"
#define IDS "test_run_ids.txt"
#define OUT "test_run_out.logits"
#define TEXT "test_run_text.txt"

/* Exit code, and pieces of what is said on stderr. */
static void assert_refused(int code, const char *arguments, const char *const *pieces) {
    int got = run(true, arguments);
    if (got != code) fail_msg("%s: exit %d, said: %s", arguments, got, output);
    for (int i = 0; pieces[i]; i++)
        if (!strstr(output, pieces[i])) fail_msg("%s: does not say \"%s\" but: %s", arguments, pieces[i], output);
}
#define SAYS(...) ((const char *const[]){__VA_ARGS__, NULL})

static size_t read_file(const char *path, char *out, size_t size) {
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    size_t n = fread(out, 1, size, f);
    fclose(f);
    return n;
}

/* ---- help and mistakes ---- */

static void help_teaches_and_mistakes_name_the_nearest(void **state) {
    (void)state;
    assert_runs("--help");
    assert_non_null(strstr(output, "kvant run -m"));
    static const char *const commands[] = {"run", "inspect", "eval", "bench", "tokenize", "detokenize", "logits"};
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        char arguments[64];
        assert_runs("--help");
        assert_non_null(strstr(output, commands[i]));
        snprintf(arguments, sizeof arguments, "%s --help", commands[i]);
        assert_runs(arguments);
        assert_non_null(strstr(output, "Usage: kvant "));
        assert_non_null(strstr(output, "-m"));
    }
    assert_runs("--version");
    assert_int_equal(strncmp(output, "kvant ", 6), 0);
    assert_refused(2, "rnu", SAYS("rnu", "did you mean run?"));
    assert_refused(2, "run -m x --tmep 1", SAYS("--tmep", "did you mean --temp?"));
    assert_refused(2, "run -m x -p", SAYS("-p needs a value"));
    assert_refused(2, "run", SAYS("a model is needed"));
    assert_refused(2, "run -m x y -p z", SAYS("y"));
    assert_refused(1, "run -m /nonexistent.gguf -p z", SAYS("/nonexistent.gguf", "cannot be opened"));
    assert_refused(1, "tokenize -m . -p z", SAYS("folder"));
}

static void values_are_checked_whole_and_against_their_range(void **state) {
    (void)state;
    static const char *const wrong[] = {"-n 12x",
                                        "-n -1",
                                        "-n ''",
                                        "-n 99999999999999999999",
                                        "--temp nan",
                                        "--temp -1",
                                        "--temp 1e999",
                                        "--top-p 1.5",
                                        "--top-p x",
                                        "--min-p -0.1",
                                        "--top-k -1",
                                        "--seed -1",
                                        "--seed 1.5",
                                        "-t 0",
                                        "-t 257",
                                        "-c 0",
                                        "--repeat-penalty 0",
                                        "--stop ''",
                                        "--kv-bits 7",
                                        "--kv-bits 4bit",
                                        "--kv-bits ''",
                                        "--isa sse",
                                        "--compat ggml",
                                        "--prefill-step-size 0",
                                        "--max-kv-size 4",
                                        "--quantized-kv-start -1",
                                        "--raw=1",
                                        "--exact --fast"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char arguments[256];
        snprintf(arguments, sizeof arguments, "run -m " STORIES " --raw -p a %s", wrong[i]);
        assert_refused(2, arguments, SAYS("kvant: ", "Help: kvant run --help"));
    }
}

static void cache_flags_that_contradict_each_other_are_refused(void **state) {
    (void)state;
    if (!is_there(MODEL)) skip();
    static const struct {
        int code;
        const char *flags, *says;
    } wrong[] = {
        {2, "--kv f16 --kv-bits 4", "kv_bits"},
        {2, "--kv-group-size 64", "kv_group_size"},
        {2, "--kv-bits 4 --k-bits 4 --v-bits 4", "--kv-bits"},
        {2, "--kv-bits none --k-bits 4", "--kv-bits none"},
        {2, "--kv-bits none --kv-codec affine", "affine"},
        {2, "--quantized-kv-start 64", "quantized_kv_start"},
        {2, "-ctk f16 --kv f16", "-ctk"},
        {2, "-ctk bf16", "f16"},
        {2, "-ctv iq4_nl", "q4_0"},
        {2, "-ctk nonsense", "nonsense"},
        {2, "--kv bogus", "bogus"},
        {2, "--compat mlx --kv-bits 5", "5"},
        {2, "--kv-codec f16 --kv-bits 4", "kv_codec f16"},
    };
    write_bytes(IDS, "1 2 3", 5);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char arguments[512];
        snprintf(arguments, sizeof arguments, "logits -m " MODEL " --ids " IDS " -o " OUT " %s", wrong[i].flags);
        remove(OUT);
        assert_refused(wrong[i].code, arguments, SAYS(wrong[i].says));
        assert_false(is_there(OUT));
    }
    assert_refused(1, "run -m " STORIES " --raw -p a --kv-bits 4", SAYS("head_dim 8", "f16"));
}

static void a_window_that_mlx_ignores_is_ignored_with_a_sentence(void **state) {
    (void)state;
    if (!is_there(MODEL)) skip();
    write_bytes(IDS, "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20", 50);
#define LOGITS "logits -m " MODEL " --kv f16 --ids " IDS " -o " OUT " "
    static const struct {
        const char *flags;
        bool same; /* the logits of no window */
    } all[] = {{"--max-kv-size 8 --compat mlx", true}, {"--max-kv-size 8", false}};
    static char expected[1 << 20], found[1 << 20];
    assert_runs(LOGITS "--compat mlx");
    size_t size = read_file(OUT, expected, sizeof expected);
    for (int i = 0; i < 2; i++) {
        char arguments[512];
        snprintf(arguments, sizeof arguments, LOGITS "%s", all[i].flags);
        assert_int_equal(run(true, arguments), 0);
        if (all[i].same != (strstr(output, "max_kv_size 8 is ignored") != NULL)) fail_msg("%s said: %s", all[i].flags, output);
        assert_int_equal(read_file(OUT, found, sizeof found), size);
        assert_int_equal(memcmp(found, expected, size) == 0, all[i].same);
    }
#undef LOGITS
}

/* ---- run ---- */

static void a_story_is_told_the_same_by_any_number_of_threads(void **state) {
    (void)state;
    static char expected[4096];
    if (!is_there(STORIES) || !is_there(KVANT_DATA "/models/expected_greedy_200.txt")) skip();
    size_t n = read_file(KVANT_DATA "/models/expected_greedy_200.txt", expected, sizeof expected);
    for (int threads = 1; threads <= 3; threads++) {
        char arguments[512];
        snprintf(arguments, sizeof arguments, "run -m " STORIES " --raw -p '' -n 200 -t %d", threads);
        assert_runs(arguments);
        assert_int_equal(n_output, n);
        assert_memory_equal(output, expected, n);
    }
    assert_runs("run " STORIES " --raw -n 20 -p 'Once upon a time' --prefill-step-size 1");
    assert_int_equal(strncmp(output, ", there was a little girl", 25), 0);
}

static void stderr_says_what_the_cache_takes(void **state) {
    (void)state;
    if (!is_there(STORIES)) skip();
    assert_int_equal(run(true, "run -m " STORIES " --raw -p 'Once upon' -n 10"), 0);
    assert_int_equal(strncmp(output, "kvant: ", 7), 0);
    static const char *const pieces[] = {"5 layers", "cache K f16 V f16", "answer tokens at", "first token after", "; f16 takes"};
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++)
        if (!strstr(output, pieces[i])) fail_msg("stderr does not say \"%s\": %s", pieces[i], output);
    assert_null(strstr(output, "\x1b")); /* no progress bar in a pipe */
    assert_null(strchr(output, '\r'));
}

static void json_has_the_same_answer_and_its_figures(void **state) {
    (void)state;
    if (!is_there(STORIES)) skip();
    static char streamed[sizeof output];
    assert_runs("run -m " STORIES " --raw -p 'The dog' -n 30");
    strcpy(streamed, output);
    assert_runs("run -m " STORIES " --raw -p 'The dog' -n 30 --json");
    json_error_t err;
    json_t *root = json_loads(output, 0, &err);
    assert_non_null(root);
    assert_string_equal(json_string_value(json_object_get(root, "text")), streamed);
    assert_int_equal(json_array_size(json_object_get(root, "ids")), 30);
    assert_string_equal(json_string_value(json_object_get(root, "stop_reason")), "length");
    json_t *cache = json_object_get(root, "cache");
    assert_string_equal(json_string_value(json_object_get(cache, "k")), "f16");
    assert_true(json_integer_value(json_object_get(cache, "bytes")) > 0);
    assert_true(json_number_value(json_object_get(json_object_get(root, "timings"), "prefill_seconds")) > 0);
    json_decref(root);
}

static void stop_strings_cut_before_them_and_never_leak(void **state) {
    (void)state;
    if (!is_there(STORIES)) skip();
    assert_runs("run -m " STORIES " --raw -p '' -n 100 --stop 'named Lily. She'");
    assert_string_equal(output, "Once upon a time, there was a little girl ");
    assert_runs("run -m " STORIES " --raw -p '' -n 100 --stop 'zebra' --stop 'ere wa' --stop 'little'");
    assert_string_equal(output, "Once upon a time, th");
    assert_runs("run -m " STORIES " --raw -p '' -n 12 --stop 'time, there was a little boy'"); /* begins, but does not come */
    assert_int_equal(strncmp(output, "Once upon a time, there was", 27), 0);
}

static void seeds_decide_the_answer(void **state) {
    (void)state;
    if (!is_there(STORIES)) skip();
    static char first[sizeof output];
    assert_runs("run -m " STORIES " --raw -p '' -n 40 --temp 1 --seed 5 --top-p 0.95");
    strcpy(first, output);
    assert_runs("run -m " STORIES " --raw -p '' -n 40 --temp 1 --seed 5 --top-p 0.95 -t 1");
    assert_string_equal(output, first);
    assert_runs("run -m " STORIES " --raw -p '' -n 40 --temp 1 --seed 6 --top-p 0.95");
    assert_string_not_equal(output, first);
}

static void a_prompt_longer_than_the_context_names_both(void **state) {
    (void)state;
    static char text[4096];
    if (!is_there(STORIES)) skip();
    for (size_t i = 0; i + 4 <= sizeof text; i += 4)
        memcpy(text + i, "dog ", 4);
    write_bytes(TEXT, text, sizeof text);
    assert_refused(1, "run -m " STORIES " --raw -f " TEXT, SAYS("the prompt has", "512"));
    assert_refused(1, "run -m " STORIES " --raw -p 'Once upon a time' -c 3", SAYS("the prompt has", "3"));
    assert_refused(1, "run -m " STORIES " -p hello", SAYS("--raw", "--chat-template"));
    assert_refused(2, "run -m " STORIES " -p hello --chat-template nonsense", SAYS("nonsense", "chatml"));
    assert_runs("run -m " STORIES " -p hello --chat-template chatml -n 3");
    assert_int_equal(run(true, "run -m " STORIES " --raw -p 'Once upon a time' -c 16 -n 100"), 0);
    assert_non_null(strstr(output, "context of 16 tokens is full"));
}

/* Ctrl-C while tokens come: the program ends by itself and says what it did. */
static void an_interrupt_ends_the_answer_cleanly(void **state) {
    (void)state;
    if (!is_there(STORIES)) skip();
    int ends[2], status;
    char byte;
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        int log = open("test_run_stderr.txt", O_WRONLY | O_CREAT | O_TRUNC, 0600);
        dup2(ends[1], STDOUT_FILENO);
        dup2(log, STDERR_FILENO);
        close(ends[0]);
        close(ends[1]);
        execl(KVANT_PROGRAM, KVANT_PROGRAM, "run", "-m", STORIES, "--raw", "-p", "", "-n", "1000000", "-c", "1000010",
              (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    assert_int_equal(read(ends[0], &byte, 1), 1);
    kill(child, SIGINT);
    while (read(ends[0], output, sizeof output) > 0) {
    }
    close(ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    output[read_file("test_run_stderr.txt", output, sizeof output - 1)] = '\0';
    assert_non_null(strstr(output, "interrupted after"));
    assert_non_null(strstr(output, "cache "));
    remove("test_run_stderr.txt");
}

/* ---- tokenize, detokenize ---- */

static void text_and_ids_are_each_others_inverse(void **state) {
    (void)state;
    if (!is_there(VOCAB)) skip();
    assert_runs("tokenize -m " VOCAB " -p 'Hello world'");
    assert_string_equal(output, "128000 9906 1917\n");
    assert_runs("tokenize " VOCAB " --no-bos --json -p 'Hello world'");
    assert_string_equal(output, "[9906, 1917]\n");
    assert_runs("tokenize -m " VOCAB " --no-bos -p ''");
    assert_string_equal(output, "\n");
    assert_runs("detokenize -m " VOCAB " 9906 1917");
    assert_string_equal(output, "Hello world");
    assert_runs("tokenize -m " VOCAB " --no-bos -p '<|eot_id|>'");
    assert_string_equal(output, "128009\n");
    assert_runs("tokenize -m " VOCAB " --no-bos --no-parse-special -p '<|eot_id|>'");
    assert_null(strstr(output, "128009"));
    static const char bytes[] = "a\r\n\tb\0c  \n\xE2\x82\xAC \xF0\x9F\x98\x80\n"; /* byte for byte, NUL too */
    write_bytes(TEXT, bytes, sizeof bytes - 1);
    assert_runs("tokenize -m " VOCAB " --no-bos -f " TEXT);
    write_bytes(IDS, output, n_output);
    assert_runs("detokenize -m " VOCAB " -f " IDS);
    assert_int_equal(n_output, sizeof bytes - 1);
    assert_memory_equal(output, bytes, sizeof bytes - 1);
    assert_refused(1, "detokenize -m " VOCAB " 1 128256", SAYS("token 1", "128255"));
    assert_refused(1, "detokenize -m " VOCAB " 1 2x", SAYS("token 1"));
}

/* ---- logits ---- */

static void logits_agree_with_the_golden_file(void **state) {
    (void)state;
    static char golden[1 << 16], made[1 << 16];
    static float a[1 << 14], b[1 << 14];
    int32_t head[4];
    if (!is_there(GOLDEN)) skip();
    size_t n = read_file(GOLDEN, golden, sizeof golden);
    memcpy(head, golden, sizeof head);
    char ids[4096] = "";
    for (int i = 0; i < head[2]; i++) {
        int32_t id;
        memcpy(&id, golden + 16 + 4 * i, 4);
        snprintf(ids + strlen(ids), sizeof ids - strlen(ids), "%d%s", id, i % 2 ? "\n" : ", ");
    }
    write_bytes(IDS, ids, strlen(ids));
    static const char *const flags[] = {"", "--prefill-step-size 5", "--kv f32 -t 1"};
    for (int f = 0; f < 3; f++) {
        char arguments[512];
        snprintf(arguments, sizeof arguments, "logits -m " MODEL " --ids " IDS " -o " OUT " %s", flags[f]);
        remove(OUT);
        assert_runs(arguments);
        assert_int_equal(read_file(OUT, made, sizeof made), n);
        size_t begin = 16 + 4 * (size_t)head[2], cells = (size_t)head[2] * (size_t)head[3];
        assert_memory_equal(made, golden, begin);
        assert_int_equal(n, begin + 4 * cells);
        memcpy(a, golden + begin, 4 * cells);
        memcpy(b, made + begin, 4 * cells);
        for (int i = 0; i < head[2]; i++) {
            double difference = 0, size = 0;
            for (int k = 0; k < head[3]; k++) {
                difference += pow(a[i * head[3] + k] - b[i * head[3] + k], 2);
                size += pow(a[i * head[3] + k], 2);
            }
            if (sqrt(difference / size) > 1e-3) fail_msg("%s: row %d differs by %g", flags[f], i, sqrt(difference / size));
        }
        assert_false(is_there(OUT ".part"));
    }
    write_bytes(IDS, "1 2 99999", 9);
    assert_refused(1, "logits -m " MODEL " --ids " IDS " -o " OUT, SAYS("token 2", "0 to 127"));
    write_bytes(IDS, " \n", 2);
    assert_refused(1, "logits -m " MODEL " --ids " IDS " -o " OUT, SAYS("no token ids"));
    write_bytes(IDS, "1 2", 3);
    assert_refused(1, "logits -m " MODEL " --ids " IDS " -o /nonexistent/x", SAYS("/nonexistent/x"));
    assert_refused(1, "logits -m " MODEL " --ids " IDS " -o " OUT " -c 1", SAYS("2 tokens", "1"));
}

/* ---- memory ---- */

/* The peak of a long prompt with one format, from the child's own figures. */
static json_int_t peak_of(const char *model, const char *kv, json_int_t *cache) {
    char arguments[1024];
    json_error_t err;
    snprintf(arguments, sizeof arguments, "run -m '%s' --raw -f " TEXT " -c 8192 -n 4 --json --kv %s", model, kv);
    assert_runs(arguments);
    json_t *root = json_loads(output, 0, &err);
    assert_non_null(root);
    json_int_t peak = json_integer_value(json_object_get(root, "peak_bytes"));
    *cache = json_integer_value(json_object_get(json_object_get(root, "cache"), "bytes"));
    assert_true(json_integer_value(json_object_get(root, "prompt_tokens")) > 6000);
    json_decref(root);
    return peak;
}

static void the_peak_of_4_bits_is_lower_by_what_the_formula_says(void **state) {
    (void)state;
    const char *model = getenv("KVANT_TEST_MODEL");
    static char text[30000];
    if (!model || !is_there(KVANT_DATA "/text/moby-dick.txt")) {
        printf("skipped: KVANT_TEST_MODEL names no model with a context of 8192 tokens\n");
        skip();
    }
    FILE *f = fopen(KVANT_DATA "/text/moby-dick.txt", "rb");
    assert_non_null(f);
    fseek(f, 100000, SEEK_SET);
    size_t n = fread(text, 1, sizeof text, f);
    fclose(f);
    write_bytes(TEXT, text, n);
    json_int_t cache_f16, cache_4, f16 = peak_of(model, "f16", &cache_f16), four = peak_of(model, "affine4:64", &cache_4);
    double expected = (double)(cache_f16 - cache_4), found = (double)(f16 - four);
    if (fabs(found / expected - 1) > 0.1)
        fail_msg("peaks %lld and %lld differ by %.0f, the caches by %.0f", (long long)f16, (long long)four, found, expected);
}

static int tear_down(void **state) {
    (void)state;
    remove(IDS);
    remove(OUT);
    remove(TEXT);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(help_teaches_and_mistakes_name_the_nearest),
        cmocka_unit_test(values_are_checked_whole_and_against_their_range),
        cmocka_unit_test(cache_flags_that_contradict_each_other_are_refused),
        cmocka_unit_test(a_window_that_mlx_ignores_is_ignored_with_a_sentence),
        cmocka_unit_test(a_story_is_told_the_same_by_any_number_of_threads),
        cmocka_unit_test(stderr_says_what_the_cache_takes),
        cmocka_unit_test(json_has_the_same_answer_and_its_figures),
        cmocka_unit_test(stop_strings_cut_before_them_and_never_leak),
        cmocka_unit_test(seeds_decide_the_answer),
        cmocka_unit_test(a_prompt_longer_than_the_context_names_both),
        cmocka_unit_test(an_interrupt_ends_the_answer_cleanly),
        cmocka_unit_test(text_and_ids_are_each_others_inverse),
        cmocka_unit_test(logits_agree_with_the_golden_file),
        cmocka_unit_test(the_peak_of_4_bits_is_lower_by_what_the_formula_says),
    };
    if (!is_there(STORIES)) printf("skipped: %s is not there\n", STORIES);
    return cmocka_run_group_tests(tests, NULL, tear_down);
}
