// SPDX-License-Identifier: MIT
/* gguf_internal.h: what opening a folder needs of opening a GGUF file. */
#ifndef KVANT_FILE_GGUF_INTERNAL_H
#define KVANT_FILE_GGUF_INTERNAL_H

#include "file/gguf.h"

/* Sorts the names of f->tensors for lookups, again if they were sorted before. KVANT_EFORMAT: one stands twice. */
kvant_status kvant_gguf_index_tensors(kvant_gguf *f, kvant_error *err);

#endif
