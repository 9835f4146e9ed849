// SPDX-License-Identifier: MIT
/* fingerprint.c: a hash of a model's hyperparameters, and of name, type, shape and some bytes of each of its tensors.
 *
 * All keys of the architecture count ("qwen2.rope.freq_base"), so that none that the decoder reads can be forgotten. The vocabulary
 * does not: which token has which number changes no key. A sample of a tensor is enough, since training changes every number. */
#include "engine/fingerprint.h"

#include <string.h>

#include "base/hash.h"

#define VERSION 1 /* another way to count gives other fingerprints */
#define SAMPLE 256
#define SAMPLES 4
#define ARRAY_MAX 65536 /* bytes of an array that count, and strings of it */

static size_t value_size(kvant_gguf_type type) {
    switch (type) {
    case KVANT_GGUF_U8:
    case KVANT_GGUF_I8:
    case KVANT_GGUF_BOOL: return 1;
    case KVANT_GGUF_U16:
    case KVANT_GGUF_I16: return 2;
    case KVANT_GGUF_U64:
    case KVANT_GGUF_I64:
    case KVANT_GGUF_F64: return 8;
    default: return 4;
    }
}

static void add_text(kvant_hash *h, kvant_text t) {
    kvant_hash_add_u64(h, t.size);
    kvant_hash_add(h, t.data, t.size);
}

static void add_value(kvant_hash *h, const kvant_gguf *f, const char *key, const kvant_gguf_value *v) {
    kvant_text text;
    add_text(h, v->key);
    kvant_hash_add_u64(h, v->type);
    if (v->type == KVANT_GGUF_STRING) {
        if (kvant_gguf_string(f, key, &text, NULL) == KVANT_OK) add_text(h, text);
        return;
    }
    if (v->type != KVANT_GGUF_ARRAY) {
        kvant_hash_add(h, v->data, value_size(v->type));
        return;
    }
    kvant_hash_add_u64(h, v->element_type);
    kvant_hash_add_u64(h, v->n_elements);
    if (v->element_type == KVANT_GGUF_STRING) {
        for (uint64_t i = 0; i < v->n_elements && i < ARRAY_MAX; i++)
            add_text(h, kvant_gguf_array_string(v, i));
        return;
    }
    uint64_t most = ARRAY_MAX / value_size(v->element_type), n = v->n_elements < most ? v->n_elements : most;
    kvant_hash_add(h, v->data, (size_t)n * value_size(v->element_type));
}

static void add_hyperparameters(kvant_hash *h, const kvant_gguf *f) {
    kvant_text architecture = {0};
    if (kvant_gguf_string(f, "general.architecture", &architecture, NULL) != KVANT_OK) return;
    add_text(h, architecture);
    for (int i = 0; i < f->n_values; i++) {
        const kvant_gguf_value *v = &f->values[i];
        char key[256];
        bool is_own = v->key.size < sizeof key && v->key.size > architecture.size &&
                      memcmp(v->key.data, architecture.data, architecture.size) == 0 && v->key.data[architecture.size] == '.';
        bool is_kvant = v->key.size < sizeof key && v->key.size > 6 && memcmp(v->key.data, "kvant.", 6) == 0; /* of a folder */
        if (!is_own && !is_kvant) continue;
        memcpy(key, v->key.data, v->key.size);
        key[v->key.size] = '\0';
        add_value(h, f, key, v);
    }
}

static void add_sample(kvant_hash *h, const uint8_t *p, size_t n) {
    if (n <= SAMPLE * SAMPLES) {
        kvant_hash_add(h, p, n);
        return;
    }
    for (size_t i = 0; i < SAMPLES; i++) /* from the first bytes to the last */
        kvant_hash_add(h, p + (n - SAMPLE) * i / (SAMPLES - 1), SAMPLE);
}

static void add_tensor(kvant_hash *h, const kvant_gguf_tensor *t) {
    add_text(h, t->name);
    kvant_hash_add_u64(h, t->type);
    for (int d = 0; d < KVANT_GGUF_MAX_DIMS; d++)
        kvant_hash_add_u64(h, (uint64_t)t->dims[d]);
    if (!t->parts) add_sample(h, t->data, t->bytes);
    for (int i = 0; t->parts && i < t->n_parts; i++) {
        add_sample(h, t->parts[i].data, t->part_bytes);
        if (t->parts[i].scales) add_sample(h, t->parts[i].scales, t->part_scale_bytes);
        if (t->parts[i].biases) add_sample(h, t->parts[i].biases, t->part_scale_bytes);
    }
}

void kvant_fingerprint_file(const kvant_gguf *f, uint8_t out[KVANT_FINGERPRINT_BYTES]) {
    kvant_hash h;
    kvant_hash_begin(&h);
    kvant_hash_add_u64(&h, VERSION);
    add_hyperparameters(&h, f);
    for (int i = 0; i < f->n_tensors; i++)
        add_tensor(&h, &f->tensors[i]);
    kvant_hash_get(&h, out);
}
