// SPDX-License-Identifier: MIT
/* test_store.c: what was put into a folder comes back bit for bit, in every kind of format, with windows, next to other prefixes,
 * and within the folder's limit. */
#define _POSIX_C_SOURCE 200809L
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <time.h>

#include "store_test.h"

#define FOLDER "test_store_folder"

static int clean(void **state) {
    (void)state;
    return system("chmod -Rf u+w " FOLDER "; rm -rf " FOLDER);
}

static int32_t ids[TOKENS_MAX];

static void every_format_comes_back_bit_for_bit(void **state) {
    static const char *const formats[] = {"f16",     "f32",     "affine4:64",          "affine8:32/affine3:64", "i8",      "bc5/bc4",
                                          "bz3/bc3:16", "bz2/bc2", "lm4/lm3", "q8_0/q4_0", "bc4.bare/bc4",          "i8/i8 bc5/bc4 f16 affine4:64 bz4/bc2"};
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        rig r;
        clean(state);
        rig_create(&r, formats[i], 5, 2, 64);
        rig_open(&r, FOLDER, 0);
        make_ids(ids, 300, 0, 0);
        put(&r, ids, 300);
        kvant_prefix_match match = kvant_store_match(r.store, ids, 300);
        assert_int_equal(match.n_known, 256);
        assert_int_equal(match.n_usable, 256);
        expect_take(&r, ids, 300, 256);
        expect_take(&r, ids, 256, 256);
        expect_take(&r, ids, 255, 192);
        expect_take(&r, ids, 63, 0);
        rig_close(&r);
    }
}

static void other_tokens_settings_and_models_find_nothing(void **state) {
    (void)state;
    rig r, other;
    rig_create(&r, "bc5/bc4", 2, 2, 64);
    rig_open(&r, FOLDER, 0);
    make_ids(ids, 200, 0, 0);
    put(&r, ids, 200);
    ids[70]++;
    assert_int_equal(kvant_store_match(r.store, ids, 200).n_known, 64);
    expect_take(&r, ids, 200, 64);
    ids[0]++;
    assert_int_equal(kvant_store_match(r.store, ids, 200).n_known, 0);
    expect_take(&r, ids, 200, 0);
    make_ids(ids, 200, 0, 0);
    for (int what = 0; what < 6; what++) {
        rig_create(&other, what == 0 ? "bc4/bc4" : "bc5/bc4", what == 1 ? 3 : 2, what == 2 ? 1 : 2, what == 3 ? 128 : 64);
        other.windows[1] = what == 4 ? 100 : 0;
        if (what == 5) other.config.quantized_kv_start = 10;
        rig_open(&other, FOLDER, 0);
        assert_int_equal(kvant_store_match(other.store, ids, 200).n_known, 0);
        rig_close(&other);
    }
    kvant_store_config config = {.folder = FOLDER, .fingerprint = {1, 2, 4}};
    kvant_store *store;
    assert_int_equal(kvant_store_open(r.cache, &config, &store, NULL), KVANT_OK);
    assert_int_equal(kvant_store_match(store, ids, 200).n_known, 0);
    kvant_store_close(store);
    rig_close(&r);
}

static void branches_share_their_beginning(void **state) {
    (void)state;
    rig r;
    rig_create(&r, "bc5/bc4", 2, 2, 64);
    rig_open(&r, FOLDER, 0);
    for (int which = 0; which < 3; which++) {
        make_ids(ids, 400, which, 200);
        put(&r, ids, 400);
    }
    kvant_store_counts counts;
    assert_int_equal(kvant_store_verify(FOLDER, false, NULL, NULL, &counts, NULL), KVANT_OK);
    assert_int_equal(counts.n_files, 3 + 3 * 3); /* 192 tokens together, then 192 of each */
    assert_int_equal(counts.n_damaged, 0);
    for (int which = 0; which < 3; which++) {
        make_ids(ids, 400, which, 200);
        expect_take(&r, ids, 400, 384);
    }
    rig_close(&r);
}

static void a_base_is_shared_and_prolonged(void **state) {
    (void)state;
    rig r;
    rig_create(&r, "bc5/bc4", 2, 2, 64);
    rig_open(&r, FOLDER, 0);
    make_ids(ids, 400, 0, 0);
    put(&r, ids, 400);
    for (int n_base = 0; n_base <= 400; n_base += 50) {
        kvant_sequence *base = make_sequence(&r, ids, n_base + 7), *s = NULL;
        kvant_prefix_match match;
        kvant_error err = {0};
        expect_ok(kvant_store_take(r.store, base, n_base, ids, 400, &s, &match, &err), &err);
        assert_int_equal(match.n_usable, n_base > 384 ? n_base : 384);
        assert_int_equal(kvant_sequence_length(s), match.n_usable);
        for (int i = 0; i < n_base / 64; i++)
            assert_ptr_equal(s->layers[0].pages[i], base->layers[0].pages[i]);
        kvant_sequence_destroy(base);
        append_tokens(&r, s, ids, 400);
        assert_true(is_right(&r, s, ids));
        kvant_sequence_destroy(s);
    }
    rig_close(&r);
}

static void windows_take_what_they_can(void **state) {
    (void)state;
    for (int max = 0; max < 2; max++) {
        rig r;
        clean(state);
        rig_create(&r, "bc5/bc4", 3, 2, 64);
        r.windows[0] = 100;
        r.windows[1] = 200;
        if (max) r.config.max_kv_size = 150;
        rig_open(&r, FOLDER, 0);
        make_ids(ids, 1200, 0, 0);
        put(&r, ids, 640); /* early pages of the layers with windows were dropped before */
        assert_int_equal(kvant_store_match(r.store, ids, 1200).n_usable, 640);
        expect_take(&r, ids, 1200, 640);
        expect_take(&r, ids, 600, 0); /* known, but what the next query sees is gone */
        assert_int_equal(kvant_store_match(r.store, ids, 600).n_known, 576);
        put(&r, ids, 320);
        put(&r, ids, 576); /* what earlier blocks lacked is added to them */
        expect_take(&r, ids, 600, 576);
        expect_take(&r, ids, 340, 320);
        expect_take(&r, ids, 1200, 640);
        put(&r, ids, 1200);
        expect_take(&r, ids, 1200, 1152);
        expect_take(&r, ids, 600, 576);
        rig_close(&r);
    }
}

static void quantization_that_begins_later_is_kept_from_there(void **state) {
    (void)state;
    rig r;
    rig_create(&r, "affine4:64", 2, 2, 64);
    r.config.quantized_kv_start = 200;
    rig_open(&r, FOLDER, 0);
    make_ids(ids, 500, 0, 0);
    put(&r, ids, 150); /* still f16 */
    assert_int_equal(kvant_store_match(r.store, ids, 500).n_known, 0);
    put(&r, ids, 400);
    assert_int_equal(kvant_store_match(r.store, ids, 500).n_usable, 384);
    assert_int_equal(kvant_store_match(r.store, ids, 200).n_usable, 0);
    assert_int_equal(kvant_store_match(r.store, ids, 256).n_usable, 256);
    kvant_sequence *s = NULL;
    kvant_prefix_match match;
    assert_int_equal(kvant_store_take(r.store, NULL, 0, ids, 500, &s, &match, NULL), KVANT_OK);
    assert_int_equal(match.n_usable, 384);
    append_tokens(&r, s, ids, 500);
    assert_true(is_right(&r, s, ids));
    kvant_sequence_destroy(s);
    rig_close(&r);
}

static void the_limit_is_kept_and_the_latest_stay(void **state) {
    (void)state;
    rig r;
    rig_create(&r, "bc5/bc4", 2, 2, 64);
    rig_open(&r, FOLDER, 400000);
    kvant_store_counts counts;
    for (int which = 0; which < 8; which++) {
        make_ids(ids, 320, which, 0);
        put(&r, ids, 320);
        assert_int_equal(kvant_store_verify(FOLDER, false, NULL, NULL, &counts, NULL), KVANT_OK);
        assert_true(counts.bytes <= 400000);
        assert_int_equal(counts.n_damaged, 0);
        expect_take(&r, ids, 320, 320);
        make_ids(ids, 320, 0, 0);
        if (which < 7) expect_take(&r, ids, 320, 320); /* in use: it stays, others go */
    }
    make_ids(ids, 320, 1, 0);
    assert_true(kvant_store_match(r.store, ids, 320).n_usable < 320);
    /* the last block goes before the first */
    assert_int_equal(kvant_store_prune(FOLDER, counts.bytes / (uint64_t)counts.n_files * 3 + 6000, 0, &counts, NULL), KVANT_OK);
    assert_int_equal(counts.n_files - counts.n_removed, 3);
    make_ids(ids, 320, 7, 0);
    expect_take(&r, ids, 320, 192);
    rig_close(&r);
}

/* Some file systems know whole seconds only. */
static void ends_go_first_where_times_are_equal(void **state) {
    (void)state;
    rig r;
    kvant_store_counts counts;
    rig_create(&r, "bc5/bc4", 2, 2, 64);
    rig_open(&r, FOLDER, 0);
    make_ids(ids, 640, 0, 0);
    put(&r, ids, 640);
    assert_int_equal(system("touch -d '1 hour ago' " FOLDER "/*"), 0);
    for (int left = 9; left > 0; left -= 2) {
        assert_int_equal(kvant_store_verify(FOLDER, false, NULL, NULL, &counts, NULL), KVANT_OK);
        uint64_t block = (counts.bytes + (uint64_t)counts.n_files - 1) / (uint64_t)counts.n_files;
        assert_int_equal(kvant_store_prune(FOLDER, block * (uint64_t)left + 6000, 0, &counts, NULL), KVANT_OK);
        assert_int_equal(counts.n_files - counts.n_removed, left);
        assert_int_equal(kvant_store_match(r.store, ids, 640).n_usable, 64 * left);
    }
    rig_close(&r);
}

static void a_cache_that_is_full_says_so(void **state) {
    (void)state;
    rig r, small;
    kvant_error err = {0};
    kvant_sequence *s = NULL;
    kvant_prefix_match match;
    rig_create(&r, "bc5/bc4", 2, 2, 64);
    rig_open(&r, FOLDER, 0);
    make_ids(ids, 640, 0, 0);
    put(&r, ids, 640);
    rig_create(&small, "bc5/bc4", 2, 2, 64);
    small.config.max_bytes = 100000;
    rig_open(&small, FOLDER, 0);
    assert_int_equal(kvant_store_take(small.store, NULL, 0, ids, 640, &s, &match, &err), KVANT_EFULL);
    assert_non_null(strstr(err.message, "byte budget"));
    assert_null(s);
    rig_close(&small);
    rig_close(&r);
}

static double seconds(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + 1e-9 * (double)ts.tv_nsec;
}

static void three_thousand_tokens_take_milliseconds(void **state) {
    (void)state;
    rig r;
    kvant_error err = {0};
    kvant_sequence *s = NULL;
    kvant_prefix_match match;
    rig_create(&r, "bc5/bc4", 30, 3, 64);
    rig_open(&r, FOLDER, 0);
    make_ids(ids, 3000, 0, 0);
    kvant_sequence *from = make_sequence(&r, ids, 3000);
    double t0 = seconds();
    expect_ok(kvant_store_put(r.store, from, ids, &err), &err);
    double t1 = seconds();
    expect_ok(kvant_store_put(r.store, from, ids, &err), &err);
    double t2 = seconds();
    match = kvant_store_match(r.store, ids, 3000);
    double t3 = seconds();
    clock_t c3 = clock();
    expect_ok(kvant_store_take(r.store, NULL, 0, ids, 3000, &s, &match, &err), &err);
    double t4 = seconds();
    clock_t c4 = clock();
    assert_int_equal(match.n_usable, 2944);
    kvant_store_counts counts;
    assert_int_equal(kvant_store_verify(FOLDER, false, NULL, NULL, &counts, NULL), KVANT_OK);
    print_message("2944 tokens, 30 layers, bc5/bc4, %.1f MB: written %.0f ms, written again %.1f ms, found %.1f ms, read %.1f ms (%.1f ms of processor time)\n",
                  (double)counts.bytes / 1e6, 1e3 * (t1 - t0), 1e3 * (t2 - t1), 1e3 * (t3 - t2), 1e3 * (t4 - t3),
                  1e3 * (double)(c4 - c3) / CLOCKS_PER_SEC);
    for (int layer = 0; layer < 30; layer++)
        for (int i = 0; i < 46; i++)
            assert_memory_equal((uint8_t *)s->layers[layer].pages[i] + KVANT_PAGE_HEADER,
                                (uint8_t *)from->layers[layer].pages[i] + KVANT_PAGE_HEADER,
                                s->layers[layer].pages[i]->layout->bytes - KVANT_PAGE_HEADER);
    kvant_sequence_destroy(s);
    kvant_sequence_destroy(from);
    rig_close(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_format_comes_back_bit_for_bit, clean, clean),
        cmocka_unit_test_setup_teardown(other_tokens_settings_and_models_find_nothing, clean, clean),
        cmocka_unit_test_setup_teardown(branches_share_their_beginning, clean, clean),
        cmocka_unit_test_setup_teardown(a_base_is_shared_and_prolonged, clean, clean),
        cmocka_unit_test_setup_teardown(windows_take_what_they_can, clean, clean),
        cmocka_unit_test_setup_teardown(quantization_that_begins_later_is_kept_from_there, clean, clean),
        cmocka_unit_test_setup_teardown(the_limit_is_kept_and_the_latest_stay, clean, clean),
        cmocka_unit_test_setup_teardown(ends_go_first_where_times_are_equal, clean, clean),
        cmocka_unit_test_setup_teardown(a_cache_that_is_full_says_so, clean, clean),
        cmocka_unit_test_setup_teardown(three_thousand_tokens_take_milliseconds, clean, clean),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
