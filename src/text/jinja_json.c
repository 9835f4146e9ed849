// SPDX-License-Identifier: MIT
/* jinja_json.c: JSON texts as values, read by jansson. Objects keep the order of their keys. */
#include <jansson.h>

#include "text/jinja_value.h"

#define MAX_DEPTH 512

static kvant_status convert(kvant_jinja_heap *h, const json_t *j, int depth, kvant_jinja_value *out) {
    kvant_jinja_value v, key;
    const char *name;
    size_t index;
    json_t *item;
    if (depth > MAX_DEPTH) return KVANT_EFULL;
    switch (json_typeof(j)) {
    case JSON_NULL:
        *out = kvant_jinja_none();
        return KVANT_OK;
    case JSON_TRUE:
    case JSON_FALSE:
        *out = kvant_jinja_bool(json_is_true(j));
        return KVANT_OK;
    case JSON_INTEGER:
        *out = kvant_jinja_int(json_integer_value(j));
        return KVANT_OK;
    case JSON_REAL:
        *out = kvant_jinja_float(json_real_value(j));
        return KVANT_OK;
    case JSON_STRING:
        return kvant_jinja_string(h, json_string_value(j), json_string_length(j), out);
    case JSON_ARRAY:
        KVANT_TRY(kvant_jinja_list(h, out));
        json_array_foreach(j, index, item) {
            KVANT_TRY(convert(h, item, depth + 1, &v));
            KVANT_TRY(kvant_jinja_list_add(h, out, v));
        }
        return KVANT_OK;
    case JSON_OBJECT:
        break;
    }
    KVANT_TRY(kvant_jinja_dict(h, out));
    for (void *at = json_object_iter((json_t *)(uintptr_t)j); at; at = json_object_iter_next((json_t *)(uintptr_t)j, at)) {
        name = json_object_iter_key(at);
        KVANT_TRY(kvant_jinja_string(h, name, strlen(name), &key));
        KVANT_TRY(convert(h, json_object_iter_value(at), depth + 1, &v));
        KVANT_TRY(kvant_jinja_map_set(h, out->as.map, key, v));
    }
    return KVANT_OK;
}

kvant_status kvant_jinja_from_json(kvant_jinja_heap *h, const char *name, const char *text, size_t size, kvant_jinja_value *out,
                                   kvant_error *err) {
    json_error_t error;
    json_t *j = json_loadb(text, size, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    if (!j) return kvant_fail(err, KVANT_EINVAL, "%s: line %d: found no JSON (%s), expected JSON", name, error.line, error.text);
    kvant_status st = convert(h, j, 0, out);
    json_decref(j);
    if (st == KVANT_OK) return st;
    return kvant_fail(err, st, "%s: found JSON of more than %zu bytes of values or %d levels, expected less (%s)", name, h->max,
                      MAX_DEPTH, kvant_status_name(st));
}
