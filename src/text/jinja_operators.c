// SPDX-License-Identifier: MIT
/* jinja_operators.c: + - * / // % ** ~ comparisons, `in` and slices, as Python does them; integers have 64 bits. */
#include <math.h>

#include "text/jinja_run.h"

typedef kvant_jinja_run run;
typedef kvant_jinja_value value;

static const char *const SIGNS[] = {"+", "-", "*", "/", "//", "%", "**", "==", "!=", "<", "<=", ">", ">=", "in", "not in"};

static kvant_status wrong_sides(run *r, kvant_jinja_op op, const value *a, const value *b) {
    const value *undefined = a->kind == JINJA_UNDEFINED ? a : b->kind == JINJA_UNDEFINED ? b : NULL;
    if (undefined && undefined->as.hint)
        return kvant_fail(r->err, KVANT_EFORMAT, "%s: chat template, line %d: found \"%.60s\" undefined at %s, expected a value",
                          r->t->name, r->line, undefined->as.hint, SIGNS[op]);
    return kvant_fail(r->err, KVANT_EFORMAT, "%s: chat template, line %d: found %s %s %s, expected types that fit", r->t->name,
                      r->line, kvant_jinja_type_name(a), SIGNS[op], kvant_jinja_type_name(b));
}

static kvant_status too_large(run *r) {
    return kvant_jinja_fail(r, KVANT_EUNSUPPORTED, "a number beyond 64 bits", "a smaller one");
}

static bool multiply(int64_t a, int64_t b, int64_t *out) {
    if (a == 0 || b == 0) {
        *out = 0;
        return true;
    }
    if (a == INT64_MIN || b == INT64_MIN) return false;
    int64_t x = a < 0 ? -a : a, y = b < 0 ? -b : b;
    if (x > INT64_MAX / y) return false;
    *out = a * b;
    return true;
}

static kvant_status power(run *r, int64_t a, int64_t b, value *out) {
    if (b < 0) {
        if (a == 0) return kvant_jinja_fail(r, KVANT_EFORMAT, "0 ** a negative number", "another base");
        *out = kvant_jinja_float(pow((double)a, (double)b));
        return KVANT_OK;
    }
    int64_t result = 1;
    if (a == 0 || a == 1 || b == 0) {
        *out = kvant_jinja_int(b == 0 ? 1 : a);
        return KVANT_OK;
    }
    if (a == -1) {
        *out = kvant_jinja_int(b % 2 ? -1 : 1);
        return KVANT_OK;
    }
    for (; b > 0; b--)
        if (!multiply(result, a, &result)) return too_large(r);
    *out = kvant_jinja_int(result);
    return KVANT_OK;
}

static kvant_status integers(run *r, kvant_jinja_op op, int64_t a, int64_t b, value *out) {
    int64_t result = 0;
    if ((op == OP_DIV || op == OP_FLOOR_DIV || op == OP_MOD) && b == 0)
        return kvant_jinja_fail(r, KVANT_EFORMAT, "a division by zero", "another divisor");
    switch (op) {
    case OP_ADD:
        if (b > 0 ? a > INT64_MAX - b : a < INT64_MIN - b) return too_large(r);
        result = a + b;
        break;
    case OP_SUB:
        if (b < 0 ? a > INT64_MAX + b : a < INT64_MIN + b) return too_large(r);
        result = a - b;
        break;
    case OP_MUL:
        if (!multiply(a, b, &result)) return too_large(r);
        break;
    case OP_FLOOR_DIV:
    case OP_MOD:
        if (b == -1) {
            if (op == OP_FLOOR_DIV && a == INT64_MIN) return too_large(r);
            result = op == OP_MOD ? 0 : -a;
        } else {
            bool down = a % b != 0 && (a % b < 0) != (b < 0);
            result = op == OP_MOD ? a % b + (down ? b : 0) : a / b - down;
        }
        break;
    case OP_POW:
        return power(r, a, b, out);
    default:
        *out = kvant_jinja_float((double)a / (double)b);
        return KVANT_OK;
    }
    *out = kvant_jinja_int(result);
    return KVANT_OK;
}

static kvant_status floats(run *r, kvant_jinja_op op, double a, double b, value *out) {
    double result;
    if ((op == OP_DIV || op == OP_FLOOR_DIV || op == OP_MOD) && b == 0)
        return kvant_jinja_fail(r, KVANT_EFORMAT, "a division by zero", "another divisor");
    double rest = op == OP_MOD || op == OP_FLOOR_DIV ? fmod(a, b) : 0;
    if (rest != 0 && (rest < 0) != (b < 0)) rest += b;
    switch (op) {
    case OP_ADD:
        result = a + b;
        break;
    case OP_SUB:
        result = a - b;
        break;
    case OP_MUL:
        result = a * b;
        break;
    case OP_DIV:
        result = a / b;
        break;
    case OP_FLOOR_DIV:
        result = floor((a - rest) / b + 0.5);
        if (result == 0) result = copysign(0.0, a / b);
        break;
    case OP_MOD:
        result = rest != 0 ? rest : copysign(0.0, b);
        break;
    default:
        result = pow(a, b);
        break;
    }
    *out = kvant_jinja_float(result);
    return KVANT_OK;
}

static kvant_status join(run *r, const value *a, const value *b, value *out) {
    if (a->kind == JINJA_STRING) {
        kvant_jinja_builder builder;
        kvant_jinja_builder_init(&builder, r->heap);
        builder.room = 0;
        kvant_jinja_add(&builder, a->as.text->bytes, a->as.text->size);
        kvant_jinja_add(&builder, b->as.text->bytes, b->as.text->size);
        return kvant_jinja_finish(r, &builder, out);
    }
    size_t n = a->as.items->n + b->as.items->n;
    KVANT_TRY(kvant_jinja_step(r, n / 16 + 1));
    kvant_status st = kvant_jinja_new_items(r->heap, a->kind, n, out);
    if (st != KVANT_OK) return kvant_jinja_out_of_memory(r, st);
    if (a->as.items->n) memcpy(out->as.items->data, a->as.items->data, a->as.items->n * sizeof(value));
    if (b->as.items->n) memcpy(out->as.items->data + a->as.items->n, b->as.items->data, b->as.items->n * sizeof(value));
    out->as.items->n = n;
    return KVANT_OK;
}

static kvant_status repeat(run *r, const value *v, int64_t times, value *out) {
    size_t n = times < 0 ? 0 : (size_t)times;
    if (v->kind == JINJA_STRING) {
        kvant_jinja_builder b;
        kvant_jinja_builder_init(&b, r->heap);
        kvant_jinja_add_repeated(&b, v->as.text->bytes, v->as.text->size, v->as.text->size ? n : 0);
        return kvant_jinja_finish(r, &b, out);
    }
    size_t one = v->as.items->n, all;
    if (one == 0) n = 0;
    if (!kvant_mul_size(one, n, &all) || all > SIZE_MAX / (2 * sizeof *v)) return kvant_jinja_out_of_memory(r, KVANT_EFULL);
    kvant_status st = kvant_jinja_new_items(r->heap, v->kind, all, out);
    if (st != KVANT_OK) return kvant_jinja_out_of_memory(r, st);
    for (size_t i = 0; i < n; i++)
        memcpy(out->as.items->data + i * one, v->as.items->data, one * sizeof *v);
    out->as.items->n = all;
    return kvant_jinja_step(r, all / 16 + 1);
}

static bool is_plain_sequence(const value *v) {
    return v->kind == JINJA_STRING || ((v->kind == JINJA_LIST || v->kind == JINJA_TUPLE) && !v->as.items->view);
}

kvant_status kvant_jinja_binary(run *r, kvant_jinja_op op, const value *a, const value *b, value *out) {
    if (kvant_jinja_is_number(a) && kvant_jinja_is_number(b)) {
        if (a->kind == JINJA_FLOAT || b->kind == JINJA_FLOAT) return floats(r, op, kvant_jinja_real(a), kvant_jinja_real(b), out);
        return integers(r, op, kvant_jinja_integral(a), kvant_jinja_integral(b), out);
    }
    if (op == OP_ADD && a->kind == b->kind && is_plain_sequence(a) && is_plain_sequence(b)) return join(r, a, b, out);
    if (op == OP_MUL && is_plain_sequence(a) && kvant_jinja_is_integral(b)) return repeat(r, a, kvant_jinja_integral(b), out);
    if (op == OP_MUL && kvant_jinja_is_integral(a) && is_plain_sequence(b)) return repeat(r, b, kvant_jinja_integral(a), out);
    if (op == OP_MOD && a->kind == JINJA_STRING) return kvant_jinja_percent(r, a->as.text, b, out);
    return wrong_sides(r, op, a, b);
}

kvant_status kvant_jinja_negate(run *r, const value *a, value *out) {
    if (a->kind == JINJA_FLOAT) {
        *out = kvant_jinja_float(-a->as.real);
        return KVANT_OK;
    }
    if (!kvant_jinja_is_integral(a)) return kvant_jinja_wrong(r, "-", a, "a number");
    if (kvant_jinja_integral(a) == INT64_MIN) return too_large(r);
    *out = kvant_jinja_int(-kvant_jinja_integral(a));
    return KVANT_OK;
}

static kvant_status maps_equal(run *r, const kvant_jinja_map *a, const kvant_jinja_map *b, bool *out) {
    *out = a->n == b->n;
    for (size_t i = 0; i < a->n && *out; i++) {
        const value *other = kvant_jinja_map_find(b, &a->entries[i].key);
        *out = other != NULL;
        if (other) KVANT_TRY(kvant_jinja_equal(r, &a->entries[i].value, other, out));
    }
    return KVANT_OK;
}

kvant_status kvant_jinja_equal(run *r, const value *a, const value *b, bool *out) {
    bool lists = a->kind == b->kind && (a->kind == JINJA_LIST || a->kind == JINJA_TUPLE);
    if (!lists && (a->kind != JINJA_DICT || b->kind != JINJA_DICT)) {
        *out = kvant_jinja_scalar_equal(a, b);
        return a->kind == JINJA_STRING ? kvant_jinja_step_bytes(r, a->as.text->size) : KVANT_OK;
    }
    if (a->as.items == b->as.items) { /* one thing */
        *out = true;
        return KVANT_OK;
    }
    KVANT_TRY(kvant_jinja_deeper(r));
    if (lists) {
        *out = a->as.items->n == b->as.items->n;
        for (size_t i = 0; i < a->as.items->n && *out; i++) {
            KVANT_TRY(kvant_jinja_step(r, 1));
            KVANT_TRY(kvant_jinja_equal(r, &a->as.items->data[i], &b->as.items->data[i], out));
        }
    } else {
        KVANT_TRY(kvant_jinja_step(r, a->as.map->n));
        KVANT_TRY(maps_equal(r, a->as.map, b->as.map, out));
    }
    kvant_jinja_leave(r);
    return KVANT_OK;
}

static int text_order(const kvant_jinja_text *a, const kvant_jinja_text *b) {
    size_t n = a->size < b->size ? a->size : b->size;
    int order = n ? memcmp(a->bytes, b->bytes, n) : 0; /* the order of bytes is that of characters */
    return order ? order : (a->size > b->size) - (a->size < b->size);
}

/* a < b, of two that Python can order. */
static kvant_status is_less(run *r, kvant_jinja_op op, const value *a, const value *b, bool or_equal, bool *out) {
    if (kvant_jinja_is_number(a) && kvant_jinja_is_number(b)) {
        if (a->kind == JINJA_FLOAT || b->kind == JINJA_FLOAT) {
            double x = kvant_jinja_real(a), y = kvant_jinja_real(b);
            *out = or_equal ? x <= y : x < y;
        } else {
            int64_t x = kvant_jinja_integral(a), y = kvant_jinja_integral(b);
            *out = or_equal ? x <= y : x < y;
        }
        return KVANT_OK;
    }
    if (a->kind == JINJA_STRING && b->kind == JINJA_STRING) {
        int order = text_order(a->as.text, b->as.text);
        *out = or_equal ? order <= 0 : order < 0;
        return kvant_jinja_step_bytes(r, a->as.text->size);
    }
    if (a->kind != b->kind || (a->kind != JINJA_LIST && a->kind != JINJA_TUPLE)) return wrong_sides(r, op, a, b);
    KVANT_TRY(kvant_jinja_deeper(r));
    const kvant_jinja_items *x = a->as.items, *y = b->as.items;
    size_t i = 0;
    bool same = true;
    for (; i < x->n && i < y->n && same; i += same) {
        KVANT_TRY(kvant_jinja_step(r, 1));
        KVANT_TRY(kvant_jinja_equal(r, &x->data[i], &y->data[i], &same));
    }
    if (!same)
        KVANT_TRY(is_less(r, op, &x->data[i], &y->data[i], or_equal, out));
    else
        *out = or_equal ? x->n <= y->n : x->n < y->n;
    kvant_jinja_leave(r);
    return KVANT_OK;
}

kvant_status kvant_jinja_compare(run *r, kvant_jinja_op op, const value *a, const value *b, bool *out) {
    switch (op) {
    case OP_EQ:
        return kvant_jinja_equal(r, a, b, out);
    case OP_NE:
        KVANT_TRY(kvant_jinja_equal(r, a, b, out));
        break;
    case OP_IN:
        return kvant_jinja_contains(r, a, b, out);
    case OP_NOT_IN:
        KVANT_TRY(kvant_jinja_contains(r, a, b, out));
        break;
    case OP_LT:
    case OP_LE:
        return is_less(r, op, a, b, op == OP_LE, out);
    default:
        return is_less(r, op, b, a, op == OP_GE, out);
    }
    *out = !*out;
    return KVANT_OK;
}

kvant_status kvant_jinja_find_bytes(run *r, const char *s, size_t n, size_t from, const char *what, size_t size, size_t *at) {
    *at = SIZE_MAX;
    if (size == 0) *at = from;
    if (size == 0 || size > n) return KVANT_OK;
    for (size_t i = from; i <= n - size;) {
        const char *first = memchr(s + i, what[0], n - size - i + 1);
        size_t start = i;
        i = first ? (size_t)(first - s) : n;
        /* a pass over the bytes, and one over what is looked for at every likely place */
        KVANT_TRY(i - start > 255 || size > 31 ? kvant_jinja_step_bytes(r, i - start + size) : KVANT_OK);
        if (!first) return KVANT_OK;
        if (memcmp(first, what, size) == 0) {
            *at = i;
            return KVANT_OK;
        }
        i++;
    }
    return KVANT_OK;
}

kvant_status kvant_jinja_contains(run *r, const value *what, const value *in, bool *out) {
    *out = false;
    if (in->kind == JINJA_STRING) {
        size_t at;
        if (what->kind != JINJA_STRING) return wrong_sides(r, OP_IN, what, in);
        KVANT_TRY(kvant_jinja_step_bytes(r, in->as.text->size));
        KVANT_TRY(
            kvant_jinja_find_bytes(r, in->as.text->bytes, in->as.text->size, 0, what->as.text->bytes, what->as.text->size, &at));
        *out = at != SIZE_MAX;
        return KVANT_OK;
    }
    if (in->kind == JINJA_DICT) {
        if (!kvant_jinja_is_key(what, 0) && what->kind != JINJA_UNDEFINED) return wrong_sides(r, OP_IN, what, in);
        *out = kvant_jinja_map_find(in->as.map, what) != NULL;
        return KVANT_OK;
    }
    if (!kvant_jinja_has_items(in) && in->kind != JINJA_UNDEFINED) return wrong_sides(r, OP_IN, what, in);
    kvant_jinja_items items;
    KVANT_TRY(kvant_jinja_iterate(r, in, &items));
    for (size_t i = 0; i < items.n && !*out; i++) {
        KVANT_TRY(kvant_jinja_step(r, 1));
        KVANT_TRY(kvant_jinja_equal(r, what, &items.data[i], out));
    }
    return KVANT_OK;
}

/* A bound of a slice of n things as Python reads it. */
static int64_t clamp(int64_t i, int64_t n, int64_t low, int64_t high) {
    if (i < 0) i = i < -n - 1 ? -1 : i + n;
    return i < low ? low : i > high ? high : i;
}

static kvant_status slice_text(run *r, const kvant_jinja_text *t, int64_t start, int64_t step, int64_t n, value *out) {
    kvant_jinja_builder b;
    kvant_status st;
    if (step == 1 || n <= 0) {
        size_t from = n <= 0 ? 0 : kvant_jinja_char_offset(t, (size_t)start),
               to = n <= 0 ? 0 : kvant_jinja_char_offset(t, (size_t)(start + n));
        KVANT_TRY(kvant_jinja_step_bytes(r, to));
        st = kvant_jinja_share(r->heap, t->bytes + from, to - from, out);
        return st == KVANT_OK ? st : kvant_jinja_out_of_memory(r, st);
    }
    kvant_jinja_builder_init(&b, r->heap);
    for (int64_t i = 0; i < n; i++) {
        size_t from = kvant_jinja_char_offset(t, (size_t)(start + i * step)),
               to = kvant_jinja_char_offset(t, (size_t)(start + i * step) + 1);
        if (t->n_chars != t->size || i % 16 == 0) KVANT_TRY(kvant_jinja_step_bytes(r, to));
        kvant_jinja_add(&b, t->bytes + from, to - from);
    }
    return kvant_jinja_finish(r, &b, out);
}

kvant_status kvant_jinja_slice(run *r, const value *v, const value bounds[3], value *out) {
    const char *view = kvant_jinja_has_items(v) ? v->as.items->view : NULL;
    bool range = view && strcmp(view, "range") == 0;
    if (!is_plain_sequence(v) && !range) return kvant_jinja_wrong(r, "a slice", v, "a str, list or tuple");
    for (int i = 0; i < 3; i++)
        if (bounds[i].kind != JINJA_NONE && !kvant_jinja_is_integral(&bounds[i]))
            return kvant_jinja_wrong(r, "a bound of a slice", &bounds[i], "an int");
    int64_t n = v->kind == JINJA_STRING ? (int64_t)v->as.text->n_chars : (int64_t)v->as.items->n;
    int64_t step = bounds[2].kind == JINJA_NONE ? 1 : kvant_jinja_integral(&bounds[2]);
    if (step == 0) return kvant_jinja_fail(r, KVANT_EFORMAT, "a slice with step 0", "another step");
    int64_t low = step > 0 ? 0 : -1, high = step > 0 ? n : n - 1;
    int64_t start =
        bounds[0].kind == JINJA_NONE ? (step > 0 ? low : high) : clamp(kvant_jinja_integral(&bounds[0]), n, low, high);
    int64_t end = bounds[1].kind == JINJA_NONE ? (step > 0 ? high : low) : clamp(kvant_jinja_integral(&bounds[1]), n, low, high);
    if (step > n + 1) step = n + 1; /* one thing, whatever is beyond */
    if (step < -n - 1) step = -n - 1;
    int64_t count = step > 0 ? (end - start + step - 1) / step : (start - end - step - 1) / -step;
    if (count < 0 || (step > 0 ? end <= start : end >= start)) count = 0;
    if (v->kind == JINJA_STRING) return slice_text(r, v->as.text, start, step, count, out);
    KVANT_TRY(kvant_jinja_step(r, (uint64_t)count / 16 + 1));
    kvant_status st = kvant_jinja_new_items(r->heap, v->kind, (size_t)count, out);
    if (st != KVANT_OK) return kvant_jinja_out_of_memory(r, st);
    out->as.items->view = view;
    for (int64_t i = 0; i < count; i++)
        out->as.items->data[out->as.items->n++] = v->as.items->data[start + i * step];
    return KVANT_OK;
}
