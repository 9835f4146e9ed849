// SPDX-License-Identifier: MIT
/* test_sequence.c: sequences behave as if each had its own tokens, whatever they share; bytes follow the formula; the budget,
 * quantized_kv_start and windows do what kvant.h says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "kvant/kvant.h"

#define D 32
#define HEADS 2
#define ROW (D * HEADS)
#define MAX_TOKENS 700

static kvant_context *ctx;
static uint64_t seed = 4242;

static int random_below(int n) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (int)((seed >> 33) % (uint64_t)n);
}

static int setup_context(void **state) {
    (void)state;
    print_message("seed %llu\n", (unsigned long long)seed);
    return kvant_context_create(2, KVANT_ISA_BEST, &ctx, NULL) == KVANT_OK ? 0 : -1;
}

static int destroy_context(void **state) {
    (void)state;
    kvant_context_destroy(ctx);
    return 0;
}

static kvant_cache_config config_of(const char *kv, int n_layer) {
    kvant_cache_config c;
    kvant_cache_config_default(&c);
    assert_int_equal(kvant_format_parse_pair(kv, &c.k, &c.v, NULL), KVANT_OK);
    c.n_layer = n_layer;
    c.n_kv_head = HEADS;
    c.head_dim = D;
    return c;
}

static kvant_cache *cache_of(const kvant_cache_config *c) {
    kvant_cache *cache = NULL;
    kvant_error err = {0};
    if (kvant_cache_create(ctx, c, &cache, &err) != KVANT_OK) fail_msg("%s", err.message);
    return cache;
}

/* Element e of a token that is called `id`: whole numbers, exact in f16, and in affine8 too (steps of 1 from -100 to 155). */
static float element(int id, int head, int e) {
    if (e == 0) return -100;
    if (e == 1) return 155;
    return (float)((id * 7 + head * 13 + e * 5) % 250 - 98);
}

/* Appends tokens ids[0..n) to every layer. */
static kvant_status append_ids(kvant_sequence *s, int n_layer, const int *ids, int n) {
    static float rows[MAX_TOKENS * ROW];
    for (int t = 0; t < n; t++)
        for (int i = 0; i < ROW; i++)
            rows[t * ROW + i] = element(ids[t], i / D, i % D);
    for (int layer = 0; layer < n_layer; layer++) {
        kvant_status st = kvant_sequence_append(s, layer, rows, rows, n);
        if (st != KVANT_OK) return st;
    }
    return KVANT_OK;
}

static void append_range(kvant_sequence *s, int n_layer, int first, int n) {
    int ids[MAX_TOKENS];
    for (int i = 0; i < n; i++)
        ids[i] = first + i;
    assert_int_equal(append_ids(s, n_layer, ids, n), KVANT_OK);
}

static void expect_token(const kvant_sequence *s, int layer, int token, int id) {
    float k[D], v[D];
    for (int head = 0; head < HEADS; head++) {
        assert_int_equal(kvant_sequence_decode(s, layer, token, head, k, v), KVANT_OK);
        for (int e = 0; e < D; e++)
            if (k[e] != element(id, head, e) || v[e] != element(id, head, e))
                fail_msg("token %d, head %d, element %d: found %g and %g, expected %g", token, head, e, (double)k[e],
                         (double)v[e], (double)element(id, head, e));
    }
}

/* ---- sharing ---- */

#define SEQUENCES 6

typedef struct model {
    kvant_sequence *s;
    int ids[MAX_TOKENS], n;
} model;

static void check_model(const model *m, int n_layer) {
    assert_int_equal(kvant_sequence_length(m->s), m->n);
    for (int i = 0; i < 4 && m->n > 0; i++) {
        int t = i == 0 ? m->n - 1 : random_below(m->n);
        expect_token(m->s, random_below(n_layer), t, m->ids[t]);
    }
}

/* Random forks, appends, truncations and conversions, against lists that share nothing. */
static void run_random_operations(const char *kv, int start, bool after_step) {
    kvant_cache_config c = config_of(kv, 2);
    c.quantized_kv_start = start;
    c.quantize_after_step = after_step;
    kvant_cache *cache = cache_of(&c);
    static model m[SEQUENCES];
    int next_id = 0;
    memset(m, 0, sizeof m);
    assert_int_equal(kvant_sequence_create(cache, &m[0].s), KVANT_OK);
    for (int step = 0; step < 3000; step++) {
        int i = random_below(SEQUENCES), j = random_below(SEQUENCES), what = random_below(10);
        if (!m[i].s) {
            if (!m[j].s) continue;
            m[i] = m[j];
            assert_int_equal(kvant_sequence_fork(m[j].s, &m[i].s), KVANT_OK);
        } else if (what < 5) {
            int n = 1 + random_below(random_below(4) ? 5 : 100);
            if (m[i].n + n > MAX_TOKENS) continue;
            for (int t = 0; t < n; t++)
                m[i].ids[m[i].n + t] = next_id++;
            assert_int_equal(append_ids(m[i].s, 2, m[i].ids + m[i].n, n), KVANT_OK);
            m[i].n += n;
        } else if (what < 7) {
            int n = random_below(3) ? m[i].n - random_below(m[i].n < 9 ? m[i].n + 1 : 9) : random_below(m[i].n + 1);
            assert_int_equal(kvant_sequence_truncate(m[i].s, n), KVANT_OK);
            m[i].n = n;
        } else if (what < 9) {
            assert_int_equal(kvant_maybe_quantize_kv_cache(m[i].s, NULL), KVANT_OK);
        } else if (i > 0) {
            kvant_sequence_destroy(m[i].s);
            m[i].s = NULL;
        }
        for (int s = 0; s < SEQUENCES; s++)
            if (m[s].s) check_model(&m[s], 2);
    }
    for (int s = 0; s < SEQUENCES; s++) {
        for (int t = 0; m[s].s && t < m[s].n; t++)
            expect_token(m[s].s, 1, t, m[s].ids[t]);
        kvant_sequence_destroy(m[s].s);
    }
    assert_int_equal(kvant_cache_bytes(cache), 0);
    kvant_cache_destroy(cache);
}

static void shared_sequences_behave_as_if_nothing_were_shared(void **state) {
    (void)state;
    run_random_operations("f16", 0, false);
    run_random_operations("affine8:32", 0, false);
    run_random_operations("affine8:32", 100, false);
    run_random_operations("f16/affine8:32", 0, true);
}

static void a_fork_costs_nothing_until_it_differs(void **state) {
    (void)state;
    kvant_cache_config c = config_of("affine4:32", 3);
    kvant_cache *cache = cache_of(&c);
    kvant_sequence *a, *b;
    kvant_page_info info;
    assert_int_equal(kvant_sequence_create(cache, &a), KVANT_OK);
    append_range(a, 3, 0, 200);
    size_t bytes = kvant_cache_bytes(cache);
    assert_int_equal(kvant_sequence_fork(a, &b), KVANT_OK);
    assert_int_equal(kvant_cache_bytes(cache), bytes);
    assert_int_equal(kvant_sequence_page_info(a, 2, 3, &info), KVANT_OK);
    assert_int_equal(info.n_references, 2);
    assert_int_equal(info.n_tokens, 8);
    append_range(b, 3, 500, 1);
    assert_int_equal(kvant_cache_bytes(cache), bytes + 3 * info.bytes); /* the last page of each layer was copied */
    assert_int_equal(kvant_sequence_page_info(a, 2, 3, &info), KVANT_OK);
    assert_int_equal(info.n_references, 1);
    kvant_sequence_destroy(a);
    kvant_sequence_destroy(b);
    kvant_cache_destroy(cache);
}

/* ---- bytes ---- */

static void bytes_follow_the_formula(void **state) {
    (void)state;
    static const char *const kv[] = {"f32", "f16", "affine8:32", "affine5:32", "affine4:32", "affine2:32/affine3:32"};
    const int windows[] = {0, 100, 0}, lengths[] = {1, 64, 65, 300, 700};
    for (size_t f = 0; f < sizeof kv / sizeof kv[0]; f++)
        for (int max = 0; max <= 200; max += 200)
            for (int i = 0; i < 5; i++) {
                kvant_cache_config c = config_of(kv[f], 3);
                c.layer_window = windows;
                c.max_kv_size = max;
                kvant_cache *cache = cache_of(&c);
                kvant_sequence *s;
                assert_int_equal(kvant_sequence_create(cache, &s), KVANT_OK);
                for (int t = 0; t < lengths[i]; t++)
                    append_range(s, 3, t, 1);
                size_t formula = kvant_cache_bytes_for(&c, lengths[i]), real = 0;
                for (int layer = 0; layer < 3; layer++)
                    for (int p = 0; p < kvant_sequence_page_count(s, layer); p++) {
                        kvant_page_info info;
                        assert_int_equal(kvant_sequence_page_info(s, layer, p, &info), KVANT_OK);
                        real += info.bytes;
                    }
                assert_int_equal(real, kvant_cache_bytes(cache));
                assert_int_equal(real, formula);
                kvant_sequence_destroy(s);
                kvant_cache_destroy(cache);
            }
    /* What a page really takes: codes, scales and biases, and less than 3 % besides. */
    kvant_cache_config c = config_of("affine4:64", 1);
    c.head_dim = 64;
    c.n_kv_head = 3;
    double bits = 8.0 * (double)kvant_cache_bytes_for(&c, 6400) / (6400.0 * 2 * 3 * 64);
    assert_true(bits >= kvant_format_bits(&c.k, 64) && bits < 1.03 * kvant_format_bits(&c.k, 64));
}

static void a_page_is_one_allocation(void **state) {
    (void)state;
    kvant_cache_config c = config_of("affine4:32", 1);
    kvant_cache *cache = cache_of(&c);
    kvant_sequence *s;
    assert_int_equal(kvant_sequence_create(cache, &s), KVANT_OK);
    append_range(s, 1, 0, 1); /* the page, and the list of pages */
    uint64_t before = kvant_alloc_count();
    append_range(s, 1, 1, 64 * 9);
    assert_int_equal(kvant_alloc_count() - before, 9);
    kvant_sequence_destroy(s);
    kvant_cache_destroy(cache);
}

static void over_the_budget_nothing_changes(void **state) {
    (void)state;
    kvant_cache_config c = config_of("f16", 2);
    c.max_bytes = kvant_cache_bytes_for(&c, 200);
    kvant_cache *cache = cache_of(&c);
    kvant_sequence *a, *b;
    static float rows[200 * ROW];
    assert_int_equal(kvant_sequence_create(cache, &a), KVANT_OK);
    append_range(a, 2, 0, 150);
    size_t bytes = kvant_cache_bytes(cache);
    assert_int_equal(kvant_sequence_append(a, 1, rows, rows, 200), KVANT_EFULL);
    assert_int_equal(kvant_cache_bytes(cache), bytes);
    assert_int_equal(kvant_sequence_length(a), 150);
    assert_int_equal(kvant_sequence_fork(a, &b), KVANT_OK);
    append_range(a, 1, 150, 1); /* one copy of a last page fits, of the two layers' four */
    assert_int_equal(kvant_sequence_append(b, 0, rows, rows, 200), KVANT_EFULL);
    append_range(b, 1, 900, 1);
    expect_token(a, 0, 150, 150);
    expect_token(b, 0, 150, 900);
    for (int t = 0; t < 150; t++)
        expect_token(b, 1, t, t);
    kvant_sequence_destroy(a);
    kvant_sequence_destroy(b);
    kvant_cache_destroy(cache);
}

/* ---- when quantization begins ---- */

/* The number of f16 pages and of pages in the format of the cache. */
static void count_pages(const kvant_sequence *s, int *plain, int *packed) {
    *plain = *packed = 0;
    for (int p = 0; p < kvant_sequence_page_count(s, 1); p++) {
        kvant_page_info info;
        assert_int_equal(kvant_sequence_page_info(s, 1, p, &info), KVANT_OK);
        *(info.k.codec == KVANT_CODEC_F16 ? plain : packed) += 1;
        assert_int_equal(info.k.codec, info.v.codec);
    }
}

static void expect_pages(const kvant_sequence *s, int plain, int packed) {
    int found_plain, found_packed;
    count_pages(s, &found_plain, &found_packed);
    assert_int_equal(found_plain, plain);
    assert_int_equal(found_packed, packed);
}

static void step(kvant_sequence *s, int first, int n, bool expect_conversion) {
    bool converted;
    append_range(s, 2, first, n);
    assert_int_equal(kvant_maybe_quantize_kv_cache(s, &converted), KVANT_OK);
    assert_int_equal(converted, expect_conversion);
}

static void quantization_begins_where_it_is_told_to(void **state) {
    (void)state;
    for (int order = 0; order < 2; order++) {
        kvant_cache_config c = config_of("affine8:32", 2);
        c.quantize_after_step = order == 1;
        kvant_sequence *s;
        /* From the first token: encoded on append, or after the first chunk. */
        kvant_cache *cache = cache_of(&c);
        assert_int_equal(kvant_sequence_create(cache, &s), KVANT_OK);
        append_range(s, 2, 0, 128);
        expect_pages(s, order ? 2 : 0, order ? 0 : 2);
        step(s, 128, 1, order == 1);
        expect_pages(s, 0, 3);
        append_range(s, 2, 129, 100); /* later chunks are encoded on append in both orders */
        expect_pages(s, 0, 4);
        kvant_sequence_destroy(s);
        kvant_cache_destroy(cache);
        /* In the middle of the prefill: 200 lies in the second chunk of 128. */
        c.quantized_kv_start = 200;
        cache = cache_of(&c);
        assert_int_equal(kvant_sequence_create(cache, &s), KVANT_OK);
        step(s, 0, 128, false);
        expect_pages(s, 2, 0);
        step(s, 128, 128, true);
        expect_pages(s, 0, 4);
        for (int t = 0; t < 256; t++)
            expect_token(s, 1, t, t);
        /* There is no way back, but an empty sequence begins anew. */
        assert_int_equal(kvant_sequence_truncate(s, 10), KVANT_OK);
        step(s, 10, 1, false);
        expect_pages(s, 0, 1);
        assert_int_equal(kvant_sequence_truncate(s, 0), KVANT_OK);
        step(s, 0, 10, false);
        expect_pages(s, 1, 0);
        kvant_sequence_destroy(s);
        /* While tokens are generated one by one. */
        assert_int_equal(kvant_sequence_create(cache, &s), KVANT_OK);
        step(s, 0, 197, false);
        for (int t = 197; t < 203; t++)
            step(s, t, 1, t == 199);
        expect_pages(s, 0, 4);
        kvant_sequence_destroy(s);
        kvant_cache_destroy(cache);
        /* Never: not reached, and f16. */
        c.quantized_kv_start = 5000;
        cache = cache_of(&c);
        assert_int_equal(kvant_sequence_create(cache, &s), KVANT_OK);
        step(s, 0, 500, false);
        expect_pages(s, 8, 0);
        kvant_sequence_destroy(s);
        kvant_cache_destroy(cache);
        c = config_of("f16", 2);
        c.quantize_after_step = order == 1;
        cache = cache_of(&c);
        assert_int_equal(kvant_sequence_create(cache, &s), KVANT_OK);
        step(s, 0, 500, false);
        expect_pages(s, 8, 0);
        kvant_sequence_destroy(s);
        kvant_cache_destroy(cache);
    }
}

/* ---- windows ---- */

static void a_window_drops_whole_pages_and_refuses_what_would_need_them(void **state) {
    (void)state;
    const int window = 100;
    kvant_cache_config c = config_of("affine8:32", 1);
    c.layer_window = &window;
    kvant_cache *cache = cache_of(&c);
    kvant_sequence *s, *fork;
    float k[D], v[D];
    assert_int_equal(kvant_sequence_create(cache, &s), KVANT_OK);
    for (int t = 0; t < 400; t++)
        append_range(s, 1, t, 1);
    /* Position 399 sees 300..399: pages 0..3 (tokens up to 255) are gone, page 4 is not. */
    assert_int_equal(kvant_sequence_page_count(s, 0), 3);
    assert_int_equal(kvant_sequence_decode(s, 0, 255, 0, k, v), KVANT_EINVAL);
    expect_token(s, 0, 256, 256);
    size_t bytes = kvant_cache_bytes(cache);
    assert_int_equal(kvant_sequence_truncate(s, 354), KVANT_EUNSUPPORTED); /* position 354 would see 255 */
    assert_int_equal(kvant_sequence_truncate(s, 401), KVANT_EINVAL);
    assert_int_equal(kvant_cache_bytes(cache), bytes);
    assert_int_equal(kvant_sequence_length(s), 400);
    assert_int_equal(kvant_sequence_fork(s, &fork), KVANT_OK);
    assert_int_equal(kvant_sequence_truncate(s, 355), KVANT_OK);
    append_range(s, 1, 355, 10);
    expect_token(s, 0, 364, 364);
    expect_token(fork, 0, 399, 399);
    assert_int_equal(kvant_sequence_truncate(s, 0), KVANT_OK);
    append_range(s, 1, 0, 10);
    expect_token(s, 0, 3, 3);
    kvant_sequence_destroy(s);
    kvant_sequence_destroy(fork);
    kvant_cache_destroy(cache);
}

static void a_maximal_size_keeps_the_first_tokens(void **state) {
    (void)state;
    kvant_cache_config c = config_of("affine8:32", 1);
    c.max_kv_size = 104;
    kvant_cache *cache = cache_of(&c);
    kvant_sequence *s;
    float k[D], v[D];
    assert_int_equal(kvant_sequence_create(cache, &s), KVANT_OK);
    for (int t = 0; t < 400; t++)
        append_range(s, 1, t, 1);
    assert_int_equal(kvant_sequence_page_count(s, 0), 4);
    for (int t = 0; t < 4; t++)
        expect_token(s, 0, t, t);
    assert_int_equal(kvant_sequence_decode(s, 0, 100, 0, k, v), KVANT_EINVAL);
    expect_token(s, 0, 300, 300);
    kvant_sequence_destroy(s);
    assert_int_equal(kvant_cache_bytes(cache), 0);
    kvant_cache_destroy(cache);
}

static void impossible_settings_are_refused_by_name(void **state) {
    (void)state;
    static const struct {
        size_t offset;
        int value;
        const char *field;
    } cases[] = {{offsetof(kvant_cache_config, n_layer), 0, "n_layer"},
                 {offsetof(kvant_cache_config, n_kv_head), -1, "n_kv_head"},
                 {offsetof(kvant_cache_config, head_dim), 1 << 20, "head_dim"},
                 {offsetof(kvant_cache_config, head_dim), 48, "affine4:32"},
                 {offsetof(kvant_cache_config, quantized_kv_start), -5, "quantized_kv_start"},
                 {offsetof(kvant_cache_config, max_kv_size), 4, "max_kv_size"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        kvant_cache_config c = config_of("affine4:32", 1);
        kvant_cache *cache = NULL;
        kvant_error err = {0};
        memcpy((char *)&c + cases[i].offset, &cases[i].value, sizeof(int));
        assert_int_not_equal(kvant_cache_create(ctx, &c, &cache, &err), KVANT_OK);
        assert_null(cache);
        if (!strstr(err.message, cases[i].field)) fail_msg("%s", err.message);
        assert_int_equal(kvant_cache_bytes_for(&c, 100), 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shared_sequences_behave_as_if_nothing_were_shared),
        cmocka_unit_test(a_fork_costs_nothing_until_it_differs),
        cmocka_unit_test(bytes_follow_the_formula),
        cmocka_unit_test(a_page_is_one_allocation),
        cmocka_unit_test(over_the_budget_nothing_changes),
        cmocka_unit_test(quantization_begins_where_it_is_told_to),
        cmocka_unit_test(a_window_drops_whole_pages_and_refuses_what_would_need_them),
        cmocka_unit_test(a_maximal_size_keeps_the_first_tokens),
        cmocka_unit_test(impossible_settings_are_refused_by_name),
    };
    return cmocka_run_group_tests_name("sequence", tests, setup_context, destroy_context);
}
