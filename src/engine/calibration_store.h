// SPDX-License-Identifier: MIT
/* calibration_store.h: the text that models are calibrated with, and the files that calibrations are kept in (private to src/engine). */
#ifndef KVANT_ENGINE_CALIBRATION_STORE_H
#define KVANT_ENGINE_CALIBRATION_STORE_H

#include "base/hash.h"
#include "base/status.h"

extern const char kvant_calibration_text[];

/* "<folder>/<key in hexadecimal>.<extension>", freed with kvant_free; NULL: no memory. */
char *kvant_store_path(const char *folder, const uint8_t key[KVANT_HASH_BYTES], const char *extension);

/* Which file of the cache folder: of a model and the tokens that were read (ids NULL: text of the user's own). Another text, another
 * tokenizer or another model gives another name. *path is "<folder>/<32 hexadecimal digits>.kvcalib", freed with kvant_free. */
kvant_status kvant_calibration_store_path(const char *folder, const uint8_t fingerprint[KVANT_FINGERPRINT_BYTES], const int32_t *ids,
                                          int n, char **path);

/* KVANT_EIO: it is not there, or cannot be read. KVANT_EFORMAT: damaged. KVANT_EINVAL: of another model. */
kvant_status kvant_calibration_store_read(const char *path, const kvant_calibration_config *config,
                                          const uint8_t fingerprint[KVANT_FINGERPRINT_BYTES], kvant_calibration **out, kvant_error *err);
/* Whole or not at all; others may write the same file at the same time. */
kvant_status kvant_calibration_store_write(const char *path, const kvant_calibration *c,
                                           const uint8_t fingerprint[KVANT_FINGERPRINT_BYTES], kvant_error *err);

#endif
