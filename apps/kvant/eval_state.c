// SPDX-License-Identifier: MIT
/* eval_state.c: the file of --state.
 *
 * Divergences are floats that must come back exactly, infinity included, which JSON numbers cannot promise: they are one string
 * of eight hexadecimal digits a value. All else is plain JSON. Reading checks everything against the settings first, so that no
 * number of the file can lead outside an array. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "eval_state.h"

#define HEX_DIGITS 8

/* ---- results ---- */

bool eval_result_init(eval_result *r, const char *name, int n_prompts) {
    *r = (eval_result){.bits = NAN};
    snprintf(r->name, sizeof r->name, "%s", name);
    size_t room = n_prompts > 0 ? (size_t)n_prompts : 1;
    r->found = calloc(room, sizeof *r->found);
    r->differs = calloc(room, sizeof *r->differs);
    return r->found && r->differs;
}

void eval_result_free(eval_result *r) {
    divergence_sample_free(&r->sample);
    free(r->found);
    free(r->differs);
    r->found = r->differs = NULL;
}

static bool fail(char *why, size_t size, const char *fmt, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 3, 4)))
#endif
    ;

static bool fail(char *why, size_t size, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    vsnprintf(why, size, fmt, args);
    va_end(args);
    return false;
}

/* ---- writing ---- */

static json_t *floats_to_json(const float *x, int64_t n) {
    static const char digits[] = "0123456789abcdef";
    char *text = malloc((size_t)n * HEX_DIGITS + 1);
    if (!text) return NULL;
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        for (int k = 0; k < HEX_DIGITS; k++)
            text[i * HEX_DIGITS + k] = digits[bits >> (28 - 4 * k) & 15];
    }
    json_t *json = json_stringn(text, (size_t)n * HEX_DIGITS);
    free(text);
    return json;
}

static json_t *ints_to_json(const int *x, int n) {
    json_t *array = json_array();
    for (int i = 0; i < n; i++)
        json_array_append_new(array, json_integer(x[i]));
    return array;
}

static json_t *result_to_json(const eval_state *s, const eval_result *r) {
    json_t *row = json_object();
    json_object_set_new(row, "kv", json_string(r->name));
    json_object_set_new(row, "bits", isnan(r->bits) ? json_null() : json_real(r->bits));
    json_object_set_new(row, "positions", json_integer(r->sample.n));
    json_object_set_new(row, "same_top", json_integer(r->sample.same_top));
    json_object_set_new(row, "nll", isfinite(r->sample.nll) ? json_real(r->sample.nll) : json_null());
    json_object_set_new(row, "predicted", json_integer(r->sample.n_nll));
    json_object_set_new(row, "passkey", ints_to_json(r->found, s->n_passkey));
    json_object_set_new(row, "greedy", ints_to_json(r->differs, s->n_greedy));
    json_object_set_new(row, "kl", floats_to_json(r->sample.kl, r->sample.n));
    return row;
}

static json_t *state_to_json(const eval_state *s) {
    json_t *root = json_object(), *rows = json_array();
    json_object_set_new(root, "kvant_eval_state", json_integer(EVAL_STATE_VERSION));
    json_object_set(root, "settings", s->settings);
    json_object_set_new(root, "scored", json_integer(s->scored));
    json_object_set_new(root, "passkey_prompts", json_integer(s->n_passkey));
    json_object_set_new(root, "greedy_prompts", json_integer(s->n_greedy));
    for (int i = 0; i < s->n_results; i++)
        json_array_append_new(rows, result_to_json(s, s->results[i]));
    json_object_set_new(root, "rows", rows);
    return root;
}

/* A name beside the file that replaces it when it is complete. */
static char *temporary_name(const char *path) {
    size_t n = strlen(path);
    char *name = malloc(n + 5);
    if (name) {
        memcpy(name, path, n);
        memcpy(name + n, ".new", 5);
    }
    return name;
}

bool eval_state_save(const eval_state *s, const char *path, char *why, size_t why_size) {
    char *name = temporary_name(path);
    json_t *root = name ? state_to_json(s) : NULL;
    FILE *f = root ? fopen(name, "wb") : NULL;
    bool ok = f && json_dumpf(root, f, JSON_INDENT(1) | JSON_REAL_PRECISION(17)) == 0 && fputc('\n', f) != EOF;
    if (f && fclose(f) != 0) ok = false;
#ifdef _WIN32
    if (ok) remove(path); /* rename does not replace there */
#endif
    if (ok && rename(name, path) != 0) ok = false;
    if (!ok) {
        fail(why, why_size, "%s: the state cannot be written: %s", path, root ? strerror(errno) : "out of memory");
        if (f) remove(name);
    }
    json_decref(root);
    free(name);
    return ok;
}

/* ---- reading ---- */

typedef struct reader {
    const char *path;
    char *why;
    size_t why_size;
} reader;

static bool damaged(const reader *in, const char *what) {
    return fail(in->why, in->why_size, "%s: %s (a damaged file? without it the evaluation starts from the beginning)", in->path,
                what);
}

static void show_value(const json_t *value, char *out, size_t size) {
    char *text = value ? json_dumps(value, JSON_ENCODE_ANY) : NULL;
    snprintf(out, size, "%.200s", text ? text : "absent");
    free(text);
}

static bool check_settings(const reader *in, const json_t *theirs, json_t *ours) {
    const char *key;
    json_t *value;
    if (!json_is_object(theirs)) return damaged(in, "settings is not an object");
    json_object_foreach(ours, key, value) {
        const json_t *other = json_object_get(theirs, key);
        char a[256], b[256];
        if (json_equal(value, other)) continue;
        show_value(other, a, sizeof a);
        show_value(value, b, sizeof b);
        return fail(in->why, in->why_size,
                    "%s: it belongs to a run of other settings: %s is %s there and %s now; take another --state file", in->path,
                    key, a, b);
    }
    return true;
}

/* An integer of 0...max; false: it is not one. */
static bool read_integer(const json_t *object, const char *key, int64_t max, int64_t *out) {
    const json_t *j = json_object_get(object, key);
    *out = json_is_integer(j) ? (int64_t)json_integer_value(j) : -1;
    return *out >= 0 && *out <= max;
}

static bool read_ints(const json_t *array, int n, int max, int *out) {
    if (!json_is_array(array) || json_array_size(array) != (size_t)n) return false;
    for (int i = 0; i < n; i++) {
        const json_t *j = json_array_get(array, (size_t)i);
        if (!json_is_integer(j) || json_integer_value(j) < 0 || json_integer_value(j) > max) return false;
        out[i] = (int)json_integer_value(j);
    }
    return true;
}

static int hex_value(char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; }

/* A divergence is not negative and is a number, or infinite. */
static bool read_float(const char *text, float *out) {
    uint32_t bits = 0;
    for (int k = 0; k < HEX_DIGITS; k++) {
        int digit = hex_value(text[k]);
        if (digit < 0) return false;
        bits = bits << 4 | (uint32_t)digit;
    }
    memcpy(out, &bits, sizeof *out);
    return *out >= 0;
}

static bool read_result(const eval_state *s, const json_t *row, eval_result *r) {
    const json_t *kl = json_object_get(row, "kl"), *bits = json_object_get(row, "bits"), *nll = json_object_get(row, "nll");
    const char *kv = json_string_value(json_object_get(row, "kv"));
    int64_t positions, same_top, predicted;
    if (!kv || strcmp(kv, r->name) != 0) return false;
    if (!read_integer(row, "positions", s->scored, &positions) || positions != s->scored) return false;
    if (!read_integer(row, "same_top", positions, &same_top) || !read_integer(row, "predicted", positions, &predicted))
        return false;
    if (!json_is_string(kl) || json_string_length(kl) != (size_t)positions * HEX_DIGITS) return false;
    if (!json_is_null(bits) && !(json_is_number(bits) && json_number_value(bits) > 0)) return false;
    if (!json_is_null(nll) && !(json_is_number(nll) && json_number_value(nll) >= 0)) return false;
    if (!read_ints(json_object_get(row, "passkey"), s->n_passkey, 1, r->found)) return false;
    if (!read_ints(json_object_get(row, "greedy"), s->n_greedy, s->n_gen, r->differs)) return false;
    for (int64_t i = 0; i < positions; i++) {
        float value;
        if (!read_float(json_string_value(kl) + i * HEX_DIGITS, &value)) return false;
        if (!divergence_sample_add(&r->sample, (double)value, false)) return false;
    }
    r->sample.same_top = same_top;
    r->sample.n_nll = predicted;
    r->sample.nll = json_is_null(nll) ? INFINITY : json_number_value(nll);
    r->bits = json_is_null(bits) ? NAN : json_number_value(bits);
    return true;
}

static bool read_state(eval_state *s, const json_t *root, const reader *in) {
    int64_t version, n_passkey, n_greedy;
    if (!json_is_integer(json_object_get(root, "kvant_eval_state"))) return damaged(in, "it is not the state of an evaluation");
    if (!read_integer(root, "kvant_eval_state", EVAL_STATE_VERSION, &version) || version != EVAL_STATE_VERSION)
        return fail(in->why, in->why_size, "%s: kvant_eval_state is %" JSON_INTEGER_FORMAT ", this program writes and reads %d",
                    in->path, json_integer_value(json_object_get(root, "kvant_eval_state")), EVAL_STATE_VERSION);
    if (!check_settings(in, json_object_get(root, "settings"), s->settings)) return false;
    if (!read_integer(root, "scored", s->n_scored, &s->scored))
        return damaged(in, "scored is not a number of tokens of this run");
    if (!read_integer(root, "passkey_prompts", s->n_prompts, &n_passkey) ||
        !read_integer(root, "greedy_prompts", s->n_prompts, &n_greedy))
        return damaged(in, "passkey_prompts or greedy_prompts is not a number of prompts of this run");
    s->n_passkey = (int)n_passkey;
    s->n_greedy = (int)n_greedy;
    const json_t *rows = json_object_get(root, "rows");
    if (!json_is_array(rows) || json_array_size(rows) != (size_t)s->n_results)
        return damaged(in, "rows are not those of this run");
    for (int i = 0; i < s->n_results; i++) {
        char what[EVAL_NAME_MAX + 64];
        if (read_result(s, json_array_get(rows, (size_t)i), s->results[i])) continue;
        snprintf(what, sizeof what, "rows[%d], of %s, does not hold what was scored", i, s->results[i]->name);
        return damaged(in, what);
    }
    return true;
}

/* What a refused file left behind. */
static void forget(eval_state *s) {
    s->scored = s->n_passkey = s->n_greedy = 0;
    for (int i = 0; i < s->n_results; i++) {
        divergence_sample_free(&s->results[i]->sample);
        s->results[i]->bits = NAN;
    }
}

/* The whole file, NULL where it is longer than any state of this run. */
static char *read_file(FILE *f, size_t max, size_t *size) {
    char *data = NULL;
    size_t room = 0;
    *size = 0;
    for (;;) {
        if (*size == room) {
            room = room ? 2 * room : 1 << 16;
            char *grown = *size > max ? NULL : realloc(data, room);
            if (!grown) break;
            data = grown;
        }
        size_t n = fread(data + *size, 1, room - *size, f);
        *size += n;
        if (n == 0) return data;
    }
    free(data);
    return NULL;
}

bool eval_state_load(eval_state *s, const char *path, bool *found, char *why, size_t why_size) {
    const reader in = {path, why, why_size};
    size_t size, row = (size_t)s->n_scored * HEX_DIGITS + (size_t)s->n_prompts * 64 + 4096;
    *found = false;
    FILE *f = fopen(path, "rb");
    if (!f && errno == ENOENT) return true;
    if (!f) return fail(why, why_size, "%s: %s", path, strerror(errno));
    char *data = read_file(f, row * (size_t)(s->n_results + 16), &size);
    fclose(f);
    if (!data) return damaged(&in, "it cannot be read, or is longer than the state of this run can be");
    json_error_t error;
    json_t *root = json_loadb(data, size, 0, &error);
    free(data);
    if (!root) {
        char what[JSON_ERROR_TEXT_LENGTH + 64];
        snprintf(what, sizeof what, "line %d: %s", error.line, error.text);
        return damaged(&in, what);
    }
    *found = read_state(s, root, &in);
    if (!*found) forget(s);
    json_decref(root);
    return *found;
}
