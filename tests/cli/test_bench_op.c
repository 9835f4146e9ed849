// SPDX-License-Identifier: MIT
/* test_bench_op.c: kvant bench --op as a person or a script meets it: output, exit codes, sentences.
 *
 * How fast things are is not tested here but that every part is measured, in the promised units, and that bytes add up. */
#define _POSIX_C_SOURCE 200809L
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <jansson.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/program_test.h"

#define SMALL "bench --op --memory 4M --depth 128 --prefill 32 --reps 2 "

static double number(const json_t *row, const char *key) {
    const json_t *j = json_object_get(row, key);
    if (!json_is_number(j)) fail_msg("%s is not a number", key);
    return json_number_value(j);
}

static const char *text(const json_t *row, const char *key) {
    const char *s = json_string_value(json_object_get(row, key));
    if (!s) fail_msg("%s is not a string", key);
    return s;
}

static bool row_is(const json_t *row, const char *part, const char *kv, int head_dim, int threads) {
    return strcmp(text(row, "part"), part) == 0 && strcmp(text(row, "kv"), kv) == 0 && number(row, "head_dim") == head_dim &&
           number(row, "threads") == threads;
}

static const json_t *find(const json_t *root, const char *part, const char *kv, int head_dim, int threads) {
    size_t i;
    const json_t *row;
    json_array_foreach(json_object_get(root, "rows"), i, row) {
        if (row_is(row, part, kv, head_dim, threads)) return row;
    }
    fail_msg("no row of %s, %s, %d, %d threads", part, kv, head_dim, threads);
    return NULL;
}

static void every_part_format_and_head_dim_has_positive_figures(void **state) {
    (void)state;
    static const char *const names[] = {"f16", "bc4", "bc4.bare/bc4"}, *const part_names[] = {"decode-l2", "decode-memory",
                                                                                              "prefill", "encode"};
    assert_int_equal(run(false, SMALL "--kv bc4,f16,bc4.bare -t 2 --json"), 0);
    json_t *root = json_loads(output, 0, NULL);
    assert_non_null(root);
    assert_true(json_is_true(json_object_get(root, "complete")));
    assert_string_equal(text(root, "speed_relative_to"), "f16");
    assert_int_equal(json_array_size(json_object_get(root, "rows")), 3 * 2 * (1 + 2 + 2 + 1));
    for (int p = 0; p < 4; p++) {
        for (int i = 0; i < 3 * 2 * 2; i++) {
            int threads = 1 + i % 2, head_dim = i / 2 % 2 ? 128 : 64;
            if (threads == 2 && p % 3 == 0) continue; /* L2 and encode have one */
            const json_t *row = find(root, part_names[p], names[i / 4], head_dim, threads), *time = json_object_get(row, "time");
            assert_true(number(time, "min") > 0 && number(time, "min") <= number(time, "median"));
            assert_true(number(time, "median") <= number(time, "max") && number(time, "max") < 1e9);
            assert_true(number(row, "speed") > 0 && number(row, "bytes") > 0 && number(row, "reps") == 2);
            if (i / 4 == 0) assert_true(number(row, "speed") == 1);
            if (p != 1) continue;
            double share = number(row, "bytes_per_second") / number(row, "read_bandwidth");
            assert_true(share > 0 && fabs(number(row, "read_share") / share - 1) < 1e-5);
        }
    }
    json_decref(root);
}

static void pages_take_the_bytes_that_were_asked_for(void **state) {
    (void)state;
    assert_int_equal(run(false, SMALL "--kv f16,affine4:64 --head-dim 128 -t 1 --json --group 2"), 0);
    json_t *root = json_loads(output, 0, NULL);
    assert_non_null(root);
    double f16 = number(find(root, "decode-memory", "f16", 128, 1), "bytes");
    double affine = number(find(root, "decode-memory", "affine4:64", 128, 1), "bytes");
    assert_true(f16 >= 4 << 20 && f16 < 20 << 20); /* whole layers */
    assert_true(affine / f16 > 4.5 / 16 && affine / f16 < 4.6 / 16);
    f16 = number(find(root, "decode-l2", "f16", 128, 1), "bytes");
    assert_true(f16 >= 256 << 10 && f16 < 260 << 10);
    assert_int_equal(json_array_size(json_object_get(root, "rows")), 2 * 4);
    json_decref(root);
}

static void tables_and_csv_name_units(void **state) {
    (void)state;
    assert_int_equal(run(false, SMALL "--kv bc4,bc4.bare --head-dim 64 -t 1"), 0);
    static const char *const pieces[] = {"decode, pages in L2",
                                         "decode, pages from memory",
                                         "ns/token-head",
                                         "% of read",
                                         "ms/layer-KV-head",
                                         "us/token-head",
                                         "vs bc4",
                                         "bc4 takes",
                                         "read bandwidth of memory",
                                         "32 query tokens at depth 128"};
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++)
        if (!strstr(output, pieces[i])) fail_msg("no %s in %s", pieces[i], output);
    assert_int_equal(run(false, SMALL "--kv i8 --head-dim 64 -t 1 --csv --exact --cpu-time"), 0);
    static const char header[] = "part,head_dim,threads,kv,bits,unit,time,time_min,time_max,speed,bytes,bytes_per_second,"
                                 "read_bandwidth,reps,isa\ndecode-l2,64,1,i8,";
    assert_int_equal(strncmp(output, header, sizeof header - 1), 0);
}

static void what_it_cannot_measure_is_refused_with_a_sentence(void **state) {
    (void)state;
    assert_says(2, "bench --op --kv nonsense", "nonsense");
    assert_says(2, "bench --op --head-dim 64,x", "64,x");
    assert_says(2, "bench --op --head-dim 100 --kv bc4", "100");
    assert_says(2, "bench --op --memory 12", "--memory 12");
    assert_says(2, "bench --op --memory 512MB", "--memory 512MB");
    assert_says(2, "bench --op --memory 99999999G", "--memory 99999999G");
    assert_says(2, "bench --op --memory -1M", "--memory -1M");
    assert_says(2, "bench --op --group 0", "--group");
    assert_says(2, "bench --op --csv --json", "exclude");
    assert_says(2, "bench --op --cpu-time -t 2", "--threads 1");
    assert_says(2, "bench --op -m model.gguf", "-m");
    assert_says(2, "bench --op --depths 0", "--depth");
}

static void help_says_what_is_measured(void **state) {
    (void)state;
    assert_int_equal(run(false, "bench --op --help"), 0);
    assert_non_null(strstr(output, "token-head"));
    assert_non_null(strstr(output, "--memory"));
    assert_int_equal(run(false, "bench --help"), 0);
    assert_non_null(strstr(output, "bench --op"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_part_format_and_head_dim_has_positive_figures),
        cmocka_unit_test(pages_take_the_bytes_that_were_asked_for),
        cmocka_unit_test(tables_and_csv_name_units),
        cmocka_unit_test(what_it_cannot_measure_is_refused_with_a_sentence),
        cmocka_unit_test(help_says_what_is_measured),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
