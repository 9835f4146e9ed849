// SPDX-License-Identifier: MIT
/* test_tokenizer.c: small vocabularies made here: ordinary ones, broken ones, and texts of a mebibyte. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "text/tokenizer.h"

typedef struct vocab {
    const char *tokens[320];
    float scores[320];
    int types[320];
    const char *merges[16];
    char bytes[256][8];
} vocab;

static const char *token_at(void *user, int id, size_t *size) {
    const char *s = ((vocab *)user)->tokens[id];
    *size = strlen(s);
    return s;
}
static const char *merge_at(void *user, int i, size_t *size) {
    const char *s = ((vocab *)user)->merges[i];
    *size = strlen(s);
    return s;
}
static float score_at(void *user, int id) { return ((vocab *)user)->scores[id]; }
static int type_at(void *user, int id) { return ((vocab *)user)->types[id]; }

static kvant_vocab_source source(vocab *v, const char *model, const char *pre, int n_token, int n_merge) {
    return (kvant_vocab_source){.name = "test",
                                .model = model,
                                .pre = pre,
                                .n_token = n_token,
                                .user = v,
                                .token = token_at,
                                .score = score_at,
                                .type = type_at,
                                .n_merge = n_merge,
                                .merge = merge_at,
                                .bos_id = -1,
                                .eos_id = -1,
                                .eot_id = -1,
                                .unk_id = -1,
                                .add_bos = -1,
                                .add_eos = -1,
                                .add_space_prefix = -1};
}

static void add(vocab *v, int id, const char *text, int type, float score) {
    v->tokens[id] = text;
    v->types[id] = type;
    v->scores[id] = score;
}

/* "llama": <unk> <s> </s>, 256 byte tokens, then a few pieces. Returns the number of tokens. */
static int fill_spm(vocab *v) {
    memset(v, 0, sizeof *v);
    add(v, 0, "<unk>", KVANT_TOKEN_UNKNOWN, 0);
    add(v, 1, "<s>", KVANT_TOKEN_CONTROL, 0);
    add(v, 2, "</s>", KVANT_TOKEN_CONTROL, 0);
    for (int b = 0; b < 256; b++) {
        const char *hex = "0123456789ABCDEF";
        memcpy(v->bytes[b], "<0x00>", 7);
        v->bytes[b][3] = hex[b >> 4];
        v->bytes[b][4] = hex[b & 15];
        add(v, 3 + b, v->bytes[b], KVANT_TOKEN_BYTE, 0);
    }
    static const char *const pieces[] = {"\xE2\x96\x81", "a", "b", "ab", "\xE2\x96\x81" "ab", "abab", "<mark>", "h\xC3\xA9"};
    for (int i = 0; i < 8; i++) add(v, 259 + i, pieces[i], i == 6 ? KVANT_TOKEN_USER_DEFINED : KVANT_TOKEN_NORMAL, (float)-i);
    return 267;
}

/* "gpt2" with 8 tokens: no byte but a, b, space. */
static int fill_bpe(vocab *v) {
    memset(v, 0, sizeof *v);
    static const char *const texts[] = {"a", "b", "\xC4\xA0", "ab", "\xC4\xA0" "ab", "abab", "<|im_end|>", "<tag>"};
    for (int i = 0; i < 8; i++)
        add(v, i, texts[i], i == 6 ? KVANT_TOKEN_CONTROL : i == 7 ? KVANT_TOKEN_USER_DEFINED : KVANT_TOKEN_NORMAL, 0);
    v->merges[0] = "a b";
    v->merges[1] = "\xC4\xA0 ab";
    v->merges[2] = "ab ab";
    return 8;
}

static kvant_tokenizer *make(const kvant_vocab_source *s) {
    kvant_tokenizer *t;
    kvant_error err = {0};
    if (kvant_tokenizer_create(s, &t, &err) != KVANT_OK) fail_msg("%s", err.message);
    return t;
}

static void refuses(const kvant_vocab_source *s, kvant_status status, const char *words) {
    kvant_tokenizer *t = NULL;
    kvant_error err = {0};
    assert_int_equal(kvant_tokenizer_create(s, &t, &err), status);
    assert_null(t);
    if (!strstr(err.message, words)) fail_msg("\"%s\" does not say \"%s\"", err.message, words);
}

static void check_ids(const kvant_tokenizer *t, const char *text, size_t size, bool add_special, bool parse_special, int n,
                      const int32_t *expected) {
    int32_t *ids;
    int found;
    kvant_error err = {0};
    kvant_tokenize_options o = {add_special, parse_special};
    if (kvant_tokenizer_encode(t, text, size, o, &ids, &found, &err) != KVANT_OK) fail_msg("%s", err.message);
    assert_int_equal(found, n);
    for (int i = 0; i < n; i++) assert_int_equal(ids[i], expected[i]);
    kvant_free(ids);
}

#define IDS(...) (int)(sizeof((int32_t[]){__VA_ARGS__}) / sizeof(int32_t)), (int32_t[]){__VA_ARGS__}

static void sentencepiece_joins_by_score_and_spells_the_rest_in_bytes(void **state) {
    (void)state;
    vocab v;
    kvant_vocab_source s = source(&v, "llama", NULL, fill_spm(&v), 0);
    kvant_tokenizer *t = make(&s);
    check_ids(t, "ab", 2, false, false, IDS(263));          /* the added space joins */
    check_ids(t, "ab", 2, true, false, IDS(1, 263));        /* BOS is this kind's default */
    check_ids(t, "abab", 4, false, false, IDS(263, 262));   /* _ab before abab: its score is higher */
    check_ids(t, "a\xFF\0b", 4, false, false, IDS(259, 260, 3 + 0xFF, 3, 3 + 0x62)); /* FF announces four bytes */
    check_ids(t, "", 0, true, true, IDS(1));
    check_ids(t, "</s>ab", 6, false, true, IDS(2, 263));    /* after a special token the space is added again */
    check_ids(t, "a<mark>b", 8, false, false, IDS(259, 260, 265, 259, 261)); /* user-defined tokens are always found */
    assert_true(kvant_tokenizer_is_end(t, 2));
    assert_false(kvant_tokenizer_is_end(t, 1));
    assert_false(kvant_tokenizer_is_end(t, -1));
    assert_false(kvant_tokenizer_is_end(t, 1 << 30));
    assert_int_equal(kvant_tokenizer_find(t, "ab", 2), 262);
    assert_int_equal(kvant_tokenizer_find(t, "zz", 2), -1);
    kvant_tokenizer_destroy(t);
    s.add_space_prefix = 0;
    s.add_bos = 0;
    t = make(&s);
    check_ids(t, "ab", 2, true, false, IDS(262));
    kvant_tokenizer_destroy(t);
}

static void byte_pairs_merge_by_rank(void **state) {
    (void)state;
    vocab v;
    kvant_vocab_source s = source(&v, "gpt2", "gpt-2", fill_bpe(&v), 3);
    kvant_tokenizer *t = make(&s);
    check_ids(t, "abab ab", 7, true, false, IDS(5, 4));
    check_ids(t, "a<|im_end|>", 11, false, true, IDS(0, 6));
    check_ids(t, "b<tag> a", 8, false, false, IDS(1, 7, 2, 0));
    check_ids(t, "azb", 3, false, false, IDS(0, 1)); /* there is no token for z */
    assert_true(kvant_tokenizer_is_end(t, 6));
    kvant_tokenizer_destroy(t);
    s.bos_id = 7;
    s.pre = "llama-bpe"; /* begins with BOS, and takes words that are tokens whole */
    t = make(&s);
    check_ids(t, "abab", 4, true, false, IDS(7, 5));
    kvant_tokenizer_destroy(t);
}

static void phi_3_swallows_white_space_after_special_tokens(void **state) {
    (void)state;
    vocab v;
    kvant_vocab_source s = source(&v, "llama", NULL, fill_spm(&v), 0);
    s.model_name = "Phi3 mini";
    kvant_tokenizer *t = make(&s);
    check_ids(t, "a<mark> \n b", 11, false, true, IDS(259, 260, 265, 259, 261));
    check_ids(t, "<s> b", 5, false, true, IDS(1, 259, 259, 261)); /* <s> does not */
    kvant_tokenizer_destroy(t);
}

static void unknown_kinds_are_refused_by_name(void **state) {
    (void)state;
    vocab v;
    kvant_vocab_source s = source(&v, "t5", NULL, fill_spm(&v), 0);
    refuses(&s, KVANT_EUNSUPPORTED, "'t5'");
    s.model = "bert";
    refuses(&s, KVANT_EUNSUPPORTED, "'bert'");
    s.model = "rwkv";
    refuses(&s, KVANT_EUNSUPPORTED, "'rwkv'");
    s.model = NULL;
    refuses(&s, KVANT_EFORMAT, "tokenizer.ggml.model");
    s.model = "gpt2";
    s.pre = "qwen-two";
    refuses(&s, KVANT_EUNSUPPORTED, "'qwen-two'");
    refuses(&s, KVANT_EUNSUPPORTED, "'qwen2'");
}

static void broken_vocabularies_are_refused(void **state) {
    (void)state;
    vocab v;
    kvant_vocab_source s = source(&v, "gpt2", "gpt-2", fill_bpe(&v), 3);
    v.merges[1] = "nospace";
    refuses(&s, KVANT_EFORMAT, "merge 1 of 3");
    v.merges[1] = "trailing ";
    refuses(&s, KVANT_EFORMAT, "merge 1 of 3");
    v.merges[1] = "";
    refuses(&s, KVANT_EFORMAT, "merge 1 of 3");
    fill_bpe(&v);
    v.tokens[5] = "ab";
    refuses(&s, KVANT_EFORMAT, "tokens 3 and 5");
    fill_bpe(&v);
    s.bos_id = 8;
    refuses(&s, KVANT_EFORMAT, "BOS token is 8");
    s.bos_id = -1;
    s.eot_id = 1 << 30;
    refuses(&s, KVANT_EFORMAT, "EOT");
    s.eot_id = -1;
    s.add_bos = 1;
    refuses(&s, KVANT_EFORMAT, "BOS");
    s.add_bos = -1;
    s.n_token = 0;
    refuses(&s, KVANT_EFORMAT, "0 tokens");
}

static void odd_vocabularies_work_as_far_as_they_go(void **state) {
    (void)state;
    vocab v;
    kvant_vocab_source s = source(&v, "gpt2", "gpt-2", fill_bpe(&v), 6);
    v.tokens[4] = v.tokens[5] = "";      /* empty tokens match nothing and say nothing */
    v.merges[3] = "ab x";                /* names no token */
    v.merges[4] = "a b";                 /* again: the first counts */
    v.merges[5] = "abab abab";           /* makes none */
    kvant_tokenizer *t = make(&s);
    check_ids(t, "abab", 4, false, false, IDS(0, 1, 0, 1)); /* merged into what is no token, so spelled in bytes */
    kvant_buffer out;
    kvant_buffer_init(&out, 100);
    assert_int_equal(kvant_tokenizer_decode(t, 4, true, &out), KVANT_OK);
    assert_int_equal(out.size, 0);
    assert_int_equal(kvant_tokenizer_decode(t, 8, true, &out), KVANT_EINVAL);
    assert_int_equal(kvant_tokenizer_decode(t, -1, true, &out), KVANT_EINVAL);
    kvant_buffer_free(&out);
    kvant_tokenizer_destroy(t);
    s = source(&v, "llama", NULL, fill_spm(&v), 0);
    for (int i = 0; i < 267; i++) v.scores[i] = i % 2 ? NAN : INFINITY;
    for (int i = 0; i < 267; i++) v.types[i] = i * 7919 - 1000;
    t = make(&s);
    check_ids(t, "ab", 2, false, false, IDS(263));
    kvant_tokenizer_destroy(t);
}

#define BIG ((size_t)1 << 20)

static void a_mebibyte_without_spaces_takes_moments(void **state) {
    (void)state;
    char *text = malloc(BIG);
    vocab v;
    for (int kind = 0; kind < 3; kind++) {
        for (size_t i = 0; i < BIG; i++) text[i] = kind == 0 ? "ab"[i % 2] : kind == 1 ? 'a' : (char)(i * 7919 >> 3);
        for (int spm = 0; spm < 2; spm++) {
            kvant_vocab_source s = source(&v, spm ? "llama" : "gpt2", "gpt-2", spm ? fill_spm(&v) : fill_bpe(&v), spm ? 0 : 3);
            kvant_tokenizer *t = make(&s);
            int32_t *ids;
            int n;
            assert_int_equal(kvant_tokenizer_encode(t, text, BIG, (kvant_tokenize_options){true, true}, &ids, &n, NULL),
                             KVANT_OK);
            if (kind == 0) assert_in_range(n, BIG / 4 - 2, BIG / 2 + 2);
            kvant_free(ids);
            kvant_tokenizer_destroy(t);
        }
    }
    free(text);
}

static void streams_hold_back_half_characters(void **state) {
    (void)state;
    vocab v;
    kvant_vocab_source s = source(&v, "llama", NULL, fill_spm(&v), 0);
    kvant_tokenizer *t = make(&s);
    kvant_detokenizer *d;
    const char *text;
    size_t size;
    assert_int_equal(kvant_detokenizer_create(t, false, &d), KVANT_OK);
    /* BOS, _ab, the three bytes of a euro sign, a stray byte, _, half a character */
    static const int ids[] = {1, 263, 3 + 0xE2, 3 + 0x82, 3 + 0xAC, 3 + 0xFF, 259, 3 + 0xF0, 3 + 0x9F};
    static const char *const parts[] = {"", "ab", "", "", "\xE2\x82\xAC", "\xEF\xBF\xBD", " ", "", ""};
    for (int i = 0; i < 9; i++) {
        assert_int_equal(kvant_detokenizer_push(d, ids[i], &text, &size), KVANT_OK);
        assert_string_equal(text, parts[i]);
    }
    assert_int_equal(kvant_detokenizer_push(d, 267, &text, &size), KVANT_EINVAL);
    assert_int_equal(kvant_detokenizer_finish(d, &text, &size), KVANT_OK);
    assert_string_equal(text, "\xEF\xBF\xBD");
    assert_int_equal(kvant_detokenizer_finish(d, &text, &size), KVANT_OK);
    assert_string_equal(text, "");
    /* an interrupted character gives way to what follows */
    assert_int_equal(kvant_detokenizer_push(d, 3 + 0xE2, &text, &size), KVANT_OK);
    assert_int_equal(kvant_detokenizer_push(d, 260, &text, &size), KVANT_OK);
    assert_string_equal(text, "\xEF\xBF\xBD" "a");
    kvant_detokenizer_destroy(d);
    kvant_tokenizer_destroy(t);
}

static void a_full_buffer_keeps_what_it_has(void **state) {
    (void)state;
    vocab v;
    kvant_vocab_source s = source(&v, "llama", NULL, fill_spm(&v), 0);
    kvant_tokenizer *t = make(&s);
    kvant_buffer out;
    kvant_buffer_init(&out, 4);
    assert_int_equal(kvant_tokenizer_decode(t, 263, false, &out), KVANT_OK);
    assert_string_equal(out.data, " ab");
    assert_int_equal(kvant_tokenizer_decode(t, 263, false, &out), KVANT_EFULL);
    assert_string_equal(out.data, " ab");
    kvant_buffer_free(&out);
    kvant_tokenizer_destroy(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sentencepiece_joins_by_score_and_spells_the_rest_in_bytes),
        cmocka_unit_test(byte_pairs_merge_by_rank),
        cmocka_unit_test(phi_3_swallows_white_space_after_special_tokens),
        cmocka_unit_test(unknown_kinds_are_refused_by_name),
        cmocka_unit_test(broken_vocabularies_are_refused),
        cmocka_unit_test(odd_vocabularies_work_as_far_as_they_go),
        cmocka_unit_test(a_mebibyte_without_spaces_takes_moments),
        cmocka_unit_test(streams_hold_back_half_characters),
        cmocka_unit_test(a_full_buffer_keeps_what_it_has),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
