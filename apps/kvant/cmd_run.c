// SPDX-License-Identifier: MIT
/* cmd_run.c: kvant run: answers one prompt and says what its cache took.
 *
 * The answer goes to stdout as it is made, a token at a time, and nothing else does; everything about it goes to stderr. With
 * --json stdout has one object at the end instead. Ctrl-C ends the answer after the current token, a prefill after its chunk. */
#ifndef _WIN32
#define _POSIX_C_SOURCE 200809L /* isatty, fileno */
#include <unistd.h>
#else
#include <io.h>
#define isatty _isatty
#define fileno _fileno
#endif
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "answerer.h"
#include "commands.h"
#include "draft_options.h"
#include "interrupt.h"
#include "json_output.h"
#include "kv_check.h"
#include "options.h"
#include "prompt_images.h"
#include "report.h"

#define MAX_PROMPT ((size_t)64 << 20)
#define DEFAULT_TOKENS 512

static const char usage[] = "kvant run -m MODEL [-p TEXT | -f FILE] [-n N] [--kv-bits N] [flags]";
static const char about[] =
    "Answers a prompt (-p, -f, or stdin) and streams the answer to stdout. The prompt is put into the model's chat template;\n"
    "with --raw the model continues the text as it stands. The most probable token is taken unless --temp says otherwise, so\n"
    "that runs can be compared. At the end, stderr has the speeds, and the bytes of the cache beside those of an f16 cache.\n"
    "--kv-check N keeps an f16 cache beside it for the first N tokens of prompt and answer, and says at the end how far the "
    "answers\n"
    "of both were apart. These tokens take twice the time and the bytes of both caches; the answer stays as it is.\n"
    "Ctrl-C ends the answer after the current token, a second Ctrl-C the program.";

typedef struct run_options {
    model_options model;
    const char *prompt, *file, *system, *chat_template;
    int64_t n_predict, kv_check;
    int logprobs; /* -1: not asked for */
    bool raw, json, verbose_prompt;
    kvant_sampler_params sampling;
    option_list stops, images;
    draft_options draft;
} run_options;

typedef struct one_run {
    kvant_model *model;
    kvant_model_info info;
    kvant_session *session;
    kvant_sampler *sampler;
    answerer answer;
    draft draft;
    kv_check check;
    kvant_sync_result reuse;
    prompt_images images;
    int32_t *ids; /* the prompt */
    int n_ids;
    int64_t n_context, n_most; /* tokens of the answer, at most */
    bool cut_by_context;       /* n_most is less than what was wished */
    char *text; /* of the answer, kept for --json */
    size_t text_size, text_room;
    json_t *tokens; /* with --logprobs, else NULL */
    bool keep_text;
    char last_byte;
    progress bar;
    const char *ended; /* end, stop, length, context, interrupted */
    double started, prefilled;
} one_run;

/* ---- the prompt ---- */

/* The text that is tokenized: the chat template around the prompt, or the prompt itself. *text is freed with free(). */
static int make_prompt(const run_options *o, const kvant_model *m, char **text, size_t *size) {
    char *typed = NULL;
    size_t typed_size = 0;
    kvant_error err = {0};
    if (o->prompt) {
        typed_size = strlen(o->prompt);
        typed = malloc(typed_size + 1);
        if (!typed) return fail_with(1, "out of memory");
        memcpy(typed, o->prompt, typed_size + 1);
    } else {
        if (!o->file && isatty(fileno(stdin)) == 1)
            fputs("kvant: type the prompt and end it with Ctrl-D on a line of its own\n", stderr);
        int code = read_text(o->file ? o->file : "-", MAX_PROMPT, &typed, &typed_size);
        if (code) return code;
    }
    if (o->images.n > 0 && strlen(typed) == typed_size) {
        char *with_places = prompt_images_add_places(typed, o->images.n);
        free(typed);
        if (!with_places) return fail_with(1, "out of memory");
        typed = with_places;
        typed_size = strlen(typed);
    }
    *text = typed;
    *size = typed_size;
    if (o->raw) return 0;
    kvant_message messages[2];
    int n = 0;
    char *chat;
    if (o->system) messages[n++] = (kvant_message){"system", o->system};
    messages[n++] = (kvant_message){"user", typed};
    if (strlen(typed) != typed_size) {
        free(typed);
        return fail_with(1, "the prompt has a NUL byte at %zu; a chat template needs text (--raw takes any bytes)",
                         strlen(typed));
    }
    kvant_status st = kvant_chat_prompt(m, o->chat_template, messages, n, &chat, &err);
    free(typed);
    bool typed_wrong = st == KVANT_EINVAL || (st == KVANT_EUNSUPPORTED && o->chat_template);
    if (st != KVANT_OK) return fail_with(typed_wrong ? 2 : 1, "%s", err.message);
    *size = strlen(chat);
    *text = malloc(*size + 1);
    if (*text) memcpy(*text, chat, *size + 1);
    kvant_string_free(chat);
    return *text ? 0 : fail_with(1, "out of memory");
}

static int tokenize_prompt(const run_options *o, one_run *a) {
    char *text = NULL;
    size_t size = 0;
    kvant_error err = {0};
    int code = prompt_images_open(&a->images, a->model, &o->images);
    if (!code) code = make_prompt(o, a->model, &text, &size);
    if (code) return code;
    if (kvant_tokenize(a->model, text, size, true, true, &a->ids, &a->n_ids, &err) != KVANT_OK)
        code = fail_with(1, "%s", err.message);
    if (!code && a->images.n > 0) code = prompt_images_expand(&a->images, a->model, &a->ids, &a->n_ids);
    if (!code && o->verbose_prompt) {
        fprintf(stderr, "kvant: the prompt, %d tokens:\n%.*s\n", a->n_ids, (int)size, text);
        for (int i = 0; i < a->n_ids; i++)
            fprintf(stderr, "%s%d", i ? " " : "", a->ids[i]);
        fputc('\n', stderr);
    }
    free(text);
    if (!code && a->n_ids == 0)
        return fail_with(1, "the prompt is empty, and this vocabulary does not begin a text with a token of its own");
    return code;
}

/* The context is what was asked for, or as much as this prompt and answer need within what the model was trained for. */
static int choose_context(const run_options *o, one_run *a) {
    int64_t trained = a->info.n_context_train, wish = o->n_predict >= 0 ? o->n_predict : DEFAULT_TOKENS;
    a->n_context = o->model.n_context;
    if (a->n_context == 0) {
        a->n_context = a->n_ids + wish;
        if (trained > 0 && a->n_context > trained) a->n_context = trained;
    }
    if (a->n_ids > a->n_context || (a->n_ids == a->n_context && wish > 0)) {
        if (o->model.n_context == 0)
            return fail_with(1,
                             "the prompt has %d tokens, but the model was trained for a context of %" PRId64
                             " (-c N forces a larger one, with worse answers)",
                             a->n_ids, trained);
        return fail_with(1, "the prompt has %d tokens, but the context holds %" PRId64 " (-c)", a->n_ids, a->n_context);
    }
    if (trained > 0 && a->n_context > trained)
        fprintf(stderr,
                "kvant: the context of %" PRId64 " tokens is longer than the %" PRId64 " that the model was trained for\n",
                a->n_context, trained);
    a->cut_by_context = a->n_context - a->n_ids < wish;
    a->n_most = a->cut_by_context ? a->n_context - a->n_ids : wish;
    return 0;
}

/* ---- the answer ---- */

static json_t *probability_json(const one_run *a, int32_t id, float logprob) {
    char *once = NULL, *twice = NULL;
    size_t n_once = 0, n_twice = 0;
    const int32_t pair[2] = {id, id};
    json_t *object = json_object();
    json_object_set_new(object, "id", json_integer(id));
    /* Some vocabularies drop the space before a text's first token: what the second one adds is what it says inside a text. */
    if (kvant_detokenize(a->model, pair, 1, true, &once, &n_once, NULL) == KVANT_OK &&
        kvant_detokenize(a->model, pair, 2, true, &twice, &n_twice, NULL) == KVANT_OK && n_twice >= n_once)
        json_object_set_new(object, "text", json_text_n(twice + n_once, n_twice - n_once));
    kvant_string_free(once);
    kvant_string_free(twice);
    json_object_set_new(object, "logprob", json_number_or_null(logprob));
    return object;
}

static void note_token(one_run *a, const kvant_answer_piece *piece) {
    json_t *token = probability_json(a, piece->id, piece->logprob), *top = json_array();
    for (int i = 0; i < piece->n_top; i++)
        json_array_append_new(top, probability_json(a, piece->top[i].id, piece->top[i].logprob));
    if (piece->n_top > 0) json_object_set(token, "top", top);
    json_decref(top);
    json_array_append_new(a->tokens, token);
}

static int put_piece(void *user, const kvant_answer_piece *piece) {
    one_run *a = user;
    const char *text = piece->text;
    size_t size = piece->text_size;
    if (a->tokens && piece->id >= 0) note_token(a, piece);
    if (size == 0) return 0;
    a->last_byte = text[size - 1];
    if (!a->keep_text) {
        fwrite(text, 1, size, stdout);
        return fflush(stdout) == 0 ? 0 : fail_with(1, "the answer cannot be written to stdout");
    }
    if (a->text_size + size > a->text_room) {
        size_t room = 2 * (a->text_size + size);
        char *grown = realloc(a->text, room);
        if (!grown) return fail_with(1, "out of memory");
        a->text = grown;
        a->text_room = room;
    }
    memcpy(a->text + a->text_size, text, size);
    a->text_size += size;
    return 0;
}

static bool show_check(void *user, int64_t done, int64_t total) {
    one_run *a = user;
    (void)total;
    progress_update(&a->bar, (double)done, a->n_ids);
    return !interrupted;
}

static bool show_prefill(void *user, int64_t done, int64_t total) {
    one_run *a = user;
    progress_update(&a->bar, (double)(a->n_ids - total + done), a->n_ids); /* total: what was not kept from before */
    return !interrupted;
}

/* The check reads the tokens that it compares; the rest is read as always. */
static int read_prompt(one_run *a) {
    kvant_error err = {0};
    int64_t n_checked = 0;
    int code = a->check.n_wished > 0 ? kv_check_prompt(&a->check, a->ids, a->n_ids, show_check, a, &n_checked) : 0;
    if (code) return code;
    kvant_status st = kvant_session_sync(a->session, a->ids, a->n_ids, show_prefill, a, &a->reuse, &err);
    if (st == KVANT_ECANCELLED)
        return fail_with(1, "interrupted after %" PRId64 " of %d prompt tokens", kvant_session_length(a->session), a->n_ids);
    return st == KVANT_OK ? 0 : fail_with(1, "%s", err.message);
}

static int prefill(one_run *a) {
    progress_begin(&a->bar, "reading the prompt");
    progress_update(&a->bar, 0, a->n_ids);
    a->started = kvant_time_seconds();
    int code = read_prompt(a);
    a->prefilled = kvant_time_seconds();
    progress_end(&a->bar);
    return code;
}

static int check_token(void *user, int32_t id) {
    one_run *a = user;
    return kv_check_token(&a->check, id);
}

static int generate(one_run *a) {
    int code = answerer_run(&a->answer, a->ids, a->n_ids, a->n_most);
    a->ended = a->cut_by_context && strcmp(a->answer.ended, "length") == 0 ? "context" : a->answer.ended;
    return code;
}

/* For a later run. A folder that cannot be written takes nothing from the answer. */
static void keep_prompt(one_run *a) {
    kvant_error err = {0};
    if (kvant_session_keep(a->session, &err) != KVANT_OK) fprintf(stderr, "kvant: warning: %s\n", err.message);
}

/* ---- what is said at the end ---- */

static double speed(double n, double seconds) { return seconds > 0 ? n / seconds : 0; }

static double prefill_speed(const one_run *a) { return speed((double)(a->n_ids - a->reuse.n_from_disk), a->prefilled - a->started); }

/* The first token comes from the prompt's logits: decoding made the others. */
static double decode_speed(const one_run *a) {
    /* An end token was decoded for but is not counted among the answer's. */
    int64_t n = strcmp(a->ended, "end") == 0 ? a->answer.n : a->answer.n - 1;
    return n > 0 ? speed((double)n, a->answer.finished - a->answer.first) : 0;
}

static void print_end(const one_run *a, bool limit_is_typed) {
    char bytes[32], plain[32], kept[64] = "";
    size_t cache = kvant_session_cache_bytes(a->session), f16 = 0;
    if (a->reuse.n_from_disk > 0) snprintf(kept, sizeof kept, " and %" PRId64 " kept from before", a->reuse.n_from_disk);
    bool open_line = !a->keep_text && a->last_byte && a->last_byte != '\n';
    if (open_line) fputc('\n', isatty(fileno(stdout)) == 1 ? stdout : stderr); /* a pipe gets the answer and nothing else */
    fflush(stdout);
    fprintf(stderr,
            "kvant: %" PRId64 " prompt tokens at %.1f a second%s, %" PRId64 " answer tokens at %.1f a second, first token after %.2f s\n",
            a->n_ids - a->reuse.n_from_disk, prefill_speed(a), kept, a->answer.n, decode_speed(a), a->answer.first - a->started);
    if (a->reuse.n_lost > 0)
        fprintf(stderr, "kvant: %" PRId64 " prompt tokens were known but computed again: a window had dropped what they need, or their cache "
                "was converted at --quantized-kv-start\n", a->reuse.n_lost);
    fprintf(stderr, "kvant: cache %s for %" PRId64 " tokens", format_bytes((double)cache, bytes, sizeof bytes),
            kvant_session_length(a->session));
    if (kvant_model_cache_bytes_for(a->model, "f16", kvant_session_length(a->session), &f16, NULL) == KVANT_OK && f16 > 0)
        fprintf(stderr, "; f16 takes %s, %.2f times as much", format_bytes((double)f16, plain, sizeof plain),
                (double)f16 / (double)cache);
    fputc('\n', stderr);
    draft_print_end(&a->draft, a->answer.draft);
    if (strcmp(a->ended, "context") == 0)
        fprintf(stderr, "kvant: the answer ends because the context of %" PRId64 " tokens is full\n", a->n_context);
    if (strcmp(a->ended, "length") == 0 && !limit_is_typed)
        fprintf(stderr, "kvant: the answer ends after %" PRId64 " tokens; -n N allows more\n", a->answer.n);
    if (a->check.n_wished > 0) kv_check_print(&a->check, stderr);
    if (strcmp(a->ended, "interrupted") == 0) fprintf(stderr, "kvant: interrupted after %" PRId64 " tokens\n", a->answer.n);
}

static void set_format(json_t *object, const char *key, const kvant_format *f) {
    char name[KVANT_FORMAT_NAME_MAX];
    kvant_format_name(f, name);
    json_object_set_new(object, key, json_string(name));
}

static json_t *draft_json(kvant_draft_stats s) {
    json_t *root = json_object();
    json_object_set_new(root, "rounds", json_integer(s.n_rounds));
    json_object_set_new(root, "drafted", json_integer(s.n_drafted));
    json_object_set_new(root, "accepted", json_integer(s.n_accepted));
    return root;
}

static int print_json(const one_run *a) {
    size_t f16 = 0;
    json_t *root = json_object(), *ids = json_array(), *cache = json_object(), *timings = json_object();
    json_object_set_new(root, "model", json_text(a->info.name));
    json_object_set_new(root, "text", json_text_n(a->text ? a->text : "", a->text_size)); /* a stop string can cut a character */
    for (int64_t i = 0; i < a->answer.n; i++)
        json_array_append_new(ids, json_integer(a->answer.ids[i]));
    json_object_set_new(root, "ids", ids);
    if (a->tokens) json_object_set(root, "tokens", a->tokens);
    json_object_set_new(root, "stop_reason", json_string(a->ended));
    json_object_set_new(root, "prompt_tokens", json_integer(a->n_ids));
    json_object_set_new(root, "prompt_tokens_kept", json_integer(a->reuse.n_from_disk));
    json_object_set_new(root, "answer_tokens", json_integer(a->answer.n));
    json_object_set_new(root, "context", json_integer(a->n_context));
    json_object_set_new(timings, "prefill_seconds", json_real(a->prefilled - a->started));
    json_object_set_new(timings, "prefill_tokens_per_second", json_real(prefill_speed(a)));
    json_object_set_new(timings, "decode_seconds", json_real(a->answer.finished - a->answer.first));
    json_object_set_new(timings, "decode_tokens_per_second", json_real(decode_speed(a)));
    json_object_set_new(timings, "first_token_seconds", json_real(a->answer.first - a->started));
    json_object_set_new(root, "timings", timings);
    set_format(cache, "k", &a->info.k);
    set_format(cache, "v", &a->info.v);
    json_object_set_new(cache, "bits", json_real(a->info.kv_bits_total));
    json_object_set_new(cache, "calibration", a->info.calibration ? json_text(a->info.calibration) : json_null());
    json_object_set_new(cache, "tokens", json_integer(kvant_session_length(a->session)));
    json_object_set_new(cache, "bytes", json_integer((json_int_t)kvant_session_cache_bytes(a->session)));
    if (kvant_model_cache_bytes_for(a->model, "f16", kvant_session_length(a->session), &f16, NULL) == KVANT_OK)
        json_object_set_new(cache, "f16_bytes", json_integer((json_int_t)f16));
    json_object_set_new(root, "cache", cache);
    if (a->draft.params) json_object_set_new(root, "draft", draft_json(a->answer.draft));
    if (a->check.n_wished > 0) json_object_set_new(root, "kv_check", kv_check_json(&a->check));
    json_object_set_new(root, "threads", json_integer(a->info.n_threads));
    json_object_set_new(root, "isa", json_string(kvant_isa_name(a->info.isa)));
    json_object_set_new(root, "peak_bytes", json_integer((json_int_t)kvant_peak_memory()));
    return json_print(root, JSON_COMPACT | JSON_REAL_PRECISION(8));
}

/* ---- the command ---- */

static int create_parts(const run_options *o, one_run *a) {
    kvant_session_params p;
    kvant_error err = {0};
    kvant_session_params_default(&p);
    p.n_context = a->n_context;
    /* The rounding of the fast kernels would drown what a good cache costs. */
    bool exact = o->model.exact || (o->kv_check > 0 && !o->model.fast);
    p.precision = exact ? KVANT_EXACT : KVANT_FAST;
    kvant_status st = kvant_session_create(a->model, &p, &a->session, &err);
    if (st == KVANT_OK) st = kvant_sampler_create(&o->sampling, a->info.n_vocab, &a->sampler, &err);
    if (st != KVANT_OK) return fail_with(1, "%s", err.message);
    answer_config config = {.session = a->session, .sampler = a->sampler, .put = put_piece, .user = a,
                            .params = {.stops = o->stops.items, .n_stops = o->stops.n, .draft = a->draft.params,
                                       .logprobs = o->logprobs >= 0, .top_logprobs = o->logprobs > 0 ? o->logprobs : 0}};
    if (o->logprobs >= 0) a->tokens = json_array();
    if (o->kv_check > 0) config.read = check_token;
    int code = answerer_begin(&a->answer, &config);
    if (code) return code;
    return o->kv_check > 0 ? kv_check_begin(&a->check, a->model, a->session, o->kv_check, p.precision) : 0;
}

static int run_answer(const run_options *o, one_run *a) {
    kvant_error err = {0};
    kvant_status st = kvant_model_open(o->model.model, &o->model.load, &a->model, &err);
    if (st != KVANT_OK) return fail_with(st == KVANT_EINVAL ? 2 : 1, "%s", err.message);
    kvant_model_get_info(a->model, &a->info);
    a->keep_text = o->json;
    int code = tokenize_prompt(o, a);
    if (!code) code = choose_context(o, a);
    if (code) return code;
    code = draft_open(&a->draft, &o->draft, &o->model.load);
    if (code) return code;
    print_first_line(a->model, a->n_context);
    draft_print_begin(&a->draft);
    code = create_parts(o, a);
    if (code) return code;
    interrupt_watch();
    code = prefill(a);
    if (!code) code = generate(a);
    interrupt_unwatch();
    if (code) return code;
    if (o->json) code = print_json(a);
    print_end(a, o->n_predict >= 0);
    if (o->model.load.prefix_dir) keep_prompt(a);
    return code;
}

static void free_answer(one_run *a) {
    kv_check_free(&a->check);
    answerer_free(&a->answer);
    draft_close(&a->draft);
    kvant_sampler_destroy(a->sampler);
    kvant_session_destroy(a->session);
    kvant_ids_free(a->ids);
    free(a->text);
    json_decref(a->tokens);
    prompt_images_close(&a->images);
    kvant_model_close(a->model);
}

static int add_run_flags(option *out, int n, run_options *o) {
    const option flags[] = {
        {NULL, NULL, OPTION_FLAG, NULL, 0, 0, NULL, "prompt"},
        {"--prompt", "-p", OPTION_STRING, &o->prompt, 0, 0, "TEXT", "the prompt"},
        {"--file", "-f", OPTION_STRING, &o->file, 0, 0, "FILE", "the prompt from a file, - for stdin (stdin)"},
        {"--image", NULL, OPTION_LIST, &o->images, 0, 0, "FILE",
         "a picture (PNG, JPEG, WebP) for its place, [IMG], in the prompt, or before it; may be repeated"},
        {"--mmproj", NULL, OPTION_STRING, &o->model.load.mmproj, 0, 0, "FILE",
         "the GGUF file of the vision model that reads pictures for the model's GGUF file"},
        {"--system", NULL, OPTION_STRING, &o->system, 0, 0, "TEXT", "a system message before it"},
        {"--raw", NULL, OPTION_FLAG, &o->raw, 0, 0, NULL, "continue the text, without a chat template"},
        {"--chat-template", NULL, OPTION_STRING, &o->chat_template, 0, 0, "NAME", "a family of templates (the model file's own)"},
        {"--verbose-prompt", NULL, OPTION_FLAG, &o->verbose_prompt, 0, 0, NULL, "show the prompt's text and tokens on stderr"},
        {NULL, NULL, OPTION_FLAG, NULL, 0, 0, NULL, "answer"},
        {"--tokens", "-n", OPTION_INT64, &o->n_predict, 0, 1e9, "N", "the most tokens of the answer (512)"},
        {"--kv-check", NULL, OPTION_INT64, &o->kv_check, 0, 1e9, "N",
         "measure what the cache's format changes over N tokens (0: off); slower, in float32 arithmetic unless --fast"},
        {"--json", NULL, OPTION_FLAG, &o->json, 0, 0, NULL, "one JSON object on stdout instead of the stream"},
        {"--logprobs", NULL, OPTION_INT, &o->logprobs, 0, KVANT_TOP_LOGPROBS_MAX, "N",
         "with --json: the log-probability of each token, and the N most probable tokens beside it"},
    };
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
        out[n++] = flags[i];
    return options_add_sampling(out, n, &o->sampling, &o->stops);
}

static int check_flags(const run_options *o) {
    if (o->prompt && o->file) return fail_with(2, "-p and -f exclude each other");
    if (o->raw && o->chat_template) return fail_with(2, "--raw and --chat-template exclude each other");
    if (o->kv_check > 0 && o->model.load.kv.compat_mlx)
        return fail_with(2,
                         "--kv-check reads a prompt in steps of its own, which changes answers with --compat mlx; leave one out");
    if (o->kv_check > 0 && (o->draft.name || o->draft.model))
        return fail_with(2, "--kv-check compares token after token, and a draft reads several at once; leave one out");
    if (o->logprobs >= 0 && !o->json) return fail_with(2, "--logprobs is part of the JSON object; give --json too");
    if (o->raw && o->system) return fail_with(2, "--raw has no place for a --system message");
    if (o->images.n > 0 && o->draft.model) return fail_with(2, "--image needs a model that sees pictures as a draft too, which none does: "
                                                              "leave --draft-model out (--draft ngram works)");
    for (int i = 0; i < o->stops.n; i++)
        if (o->stops.items[i][0] == '\0') return fail_with(2, "--stop: a stop string must not be empty");
    if (o->sampling.temperature == 0 && (o->sampling.top_k > 0 || o->sampling.top_p < 1 || o->sampling.min_p > 0))
        fprintf(stderr, "kvant: --top-k, --top-p and --min-p have no effect at temperature 0; --temp 0.7 samples\n");
    return draft_options_check(&o->draft);
}

int cmd_run(int argc, char **argv) {
    run_options o = {.n_predict = -1, .logprobs = -1};
    one_run a = {0};
    option flags[64];
    const char *rest[1];
    int n_rest = 0;
    kvant_sampler_params_default(&o.sampling);
    int n = options_add_model(flags, 0, 64, &o.model);
    n = options_add_prefixes(flags, n, 64, &o.model, 0);
    n = add_run_flags(flags, n, &o);
    n = draft_options_add(flags, n, 64, &o.draft);
    int code = options_parse(usage, about, flags, n, argc, argv, rest, 1, &n_rest);
    if (code) return code < 0 ? 0 : code;
    code = options_finish_model(&o.model);
    options_default_lossless(&o.model);
    if (!code) code = options_need_model(&o.model.model, rest, n_rest);
    if (!code) code = check_flags(&o);
    if (code) return code;
    code = run_answer(&o, &a);
    free_answer(&a);
    return code;
}
