// SPDX-License-Identifier: MIT
/* cmd_chat.c: kvant chat: a conversation in the terminal, or one that a script leads through a pipe.
 *
 * Here are the flags and the loop; lines come from chat_input.c, answers from chat_answer.c, commands are in chat_commands.c. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "cache_folder.h"
#include "chat.h"
#include "commands.h"
#include "report.h"

#define CACHE_RAM 1e9 /* bytes of what was said before /undo, /retry, /clear and /load */

static const char usage[] = "kvant chat -m MODEL [--system TEXT] [--kv-bits N] [flags]";
static const char about[] =
    "A conversation: a question a line, and answers that stream as they are made. Each question is read on from what the cache\n"
    "holds of the conversation; nothing is computed twice. /help lists the commands: /save, /load, /undo, /retry, /stats, ...\n"
    "A line that ends in \\ goes on in the next, and \"\"\" begins and ends a block of lines. Ctrl-C ends an answer and keeps "
    "what\n"
    "was said, Ctrl-D leaves. Lines are edited with the arrow keys, and remembered in the cache folder.\n"
    "Answers are sampled at temperature 0.7 with top-p 0.9, each time anew; --seed repeats them, --temp 0 takes the most "
    "probable\n"
    "token. From a pipe, lines are read as they are: answers go to stdout, everything else to stderr, and the exit code is 1\n"
    "when anything failed.";

static int add_chat_flags(option *out, int n, chat_options *o) {
    const option flags[] = {
        {NULL, NULL, OPTION_FLAG, NULL, 0, 0, NULL, "conversation"},
        {"--system", NULL, OPTION_STRING, &o->system, 0, 0, "TEXT", "a system message before it"},
        {"--chat-template", NULL, OPTION_STRING, &o->chat_template, 0, 0, "NAME", "a family of templates (the model file's own)"},
        {NULL, NULL, OPTION_FLAG, NULL, 0, 0, NULL, "answers"},
        {"--tokens", "-n", OPTION_INT64, &o->n_predict, 1, 1e9, "N", "the most tokens of an answer (2048)"},
    };
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
        out[n++] = flags[i];
    return options_add_sampling(out, n, &o->sampling, &o->stops);
}

/* ---- the beginning ---- */

/* A model without a template that is known, or a system message without a place in it, is better said before the first question.
 */
static int check_template(const chat *c) {
    const chat_options *o = c->options;
    kvant_error err = {0};
    kvant_message messages[2];
    int n = 0;
    char *prompt = NULL;
    if (o->system) messages[n++] = (kvant_message){"system", o->system};
    messages[n++] = (kvant_message){"user", "?"};
    kvant_status st = kvant_chat_prompt(c->model, o->chat_template, messages, n, &prompt, &err);
    kvant_string_free(prompt);
    bool typed_wrong = st == KVANT_EINVAL || (st == KVANT_EUNSUPPORTED && o->chat_template);
    return st == KVANT_OK ? 0
                          : fail_with(typed_wrong ? 2 : 1, "%s%s", err.message,
                                      strstr(err.message, "--raw") ? " (--raw is a flag of kvant run)" : "");
}

static int open_chat(chat *c) {
    const chat_options *o = c->options;
    kvant_error err = {0};
    kvant_session_params p;
    kvant_status st = kvant_model_open(o->model.model, &o->model.load, &c->model, &err);
    if (st != KVANT_OK) return fail_with(st == KVANT_EINVAL ? 2 : 1, "%s", err.message);
    kvant_model_get_info(c->model, &c->info);
    int code = check_template(c);
    if (code) return code;
    code = draft_open(&c->draft, &o->draft, &o->model.load);
    if (code) return code;
    kvant_session_params_default(&p);
    p.n_context = o->model.n_context;
    p.precision = o->model.exact ? KVANT_EXACT : KVANT_FAST;
    if (kvant_session_create(c->model, &p, &c->session, &err) != KVANT_OK) return fail_with(1, "%s", err.message);
    kvant_model_get_info(c->model, &c->info); /* a session may have made the calibration */
    print_first_line(c->model, kvant_session_context(c->session));
    draft_print_begin(&c->draft);
    if (c->info.n_context_train > 0 && kvant_session_context(c->session) > c->info.n_context_train)
        fprintf(stderr,
                "kvant: the context of %" PRId64 " tokens is longer than the %" PRId64 " that the model was trained for\n",
                kvant_session_context(c->session), c->info.n_context_train);
    if (o->system && !chat_conversation_set_system(&c->talk, o->system)) return fail_with(1, "out of memory");
    return chat_set_sampling(c, &o->sampling);
}

/* ---- the loop ---- */

static bool is_blank(const char *text) { return text[strspn(text, " \t\n")] == '\0'; }

static void talk(chat *c) {
    const char *text;
    bool terminal = chat_input_is_terminal(c->input);
    if (terminal) fputs("Ask a question. /help lists the commands, Ctrl-D leaves.\n\n", stderr);
    while (!c->leave) {
        chat_input_kind kind = chat_input_next(c->input, &text);
        if (kind == CHAT_INPUT_END) break;
        if (kind == CHAT_INPUT_REFUSED) c->failed = true;
        if (kind != CHAT_INPUT_MESSAGE || is_blank(text)) continue;
        if (text[0] == '/' && text[1] != '/')
            chat_command(c, text);
        else
            chat_ask(c, text + (text[0] == '/'));
        if (terminal && !c->leave) fputc('\n', stderr);
    }
}

static int check_flags(const chat_options *o) {
    for (int i = 0; i < o->stops.n; i++)
        if (o->stops.items[i][0] == '\0') return fail_with(2, "--stop: a stop string must not be empty");
    return draft_options_check(&o->draft);
}

int cmd_chat(int argc, char **argv) {
    chat_options o = {.n_predict = CHAT_TOKENS};
    chat c = {.options = &o};
    option flags[80];
    const char *rest[1];
    int n_rest = 0;
    kvant_sampler_params_default(&o.sampling);
    o.sampling.temperature = CHAT_TEMPERATURE;
    o.sampling.top_p = CHAT_TOP_P;
    o.sampling.seed = (uint64_t)time(NULL);
    int n = options_add_model(flags, 0, 80, &o.model);
    n = options_add_prefixes(flags, n, 80, &o.model, (uint64_t)CACHE_RAM);
    n = add_chat_flags(flags, n, &o);
    n = draft_options_add(flags, n, 80, &o.draft);
    int code = options_parse(usage, about, flags, n, argc, argv, rest, 1, &n_rest);
    if (code) return code < 0 ? 0 : code;
    code = options_finish_model(&o.model);
    options_default_lossless(&o.model);
    if (!code) code = options_need_model(&o.model.model, rest, n_rest);
    if (!code) code = check_flags(&o);
    if (code) return code;
    c.input = chat_input_open(cache_folder());
    if (!c.input) return fail_with(1, "out of memory");
    code = open_chat(&c);
    if (!code) {
        talk(&c);
        code = c.failed && !chat_input_is_terminal(c.input);
    }
    chat_free(&c);
    return code;
}
