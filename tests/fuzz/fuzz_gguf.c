// SPDX-License-Identifier: MIT
/* fuzz_gguf.c: any bytes as a GGUF file. What is accepted is read in full, by every function of gguf.h. */
#include <stdlib.h>
#include <string.h>

#include "file/gguf.h"
#include "fuzz_target.h"

static volatile uint64_t sink; /* reads must not be optimized away */

static void expect(bool ok) {
    if (!ok) abort();
}

static bool inside(const kvant_gguf *f, const void *p, size_t n) {
    const uint8_t *begin = p;
    return n == 0 || (begin >= f->map.data && n <= f->map.size && (size_t)(begin - f->map.data) <= f->map.size - n);
}

static void read_value(const kvant_gguf *f, const kvant_gguf_value *v) {
    char key[64];
    kvant_error err;
    expect(inside(f, v->key.data, v->key.size));
    if (v->key.size < sizeof key && !memchr(v->key.data, 0, v->key.size)) {
        memcpy(key, v->key.data, v->key.size);
        key[v->key.size] = '\0';
        expect(kvant_gguf_find(f, key) == v);
        uint32_t u;
        float x;
        bool flag;
        kvant_text text;
        kvant_gguf_u32(f, key, &u, &err);
        kvant_gguf_f32_or(f, key, 0, &x, &err);
        kvant_gguf_bool_or(f, key, false, &flag, &err);
        if (kvant_gguf_string(f, key, &text, &err) == KVANT_OK) expect(inside(f, text.data, text.size));
    }
    for (uint64_t i = 0; v->type == KVANT_GGUF_ARRAY && i < v->n_elements; i++) {
        if (v->element_type == KVANT_GGUF_STRING) {
            kvant_text text = kvant_gguf_array_string(v, i);
            expect(inside(f, text.data, text.size));
            continue;
        }
        sink += (uint64_t)kvant_gguf_array_int(v, i);
        sink += kvant_gguf_array_f32(v, i) > 0 ? 1 : 0;
        sink += kvant_gguf_array_f64(v, i) > 0 ? 1 : 0;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    kvant_gguf *f = NULL;
    kvant_error err = {0};
    kvant_status st = kvant_gguf_parse("fuzz.gguf", data, size, NULL, &f, &err);
    if (st != KVANT_OK) {
        expect(!f && err.status == st && err.message[0] && !strchr(err.message, '\n'));
        return 0;
    }
    for (int i = 0; i < f->n_values; i++)
        read_value(f, &f->values[i]);
    for (int i = 0; i < f->n_tensors; i++) {
        const kvant_gguf_tensor *t = &f->tensors[i];
        expect(inside(f, t->name.data, t->name.size) && inside(f, t->data, t->bytes ? t->bytes : 1));
        expect((size_t)(t->data - f->map.data) % f->alignment == 0);
        sink += (uint64_t)t->data[0] + (t->bytes ? t->data[t->bytes - 1] : 0);
    }
    kvant_gguf_close(f);
    return 0;
}
