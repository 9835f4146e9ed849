// SPDX-License-Identifier: MIT
/* session_sync.c: brings a session to a list of tokens by what is known already: its own beginning, another kept sequence, the folder.
 *
 * Reuse never changes an answer: a beginning counts only where its pages are what a new session would have made. */
#include <string.h>

#include "base/memory.h"
#include "cache/page.h"
#include "engine/session.h"

static kvant_status keep(kvant_session *s, bool on_disk, kvant_error *err) {
    if (s->n_imported > 0) return KVANT_OK; /* its pages are not whole */
    return kvant_prefixes_keep(s->shared, s->sequence, s->tokens, on_disk, err);
}

kvant_status kvant_session_keep(kvant_session *s, kvant_error *err) {
    if (s->n_imported == 0) return keep(s, true, err);
    return kvant_fail(err, KVANT_EUNSUPPORTED,
                      "session: it was read from a file whose windows have dropped tokens; nothing else could read on from it");
}

/* Then a prompt goes to the disk as soon as it is read: windows drop some of its pages while the answer is made. Without windows the end
 * of the answer is early enough. */
static bool has_windows(const kvant_session *s) {
    const kvant_cache *c = s->shared->cache;
    for (int i = 0; i < c->config.n_layer; i++)
        if (c->windows[i].size > 0) return true;
    return false;
}

static int64_t common_beginning(const kvant_session *s, const int32_t *ids, int64_t n) {
    int64_t length = kvant_session_length(s), same = 0;
    while (same < n && same < length && s->tokens[same] == ids[same])
        same++;
    return same;
}

/* Whether the session can go back to n tokens and be what it was then: a conversion at quantized_kv_start cannot be undone, and
 * windows have dropped what they no longer needed. */
static bool can_go_back(const kvant_session *s, int64_t n) {
    if (n == kvant_session_length(s)) return true;
    if (n > 0 && n < s->n_imported) return false;
    bool was_converted = s->quantized_start > 0 && kvant_sequence_is_settled(s->sequence);
    if (was_converted && n > 0 && n < s->quantized_start) return false;
    return kvant_sequence_can_truncate(s->sequence, n);
}

static void take_over(kvant_session *s, kvant_sequence *sequence, const int32_t *ids, int64_t n) {
    kvant_sequence_destroy(s->sequence);
    s->sequence = sequence;
    s->n_imported = 0;
    memcpy(s->tokens, ids, (size_t)n * sizeof *ids);
    s->has_logits = false;
}

/* Of the most tokens that may be reused, as many as possible become the session's, which has the first `same` of them. */
static kvant_status reuse(kvant_session *s, const int32_t *ids, int64_t most, int64_t same, kvant_sync_result *r, kvant_error *err) {
    int64_t own = can_go_back(s, same) ? same : 0;
    kvant_prefixes_found found;
    KVANT_TRY(kvant_prefixes_find(s->shared, s->sequence, own, ids, most, &found, err));
    *r = (kvant_sync_result){.n_from_session = found.n_from_base, .n_from_ram = found.n_from_ram, .n_from_disk = found.n_from_disk};
    r->n_reused = r->n_from_session + r->n_from_ram + r->n_from_disk;
    int64_t known = found.n_known > same ? found.n_known : same;
    r->n_lost = known - r->n_reused;
    if (found.sequence)
        take_over(s, found.sequence, ids, r->n_reused);
    else
        KVANT_TRY(kvant_session_truncate(s, own, err));
    /* What was read elsewhere was not observed here. */
    if (r->n_reused > 0 && s->check && kvant_session_length(s) > s->check_seen) kvant_session_end_check(s);
    return KVANT_OK;
}

kvant_status kvant_session_sync(kvant_session *s, const int32_t *ids, int64_t n, kvant_progress_fn progress, void *user,
                                kvant_sync_result *result, kvant_error *err) {
    kvant_sync_result unwanted, *r = result ? result : &unwanted;
    *r = (kvant_sync_result){0};
    if (n < 1) return kvant_fail(err, KVANT_EINVAL, "session: found %lld tokens, expected 1 or more", (long long)n);
    KVANT_TRY(kvant_session_check_tokens(s, ids, n, err));
    int64_t length = kvant_session_length(s), same = common_beginning(s, ids, n);
    if (same == n && length == n && s->has_logits) {
        *r = (kvant_sync_result){.n_reused = n, .n_from_session = n};
        return KVANT_OK;
    }
    if (s->heads) return kvant_fail(err, KVANT_EINVAL, "session: one with measure_tokens reads all of its tokens itself");
    /* What it holds and is not part of ids is about to be cut off: it stays in memory for later. */
    if (same < length) (void)keep(s, false, NULL);
    int64_t most = n - 1; /* the last one's logits are wanted */
    KVANT_TRY(reuse(s, ids, most, same < most ? same : most, r, err));
    int64_t begin = kvant_session_length(s);
    /* The last full block of the prompt is what a folder can keep: what it sees must still be there. */
    if (s->shared->store) kvant_sequence_hold(s->sequence, n / KVANT_PAGE_TOKENS * KVANT_PAGE_TOKENS);
    kvant_status st = kvant_session_prefill(s, ids + begin, n - begin, progress, user, err);
    r->n_computed = kvant_session_length(s) - begin;
    /* A full disk takes nothing from the answer: it is told when the caller asks to keep. */
    if (st == KVANT_OK) (void)keep(s, has_windows(s), NULL);
    kvant_sequence_hold(s->sequence, -1);
    return st;
}

kvant_status kvant_session_fork(const kvant_session *s, kvant_session **out, kvant_error *err) {
    if (s->heads) return kvant_fail(err, KVANT_EINVAL, "session: one with measure_tokens cannot be forked");
    kvant_session *copy = kvant_alloc(1, sizeof *copy);
    if (!copy) return kvant_fail(err, KVANT_ENOMEM, "session: out of memory");
    *copy = *s;
    copy->check = NULL;
    copy->sequence = NULL;
    copy->shared->n_references++;
    size_t n_vocab = (size_t)s->model->info.n_vocab;
    copy->tokens = kvant_alloc((size_t)(s->n_tokens_room ? s->n_tokens_room : 1), sizeof *copy->tokens);
    copy->logits = kvant_alloc_aligned(n_vocab, sizeof(float));
    bool made = copy->tokens && copy->logits && kvant_sequence_fork(s->sequence, &copy->sequence) == KVANT_OK;
    if (!made) {
        kvant_session_destroy(copy);
        return kvant_fail(err, KVANT_ENOMEM, "session: out of memory");
    }
    if (s->n_tokens_room) memcpy(copy->tokens, s->tokens, (size_t)kvant_session_length(s) * sizeof *copy->tokens);
    if (s->has_logits) memcpy(copy->logits, s->logits, n_vocab * sizeof(float));
    *out = copy;
    return KVANT_OK;
}
