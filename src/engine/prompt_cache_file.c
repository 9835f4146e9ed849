// SPDX-License-Identifier: MIT
/* prompt_cache_file.c: opens a prompt-cache file of mlx-lm: which arrays belong to which layer, and that all of it fits the
 * model.
 *
 * Names are places in a tree of lists: "3.0.1" is item 1 of item 0 of layer 3. mlx-lm 0.32 keeps the numbers of a layer as arrays
 * without dimensions behind its K and V, and has the classes second in its metadata; before, they were texts in the metadata,
 * which had the classes third. Both are read. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/half.h"
#include "engine/prompt_cache.h"

#define K 0
#define V 1
#define TOKENS_MAX (INT64_C(1) << 27)
#define MAX_NUMBERS 5

static const char *const side_names[] = {"keys", "values"};

typedef struct reader {
    kvant_prompt_file *f;
    const char *path;
    int n_kv_head, head_dim;
    int layer; /* the one that is read */
    kvant_error *err;
} reader;

/* ---- numbers ---- */

static kvant_status parse_number(const reader *r, const char *what, const char *text, int64_t *out) {
    char *end;
    long long value = text ? strtoll(text, &end, 10) : 0;
    if (!text || *text == '\0' || *end != '\0' || value < 0 || value > TOKENS_MAX)
        return kvant_fail(r->err, KVANT_EFORMAT, "%s: layer %d: its %s is not a number from 0 to %" PRId64, r->path, r->layer,
                          what, TOKENS_MAX);
    *out = value;
    return KVANT_OK;
}

/* The number `index` of a layer, as mlx-lm counts what follows K and V. */
static kvant_status read_array_number(const reader *r, int index, const char *what, int64_t *out) {
    char name[48];
    snprintf(name, sizeof name, "%d.%d", r->layer, index);
    const kvant_safetensor *t = kvant_safetensors_find(r->f->file, name);
    if (!t) return kvant_fail(r->err, KVANT_EFORMAT, "%s: layer %d has no %s (array %s)", r->path, r->layer, what, name);
    bool is_wide = t->type == KVANT_ST_I64 || t->type == KVANT_ST_U64;
    bool is_number = is_wide || t->type == KVANT_ST_I32 || t->type == KVANT_ST_U32;
    if (!is_number || t->bytes != (is_wide ? 8u : 4u))
        return kvant_fail(r->err, KVANT_EFORMAT, "%s: layer %d: its %s (array %s) is %zu bytes of %s, expected one whole number",
                          r->path, r->layer, what, name, t->bytes, kvant_safetensors_type_name(t->type));
    uint64_t value = is_wide ? kvant_read_u64(t->data) : kvant_read_u32(t->data);
    if (value > (uint64_t)TOKENS_MAX)
        return kvant_fail(r->err, KVANT_EFORMAT, "%s: layer %d: its %s is not a number from 0 to %" PRId64, r->path, r->layer,
                          what, TOKENS_MAX);
    *out = (int64_t)value;
    return KVANT_OK;
}

/* The texts of a layer's state in the older metadata; how many there are. */
static int find_text_numbers(const reader *r, const char *out[MAX_NUMBERS]) {
    int n = 0;
    for (char key[48]; n < MAX_NUMBERS; n++) {
        snprintf(key, sizeof key, "0.%d.%d", r->layer, n);
        if (!(out[n] = kvant_safetensors_texts_find(&r->f->texts, key))) break;
    }
    return n;
}

static kvant_status read_quantized_numbers(const reader *r, kvant_prompt_layer *l) {
    static const char *const names[] = {"offset", "group_size", "bits"};
    int64_t *const fields[] = {&l->offset, &l->group, &l->bits};
    const char *texts[MAX_NUMBERS];
    int n = r->f->by_classes_last ? find_text_numbers(r, texts) : 0;
    if (r->f->by_classes_last && n != 3 && n != 4)
        return kvant_fail(r->err, KVANT_EFORMAT, "%s: layer %d: its state has %d numbers, expected offset, group_size and bits",
                          r->path, r->layer, n);
    for (int i = 0; i < 3; i++)
        KVANT_TRY(n ? parse_number(r, names[i], texts[n - 3 + i], fields[i]) : read_array_number(r, 2 + i, names[i], fields[i]));
    return KVANT_OK;
}

static kvant_status read_rotating_numbers(const reader *r, kvant_prompt_layer *l) {
    const char *texts[MAX_NUMBERS];
    if (!r->f->by_classes_last) {
        KVANT_TRY(read_array_number(r, 2, "offset", &l->offset));
        KVANT_TRY(read_array_number(r, 3, "keep", &l->keep));
        KVANT_TRY(read_array_number(r, 4, "max_size", &l->max_size));
        return read_array_number(r, 5, "index", &l->at);
    }
    int n = find_text_numbers(r, texts);
    if (n != 4 && n != 5)
        return kvant_fail(r->err, KVANT_EFORMAT,
                          "%s: layer %d: its state has %d numbers, expected keep, max_size, offset and index", r->path, r->layer,
                          n);
    KVANT_TRY(parse_number(r, "keep", texts[0], &l->keep));
    KVANT_TRY(parse_number(r, "max_size", texts[1], &l->max_size));
    KVANT_TRY(parse_number(r, "offset", texts[n - 2], &l->offset));
    return parse_number(r, "index", texts[n - 1], &l->at);
}

/* ---- arrays ---- */

/* [1][n_kv_head][rows][columns] of a layer; rows are those of the layer's first array. */
static kvant_status find_array(const reader *r, kvant_prompt_layer *l, int side, int part, int64_t columns,
                               const kvant_safetensor **out) {
    char name[48];
    if (l->kind == KVANT_PROMPT_QUANTIZED)
        snprintf(name, sizeof name, "%d.%d.%d", r->layer, side, part);
    else
        snprintf(name, sizeof name, "%d.%d", r->layer, side);
    const kvant_safetensor *t = kvant_safetensors_find(r->f->file, name);
    if (!t)
        return kvant_fail(r->err, KVANT_EFORMAT, "%s: layer %d has no %s (array %s)", r->path, r->layer, side_names[side], name);
    if (t->n_dims != 4)
        return kvant_fail(r->err, KVANT_EFORMAT, "%s: array %s has %d dimensions, expected 4: batch, KV heads, tokens, elements",
                          r->path, name, t->n_dims);
    if (t->dims[0] != 1)
        return kvant_fail(r->err, KVANT_EUNSUPPORTED,
                          "%s: array %s is of a batch of %" PRId64 " prompts; Kvant reads files of one", r->path, name,
                          t->dims[0]);
    if (t->dims[1] != r->n_kv_head || t->dims[3] != columns)
        return kvant_fail(r->err, KVANT_EINVAL,
                          "%s: array %s has %" PRId64 " KV heads and %" PRId64 " columns, but the model has %d and %" PRId64
                          ": it is of another model",
                          r->path, name, t->dims[1], t->dims[3], r->n_kv_head, columns);
    if (l->rows == 0) l->rows = t->dims[2];
    if (t->dims[2] != l->rows)
        return kvant_fail(r->err, KVANT_EFORMAT, "%s: array %s has %" PRId64 " rows, but others of its layer have %" PRId64,
                          r->path, name, t->dims[2], l->rows);
    bool is_codes = l->kind == KVANT_PROMPT_QUANTIZED && part == 0;
    bool is_float = t->type == KVANT_ST_F16 || t->type == KVANT_ST_BF16 || t->type == KVANT_ST_F32;
    if (is_codes ? t->type != KVANT_ST_U32 : !is_float)
        return kvant_fail(r->err, KVANT_EUNSUPPORTED, "%s: array %s is %s, expected %s", r->path, name,
                          kvant_safetensors_type_name(t->type), is_codes ? "U32" : "F16, BF16 or F32");
    *out = t;
    return KVANT_OK;
}

static kvant_status check_group(const reader *r, const kvant_prompt_layer *l) {
    bool bits_known = (l->bits >= 2 && l->bits <= 6) || l->bits == 8;
    bool group_known = l->group == 32 || l->group == 64 || l->group == 128;
    if (!bits_known || !group_known || r->head_dim % l->group != 0)
        return kvant_fail(r->err, KVANT_EFORMAT,
                          "%s: layer %d: %" PRId64 " bits in groups of %" PRId64 " do not fit heads of %d elements; expected "
                          "2, 3, 4, 5, 6 or 8 bits and groups of 32, 64 or 128",
                          r->path, r->layer, l->bits, l->group, r->head_dim);
    return KVANT_OK;
}

/* Which tokens the rows are. */
static kvant_status place_rows(const reader *r, kvant_prompt_layer *l) {
    if (l->kind != KVANT_PROMPT_ROTATING) {
        if (l->offset > l->rows)
            return kvant_fail(r->err, KVANT_EFORMAT,
                              "%s: layer %d claims %" PRId64 " tokens, but its arrays have %" PRId64 " rows", r->path, r->layer,
                              l->offset, l->rows);
        l->n_last = l->offset;
        return KVANT_OK;
    }
    int64_t used = l->at == l->rows || l->at < l->offset ? l->rows : l->at;
    bool fits = l->keep < l->max_size && l->at <= l->rows && used <= l->offset && (used == l->offset || l->at >= l->keep);
    if (!fits || (used < l->offset && used < l->max_size))
        return kvant_fail(r->err, KVANT_EFORMAT,
                          "%s: layer %d: a ring of %" PRId64 " rows cannot have offset %" PRId64 ", index %" PRId64
                          ", keep %" PRId64 " and max_size %" PRId64,
                          r->path, r->layer, l->rows, l->offset, l->at, l->keep, l->max_size);
    l->n_first = used < l->offset ? l->keep : 0;
    l->n_last = used - l->n_first;
    return KVANT_OK;
}

static kvant_status read_layer(const reader *r, const char *class, kvant_prompt_layer *l) {
    static const struct {
        const char *name;
        kvant_prompt_kind kind;
    } kinds[] = {{"KVCache", KVANT_PROMPT_PLAIN},
                 {"QuantizedKVCache", KVANT_PROMPT_QUANTIZED},
                 {"RotatingKVCache", KVANT_PROMPT_ROTATING}};
    size_t kind = 0, n_kinds = sizeof kinds / sizeof *kinds;
    while (kind < n_kinds && strcmp(class, kinds[kind].name) != 0)
        kind++;
    if (kind == n_kinds)
        return kvant_fail(r->err, KVANT_EUNSUPPORTED,
                          "%s: layer %d is of another class than KVCache, QuantizedKVCache and "
                          "RotatingKVCache, which are the ones that Kvant reads",
                          r->path, r->layer);
    l->kind = kinds[kind].kind;
    if (l->kind == KVANT_PROMPT_ROTATING) KVANT_TRY(read_rotating_numbers(r, l));
    if (l->kind == KVANT_PROMPT_QUANTIZED) {
        KVANT_TRY(read_quantized_numbers(r, l));
        KVANT_TRY(check_group(r, l));
    }
    for (int side = K; side <= V; side++) {
        kvant_prompt_side *s = &l->sides[side];
        int64_t columns = l->kind == KVANT_PROMPT_QUANTIZED ? r->head_dim * l->bits / 32 : r->head_dim;
        KVANT_TRY(find_array(r, l, side, 0, columns, &s->values));
        if (l->kind != KVANT_PROMPT_QUANTIZED) continue;
        KVANT_TRY(find_array(r, l, side, 1, r->head_dim / l->group, &s->scales));
        KVANT_TRY(find_array(r, l, side, 2, r->head_dim / l->group, &s->biases));
    }
    if (l->kind == KVANT_PROMPT_PLAIN) {
        if (r->f->by_classes_last)
            l->offset = l->rows;
        else
            KVANT_TRY(read_array_number(r, 2, "offset", &l->offset));
    }
    return place_rows(r, l);
}

/* ---- the file ---- */

static const char *find_class(const kvant_prompt_file *f, int layer) {
    char key[32];
    snprintf(key, sizeof key, "%d.%d", f->by_classes_last ? 2 : 1, layer);
    return kvant_safetensors_texts_find(&f->texts, key);
}

static bool ends_in_cache(const char *text) {
    size_t n = text ? strlen(text) : 0;
    return n >= 5 && strcmp(text + n - 5, "Cache") == 0;
}

static kvant_status read_layers(reader *r, int n_layer) {
    kvant_prompt_file *f = r->f;
    f->by_classes_last = !ends_in_cache(find_class(f, 0));
    if (!ends_in_cache(find_class(f, 0)))
        return kvant_fail(r->err, KVANT_EFORMAT, "%s: is not a prompt cache of mlx-lm: its metadata name no class of a cache",
                          r->path);
    int n = 0;
    while (n <= n_layer && find_class(f, n))
        n++;
    if (n != n_layer)
        return kvant_fail(r->err, KVANT_EINVAL, "%s: holds %s%d layers, but the model has %d: it is of another model", r->path,
                          n > n_layer ? "more than " : "", n > n_layer ? n_layer : n, n_layer);
    f->layers = kvant_alloc((size_t)n_layer, sizeof *f->layers);
    if (!f->layers) return kvant_fail(r->err, KVANT_ENOMEM, "%s: no memory for %d layers", r->path, n_layer);
    f->n_layer = n_layer;
    for (r->layer = 0; r->layer < n_layer; r->layer++) {
        KVANT_TRY(read_layer(r, find_class(f, r->layer), &f->layers[r->layer]));
        if (f->layers[r->layer].offset != f->layers[0].offset)
            return kvant_fail(r->err, KVANT_EFORMAT, "%s: layer %d has %" PRId64 " tokens, but layer 0 has %" PRId64, r->path,
                              r->layer, f->layers[r->layer].offset, f->layers[0].offset);
    }
    return KVANT_OK;
}

kvant_status kvant_prompt_file_open(const char *path, int n_layer, int n_kv_head, int head_dim, kvant_prompt_file *out,
                                    kvant_error *err) {
    *out = (kvant_prompt_file){0};
    reader r = {.f = out, .path = path, .n_kv_head = n_kv_head, .head_dim = head_dim, .err = err};
    KVANT_TRY(kvant_safetensors_open(path, &out->file, err));
    kvant_status st = kvant_safetensors_texts_read(out->file, &out->texts, err);
    if (st == KVANT_OK) st = read_layers(&r, n_layer);
    if (st != KVANT_OK) kvant_prompt_file_close(out);
    return st;
}

void kvant_prompt_file_close(kvant_prompt_file *f) {
    kvant_free(f->layers);
    kvant_safetensors_texts_free(&f->texts);
    kvant_safetensors_close(f->file);
    *f = (kvant_prompt_file){0};
}

const char *kvant_prompt_file_text(const kvant_prompt_file *f, const char *name) {
    char key[96];
    snprintf(key, sizeof key, "%d.%s", f->by_classes_last ? 1 : 0, name);
    return kvant_safetensors_texts_find(&f->texts, key);
}

/* ---- rows ---- */

int64_t kvant_prompt_row(const kvant_prompt_layer *l, int64_t token) {
    int64_t first_last = l->offset - l->n_last; /* the oldest of the latest tokens */
    if (token < l->n_first) return token;
    if (token < first_last) return -1;
    int64_t n = l->n_first + token - first_last; /* in the order of time */
    bool is_ring = l->kind == KVANT_PROMPT_ROTATING && l->at < l->offset && l->at != l->rows;
    if (!is_ring || n < l->keep) return n;
    int64_t row = n - l->keep + l->at; /* the first kept ones, the rows from `at` on, the rows before it */
    return row < l->rows ? row : row - l->rows + l->keep;
}

static float float_at(const kvant_safetensor *t, size_t i) {
    if (t->type == KVANT_ST_F32) return kvant_bits_f32(kvant_read_u32(t->data + 4 * i));
    uint16_t half = kvant_read_u16(t->data + 2 * i);
    return t->type == KVANT_ST_F16 ? kvant_f16_to_f32(half) : kvant_bf16_to_f32(half);
}

void kvant_prompt_get_codes(const kvant_prompt_layer *l, int side, int kv_head, int64_t row, int head_dim, uint8_t *codes,
                            float *scales, float *biases) {
    const kvant_prompt_side *s = &l->sides[side];
    size_t at = (size_t)kv_head * (size_t)l->rows + (size_t)row, bits = (size_t)l->bits, n_group = (size_t)(head_dim / l->group);
    const uint8_t *stream = s->values->data + at * (size_t)head_dim * bits / 8;
    for (size_t i = 0; i < (size_t)head_dim; i++) {
        size_t bit = i * bits, byte = bit / 8;
        unsigned two = stream[byte];
        if (bit % 8 + bits > 8) two |= (unsigned)stream[byte + 1] << 8;
        codes[i] = (uint8_t)(two >> bit % 8 & ((1u << bits) - 1));
    }
    for (size_t g = 0; g < n_group; g++) {
        scales[g] = float_at(s->scales, at * n_group + g);
        biases[g] = float_at(s->biases, at * n_group + g);
    }
}

void kvant_prompt_get(const kvant_prompt_layer *l, int side, int kv_head, int64_t row, int head_dim, float *x) {
    if (l->kind != KVANT_PROMPT_QUANTIZED) {
        size_t at = ((size_t)kv_head * (size_t)l->rows + (size_t)row) * (size_t)head_dim;
        for (int i = 0; i < head_dim; i++)
            x[i] = float_at(l->sides[side].values, at + (size_t)i);
        return;
    }
    uint8_t codes[KVANT_HEAD_DIM_MAX];
    float scales[KVANT_HEAD_DIM_MAX / 32], biases[KVANT_HEAD_DIM_MAX / 32];
    kvant_prompt_get_codes(l, side, kv_head, row, head_dim, codes, scales, biases);
    for (int i = 0; i < head_dim; i++)
        x[i] = scales[i / l->group] * (float)codes[i] + biases[i / l->group];
}

bool kvant_prompt_key_order(const kvant_model *m, uint16_t *order) {
    static const char *const rearranged[] = {"llama", "mistral", "mistral3", "granite", "smollm3"};
    int d = m->info.head_dim;
    bool moves = false;
    for (size_t i = 0; i < sizeof rearranged / sizeof *rearranged; i++)
        moves = moves || strcmp(m->info.architecture, rearranged[i]) == 0;
    if (kvant_gguf_find(m->file, "kvant.rope.pairs")) moves = false; /* a folder's weights are as they were */
    for (int i = 0; i < d; i++)
        order[i] = (uint16_t)(moves ? i / 2 + i % 2 * (d / 2) : i);
    return moves;
}
