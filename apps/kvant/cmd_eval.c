// SPDX-License-Identifier: MIT
/* cmd_eval.c: kvant eval: what a cache format costs, measured on a text.
 *
 * Every format reads the same tokens in lockstep with an f16 cache, and each next-token distribution is compared with the
 * f16 one. The first row compares an f32 cache: what is not above it is rounding, not quantization. Both references compute in
 * float32; --fast lets the formats' own rows use the fast kernels, whose rounding then is part of the figure.
 *
 * The parts are in eval_*.c (eval.h says which); here are the flags and the order of work. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "eval.h"
#include "eval_layers.h"
#include "interrupt.h"
#include "options.h"

/* The standard set of rows. */
#define EVAL_SUITE                                                                                                               \
    "i8,i6,bc5,bc5/bc4:16,bc4:16,bc4,bz4/bc4:16,bz4/bc4,bc4/bc3,bc3,bz3/bc3:16,bz3/bc2,bz2/bc2,bc2,"                              \
    "q8_0.bare,q5_1.bare,q4_0.bare,lm4,affine8:64,affine6:64,affine4:64,affine3:64"
#define EVAL_CONTEXT 2048
#define EVAL_TOKENS 8192

static const char usage[] = "kvant eval -m MODEL -f TEXT [-c N] [--tokens N] [--kv FORMAT,… | --suite] [--passkey] [--greedy]\n"
                            "                  [--plot FILE.svg] [--state FILE] [--csv | --json]";
static const char about[] =
    "Measures what cache formats cost: the divergence (KL, in nats) of every next-token distribution from the one with an f16\n"
    "cache, on the same tokens, every past token read from the quantized cache. The row f32 is the noise floor: f16 against an\n"
    "f32 cache. The text is tokenized whole and cut into chunks of -c tokens; every chunk starts with an empty cache and, where\n"
    "the vocabulary begins texts with BOS, its first token is replaced by BOS. All positions of a chunk are scored. Formats are\n"
    "compared in float32 arithmetic; --fast shows what the fast kernels add. `bits` are those that the cache really holds at "
    "the\n"
    "end of a chunk, where chunks are whole pages; else, and for K and V apart, those of the format's definition.\n"
    "\n"
    "--passkey hides a sentence with a number in -c tokens of the text, from its beginning to its end over --prompts prompts, "
    "and\n"
    "counts the answers that have the number. Small models miss some with any cache: compare with the row f16. --greedy lets\n"
    "every format continue prompts from the text and gives the first token that differs from f16's continuation. Both are\n"
    "measured beside the divergence; --tokens 0 leaves that out.\n"
    "\n"
    "--by-layer shows, of every format and KV head, the noise of attention's logits from stored keys and the error of its output "
    "from\n"
    "stored values, the worst heads first, over the first tokens of the text.\n"
    "\n"
    "Ctrl-C prints what has been measured so far. With --state FILE it is kept, after every chunk and every prompt, and the "
    "same\n"
    "command goes on from there; when it is finished, it prints and draws the same figures again at once.\n"
    "\n"
    "  kvant eval -m model.gguf -f text.txt --suite --plot cost.svg     the standard formats, and their picture\n"
    "  kvant eval -m model.gguf -f text.txt --kv affine8,affine4/affine3 -c 8192 --state run.json\n"
    "  kvant eval -m model.gguf -f text.txt --tokens 0 --passkey --greedy --prompts 40 --kv affine4";

static void free_evaluation(evaluation *e) {
    eval_free_rows(e);
    eval_free_text(e);
    free(e->chunk_ids);
    json_decref(e->state.settings);
    kvant_model_close(e->model);
}

static int measure(evaluation *e) {
    int code = e->n_scored > 0 ? eval_score(e) : 0;
    if (!code && e->passkey && !interrupted) code = eval_passkey(e);
    if (!code && e->greedy && !interrupted) code = eval_greedy(e);
    return code;
}

static int run_eval(evaluation *e, const char *model) {
    kvant_error err = {0};
    if (kvant_model_open(model, e->load, &e->model, &err) != KVANT_OK) return fail_with(1, "%s", err.message);
    kvant_model_get_info(e->model, &e->info);
    int code = kv_list_check(&e->formats, e->info.head_dim);
    if (!code) code = kv_list_calibrate(&e->formats, e->load, e->model);
    if (code) return code;
    print_model_line(e->model);
    if (e->chunk > e->info.n_context_train)
        fprintf(stderr, "kvant: -c %d is longer than the %" PRId64 " tokens that the model was trained for\n", e->chunk,
                e->info.n_context_train);
    if (e->by_layer) {
        code = eval_read_text(e);
        return code ? code : eval_by_layer(e);
    }
    e->chunk_ids = malloc((size_t)e->chunk * sizeof *e->chunk_ids);
    if (!e->chunk_ids) return fail_with(1, "out of memory");
    code = eval_create_rows(e);
    if (!code) code = eval_read_text(e);
    if (!code) code = eval_check_prompts(e);
    if (!code) code = eval_resume(e);
    if (code) return code;
    interrupt_watch();
    code = measure(e);
    interrupt_unwatch();
    return code ? code : eval_fill_figures(e);
}

static int show(const evaluation *e) {
    if (interrupted) {
        char far[160];
        fprintf(stderr, "kvant: interrupted after %s%s%s\n", eval_progress(e, far, sizeof far),
                e->state_path ? "; the same command goes on from " : "", e->state_path ? e->state_path : "");
    }
    int code = eval_print(e);
    if (!code && e->plot_path) code = eval_plot(e);
    return code ? code : interrupted ? 1 : 0;
}

static int check_by_layer(const evaluation *e, int64_t typed_context) {
    if (e->passkey || e->greedy || e->plot_path || e->state_path)
        return fail_with(2, "--by-layer is a report of its own; leave out --passkey, --greedy, --plot and --state");
    if (typed_context) return fail_with(2, "--by-layer reads --tokens N in one piece; leave out -c");
    if (e->n_tokens < EVAL_LAYERS_MIN || e->n_tokens > EVAL_LAYERS_MAX)
        return fail_with(2, "--by-layer reads %d to %d --tokens", EVAL_LAYERS_MIN, EVAL_LAYERS_MAX);
    return 0;
}

static int check_flags(evaluation *e, int64_t context) {
    if (!e->text_path) return fail_with(2, "eval needs a text: -f FILE");
    if (e->csv && e->json) return fail_with(2, "--csv and --json exclude each other");
    if (e->suite && e->formats.typed) return fail_with(2, "--suite is a set of formats of its own; leave out --kv and the like");
    if (context < 2 || context > 1 << 24) return fail_with(2, "-c must be from 2 to %d tokens", 1 << 24);
    if (e->n_tokens == 1) return fail_with(2, "--tokens 1: one token predicts nothing; 0 leaves the divergence out");
    if (e->n_tokens == 0 && !e->passkey && !e->greedy)
        return fail_with(2, "--tokens 0 leaves nothing to measure without --passkey or --greedy");
    if (e->n_tokens == 0 && e->plot_path) return fail_with(2, "--plot draws the divergence, which --tokens 0 leaves out");
    e->chunk = (int)context;
    return 0;
}

int cmd_eval(int argc, char **argv) {
    static evaluation e;
    model_options options = {0};
    e.n_tokens = -1;
    e.n_prompts = 20;
    e.n_gen = 64;
    const option own[] = {
        {NULL, NULL, OPTION_FLAG, NULL, 0, 0, NULL, "evaluation"},
        {"--file", "-f", OPTION_STRING, &e.text_path, 0, 0, "FILE", "the text, - for stdin"},
        {"--ids", NULL, OPTION_FLAG, &e.text_is_ids, 0, 0, NULL, "the file holds token ids, scored as they are"},
        {"--tokens", NULL, OPTION_INT64, &e.n_tokens, 0, 1e9, "N", "score the first N tokens, whole chunks (8192)"},
        {"--suite", NULL, OPTION_FLAG, &e.suite, 0, 0, NULL, "the standard set of formats, context 2048 unless -c is given"},
        {"--passkey", NULL, OPTION_FLAG, &e.passkey, 0, 0, NULL, "how often a number hidden in -c tokens is found again"},
        {"--greedy", NULL, OPTION_FLAG, &e.greedy, 0, 0, NULL, "the first token of a greedy answer that is not f16's"},
        {"--by-layer", NULL, OPTION_FLAG, &e.by_layer, 0, 0, NULL, "the noise of every KV head, and nothing else (512 tokens)"},
        {"--prompts", NULL, OPTION_INT, &e.n_prompts, 1, 10000, "N", "prompts of --passkey and of --greedy (20)"},
        {"--gen", NULL, OPTION_INT, &e.n_gen, 1, 65536, "N", "tokens that --greedy generates after a prompt (64)"},
        {"--seed", NULL, OPTION_UINT64, &e.seed, 0, 0, "N", "the numbers that --passkey hides (0)"},
        {NULL, NULL, OPTION_FLAG, NULL, 0, 0, NULL, "output"},
        {"--plot", NULL, OPTION_STRING, &e.plot_path, 0, 0, "FILE", "draw KL over bits, an SVG picture"},
        {"--state", NULL, OPTION_STRING, &e.state_path, 0, 0, "FILE", "keep what was measured there, and go on from it"},
        {"--csv", NULL, OPTION_FLAG, &e.csv, 0, 0, NULL, "comma-separated values instead of a table"},
        {"--json", NULL, OPTION_FLAG, &e.json, 0, 0, NULL, "JSON instead of a table"},
    };
    option flags[64];
    int n_own = (int)(sizeof own / sizeof *own), n = options_add_model(flags, 0, 64 - n_own, &options);
    memcpy(flags + n, own, sizeof own);
    const char *rest[1];
    int n_rest = 0;
    int code = options_parse(usage, about, flags, n + n_own, argc, argv, rest, 1, &n_rest);
    if (code) return code < 0 ? 0 : code;
    if ((code = kv_list_take(&e.formats, &options, EVAL_SUITE)) != 0) return code;
    if ((code = options_need_model(&options.model, rest, n_rest)) != 0) return code;
    if (e.n_tokens < 0) e.n_tokens = e.by_layer ? EVAL_LAYERS_TOKENS : EVAL_TOKENS;
    if (e.by_layer && (code = check_by_layer(&e, options.n_context)) != 0) return code;
    if (e.by_layer) options.n_context = e.n_tokens; /* one chunk */
    if ((code = check_flags(&e, options.n_context ? options.n_context : EVAL_CONTEXT)) != 0) return code;
    e.fast = options.fast;
    e.load = &options.load;
    code = run_eval(&e, options.model);
    if (!code && !e.by_layer) code = show(&e);
    free_evaluation(&e);
    return code;
}
