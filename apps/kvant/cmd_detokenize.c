// SPDX-License-Identifier: MIT
/* cmd_detokenize.c: kvant detokenize: the text of token ids, without anything added. */
#ifndef _WIN32
#define _POSIX_C_SOURCE 200809L /* isatty, fileno */
#include <unistd.h>
#else
#include <io.h>
#define isatty _isatty
#define fileno _fileno
#endif
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "options.h"

#define MAX_TEXT ((size_t)256 << 20)

static const char usage[] = "kvant detokenize -m MODEL [ID... | -f FILE]";
static const char about[] =
    "Prints the text of token ids, given as arguments or in a file (white space or commas between them). Bytes that are no\n"
    "UTF-8 become U+FFFD.";

/* The ids of the arguments, joined, or of the file. */
static int gather(const char *const *rest, int n_rest, const char *file, char **text, size_t *size) {
    if (file || n_rest == 0) return read_text(file ? file : "-", MAX_TEXT, text, size);
    size_t total = 1;
    for (int i = 0; i < n_rest; i++)
        total += strlen(rest[i]) + 1;
    char *joined = malloc(total), *at = joined;
    if (!joined) return fail_with(1, "out of memory");
    for (int i = 0; i < n_rest; i++) {
        size_t length = strlen(rest[i]);
        memcpy(at, rest[i], length);
        at[length] = ' ';
        at += length + 1;
    }
    *at = '\0';
    *text = joined;
    *size = total - 1;
    return 0;
}

static int print_text(const kvant_model *m, const char *name, const char *typed, size_t typed_size, bool special) {
    kvant_model_info info;
    kvant_error err = {0};
    int32_t *ids = NULL;
    char *text = NULL;
    size_t size = 0;
    int n = 0;
    kvant_model_get_info(m, &info);
    int code = parse_token_ids(name, typed, typed_size, info.n_vocab, &ids, &n);
    if (!code && kvant_detokenize(m, ids, n, special, &text, &size, &err) != KVANT_OK) code = fail_with(1, "%s", err.message);
    if (!code) {
        fwrite(text, 1, size, stdout);
        if ((size == 0 || text[size - 1] != '\n') && isatty(fileno(stdout)) == 1) putchar('\n');
        if (fflush(stdout) != 0) code = fail_with(1, "the text cannot be written to stdout");
    }
    kvant_string_free(text);
    free(ids);
    return code;
}

static int detokenize(const char *model, const char *const *rest, int n_rest, const char *file, bool special) {
    kvant_load_params load;
    kvant_model *m;
    kvant_error err = {0};
    char *typed = NULL;
    size_t size = 0;
    kvant_load_params_default(&load);
    load.vocab_only = true;
    load.n_threads = 1;
    if (kvant_model_open(model, &load, &m, &err) != KVANT_OK) return fail_with(1, "%s", err.message);
    int code = gather(rest, n_rest, file, &typed, &size);
    if (!code) code = print_text(m, file ? file : n_rest ? "the arguments" : "stdin", typed, size, special);
    free(typed);
    kvant_model_close(m);
    return code;
}

int cmd_detokenize(int argc, char **argv) {
    const char *model = NULL, *file = NULL;
    bool special = false;
    int n_rest = 0;
    const option flags[] = {
        {"--model", "-m", OPTION_STRING, &model, 0, 0, "FILE", "the model, a GGUF file"},
        {"--file", "-f", OPTION_STRING, &file, 0, 0, "FILE", "the ids from a file, - for stdin (stdin)"},
        {"--special", NULL, OPTION_FLAG, &special, 0, 0, NULL, "show control tokens (BOS, turns) by their text"},
    };
    const char **rest = calloc((size_t)argc + 1, sizeof *rest);
    if (!rest) return fail_with(1, "out of memory");
    int code = options_parse(usage, about, flags, (int)(sizeof flags / sizeof *flags), argc, argv, rest, argc, &n_rest);
    if (code == 0) {
        int taken = !model && n_rest > 0; /* without -m, the first argument is the model */
        code = options_need_model(&model, rest, taken);
        if (!code && file && n_rest > taken) code = fail_with(2, "ids are given either as arguments or by -f");
        if (!code) code = detokenize(model, rest + taken, n_rest - taken, file, special);
    }
    free(rest);
    return code < 0 ? 0 : code;
}
