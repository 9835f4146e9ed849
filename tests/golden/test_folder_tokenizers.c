// SPDX-License-Identifier: MIT
/* test_folder_tokenizers.c: model folders tokenize as Hugging Face's library does: ids, decoded texts, streams, chat prompts.
 *
 * Every folder with a tokenizer_golden.json under KVANT_DATA/mlx is read, and every tests/golden/tokenizers_json/NAME.json, which
 * holds a tokenizer.json and what was made with it (scripts/make_tokenizer_json_golden.py). */
#define _POSIX_C_SOURCE 200809L /* dirent.h */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "base/memory.h"
#include "engine/vocab.h"
#include "kvant/engine.h"
#include "text/tokenizer_json.h"

static int n_wrong, n_right;

static void wrong(const char *name, const char *what, const char *text, const char *expected, const char *found) {
    n_wrong++;
    if (n_wrong <= 20) print_message("%s: %s of \"%s\":\n  expected %s\n  found    %s\n", name, what, text, expected, found);
}

static char *ids_text(const int32_t *ids, size_t n) {
    char *out = malloc(n * 12 + 1), *at = out;
    *at = '\0';
    for (size_t i = 0; i < n; i++) at += sprintf(at, "%d ", ids[i]);
    return out;
}

static int32_t *json_ids(const json_t *list, size_t *n) {
    *n = json_array_size(list);
    int32_t *ids = malloc((*n + 1) * sizeof *ids);
    for (size_t i = 0; i < *n; i++) ids[i] = (int32_t)json_integer_value(json_array_get(list, i));
    return ids;
}

static void check_ids(const kvant_tokenizer *t, const char *name, const char *what, const json_t *text, const json_t *expected, bool special) {
    int32_t *ids = NULL;
    int n = 0;
    kvant_error err = {0};
    kvant_tokenize_options options = {.add_special = special, .parse_special = true};
    if (!json_is_array(expected)) return;
    if (kvant_tokenizer_encode(t, json_string_value(text), json_string_length(text), options, &ids, &n, &err) != KVANT_OK) {
        wrong(name, what, json_string_value(text), "ids", err.message);
        return;
    }
    size_t n_expected;
    int32_t *want = json_ids(expected, &n_expected);
    char *a = ids_text(want, n_expected), *b = ids_text(ids, (size_t)n);
    if (strcmp(a, b) != 0) wrong(name, what, json_string_value(text), a, b);
    else n_right++;
    free(a);
    free(b);
    free(want);
    kvant_free(ids);
}

/* All that a stream shows, joined; every part must end in a whole character (jansson refuses what is not UTF-8). */
static void check_stream(const kvant_tokenizer *t, const char *name, const char *what, const json_t *ids, bool special, const json_t *text,
                         const json_t *expected) {
    kvant_detokenizer *d;
    kvant_buffer all;
    const char *part;
    size_t size, n;
    int32_t *list = json_ids(ids, &n);
    if (!json_is_string(expected)) {
        free(list);
        return;
    }
    kvant_buffer_init(&all, 1 << 24);
    assert_int_equal(kvant_buffer_append_str(&all, ""), KVANT_OK);
    assert_int_equal(kvant_detokenizer_create(t, special, &d), KVANT_OK);
    for (size_t i = 0; i <= n; i++) {
        kvant_status st = i < n ? kvant_detokenizer_push(d, list[i], &part, &size) : kvant_detokenizer_finish(d, &part, &size);
        assert_int_equal(st, KVANT_OK);
        json_t *whole = json_stringn(part, size);
        if (!whole) fail_msg("%s: a stream shows half a character", name);
        json_decref(whole);
        assert_int_equal(kvant_buffer_append(&all, part, size), KVANT_OK);
    }
    bool same = all.size == json_string_length(expected) && memcmp(all.data, json_string_value(expected), all.size) == 0;
    if (same) n_right++;
    else wrong(name, what, json_string_value(text), json_string_value(expected), all.data);
    kvant_detokenizer_destroy(d);
    kvant_buffer_free(&all);
    free(list);
}

static void check_golden(const kvant_tokenizer *t, const char *name, const json_t *golden) {
    const json_t *x;
    size_t i;
    json_array_foreach(json_object_get(golden, "samples"), i, x) {
        const json_t *text = json_object_get(x, "text"), *ids = json_object_get(x, "ids");
        check_ids(t, name, "ids", text, ids, false);
        check_ids(t, name, "ids_special", text, json_object_get(x, "ids_special"), true);
        check_stream(t, name, "decoded", ids, true, text, json_object_get(x, "decoded"));
        check_stream(t, name, "decoded_skip_special", ids, false, text, json_object_get(x, "decoded_skip_special"));
    }
    json_array_foreach(json_object_get(golden, "chat"), i, x)
        check_ids(t, name, "chat", json_object_get(x, "text"), json_object_get(x, "ids"), false);
    const json_t *eos = json_object_get(golden, "eos_token_ids_mlx_lm");
    json_array_foreach(eos, i, x)
        if (!kvant_tokenizer_is_end(t, (int32_t)json_integer_value(x))) wrong(name, "end", "", "a token that ends", "one that does not");
    x = json_object_get(golden, "bos_token_id");
    if (json_is_integer(x)) assert_int_equal(kvant_tokenizer_bos(t), json_integer_value(x));
}

typedef struct name_list {
    char names[64][128];
    int n;
} name_list;

static int compare_names(const void *a, const void *b) { return strcmp(a, b); }

/* What a folder holds, sorted; false: there is no such folder. */
static bool list_names(const char *folder, name_list *list) {
    DIR *d = opendir(folder);
    list->n = 0;
    if (!d) return false;
    for (struct dirent *e; (e = readdir(d)) != NULL && list->n < 64;)
        if (e->d_name[0] != '.') snprintf(list->names[list->n++], sizeof list->names[0], "%.100s", e->d_name);
    closedir(d);
    qsort(list->names, (size_t)list->n, sizeof list->names[0], compare_names);
    return true;
}

/* The tokens of a chat, from its messages, through the folder's own template. */
static void check_chats(const char *path, const char *name, const json_t *chats) {
    kvant_load_params params;
    kvant_model *m;
    kvant_error err = {0};
    const json_t *x;
    size_t i;
    kvant_load_params_default(&params);
    params.vocab_only = true;
    if (kvant_model_open(path, &params, &m, &err) != KVANT_OK) fail_msg("%s", err.message);
    json_array_foreach(chats, i, x) {
        char *messages = json_dumps(json_object_get(x, "messages"), JSON_COMPACT), *text = NULL;
        int32_t *ids = NULL;
        int n = 0;
        size_t n_expected;
        kvant_chat_options options = {.without_generation_prompt = !json_is_true(json_object_get(x, "add_generation_prompt"))};
        if (kvant_chat_prompt_json(m, messages, &options, &text, &err) != KVANT_OK) fail_msg("%s: %s", name, err.message);
        assert_int_equal(kvant_tokenize(m, text, strlen(text), true, true, &ids, &n, &err), KVANT_OK);
        int32_t *want = json_ids(json_object_get(x, "ids"), &n_expected);
        char *a = ids_text(want, n_expected), *b = ids_text(ids, (size_t)n);
        if (strcmp(a, b) != 0) wrong(name, "chat", text, a, b);
        else n_right++;
        free(a);
        free(b);
        free(want);
        free(messages);
        kvant_ids_free(ids);
        kvant_string_free(text);
    }
    kvant_model_close(m);
}

/* 1 when the folder has a golden file, else 0. */
static int check_folder(const char *path, const char *name) {
    char file[1100];
    snprintf(file, sizeof file, "%s/tokenizer_golden.json", path);
    json_t *golden = json_load_file(file, JSON_ALLOW_NUL, NULL);
    if (!golden) return 0;
    kvant_gguf f = {.path = (char *)path};
    kvant_tokenizer *t = NULL;
    kvant_text chat;
    kvant_error err = {0};
    if (kvant_vocab_load(&f, &t, &err) != KVANT_OK) fail_msg("%s", err.message);
    int before = n_wrong, right = n_right;
    check_golden(t, name, golden);
    assert_int_equal(kvant_vocab_chat_template(&f, &chat, NULL), KVANT_OK);
    if (json_array_size(json_object_get(golden, "chat")) && (!chat.data || !chat.size)) wrong(name, "chat template", "", "a text", "none");
    check_chats(path, name, json_object_get(golden, "chat"));
    print_message("%s: %zu samples, %zu chats: %d equal, %d not\n", name, json_array_size(json_object_get(golden, "samples")),
                  json_array_size(json_object_get(golden, "chat")), n_right - right, n_wrong - before);
    for (int i = 0; i < f.n_owned; i++) kvant_free(f.owned[i]);
    kvant_free(f.owned);
    kvant_tokenizer_destroy(t);
    json_decref(golden);
    return 1;
}

static void model_folders_tokenize_as_the_library_they_come_from(void **state) {
    (void)state;
    static const char *const parents[] = {KVANT_DATA "/mlx/text", KVANT_DATA "/mlx"};
    static name_list list;
    int n = 0;
    n_wrong = n_right = 0;
    for (size_t k = 0; k < sizeof parents / sizeof *parents; k++) {
        if (!list_names(parents[k], &list)) print_message("skipped: %s is not there\n", parents[k]);
        for (int i = 0; i < list.n; i++) {
            char path[1024];
            snprintf(path, sizeof path, "%s/%s", parents[k], list.names[i]);
            n += check_folder(path, list.names[i]);
        }
    }
    if (n == 0) skip();
    print_message("%d folders\n", n);
    assert_true(n > 0);
    assert_int_equal(n_wrong, 0);
}

/* A tokenizer.json and its samples in one file: {"tokenizer": ..., "config": ..., "samples": ...}. */
static void check_file(const char *name) {
    char path[1024];
    snprintf(path, sizeof path, "%s/tests/golden/tokenizers_json/%s", KVANT_SOURCE, name);
    json_t *golden = json_load_file(path, JSON_ALLOW_NUL, NULL);
    if (!golden) fail_msg("%s cannot be read", path);
    char *tokenizer = json_dumps(json_object_get(golden, "tokenizer"), JSON_COMPACT | JSON_REAL_PRECISION(17));
    char *config = json_dumps(json_object_get(golden, "config"), JSON_COMPACT);
    kvant_tokenizer_files files = {.name = name, .tokenizer = {tokenizer, strlen(tokenizer)}};
    if (config) files.tokenizer_config = (kvant_file_text){config, strlen(config)};
    kvant_tokenizer *t = NULL;
    kvant_error err = {0};
    if (kvant_tokenizer_create_from_json(&files, &t, &err) != KVANT_OK) fail_msg("%s", err.message);
    int before = n_wrong, right = n_right;
    check_golden(t, name, golden);
    print_message("%s: %zu samples: %d equal, %d not\n", name, json_array_size(json_object_get(golden, "samples")), n_right - right,
                  n_wrong - before);
    kvant_tokenizer_destroy(t);
    free(tokenizer);
    free(config);
    json_decref(golden);
}

static void small_tokenizers_of_every_kind_agree_with_the_library(void **state) {
    (void)state;
    static name_list list;
    n_wrong = n_right = 0;
    if (!list_names(KVANT_SOURCE "/tests/golden/tokenizers_json", &list)) fail_msg("tests/golden/tokenizers_json is not there");
    for (int i = 0; i < list.n; i++) check_file(list.names[i]);
    assert_true(list.n > 0);
    assert_int_equal(n_wrong, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(model_folders_tokenize_as_the_library_they_come_from),
        cmocka_unit_test(small_tokenizers_of_every_kind_agree_with_the_library),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
