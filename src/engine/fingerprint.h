// SPDX-License-Identifier: MIT
/* fingerprint.h: sixteen bytes that tell models apart, by what decides their keys and queries. */
#ifndef KVANT_ENGINE_FINGERPRINT_H
#define KVANT_ENGINE_FINGERPRINT_H

#include "file/gguf.h"

/* Takes milliseconds: of tensors, samples are read. Copies and renamed files have the same; other weights, quantizations or
 * hyperparameters have another. */
void kvant_fingerprint_file(const kvant_gguf *f, uint8_t out[KVANT_FINGERPRINT_BYTES]);

#endif
