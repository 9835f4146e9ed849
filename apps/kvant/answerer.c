// SPDX-License-Identifier: MIT
/* answerer.c: see answerer.h. A generator gives tokens, one or several at a time; from here on they are handled one by one. */
#include "answerer.h"

#include <stdlib.h>

#include "interrupt.h"
#include "options.h"

int answerer_begin(answerer *a, const answer_config *config) {
    kvant_error err = {0};
    *a = (answerer){.config = *config, .ended = "length"};
    kvant_status st = kvant_generator_create(config->session, config->sampler, config->draft, &a->generator, &err);
    return st == KVANT_OK ? 0 : fail_with(st == KVANT_EINVAL ? 2 : 1, "%s", err.message);
}

void answerer_free(answerer *a) {
    kvant_generator_destroy(a->generator);
    free(a->ids);
    a->generator = NULL;
    a->ids = NULL;
}

/* What one answer needs besides. */
typedef struct answer_text {
    kvant_text_stream *stream;
    stop_text stop;
} answer_text;

static int show(answerer *a, answer_text *t, const char *text, size_t size) {
    const char *out;
    size_t out_size;
    if (!stop_text_push(&t->stop, text, size, &out, &out_size)) return fail_with(1, "out of memory");
    return out_size > 0 ? a->config.put(a->config.user, out, out_size) : 0;
}

/* The text goes on where the prompt's ended, and the penalty sees the prompt. */
static int continue_prompt(answerer *a, answer_text *t, const int32_t *prompt, int64_t n) {
    const char *text;
    size_t size;
    if (kvant_text_stream_create(a->config.model, false, &t->stream) != KVANT_OK) return fail_with(1, "out of memory");
    for (int64_t i = 0; i < n; i++) {
        kvant_sampler_accept(a->config.sampler, prompt[i]);
        if (kvant_text_stream_push(t->stream, prompt[i], &text, &size) != KVANT_OK) return fail_with(1, "out of memory");
    }
    return 0;
}

/* true: the answer has ended, or *code is not 0. */
static bool take_token(answerer *a, answer_text *t, int32_t id, int *code) {
    const char *text;
    size_t size;
    if (kvant_token_is_end(a->config.model, id)) {
        a->ended = "end";
        return true;
    }
    a->ids[a->n++] = id;
    if (kvant_text_stream_push(t->stream, id, &text, &size) != KVANT_OK) {
        *code = fail_with(1, "no text for token %d", id);
        return true;
    }
    *code = show(a, t, text, size);
    if (t->stop.found) a->ended = "stop";
    return t->stop.found || *code != 0;
}

static int make_tokens(answerer *a, answer_text *t, int64_t n_most) {
    kvant_error err = {0};
    const int32_t *ids;
    int n = 0, code = 0;
    for (bool ended = false; !ended && a->n < n_most;) {
        if (interrupted) {
            a->ended = "interrupted";
            break;
        }
        if (kvant_generator_next(a->generator, n_most - a->n, &ids, &n, &err) != KVANT_OK) return fail_with(1, "%s", err.message);
        a->finished = kvant_time_seconds();
        if (a->n == 0) a->first = a->finished;
        if (a->config.read && a->n > 0) code = a->config.read(a->config.user, a->ids[a->n - 1]);
        for (int i = 0; i < n && !ended && !code; i++)
            ended = take_token(a, t, ids[i], &code);
        if (code) return code;
    }
    return 0;
}

static int end_text(answerer *a, answer_text *t) {
    const char *text;
    size_t size;
    int code = 0;
    if (kvant_text_stream_finish(t->stream, &text, &size) == KVANT_OK) code = show(a, t, text, size);
    stop_text_finish(&t->stop, &text, &size);
    return code || size == 0 ? code : a->config.put(a->config.user, text, size);
}

int answerer_run(answerer *a, const int32_t *prompt, int64_t n_prompt, int64_t n_most) {
    answer_text t = {0};
    kvant_draft_stats before = kvant_generator_get_stats(a->generator), after;
    if (n_most > a->room) {
        int32_t *ids = realloc(a->ids, (size_t)n_most * sizeof *ids);
        if (!ids) return fail_with(1, "out of memory");
        a->ids = ids;
        a->room = n_most;
    }
    a->n = 0;
    a->ended = "length";
    stop_text_begin(&t.stop, a->config.stops, a->config.n_stops);
    a->started = a->first = a->finished = kvant_time_seconds();
    int code = continue_prompt(a, &t, prompt, n_prompt);
    if (!code) code = make_tokens(a, &t, n_most);
    if (!code) code = end_text(a, &t);
    after = kvant_generator_get_stats(a->generator);
    a->draft = (kvant_draft_stats){after.n_rounds - before.n_rounds, after.n_drafted - before.n_drafted,
                                   after.n_accepted - before.n_accepted};
    kvant_text_stream_destroy(t.stream);
    stop_text_free(&t.stop);
    return code;
}

int answerer_finish(answerer *a) {
    kvant_error err = {0};
    return kvant_generator_finish(a->generator, &err) == KVANT_OK ? 0 : fail_with(1, "%s", err.message);
}
