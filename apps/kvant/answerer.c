// SPDX-License-Identifier: MIT
/* answerer.c: see answerer.h. The library gives pieces of text, token by token; here they meet Ctrl-C and the clock. */
#include "answerer.h"

#include <stdlib.h>

#include "interrupt.h"
#include "options.h"

int answerer_begin(answerer *a, const answer_config *config) {
    kvant_error err = {0};
    *a = (answerer){.config = *config, .ended = "length"};
    kvant_status st = kvant_answer_create(config->session, config->sampler, &config->params, &a->answer, &err);
    return st == KVANT_OK ? 0 : fail_with(st == KVANT_EINVAL ? 2 : 1, "%s", err.message);
}

void answerer_free(answerer *a) {
    kvant_answer_destroy(a->answer);
    free(a->ids);
    a->answer = NULL;
    a->ids = NULL;
}

static const char *reason_name(kvant_stop_reason reason) {
    return reason == KVANT_STOP_END ? "end" : reason == KVANT_STOP_TEXT ? "stop" : "length";
}

/* One token, from the session to who shows it. */
static int take_piece(answerer *a, const kvant_answer_piece *piece) {
    a->finished = kvant_time_seconds();
    if (a->n == 0) a->first = a->finished;
    int code = a->config.read && a->n > 0 ? a->config.read(a->config.user, a->ids[a->n - 1]) : 0;
    if (piece->id >= 0) a->ids[a->n++] = piece->id;
    return code ? code : a->config.put(a->config.user, piece);
}

static int make_tokens(answerer *a, int64_t n_most) {
    kvant_error err = {0};
    kvant_answer_piece piece = {.reason = n_most > 0 ? KVANT_STOP_NONE : KVANT_STOP_LIMIT};
    while (piece.reason == KVANT_STOP_NONE) {
        if (interrupted) {
            kvant_answer_piece rest = {.id = -1};
            if (kvant_answer_flush(a->answer, &rest.text, &rest.text_size, &err) != KVANT_OK) return fail_with(1, "%s", err.message);
            a->ended = "interrupted";
            return a->config.put(a->config.user, &rest);
        }
        if (kvant_answer_next(a->answer, &piece, &err) != KVANT_OK) return fail_with(1, "%s", err.message);
        int code = take_piece(a, &piece);
        if (code) return code;
    }
    a->ended = reason_name(piece.reason);
    return 0;
}

int answerer_run(answerer *a, const int32_t *prompt, int64_t n_prompt, int64_t n_most) {
    kvant_error err = {0};
    kvant_draft_stats before = kvant_answer_get_stats(a->answer), after;
    if (n_most > a->room) {
        int32_t *ids = realloc(a->ids, (size_t)n_most * sizeof *ids);
        if (!ids) return fail_with(1, "out of memory");
        a->ids = ids;
        a->room = n_most;
    }
    a->n = 0;
    a->started = a->first = a->finished = kvant_time_seconds();
    if (n_most > 0 && kvant_answer_begin(a->answer, prompt, n_prompt, n_most, &err) != KVANT_OK) return fail_with(1, "%s", err.message);
    int code = make_tokens(a, n_most);
    after = kvant_answer_get_stats(a->answer);
    a->draft = (kvant_draft_stats){after.n_rounds - before.n_rounds, after.n_drafted - before.n_drafted,
                                   after.n_accepted - before.n_accepted};
    return code;
}

int answerer_finish(answerer *a) {
    kvant_error err = {0};
    return kvant_answer_finish(a->answer, &err) == KVANT_OK ? 0 : fail_with(1, "%s", err.message);
}
