// SPDX-License-Identifier: MIT
/* tokenizer_json.c: makes a tokenizer from a tokenizer.json and the files beside it: the order of reading, the fields of objects,
 * and the sentences. */
#include "text/tokenizer_json.h"

#include <stdio.h>

#include "text/tokenizer_json_internal.h"

#define MAX_ID (1 << 22)

/* ---- sentences ---- */

const char *kvant_json_show(const char *text, char out[48]) {
    size_t n = 0;
    for (; text[n] && n < 40; n++) out[n] = text[n] >= 0x20 && text[n] < 0x7F ? text[n] : '?';
    snprintf(out + n, 8, "%s", text[n] ? "..." : "");
    return out;
}

static const char *type_name(const json_t *x) {
    switch (x ? json_typeof(x) : JSON_NULL) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "an array";
    case JSON_STRING: return "a string";
    case JSON_INTEGER: return "an integer";
    case JSON_REAL: return "a fraction";
    case JSON_TRUE: return "true";
    case JSON_FALSE: return "false";
    default: return x ? "null" : "missing";
    }
}

kvant_status kvant_json_wrong(const kvant_json_reader *j, const char *where, const json_t *found, const char *expected) {
    char text[48], shown[96];
    if (json_is_string(found)) snprintf(shown, sizeof shown, "\"%s\"", kvant_json_show(json_string_value(found), text));
    else if (json_is_integer(found)) snprintf(shown, sizeof shown, "%lld", (long long)json_integer_value(found));
    else snprintf(shown, sizeof shown, "%s", type_name(found));
    return kvant_fail(j->err, KVANT_EFORMAT, "%s/%s: %s is %s, expected %s", j->name, j->file, where, shown, expected);
}

kvant_status kvant_json_refuse(const kvant_json_reader *j, const char *where, const char *what, const char *supported) {
    char shown[48];
    return kvant_fail(j->err, KVANT_EUNSUPPORTED, "%s/%s: %s '%s' is not supported; supported are %s", j->name, j->file, where,
                      kvant_json_show(what, shown), supported);
}

kvant_status kvant_json_no_memory(const kvant_json_reader *j) {
    return kvant_fail(j->err, KVANT_ENOMEM, "%s/%s: no memory for the tokenizer", j->name, j->file);
}

/* ---- fields ---- */

kvant_status kvant_json_flag(const kvant_json_reader *j, const json_t *object, const char *where, const char *key, bool fallback,
                             bool *out) {
    const json_t *x = json_object_get(object, key);
    char field[128];
    *out = fallback;
    if (!x || json_is_null(x)) return KVANT_OK;
    snprintf(field, sizeof field, "%s.%s", where, key);
    if (!json_is_boolean(x)) return kvant_json_wrong(j, field, x, "true or false");
    *out = json_is_true(x);
    return KVANT_OK;
}

kvant_status kvant_json_string(const kvant_json_reader *j, const json_t *object, const char *where, const char *key, const char **out,
                               size_t *size) {
    const json_t *x = json_object_get(object, key);
    char field[128];
    *out = NULL;
    *size = 0;
    if (!x || json_is_null(x)) return KVANT_OK;
    snprintf(field, sizeof field, "%s.%s", where, key);
    if (!json_is_string(x)) return kvant_json_wrong(j, field, x, "a string");
    *out = json_string_value(x);
    *size = json_string_length(x);
    return KVANT_OK;
}

kvant_status kvant_json_int(const kvant_json_reader *j, const json_t *object, const char *where, const char *key, int low, int high,
                            int fallback, int *out) {
    const json_t *x = json_object_get(object, key);
    char field[128], range[64];
    *out = fallback;
    if (!x || json_is_null(x)) return KVANT_OK;
    snprintf(field, sizeof field, "%s.%s", where, key);
    snprintf(range, sizeof range, "an integer from %d to %d", low, high);
    if (!json_is_integer(x) || json_integer_value(x) < low || json_integer_value(x) > high) return kvant_json_wrong(j, field, x, range);
    *out = (int)json_integer_value(x);
    return KVANT_OK;
}

char *kvant_json_copy(const char *text, size_t size) {
    char *copy = kvant_alloc(size + 1, 1);
    if (copy && size) memcpy(copy, text, size);
    return copy;
}

/* ---- tokens ---- */

int32_t kvant_json_find(const kvant_json_reader *j, const char *text, size_t size) {
    int32_t index = j->names.offsets ? kvant_symbols_find(&j->names, text, size) : KVANT_NO_SYMBOL;
    return index < 0 ? -1 : j->name_ids[index];
}

static kvant_status token_room(kvant_json_reader *j, int32_t id, int32_t index) {
    if (id >= j->room) {
        int room = id + 1 > 2 * j->room ? id + 1 : 2 * j->room;
        kvant_json_token *tokens = kvant_realloc(j->tokens, (size_t)room, sizeof *tokens);
        if (!tokens) return KVANT_ENOMEM;
        memset(tokens + j->room, 0, (size_t)(room - j->room) * sizeof *tokens);
        j->tokens = tokens;
        j->room = room;
    }
    if (index >= j->name_room) {
        int room = j->name_room ? 2 * j->name_room : 1024;
        int32_t *ids = kvant_realloc(j->name_ids, (size_t)room, sizeof *ids);
        if (!ids) return KVANT_ENOMEM;
        j->name_ids = ids;
        j->name_room = room;
    }
    return KVANT_OK;
}

kvant_status kvant_json_add_token(kvant_json_reader *j, const char *text, size_t size, json_int_t id, bool in_model) {
    char shown[48];
    kvant_json_show(text, shown);
    /* Holes are allowed, but a few tokens do not make a table of millions. */
    if (id < 0 || id >= MAX_ID || id > 64 * (json_int_t)j->n_named + 65536)
        return kvant_fail(j->err, KVANT_EFORMAT, "%s/%s: token \"%s\" has the id %lld, which is out of range", j->name, j->file, shown,
                          (long long)id);
    if (id < j->n && j->tokens[id].text) {
        char other[48];
        return kvant_fail(j->err, KVANT_EFORMAT, "%s/%s: tokens \"%s\" and \"%s\" both have the id %lld", j->name, j->file,
                          kvant_json_show(j->tokens[id].text, other), shown, (long long)id);
    }
    if (!j->names.offsets && kvant_symbols_init(&j->names, 1024) != KVANT_OK) return kvant_json_no_memory(j);
    int32_t index = j->names.n;
    if (token_room(j, (int32_t)id, index) != KVANT_OK) return kvant_json_no_memory(j);
    kvant_status st = kvant_symbols_add(&j->names, text, size, &index);
    if (st == KVANT_EFORMAT)
        return kvant_fail(j->err, st, "%s/%s: tokens %d and %lld are both \"%s\"", j->name, j->file, (int)j->name_ids[index],
                          (long long)id, shown);
    if (st != KVANT_OK) return kvant_json_no_memory(j);
    j->name_ids[index] = (int32_t)id;
    j->tokens[id] = (kvant_json_token){text, size, 0, in_model};
    j->n_named++;
    if (id >= j->n) j->n = (int)id + 1;
    return KVANT_OK;
}

/* All tokens are known: the tokenizer takes them. */
static kvant_status place_tokens(kvant_json_reader *j) {
    kvant_tokenizer *t = j->t;
    size_t n = (size_t)j->n;
    t->n_token = j->n;
    t->kinds = kvant_alloc(n, sizeof *t->kinds);
    t->ends = kvant_alloc(n, sizeof *t->ends);
    j->r->in_model = kvant_alloc(n, sizeof *j->r->in_model);
    if (!t->kinds || !t->ends || !j->r->in_model || kvant_symbols_init(&t->symbols, j->n) != KVANT_OK) return kvant_json_no_memory(j);
    for (int i = 0; i < j->n; i++) {
        int32_t id;
        const kvant_json_token *x = &j->tokens[i];
        if (kvant_symbols_add(&t->symbols, x->text, x->size, &id) != KVANT_OK) return kvant_json_no_memory(j);
        t->kinds[i] = x->text ? KVANT_IS_NORMAL : KVANT_IS_UNUSED;
        j->r->in_model[i] = x->in_model && x->size;
    }
    return KVANT_OK;
}

/* ---- files ---- */

static kvant_status parse(kvant_json_reader *j, const char *file, kvant_file_text text, json_t **out) {
    json_error_t problem;
    j->file = file;
    if (!text.text) return KVANT_OK;
    if (text.size > KVANT_TOKENIZER_JSON_MAX)
        return kvant_fail(j->err, KVANT_EFORMAT, "%s/%s: it has %zu bytes; at most %zu are read", j->name, file, text.size,
                          KVANT_TOKENIZER_JSON_MAX);
    json_t *root = json_loadb(text.text, text.size, JSON_ALLOW_NUL, &problem);
    if (!root && json_error_code(&problem) == json_error_null_byte_in_key)
        return kvant_fail(j->err, KVANT_EUNSUPPORTED, "%s/%s: line %d: a token or a name with a NUL byte in it is not supported", j->name,
                          file, problem.line);
    if (!root)
        return kvant_fail(j->err, KVANT_EFORMAT, "%s/%s: is not JSON: line %d, column %d cannot be read", j->name, file, problem.line,
                          problem.column);
    *out = root;
    return json_is_object(root) ? KVANT_OK : kvant_json_wrong(j, "the file", root, "an object");
}

static kvant_status read_all(kvant_json_reader *j, const kvant_tokenizer_files *f) {
    KVANT_TRY(parse(j, "tokenizer_config.json", f->tokenizer_config, &j->config));
    KVANT_TRY(parse(j, "special_tokens_map.json", f->special_tokens_map, &j->special_map));
    KVANT_TRY(parse(j, "generation_config.json", f->generation_config, &j->generation));
    KVANT_TRY(parse(j, "config.json", f->config, &j->model_config));
    KVANT_TRY(parse(j, "tokenizer.json", f->tokenizer, &j->root));
    if (!j->root) return kvant_fail(j->err, KVANT_EIO, "%s/tokenizer.json: there is no such file", j->name);
    KVANT_TRY(kvant_json_read_vocabulary(j));
    KVANT_TRY(kvant_json_read_added(j));
    if (j->n == 0) return kvant_fail(j->err, KVANT_EFORMAT, "%s/tokenizer.json: there are no tokens", j->name);
    KVANT_TRY(place_tokens(j));
    KVANT_TRY(kvant_json_read_steps(j));
    KVANT_TRY(kvant_json_place_added(j)); /* needs the normalizer */
    KVANT_TRY(kvant_json_read_model(j));
    KVANT_TRY(kvant_json_read_decoder(j));
    KVANT_TRY(kvant_json_read_template(j));
    return kvant_json_read_special(j);
}

kvant_status kvant_tokenizer_create_from_json(const kvant_tokenizer_files *files, kvant_tokenizer **out, kvant_error *err) {
    kvant_json_reader j = {.name = files->name, .file = "tokenizer.json", .err = err};
    j.t = kvant_alloc(1, sizeof *j.t);
    if (j.t) j.r = j.t->rules = kvant_alloc(1, sizeof *j.r);
    kvant_status st = KVANT_OK;
    if (!j.r) {
        st = kvant_json_no_memory(&j);
    } else {
        j.t->bos = j.t->eos = j.t->unk = -1;
        st = read_all(&j, files);
    }
    if (st == KVANT_OK) *out = j.t;
    else kvant_tokenizer_destroy(j.t);
    json_decref(j.root);
    json_decref(j.config);
    json_decref(j.special_map);
    json_decref(j.generation);
    json_decref(j.model_config);
    kvant_free(j.tokens);
    kvant_symbols_free(&j.names);
    kvant_free(j.name_ids);
    kvant_free(j.added);
    return st;
}

/* ---- the chat template ---- */

/* The text of it in tokenizer_config.json, or NULL. */
static kvant_status find_template(const kvant_json_reader *j, const json_t **out) {
    const json_t *x = json_object_get(j->config, "chat_template"), *entry;
    size_t i;
    *out = NULL;
    if (!x || json_is_null(x)) return KVANT_OK;
    if (json_is_string(x)) {
        *out = x;
        return KVANT_OK;
    }
    if (!json_is_array(x)) return kvant_json_wrong(j, "chat_template", x, "a string or an array of templates");
    json_array_foreach(x, i, entry) {
        const json_t *name = json_object_get(entry, "name"), *text = json_object_get(entry, "template");
        if (!json_is_string(name)) return kvant_json_wrong(j, "chat_template[].name", name, "a string");
        if (!json_is_string(text)) return kvant_json_wrong(j, "chat_template[].template", text, "a string");
        if (strcmp(json_string_value(name), "default") == 0 || json_array_size(x) == 1) *out = text;
    }
    return KVANT_OK;
}

kvant_status kvant_tokenizer_json_template(const kvant_tokenizer_files *files, char **text, size_t *size, kvant_error *err) {
    kvant_json_reader j = {.name = files->name, .err = err};
    const json_t *found = NULL;
    *text = NULL;
    *size = 0;
    if (files->chat_template.text) {
        *text = kvant_json_copy(files->chat_template.text, files->chat_template.size);
        *size = files->chat_template.size;
        return *text ? KVANT_OK : kvant_fail(err, KVANT_ENOMEM, "%s: no memory for the chat template", files->name);
    }
    kvant_status st = parse(&j, "tokenizer_config.json", files->tokenizer_config, &j.config);
    if (st == KVANT_OK) st = find_template(&j, &found);
    if (st == KVANT_OK && found) {
        *size = json_string_length(found);
        *text = kvant_json_copy(json_string_value(found), *size);
        if (!*text) st = kvant_json_no_memory(&j);
    }
    json_decref(j.config);
    return st;
}
