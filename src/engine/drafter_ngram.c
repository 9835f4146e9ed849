// SPDX-License-Identifier: MIT
/* drafter_ngram.c: what followed these tokens the last time will follow them again: good for edits, quotations and loops.
 *
 * The last 4 tokens are looked for among the earlier ones, then 3, then 2; of equally long occurrences the latest counts. No index:
 * a pass over a hundred thousand tokens takes less than a hundredth of the smallest model's step. */
#include "base/memory.h"
#include "engine/drafter.h"

#define LONGEST 4
#define SHORTEST 2

static int32_t token_at(kvant_draft_text t, int64_t i) { return i < t.n ? t.ids[i] : t.last; }

/* How many tokens before `end` (at most LONGEST) equal the last ones. */
static int matching(kvant_draft_text t, int64_t end) {
    int n = 0;
    while (n < LONGEST && n < end && token_at(t, end - 1 - n) == token_at(t, t.n - n))
        n++;
    return n;
}

static kvant_status guess(kvant_drafter *d, kvant_draft_text t, int n_most, int32_t *ids, int *n, kvant_error *err) {
    (void)d;
    (void)err;
    int64_t found = 0;
    int longest = SHORTEST - 1;
    for (int64_t end = t.n; end >= SHORTEST && longest < LONGEST; end--) {
        if (t.ids[end - 1] != t.last) continue;
        int length = matching(t, end);
        if (length <= longest) continue;
        longest = length;
        found = end;
    }
    *n = found > 0 ? n_most : 0;
    /* Behind the last token the guesses go on with themselves: a loop goes on as a loop. */
    for (int i = 0; i < *n; i++)
        ids[i] = found + i <= t.n ? token_at(t, found + i) : ids[found + i - t.n - 1];
    return KVANT_OK;
}

static void destroy(kvant_drafter *d) { kvant_free(d); }

kvant_status kvant_drafter_ngram_create(kvant_drafter **out, kvant_error *err) {
    kvant_drafter *d = kvant_alloc(1, sizeof *d);
    if (!d) return kvant_fail(err, KVANT_ENOMEM, "draft: out of memory");
    *d = (kvant_drafter){.guess = guess, .destroy = destroy};
    *out = d;
    return KVANT_OK;
}
