// SPDX-License-Identifier: MIT
/* calibration_store.c: the files that calibrations are kept in, and which of them a model finds again.
 *
 * The folder is a cache: any file may be missing, damaged or impossible to write, and a caller makes the calibration again. A name
 * says what was read, so a file is never out of date; the fingerprint inside is checked all the same.
 *
 * Not here: where the folder is (the program says it), what a file holds (src/cache/calibration_bytes.c). */
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "base/os.h"
#include "engine/calibration_store.h"

#define FILE_MAX ((size_t)256 << 20) /* more than any model's takes */

char *kvant_store_path(const char *folder, const uint8_t key[KVANT_HASH_BYTES], const char *extension) {
    size_t size = strlen(folder) + 2 * KVANT_HASH_BYTES + strlen(extension) + sizeof "/.";
    char *path = kvant_alloc(size, 1);
    if (!path) return NULL;
    int at = snprintf(path, size, "%s/", folder);
    for (int i = 0; i < KVANT_HASH_BYTES; i++)
        at += snprintf(path + at, size - (size_t)at, "%02x", key[i]);
    snprintf(path + at, size - (size_t)at, ".%s", extension);
    return path;
}

kvant_status kvant_calibration_store_path(const char *folder, const uint8_t fingerprint[KVANT_FINGERPRINT_BYTES], const int32_t *ids,
                                          int n, char **path) {
    uint8_t key[KVANT_HASH_BYTES];
    kvant_hash h;
    kvant_hash_begin(&h);
    kvant_hash_add(&h, fingerprint, KVANT_FINGERPRINT_BYTES);
    for (int i = 0; ids && i < n; i++)
        kvant_hash_add_u64(&h, (uint64_t)ids[i]);
    kvant_hash_get(&h, key);
    *path = kvant_store_path(folder, key, "kvcalib");
    return *path ? KVANT_OK : KVANT_ENOMEM;
}

kvant_status kvant_calibration_store_read(const char *path, const kvant_calibration_config *config,
                                          const uint8_t fingerprint[KVANT_FINGERPRINT_BYTES], kvant_calibration **out, kvant_error *err) {
    uint8_t *bytes;
    size_t size;
    KVANT_TRY(kvant_os_read_file(path, FILE_MAX, &bytes, &size, err));
    kvant_status st = kvant_calibration_read(config, fingerprint, bytes, size, path, out, err);
    kvant_free(bytes);
    return st;
}

kvant_status kvant_calibration_store_write(const char *path, const kvant_calibration *c,
                                           const uint8_t fingerprint[KVANT_FINGERPRINT_BYTES], kvant_error *err) {
    uint8_t *bytes;
    size_t size;
    kvant_status st = kvant_calibration_write(c, fingerprint, &bytes, &size);
    if (st != KVANT_OK) return kvant_fail(err, st, "%s: %s", path, kvant_status_name(st));
    st = kvant_os_write_file(path, bytes, size, err);
    kvant_calibration_bytes_free(bytes);
    return st;
}
