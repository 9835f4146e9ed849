// SPDX-License-Identifier: MIT
/* fuzz_safetensors.c: any bytes as a safetensors file, and as the two files of a model folder: two bytes of a length, so much
 * config.json, and the rest model.safetensors. What is accepted is read where a decoder would read it. */
#include <stdlib.h>
#include <string.h>

#include "file/folder.h"
#include "file/safetensors.h"
#include "fuzz_target.h"

static volatile uint64_t sink; /* reads must not be optimized away */

static void expect(bool ok) {
    if (!ok) abort();
}

static void expect_sentence(const kvant_error *err, kvant_status st) {
    expect(err->status == st && err->message[0] && !strchr(err->message, '\n'));
}

static void read_file(const uint8_t *data, size_t size) {
    kvant_safetensors *f = NULL;
    kvant_error err = {0};
    kvant_status st = kvant_safetensors_parse("fuzz.safetensors", data, size, &f, &err);
    if (st != KVANT_OK) {
        expect(!f);
        expect_sentence(&err, st);
        return;
    }
    for (int i = 0; i < f->n_tensors; i++) {
        const kvant_safetensor *t = &f->tensors[i];
        expect(kvant_safetensors_find(f, t->name) == t);
        expect(t->data >= data && t->bytes >= 1 && t->bytes <= size - (size_t)(t->data - data));
        sink += (uint64_t)t->data[0] + t->data[t->bytes - 1];
    }
    kvant_safetensors_close(f);
}

static void read_span(const uint8_t *p, size_t bytes) {
    if (p && bytes) sink += (uint64_t)p[0] + p[bytes - 1];
}

static void read_tensor(const kvant_gguf_tensor *t) {
    expect(t->parts && t->n_parts >= 1 && t->part_rows >= 1);
    expect(t->part_rows * t->n_parts == t->dims[1] * t->dims[2] * t->dims[3]);
    expect(t->row_bytes * (size_t)(t->part_rows - 1) <= t->part_bytes);
    for (int i = 0; i < t->n_parts; i++) {
        read_span(t->parts[i].data, t->part_bytes);
        read_span(t->parts[i].scales, t->part_scale_bytes);
        read_span(t->parts[i].biases, t->part_scale_bytes);
    }
}

static void read_folder(const uint8_t *data, size_t size) {
    size_t config = size < 2 ? 0 : (size_t)data[0] + 256 * (size_t)data[1];
    if (size < 2 || config > size - 2) return;
    kvant_gguf *f = NULL;
    kvant_error err = {0};
    const uint8_t *tensors = data + 2 + config;
    kvant_status st = kvant_folder_parse("fuzz", (const char *)data + 2, config, tensors, size - 2 - config, &f, &err);
    if (st != KVANT_OK) {
        expect(!f);
        expect_sentence(&err, st);
        return;
    }
    for (int i = 0; i < f->n_tensors; i++)
        read_tensor(&f->tensors[i]);
    kvant_text architecture;
    expect(kvant_gguf_string(f, "general.architecture", &architecture, &err) == KVANT_OK);
    kvant_gguf_close(f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    read_file(data, size);
    read_folder(data, size);
    return 0;
}
