// SPDX-License-Identifier: MIT
/* eval_prompts.c: what a cache format does to answers: --passkey and --greedy.
 *
 * Both take their prompts from the text, at starts spread over it, and always choose the most probable token. A passkey prompt
 * hides a sentence with a number in the text and asks for the number at its end; a format is right where the answer contains it.
 * A greedy prompt is a piece of the text, and the figure is the first token of its continuation that differs from f16's.
 * The same seed makes the same prompts; every row reads the same ones. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "eval.h"
#include "interrupt.h"

#define ANSWER_TOKENS 16 /* five digits, at worst a token or three each with a space before them */

/* Token ids that a prompt is put together of. */
typedef struct prompt {
    int32_t *ids; /* [room] */
    int n, room;
} prompt;

typedef struct bar_part {
    progress bar;
    double done, total; /* prompts, of this run, times rows */
} bar_part;

static bool show_prefill(void *user, int64_t done, int64_t total) {
    bar_part *p = user;
    progress_update(&p->bar, p->done + 0.8 * (double)done / (double)total, p->total);
    return !interrupted;
}

/* The first of the largest; what is not a number is never chosen. */
static int32_t most_probable(const float *logits, int n) {
    int top = 0;
    for (int i = 1; i < n; i++) {
        if (logits[i] > logits[top] || logits[top] != logits[top]) top = i;
    }
    return top;
}

/* Reads the prompt into an empty cache. 0 with `interrupted` set where Ctrl-C came. */
static int read_prompt(evaluation *e, eval_row *r, const prompt *p, bar_part *bar) {
    kvant_error err = {0};
    int code = eval_empty_row(e, r);
    if (code) return code;
    kvant_status st = kvant_session_prefill(r->session, p->ids, p->n, show_prefill, bar, &err);
    return st == KVANT_OK || (st == KVANT_ECANCELLED && interrupted) ? 0 : fail_with(1, "%s: %s", r->result.name, err.message);
}

/* Continues by at most `most` tokens, to an end token, or to the first that is not expected[i] (NULL: none are expected).
 * *n: the tokens that were made; the one that differs is not among them. */
static int continue_prompt(evaluation *e, eval_row *r, const int32_t *expected, int n_expected, int32_t *made, int most, int *n) {
    kvant_error err = {0};
    for (*n = 0; *n < most && !interrupted; ++*n) {
        int32_t id = most_probable(kvant_session_logits(r->session), e->info.n_vocab);
        if (expected && (*n >= n_expected || id != expected[*n])) return 0;
        made[*n] = id;
        if (kvant_token_is_end(e->model, id)) {
            ++*n;
            return 0;
        }
        if (*n + 1 < most && kvant_session_decode(r->session, id, &err) != KVANT_OK)
            return fail_with(1, "%s: %s", r->result.name, err.message);
    }
    return 0;
}

static void add_ids(prompt *p, const int32_t *ids, int n) {
    for (int i = 0; i < n && p->n < p->room; i++)
        p->ids[p->n++] = ids[i];
}

/* The text without its BOS. */
static const int32_t *body(const evaluation *e, int *n) {
    *n = e->n_ids - e->has_bos;
    return e->ids + e->has_bos;
}

/* n tokens of the text from `start` on; a text that is too short begins again. */
static void add_text(const evaluation *e, prompt *p, int64_t start, int n) {
    int n_body;
    const int32_t *ids = body(e, &n_body);
    for (int i = 0; i < n && p->n < p->room; i++)
        p->ids[p->n++] = ids[(start + i) % n_body];
}

/* Where the i-th of n pieces of `length` tokens starts. */
static int64_t start_of(const evaluation *e, int i, int length) {
    int n_body;
    body(e, &n_body);
    int64_t last = n_body > length ? n_body - length : n_body - 1;
    return e->n_prompts > 1 ? last * i / (e->n_prompts - 1) : 0;
}

static void begin_prompt(const evaluation *e, prompt *p) {
    p->n = 0;
    if (e->has_bos) add_ids(p, e->ids, 1);
}

/* ---- passkey ---- */

/* Five digits that depend on the seed and the prompt (splitmix64). */
static int passkey_number(uint64_t seed, int i) {
    uint64_t z = seed + ((uint64_t)i + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return 10000 + (int)((z ^ z >> 31) % 90000);
}

static int tokenize_piece(const evaluation *e, const char *text, int32_t **ids, int *n) {
    kvant_error err = {0};
    if (kvant_tokenize(e->model, text, strlen(text), false, false, ids, n, &err) == KVANT_OK) return 0;
    return fail_with(1, "--passkey: %s", err.message);
}

/* The i-th prompt: the needle goes in after i / (n - 1) of the text. */
static int make_passkey(const evaluation *e, int i, prompt *p) {
    char needle[128];
    int32_t *needle_ids = NULL, *question_ids = NULL;
    int n_needle = 0, n_question = 0, number = passkey_number(e->seed, i);
    snprintf(needle, sizeof needle, "\n\nThe secret number is %d. Keep it in mind: %d is the secret number.\n\n", number, number);
    int code = tokenize_piece(e, needle, &needle_ids, &n_needle);
    if (!code)
        code = tokenize_piece(e, "\n\nWhat is the secret number that the text above names? The secret number is", &question_ids,
                              &n_question);
    begin_prompt(e, p);
    int n_text = e->chunk - ANSWER_TOKENS - p->n - n_needle - n_question;
    if (!code && n_text < 1)
        code = fail_with(2, "-c %d is too short for --passkey, whose sentences alone take %d tokens", e->chunk,
                         n_needle + n_question + ANSWER_TOKENS + p->n);
    if (!code) {
        int before = e->n_prompts > 1 ? (int)((int64_t)n_text * i / (e->n_prompts - 1)) : n_text / 2;
        int64_t start = start_of(e, i, n_text);
        add_text(e, p, start, before);
        add_ids(p, needle_ids, n_needle);
        add_text(e, p, start + before, n_text - before);
        add_ids(p, question_ids, n_question);
    }
    kvant_ids_free(needle_ids);
    kvant_ids_free(question_ids);
    return code;
}

static int contains_number(const evaluation *e, const int32_t *made, int n, int number, int *found) {
    char digits[16], *text = NULL;
    size_t size;
    kvant_error err = {0};
    if (kvant_detokenize(e->model, made, n, false, &text, &size, &err) != KVANT_OK)
        return fail_with(1, "--passkey: %s", err.message);
    snprintf(digits, sizeof digits, "%d", number);
    *found = strstr(text, digits) != NULL;
    kvant_string_free(text);
    return 0;
}

static int passkey_row(evaluation *e, eval_row *r, const prompt *p, int i, bar_part *bar) {
    int32_t made[ANSWER_TOKENS];
    int n = 0, code = read_prompt(e, r, p, bar);
    if (!code && !interrupted) code = continue_prompt(e, r, NULL, 0, made, ANSWER_TOKENS, &n);
    if (!code && !interrupted) code = contains_number(e, made, n, passkey_number(e->seed, i), &r->result.found[i]);
    return code;
}

/* ---- greedy ---- */

static void make_greedy(const evaluation *e, int i, prompt *p) {
    begin_prompt(e, p);
    int n_text = e->chunk - e->n_gen - p->n;
    add_text(e, p, start_of(e, i, n_text), n_text);
}

/* The first row makes the continuation that the others are compared with. */
static int greedy_row(evaluation *e, eval_row *r, const prompt *p, int i, bar_part *bar, int32_t *reference, int *n_reference,
                      int32_t *made) {
    bool first = r == &e->rows[0];
    int n = 0, code = read_prompt(e, r, p, bar);
    if (code || interrupted) return code;
    code = continue_prompt(e, r, first ? NULL : reference, *n_reference, first ? reference : made, e->n_gen, &n);
    if (first) *n_reference = n;
    r->result.differs[i] = n == *n_reference ? e->n_gen : n;
    return code;
}

/* ---- both ---- */

int eval_check_prompts(evaluation *e) {
    int n_body;
    body(e, &n_body);
    if ((e->passkey || e->greedy) && n_body < 1) return fail_with(1, "%s: there are no tokens in it", e->text_path);
    int n_text = e->chunk - e->n_gen - e->has_bos;
    if (e->greedy && n_text < 1) return fail_with(2, "-c %d leaves no prompt before --gen %d tokens", e->chunk, e->n_gen);
    if (e->greedy && n_body < n_text + e->n_prompts - 1)
        return fail_with(1, "%s: %d tokens are too few for %d prompts of %d: take fewer --prompts or a shorter -c", e->text_path,
                         n_body, e->n_prompts, n_text);
    if (!e->passkey) return 0;
    prompt p = {e->chunk_ids, 0, e->chunk};
    return make_passkey(e, 0, &p);
}

int eval_passkey(evaluation *e) {
    bar_part bar = {.total = (double)(e->n_prompts - e->state.n_passkey) * e->n_rows};
    prompt p = {e->chunk_ids, 0, e->chunk};
    int code = 0;
    progress_begin(&bar.bar, "passkey");
    for (int i = e->state.n_passkey; i < e->n_prompts && !code && !interrupted; i++) {
        code = make_passkey(e, i, &p);
        for (int k = 0; k < e->n_rows && !code && !interrupted; k++, bar.done++)
            code = passkey_row(e, &e->rows[k], &p, i, &bar);
        if (code || interrupted) break;
        e->state.n_passkey = i + 1;
        code = eval_save(e);
    }
    progress_end(&bar.bar);
    return code;
}

int eval_greedy(evaluation *e) {
    bar_part bar = {.total = (double)(e->n_prompts - e->state.n_greedy) * e->n_rows};
    prompt p = {e->chunk_ids, 0, e->chunk};
    int32_t *made = malloc(2 * (size_t)e->n_gen * sizeof *made);
    int code = made ? 0 : fail_with(1, "out of memory");
    progress_begin(&bar.bar, "greedy");
    for (int i = e->state.n_greedy; i < e->n_prompts && !code && !interrupted; i++) {
        int n_reference = 0;
        make_greedy(e, i, &p);
        for (int k = 0; k < e->n_rows && !code && !interrupted; k++, bar.done++)
            code = greedy_row(e, &e->rows[k], &p, i, &bar, made, &n_reference, made + e->n_gen);
        if (code || interrupted) break;
        e->state.n_greedy = i + 1;
        code = eval_save(e);
    }
    progress_end(&bar.bar);
    free(made);
    return code;
}
