// SPDX-License-Identifier: MIT
/* test_tokenizer_json.c: the stages of a tokenizer.json one by one, what is refused and how that is said, and broken files. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "text/tokenizer_json.h"
#include "text/tokenizer_rules.h"

#define ABC "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\" \":3,\"c\":9},\"merges\":[\"a b\"]}"

static kvant_file_text text_of(const char *text) { return (kvant_file_text){text, text ? strlen(text) : 0}; }

static kvant_status try_create(const char *tokenizer, const char *config, const char *generation, kvant_tokenizer **t, kvant_error *err) {
    kvant_tokenizer_files files = {.name = "folder", .tokenizer = text_of(tokenizer), .tokenizer_config = text_of(config),
                                   .generation_config = text_of(generation)};
    *err = (kvant_error){0};
    return kvant_tokenizer_create_from_json(&files, t, err);
}

static kvant_tokenizer *create(const char *tokenizer, const char *config, const char *generation) {
    kvant_tokenizer *t;
    kvant_error err;
    if (try_create(tokenizer, config, generation, &t, &err) != KVANT_OK) fail_msg("%s", err.message);
    return t;
}

/* Ids as "1 2 3". */
static void check_ids(const kvant_tokenizer *t, const char *text, bool special, const char *expected) {
    int32_t *ids;
    int n;
    char found[1024], *at = found;
    kvant_error err = {0};
    if (kvant_tokenizer_encode(t, text, strlen(text), (kvant_tokenize_options){special, true}, &ids, &n, &err) != KVANT_OK)
        fail_msg("%s", err.message);
    *at = '\0';
    for (int i = 0; i < n; i++) at += sprintf(at, "%s%d", i ? " " : "", ids[i]);
    if (strcmp(found, expected) != 0) fail_msg("\"%s\": ids %s, expected %s", text, found, expected);
    kvant_free(ids);
}

static void check_stream(const kvant_tokenizer *t, bool special, const int32_t *ids, int n, const char *expected) {
    kvant_detokenizer *d;
    kvant_buffer all;
    const char *text;
    size_t size;
    kvant_buffer_init(&all, 4096);
    assert_int_equal(kvant_detokenizer_create(t, special, &d), KVANT_OK);
    for (int i = 0; i <= n; i++) {
        assert_int_equal(i < n ? kvant_detokenizer_push(d, ids[i], &text, &size) : kvant_detokenizer_finish(d, &text, &size), KVANT_OK);
        assert_int_equal(kvant_buffer_append(&all, text, size), KVANT_OK);
    }
    assert_string_equal(all.data, expected);
    kvant_buffer_free(&all);
    kvant_detokenizer_destroy(d);
}

/* ---- normalizers and pre-tokenizers ---- */

static void check_normalizer(const char *normalizer, const char *text, const char *expected) {
    char file[2048];
    snprintf(file, sizeof file, "{" ABC ",\"normalizer\":%s}", normalizer);
    kvant_tokenizer *t = create(file, NULL, NULL);
    kvant_matcher *m;
    kvant_buffer now, spare;
    kvant_buffer_init(&now, 4096);
    kvant_buffer_init(&spare, 4096);
    assert_int_equal(kvant_matcher_create(&m), KVANT_OK);
    assert_int_equal(kvant_buffer_append_str(&now, text), KVANT_OK);
    assert_int_equal(kvant_steps_rewrite(&t->rules->normalizer, m, true, &now, &spare), KVANT_OK);
    if (strcmp(now.data, expected) != 0) fail_msg("%s: \"%s\" becomes \"%s\", expected \"%s\"", normalizer, text, now.data, expected);
    kvant_buffer_free(&now);
    kvant_buffer_free(&spare);
    kvant_matcher_destroy(m);
    kvant_tokenizer_destroy(t);
}

/* Pieces joined with '|'. */
static void check_pieces(const char *pre_tokenizer, const char *text, bool at_start, const char *expected) {
    char file[2048];
    snprintf(file, sizeof file, "{" ABC ",\"pre_tokenizer\":%s}", pre_tokenizer);
    kvant_tokenizer *t = create(file, NULL, NULL);
    kvant_matcher *m;
    kvant_pieces pieces = {0}, spare = {0};
    kvant_buffer joined;
    kvant_buffer_init(&pieces.text, 4096);
    kvant_buffer_init(&spare.text, 4096);
    kvant_buffer_init(&joined, 4096);
    assert_int_equal(kvant_matcher_create(&m), KVANT_OK);
    assert_int_equal(kvant_pieces_cut(&t->rules->pre_tokenizer, m, text, strlen(text), at_start, &pieces, &spare), KVANT_OK);
    kvant_buffer_append_str(&joined, "");
    for (size_t i = 0, at = 0; i < pieces.n; at += pieces.sizes[i++]) {
        if (i) kvant_buffer_append_str(&joined, "|");
        kvant_buffer_append(&joined, pieces.text.data + at, pieces.sizes[i]);
    }
    if (strcmp(joined.data, expected) != 0) fail_msg("%s: \"%s\" is cut \"%s\", expected \"%s\"", pre_tokenizer, text, joined.data, expected);
    kvant_buffer_free(&joined);
    kvant_pieces_free(&pieces);
    kvant_pieces_free(&spare);
    kvant_matcher_destroy(m);
    kvant_tokenizer_destroy(t);
}

static void normalizers_rewrite_a_text(void **state) {
    (void)state;
    check_normalizer("{\"type\":\"NFC\"}", "e\xCC\xA3\xCC\x81 \xE1\x84\x80\xE1\x85\xA1", "\xE1\xBA\xB9\xCC\x81 \xEA\xB0\x80");
    check_normalizer("{\"type\":\"NFD\"}", "\xC3\xA9", "e\xCC\x81");
    check_normalizer("{\"type\":\"NFC\"}", "\xEF\xAC\x81", "\xEF\xAC\x81");
    check_normalizer("{\"type\":\"NFKC\"}", "\xEF\xAC\x81 \xC2\xBD", "fi 1\xE2\x81\x84" "2");
    check_normalizer("{\"type\":\"NFKD\"}", "\xE2\x84\xAB", "A\xCC\x8A");
    check_normalizer("{\"type\":\"NFD\"}", "a\xCC\x81\xCC\xA3", "a\xCC\xA3\xCC\x81"); /* marks in the order of their classes */
    check_normalizer("{\"type\":\"Lowercase\"}", "AB\xC3\x84 \xC4\xB0", "ab\xC3\xA4 i\xCC\x87");
    check_normalizer("{\"type\":\"Strip\",\"strip_left\":true,\"strip_right\":false}", " \t\xC2\xA0 a ", "a ");
    check_normalizer("{\"type\":\"Strip\",\"strip_left\":true,\"strip_right\":true}", " \xE3\x80\x80", "");
    check_normalizer("{\"type\":\"Prepend\",\"prepend\":\"_\"}", "x", "_x");
    check_normalizer("{\"type\":\"Replace\",\"pattern\":{\"String\":\"aa\"},\"content\":\"b\"}", "aaaaa", "bba");
    check_normalizer("{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"\\\\s+\"},\"content\":\"$1\"}", "a \t b", "a$1b");
    check_normalizer("{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"x*\"},\"content\":\"-\"}", "axb", "-a-b-");
    check_normalizer("{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":\" \"},{\"type\":\"Replace\",\"pattern\":"
                     "{\"String\":\" \"},\"content\":\"_\"}]}", "a b", "_a_b");
}

#define SPLIT(pattern, behavior) "{\"type\":\"Split\",\"pattern\":" pattern ",\"behavior\":\"" behavior "\",\"invert\":false}"

static void split_does_with_a_match_what_its_behavior_says(void **state) {
    (void)state;
    check_pieces(SPLIT("{\"String\":\"-\"}", "Isolated"), "the-final--countdown", true, "the|-|final|-|-|countdown");
    check_pieces(SPLIT("{\"String\":\"-\"}", "Removed"), "the-final--countdown", true, "the|final|countdown");
    check_pieces(SPLIT("{\"String\":\"-\"}", "MergedWithPrevious"), "the-final--countdown", true, "the-|final-|-|countdown");
    check_pieces(SPLIT("{\"String\":\"-\"}", "MergedWithNext"), "the-final--countdown", true, "the|-final|-|-countdown");
    check_pieces(SPLIT("{\"String\":\"-\"}", "Contiguous"), "the-final--countdown", true, "the|-|final|--|countdown");
    check_pieces(SPLIT("{\"Regex\":\"^b\"}", "Isolated"), "ab\nbb", true, "ab\n|b|b"); /* ^ stands at lines */
    check_pieces(SPLIT("{\"Regex\":\"[a-z&&[^b]]+\"}", "Isolated"), "abca", true, "a|b|ca");
    check_pieces(SPLIT("{\"Regex\":\"[\\\\w&&\\\\p{L}]\"}", "Removed"), "a1", true, "1");
    check_pieces(SPLIT("{\"Regex\":\"[^(x|[.,])]+\"}", "Removed"), "ab.c(d", true, ".|(");
    check_pieces(SPLIT("{\"Regex\":\"[[:punct:]]\"}", "Isolated"), "a\xE2\x82\xAC" "b", true, "a|\xE2\x82\xAC|b");
    check_pieces(SPLIT("{\"Regex\":\"\\\\bb\"}", "Isolated"), "ab b", true, "ab |b");
    check_pieces("{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[0-9]+\"},\"behavior\":\"Removed\",\"invert\":true}", "ab12c3", true, "12|3");
}

static void pre_tokenizers_cut_and_rewrite(void **state) {
    (void)state;
    check_pieces("null", "a b", true, "a b");
    check_pieces("{\"type\":\"Digits\",\"individual_digits\":false}", "a123b", true, "a|123|b");
    check_pieces("{\"type\":\"Digits\",\"individual_digits\":true}", "a12", true, "a|1|2");
    check_pieces("{\"type\":\"Punctuation\"}", "a,$b", true, "a|,|$|b");
    check_pieces("{\"type\":\"Whitespace\"}", "ab, c!", true, "ab|,|c|!");
    check_pieces("{\"type\":\"WhitespaceSplit\"}", " ab,\n c", true, "ab,|c");
    check_pieces("{\"type\":\"CharDelimiterSplit\",\"delimiter\":\"x\"}", "axxb", true, "a|b");
    check_pieces("{\"type\":\"ByteLevel\",\"add_prefix_space\":true}", "a b's", true, "\xC4\xA0" "a|\xC4\xA0" "b|'s");
    check_pieces("{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}", "a b", true, "a\xC4\xA0" "b");
    check_pieces("{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"always\"}", "a b", false, "_a|_b");
    check_pieces("{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"first\"}", "a b", true, "_a|_b");
    check_pieces("{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"first\"}", "a b", false, "a|_b");
    check_pieces("{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"never\",\"split\":false}", "a b", true, "a_b");
    check_pieces("{\"type\":\"Metaspace\",\"replacement\":\"_\",\"add_prefix_space\":false}", "a", true, "a");
    check_pieces("{\"type\":\"Metaspace\",\"replacement\":\"_\"}", " a", true, "_a");
}

/* ---- models ---- */

static void merges_come_as_strings_or_pairs(void **state) {
    (void)state;
    kvant_tokenizer *t = create("{\"model\":{\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[\"a b\"]}}", NULL, NULL);
    check_ids(t, "abba", false, "2 1 0");
    kvant_tokenizer_destroy(t);
    t = create("{\"model\":{\"type\":\"BPE\",\"vocab\":{\" \":0,\"b\":1,\" b\":2},\"merges\":[[\" \",\"b\"]]}}", NULL, NULL);
    check_ids(t, "b b", false, "1 2");
    kvant_tokenizer_destroy(t);
}

static void ids_may_have_holes(void **state) {
    (void)state;
    kvant_tokenizer *t = create("{" ABC ",\"added_tokens\":[{\"id\":20,\"content\":\"<x>\",\"special\":true}]}", NULL, NULL);
    assert_int_equal(kvant_tokenizer_n_token(t), 21);
    check_ids(t, "abc<x>", false, "2 9 20");
    const int32_t ids[] = {2, 5, 9, 20};
    check_stream(t, true, ids, 4, "ab c <x>");
    check_stream(t, false, ids, 4, "ab c");
    kvant_tokenizer_destroy(t);
}

static void unknown_characters_are_bytes_or_the_unknown_token_or_lost(void **state) {
    (void)state;
    kvant_tokenizer *t = create("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"?\":1,\"<0xC3>\":2,\"<0xA9>\":3},\"merges\":[],"
                                "\"unk_token\":\"?\",\"fuse_unk\":true,\"byte_fallback\":true}}", NULL, NULL);
    check_ids(t, "a\xC3\xA9xyza", false, "0 2 3 1 0");
    kvant_tokenizer_destroy(t);
    t = create("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"?\":1},\"merges\":[],\"unk_token\":\"?\"}}", NULL, NULL);
    check_ids(t, "axya", false, "0 1 1 0");
    kvant_tokenizer_destroy(t);
    t = create("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"aa\":1},\"merges\":[\"a a\"]}}", NULL, NULL);
    check_ids(t, "axa", false, "1");
    kvant_tokenizer_destroy(t);
}

static void unigram_takes_the_largest_sum(void **state) {
    (void)state;
    kvant_tokenizer *t = create("{\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"?\",0],[\"a\",-1],[\"b\",-1],[\"ab\",-2.5],"
                                "[\"abc\",-3],[\"c\",-9]]}}", NULL, NULL);
    check_ids(t, "ab", false, "1 2");     /* -2 is more than -2.5 */
    check_ids(t, "abc", false, "4");      /* -3 is more than -11 */
    check_ids(t, "axyzb", false, "1 0 2"); /* unknown ones are one */
    check_ids(t, "xa\xC3\xA9", false, "0 1 0");
    check_ids(t, "", false, "");
    kvant_tokenizer_destroy(t);
    t = create("{\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"byte_fallback\":true,\"vocab\":[[\"?\",0],[\"a\",-1],[\"<0xC3>\",-5],"
               "[\"<0xA9>\",-5]]}}", NULL, NULL);
    check_ids(t, "a\xC3\xA9", false, "1 2 3");
    check_ids(t, "ax", false, "1 0");
    kvant_tokenizer_destroy(t);
}

static void unigram_without_an_unknown_token_says_so(void **state) {
    (void)state;
    kvant_tokenizer *t = create("{\"model\":{\"type\":\"Unigram\",\"unk_id\":null,\"vocab\":[[\"a\",-1]]}}", NULL, NULL);
    kvant_error err = {0};
    int32_t *ids;
    int n;
    check_ids(t, "aa", false, "0 0");
    assert_int_equal(kvant_tokenizer_encode(t, "ab", 2, (kvant_tokenize_options){0}, &ids, &n, &err), KVANT_EUNSUPPORTED);
    assert_non_null(strstr(err.message, "no token for one of its characters"));
    kvant_tokenizer_destroy(t);
}

/* ---- added tokens ---- */

#define ADDED(id, content, flags) "{\"id\":" #id ",\"content\":\"" content "\"" flags "}"

static void added_tokens_take_white_space_and_stand_alone(void **state) {
    (void)state;
    kvant_tokenizer *t = create("{" ABC ",\"added_tokens\":[" ADDED(20, "<l>", ",\"special\":true,\"lstrip\":true") ","
                                ADDED(21, "<r>", ",\"special\":true,\"rstrip\":true") ","
                                ADDED(22, "bb", ",\"special\":false,\"single_word\":true,\"normalized\":false") ","
                                ADDED(23, "bbb", ",\"special\":false,\"normalized\":false") "]}", NULL, NULL);
    check_ids(t, "a <l> b", false, "0 20 3 1");
    check_ids(t, "a <r> b", false, "0 3 21 1");
    check_ids(t, "a bb b", false, "0 3 22 3 1");
    check_ids(t, "abb", false, "2 1");
    check_ids(t, "bbbb", false, "23 1"); /* the longest of those that begin here */
    int32_t *ids;
    int n;
    assert_int_equal(kvant_tokenizer_encode(t, "<l>bb", 5, (kvant_tokenize_options){0}, &ids, &n, NULL), KVANT_OK);
    assert_int_equal(ids[n - 1], 22); /* special ones only when asked for */
    assert_int_not_equal(ids[0], 20);
    kvant_free(ids);
    kvant_tokenizer_destroy(t);
}

static void normalized_tokens_are_found_behind_the_normalizer(void **state) {
    (void)state;
    kvant_tokenizer *t = create("{" ABC ",\"normalizer\":{\"type\":\"Lowercase\"},\"added_tokens\":[" ADDED(20, "CC", ",\"normalized\":true") ","
                                ADDED(21, "BB", ",\"normalized\":false") "]}", NULL, NULL);
    check_ids(t, "ccCc", false, "20 20");
    check_ids(t, "bbBB", false, "1 1 21");
    kvant_tokenizer_destroy(t);
}

static void the_config_changes_and_names_tokens(void **state) {
    (void)state;
    kvant_tokenizer *t = create("{" ABC ",\"added_tokens\":[" ADDED(20, "<l>", ",\"special\":true") "]}",
                                "{\"added_tokens_decoder\":{\"20\":{\"content\":\"<l>\",\"special\":true,\"lstrip\":true},"
                                "\"21\":{\"content\":\"<n>\",\"special\":false}},\"bos_token\":{\"content\":\"<l>\"},\"eos_token\":\"c\"}",
                                "{\"eos_token_id\":[1,99]}");
    check_ids(t, "a <l><n>", false, "0 20 21");
    assert_int_equal(kvant_tokenizer_bos(t), 20);
    assert_int_equal(kvant_tokenizer_eos(t), 9);
    assert_true(kvant_tokenizer_is_end(t, 9) && kvant_tokenizer_is_end(t, 1) && !kvant_tokenizer_is_end(t, 0));
    const int32_t ids[] = {0, 9, 21};
    check_stream(t, false, ids, 3, "a <n>"); /* a token that was named is special; without a decoder a space between tokens */
    kvant_tokenizer_destroy(t);
}

static void templates_stand_around_a_text(void **state) {
    (void)state;
    const char *file = "{" ABC ",\"post_processor\":{\"type\":\"Sequence\",\"processors\":[{\"type\":\"ByteLevel\"},{\"type\":"
                       "\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"b\",\"type_id\":0}},{\"SpecialToken\":{\"id\":\"two\","
                       "\"type_id\":0}},{\"Sequence\":{\"id\":\"A\",\"type_id\":0}},{\"SpecialToken\":{\"id\":\"b\",\"type_id\":0}}],"
                       "\"special_tokens\":{\"b\":{\"ids\":[1]},\"two\":{\"ids\":[9,0]}}},{\"type\":\"BertProcessing\",\"cls\":[\"a\",0],"
                       "\"sep\":[\"c\",9]}]}}";
    kvant_tokenizer *t = create(file, NULL, NULL);
    check_ids(t, "ab", true, "0 1 9 0 2 1 9");
    check_ids(t, "ab", false, "2");
    kvant_tokenizer_destroy(t);
    t = create(file, "{\"tokenizer_class\":\"LlamaTokenizer\",\"bos_token\":\"a\",\"eos_token\":\"c\"}", NULL);
    check_ids(t, "b", true, "0 1"); /* "a" is special now */
    assert_true(kvant_tokenizer_adds_bos(t));
    kvant_tokenizer_destroy(t);
    t = create(file, "{\"bos_token\":\"a\",\"eos_token\":\"c\",\"add_bos_token\":false,\"add_eos_token\":true}", NULL);
    check_ids(t, "b", true, "1 9");
    kvant_tokenizer_destroy(t);
}

/* ---- back to text ---- */

static void decoders_show_tokens_as_the_file_says(void **state) {
    (void)state;
    const char *vocab = "\"model\":{\"type\":\"BPE\",\"vocab\":{\"_a\":0,\"_\":1,\"<0xC3>\":2,\"<0xA9>\":3,\"\xC4\xA0" "b\":4,\"_b_\":5},\"merges\":[]}";
    char file[1024];
    snprintf(file, sizeof file, "{%s,\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":\"_\"},"
             "\"content\":\" \"},{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"},{\"type\":\"Strip\",\"content\":\" \",\"start\":2,\"stop\":0}]}}", vocab);
    kvant_tokenizer *t = create(file, NULL, NULL);
    const int32_t ids[] = {1, 0, 2, 3, 0, 2};
    check_stream(t, true, ids, 6, "a\xC3\xA9 a\xEF\xBF\xBD"); /* two spaces dropped; half a character at the end */
    kvant_tokenizer_destroy(t);
    snprintf(file, sizeof file, "{%s,\"decoder\":{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"always\"}}", vocab);
    t = create(file, NULL, NULL);
    const int32_t spaced[] = {5, 0, 5};
    check_stream(t, true, spaced, 3, "b a b ");
    kvant_tokenizer_destroy(t);
    snprintf(file, sizeof file, "{%s,\"decoder\":{\"type\":\"ByteLevel\"}}", vocab);
    t = create(file, NULL, NULL);
    const int32_t letters[] = {4, 0};
    check_stream(t, true, letters, 2, " b_a");
    kvant_tokenizer_destroy(t);
}

static void the_chat_template_is_found(void **state) {
    (void)state;
    static const struct {
        const char *config, *own, *expected;
    } cases[] = {{"{\"chat_template\":\"x\"}", NULL, "x"},
                 {"{\"chat_template\":\"x\"}", "own", "own"},
                 {"{\"chat_template\":[{\"name\":\"tool_use\",\"template\":\"t\"},{\"name\":\"default\",\"template\":\"d\"}]}", NULL, "d"},
                 {"{\"chat_template\":[{\"name\":\"only\",\"template\":\"o\"}]}", NULL, "o"},
                 {"{\"chat_template\":null}", NULL, NULL},
                 {NULL, NULL, NULL}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        kvant_tokenizer_files files = {.name = "folder", .tokenizer_config = text_of(cases[i].config), .chat_template = text_of(cases[i].own)};
        char *text;
        size_t size;
        assert_int_equal(kvant_tokenizer_json_template(&files, &text, &size, NULL), KVANT_OK);
        if (cases[i].expected) assert_string_equal(text, cases[i].expected);
        else assert_null(text);
        kvant_free(text);
    }
    kvant_tokenizer_files files = {.name = "folder", .tokenizer_config = text_of("{\"chat_template\":7}")};
    char *text;
    size_t size;
    assert_int_equal(kvant_tokenizer_json_template(&files, &text, &size, NULL), KVANT_EFORMAT);
}

/* ---- what is refused ---- */

static void what_is_not_done_is_refused_by_name(void **state) {
    (void)state;
    static const struct {
        const char *file, *word;
        kvant_status status;
    } cases[] = {
        {NULL, "there is no such file", KVANT_EIO},
        {"{", "is not JSON: line 1", KVANT_EFORMAT},
        {"[]", "the file is an array, expected an object", KVANT_EFORMAT},
        {"{}", "model is missing", KVANT_EFORMAT},
        {"{\"model\":{\"type\":\"WordPiece\",\"vocab\":{}}}", "model 'WordPiece'", KVANT_EUNSUPPORTED},
        {"{\"model\":{\"type\":\"WordLevel\",\"vocab\":{}}}", "model 'WordLevel'", KVANT_EUNSUPPORTED},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":[]}}", "there are no tokens", KVANT_EFORMAT},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":1.5},\"merges\":[]}}", "expected an integer", KVANT_EFORMAT},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":-1},\"merges\":[]}}", "out of range", KVANT_EFORMAT},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":99999999},\"merges\":[]}}", "out of range", KVANT_EFORMAT},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}}", "both have the id 0", KVANT_EFORMAT},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a x\"]}}", "merge 0", KVANT_EFORMAT},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a\"]}}", "two parts", KVANT_EFORMAT},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[[\"a\"]]}}", "two strings", KVANT_EFORMAT},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[],\"dropout\":0.1}}", "model.dropout", KVANT_EFORMAT},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[],\"end_of_word_suffix\":\"</w>\"}}", "'</w>'", KVANT_EUNSUPPORTED},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\\u0000\":0},\"merges\":[]}}", "NUL", KVANT_EUNSUPPORTED},
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",0],[\"a\",1]]}}", "are both \"a\"", KVANT_EFORMAT},
        {"{\"model\":{\"type\":\"Unigram\",\"unk_id\":1,\"vocab\":[[\"a\",0]]}}", "model.unk_id is 1", KVANT_EFORMAT},
        {"{" ABC ",\"normalizer\":{\"type\":\"Precompiled\"}}", "normalizer 'Precompiled'", KVANT_EUNSUPPORTED},
        {"{" ABC ",\"normalizer\":{\"type\":\"BertNormalizer\"}}", "normalizer 'BertNormalizer'", KVANT_EUNSUPPORTED},
        {"{" ABC ",\"pre_tokenizer\":{\"type\":\"UnicodeScripts\"}}", "pre_tokenizer 'UnicodeScripts'", KVANT_EUNSUPPORTED},
        {"{" ABC ",\"pre_tokenizer\":" SPLIT("{\"Regex\":\"(\"}", "Isolated") "}", "expression '('", KVANT_EUNSUPPORTED},
        {"{" ABC ",\"pre_tokenizer\":" SPLIT("{\"Regex\":\"[a[^b]]\"}", "Isolated") "}", "brackets inside brackets", KVANT_EUNSUPPORTED},
        {"{" ABC ",\"pre_tokenizer\":" SPLIT("{\"Regex\":\"a{1,3}+\"}", "Isolated") "}", "behind an interval", KVANT_EUNSUPPORTED},
        {"{" ABC ",\"pre_tokenizer\":" SPLIT("{\"Regex\":\"(?m:.)\"}", "Isolated") "}", "(?m)", KVANT_EUNSUPPORTED},
        {"{" ABC ",\"pre_tokenizer\":" SPLIT("{\"Regex\":\"a\"}", "Sometimes") "}", "\"Sometimes\"", KVANT_EFORMAT},
        {"{" ABC ",\"decoder\":{\"type\":\"WordPiece\"}}", "decoder 'WordPiece'", KVANT_EUNSUPPORTED},
        {"{" ABC ",\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Fuse\"},{\"type\":\"ByteFallback\"}]}}", "behind Fuse", KVANT_EUNSUPPORTED},
        {"{" ABC ",\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Fuse\"},{\"type\":\"Strip\",\"content\":\" \",\"stop\":1}]}}",
         "in a stream", KVANT_EUNSUPPORTED},
        {"{" ABC ",\"post_processor\":{\"type\":\"Other\"}}", "post_processor 'Other'", KVANT_EUNSUPPORTED},
        {"{" ABC ",\"post_processor\":{\"type\":\"BertProcessing\",\"cls\":[\"a\",0],\"sep\":[\"x\",77]}}", "is 77", KVANT_EFORMAT},
        {"{" ABC ",\"added_tokens\":[{\"id\":0,\"content\":\"x\"}]}", "both have the id 0", KVANT_EFORMAT},
        {"{" ABC ",\"added_tokens\":[{\"content\":\"x\"}]}", "added_tokens[].id is missing", KVANT_EFORMAT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        kvant_tokenizer *t;
        kvant_error err;
        kvant_status st = try_create(cases[i].file, NULL, NULL, &t, &err);
        if (st != cases[i].status || !strstr(err.message, cases[i].word) || strncmp(err.message, "folder/", 7) != 0)
            fail_msg("%s: status %d, \"%s\"; expected %d and \"%s\"", cases[i].file ? cases[i].file : "no file", st, err.message,
                     cases[i].status, cases[i].word);
    }
}

static uint64_t next_random(uint64_t *seed) {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    return *seed ^= *seed << 17;
}

static void broken_files_fail_with_a_sentence(void **state) {
    (void)state;
    const char *file = "{" ABC ",\"normalizer\":{\"type\":\"NFC\"},\"pre_tokenizer\":{\"type\":\"ByteLevel\"},\"decoder\":{\"type\":\"ByteLevel\"},"
                       "\"added_tokens\":[{\"id\":20,\"content\":\"<x>\",\"special\":true}],\"post_processor\":{\"type\":\"BertProcessing\","
                       "\"cls\":[\"a\",0],\"sep\":[\"b\",1]}}";
    size_t size = strlen(file);
    uint64_t seed = 0x9E3779B97F4A7C15u;
    print_message("seed %llu\n", (unsigned long long)seed);
    char *copy = malloc(size + 1);
    for (int round = 0; round < 4000; round++) {
        kvant_tokenizer *t;
        kvant_error err = {0};
        memcpy(copy, file, size + 1);
        size_t n = size;
        if ((size_t)round < size) n = (size_t)round; /* cut */
        else
            for (int k = 0; k < 3; k++) copy[next_random(&seed) % size] = (char)(0x20 + next_random(&seed) % 95);
        kvant_tokenizer_files files = {.name = "folder", .tokenizer = {copy, n}};
        if (kvant_tokenizer_create_from_json(&files, &t, &err) == KVANT_OK) kvant_tokenizer_destroy(t);
        else assert_true(err.message[0] != '\0');
    }
    free(copy);
}

static void any_bytes_are_text(void **state) {
    (void)state;
    kvant_tokenizer *t = create("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"\xEF\xBF\xBD\":1},\"merges\":[]}}", NULL, NULL);
    check_ids(t, "a\xFF" "a\xE2\x82", false, "0 1 0 1 1");
    check_ids(t, "\xED\xA0\x80" "a", false, "1 1 1 0"); /* half a surrogate pair */
    kvant_tokenizer_destroy(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(normalizers_rewrite_a_text),
        cmocka_unit_test(split_does_with_a_match_what_its_behavior_says),
        cmocka_unit_test(pre_tokenizers_cut_and_rewrite),
        cmocka_unit_test(merges_come_as_strings_or_pairs),
        cmocka_unit_test(ids_may_have_holes),
        cmocka_unit_test(unknown_characters_are_bytes_or_the_unknown_token_or_lost),
        cmocka_unit_test(unigram_takes_the_largest_sum),
        cmocka_unit_test(unigram_without_an_unknown_token_says_so),
        cmocka_unit_test(added_tokens_take_white_space_and_stand_alone),
        cmocka_unit_test(normalized_tokens_are_found_behind_the_normalizer),
        cmocka_unit_test(the_config_changes_and_names_tokens),
        cmocka_unit_test(templates_stand_around_a_text),
        cmocka_unit_test(decoders_show_tokens_as_the_file_says),
        cmocka_unit_test(the_chat_template_is_found),
        cmocka_unit_test(what_is_not_done_is_refused_by_name),
        cmocka_unit_test(broken_files_fail_with_a_sentence),
        cmocka_unit_test(any_bytes_are_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
