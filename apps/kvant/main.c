// SPDX-License-Identifier: MIT
/* main.c: the program: finds the command. Each command is a file cmd_<name>.c. */
#include <stdio.h>
#include <string.h>

#include "commands.h"
#include "options.h"

static const struct {
    const char *name, *help;
    int (*run)(int argc, char **argv);
} commands[] = {
    {"run", "answer a prompt with a model", cmd_run},
    {"chat", "a conversation in the terminal", cmd_chat},
    {"inspect", "what is in a model file, and what its cache would take", cmd_inspect},
    {"compare", "one prompt answered with several cache formats, and what each saved and cost", cmd_compare},
    {"eval", "what cache formats cost: divergence from an f16 cache on a text", cmd_eval},
    {"bench", "tokens a second at several depths and cache formats", cmd_bench},
    {"convert", "write a model as the other kind of file, or with other weights", cmd_convert},
    {"calibrate", "what centred cache formats need to know of a model, from a text of your own", cmd_calibrate},
    {"cache", "look at, check and trim a folder of kept prefixes", cmd_cache},
    {"tokenize", "text to token ids", cmd_tokenize},
    {"detokenize", "token ids to text", cmd_detokenize},
    {"logits", "write the logits of every position to a file", cmd_logits},
};
#define N_COMMANDS (sizeof commands / sizeof *commands)

static void print_usage(void) {
    printf("Kvant %s runs language models whose key/value cache is stored quantized: a cache of 4 bits a value holds a\n"
           "conversation 3.5 times as long in the same memory. It attends to the packed cache without unpacking it, and\n"
           "`kvant eval` measures what the compression costs.\n\n"
           "Usage: kvant COMMAND [flags]\n\nCommands\n",
           kvant_version());
    for (size_t i = 0; i < N_COMMANDS; i++)
        printf("  %-12s%s\n", commands[i].name, commands[i].help);
    printf("\nExamples\n"
           "  kvant run -m model.gguf -p \"Why is the sky blue?\" --kv-bits 4\n"
           "  kvant run -m model.gguf -f long.txt --kv affine8/affine4 -n 200\n"
           "  kvant chat -m model.gguf\n"
           "  kvant eval -m model.gguf -f text.txt --kv-bits 8,6,4,3\n\n"
           "kvant COMMAND --help lists the flags of a command; kvant --version prints the version.\n");
}

static int refuse_command(const char *name) {
    size_t nearest = 0;
    int best = INT32_MAX;
    for (size_t i = 0; i < N_COMMANDS; i++) {
        int d = name_distance(name, commands[i].name);
        if (d < best) {
            best = d;
            nearest = i;
        }
    }
    if (best <= 3) return fail_with(2, "there is no command %.60s; did you mean %s?", name, commands[nearest].name);
    return fail_with(2, "there is no command %.60s", name);
}

int main(int argc, char **argv) {
    const char *name = argc > 1 ? argv[1] : "--help";
    if (strcmp(name, "help") == 0 && argc > 2) {
        for (size_t i = 0; i < N_COMMANDS; i++) {
            char help[] = "--help", *asked[] = {argv[2], help, NULL};
            if (strcmp(argv[2], commands[i].name) == 0) return commands[i].run(2, asked);
        }
        return refuse_command(argv[2]);
    }
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0) {
        print_usage();
        return argc > 1 ? 0 : 2;
    }
    if (strcmp(name, "--version") == 0) {
        printf("kvant %s\n", kvant_version());
        return 0;
    }
    show_library_lines();
    for (size_t i = 0; i < N_COMMANDS; i++)
        if (strcmp(name, commands[i].name) == 0) return commands[i].run(argc - 1, argv + 1);
    return refuse_command(name);
}
