// SPDX-License-Identifier: MIT
/* test_templates.c: chat templates as Kvant renders them against what jinja2 made of them (scripts/make_template_golden.py):
 * those in templates/, and those of the data's model folders against what their tokenizers gave. An argument names another folder
 * of cases. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "text/jinja.h"

#define MAX_FILE ((size_t)16 << 20)
#define HEAP ((size_t)64 << 20)

static const char *folder = KVANT_SOURCE "/tests/golden/templates";
/* The clock of the cases. */
static const kvant_jinja_time NOW = {2026, 3, 5, 14, 7, 9};

typedef struct counts {
    int templates, cases, wrong;
} counts;

static char *read_text(const char *path, size_t *size) {
    uint8_t *bytes = NULL;
    kvant_error err = {0};
    if (kvant_os_read_file(path, MAX_FILE, &bytes, size, &err) != KVANT_OK) return NULL;
    return (char *)bytes;
}

/* Renders with the variables; *out is the text, or err.message what went wrong. */
static kvant_status render(const kvant_template *t, const json_t *variables, kvant_buffer *out, kvant_error *err) {
    kvant_jinja_heap *h;
    kvant_jinja_value globals;
    kvant_template_options options;
    kvant_template_options_default(&options);
    options.now = NOW;
    char *json = json_dumps(variables, 0);
    assert_non_null(json);
    assert_int_equal(kvant_jinja_heap_create(HEAP, &h), KVANT_OK);
    kvant_status st = kvant_jinja_from_json(h, "variables", json, strlen(json), &globals, err);
    if (st == KVANT_OK) st = kvant_template_render(t, h, &globals, &options, out, err);
    kvant_jinja_heap_destroy(h);
    free(json);
    return st;
}

/* Whether a case comes out right; prints both texts otherwise. error: part of the sentence, or "" for any. */
static bool check_case(const char *name, const char *label, const kvant_template *t, const json_t *variables,
                       const json_t *expected, const char *error) {
    kvant_buffer out;
    kvant_error err = {0};
    kvant_buffer_init(&out, MAX_FILE);
    kvant_status st = render(t, variables, &out, &err);
    const char *text = json_string_value(expected), *found = out.data ? out.data : "";
    bool same = error ? st != KVANT_OK && strstr(err.message, error) != NULL
                      : st == KVANT_OK && out.size == json_string_length(expected) && memcmp(found, text, out.size) == 0;
    if (!same)
        print_message("%s, \"%s\"\nexpected: %s%s\nfound:    %s\n", name, label, error ? "an error with " : "",
                      error ? error : text, st == KVANT_OK ? found : err.message);
    kvant_buffer_free(&out);
    return same;
}

static void check_file(const char *stem, counts *n) {
    char path[1024];
    size_t size;
    json_error_t json_error;
    kvant_template *t = NULL;
    kvant_error err = {0};
    snprintf(path, sizeof path, "%s/%s.jinja", folder, stem);
    char *text = read_text(path, &size);
    if (!text) fail_msg("%s: cannot be read", path);
    snprintf(path, sizeof path, "%s/%s.json", folder, stem);
    json_t *cases = json_load_file(path, JSON_ALLOW_NUL, &json_error), *c;
    if (!cases) fail_msg("%s: %s", path, json_error.text);
    size_t i;
    n->templates++;
    kvant_status st = kvant_template_parse(stem, text, size, &t, &err);
    if (st != KVANT_OK) print_message("%s\n", err.message);
    json_array_foreach(cases, i, c) {
        const char *label = json_string_value(json_object_get(c, "case"));
        n->cases++;
        n->wrong += st != KVANT_OK || !check_case(stem, label ? label : "?", t, json_object_get(c, "variables"),
                                                  json_object_get(c, "expected"), json_string_value(json_object_get(c, "error")));
    }
    kvant_template_destroy(t);
    json_decref(cases);
    kvant_free(text);
}

/* Every one of them fails, with a sentence. */
static void check_errors(counts *n) {
    char path[1200];
    json_error_t json_error;
    json_t *c;
    size_t i;
    snprintf(path, sizeof path, "%s/errors.json", folder);
    json_t *cases = json_load_file(path, 0, &json_error);
    json_array_foreach(cases, i, c) {
        const char *text = json_string_value(json_object_get(c, "template")),
                   *error = json_string_value(json_object_get(c, "error"));
        kvant_template *t;
        kvant_error err = {0};
        kvant_status st = kvant_template_parse("errors", text, strlen(text), &t, &err);
        bool right = st != KVANT_OK && err.message[0] && !*error;
        if (st == KVANT_OK) {
            right = check_case("errors", text, t, json_object_get(c, "variables"), NULL, error);
            kvant_template_destroy(t);
        }
        if (!right) print_message("%s: found no error, expected one (%s)\n", text, err.message);
        n->cases++;
        n->wrong += !right;
    }
    json_decref(cases);
}

static void templates_write_what_jinja2_writes(void **state) {
    (void)state;
    counts n = {0};
    DIR *d = opendir(folder);
    if (!d) fail_msg("%s: is no folder", folder);
    for (struct dirent *e; (e = readdir(d));) {
        size_t size = strlen(e->d_name);
        char stem[256];
        if (size <= 6 || size >= sizeof stem || strcmp(e->d_name + size - 6, ".jinja") != 0) continue;
        memcpy(stem, e->d_name, size - 6);
        stem[size - 6] = '\0';
        check_file(stem, &n);
    }
    closedir(d);
    check_errors(&n);
    print_message("%d templates, %d cases, %d wrong\n", n.templates, n.cases, n.wrong);
    assert_true(n.cases > 0);
    assert_int_equal(n.wrong, 0);
}

/* A model folder's template: chat_template.jinja or a string of tokenizer_config.json. */
static char *folder_template(const char *path, const json_t *config) {
    char file[1200];
    size_t size;
    snprintf(file, sizeof file, "%s/chat_template.jinja", path);
    char *text = read_text(file, &size);
    if (text) return text;
    const char *s = json_string_value(json_object_get(config, "chat_template"));
    return s ? kvant_strdup(s) : NULL;
}

static void set_token(json_t *variables, const json_t *config, const char *key) {
    json_t *token = json_object_get(config, key);
    if (json_is_object(token)) token = json_object_get(token, "content");
    if (json_is_string(token)) json_object_set(variables, key, token);
}

static void check_folder(const char *path, counts *n) {
    char file[1200];
    json_error_t error;
    kvant_error err = {0};
    kvant_template *t;
    snprintf(file, sizeof file, "%s/tokenizer_config.json", path);
    json_t *config = json_load_file(file, JSON_ALLOW_NUL, &error);
    snprintf(file, sizeof file, "%s/tokenizer_golden.json", path);
    json_t *golden = json_load_file(file, JSON_ALLOW_NUL, &error), *c;
    size_t i;
    if (config && !golden) print_message("%s: %s\n", file, error.text);
    char *text = config && golden ? folder_template(path, config) : NULL;
    if (text && kvant_template_parse(path, text, strlen(text), &t, &err) != KVANT_OK) fail_msg("%s", err.message);
    if (text) n->templates++;
    json_array_foreach(text ? json_object_get(golden, "chat") : NULL, i, c) {
        json_t *variables = json_object();
        json_object_set(variables, "messages", json_object_get(c, "messages"));
        json_object_set(variables, "add_generation_prompt", json_object_get(c, "add_generation_prompt"));
        set_token(variables, config, "bos_token");
        set_token(variables, config, "eos_token");
        n->cases++;
        n->wrong += !check_case(path, "chat", t, variables, json_object_get(c, "text"), NULL);
        json_decref(variables);
    }
    if (text) kvant_template_destroy(t);
    kvant_free(text);
    json_decref(config);
    json_decref(golden);
}

static void model_folders_write_what_their_tokenizers_wrote(void **state) {
    (void)state;
    static const char ROOT[] = KVANT_DATA "/mlx/text";
    counts n = {0};
    DIR *d = opendir(ROOT);
    if (!d) {
        print_message("skipped: %s is absent\n", ROOT);
        skip();
    }
    for (struct dirent *e; (e = readdir(d));) {
        char path[1024];
        if (e->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "%s/%s", ROOT, e->d_name);
        check_folder(path, &n);
    }
    closedir(d);
    print_message("%d templates, %d cases, %d wrong\n", n.templates, n.cases, n.wrong);
    assert_true(n.cases > 0);
    assert_int_equal(n.wrong, 0);
}

int main(int argc, char **argv) {
    if (argc > 1) folder = argv[1];
    const struct CMUnitTest tests[] = {cmocka_unit_test(templates_write_what_jinja2_writes),
                                       cmocka_unit_test(model_folders_write_what_their_tokenizers_wrote)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
