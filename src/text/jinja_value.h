// SPDX-License-Identifier: MIT
/* jinja_value.h: the values of templates from inside: texts, lists, dicts, and the heap they live in. */
#ifndef KVANT_TEXT_JINJA_VALUE_H
#define KVANT_TEXT_JINJA_VALUE_H

#include <string.h>

#include "text/jinja.h"

/* Bytes never change, so texts may share them. */
typedef struct kvant_jinja_text {
    const char *bytes;
    size_t size, n_chars; /* characters; equal to size when all are ASCII */
} kvant_jinja_text;

typedef struct kvant_jinja_items {
    kvant_jinja_value *data;
    size_t n, room;
    const char *view; /* how Python names a list that is a view ("dict_keys"), or NULL */
} kvant_jinja_items;

typedef struct kvant_jinja_entry {
    kvant_jinja_value key, value;
} kvant_jinja_entry;

/* In order of insertion; n_slots: a power of two, or 0 while the entries are few. A slot holds an entry's number plus 1. */
typedef struct kvant_jinja_map {
    kvant_jinja_entry *entries;
    size_t n, room;
    uint32_t *slots;
    size_t n_slots;
} kvant_jinja_map;

struct kvant_jinja_chunk;
struct kvant_jinja_heap {
    struct kvant_jinja_chunk *chunks; /* the current one first */
    size_t used, max;
    kvant_status failure; /* why the last allocation failed */
};

/* Zeroed; NULL: see h->failure. */
void *kvant_jinja_alloc(kvant_jinja_heap *h, size_t n, size_t size);
/* In place where p was allocated last. The new bytes are not zeroed. */
void *kvant_jinja_grow(kvant_jinja_heap *h, void *p, size_t old_bytes, size_t new_bytes);

/* A text in the making. Failures stick: kvant_jinja_builder_finish reports them. */
typedef struct kvant_jinja_builder {
    kvant_jinja_heap *heap;
    char *data;
    size_t size, room, max;
    bool failed;
} kvant_jinja_builder;
void kvant_jinja_builder_init(kvant_jinja_builder *b, kvant_jinja_heap *h);
void kvant_jinja_add(kvant_jinja_builder *b, const char *bytes, size_t size);
void kvant_jinja_add_str(kvant_jinja_builder *b, const char *s);
void kvant_jinja_add_repeated(kvant_jinja_builder *b, const char *bytes, size_t size, size_t times);
/* KVANT_EFULL, KVANT_ENOMEM */
kvant_status kvant_jinja_builder_finish(kvant_jinja_builder *b, kvant_jinja_value *out);

/* A text that shares its bytes. */
kvant_status kvant_jinja_share(kvant_jinja_heap *h, const char *bytes, size_t size, kvant_jinja_value *out);
size_t kvant_jinja_count_chars(const char *bytes, size_t size);
/* The byte where a character begins; the text's size for the character behind the last. */
size_t kvant_jinja_char_offset(const kvant_jinja_text *t, size_t index);
/* One character or space of Unicode at p; the bytes read. */
bool kvant_jinja_is_space(uint32_t code);

kvant_status kvant_jinja_new_items(kvant_jinja_heap *h, kvant_jinja_kind kind, size_t room, kvant_jinja_value *out);
kvant_status kvant_jinja_push(kvant_jinja_heap *h, kvant_jinja_items *items, kvant_jinja_value v);

/* NULL when absent or when the key cannot be one. */
kvant_jinja_value *kvant_jinja_map_find(const kvant_jinja_map *m, const kvant_jinja_value *key);
kvant_jinja_value *kvant_jinja_map_find_text(const kvant_jinja_map *m, const char *bytes, size_t size);
kvant_status kvant_jinja_map_set(kvant_jinja_heap *h, kvant_jinja_map *m, kvant_jinja_value key, kvant_jinja_value v);
kvant_status kvant_jinja_map_remove(kvant_jinja_heap *h, kvant_jinja_map *m, const kvant_jinja_value *key);
/* Whether a value can be a key: a scalar, or a tuple of such. */
bool kvant_jinja_is_key(const kvant_jinja_value *v, int depth);

bool kvant_jinja_truth(const kvant_jinja_value *v);
/* Python's name of its type. */
const char *kvant_jinja_type_name(const kvant_jinja_value *v);
/* Equality of scalars, texts and other things by identity; not of containers. */
bool kvant_jinja_scalar_equal(const kvant_jinja_value *a, const kvant_jinja_value *b);

static inline bool kvant_jinja_is_number(const kvant_jinja_value *v) {
    return v->kind == JINJA_INT || v->kind == JINJA_FLOAT || v->kind == JINJA_BOOL;
}
static inline bool kvant_jinja_is_integral(const kvant_jinja_value *v) { return v->kind == JINJA_INT || v->kind == JINJA_BOOL; }
static inline int64_t kvant_jinja_integral(const kvant_jinja_value *v) {
    return v->kind == JINJA_BOOL ? (int64_t)v->as.boolean : v->as.integer;
}
static inline double kvant_jinja_real(const kvant_jinja_value *v) {
    return v->kind == JINJA_FLOAT ? v->as.real : (double)kvant_jinja_integral(v);
}
static inline bool kvant_jinja_has_items(const kvant_jinja_value *v) {
    return v->kind == JINJA_LIST || v->kind == JINJA_TUPLE || v->kind == JINJA_ITERATOR;
}
static inline kvant_jinja_value kvant_jinja_int(int64_t i) { return (kvant_jinja_value){.kind = JINJA_INT, .as.integer = i}; }
static inline kvant_jinja_value kvant_jinja_float(double d) { return (kvant_jinja_value){.kind = JINJA_FLOAT, .as.real = d}; }
static inline kvant_jinja_value kvant_jinja_undefined(const char *hint) {
    return (kvant_jinja_value){.kind = JINJA_UNDEFINED, .as.hint = hint};
}
static inline bool kvant_jinja_text_is(const kvant_jinja_value *v, const char *s) {
    return v->kind == JINJA_STRING && v->as.text->size == strlen(s) && memcmp(v->as.text->bytes, s, v->as.text->size) == 0;
}

#endif
