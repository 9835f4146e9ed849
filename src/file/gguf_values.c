// SPDX-License-Identifier: MIT
/* gguf_values.c: what an opened GGUF file answers: lookups by name, scalars converted and checked, elements of arrays.
 *
 * Files disagree on the type of the same key (u32, i32, u64, even f32), so every number is read through one of two
 * widenings, to int64 with a flag for what does not fit, or to double, and then checked against what was asked for. */
#include "file/gguf.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/bytes.h"
#include "base/half.h"

static int compare_name(const char *name, size_t size, kvant_text t) {
    size_t n = size < t.size ? size : t.size;
    int c = memcmp(name, t.data, n);
    return c ? c : (size > t.size) - (size < t.size);
}

const kvant_gguf_value *kvant_gguf_find(const kvant_gguf *f, const char *key) {
    size_t size = strlen(key);
    for (int low = 0, high = f->n_values; low < high;) {
        int mid = low + (high - low) / 2;
        const kvant_gguf_value *v = &f->values[f->value_order[mid]];
        int c = compare_name(key, size, v->key);
        if (c == 0) return v;
        if (c < 0)
            high = mid;
        else
            low = mid + 1;
    }
    return NULL;
}

const kvant_gguf_tensor *kvant_gguf_find_tensor(const kvant_gguf *f, const char *name) {
    size_t size = strlen(name);
    for (int low = 0, high = f->n_tensors; low < high;) {
        int mid = low + (high - low) / 2;
        const kvant_gguf_tensor *t = &f->tensors[f->tensor_order[mid]];
        int c = compare_name(name, size, t->name);
        if (c == 0) return t;
        if (c < 0)
            high = mid;
        else
            low = mid + 1;
    }
    return NULL;
}

static double read_f64(const uint8_t *p) {
    uint64_t u = kvant_read_u64(p);
    double d;
    memcpy(&d, &u, sizeof d);
    return d;
}

/* A float as an integer: saturated, NaN to 0. */
static int64_t double_to_int(double d) {
    if (isnan(d)) return 0;
    if (d >= 0x1p63) return INT64_MAX;
    if (d < -0x1p63) return INT64_MIN;
    return (int64_t)d;
}

static int64_t read_int(kvant_gguf_type type, const uint8_t *p) {
    switch (type) {
    case KVANT_GGUF_U8: return p[0];
    case KVANT_GGUF_I8: return (int8_t)p[0];
    case KVANT_GGUF_U16: return kvant_read_u16(p);
    case KVANT_GGUF_I16: return (int16_t)kvant_read_u16(p);
    case KVANT_GGUF_U32: return kvant_read_u32(p);
    case KVANT_GGUF_I32: return (int32_t)kvant_read_u32(p);
    case KVANT_GGUF_BOOL: return p[0];
    case KVANT_GGUF_I64: return (int64_t)kvant_read_u64(p);
    case KVANT_GGUF_U64: {
        uint64_t u = kvant_read_u64(p);
        return u > INT64_MAX ? INT64_MAX : (int64_t)u;
    }
    case KVANT_GGUF_F32: return double_to_int((double)kvant_bits_f32(kvant_read_u32(p)));
    case KVANT_GGUF_F64: return double_to_int(read_f64(p));
    case KVANT_GGUF_STRING:
    case KVANT_GGUF_ARRAY: break;
    }
    return 0;
}

static double read_float(kvant_gguf_type type, const uint8_t *p) {
    if (type == KVANT_GGUF_F32) return (double)kvant_bits_f32(kvant_read_u32(p));
    if (type == KVANT_GGUF_F64) return read_f64(p);
    if (type == KVANT_GGUF_U64) return (double)kvant_read_u64(p);
    return (double)read_int(type, p);
}

static bool is_number(kvant_gguf_type type) { return type != KVANT_GGUF_STRING && type != KVANT_GGUF_ARRAY; }

static kvant_status wrong_type(const kvant_gguf *f, const char *key, const kvant_gguf_value *v, const char *expected,
                               kvant_error *err) {
    return kvant_fail(err, KVANT_EFORMAT, "%s: %s is of type %s, expected %s", f->path, key, kvant_gguf_value_type_name(v->type),
                      expected);
}

static kvant_status absent(const kvant_gguf *f, const char *key, kvant_error *err) {
    return kvant_fail(err, KVANT_EFORMAT, "%s: has no %s in its metadata, which it needs", f->path, key);
}

static kvant_status convert_u32(const kvant_gguf *f, const char *key, const kvant_gguf_value *v, uint32_t *out,
                                kvant_error *err) {
    if (!is_number(v->type)) return wrong_type(f, key, v, "a number", err);
    double d = read_float(v->type, v->data);
    if (!(d >= 0 && d <= (double)UINT32_MAX && d == floor(d)))
        return kvant_fail(err, KVANT_EFORMAT, "%s: %s is %.17g, expected a whole number from 0 to %" PRIu32, f->path, key, d,
                          UINT32_MAX);
    *out = (uint32_t)d;
    return KVANT_OK;
}

kvant_status kvant_gguf_u32(const kvant_gguf *f, const char *key, uint32_t *out, kvant_error *err) {
    const kvant_gguf_value *v = kvant_gguf_find(f, key);
    return v ? convert_u32(f, key, v, out, err) : absent(f, key, err);
}

kvant_status kvant_gguf_u32_or(const kvant_gguf *f, const char *key, uint32_t fallback, uint32_t *out, kvant_error *err) {
    const kvant_gguf_value *v = kvant_gguf_find(f, key);
    if (v) return convert_u32(f, key, v, out, err);
    *out = fallback;
    return KVANT_OK;
}

kvant_status kvant_gguf_f32_or(const kvant_gguf *f, const char *key, float fallback, float *out, kvant_error *err) {
    const kvant_gguf_value *v = kvant_gguf_find(f, key);
    if (!v) {
        *out = fallback;
        return KVANT_OK;
    }
    if (!is_number(v->type)) return wrong_type(f, key, v, "a number", err);
    double d = read_float(v->type, v->data);
    if (!(fabs(d) <= 0x1.fffffep127))
        return kvant_fail(err, KVANT_EFORMAT, "%s: %s is %g, expected a finite float", f->path, key, d);
    *out = (float)d;
    return KVANT_OK;
}

kvant_status kvant_gguf_bool_or(const kvant_gguf *f, const char *key, bool fallback, bool *out, kvant_error *err) {
    const kvant_gguf_value *v = kvant_gguf_find(f, key);
    if (!v) {
        *out = fallback;
        return KVANT_OK;
    }
    if (!is_number(v->type)) return wrong_type(f, key, v, "a bool", err);
    double d = read_float(v->type, v->data);
    if (d != 0 && d != 1) return kvant_fail(err, KVANT_EFORMAT, "%s: %s is %g, expected a bool (0 or 1)", f->path, key, d);
    *out = d == 1;
    return KVANT_OK;
}

static kvant_text text_at(const uint8_t *p) { return (kvant_text){(const char *)p + 8, (size_t)kvant_read_u64(p)}; }

kvant_status kvant_gguf_string(const kvant_gguf *f, const char *key, kvant_text *out, kvant_error *err) {
    const kvant_gguf_value *v = kvant_gguf_find(f, key);
    if (!v) return absent(f, key, err);
    if (v->type != KVANT_GGUF_STRING) return wrong_type(f, key, v, "a string", err);
    *out = text_at(v->data);
    return KVANT_OK;
}

static const uint8_t *element(const kvant_gguf_value *v, uint64_t index) {
    static const uint8_t bytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    assert(v->type == KVANT_GGUF_ARRAY && index < v->n_elements);
    return v->data + index * bytes[v->element_type];
}

int64_t kvant_gguf_array_int(const kvant_gguf_value *v, uint64_t index) { return read_int(v->element_type, element(v, index)); }

double kvant_gguf_array_f64(const kvant_gguf_value *v, uint64_t index) {
    return v->element_type == KVANT_GGUF_STRING ? 0 : read_float(v->element_type, element(v, index));
}

float kvant_gguf_array_f32(const kvant_gguf_value *v, uint64_t index) {
    double d = kvant_gguf_array_f64(v, index);
    if (d > 0x1.fffffep127) return INFINITY;
    if (d < -0x1.fffffep127) return -INFINITY;
    return (float)d;
}

kvant_text kvant_gguf_array_string(const kvant_gguf_value *v, uint64_t index) {
    assert(v->type == KVANT_GGUF_ARRAY && v->element_type == KVANT_GGUF_STRING && index < v->n_elements);
    return text_at(v->data + v->string_offsets[index]);
}
