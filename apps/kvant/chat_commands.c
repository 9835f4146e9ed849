// SPDX-License-Identifier: MIT
/* chat_commands.c: what a line does that begins with a slash, and how a question is asked, asked anew, or taken back.
 *
 * A command either does all of what it is for or changes nothing; what it has to say goes to stderr. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chat.h"
#include "chat_file.h"
#include "report.h"

#define PATH_MAX_BYTES 4000

static int say(const char *text) {
    fprintf(stderr, "%s\n", text);
    return 0;
}

/* ---- questions ---- */

/* What /undo, /retry and /edit are about. */
static int need_question(const chat *c) { return c->talk.n > 0 ? 0 : fail_with(1, "nothing was asked yet"); }

/* A question without an answer is put aside. */
static int ask(chat *c, const char *question) {
    if (!chat_conversation_ask(&c->talk, question)) return fail_with(1, "out of memory");
    int code = chat_answer(c);
    chat_exchange *last = &c->talk.exchanges[c->talk.n - 1];
    free(c->unanswered);
    c->unanswered = NULL;
    if (last->answer) return code;
    c->unanswered = last->question;
    last->question = NULL;
    chat_conversation_undo(&c->talk);
    return code;
}

void chat_ask(chat *c, const char *question) {
    if (ask(c, question) != 0) c->failed = true;
}

static int ask_unanswered(chat *c) {
    char *question = c->unanswered;
    c->unanswered = NULL;
    int code = ask(c, question);
    free(question);
    return code;
}

/* The last exchange is put aside while another one is tried: the question NULL means the same one. */
static int ask_instead(chat *c, const char *question) {
    chat_exchange *last = &c->talk.exchanges[c->talk.n - 1], old = *last;
    char *copy = NULL;
    if (question) {
        size_t size = strlen(question) + 1;
        copy = malloc(size);
        if (!copy) return fail_with(1, "out of memory");
        memcpy(copy, question, size);
        last->question = copy;
    }
    last->answer = NULL;
    int code = chat_answer(c);
    if (last->answer) {
        free(old.answer);
        if (copy) free(old.question);
        return code;
    }
    free(copy);
    *last = old;
    say("the earlier answer stays");
    return code;
}

static int do_undo(chat *c, const char *text) {
    (void)text;
    if (need_question(c)) return 1;
    fprintf(stderr, "taken back: %.60s%s\n", c->talk.exchanges[c->talk.n - 1].question,
            strlen(c->talk.exchanges[c->talk.n - 1].question) > 60 ? "..." : "");
    chat_conversation_undo(&c->talk);
    return 0;
}

/* The sampler goes on drawing, so another answer comes by itself, unless the most probable token is always taken. */
static int do_retry(chat *c, const char *text) {
    (void)text;
    if (c->unanswered) return ask_unanswered(c);
    if (need_question(c)) return 1;
    if (c->sampling.temperature > 0) return ask_instead(c, NULL);
    kvant_sampler_params greedy = c->sampling, warm = c->sampling;
    warm.temperature = CHAT_TEMPERATURE;
    warm.seed = c->options->sampling.seed + (uint64_t)c->all.n;
    fprintf(stderr, "at temperature 0 the answer would be the same; this one is made at temperature %.1f\n",
            (double)warm.temperature);
    int code = chat_set_sampling(c, &warm);
    if (!code) code = ask_instead(c, NULL);
    int back = chat_set_sampling(c, &greedy);
    return code ? code : back;
}

static int do_edit(chat *c, const char *text) {
    if (!c->unanswered && need_question(c)) return 1;
    const char *old = c->unanswered ? c->unanswered : c->talk.exchanges[c->talk.n - 1].question;
    if (text[0]) return c->unanswered ? ask(c, text) : ask_instead(c, text);
    if (!chat_input_can_edit(c->input) || strchr(old, '\n'))
        return fail_with(1, "/edit needs the question that is to stand in place of the last one%s",
                         strchr(old, '\n') ? ", which has several lines" : "");
    char *line = malloc(strlen(old) + sizeof "/edit ");
    if (!line) return fail_with(1, "out of memory");
    strcpy(line, "/edit ");
    strcat(line, old);
    chat_input_preset(c->input, line);
    free(line);
    return 0;
}

static int do_clear(chat *c, const char *text) {
    (void)text;
    chat_conversation_clear(&c->talk);
    return say(c->talk.system ? "a new conversation; the system message stays" : "a new conversation");
}

/* Whether the template has a place for what is said now; a question stands for the next one. */
static int check_template(chat *c) {
    kvant_error err = {0};
    char *prompt = NULL;
    int n;
    if (!chat_conversation_ask(&c->talk, "?")) return fail_with(1, "out of memory");
    kvant_message *messages = chat_conversation_messages(&c->talk, &n);
    kvant_status st =
        messages ? kvant_chat_prompt(c->model, c->options->chat_template, messages, n, &prompt, &err) : KVANT_ENOMEM;
    chat_conversation_undo(&c->talk);
    free(messages);
    kvant_string_free(prompt);
    if (st == KVANT_OK) return 0;
    return fail_with(1, "%s", messages ? err.message : "out of memory");
}

static int do_system(chat *c, const char *text) {
    if (!text[0]) {
        if (!c->talk.system) return say("there is no system message; /system TEXT sets one");
        fprintf(stderr, "%s\n(/system - removes it)\n", c->talk.system);
        return 0;
    }
    char *old = c->talk.system;
    c->talk.system = NULL;
    bool none = strcmp(text, "-") == 0;
    if (!none && !chat_conversation_set_system(&c->talk, text)) {
        c->talk.system = old;
        return fail_with(1, "out of memory");
    }
    if (check_template(c)) {
        chat_conversation_set_system(&c->talk, NULL);
        c->talk.system = old;
        return 1;
    }
    free(old);
    fprintf(stderr, "%s%s\n", none ? "there is no system message now" : "the system message is set",
            c->talk.n > 0 ? "; with the next question the conversation is read again" : "");
    return 0;
}

/* ---- files ---- */

/* ~/ is the home folder, as in a shell. */
static int expand_path(const char *text, char *path, size_t size) {
    const char *home = strncmp(text, "~/", 2) == 0 ? getenv("HOME") : NULL;
    int n = home ? snprintf(path, size, "%s/%s", home, text + 2) : snprintf(path, size, "%s", text);
    return n > 0 && (size_t)n < size ? 0 : fail_with(1, "the name %.60s... is too long", text);
}

static const char *count(int n, const char *one, const char *many, char *buf, size_t size) {
    snprintf(buf, size, "%d %s", n, n == 1 ? one : many);
    return buf;
}

static int do_save(chat *c, const char *text) {
    char path[PATH_MAX_BYTES], n[64];
    if (!text[0]) return fail_with(1, "/save needs the name of a file");
    if (expand_path(text, path, sizeof path)) return 1;
    chat_file_info info = {.sampling = c->sampling};
    snprintf(info.model, sizeof info.model, "%s", c->info.name ? c->info.name : "");
    if (chat_file_save(path, &c->talk, &info)) return 1;
    fprintf(stderr, "saved in %s: %s\n", path,
            count(c->talk.n, "question with its answer", "questions with their answers", n, sizeof n));
    return 0;
}

static int do_load(chat *c, const char *text) {
    char path[PATH_MAX_BYTES], n[64];
    if (!text[0]) return fail_with(1, "/load needs the name of a file");
    if (expand_path(text, path, sizeof path)) return 1;
    chat_conversation loaded = {0}, old = c->talk;
    chat_file_info info;
    if (chat_file_load(path, &loaded, &info)) return 1;
    c->talk = loaded;
    if (check_template(c)) {
        chat_conversation_free(&c->talk);
        c->talk = old;
        return 1;
    }
    chat_conversation_free(&old);
    fprintf(stderr, "loaded from %s: %s, temperature %g; what is not in the cache is read with the next question\n", path,
            count(c->talk.n, "question with its answer", "questions with their answers", n, sizeof n),
            (double)info.sampling.temperature);
    if (strcmp(info.model, c->info.name ? c->info.name : "") != 0)
        fprintf(stderr, "note: it was held with %s; its text goes on with %s\n",
                info.model[0] ? info.model : "a model without a name",
                c->info.name && c->info.name[0] ? c->info.name : "this model");
    return chat_set_sampling(c, &info.sampling);
}

/* ---- figures ---- */

static double speed(double n, double seconds) { return seconds > 0 ? n / seconds : 0; }

static void print_prompt(const char *name, const chat_figures *f) {
    const kvant_sync_result *r = &f->reuse;
    fprintf(stderr,
            "%s%" PRId64 " tokens: %" PRId64 " reused (session %" PRId64 ", memory %" PRId64 ", disk %" PRId64 "), %" PRId64
            " computed in %.2f s, %.1f a second",
            name, f->n_prompt, r->n_reused, r->n_from_session, r->n_from_ram, r->n_from_disk, r->n_computed, f->prefill_seconds,
            speed((double)r->n_computed, f->prefill_seconds));
    if (r->n_lost > 0) fprintf(stderr, "; %" PRId64 " of them were known, but a window had dropped what they need", r->n_lost);
    fputc('\n', stderr);
}

static void print_draft(const kvant_draft_stats *d) {
    if (d->n_rounds == 0) return;
    fprintf(stderr, "draft         %" PRId64 " of %" PRId64 " guesses were right (%.0f %%), in %" PRId64 " steps\n",
            d->n_accepted, d->n_drafted, d->n_drafted ? 100.0 * (double)d->n_accepted / (double)d->n_drafted : 0, d->n_rounds);
}

static int do_stats(chat *c, const char *text) {
    (void)text;
    char bytes[32], plain[32];
    int64_t length = kvant_session_length(c->session);
    size_t cache = kvant_session_cache_bytes(c->session), f16 = 0;
    const kvant_sampler_params *s = &c->sampling;
    fprintf(stderr, "in the cache  %" PRId64 " tokens of at most %" PRId64 "\n", length, kvant_session_context(c->session));
    if (c->all.n > 0) {
        print_prompt("last prompt   ", &c->last);
        fprintf(stderr, "last answer   %" PRId64 " tokens at %.1f a second, the first after %.2f s\n", c->last.n_answer,
                speed((double)c->last.n_decoded, c->last.decode_seconds), c->last.first_seconds);
    }
    if (c->all.n > 1) {
        print_prompt("all prompts   ", &c->all);
        fprintf(stderr, "all answers   %d with %" PRId64 " tokens at %.1f a second\n", c->all.n, c->all.n_answer,
                speed((double)c->all.n_decoded, c->all.decode_seconds));
    }
    print_draft(&c->all.draft);
    fprintf(stderr, "cache         %s", format_bytes((double)cache, bytes, sizeof bytes));
    if (cache > 0 && kvant_model_cache_bytes_for(c->model, "f16", length, &f16, NULL) == KVANT_OK && f16 > 0)
        fprintf(stderr, "; f16 takes %s, %.2f times as much", format_bytes((double)f16, plain, sizeof plain),
                (double)f16 / (double)cache);
    fputc('\n', stderr);
    if (s->temperature == 0)
        fprintf(stderr, "sampling      temperature 0: the most probable token\n");
    else
        fprintf(stderr, "sampling      temperature %g, top-p %g, min-p %g, top-k %d, seed %" PRIu64 "\n", (double)s->temperature,
                (double)s->top_p, (double)s->min_p, s->top_k, s->seed);
    return 0;
}

/* ---- the table ---- */

static int do_quit(chat *c, const char *text) {
    (void)text;
    c->leave = true;
    return 0;
}

static int do_help(chat *c, const char *text);

static const struct {
    const char *name, *argument, *help;
    int (*run)(chat *c, const char *text);
    bool takes_text;
} commands[] = {
    {"/help", "", "this list", do_help, false},
    {"/retry", "", "another answer to the last question, or the first if there is none yet", do_retry, false},
    {"/edit", " TEXT", "another question in place of the last; without TEXT the last one comes up to be changed", do_edit, true},
    {"/undo", "", "take the last question and its answer back", do_undo, false},
    {"/clear", "", "a new conversation", do_clear, false},
    {"/system", " TEXT", "set the system message; without TEXT show it; - removes it", do_system, true},
    {"/save", " FILE", "write the conversation to a file", do_save, true},
    {"/load", " FILE", "go on with one", do_load, true},
    {"/stats", "", "what was read, reused and computed, speeds, bytes of the cache", do_stats, false},
    {"/quit", "", "leave, as Ctrl-D does", do_quit, false},
};
#define N_COMMANDS (sizeof commands / sizeof *commands)

static int do_help(chat *c, const char *text) {
    (void)c;
    (void)text;
    for (size_t i = 0; i < N_COMMANDS; i++) {
        char left[32];
        snprintf(left, sizeof left, "%s%s", commands[i].name, commands[i].argument);
        fprintf(stderr, "%-14s%s\n", left, commands[i].help);
    }
    return say("A line that ends in \\ goes on in the next; \"\"\" begins and ends a block of lines.\n"
               "A message that begins with a slash is written with two: //etc.\n"
               "Ctrl-C ends an answer, or clears the line; Ctrl-D leaves.");
}

static int refuse_command(const char *name) {
    const char *nearest = NULL;
    int best = 4;
    for (size_t i = 0; i < N_COMMANDS; i++) {
        int d = name_distance(name, commands[i].name);
        if (d >= best) continue;
        best = d;
        nearest = commands[i].name;
    }
    if (nearest)
        return fail_with(1, "there is no command %.60s; did you mean %s? (/help lists them; // begins a message with a slash)",
                         name, nearest);
    return fail_with(1, "there is no command %.60s (/help lists them; // begins a message with a slash)", name);
}

/* text is cut in place. */
static int run_command(chat *c, char *text) {
    size_t length = strcspn(text, " \t\n"), end = strlen(text);
    char *rest = text + length;
    rest += strspn(rest, " \t\n");
    while (end > (size_t)(rest - text) && strchr(" \t\n", text[end - 1]))
        text[--end] = '\0';
    text[length] = '\0';
    for (size_t i = 0; i < N_COMMANDS; i++) {
        if (strcmp(text, commands[i].name) != 0) continue;
        if (rest[0] && !commands[i].takes_text) return fail_with(1, "%s takes nothing more, found %.60s", text, rest);
        return commands[i].run(c, rest);
    }
    return refuse_command(text);
}

void chat_command(chat *c, const char *line) {
    size_t size = strlen(line) + 1;
    char *text = malloc(size);
    int code = 1;
    if (text) {
        memcpy(text, line, size);
        code = run_command(c, text);
    } else {
        fail_with(1, "out of memory");
    }
    free(text);
    if (code) c->failed = true;
}
