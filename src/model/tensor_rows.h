// SPDX-License-Identifier: MIT
/* tensor_rows.h: where the rows of a model file's tensor lie, for src/weight, which knows no files. */
#ifndef KVANT_MODEL_TENSOR_ROWS_H
#define KVANT_MODEL_TENSOR_ROWS_H

#include "file/gguf.h"
#include "weight/weight.h"

/* Rows of the tensor from `row` on. They end with the part that holds it (one expert; a GGUF file's tensor is one part). */
static inline kvant_weight_source kvant_tensor_rows(const kvant_gguf_tensor *t, int64_t row) {
    kvant_weight_source s = {.type = t->type};
    if (!t->parts) {
        (void)kvant_weight_row_bytes(t->type, t->dims[0], &s.row_bytes); /* its type was checked before */
        s.data = t->data + (size_t)row * s.row_bytes;
        return s;
    }
    const kvant_gguf_part *part = &t->parts[row / t->part_rows];
    size_t at = (size_t)(row % t->part_rows);
    s.row_bytes = t->row_bytes;
    s.scale_row_bytes = t->scale_row_bytes;
    s.data = part->data + at * t->row_bytes;
    s.scales = part->scales ? part->scales + at * t->scale_row_bytes : NULL;
    s.biases = part->biases ? part->biases + at * t->scale_row_bytes : NULL;
    return s;
}

#endif
