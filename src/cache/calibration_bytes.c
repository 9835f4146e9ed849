// SPDX-License-Identifier: MIT
/* calibration_bytes.c: a finished calibration as bytes and back: docs/FORMAT.md, "Calibration".
 *
 * Positions are not stored: how a model turns its keys is read from the model. What is stored is only believed after the
 * checksum, the fingerprint and the dimensions agree. */
#include <math.h>
#include <string.h>

#include "base/bytes.h"
#include "base/half.h"
#include "base/hash.h"
#include "base/memory.h"
#include "cache/calibration_internal.h"

#define MAGIC "KVCALIB2"
#define HEADER 64 /* magic 8, fingerprint 16, n_layer 4, n_kv_head 4, head_dim 4, zero 4, tokens 8, checksum 16 */
#define CHECKSUM_AT 48

static void put_u64(uint8_t *p, uint64_t v) {
    kvant_write_u32(p, (uint32_t)v);
    kvant_write_u32(p + 4, (uint32_t)(v >> 32));
}

static size_t cell_count(int n_layer, int n_kv_head, int head_dim) {
    return (size_t)n_layer * (size_t)n_kv_head * (size_t)head_dim;
}

kvant_status kvant_calibration_write(const kvant_calibration *c, const uint8_t fingerprint[KVANT_FINGERPRINT_BYTES],
                                     uint8_t **bytes, size_t *size) {
    if (!c->finished) return KVANT_EINVAL;
    size_t cells = cell_count(c->n_layer, c->n_kv_head, c->head_dim), total = HEADER + 12 * cells;
    uint8_t *out = kvant_alloc(total, 1);
    if (!out) return KVANT_ENOMEM;
    memcpy(out, MAGIC, 8);
    memcpy(out + 8, fingerprint, KVANT_FINGERPRINT_BYTES);
    kvant_write_u32(out + 24, (uint32_t)c->n_layer);
    kvant_write_u32(out + 28, (uint32_t)c->n_kv_head);
    kvant_write_u32(out + 32, (uint32_t)c->head_dim);
    put_u64(out + 40, (uint64_t)kvant_calibration_tokens(c));
    for (size_t i = 0; i < cells; i++) {
        kvant_write_u32(out + HEADER + 4 * i, kvant_f32_bits(c->mean[i]));
        kvant_write_u32(out + HEADER + 4 * (cells + i), kvant_f32_bits(c->scale[i]));
        kvant_write_u32(out + HEADER + 4 * (2 * cells + i), kvant_f32_bits(c->energy[i]));
    }
    kvant_hash_around(out, total, CHECKSUM_AT, out + CHECKSUM_AT);
    *bytes = out;
    *size = total;
    return KVANT_OK;
}

void kvant_calibration_bytes_free(uint8_t *bytes) { kvant_free(bytes); }

static kvant_status check_bytes(const kvant_calibration *c, const uint8_t *fingerprint, const uint8_t *bytes, size_t size,
                                const char *name, kvant_error *err) {
    uint8_t sum[KVANT_HASH_BYTES];
    if (size >= 8 && memcmp(bytes, "KVCALIB1", 8) == 0)
        return kvant_fail(err, KVANT_EFORMAT, "%s: is a calibration of an older Kvant (KVCALIB1, expected " MAGIC "); make it again",
                          name);
    if (size < HEADER || memcmp(bytes, MAGIC, 8) != 0)
        return kvant_fail(err, KVANT_EFORMAT, "%s: is not a calibration: it does not begin with " MAGIC, name);
    kvant_hash_around(bytes, size, CHECKSUM_AT, sum);
    if (memcmp(bytes + CHECKSUM_AT, sum, sizeof sum) != 0)
        return kvant_fail(err, KVANT_EFORMAT, "%s: the checksum does not match; the file is damaged", name);
    if (memcmp(bytes + 8, fingerprint, KVANT_FINGERPRINT_BYTES) != 0)
        return kvant_fail(err, KVANT_EINVAL, "%s: is the calibration of another model: the fingerprints differ", name);
    uint32_t n_layer = kvant_read_u32(bytes + 24), n_kv_head = kvant_read_u32(bytes + 28), head_dim = kvant_read_u32(bytes + 32);
    if (n_layer != (uint32_t)c->n_layer || n_kv_head != (uint32_t)c->n_kv_head || head_dim != (uint32_t)c->head_dim)
        return kvant_fail(err, KVANT_EINVAL,
                          "%s: is the calibration of another model: found %u layers, %u KV heads, head_dim %u, expected %d, "
                          "%d, %d",
                          name, n_layer, n_kv_head, head_dim, c->n_layer, c->n_kv_head, c->head_dim);
    if (size != HEADER + 12 * cell_count(c->n_layer, c->n_kv_head, c->head_dim))
        return kvant_fail(err, KVANT_EFORMAT, "%s: found %zu bytes, expected %zu", name, size,
                          HEADER + 12 * cell_count(c->n_layer, c->n_kv_head, c->head_dim));
    return KVANT_OK;
}

kvant_status kvant_calibration_read(const kvant_calibration_config *config, const uint8_t fingerprint[KVANT_FINGERPRINT_BYTES],
                                    const uint8_t *bytes, size_t size, const char *name, kvant_calibration **out,
                                    kvant_error *err) {
    kvant_calibration *c;
    KVANT_TRY(kvant_calibration_create(config, &c, err));
    kvant_status st = check_bytes(c, fingerprint, bytes, size, name, err);
    size_t cells = cell_count(c->n_layer, c->n_kv_head, c->head_dim);
    for (size_t i = 0; i < cells && st == KVANT_OK; i++) {
        c->mean[i] = kvant_bits_f32(kvant_read_u32(bytes + HEADER + 4 * i));
        c->scale[i] = kvant_bits_f32(kvant_read_u32(bytes + HEADER + 4 * (cells + i)));
        c->energy[i] = kvant_bits_f32(kvant_read_u32(bytes + HEADER + 4 * (2 * cells + i)));
        if (!(fabsf(c->mean[i]) < 1e30f) || !(c->scale[i] >= 1e-4f && c->scale[i] <= 1e4f) ||
            !(c->energy[i] >= 0.0f && c->energy[i] < 1e31f))
            st = kvant_fail(err, KVANT_EFORMAT, "%s: number %zu is out of range (mean %g, scale %g)", name, i, (double)c->mean[i],
                            (double)c->scale[i]);
    }
    if (st != KVANT_OK) {
        kvant_calibration_destroy(c);
        return st;
    }
    for (int i = 0; i < c->n_layer; i++)
        c->n_token[i] = (int64_t)kvant_read_u64(bytes + 40);
    c->finished = true;
    *out = c;
    return KVANT_OK;
}
