// SPDX-License-Identifier: MIT
/* chat_answer.c: the conversation -> a prompt -> its tokens -> a session that holds them -> an answer.
 *
 * What the session has read or said stays in it; with each question only what is new is computed (chat_transcript.h, and
 * kvant_session_sync). Not here: commands, input. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chat.h"
#include "interrupt.h"
#include "report.h"

#define BAR_TOKENS 64 /* fewer are read before a bar could be seen */

/* ---- the answer's text ---- */

static int put_piece(void *user, const kvant_answer_piece *piece) {
    chat *c = user;
    const char *text = piece->text;
    size_t size = piece->text_size;
    if (size == 0) return 0;
    if (c->text_size + size + 1 > c->text_room) {
        size_t room = 2 * (c->text_size + size + 1);
        char *grown = realloc(c->text, room);
        if (!grown) return fail_with(1, "out of memory");
        c->text = grown;
        c->text_room = room;
    }
    memcpy(c->text + c->text_size, text, size);
    c->text_size += size;
    c->text[c->text_size] = '\0';
    fwrite(text, 1, size, stdout);
    if (fflush(stdout) == 0) return 0;
    c->leave = true;
    return fail_with(1, "the answer cannot be written to stdout");
}

/* ---- parts ---- */

static void free_answerer(chat *c) {
    answerer_free(&c->answer);
    kvant_sampler_destroy(c->sampler);
    c->sampler = NULL;
    c->can_answer = false;
}

int chat_set_sampling(chat *c, const kvant_sampler_params *sampling) {
    kvant_error err = {0};
    free_answerer(c);
    c->sampling = *sampling;
    if (kvant_sampler_create(sampling, c->info.n_vocab, &c->sampler, &err) != KVANT_OK) return fail_with(1, "%s", err.message);
    const answer_config config = {.session = c->session,
                                  .sampler = c->sampler,
                                  .params = {.draft = c->draft.params,
                                             .stops = c->options->stops.items,
                                             .n_stops = c->options->stops.n},
                                  .put = put_piece,
                                  .user = c};
    int code = answerer_begin(&c->answer, &config);
    c->can_answer = code == 0;
    return code;
}

void chat_free(chat *c) {
    free_answerer(c);
    draft_close(&c->draft);
    kvant_session_destroy(c->session);
    kvant_model_close(c->model);
    chat_input_close(c->input);
    chat_conversation_free(&c->talk);
    chat_transcript_free(&c->transcript);
    free(c->unanswered);
    free(c->text);
}

/* ---- the prompt ---- */

static int make_prompt(chat *c, int64_t *n_kept) {
    kvant_error err = {0};
    int n;
    char *prompt = NULL;
    kvant_message *messages = chat_conversation_messages(&c->talk, &n);
    if (!messages) return fail_with(1, "out of memory");
    kvant_status st = kvant_chat_prompt(c->model, c->options->chat_template, messages, n, &prompt, &err);
    free(messages);
    if (st == KVANT_OK) st = chat_transcript_read(&c->transcript, c->model, prompt, n_kept, &err);
    kvant_string_free(prompt);
    if (st != KVANT_OK) return fail_with(1, "%s", err.message);
    return c->transcript.n > 0 ? 0 : fail_with(1, "the chat template makes an empty prompt of this");
}

/* Beside the prompt and one token of an answer, the token that ends it is read too. */
static int check_room(const chat *c) {
    int64_t context = kvant_session_context(c->session), n = c->transcript.n;
    if (n + 2 <= context) return 0;
    return fail_with(1,
                     "with this question the conversation has %" PRId64 " tokens, and the context holds %" PRId64
                     "; /undo takes the last question and its answer back, /clear all of them, then /retry asks this one again; "
                     "after /save FILE a new chat with -c %" PRId64 " and /load FILE goes on",
                     n, context, 2 * context > n ? 2 * context : 2 * n);
}

typedef struct reading {
    progress bar;
    int64_t n_new;
} reading;

static bool show_reading(void *user, int64_t done, int64_t total) {
    reading *r = user;
    if (r->n_new > BAR_TOKENS) progress_update(&r->bar, (double)done, (double)total);
    return !interrupted;
}

/* 1: also where Ctrl-C came first. */
static int read_prompt(chat *c, int64_t n_kept, chat_figures *f) {
    kvant_error err = {0};
    reading r = {.n_new = c->transcript.n - n_kept};
    double started = kvant_time_seconds();
    progress_begin(&r.bar, "reading");
    if (r.n_new > BAR_TOKENS) progress_update(&r.bar, 0, (double)r.n_new);
    kvant_status st = kvant_session_sync(c->session, c->transcript.ids, c->transcript.n, show_reading, &r, &f->reuse, &err);
    progress_end(&r.bar);
    f->prefill_seconds = kvant_time_seconds() - started;
    f->n_prompt = c->transcript.n;
    if (st == KVANT_ECANCELLED)
        return fail_with(1, "interrupted after reading %" PRId64 " of %" PRId64 " tokens; /retry goes on",
                         kvant_session_length(c->session), c->transcript.n);
    return st == KVANT_OK ? 0 : fail_with(1, "%s", err.message);
}

/* ---- answering ---- */

static void add_figures(chat_figures *sum, const chat_figures *f) {
    sum->n += f->n;
    sum->n_prompt += f->n_prompt;
    sum->reuse.n_reused += f->reuse.n_reused;
    sum->reuse.n_from_session += f->reuse.n_from_session;
    sum->reuse.n_from_ram += f->reuse.n_from_ram;
    sum->reuse.n_from_disk += f->reuse.n_from_disk;
    sum->reuse.n_lost += f->reuse.n_lost;
    sum->reuse.n_computed += f->reuse.n_computed;
    sum->n_answer += f->n_answer;
    sum->n_decoded += f->n_decoded;
    sum->prefill_seconds += f->prefill_seconds;
    sum->decode_seconds += f->decode_seconds;
    sum->first_seconds += f->first_seconds;
    sum->draft.n_rounds += f->draft.n_rounds;
    sum->draft.n_drafted += f->draft.n_drafted;
    sum->draft.n_accepted += f->draft.n_accepted;
}

static void end_line(const chat *c) {
    if (c->text_size == 0 || c->text[c->text_size - 1] != '\n') fputc('\n', stdout);
    fflush(stdout);
}

static void tell_end(const chat *c, int64_t n_most) {
    const char *ended = c->answer.ended;
    if (strcmp(ended, "interrupted") == 0)
        fprintf(stderr, "kvant: interrupted; what was said is kept (/undo takes it back, /retry answers anew)\n");
    if (strcmp(ended, "length") != 0) return;
    if (n_most < c->options->n_predict)
        fprintf(stderr,
                "kvant: the answer ends because the context of %" PRId64
                " tokens is full; nothing is lost: /undo, /clear, or /save "
                "FILE and a new chat with a larger -c\n",
                kvant_session_context(c->session));
    else
        fprintf(stderr, "kvant: the answer ends after %" PRId64 " tokens; -n N allows more\n", c->answer.n);
}

static bool is_space(char byte) { return byte != '\0' && strchr(" \t\n\r", byte) != NULL; }

/* Whether the conversation, as the template writes it now, begins with what was read and said; white space at its end aside. */
static bool agrees_with_transcript(chat *c) {
    const chat_transcript *t = &c->transcript;
    char *prompt = NULL;
    int n;
    kvant_message *messages = chat_conversation_messages(&c->talk, &n);
    bool same = messages && kvant_chat_prompt(c->model, c->options->chat_template, messages, n, &prompt, NULL) == KVANT_OK;
    size_t size = t->text_size;
    while (size > 0 && is_space(t->text[size - 1]))
        size--;
    same = same && strncmp(prompt, t->text, size) == 0;
    kvant_string_free(prompt);
    free(messages);
    return same;
}

/* Some templates write white space before an answer that the model has said itself: then it is kept without. Otherwise it would
 * be there twice, and the answer would be read again. */
static int store_answer(chat *c) {
    const char *text = c->text_size ? c->text : "";
    chat_transcript_add_answer(&c->transcript, c->model, c->answer.ids, c->answer.n);
    if (!chat_conversation_answer(&c->talk, text)) return fail_with(1, "out of memory");
    if (!is_space(text[0]) || agrees_with_transcript(c)) return 0;
    for (const char *rest = text; is_space(*rest);) {
        if (!chat_conversation_answer(&c->talk, ++rest) || agrees_with_transcript(c)) return 0;
    }
    (void)chat_conversation_answer(&c->talk, text);
    return 0;
}

/* The session reads the end of the answer, so that the next question begins there. */
static int finish_answer(chat *c) {
    kvant_error err = {0};
    int code = answerer_finish(&c->answer);
    if (!code && c->options->model.load.prefix_dir && kvant_session_keep(c->session, &err) != KVANT_OK)
        fprintf(stderr, "kvant: warning: %s\n", err.message); /* the chat goes on without */
    return code;
}

static int make_answer(chat *c, chat_figures *f) {
    int64_t n_most = kvant_session_context(c->session) - c->transcript.n - 1;
    if (n_most > c->options->n_predict) n_most = c->options->n_predict;
    c->text_size = 0;
    int code = answerer_run(&c->answer, c->transcript.ids, c->transcript.n, n_most);
    bool ended = strcmp(c->answer.ended, "end") == 0, stopped = strcmp(c->answer.ended, "interrupted") == 0;
    if (c->text_size > 0 || !stopped) end_line(c);
    if (c->text_size == 0 && (code || stopped)) {
        if (stopped) fail_with(1, "interrupted before anything was said; /retry goes on");
        return 1;
    }
    if (store_answer(c)) return 1;
    f->n = 1;
    f->n_answer = c->answer.n;
    f->n_decoded = ended ? c->answer.n : c->answer.n > 0 ? c->answer.n - 1 : 0;
    f->decode_seconds = c->answer.finished - c->answer.first;
    f->first_seconds = f->prefill_seconds + c->answer.first - c->answer.started;
    f->draft = c->answer.draft;
    c->last = *f;
    add_figures(&c->all, f);
    if (!code) tell_end(c, n_most);
    if (!code) code = finish_answer(c);
    if (code) { /* what was said is kept, but the answerer may be in the middle of something */
        c->failed = true;
        return chat_set_sampling(c, &c->sampling);
    }
    return 0;
}

int chat_answer(chat *c) {
    chat_figures f = {0};
    int64_t n_kept = 0;
    if (!c->can_answer && chat_set_sampling(c, &c->sampling) != 0) return 1;
    int code = make_prompt(c, &n_kept);
    if (!code) code = check_room(c);
    if (code) return code;
    chat_input_watch();
    code = read_prompt(c, n_kept, &f);
    if (!code) code = make_answer(c, &f);
    if (chat_input_is_terminal(c->input)) return code;
    /* Away from a terminal Ctrl-C means the script, not the answer alone. */
    interrupt_unwatch();
    if (interrupted) {
        c->leave = true;
        c->failed = true;
    }
    return code;
}
