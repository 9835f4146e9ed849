// SPDX-License-Identifier: MIT
/* jinja_value.c: the heap, texts, lists and dicts of templates.
 *
 * A heap hands out pieces of chunks and frees them all at once: values need no owners, and a failure needs no cleaning up. */
#include "text/jinja_value.h"

#include <limits.h>
#include <stdalign.h>

#include "text/utf8.h"

#define CHUNK_BYTES ((size_t)64 << 10)
#define FEW 8 /* entries that are searched one by one */

typedef struct kvant_jinja_chunk {
    struct kvant_jinja_chunk *next;
    size_t size, used;
    alignas(max_align_t) char bytes[];
} chunk;

kvant_status kvant_jinja_heap_create(size_t max_bytes, kvant_jinja_heap **out) {
    kvant_jinja_heap *h = kvant_alloc(1, sizeof *h);
    if (!h) return KVANT_ENOMEM;
    h->max = max_bytes;
    *out = h;
    return KVANT_OK;
}

void kvant_jinja_heap_destroy(kvant_jinja_heap *h) {
    if (!h) return;
    for (chunk *c = h->chunks; c;) {
        chunk *next = c->next;
        kvant_free(c);
        c = next;
    }
    kvant_free(h);
}

static void *alloc_bytes(kvant_jinja_heap *h, size_t bytes) {
    size_t align = alignof(max_align_t);
    h->failure = KVANT_EFULL;
    if (bytes > h->max || bytes > SIZE_MAX / 2) return NULL;
    bytes = (bytes + align - 1) / align * align;
    chunk *c = h->chunks;
    if (!c || c->size - c->used < bytes) {
        size_t size = bytes > CHUNK_BYTES / 4 ? bytes : CHUNK_BYTES;
        if (size > h->max || h->used > h->max - size) return NULL;
        chunk *made = kvant_alloc(1, sizeof *made + size);
        if (!made) {
            h->failure = KVANT_ENOMEM;
            return NULL;
        }
        made->size = size;
        h->used += size;
        if (c && size > CHUNK_BYTES &&
            c->size - c->used > CHUNK_BYTES / 4) { /* the current one still has room for small things */
            made->next = c->next;
            c->next = made;
        } else {
            made->next = c;
            h->chunks = made;
        }
        c = made;
    }
    void *p = c->bytes + c->used;
    c->used += bytes;
    return p;
}

void *kvant_jinja_alloc(kvant_jinja_heap *h, size_t n, size_t size) {
    size_t bytes;
    if (!kvant_mul_size(n, size, &bytes)) {
        h->failure = KVANT_EFULL;
        return NULL;
    }
    void *p = alloc_bytes(h, bytes ? bytes : 1);
    if (p) memset(p, 0, bytes);
    return p;
}

void *kvant_jinja_grow(kvant_jinja_heap *h, void *p, size_t old_bytes, size_t new_bytes) {
    size_t align = alignof(max_align_t);
    chunk *c = h->chunks;
    size_t rounded = (old_bytes + align - 1) / align * align;
    if (p && c && new_bytes <= h->max && (char *)p + rounded == c->bytes + c->used) {
        size_t start = (size_t)((char *)p - c->bytes), want = (new_bytes + align - 1) / align * align;
        if (want <= c->size - start) {
            c->used = start + want;
            return p;
        }
    }
    void *grown = alloc_bytes(h, new_bytes);
    if (grown && old_bytes) memcpy(grown, p, old_bytes);
    return grown;
}

void kvant_jinja_builder_init(kvant_jinja_builder *b, kvant_jinja_heap *h) {
    *b = (kvant_jinja_builder){.heap = h, .max = SIZE_MAX / 2};
}

static bool make_room(kvant_jinja_builder *b, size_t size) {
    if (b->failed) return false;
    if (size > b->max || b->size > b->max - size) {
        b->heap->failure = KVANT_EFULL;
        b->failed = true;
        return false;
    }
    if (size <= b->room - b->size) return true;
    size_t room = b->room ? b->room : 32;
    while (room < b->size + size)
        room *= 2;
    char *data = kvant_jinja_grow(b->heap, b->data, b->room, room);
    if (!data) {
        b->failed = true;
        return false;
    }
    b->data = data;
    b->room = room;
    return true;
}

void kvant_jinja_add(kvant_jinja_builder *b, const char *bytes, size_t size) {
    if (size == 0 || !make_room(b, size)) return;
    memcpy(b->data + b->size, bytes, size);
    b->size += size;
}

void kvant_jinja_add_str(kvant_jinja_builder *b, const char *s) { kvant_jinja_add(b, s, strlen(s)); }

void kvant_jinja_add_repeated(kvant_jinja_builder *b, const char *bytes, size_t size, size_t times) {
    size_t all;
    if (!kvant_mul_size(size, times, &all) || all > SIZE_MAX / 4) {
        b->heap->failure = KVANT_EFULL;
        b->failed = true;
    }
    if (b->failed || all == 0 || !make_room(b, all)) return;
    for (size_t i = 0; i < times; i++)
        memcpy(b->data + b->size + i * size, bytes, size);
    b->size += all;
}

kvant_status kvant_jinja_builder_finish(kvant_jinja_builder *b, kvant_jinja_value *out) {
    if (b->failed) return b->heap->failure;
    return kvant_jinja_share(b->heap, b->data ? b->data : "", b->size, out);
}

size_t kvant_jinja_count_chars(const char *bytes, size_t size) {
    size_t n = 0;
    uint32_t code;
    for (size_t i = 0; i < size; n++)
        i += kvant_utf8_read((const uint8_t *)bytes + i, size - i, &code);
    return n;
}

size_t kvant_jinja_char_offset(const kvant_jinja_text *t, size_t index) {
    if (t->n_chars == t->size) return index < t->size ? index : t->size;
    size_t i = 0;
    uint32_t code;
    for (; index > 0 && i < t->size; index--)
        i += kvant_utf8_read((const uint8_t *)t->bytes + i, t->size - i, &code);
    return i;
}

bool kvant_jinja_is_space(uint32_t c) {
    return (c >= 9 && c <= 13) || (c >= 28 && c <= 32) || c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) ||
           c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

kvant_status kvant_jinja_share(kvant_jinja_heap *h, const char *bytes, size_t size, kvant_jinja_value *out) {
    kvant_jinja_text *t = kvant_jinja_alloc(h, 1, sizeof *t);
    if (!t) return h->failure;
    *t = (kvant_jinja_text){bytes, size, kvant_jinja_count_chars(bytes, size)};
    *out = (kvant_jinja_value){.kind = JINJA_STRING, .as.text = t};
    return KVANT_OK;
}

kvant_status kvant_jinja_string(kvant_jinja_heap *h, const char *bytes, size_t size, kvant_jinja_value *out) {
    char *copy = kvant_jinja_alloc(h, size ? size : 1, 1);
    if (!copy) return h->failure;
    if (size) memcpy(copy, bytes, size);
    return kvant_jinja_share(h, copy, size, out);
}

kvant_status kvant_jinja_new_items(kvant_jinja_heap *h, kvant_jinja_kind kind, size_t room, kvant_jinja_value *out) {
    kvant_jinja_items *items = kvant_jinja_alloc(h, 1, sizeof *items);
    if (!items) return h->failure;
    if (room) {
        items->data = kvant_jinja_alloc(h, room, sizeof *items->data);
        if (!items->data) return h->failure;
        items->room = room;
    }
    *out = (kvant_jinja_value){.kind = kind, .as.items = items};
    return KVANT_OK;
}

kvant_status kvant_jinja_push(kvant_jinja_heap *h, kvant_jinja_items *items, kvant_jinja_value v) {
    if (items->n == items->room) {
        size_t room = items->room ? items->room * 2 : 4;
        kvant_jinja_value *data = kvant_jinja_grow(h, items->data, items->room * sizeof *data, room * sizeof *data);
        if (!data) return h->failure;
        items->data = data;
        items->room = room;
    }
    items->data[items->n++] = v;
    return KVANT_OK;
}

kvant_status kvant_jinja_list(kvant_jinja_heap *h, kvant_jinja_value *out) {
    return kvant_jinja_new_items(h, JINJA_LIST, 0, out);
}

kvant_status kvant_jinja_list_add(kvant_jinja_heap *h, kvant_jinja_value *list, kvant_jinja_value v) {
    return kvant_jinja_push(h, list->as.items, v);
}

kvant_status kvant_jinja_dict(kvant_jinja_heap *h, kvant_jinja_value *out) {
    kvant_jinja_map *m = kvant_jinja_alloc(h, 1, sizeof *m);
    if (!m) return h->failure;
    *out = (kvant_jinja_value){.kind = JINJA_DICT, .as.map = m};
    return KVANT_OK;
}

kvant_status kvant_jinja_dict_set(kvant_jinja_heap *h, kvant_jinja_value *dict, const char *key, kvant_jinja_value v) {
    kvant_jinja_value k;
    KVANT_TRY(kvant_jinja_string(h, key, strlen(key), &k));
    return kvant_jinja_map_set(h, dict->as.map, k, v);
}

int kvant_jinja_list_length(const kvant_jinja_value *list) {
    return list->as.items->n > INT_MAX ? INT_MAX : (int)list->as.items->n;
}

const char *kvant_jinja_member_text(kvant_jinja_heap *h, const kvant_jinja_value *list, int index, const char *key) {
    const kvant_jinja_value *dict = &list->as.items->data[index];
    const kvant_jinja_value *v = dict->kind == JINJA_DICT ? kvant_jinja_map_find_text(dict->as.map, key, strlen(key)) : NULL;
    if (!v || v->kind != JINJA_STRING || (v->as.text->size && memchr(v->as.text->bytes, 0, v->as.text->size))) return NULL;
    char *copy = kvant_jinja_alloc(h, v->as.text->size + 1, 1);
    if (copy) memcpy(copy, v->as.text->bytes, v->as.text->size);
    return copy;
}

bool kvant_jinja_is_key(const kvant_jinja_value *v, int depth) {
    if (v->kind == JINJA_TUPLE) {
        if (depth > 8) return false;
        for (size_t i = 0; i < v->as.items->n; i++)
            if (!kvant_jinja_is_key(&v->as.items->data[i], depth + 1)) return false;
        return true;
    }
    return v->kind == JINJA_NONE || v->kind == JINJA_UNDEFINED || v->kind == JINJA_STRING || kvant_jinja_is_number(v);
}

static uint64_t hash_bytes(const char *bytes, size_t size) {
    uint64_t x = 0xcbf29ce484222325u;
    for (size_t i = 0; i < size; i++)
        x = (x ^ (uint8_t)bytes[i]) * 0x100000001b3u;
    return x ^ x >> 32;
}

/* Equal keys have equal hashes: 1, 1.0 and True are one key. */
static uint64_t hash_key(const kvant_jinja_value *v) {
    if (v->kind == JINJA_STRING) return hash_bytes(v->as.text->bytes, v->as.text->size);
    if (kvant_jinja_is_number(v)) {
        double d = kvant_jinja_real(v) + 0.0; /* -0.0 too */
        return hash_bytes((const char *)&d, sizeof d);
    }
    if (v->kind == JINJA_TUPLE) {
        uint64_t x = 17;
        for (size_t i = 0; i < v->as.items->n; i++)
            x = x * 1000003u ^ hash_key(&v->as.items->data[i]);
        return x;
    }
    return 7;
}

static bool keys_equal(const kvant_jinja_value *a, const kvant_jinja_value *b) {
    if (a->kind != JINJA_TUPLE || b->kind != JINJA_TUPLE) return kvant_jinja_scalar_equal(a, b);
    if (a->as.items->n != b->as.items->n) return false;
    for (size_t i = 0; i < a->as.items->n; i++)
        if (!keys_equal(&a->as.items->data[i], &b->as.items->data[i])) return false;
    return true;
}

static size_t find_entry(const kvant_jinja_map *m, const kvant_jinja_value *key) {
    if (!m->n_slots) {
        for (size_t i = 0; i < m->n; i++)
            if (keys_equal(&m->entries[i].key, key)) return i;
        return SIZE_MAX;
    }
    for (size_t i = hash_key(key) & (m->n_slots - 1); m->slots[i]; i = (i + 1) & (m->n_slots - 1))
        if (keys_equal(&m->entries[m->slots[i] - 1].key, key)) return m->slots[i] - 1;
    return SIZE_MAX;
}

kvant_jinja_value *kvant_jinja_map_find(const kvant_jinja_map *m, const kvant_jinja_value *key) {
    if (!kvant_jinja_is_key(key, 0)) return NULL;
    size_t i = find_entry(m, key);
    return i == SIZE_MAX ? NULL : &m->entries[i].value;
}

kvant_jinja_value *kvant_jinja_map_find_text(const kvant_jinja_map *m, const char *bytes, size_t size) {
    kvant_jinja_text t = {bytes, size, size};
    kvant_jinja_value key = {.kind = JINJA_STRING, .as.text = &t};
    return kvant_jinja_map_find(m, &key);
}

static void fill_slot(kvant_jinja_map *m, size_t entry) {
    size_t i = hash_key(&m->entries[entry].key) & (m->n_slots - 1);
    while (m->slots[i])
        i = (i + 1) & (m->n_slots - 1);
    m->slots[i] = (uint32_t)(entry + 1);
}

static kvant_status index_entries(kvant_jinja_heap *h, kvant_jinja_map *m) {
    size_t n = 4 * FEW;
    while (n < 2 * m->room)
        n *= 2;
    m->slots = kvant_jinja_alloc(h, n, sizeof *m->slots);
    m->n_slots = 0;
    if (!m->slots) return h->failure;
    m->n_slots = n;
    for (size_t i = 0; i < m->n; i++)
        fill_slot(m, i);
    return KVANT_OK;
}

kvant_status kvant_jinja_map_set(kvant_jinja_heap *h, kvant_jinja_map *m, kvant_jinja_value key, kvant_jinja_value v) {
    size_t at = find_entry(m, &key);
    if (at != SIZE_MAX) {
        m->entries[at].value = v;
        return KVANT_OK;
    }
    if (m->n >= UINT32_MAX / 4) return KVANT_EFULL;
    bool grew = m->n == m->room;
    if (grew) {
        size_t room = m->room ? m->room * 2 : 4;
        kvant_jinja_entry *e = kvant_jinja_grow(h, m->entries, m->room * sizeof *e, room * sizeof *e);
        if (!e) return h->failure;
        m->entries = e;
        m->room = room;
    }
    m->entries[m->n++] = (kvant_jinja_entry){key, v};
    if (grew && m->room > FEW) return index_entries(h, m);
    if (m->n_slots) fill_slot(m, m->n - 1);
    return KVANT_OK;
}

kvant_status kvant_jinja_map_remove(kvant_jinja_heap *h, kvant_jinja_map *m, const kvant_jinja_value *key) {
    size_t at = find_entry(m, key);
    if (at == SIZE_MAX) return KVANT_OK;
    memmove(m->entries + at, m->entries + at + 1, (m->n - at - 1) * sizeof *m->entries);
    m->n--;
    return m->n_slots ? index_entries(h, m) : KVANT_OK;
}

bool kvant_jinja_truth(const kvant_jinja_value *v) {
    switch (v->kind) {
    case JINJA_UNDEFINED:
    case JINJA_NONE:
    case JINJA_MISSING:
        return false;
    case JINJA_BOOL:
        return v->as.boolean;
    case JINJA_INT:
        return v->as.integer != 0;
    case JINJA_FLOAT:
        return v->as.real != 0;
    case JINJA_STRING:
        return v->as.text->size != 0;
    case JINJA_LIST:
    case JINJA_TUPLE:
        return v->as.items->n != 0;
    case JINJA_DICT:
        return v->as.map->n != 0;
    default:
        return true;
    }
}

const char *kvant_jinja_type_name(const kvant_jinja_value *v) {
    static const char *const NAMES[] = {
        "an undefined value", "None",        "bool",  "int",      "float",  "str",    "list",   "tuple",  "generator", "dict",
        "Namespace",          "LoopContext", "Macro", "function", "method", "Cycler", "Joiner", "nothing"};
    return kvant_jinja_has_items(v) && v->as.items->view ? v->as.items->view : NAMES[v->kind];
}

bool kvant_jinja_scalar_equal(const kvant_jinja_value *a, const kvant_jinja_value *b) {
    if (kvant_jinja_is_number(a) && kvant_jinja_is_number(b)) {
        if (a->kind == JINJA_FLOAT || b->kind == JINJA_FLOAT) return kvant_jinja_real(a) == kvant_jinja_real(b);
        return kvant_jinja_integral(a) == kvant_jinja_integral(b);
    }
    if (a->kind != b->kind) return false;
    switch (a->kind) {
    case JINJA_UNDEFINED:
    case JINJA_NONE:
    case JINJA_MISSING:
        return true;
    case JINJA_STRING:
        return a->as.text->size == b->as.text->size && memcmp(a->as.text->bytes, b->as.text->bytes, a->as.text->size) == 0;
    default:
        return a->as.items == b->as.items; /* the same thing, whatever it is */
    }
}
