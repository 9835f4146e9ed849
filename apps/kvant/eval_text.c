// SPDX-License-Identifier: MIT
/* eval_text.c: the tokens that kvant eval works on. */
#include <stdlib.h>

#include "eval.h"

#define MAX_TEXT ((size_t)256 << 20)

/* Whether the vocabulary begins texts with BOS: that shows on any text. */
static int find_bos(evaluation *e) {
    int32_t *with = NULL, *without = NULL;
    int n_with = 0, n_without = 0;
    kvant_error err = {0};
    kvant_status st = kvant_tokenize(e->model, "a", 1, true, false, &with, &n_with, &err);
    if (st == KVANT_OK) st = kvant_tokenize(e->model, "a", 1, false, false, &without, &n_without, &err);
    e->has_bos = st == KVANT_OK && n_with > n_without && (n_without == 0 || with[0] != without[0]);
    kvant_ids_free(with);
    kvant_ids_free(without);
    return st == KVANT_OK ? 0 : fail_with(1, "%s", err.message);
}

static int count_scored(evaluation *e) {
    if (e->n_tokens == 0) return e->n_ids > 0 ? 0 : fail_with(1, "%s: there are no tokens in it", e->text_path);
    int64_t whole = (e->n_tokens + e->chunk - 1) / e->chunk * e->chunk;
    e->n_scored = e->n_ids < whole ? e->n_ids : whole;
    if (e->n_scored % e->chunk == 1) e->n_scored--; /* one token predicts nothing */
    if (e->n_scored < 2) return fail_with(1, "%s: %d tokens are too few: a chunk needs at least 2", e->text_path, e->n_ids);
    return 0;
}

int eval_read_text(evaluation *e) {
    char *text;
    size_t size;
    kvant_error err = {0};
    int code = read_text(e->text_path, MAX_TEXT, &text, &size);
    if (code) return code;
    if (e->text_is_ids) {
        code = parse_token_ids(e->text_path, text, size, e->info.n_vocab, &e->own_ids, &e->n_ids);
        e->ids = e->own_ids;
    } else {
        int32_t *ids = NULL;
        if (kvant_tokenize(e->model, text, size, true, false, &ids, &e->n_ids, &err) != KVANT_OK)
            code = fail_with(1, "%s: %s", e->text_path, err.message);
        else
            code = find_bos(e);
        e->ids = ids;
    }
    free(text);
    return code ? code : count_scored(e);
}

void eval_free_text(evaluation *e) {
    if (!e->own_ids) kvant_ids_free(e->ids);
    free(e->own_ids);
}

uint64_t eval_hash_ids(const int32_t *ids, int n) {
    uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a, a token at a time */
    for (int i = 0; i < n; i++)
        hash = (hash ^ (uint32_t)ids[i]) * 0x100000001b3u;
    return hash;
}
