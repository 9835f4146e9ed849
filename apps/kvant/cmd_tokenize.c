// SPDX-License-Identifier: MIT
/* cmd_tokenize.c: kvant tokenize: the token ids of a text, taken byte for byte. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "options.h"

#define MAX_TEXT ((size_t)256 << 20)

static const char usage[] = "kvant tokenize -m MODEL [-p TEXT | -f FILE] [--json]";
static const char about[] =
    "Prints the token ids of a text (-p, -f, or stdin) with spaces between them. A file is taken byte for byte; files with a\n"
    "vocabulary alone work, too.";

static void print_ids(const int32_t *ids, int n, bool json) {
    if (json) putchar('[');
    for (int i = 0; i < n; i++)
        printf("%s%d", i == 0 ? "" : json ? ", " : " ", ids[i]);
    puts(json ? "]" : "");
}

int cmd_tokenize(int argc, char **argv) {
    const char *model = NULL, *prompt = NULL, *file = NULL, *rest[1];
    bool json = false, no_bos = false, no_special = false;
    int n_rest = 0, n = 0;
    const option flags[] = {
        {"--model", "-m", OPTION_STRING, &model, 0, 0, "FILE", "the model, a GGUF file"},
        {"--prompt", "-p", OPTION_STRING, &prompt, 0, 0, "TEXT", "the text"},
        {"--file", "-f", OPTION_STRING, &file, 0, 0, "FILE", "the text from a file, - for stdin (stdin)"},
        {"--json", NULL, OPTION_FLAG, &json, 0, 0, NULL, "one array of numbers"},
        {"--no-bos", NULL, OPTION_FLAG, &no_bos, 0, 0, NULL, "without the tokens that the vocabulary puts around a text"},
        {"--no-parse-special", NULL, OPTION_FLAG, &no_special, 0, 0, NULL, "the text of special tokens is text like any other"},
    };
    int code = options_parse(usage, about, flags, (int)(sizeof flags / sizeof *flags), argc, argv, rest, 1, &n_rest);
    if (code) return code < 0 ? 0 : code;
    if ((code = options_need_model(&model, rest, n_rest)) != 0) return code;
    if (prompt && file) return fail_with(2, "-p and -f exclude each other");
    kvant_load_params load;
    kvant_model *m;
    kvant_error err = {0};
    kvant_load_params_default(&load);
    load.vocab_only = true;
    load.n_threads = 1;
    if (kvant_model_open(model, &load, &m, &err) != KVANT_OK) return fail_with(1, "%s", err.message);
    char *text = NULL;
    size_t size = prompt ? strlen(prompt) : 0;
    int32_t *ids = NULL;
    if (!prompt) code = read_text(file ? file : "-", MAX_TEXT, &text, &size);
    if (!code && kvant_tokenize(m, prompt ? prompt : text, size, !no_bos, !no_special, &ids, &n, &err) != KVANT_OK)
        code = fail_with(1, "%s", err.message);
    if (!code) {
        print_ids(ids, n, json);
        if (fflush(stdout) != 0) code = fail_with(1, "the ids cannot be written to stdout");
    }
    kvant_ids_free(ids);
    free(text);
    kvant_model_close(m);
    return code;
}
