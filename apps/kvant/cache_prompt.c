// SPDX-License-Identifier: MIT
/* cache_prompt.c: kvant cache import and export: prompt caches of mlx-lm into a folder of kept prefixes, and prompts out of
 * Kvant.
 *
 * A prompt cache does not say which tokens it holds, and a folder finds prefixes by their tokens: so the prompt, or its ids, is
 * given beside it, unless Kvant wrote the file. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache_prompt.h"
#include "interrupt.h"
#include "json_output.h"
#include "options.h"
#include "report.h"

#define MAX_TEXT ((size_t)64 << 20)
#define FLAGS_MAX 64

typedef struct prompt_job {
    model_options options;
    const char *file, *prompt, *text, *ids_file; /* -p, -f, --ids */
    bool json;
    kvant_model *model;
    kvant_session *session;
    int32_t *ids; /* from kvant_tokenize where owned_by_library, else malloc */
    int n_ids;
    bool owned_by_library;
} prompt_job;

static int add_flags(option *flags, prompt_job *j) {
    int n = options_add_model(flags, 0, FLAGS_MAX, &j->options);
    n = options_add_prefixes(flags, n, FLAGS_MAX, &j->options, 0);
    flags[n++] = (option){NULL, NULL, OPTION_FLAG, NULL, 0, 0, NULL, "the prompt"};
    flags[n++] =
        (option){"--prompt", "-p", OPTION_STRING, &j->prompt, 0, 0, "TEXT", "its text, as it is: no chat template is added"};
    flags[n++] = (option){"--file", "-f", OPTION_STRING, &j->text, 0, 0, "FILE", "the same from a file, - for stdin"};
    flags[n++] = (option){"--ids", NULL, OPTION_STRING, &j->ids_file, 0, 0, "FILE", "or its token ids, decimal, - for stdin"};
    flags[n++] = (option){"--json", NULL, OPTION_FLAG, &j->json, 0, 0, NULL, "JSON on stdout"};
    return n;
}

static int check_flags(prompt_job *j, const char *const *rest, int n_rest) {
    int n_sources = (j->prompt != NULL) + (j->text != NULL) + (j->ids_file != NULL);
    if (n_rest != 1) return fail_with(2, "which prompt cache? It is the one free argument, a .safetensors file");
    if (!j->options.model) return fail_with(2, "which model? -m MODEL");
    if (n_sources > 1) return fail_with(2, "-p, -f and --ids exclude each other: the prompt is one of them");
    j->file = rest[0];
    return 0;
}

/* What was typed, into *j: 0, an exit code, or -1: help was asked for. */
static int parse_job(const char *usage, const char *about, int argc, char **argv, prompt_job *j) {
    option flags[FLAGS_MAX];
    const char *rest[1];
    int n_rest = 0, n = add_flags(flags, j), code = options_parse(usage, about, flags, n, argc, argv, rest, 1, &n_rest);
    if (code) return code;
    code = options_finish_model(&j->options);
    options_default_lossless(&j->options);
    return code ? code : check_flags(j, rest, n_rest);
}

static int read_ids(prompt_job *j) {
    kvant_model_info info;
    kvant_error err = {0};
    char *text = NULL;
    size_t size = 0;
    const char *path = j->ids_file ? j->ids_file : j->text;
    kvant_model_get_info(j->model, &info);
    if (path) {
        int code = read_text(path, MAX_TEXT, &text, &size);
        if (code) return code;
    }
    int code = 0;
    if (j->ids_file) {
        code = parse_token_ids(path, text, size, info.n_vocab, &j->ids, &j->n_ids);
    } else {
        const char *from = j->prompt ? j->prompt : text;
        if (j->prompt) size = strlen(j->prompt);
        j->owned_by_library = true;
        if (kvant_tokenize(j->model, from, size, true, true, &j->ids, &j->n_ids, &err) != KVANT_OK)
            code = fail_with(1, "%s", err.message);
    }
    free(text);
    if (!code && j->n_ids == 0) code = fail_with(1, "the prompt has no token");
    return code;
}

static int open_session(prompt_job *j) {
    kvant_error err = {0};
    kvant_session_params p;
    kvant_status st = kvant_model_open(j->options.model, &j->options.load, &j->model, &err);
    if (st != KVANT_OK) return fail_with(st == KVANT_EINVAL ? 2 : 1, "%s", err.message);
    kvant_session_params_default(&p);
    p.n_context = j->options.n_context;
    p.precision = j->options.exact ? KVANT_EXACT : KVANT_FAST;
    if (kvant_session_create(j->model, &p, &j->session, &err) != KVANT_OK) return fail_with(1, "%s", err.message);
    print_first_line(j->model, kvant_session_context(j->session));
    return 0;
}

static void free_job(prompt_job *j) {
    kvant_session_destroy(j->session);
    kvant_model_close(j->model);
    if (j->owned_by_library)
        kvant_ids_free(j->ids);
    else
        free(j->ids);
}

static bool has_prompt(const prompt_job *j) { return j->prompt || j->text || j->ids_file; }

/* ---- import ---- */

static int print_import(const prompt_job *j) {
    int64_t n = kvant_session_length(j->session), kept = n / KVANT_PAGE_TOKENS * KVANT_PAGE_TOKENS;
    if (j->json) {
        json_t *root = json_object();
        json_object_set_new(root, "file", json_text(j->file));
        json_object_set_new(root, "folder", json_text(j->options.load.prefix_dir));
        json_object_set_new(root, "n_tokens", json_integer(n));
        json_object_set_new(root, "n_kept", json_integer(kept));
        json_object_set_new(root, "cache_bytes", json_integer((json_int_t)kvant_session_cache_bytes(j->session)));
        return json_print(root, JSON_INDENT(2));
    }
    printf("%s: %" PRId64 " tokens; the first %" PRId64 ", in blocks of %d, are kept in %s\n", j->file, n, kept,
           KVANT_PAGE_TOKENS, j->options.load.prefix_dir);
    return 0;
}

static int run_import(prompt_job *j) {
    kvant_error err = {0};
    int code = open_session(j);
    if (!code && has_prompt(j)) code = read_ids(j);
    if (code) return code;
    if (kvant_session_import(j->session, j->file, j->ids, j->n_ids, &err) != KVANT_OK) return fail_with(1, "%s", err.message);
    if (kvant_session_length(j->session) < KVANT_PAGE_TOKENS)
        return fail_with(1, "%s: has %" PRId64 " tokens; a folder keeps blocks of %d", j->file, kvant_session_length(j->session),
                         KVANT_PAGE_TOKENS);
    if (kvant_session_keep(j->session, &err) != KVANT_OK) return fail_with(1, "%s", err.message);
    return print_import(j);
}

int cache_import(int argc, char **argv) {
    prompt_job j = {0};
    int code = parse_job("kvant cache import FILE.safetensors -m MODEL --cache-dir DIR -f PROMPT [flags]",
                         "Reads a prompt cache that mlx-lm wrote (mlx_lm.cache_prompt, save_prompt_cache) and keeps it in a folder, where\n"
                         "kvant run --cache-dir DIR with the same model and cache flags finds it by its tokens. The file does not hold them:\n"
                         "give the prompt as the model read it, with its chat template where it had one (-p, -f), or its ids (--ids). Codes\n"
                         "of --kv affineB:G are taken over as they are; any other format stores the file's values in it, and says so.",
                         argc, argv, &j);
    if (code < 0) return 0;
    if (!code && !j.options.load.prefix_dir) code = fail_with(2, "where to? --cache-dir DIR is the folder that runs read from");
    if (code) return code;
    code = run_import(&j);
    free_job(&j);
    return code;
}

/* ---- export ---- */

static bool show_progress(void *bar, int64_t done, int64_t total) {
    progress_update(bar, (double)done, (double)total);
    return !interrupted;
}

static int read_prompt(prompt_job *j, kvant_sync_result *r) {
    kvant_error err = {0};
    progress bar;
    progress_begin(&bar, "prompt");
    kvant_status st = kvant_session_sync(j->session, j->ids, j->n_ids, show_progress, &bar, r, &err);
    progress_end(&bar);
    return st == KVANT_OK ? 0 : fail_with(1, "%s", err.message);
}

static int run_export(prompt_job *j) {
    kvant_error err = {0};
    kvant_sync_result r = {0};
    int code = open_session(j);
    if (!code) code = read_ids(j);
    if (!code) code = read_prompt(j, &r);
    if (code) return code;
    if (kvant_session_export(j->session, j->file, &err) != KVANT_OK) return fail_with(1, "%s", err.message);
    if (j->json) {
        json_t *root = json_object();
        json_object_set_new(root, "file", json_text(j->file));
        json_object_set_new(root, "n_tokens", json_integer(j->n_ids));
        json_object_set_new(root, "n_reused", json_integer(r.n_reused));
        json_object_set_new(root, "n_computed", json_integer(r.n_computed));
        return json_print(root, JSON_INDENT(2));
    }
    printf("%s: %d tokens, %" PRId64 " of them computed now\n", j->file, j->n_ids, r.n_computed);
    return 0;
}

int cache_export(int argc, char **argv) {
    prompt_job j = {0};
    int code = parse_job("kvant cache export FILE.safetensors -m MODEL -f PROMPT [--cache-dir DIR] [--kv affine4:64] [flags]",
                         "Reads a prompt, from the folder as far as it is known there, and writes its keys and values as a prompt cache that\n"
                         "mlx-lm loads (load_prompt_cache). --kv affineB:G writes codes (QuantizedKVCache), --max-kv-size a ring\n"
                         "(RotatingKVCache); any other format is written as float16 (KVCache), --kv f32 as float32. mlx-lm must have the same\n"
                         "weights.",
                         argc, argv, &j);
    if (code < 0) return 0;
    if (!code && !has_prompt(&j)) code = fail_with(2, "which prompt? -p TEXT, -f FILE or --ids FILE");
    if (code) return code;
    interrupt_watch();
    code = run_export(&j);
    interrupt_unwatch();
    free_job(&j);
    return code;
}
