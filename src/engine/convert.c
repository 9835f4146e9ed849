// SPDX-License-Identifier: MIT
/* convert.c: writes a model anew: as a GGUF file or a folder, with other weights, or both.
 *
 * Everything goes into TARGET.part, and TARGET.part.state says now and then how much of it is certain; a run that finds both,
 * made of the same source with the same settings, goes on from there. TARGET appears whole, by renaming, after what was written
 * was read back. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/os.h"
#include "engine/convert.h"
#include "engine/fingerprint.h"
#include "file/folder.h"

#define PATH_ROOM 4096
#define STATE_STEP ((uint64_t)64 << 20) /* bytes between two states */
#define HASH_TEXT 33

typedef struct job {
    const kvant_convert_params *params;
    const char *source_path, *target;
    bool to_folder;
    char part[PATH_ROOM], data[PATH_ROOM], state[PATH_ROOM]; /* data: the file with the numbers, part itself or inside it */
    char hash[HASH_TEXT];
    kvant_gguf *source;
    kvant_convert_plan plan;
    kvant_buffer head;
    kvant_os_output out;
    uint64_t done, total, kept_at; /* bytes of the file, and those that the last state was about */
    int first_item;
    kvant_error *err;
} job;

/* ---- settings ---- */

kvant_status kvant_convert_weights_parse(const char *name, kvant_convert_weights *out, kvant_error *err) {
    static const struct {
        const char *name;
        kvant_convert_form form;
    } names[] = {{"f32", KVANT_CONVERT_F32},
                 {"f16", KVANT_CONVERT_F16},
                 {"bf16", KVANT_CONVERT_BF16},
                 {"q8_0", KVANT_CONVERT_Q8_0},
                 {"q4_0", KVANT_CONVERT_Q4_0}};
    kvant_format f;
    *out = (kvant_convert_weights){.form = KVANT_CONVERT_COPY};
    if (!name) return KVANT_OK;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i].name) == 0) {
            out->form = names[i].form;
            return KVANT_OK;
        }
    if (kvant_format_parse(name, &f, NULL) == KVANT_OK && f.codec == KVANT_CODEC_AFFINE) {
        *out = (kvant_convert_weights){KVANT_CONVERT_AFFINE, f.bits, f.group};
        return KVANT_OK;
    }
    return kvant_fail(err, KVANT_EINVAL, "weights: found %.40s, expected f32, f16, bf16, q8_0, q4_0 or affineB:G (affine4:64)",
                      name);
}

static bool ends_in(const char *text, const char *end) {
    size_t n = strlen(text), k = strlen(end);
    return n > k && strcmp(text + n - k, end) == 0;
}

static kvant_status check_target(job *j, const kvant_convert_weights *w) {
    kvant_os_file probe;
    bool absent = false, is_there = kvant_os_file_open(j->target, &probe, &absent, NULL) == KVANT_OK;
    if (is_there) kvant_os_file_close(&probe);
    if (is_there || !absent) return kvant_fail(j->err, KVANT_EINVAL, "%s: is there already; nothing is written over", j->target);
    if (!j->to_folder && w->form == KVANT_CONVERT_AFFINE)
        return kvant_fail(j->err, KVANT_EINVAL,
                          "%s: a GGUF file has no affine weights; q4_0 and q8_0 are what it has (or the target is a folder)",
                          j->target);
    if (j->to_folder && (w->form == KVANT_CONVERT_Q8_0 || w->form == KVANT_CONVERT_Q4_0))
        return kvant_fail(j->err, KVANT_EINVAL,
                          "%s: a folder has no q4_0 or q8_0 weights; affine4:64 and affine8:64 are what it has (or the target "
                          "ends in .gguf)",
                          j->target);
    int n = snprintf(j->part, sizeof j->part, "%s.part", j->target);
    int k = snprintf(j->state, sizeof j->state, "%s.part.state", j->target);
    int d = snprintf(j->data, sizeof j->data, "%s.part%s", j->target, j->to_folder ? "/model.safetensors" : "");
    bool fits =
        n > 0 && k > 0 && d > 0 && (size_t)k < sizeof j->state && (size_t)d < sizeof j->data && (size_t)n < sizeof j->part;
    return fits ? KVANT_OK : kvant_fail(j->err, KVANT_EINVAL, "%.64s...: the path is longer than %d bytes", j->target, PATH_ROOM);
}

/* ---- states ---- */

/* Of the head, which says what everything is, and of the source's numbers. */
static void hash_plan(job *j) {
    kvant_hash h;
    uint8_t bytes[KVANT_FINGERPRINT_BYTES];
    kvant_hash_begin(&h);
    kvant_fingerprint_file(j->source, bytes);
    kvant_hash_add(&h, bytes, sizeof bytes);
    kvant_hash_add(&h, j->head.data, j->head.size);
    kvant_hash_get(&h, bytes);
    for (size_t i = 0; i < sizeof bytes; i++)
        snprintf(j->hash + 2 * i, 3, "%02x", bytes[i]);
}

static kvant_status write_state(job *j, int n_items) {
    char text[128];
    KVANT_TRY(kvant_os_output_sync(&j->out, j->err));
    int n = snprintf(text, sizeof text, "kvant convert 1 %s %d %" PRIu64 "\n", j->hash, n_items, j->out.size);
    j->kept_at = j->out.size;
    return kvant_os_write_file(j->state, text, (size_t)n, j->err);
}

/* The bytes of the file that an earlier run left and that count; 0: none. */
static uint64_t read_state(job *j) {
    uint8_t *text = NULL;
    size_t size;
    char hash[HASH_TEXT];
    int n_items = 0;
    unsigned long long bytes = 0;
    kvant_os_file data;
    if (kvant_os_read_file(j->state, 256, &text, &size, NULL) != KVANT_OK) return 0;
    char line[257] = {0};
    memcpy(line, text, size);
    kvant_free(text);
    if (sscanf(line, "kvant convert 1 %32s %d %llu", hash, &n_items, &bytes) != 3) return 0;
    uint64_t expected = j->head.size;
    if (strcmp(hash, j->hash) != 0 || n_items < 0 || n_items > j->plan.n) return 0;
    for (int i = 0; i < n_items; i++)
        expected += j->plan.items[i].bytes + j->plan.items[i].padding;
    if (bytes != expected || kvant_os_file_open(j->data, &data, NULL, NULL) != KVANT_OK) return 0;
    bool is_whole = data.size >= bytes;
    kvant_os_file_close(&data);
    if (!is_whole) return 0;
    j->first_item = n_items;
    return bytes;
}

/* ---- writing ---- */

static bool tick(void *user, uint64_t bytes) {
    job *j = user;
    j->done += bytes;
    return !j->params->progress || j->params->progress(j->params->user, (int64_t)j->done, (int64_t)j->total);
}

static kvant_status write_items(job *j) {
    if (j->first_item == 0 && j->out.size == 0) KVANT_TRY(kvant_os_output_write(&j->out, j->head.data, j->head.size, j->err));
    for (int i = j->first_item; i < j->plan.n; i++) {
        kvant_status st = kvant_convert_write(&j->plan, &j->plan.items[i], &j->out, tick, j, j->err);
        if (st != KVANT_OK) return st;
        if (j->out.size - j->kept_at >= STATE_STEP) KVANT_TRY(write_state(j, i + 1));
        j->first_item = i + 1;
    }
    return kvant_os_output_sync(&j->out, j->err);
}

/* What was written whole stays for a second run, whatever stopped this one; a full disk takes the rest. */
static void keep_what_is_whole(job *j) {
    uint64_t whole = j->head.size;
    for (int i = 0; i < j->first_item; i++)
        whole += j->plan.items[i].bytes + j->plan.items[i].padding;
    if (j->out.size < whole) return;
    j->out.size = whole;
    kvant_error *err = j->err;
    j->err = NULL;
    (void)write_state(j, j->first_item);
    j->err = err;
}

static kvant_status write_data(job *j) {
    uint64_t kept = read_state(j);
    j->total = j->head.size + j->plan.bytes;
    j->done = kept ? kept : j->head.size;
    KVANT_TRY(kvant_os_output_open(j->data, kept, &j->out, j->err));
    j->kept_at = kept;
    kvant_status st = write_items(j);
    if (st != KVANT_OK) keep_what_is_whole(j);
    kvant_status closed = kvant_os_output_close(&j->out, st == KVANT_OK ? j->err : NULL);
    return st == KVANT_OK ? closed : st;
}

/* ---- the proof ---- */

/* What was written opens, and its vocabulary is the source's. */
static kvant_status check_written(job *j) {
    kvant_gguf *written;
    bool other_kind = kvant_convert_is_folder(j->source) != j->to_folder;
    KVANT_TRY(kvant_model_file_open(j->part, &written, j->err));
    kvant_status st = KVANT_OK;
    if (j->to_folder) st = kvant_convert_compare_metadata(j->source, written, j->err);
    if (st == KVANT_OK && other_kind) st = kvant_convert_compare_vocabs(j->source, written, j->err);
    kvant_gguf_close(written);
    return st;
}

static kvant_status convert(job *j, kvant_convert_result *result) {
    kvant_convert_weights w;
    KVANT_TRY(kvant_convert_weights_parse(j->params->weights, &w, j->err));
    KVANT_TRY(check_target(j, &w));
    KVANT_TRY(kvant_model_file_open(j->source_path, &j->source, j->err));
    KVANT_TRY((j->to_folder ? kvant_convert_plan_folder : kvant_convert_plan_gguf)(j->source, &w, &j->plan, &j->head, j->err));
    hash_plan(j);
    if (j->to_folder) KVANT_TRY(kvant_os_make_folder(j->part, j->err));
    if (j->to_folder) KVANT_TRY(kvant_convert_write_folder(j->source, &w, j->part, j->err));
    KVANT_TRY(write_data(j));
    KVANT_TRY(check_written(j));
    KVANT_TRY(kvant_os_rename(j->part, j->target, j->err));
    (void)kvant_os_remove_file(j->state);
    *result = (kvant_convert_result){.n_tensors = j->plan.n, .bytes = j->total};
    for (int i = 0; i < j->plan.n; i++)
        result->n_changed += kvant_convert_changes(&j->plan.items[i]);
    return KVANT_OK;
}

kvant_status kvant_convert(const char *source, const char *target, const kvant_convert_params *params,
                           kvant_convert_result *result, kvant_error *err) {
    static const kvant_convert_params none;
    kvant_convert_result unwanted;
    job *j = kvant_alloc(1, sizeof *j);
    if (!j) return kvant_fail(err, KVANT_ENOMEM, "convert: out of memory");
    j->params = params ? params : &none;
    j->target = target;
    j->source_path = source;
    j->to_folder = !ends_in(target, ".gguf");
    j->err = err;
    kvant_buffer_init(&j->head, KVANT_GGUF_HEAD_MAX);
    kvant_status st = convert(j, result ? result : &unwanted);
    kvant_buffer_free(&j->head);
    kvant_free(j->plan.items);
    kvant_gguf_close(j->source);
    kvant_free(j);
    return st;
}
