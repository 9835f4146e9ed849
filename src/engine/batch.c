// SPDX-License-Identifier: MIT
/* batch.c: one step of the model for tokens of several sessions.
 *
 * A session whose tokens cross the point where its cache is quantized must stop there, as it does alone: then the step is made of
 * rounds, in which every session takes as many of its tokens as it may. Until all rounds are done the sessions hold the pages that
 * they would need to go back; when one fails, all go back to where they were.
 *
 * Not here: what shares the products (model/decoder_forward.c) and the threads (attn/attend.c). */
#include <string.h>

#include "base/memory.h"
#include "cache/page.h"
#include "engine/session.h"

/* What is known of an item between rounds. */
typedef struct batch_state {
    int64_t start, hold; /* length and held length before the call */
    int done, now;       /* tokens computed, and those of this round */
    bool overwritten;    /* the session's logits are new ones */
} batch_state;

typedef struct batch {
    kvant_model *model;
    const kvant_batch_item *items;
    int n_items;
    batch_state *states;     /* [n_items] */
    kvant_segment *segments; /* [n_items] of a round, without the items that are done */
} batch;

static kvant_status check_items(const kvant_model *m, const kvant_batch_item *items, int n_items, kvant_error *err) {
    int64_t total = 0;
    for (int i = 0; i < n_items; i++) {
        const kvant_session *s = items[i].session;
        if (s->model != m) return kvant_fail(err, KVANT_EINVAL, "batch: session %d is of another model", i);
        if (s->precision != items[0].session->precision)
            return kvant_fail(err, KVANT_EINVAL, "batch: session %d has another precision than session 0", i);
        for (int k = 0; k < i; k++)
            if (items[k].session == s) return kvant_fail(err, KVANT_EINVAL, "batch: session %d is session %d as well", i, k);
        if (items[i].n < 1)
            return kvant_fail(err, KVANT_EINVAL, "batch: session %d: found %d tokens, expected 1 or more", i, items[i].n);
        total += items[i].n;
    }
    if (total > m->prefill_step_size)
        return kvant_fail(err, KVANT_EINVAL, "batch: found %lld tokens, expected at most prefill_step_size, %d", (long long)total,
                          m->prefill_step_size);
    for (int i = 0; i < n_items; i++) {
        kvant_error why = {0};
        kvant_status st = kvant_session_check_room(items[i].session, items[i].ids, items[i].n, &why);
        if (st != KVANT_OK) return kvant_fail(err, st, "batch: session %d: %s", i, why.message);
    }
    return KVANT_OK;
}

static void hold_all(const batch *b) {
    for (int i = 0; i < b->n_items; i++) {
        kvant_sequence *s = b->items[i].session->sequence;
        b->states[i] = (batch_state){.start = kvant_sequence_length(s), .hold = s->hold};
        if (b->states[i].start < s->hold) kvant_sequence_hold(s, b->states[i].start);
    }
}

/* What the next tokens of an item ask of the model; false: it is done. */
static bool plan_item(const batch *b, int i, kvant_segment *g) {
    const kvant_batch_item *item = &b->items[i];
    kvant_session *s = item->session;
    batch_state *state = &b->states[i];
    int left = item->n - state->done;
    /* With the rules of mlx-lm tokens of which every row is wanted are one chunk, as in kvant_session_step. */
    state->now = left == 0 ? 0 : b->model->compat_mlx && item->logits ? left : kvant_session_chunk(s, left);
    if (state->now == 0) return false;
    *g = (kvant_segment){.s = s->sequence,
                         .ids = item->ids + state->done,
                         .n = state->now,
                         .logits = item->logits ? item->logits + (size_t)state->done * (size_t)b->model->info.n_vocab : s->logits,
                         .n_logits = item->logits ? state->now : state->now == left,
                         .observe = kvant_session_observer(s),
                         .observer = s};
    return true;
}

/* *went_on: whether there was anything left to do. */
static kvant_status run_round(const batch *b, bool *went_on) {
    const kvant_model *m = b->model;
    int n = 0;
    for (int i = 0; i < b->n_items; i++)
        n += plan_item(b, i, &b->segments[n]);
    *went_on = n > 0;
    if (n == 0) return KVANT_OK;
    KVANT_TRY(kvant_decoder_forward_batch(m->decoder, m->workspace, b->segments, n, b->items[0].session->precision));
    for (int i = 0; i < b->n_items; i++)
        b->states[i].overwritten |= b->states[i].now > 0 && !b->items[i].logits;
    for (int i = 0; i < b->n_items; i++) {
        batch_state *state = &b->states[i];
        if (state->now == 0) continue;
        KVANT_TRY(kvant_session_finish_chunk(b->items[i].session, b->items[i].ids + state->done, state->now));
        state->done += state->now;
    }
    return KVANT_OK;
}

static void go_back(const batch *b) {
    for (int i = 0; i < b->n_items; i++) {
        kvant_session *s = b->items[i].session;
        (void)kvant_sequence_truncate(s->sequence, b->states[i].start); /* all that it needs was held */
        s->sequence->hold = b->states[i].hold;
        if (b->states[i].overwritten) s->has_logits = false;
    }
}

static void finish(const batch *b) {
    size_t n_vocab = (size_t)b->model->info.n_vocab;
    for (int i = 0; i < b->n_items; i++) {
        const kvant_batch_item *item = &b->items[i];
        kvant_session *s = item->session;
        if (item->logits) memcpy(s->logits, item->logits + (size_t)(item->n - 1) * n_vocab, n_vocab * sizeof(float));
        s->has_logits = true;
        s->sequence->hold = b->states[i].hold;
        (void)kvant_maybe_quantize_kv_cache(s->sequence, NULL); /* is done; lets go of the pages that were held */
    }
}

static kvant_status run(const batch *b, kvant_error *err) {
    bool goes_on = true;
    kvant_status st = KVANT_OK;
    hold_all(b);
    while (st == KVANT_OK && goes_on)
        st = run_round(b, &goes_on);
    if (st == KVANT_OK) {
        finish(b);
        return KVANT_OK;
    }
    go_back(b);
    return kvant_fail(err, st, "batch: the tokens of %d sessions could not be added: %s", b->n_items, kvant_status_name(st));
}

kvant_status kvant_batch_decode(kvant_model *m, const kvant_batch_item *items, int n_items, kvant_error *err) {
    if (n_items < 0) return kvant_fail(err, KVANT_EINVAL, "batch: found %d sessions, expected 0 or more", n_items);
    if (n_items == 0) return KVANT_OK;
    KVANT_TRY(check_items(m, items, n_items, err));
    batch b = {.model = m,
               .items = items,
               .n_items = n_items,
               .states = kvant_alloc((size_t)n_items, sizeof *b.states),
               .segments = kvant_alloc((size_t)n_items, sizeof *b.segments)};
    kvant_status st = b.states && b.segments ? run(&b, err) : kvant_fail(err, KVANT_ENOMEM, "batch: out of memory");
    kvant_free(b.states);
    kvant_free(b.segments);
    return st;
}
