// SPDX-License-Identifier: MIT
/* gguf.c: opens a GGUF file and checks all of it but the weights themselves.
 *
 * One pass of a cursor over the map. Before memory is taken for n things, n times the least that one of them takes in the
 * file must fit what is left of it, so an allocation never exceeds a few times the file. After that pass nothing that the
 * file says is doubted again: strings, arrays and tensor data lie inside the map, names are unique and sorted.
 *
 * Not here: lookups and conversions (gguf_values.c), what the metadata mean. */
#include "file/gguf_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/memory.h"

#define DEFAULT_ALIGNMENT 32
#define MAX_ALIGNMENT (1u << 20)
#define MIN_VALUE_BYTES (8 + 1 + 4 + 1)      /* key size, a key, type, a value */
#define MIN_TENSOR_BYTES (8 + 1 + 4 + 4 + 8) /* name size, a name, n_dims, type, offset */
#define MAX_ELEMENTS_PER_BYTE 16             /* no format takes less than half a bit */
#define QUOTE_SIZE 72

typedef struct reader {
    kvant_gguf *f;
    size_t at;
    kvant_error *err;
} reader;

/* A name from the file, fit to stand in a sentence: printable ASCII and whole UTF-8 bytes as they are, '?' for control bytes,
 * cut with "..." where it is long. */
static const char *quote(kvant_text t, char out[QUOTE_SIZE]) {
    size_t n = t.size < QUOTE_SIZE - 4 ? t.size : QUOTE_SIZE - 4;
    while (n < t.size && n > 0 && ((unsigned char)t.data[n] & 0xC0) == 0x80)
        n--;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)t.data[i];
        out[i] = c < 0x20 || c == 0x7F ? '?' : (char)c;
    }
    memcpy(out + n, n < t.size ? "..." : "", n < t.size ? 4 : 1);
    return out;
}

static size_t left(const reader *r) { return r->f->map.size - r->at; }

/* n bytes at the cursor, which moves behind them; what names them in the sentence: "the %s of %s". */
static kvant_status take(reader *r, uint64_t n, const char *what, const char *of, const uint8_t **out) {
    if (n > left(r))
        return kvant_fail(r->err, KVANT_EFORMAT,
                          "%s: the %s of %s needs %" PRIu64 " bytes at offset %zu, but the file ends at %zu "
                          "(truncated download?)",
                          r->f->path, what, of, n, r->at, r->f->map.size);
    *out = r->f->map.data + r->at;
    r->at += (size_t)n;
    return KVANT_OK;
}

static kvant_status take_u32(reader *r, const char *what, const char *of, uint32_t *out) {
    const uint8_t *p = NULL;
    KVANT_TRY(take(r, 4, what, of, &p));
    *out = kvant_read_u32(p);
    return KVANT_OK;
}

static kvant_status take_u64(reader *r, const char *what, const char *of, uint64_t *out) {
    const uint8_t *p = NULL;
    KVANT_TRY(take(r, 8, what, of, &p));
    *out = kvant_read_u64(p);
    return KVANT_OK;
}

static kvant_status take_text(reader *r, const char *what, const char *of, kvant_text *out) {
    uint64_t size = 0;
    const uint8_t *p = NULL;
    KVANT_TRY(take_u64(r, "size", of, &size));
    KVANT_TRY(take(r, size, what, of, &p));
    *out = (kvant_text){(const char *)p, (size_t)size};
    return KVANT_OK;
}

/* Bytes of one scalar; 0 for strings, arrays and numbers that are no type. */
static size_t scalar_bytes(uint32_t type) {
    static const uint8_t bytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return type < sizeof bytes ? bytes[type] : 0;
}

static kvant_status check_bools(reader *r, const uint8_t *p, uint64_t n, const char *of) {
    for (uint64_t i = 0; i < n; i++)
        if (p[i] > 1)
            return kvant_fail(r->err, KVANT_EFORMAT, "%s: %s holds a bool of value %u, expected 0 or 1", r->f->path, of, p[i]);
    return KVANT_OK;
}

/* Walks the strings of an array once and notes where each begins. */
static kvant_status read_strings(reader *r, const char *of, kvant_gguf_value *v) {
    size_t begin = r->at;
    if (v->n_elements > left(r) / 8)
        return kvant_fail(r->err, KVANT_EFORMAT,
                          "%s: %s claims %" PRIu64 " strings, but only %zu bytes are left in the file (truncated download?)",
                          r->f->path, of, v->n_elements, left(r));
    v->string_offsets = kvant_alloc((size_t)v->n_elements, sizeof *v->string_offsets);
    if (!v->string_offsets) return kvant_fail(r->err, KVANT_ENOMEM, "%s: no memory for the strings of %s", r->f->path, of);
    for (uint64_t i = 0; i < v->n_elements; i++) {
        kvant_text text;
        if (r->at - begin > UINT32_MAX)
            return kvant_fail(r->err, KVANT_EUNSUPPORTED, "%s: the strings of %s take more than 4 GiB, which Kvant does not read",
                              r->f->path, of);
        v->string_offsets[i] = (uint32_t)(r->at - begin);
        KVANT_TRY(take_text(r, "string", of, &text));
    }
    return KVANT_OK;
}

static kvant_status read_array(reader *r, const char *of, kvant_gguf_value *v) {
    uint32_t type = 0;
    KVANT_TRY(take_u32(r, "element type", of, &type));
    KVANT_TRY(take_u64(r, "element count", of, &v->n_elements));
    if (type == KVANT_GGUF_ARRAY)
        return kvant_fail(r->err, KVANT_EUNSUPPORTED,
                          "%s: %s is an array of arrays; Kvant reads arrays of numbers, bools and strings", r->f->path, of);
    size_t bytes = scalar_bytes(type);
    if (bytes == 0 && type != KVANT_GGUF_STRING)
        return kvant_fail(r->err, KVANT_EFORMAT, "%s: the elements of %s have type %" PRIu32 ", expected 0 to 12", r->f->path, of,
                          type);
    v->element_type = (kvant_gguf_type)type;
    v->data = r->f->map.data + r->at;
    if (type == KVANT_GGUF_STRING) return read_strings(r, of, v);
    if (v->n_elements > left(r) / bytes)
        return kvant_fail(r->err, KVANT_EFORMAT,
                          "%s: %s claims %" PRIu64 " elements of %zu bytes at offset %zu, but the file ends at %zu "
                          "(truncated download?)",
                          r->f->path, of, v->n_elements, bytes, r->at, r->f->map.size);
    KVANT_TRY(take(r, v->n_elements * bytes, "array", of, &v->data));
    return type == KVANT_GGUF_BOOL ? check_bools(r, v->data, v->n_elements, of) : KVANT_OK;
}

static kvant_status read_value(reader *r, int index, kvant_gguf_value *v) {
    char of[QUOTE_SIZE];
    snprintf(of, sizeof of, "metadata entry %d", index);
    KVANT_TRY(take_text(r, "key", of, &v->key));
    if (v->key.size == 0) return kvant_fail(r->err, KVANT_EFORMAT, "%s: %s has an empty key", r->f->path, of);
    quote(v->key, of);
    uint32_t type = 0;
    KVANT_TRY(take_u32(r, "type", of, &type));
    if (type > KVANT_GGUF_F64)
        return kvant_fail(r->err, KVANT_EFORMAT, "%s: %s has type %" PRIu32 ", expected 0 to 12", r->f->path, of, type);
    v->type = (kvant_gguf_type)type;
    if (type == KVANT_GGUF_ARRAY) return read_array(r, of, v);
    if (type == KVANT_GGUF_STRING) {
        kvant_text text;
        v->data = r->f->map.data + r->at;
        return take_text(r, "string", of, &text);
    }
    KVANT_TRY(take(r, scalar_bytes(type), "value", of, &v->data));
    return type == KVANT_GGUF_BOOL ? check_bools(r, v->data, 1, of) : KVANT_OK;
}

/* Name, shape, type and offset; where the data lie is checked later, when the data section's beginning is known. */
static kvant_status read_tensor(reader *r, int index, kvant_gguf_tensor *t) {
    char of[QUOTE_SIZE];
    snprintf(of, sizeof of, "tensor %d", index);
    KVANT_TRY(take_text(r, "name", of, &t->name));
    if (t->name.size == 0) return kvant_fail(r->err, KVANT_EFORMAT, "%s: %s has an empty name", r->f->path, of);
    quote(t->name, of);
    uint32_t n_dims = 0;
    KVANT_TRY(take_u32(r, "number of dimensions", of, &n_dims));
    if (n_dims > KVANT_GGUF_MAX_DIMS)
        return kvant_fail(r->err, KVANT_EFORMAT, "%s: tensor %s has %" PRIu32 " dimensions, expected at most %d", r->f->path, of,
                          n_dims, KVANT_GGUF_MAX_DIMS);
    t->n_dims = (int)n_dims;
    int64_t total = 1;
    for (int i = 0; i < KVANT_GGUF_MAX_DIMS; i++) {
        uint64_t dim = 1;
        if (i < t->n_dims) KVANT_TRY(take_u64(r, "shape", of, &dim));
        if (dim == 0 || dim > (uint64_t)(INT64_MAX / total))
            return kvant_fail(r->err, KVANT_EFORMAT,
                              "%s: dimension %d of tensor %s is %" PRIu64 ", expected at least 1 and fewer than "
                              "2^63 elements in all",
                              r->f->path, i, of, dim);
        t->dims[i] = (int64_t)dim;
        total *= (int64_t)dim;
    }
    KVANT_TRY(take_u32(r, "type", of, &t->type));
    return take_u64(r, "offset", of, &t->offset);
}

static int compare_text(kvant_text a, kvant_text b) {
    size_t n = a.size < b.size ? a.size : b.size;
    int c = memcmp(a.data, b.data, n);
    return c ? c : (a.size > b.size) - (a.size < b.size);
}

static kvant_text value_name(const kvant_gguf *f, uint32_t i) { return f->values[i].key; }
static kvant_text tensor_name(const kvant_gguf *f, uint32_t i) { return f->tensors[i].name; }

/* Merge sort: n log n for every input, hostile ones too. order and scratch: [n]. */
static void sort_order(const kvant_gguf *f, uint32_t *order, uint32_t *scratch, size_t n,
                       kvant_text (*name)(const kvant_gguf *, uint32_t)) {
    for (size_t i = 0; i < n; i++)
        order[i] = (uint32_t)i;
    for (size_t width = 1; width < n; width *= 2) {
        for (size_t begin = 0; begin < n; begin += 2 * width) {
            size_t mid = begin + width < n ? begin + width : n, end = begin + 2 * width < n ? begin + 2 * width : n;
            size_t a = begin, b = mid;
            for (size_t i = begin; i < end; i++) {
                bool from_a = a < mid && (b >= end || compare_text(name(f, order[a]), name(f, order[b])) <= 0);
                scratch[i] = from_a ? order[a++] : order[b++];
            }
        }
        memcpy(order, scratch, n * sizeof *order);
    }
}

static kvant_status index_names(kvant_gguf *f, int n, const char *what, kvant_text (*name)(const kvant_gguf *, uint32_t),
                                uint32_t **out, kvant_error *err) {
    uint32_t *order = kvant_alloc((size_t)n, sizeof *order), *scratch = kvant_alloc((size_t)n, sizeof *scratch);
    if (!order || !scratch) {
        kvant_free(order);
        kvant_free(scratch);
        return kvant_fail(err, KVANT_ENOMEM, "%s: no memory for the names of %d %ss", f->path, n, what);
    }
    sort_order(f, order, scratch, (size_t)n, name);
    kvant_free(scratch);
    *out = order;
    for (int i = 1; i < n; i++) {
        if (compare_text(name(f, order[i - 1]), name(f, order[i])) != 0) continue;
        char of[QUOTE_SIZE];
        return kvant_fail(err, KVANT_EFORMAT,
                          "%s: the %s %s stands twice, as number %" PRIu32 " and %" PRIu32 ", expected once", f->path, what,
                          quote(name(f, order[i]), of), order[i - 1], order[i]);
    }
    return KVANT_OK;
}

kvant_status kvant_gguf_index_tensors(kvant_gguf *f, kvant_error *err) {
    kvant_free(f->tensor_order);
    f->tensor_order = NULL;
    return index_names(f, f->n_tensors, "tensor", tensor_name, &f->tensor_order, err);
}

static kvant_status read_header(reader *r, uint64_t *n_values, uint64_t *n_tensors) {
    kvant_gguf *f = r->f;
    const uint8_t *magic = NULL;
    if (f->map.size == 0) return kvant_fail(r->err, KVANT_EFORMAT, "%s: is empty, expected a GGUF file", f->path);
    KVANT_TRY(take(r, 4, "magic", "the header", &magic));
    if (memcmp(magic, "GGUF", 4) != 0)
        return kvant_fail(r->err, KVANT_EFORMAT,
                          "%s: begins with the bytes %02x %02x %02x %02x, expected 47 47 55 46 (\"GGUF\"): not a GGUF file",
                          f->path, magic[0], magic[1], magic[2], magic[3]);
    KVANT_TRY(take_u32(r, "version", "the header", &f->version));
    if ((f->version & 0xFFFFu) == 0 && f->version != 0)
        return kvant_fail(r->err, KVANT_EUNSUPPORTED,
                          "%s: is a big-endian GGUF file (version field 0x%08" PRIx32 "); Kvant reads little-endian ones",
                          f->path, f->version);
    if (f->version != 2 && f->version != 3)
        return kvant_fail(r->err, KVANT_EUNSUPPORTED, "%s: is GGUF version %" PRIu32 "; Kvant reads versions 2 and 3", f->path,
                          f->version);
    KVANT_TRY(take_u64(r, "tensor count", "the header", n_tensors));
    KVANT_TRY(take_u64(r, "metadata count", "the header", n_values));
    if (*n_values > left(r) / MIN_VALUE_BYTES || *n_values > INT32_MAX)
        return kvant_fail(r->err, KVANT_EFORMAT,
                          "%s: the header claims %" PRIu64
                          " metadata entries, but only %zu bytes follow it (truncated download?)",
                          f->path, *n_values, left(r));
    if (*n_tensors > (left(r) - *n_values * MIN_VALUE_BYTES) / MIN_TENSOR_BYTES || *n_tensors > INT32_MAX)
        return kvant_fail(r->err, KVANT_EFORMAT,
                          "%s: the header claims %" PRIu64 " tensors, but only %zu bytes follow it (truncated download?)",
                          f->path, *n_tensors, left(r));
    return KVANT_OK;
}

static kvant_status read_values(reader *r, uint64_t n) {
    kvant_gguf *f = r->f;
    f->values = kvant_alloc((size_t)n, sizeof *f->values);
    if (!f->values) return kvant_fail(r->err, KVANT_ENOMEM, "%s: no memory for %" PRIu64 " metadata entries", f->path, n);
    for (f->n_values = 0; f->n_values < (int)n;) {
        f->n_values++; /* first, so that closing frees what a failed entry allocated */
        KVANT_TRY(read_value(r, f->n_values - 1, &f->values[f->n_values - 1]));
    }
    return index_names(f, f->n_values, "metadata key", value_name, &f->value_order, r->err);
}

static kvant_status read_tensors(reader *r, uint64_t n) {
    kvant_gguf *f = r->f;
    f->tensors = kvant_alloc((size_t)n, sizeof *f->tensors);
    if (!f->tensors) return kvant_fail(r->err, KVANT_ENOMEM, "%s: no memory for %" PRIu64 " tensors", f->path, n);
    f->n_tensors = (int)n;
    for (int i = 0; i < f->n_tensors; i++)
        KVANT_TRY(read_tensor(r, i, &f->tensors[i]));
    return index_names(f, f->n_tensors, "tensor", tensor_name, &f->tensor_order, r->err);
}

static kvant_status check_global_keys(reader *r) {
    kvant_gguf *f = r->f;
    uint32_t alignment = 0, parts = 0;
    KVANT_TRY(kvant_gguf_u32_or(f, "general.alignment", DEFAULT_ALIGNMENT, &alignment, r->err));
    if (alignment < 8 || alignment > MAX_ALIGNMENT || (alignment & (alignment - 1)) != 0)
        return kvant_fail(r->err, KVANT_EFORMAT, "%s: general.alignment is %" PRIu32 ", expected a power of two from 8 to %u",
                          f->path, alignment, MAX_ALIGNMENT);
    f->alignment = alignment;
    KVANT_TRY(kvant_gguf_u32_or(f, "split.count", 1, &parts, r->err));
    if (parts > 1)
        return kvant_fail(r->err, KVANT_EUNSUPPORTED,
                          "%s: is one of %" PRIu32 " parts of a split model (split.count), expected a whole one; "
                          "join them first (llama-gguf-split --merge)",
                          f->path, parts);
    return KVANT_OK;
}

static void shape_text(const kvant_gguf_tensor *t, char out[96]) {
    int n = snprintf(out, 96, "%" PRId64, t->dims[0]);
    for (int i = 1; i < t->n_dims; i++)
        n += snprintf(out + n, 96 - (size_t)n, " x %" PRId64, t->dims[i]);
}

/* The bytes of a tensor: whole blocks in every row. Unknown types leave 0. */
static kvant_status measure_tensor(reader *r, kvant_gguf_size_fn type_size, kvant_gguf_tensor *t) {
    char of[QUOTE_SIZE], shape[96];
    size_t row, any;
    t->bytes = 0;
    if (!type_size(t->type, t->dims[0], &row)) {
        /* 512 elements are whole blocks of every type: if that has a size, it is the row that is wrong. */
        if (!type_size(t->type, 512, &any)) return KVANT_OK;
        shape_text(t, shape);
        return kvant_fail(r->err, KVANT_EFORMAT,
                          "%s: tensor %s (%s) has rows of %" PRId64 " elements, which are not whole blocks of its type %s",
                          r->f->path, quote(t->name, of), shape, t->dims[0], kvant_gguf_tensor_type_name(t->type));
    }
    for (int i = 1; i < KVANT_GGUF_MAX_DIMS; i++) {
        if (t->dims[i] <= INT64_MAX && (uint64_t)t->dims[i] <= SIZE_MAX && kvant_mul_size(row, (size_t)t->dims[i], &row))
            continue;
        shape_text(t, shape);
        return kvant_fail(r->err, KVANT_EFORMAT, "%s: tensor %s of %s is larger than any memory", r->f->path, quote(t->name, of),
                          shape);
    }
    t->bytes = row;
    return KVANT_OK;
}

static int64_t count_elements(const kvant_gguf_tensor *t) {
    int64_t n = 1; /* fits: read_tensor has seen to it */
    for (int i = 0; i < KVANT_GGUF_MAX_DIMS; i++)
        n *= t->dims[i];
    return n;
}

static kvant_status place_tensor(reader *r, kvant_gguf_size_fn type_size, size_t data_begin, kvant_gguf_tensor *t) {
    kvant_gguf *f = r->f;
    char of[QUOTE_SIZE], shape[96];
    if (t->offset % f->alignment != 0)
        return kvant_fail(r->err, KVANT_EFORMAT,
                          "%s: tensor %s stands at offset %" PRIu64 ", expected a multiple of the alignment %" PRIu64, f->path,
                          quote(t->name, of), t->offset, f->alignment);
    KVANT_TRY(measure_tensor(r, type_size, t));
    size_t room = f->map.size > data_begin ? f->map.size - data_begin : 0;
    if (t->offset >= room || t->bytes > room - (size_t)t->offset) {
        const char *type = kvant_gguf_tensor_type_name(t->type);
        shape_text(t, shape);
        return kvant_fail(r->err, KVANT_EFORMAT,
                          "%s: %s %s needs %zu bytes at offset %zu + %" PRIu64 ", but %s ends at %zu (truncated download?)",
                          quote(t->name, of), shape, type ? type : "of an unknown type", t->bytes, data_begin, t->offset, f->path,
                          f->map.size);
    }
    if (t->bytes == 0 && (uint64_t)count_elements(t) / MAX_ELEMENTS_PER_BYTE > room - (size_t)t->offset) {
        shape_text(t, shape);
        return kvant_fail(r->err, KVANT_EFORMAT,
                          "%s: tensor %s of %s, of the unknown type %" PRIu32 ", cannot fit the %zu bytes from its offset on",
                          f->path, quote(t->name, of), shape, t->type, room - (size_t)t->offset);
    }
    t->data = f->map.data + data_begin + t->offset;
    return KVANT_OK;
}

static uint64_t tensor_end(const kvant_gguf_tensor *t) { return t->offset + t->bytes; }

/* Bytes behind the last tensor: padding is zeros, whatever else is there does not belong to a GGUF file. */
static kvant_status check_tail(reader *r, size_t data_begin) {
    kvant_gguf *f = r->f;
    uint64_t end = 0;
    for (int i = 0; i < f->n_tensors; i++) {
        if (f->tensors[i].bytes == 0) return KVANT_OK; /* nobody knows where it ends */
        if (tensor_end(&f->tensors[i]) > end) end = tensor_end(&f->tensors[i]);
    }
    size_t begin = f->n_tensors > 0 ? data_begin + (size_t)end : r->at;
    size_t allowed = begin + (f->alignment - begin % f->alignment) % f->alignment;
    for (size_t i = allowed; i < f->map.size; i++)
        if (f->map.data[i] != 0)
            return kvant_fail(r->err, KVANT_EFORMAT,
                              "%s: has %zu bytes, but its contents end at %zu: expected nothing behind them but zeros", f->path,
                              f->map.size, begin);
    return KVANT_OK;
}

/* Two tensors that share bytes: refused, for a file that repeats the same bytes a million times would unfold on loading. */
static int compare_place(const kvant_gguf_tensor *a, const kvant_gguf_tensor *b) {
    return (a->offset > b->offset) - (a->offset < b->offset);
}

static void sink(const kvant_gguf_tensor *t, uint32_t *heap, size_t i, size_t n) {
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= n) return;
        if (child + 1 < n && compare_place(&t[heap[child + 1]], &t[heap[child]]) > 0) child++;
        if (compare_place(&t[heap[child]], &t[heap[i]]) <= 0) return;
        uint32_t swap = heap[i];
        heap[i] = heap[child];
        heap[child] = swap;
        i = child;
    }
}

static kvant_status check_overlaps(reader *r) {
    kvant_gguf *f = r->f;
    size_t n = (size_t)f->n_tensors;
    uint32_t *order = kvant_alloc(n, sizeof *order);
    if (!order) return kvant_fail(r->err, KVANT_ENOMEM, "%s: no memory for the places of %zu tensors", f->path, n);
    for (size_t i = 0; i < n; i++)
        order[i] = (uint32_t)i;
    for (size_t i = n / 2; i-- > 0;)
        sink(f->tensors, order, i, n);
    for (size_t end = n; end > 1; end--) {
        uint32_t top = order[0];
        order[0] = order[end - 1];
        order[end - 1] = top;
        sink(f->tensors, order, 0, end - 1);
    }
    kvant_status st = KVANT_OK;
    for (size_t i = 1; i < n && st == KVANT_OK; i++) {
        const kvant_gguf_tensor *a = &f->tensors[order[i - 1]], *b = &f->tensors[order[i]];
        char of_a[QUOTE_SIZE], of_b[QUOTE_SIZE];
        if (tensor_end(a) > b->offset)
            st = kvant_fail(r->err, KVANT_EFORMAT,
                            "%s: tensor %s (%zu bytes at offset %" PRIu64 ") overlaps %s at offset %" PRIu64, f->path,
                            quote(a->name, of_a), a->bytes, a->offset, quote(b->name, of_b), b->offset);
    }
    kvant_free(order);
    return st;
}

static kvant_status read_file(reader *r, kvant_gguf_size_fn type_size) {
    kvant_gguf *f = r->f;
    uint64_t n_values = 0, n_tensors = 0;
    KVANT_TRY(read_header(r, &n_values, &n_tensors));
    KVANT_TRY(read_values(r, n_values));
    KVANT_TRY(check_global_keys(r));
    KVANT_TRY(read_tensors(r, n_tensors));
    size_t pad = (f->alignment - r->at % f->alignment) % f->alignment, data_begin = r->at + pad;
    for (int i = 0; i < f->n_tensors; i++)
        KVANT_TRY(place_tensor(r, type_size, data_begin, &f->tensors[i]));
    KVANT_TRY(check_overlaps(r));
    return check_tail(r, data_begin);
}

static kvant_status parse(const char *name, kvant_map map, bool borrowed, kvant_gguf_size_fn type_size, kvant_gguf **out,
                          kvant_error *err) {
    kvant_gguf *f = kvant_alloc(1, sizeof *f);
    if (f) f->path = kvant_strdup(name);
    if (!f || !f->path) {
        kvant_free(f);
        if (!borrowed) kvant_map_close(&map);
        return kvant_fail(err, KVANT_ENOMEM, "%s: no memory to open it", name);
    }
    f->map = map;
    f->file_bytes = map.size;
    f->borrowed = borrowed;
    reader r = {.f = f, .err = err};
    kvant_status st = read_file(&r, type_size ? type_size : kvant_gguf_type_size);
    if (st != KVANT_OK) {
        kvant_gguf_close(f);
        return st;
    }
    *out = f;
    return KVANT_OK;
}

kvant_status kvant_gguf_open(const char *path, kvant_gguf_size_fn type_size, kvant_gguf **out, kvant_error *err) {
    kvant_map map;
    KVANT_TRY(kvant_map_open(path, &map, err));
    return parse(path, map, false, type_size, out, err);
}

kvant_status kvant_gguf_parse(const char *name, const uint8_t *data, size_t size, kvant_gguf_size_fn type_size, kvant_gguf **out,
                              kvant_error *err) {
    return parse(name, (kvant_map){data, size}, true, type_size, out, err);
}

void kvant_gguf_close(kvant_gguf *f) {
    if (!f) return;
    for (int i = 0; i < f->n_values; i++)
        kvant_free(f->values[i].string_offsets);
    kvant_free(f->values);
    kvant_free(f->tensors);
    kvant_free(f->value_order);
    kvant_free(f->tensor_order);
    if (!f->borrowed) kvant_map_close(&f->map);
    for (int i = 0; i < f->n_shards; i++)
        kvant_map_close(&f->shards[i]);
    kvant_free(f->shards);
    for (int i = 0; i < f->n_owned; i++)
        kvant_free(f->owned[i]);
    kvant_free(f->owned);
    kvant_free(f->path);
    kvant_free(f);
}

static bool drop_from(const kvant_map *m, const uint8_t *p, size_t n) {
    if (!p || p < m->data || (size_t)(p - m->data) > m->size || n > m->size - (size_t)(p - m->data)) return false;
    kvant_map_drop(m, (size_t)(p - m->data), n);
    return true;
}

void kvant_gguf_drop(const kvant_gguf *f, const kvant_gguf_tensor *t) {
    /* Only a real map may be dropped: bytes that the caller lent would be lost. */
    if (!t->parts && !f->borrowed) drop_from(&f->map, t->data, t->bytes);
    for (int i = 0; t->parts && i < t->n_parts; i++)
        for (int s = 0; s < f->n_shards; s++) {
            drop_from(&f->shards[s], t->parts[i].data, t->part_bytes);
            drop_from(&f->shards[s], t->parts[i].scales, t->part_scale_bytes);
            drop_from(&f->shards[s], t->parts[i].biases, t->part_scale_bytes);
        }
}
