// SPDX-License-Identifier: MIT
/* answer_text.c: the tokens of a generator as text, one at a time: never half a character, nor a part of a stop string.
 *
 * A generator gives several tokens a call where a draft guessed them; they are handed out one by one, each with its report. */
#include <string.h>

#include "base/memory.h"
#include "engine/generator.h"
#include "engine/session.h"
#include "engine/stop_text.h"

struct kvant_answer {
    kvant_session *session;
    kvant_sampler *sampler;
    kvant_generator *generator;
    kvant_text_stream *stream; /* of this answer */
    kvant_stop_text stop;
    kvant_buffer piece;        /* the text that was handed out last */
    const char *const *stops;
    int n_stops, n_top;        /* n_top -1: no log-probabilities */
    int64_t n_made, n_most;
    bool ended;
    const int32_t *ids;        /* [n_ids] of the generator's last call, next_id of them handed out */
    int n_ids, next_id;
};

static kvant_status check_params(const kvant_answer_params *p, kvant_error *err) {
    for (int i = 0; i < p->n_stops; i++)
        if (p->stops[i][0] == '\0') return kvant_fail(err, KVANT_EINVAL, "stop string %d: is empty, expected a text", i);
    if (p->top_logprobs < 0 || p->top_logprobs > KVANT_TOP_LOGPROBS_MAX)
        return kvant_fail(err, KVANT_EINVAL, "top_logprobs: found %d, expected 0 to %d", p->top_logprobs, KVANT_TOP_LOGPROBS_MAX);
    if (p->top_logprobs > 0 && !p->logprobs)
        return kvant_fail(err, KVANT_EINVAL, "top_logprobs: found %d, but no log-probabilities are wished", p->top_logprobs);
    return KVANT_OK;
}

kvant_status kvant_answer_create(kvant_session *s, kvant_sampler *sampler, const kvant_answer_params *params, kvant_answer **out,
                                 kvant_error *err) {
    KVANT_TRY(check_params(params, err));
    kvant_answer *a = kvant_alloc(1, sizeof *a);
    if (!a) return kvant_fail(err, KVANT_ENOMEM, "answer: out of memory");
    *a = (kvant_answer){.session = s, .sampler = sampler, .stops = params->stops, .n_stops = params->n_stops, .ended = true,
                        .n_top = params->logprobs ? params->top_logprobs : -1};
    kvant_buffer_init(&a->piece, SIZE_MAX);
    kvant_status st = kvant_generator_create(s, sampler, params->draft, &a->generator, err);
    if (st != KVANT_OK) {
        kvant_answer_destroy(a);
        return st;
    }
    kvant_sampler_keep_report(sampler, a->n_top);
    *out = a;
    return KVANT_OK;
}

static void end_texts(kvant_answer *a) {
    kvant_text_stream_destroy(a->stream);
    kvant_stop_text_free(&a->stop);
    a->stream = NULL;
}

void kvant_answer_destroy(kvant_answer *a) {
    if (!a) return;
    end_texts(a);
    kvant_buffer_free(&a->piece);
    kvant_generator_destroy(a->generator);
    kvant_free(a);
}

static kvant_status out_of_memory(kvant_error *err) { return kvant_fail(err, KVANT_ENOMEM, "answer: out of memory"); }

kvant_status kvant_answer_begin(kvant_answer *a, const int32_t *prompt, int64_t n, int64_t max_tokens, kvant_error *err) {
    const char *text;
    size_t size;
    if (max_tokens < 1)
        return kvant_fail(err, KVANT_EINVAL, "answer: found room for %lld tokens, expected 1 or more", (long long)max_tokens);
    end_texts(a);
    kvant_stop_text_begin(&a->stop, a->stops, a->n_stops);
    a->ended = true;
    if (kvant_text_stream_create(a->session->model, false, &a->stream) != KVANT_OK) return out_of_memory(err);
    for (int64_t i = 0; i < n; i++) {
        kvant_sampler_accept(a->sampler, prompt[i]);
        if (prompt[i] >= 0 && kvant_text_stream_push(a->stream, prompt[i], &text, &size) != KVANT_OK) return out_of_memory(err);
    }
    a->n_made = a->n_ids = a->next_id = 0;
    a->n_most = max_tokens;
    a->ended = false;
    return KVANT_OK;
}

/* Text of the stream goes through the stop strings into the piece. */
static kvant_status push_text(kvant_answer *a, const char *text, size_t size, kvant_error *err) {
    const char *out;
    size_t out_size;
    if (!kvant_stop_text_push(&a->stop, text, size, &out, &out_size)) return out_of_memory(err);
    return kvant_buffer_append(&a->piece, out, out_size) == KVANT_OK ? KVANT_OK : out_of_memory(err);
}

/* What can become neither a character nor a stop string any more. */
static kvant_status push_rest(kvant_answer *a, kvant_error *err) {
    const char *text;
    size_t size;
    if (kvant_text_stream_finish(a->stream, &text, &size) != KVANT_OK) return out_of_memory(err);
    KVANT_TRY(push_text(a, text, size, err));
    kvant_stop_text_finish(&a->stop, &text, &size);
    return kvant_buffer_append(&a->piece, text, size) == KVANT_OK ? KVANT_OK : out_of_memory(err);
}

static kvant_status refill(kvant_answer *a, kvant_error *err) {
    if (a->next_id < a->n_ids) return KVANT_OK;
    a->next_id = a->n_ids = 0;
    return kvant_generator_next(a->generator, a->n_most - a->n_made, &a->ids, &a->n_ids, err);
}

static void take_report(const kvant_answer *a, kvant_answer_piece *piece) {
    const kvant_token_report *report = kvant_generator_report(a->generator, a->next_id);
    if (!report) return;
    piece->logprob = report->logprob;
    piece->n_top = report->n_top;
    piece->top = report->top;
}

kvant_status kvant_answer_next(kvant_answer *a, kvant_answer_piece *piece, kvant_error *err) {
    const char *text;
    size_t size;
    if (a->ended) return kvant_fail(err, KVANT_EINVAL, "answer: it has ended; begin another");
    KVANT_TRY(refill(a, err));
    int32_t id = a->ids[a->next_id];
    *piece = (kvant_answer_piece){.id = id};
    a->piece.size = 0;
    take_report(a, piece);
    a->next_id++;
    if (kvant_token_is_end(a->session->model, id)) {
        piece->id = -1;
        piece->reason = KVANT_STOP_END;
    } else {
        a->n_made++;
        if (kvant_text_stream_push(a->stream, id, &text, &size) != KVANT_OK) return out_of_memory(err);
        KVANT_TRY(push_text(a, text, size, err));
        if (a->n_made == a->n_most) piece->reason = KVANT_STOP_LIMIT;
    }
    if (!a->stop.found && piece->reason != KVANT_STOP_NONE) KVANT_TRY(push_rest(a, err));
    if (a->stop.found) piece->reason = KVANT_STOP_TEXT;
    a->ended = piece->reason != KVANT_STOP_NONE;
    piece->text = a->piece.size ? a->piece.data : "";
    piece->text_size = a->piece.size;
    return KVANT_OK;
}

kvant_status kvant_answer_flush(kvant_answer *a, const char **text, size_t *size, kvant_error *err) {
    a->piece.size = 0;
    if (!a->ended) KVANT_TRY(push_rest(a, err));
    a->ended = true;
    *text = a->piece.size ? a->piece.data : "";
    *size = a->piece.size;
    return KVANT_OK;
}

kvant_status kvant_answer_finish(kvant_answer *a, kvant_error *err) { return kvant_generator_finish(a->generator, err); }

kvant_draft_stats kvant_answer_get_stats(const kvant_answer *a) { return kvant_generator_get_stats(a->generator); }
