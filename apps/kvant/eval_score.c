// SPDX-License-Identifier: MIT
/* eval_score.c: the divergence of every position of a text from the f16 cache.
 *
 * All rows read a step of tokens before the next is read, so that only one step of reference logits is kept and an interrupted
 * run has scored the same positions of every row. Every chunk starts with empty caches. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "eval.h"
#include "interrupt.h"

#define MAX_STEP 256
#define STEP_BYTES ((size_t)128 << 20) /* of one buffer of logits; there are three */

static bool score_row(evaluation *e, eval_row *r, const float *logits, int first, int n, int chunk_length) {
    size_t n_vocab = (size_t)e->info.n_vocab;
    bool is_reference = r == &e->rows[0];
    divergence_sample *sample = &r->result.sample;
    for (int i = 0; i < n; i++) {
        const float *x = logits + (size_t)i * n_vocab;
        softmax_row row, *reference = &e->softmax[i];
        double kl = 0;
        softmax_row_init(&row, x, e->info.n_vocab, is_reference ? e->weights + (size_t)i * n_vocab : NULL);
        if (is_reference)
            *reference = row;
        else
            kl = divergence_kl(reference, e->reference + (size_t)i * n_vocab, e->weights + (size_t)i * n_vocab, &row, x,
                               e->info.n_vocab);
        if (!divergence_sample_add(sample, kl, row.top == reference->top)) return false;
        if (first + i + 1 < chunk_length) {
            sample->nll += softmax_row_nll(&row, x, e->chunk_ids[first + i + 1]);
            sample->n_nll++;
        }
    }
    return true;
}

/* The first k rows forget what they scored since `before`. */
static void forget_step(evaluation *e, divergence_sample *before, int k) {
    for (int i = 0; i < k; i++) {
        before[i].kl = e->rows[i].result.sample.kl;
        before[i].capacity = e->rows[i].result.sample.capacity;
        e->rows[i].result.sample = before[i];
    }
}

/* A step of n tokens through every session. An interrupted step is forgotten. */
static int score_step(evaluation *e, int first, int n, int chunk_length, progress *bar, double done, double total) {
    divergence_sample before[EVAL_MAX_ROWS];
    kvant_error err = {0};
    for (int i = 0; i < e->n_rows; i++)
        before[i] = e->rows[i].result.sample;
    for (int i = 0; i < e->n_rows; i++) {
        eval_row *r = &e->rows[i];
        float *logits = i == 0 ? e->reference : e->logits;
        if (!interrupted && kvant_session_step(r->session, e->chunk_ids + first, n, logits, &err) != KVANT_OK)
            return fail_with(1, "%s: %s", r->result.name, err.message);
        if (interrupted) {
            forget_step(e, before, i);
            return 0;
        }
        if (!score_row(e, r, logits, first, n, chunk_length)) return fail_with(1, "out of memory");
        progress_update(bar, done + (double)n * (i + 1) / e->n_rows, total);
    }
    return 0;
}

static int allocate_buffers(evaluation *e) {
    size_t cells = (size_t)e->step * (size_t)e->info.n_vocab;
    e->reference = malloc(cells * sizeof(float));
    e->weights = malloc(cells * sizeof(float));
    e->logits = malloc(cells * sizeof(float));
    e->softmax = malloc((size_t)e->step * sizeof *e->softmax);
    return e->reference && e->weights && e->logits && e->softmax ? 0 : fail_with(1, "out of memory");
}

static void free_buffers(evaluation *e) {
    free(e->reference);
    free(e->weights);
    free(e->logits);
    free(e->softmax);
    e->reference = e->weights = e->logits = NULL;
    e->softmax = NULL;
}

/* Logits of a whole step are kept: a step is as long as they fit, and not longer than the prefill step that was asked for. */
static int choose_step(const evaluation *e) {
    size_t rows = STEP_BYTES / ((size_t)e->info.n_vocab * sizeof(float));
    int step = rows > MAX_STEP ? MAX_STEP : (int)rows & ~15, asked = e->load->prefill_step_size;
    if (step < 1) step = 1;
    if (asked > 0 && asked < step) step = asked;
    return step < e->chunk ? step : e->chunk;
}

static int score_chunk(evaluation *e, int64_t start, progress *bar, int64_t begun) {
    int length = e->n_scored - start < e->chunk ? (int)(e->n_scored - start) : e->chunk;
    memcpy(e->chunk_ids, e->ids + start, (size_t)length * sizeof *e->ids);
    if (e->has_bos) e->chunk_ids[0] = e->ids[0];
    int code = eval_empty_rows(e);
    for (int first = 0; first < length && !code && !interrupted; first += e->step) {
        int n = length - first < e->step ? length - first : e->step;
        code = score_step(e, first, n, length, bar, (double)(start - begun + first), (double)(e->n_scored - begun));
    }
    if (code || interrupted) return code;
    for (int i = 0; i < e->n_rows; i++) {
        eval_row *r = &e->rows[i];
        if (isnan(r->result.bits) && length == e->chunk) r->result.bits = eval_measure_bits(e, r);
    }
    e->state.scored = start + length;
    return eval_save(e);
}

int eval_score(evaluation *e) {
    progress bar;
    int64_t begun = e->state.scored; /* the time left is that of this run */
    if (begun >= e->n_scored) return 0;
    e->step = choose_step(e);
    int code = allocate_buffers(e);
    progress_begin(&bar, "eval");
    for (int64_t start = begun; start < e->n_scored && !code && !interrupted; start += e->chunk)
        code = score_chunk(e, start, &bar, begun);
    progress_end(&bar);
    free_buffers(e);
    return code;
}
