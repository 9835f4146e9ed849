// SPDX-License-Identifier: MIT
/* cmd_logits.c: kvant logits: the logits of every position of a list of token ids, as a file that other programs compare.
 *
 * Format, all little-endian: int32 magic 0x4c4f4754, version 1, n_tokens, n_vocab; then n_tokens int32 ids; then
 * n_tokens x n_vocab float32, a row for each position. The file appears when it is complete. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "interrupt.h"
#include "options.h"
#include "report.h"

#define MAX_IDS_BYTES ((size_t)64 << 20)
#define STEP_BYTES ((size_t)128 << 20) /* of a buffer of logits */
#define MAGIC 0x4c4f4754u
#define PATH_ROOM 4096

static const char usage[] = "kvant logits -m MODEL --ids FILE -o OUT [--kv FORMAT] [flags]";
static const char about[] =
    "Writes the logits of every position of a list of token ids (decimal, white space or commas between them; - for stdin).\n"
    "Arithmetic is float32 unless --fast is given, and the cache f16 unless the cache flags say otherwise. The file: int32\n"
    "magic 0x4c4f4754, version 1, n_tokens, n_vocab, the ids, then a row of n_vocab float32 a position; little-endian.";

typedef struct logits_job {
    kvant_model *model;
    kvant_model_info info;
    kvant_session *session;
    int32_t *ids;
    int n_ids, step;
    bool mlx_order;
    float *rows;    /* [step][n_vocab] */
    uint8_t *bytes; /* of one row, or of the ids */
    FILE *out;
    char part[PATH_ROOM];
} logits_job;

static void put_u32(uint8_t *p, uint32_t v) {
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
    p[2] = (uint8_t)(v >> 16);
    p[3] = (uint8_t)(v >> 24);
}

static bool write_words(logits_job *j, const void *words, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint32_t v;
        memcpy(&v, (const char *)words + 4 * i, 4);
        put_u32(j->bytes + 4 * i, v);
    }
    return fwrite(j->bytes, 4, n, j->out) == n;
}

static bool write_header(logits_job *j) {
    const uint32_t header[4] = {MAGIC, 1, (uint32_t)j->n_ids, (uint32_t)j->info.n_vocab};
    return write_words(j, header, 4) && write_words(j, j->ids, (size_t)j->n_ids);
}

/* As long a step as its logits fit. mlx-lm's order makes the chunks of a prefill, the last token apart. */
static void choose_step(logits_job *j, int prefill_step_size) {
    int most = prefill_step_size > 0 ? prefill_step_size : 512;
    size_t rows = STEP_BYTES / ((size_t)j->info.n_vocab * sizeof(float));
    j->step = most;
    if (!j->mlx_order && rows < (size_t)most) j->step = rows > 0 ? (int)rows : 1;
    if (j->step > j->n_ids) j->step = j->n_ids;
}

static int compute(logits_job *j) {
    kvant_error err = {0};
    progress bar;
    int code = 0;
    size_t n_vocab = (size_t)j->info.n_vocab;
    progress_begin(&bar, "logits");
    for (int done = 0; done < j->n_ids && !code && !interrupted;) {
        int left = j->n_ids - done, whole = j->mlx_order && left > 1 ? left - 1 : left, n = whole < j->step ? whole : j->step;
        if (kvant_session_step(j->session, j->ids + done, n, j->rows, &err) != KVANT_OK) code = fail_with(1, "%s", err.message);
        for (int i = 0; i < n && !code; i++) {
            if (!write_words(j, j->rows + (size_t)i * n_vocab, n_vocab))
                code = fail_with(1, "%s: cannot be written: %s", j->part, strerror(errno));
        }
        done += n;
        progress_update(&bar, done, j->n_ids);
    }
    progress_end(&bar);
    if (!code && interrupted) code = fail_with(1, "interrupted; nothing was written");
    return code;
}

static int write_file(logits_job *j, const char *out) {
    int length = snprintf(j->part, sizeof j->part, "%s.part", out);
    if (length < 0 || (size_t)length >= sizeof j->part) return fail_with(2, "-o: the path is longer than %d bytes", PATH_ROOM);
    j->out = fopen(j->part, "wb");
    if (!j->out) return fail_with(1, "%s: cannot be made: %s", j->part, strerror(errno));
    int code = write_header(j) ? compute(j) : fail_with(1, "%s: cannot be written: %s", j->part, strerror(errno));
    if (fclose(j->out) != 0 && !code) code = fail_with(1, "%s: cannot be written: %s", j->part, strerror(errno));
    j->out = NULL;
    if (!code && rename(j->part, out) != 0) code = fail_with(1, "%s: cannot be renamed to %s: %s", j->part, out, strerror(errno));
    if (code) remove(j->part);
    return code;
}

static int prepare(logits_job *j, const model_options *options, const char *ids_path) {
    kvant_error err = {0};
    kvant_session_params p;
    char *text;
    size_t size;
    kvant_status st = kvant_model_open(options->model, &options->load, &j->model, &err);
    if (st != KVANT_OK) return fail_with(st == KVANT_EINVAL ? 2 : 1, "%s", err.message);
    kvant_model_get_info(j->model, &j->info);
    int code = read_text(ids_path, MAX_IDS_BYTES, &text, &size);
    if (code) return code;
    code = parse_token_ids(strcmp(ids_path, "-") == 0 ? "stdin" : ids_path, text, size, j->info.n_vocab, &j->ids, &j->n_ids);
    free(text);
    if (code) return code;
    if (j->n_ids == 0) return fail_with(1, "%s: has no token ids", ids_path);
    if (options->n_context && j->n_ids > options->n_context)
        return fail_with(1, "%s: has %d tokens, but the context holds %" PRId64 " (-c)", ids_path, j->n_ids, options->n_context);
    kvant_session_params_default(&p);
    p.n_context = options->n_context ? options->n_context : j->n_ids;
    p.precision = options->fast ? KVANT_FAST : KVANT_EXACT;
    print_first_line(j->model, p.n_context);
    if (j->info.n_context_train > 0 && j->n_ids > j->info.n_context_train)
        fprintf(stderr, "kvant: %d tokens are more than the %" PRId64 " that the model was trained for\n", j->n_ids,
                j->info.n_context_train);
    j->mlx_order = options->load.kv.compat_mlx;
    choose_step(j, options->load.prefill_step_size);
    size_t words = (size_t)(j->n_ids > j->info.n_vocab ? j->n_ids : j->info.n_vocab);
    j->rows = malloc((size_t)j->step * (size_t)j->info.n_vocab * sizeof *j->rows);
    j->bytes = malloc(4 * (words < 4 ? 4 : words));
    if (!j->rows || !j->bytes) return fail_with(1, "out of memory");
    if (kvant_session_create(j->model, &p, &j->session, &err) != KVANT_OK) return fail_with(1, "%s", err.message);
    return 0;
}

int cmd_logits(int argc, char **argv) {
    model_options options = {0};
    logits_job j = {0};
    const char *ids = NULL, *out = NULL, *rest[1];
    int n_rest = 0;
    option flags[48];
    int n = options_add_model(flags, 0, 48, &options);
    flags[n++] = (option){NULL, NULL, OPTION_FLAG, NULL, 0, 0, NULL, "input and output"};
    flags[n++] = (option){"--ids", NULL, OPTION_STRING, &ids, 0, 0, "FILE", "the token ids, - for stdin"};
    flags[n++] = (option){"--output", "-o", OPTION_STRING, &out, 0, 0, "FILE", "the file to write"};
    int code = options_parse(usage, about, flags, n, argc, argv, rest, 1, &n_rest);
    if (code) return code < 0 ? 0 : code;
    code = options_finish_model(&options);
    if (!code) code = options_need_model(&options.model, rest, n_rest);
    if (!code && !ids) code = fail_with(2, "logits needs token ids: --ids FILE");
    if (!code && !out) code = fail_with(2, "logits needs a file to write: -o OUT");
    if (code) return code;
    code = prepare(&j, &options, ids);
    if (!code) {
        interrupt_watch();
        code = write_file(&j, out);
        interrupt_unwatch();
    }
    kvant_session_destroy(j.session);
    free(j.ids);
    free(j.rows);
    free(j.bytes);
    kvant_model_close(j.model);
    return code;
}
