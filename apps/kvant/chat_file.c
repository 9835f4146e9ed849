// SPDX-License-Identifier: MIT
/* chat_file.c: see chat_file.h. */
#define _POSIX_C_SOURCE 200809L /* fsync, fileno */
#include "chat_file.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "json_output.h"
#include "options.h"

#define VERSION_KEY "kvant_chat"

/* The numbers of "settings": name, range, and where they are. */
typedef struct setting {
    const char *name;
    double min, max;
    size_t offset;
    bool whole;
} setting;
#define SETTING(name, min, max, whole)                                                                                           \
    { #name, min, max, offsetof(kvant_sampler_params, name), whole }
static const setting settings[] = {
    SETTING(temperature, 0, 100, false),
    SETTING(top_p, 0, 1, false),
    SETTING(min_p, 0, 1, false),
    SETTING(top_k, 0, 1 << 26, true),
    SETTING(repeat_penalty, 0.01, 100, false),
    SETTING(repeat_last_n, 0, 65536, true),
};
#define N_SETTINGS (sizeof settings / sizeof *settings)

/* ---- writing ---- */

static json_t *settings_to_json(const kvant_sampler_params *p) {
    json_t *object = json_object();
    for (size_t i = 0; i < N_SETTINGS; i++) {
        const char *at = (const char *)p + settings[i].offset;
        json_object_set_new(object, settings[i].name,
                            settings[i].whole ? json_integer(*(const int *)at) : json_real(*(const float *)at));
    }
    json_object_set_new(object, "seed", json_integer((json_int_t)p->seed));
    return object;
}

static void append_message(json_t *messages, const char *role, const char *content) {
    json_t *message = json_object();
    json_object_set_new(message, "role", json_string(role));
    json_object_set_new(message, "content", json_text(content));
    json_array_append_new(messages, message);
}

static json_t *chat_to_json(const chat_conversation *talk, const chat_file_info *info) {
    json_t *root = json_object(), *messages = json_array();
    json_object_set_new(root, VERSION_KEY, json_integer(CHAT_FILE_VERSION));
    json_object_set_new(root, "model", json_text(info->model));
    json_object_set_new(root, "system", talk->system ? json_text(talk->system) : json_null());
    for (int i = 0; i < talk->n; i++) {
        append_message(messages, "user", talk->exchanges[i].question);
        append_message(messages, "assistant", talk->exchanges[i].answer);
    }
    json_object_set_new(root, "messages", messages);
    json_object_set_new(root, "settings", settings_to_json(&info->sampling));
    return root;
}

int chat_file_save(const char *path, const chat_conversation *talk, const chat_file_info *info) {
    char name[4096];
    int n = snprintf(name, sizeof name, "%s.new", path); /* beside it, and in its place when it is complete */
    if (n < 0 || (size_t)n >= sizeof name) return fail_with(1, "the name %.60s... is too long", path);
    json_t *root = chat_to_json(talk, info);
    FILE *f = fopen(name, "wb");
    bool ok = f && json_dumpf(root, f, JSON_INDENT(1) | JSON_REAL_PRECISION(7)) == 0 && fputc('\n', f) != EOF && fflush(f) == 0;
    if (ok) ok = fsync(fileno(f)) == 0 || errno == EINVAL; /* a place that cannot be synced */
    int why = errno;
    if (f && fclose(f) != 0 && ok) {
        ok = false;
        why = errno;
    }
    if (ok && rename(name, path) != 0) {
        ok = false;
        why = errno;
    }
    json_decref(root);
    if (ok) return 0;
    if (f) remove(name);
    return fail_with(1, "%s: the conversation cannot be written: %s", path, strerror(why));
}

/* ---- reading ---- */

/* "FILE: FIELD: found FOUND, expected EXPECTED". */
static int refuse(const char *path, const char *field, const json_t *found, const char *expected) {
    char *text = found ? json_dumps(found, JSON_ENCODE_ANY) : NULL;
    bool is_short = text && strlen(text) <= 60;
    const char *what = !found                  ? "nothing"
                       : is_short              ? text
                       : json_is_string(found) ? "a longer text"
                       : json_is_array(found)  ? "a list"
                                               : "an object";
    fail_with(1, "%s: %s: found %s, expected %s", path, field, what, expected);
    free(text);
    return 1;
}

static int read_settings(const char *path, const json_t *object, kvant_sampler_params *p) {
    if (!json_is_object(object)) return refuse(path, "settings", object, "an object");
    for (size_t i = 0; i < N_SETTINGS; i++) {
        const setting *s = &settings[i];
        const json_t *value = json_object_get(object, s->name);
        double x = json_number_value(value);
        char field[64], expected[80];
        snprintf(field, sizeof field, "settings.%s", s->name);
        snprintf(expected, sizeof expected, "a %snumber from %.15g to %.15g", s->whole ? "whole " : "", s->min, s->max);
        bool right = s->whole ? json_is_integer(value) : json_is_number(value);
        if (!right || !(x >= (double)(float)s->min && x <= s->max)) return refuse(path, field, value, expected);
        char *at = (char *)p + s->offset;
        if (s->whole)
            *(int *)at = (int)x;
        else
            *(float *)at = (float)x;
    }
    const json_t *seed = json_object_get(object, "seed");
    if (!json_is_integer(seed)) return refuse(path, "settings.seed", seed, "a whole number");
    p->seed = (uint64_t)json_integer_value(seed);
    return 0;
}

/* A conversation is questions and their answers, in turn. */
static int read_message(const char *path, const json_t *message, size_t i, chat_conversation *talk) {
    const char *role = i % 2 == 0 ? "user" : "assistant";
    char field[64], expected[32];
    snprintf(field, sizeof field, "messages[%zu]", i);
    if (!json_is_object(message)) return refuse(path, field, message, "an object with role and content");
    snprintf(field, sizeof field, "messages[%zu].role", i);
    snprintf(expected, sizeof expected, "\"%s\"", role);
    const json_t *found = json_object_get(message, "role"), *content = json_object_get(message, "content");
    if (!json_is_string(found) || strcmp(json_string_value(found), role) != 0) return refuse(path, field, found, expected);
    snprintf(field, sizeof field, "messages[%zu].content", i);
    if (!json_is_string(content)) return refuse(path, field, content, "a text");
    const char *text = json_string_value(content);
    bool kept = i % 2 == 0 ? chat_conversation_ask(talk, text) : chat_conversation_answer(talk, text);
    return kept ? 0 : fail_with(1, "%s: out of memory", path);
}

static int read_messages(const char *path, const json_t *list, chat_conversation *talk) {
    if (!json_is_array(list)) return refuse(path, "messages", list, "a list");
    size_t n = json_array_size(list);
    int code = 0;
    for (size_t i = 0; i < n && !code; i++)
        code = read_message(path, json_array_get(list, i), i, talk);
    if (!code && n % 2 != 0) return fail_with(1, "%s: messages: found %zu, expected an answer to the last question", path, n);
    return code;
}

static int read_root(const char *path, const json_t *root, chat_conversation *talk, chat_file_info *info) {
    const json_t *version = json_object_get(root, VERSION_KEY), *model = json_object_get(root, "model"),
                 *system = json_object_get(root, "system");
    if (!json_is_object(root) || !version)
        return fail_with(1, "%s: is no conversation that /save has written: %s is missing", path, VERSION_KEY);
    if (json_integer_value(version) != CHAT_FILE_VERSION)
        return refuse(path, VERSION_KEY, version, "1; another version of kvant wrote it");
    if (!json_is_string(model)) return refuse(path, "model", model, "the model's name");
    snprintf(info->model, sizeof info->model, "%s", json_string_value(model));
    if (!json_is_string(system) && !json_is_null(system)) return refuse(path, "system", system, "a text, or null");
    int code = read_settings(path, json_object_get(root, "settings"), &info->sampling);
    if (!code) code = read_messages(path, json_object_get(root, "messages"), talk);
    if (!code && json_is_string(system) && !chat_conversation_set_system(talk, json_string_value(system)))
        code = fail_with(1, "%s: out of memory", path);
    return code;
}

int chat_file_load(const char *path, chat_conversation *talk, chat_file_info *info) {
    char *data = NULL;
    size_t size = 0;
    json_error_t error;
    int code = read_text(path, CHAT_FILE_MAX, &data, &size);
    if (code) return code;
    json_t *root = json_loadb(data, size, JSON_REJECT_DUPLICATES, &error);
    free(data);
    if (!root) return fail_with(1, "%s: line %d: is not JSON: %s", path, error.line, error.text);
    kvant_sampler_params_default(&info->sampling);
    code = read_root(path, root, talk, info);
    json_decref(root);
    if (code) chat_conversation_free(talk);
    return code;
}
