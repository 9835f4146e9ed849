// SPDX-License-Identifier: MIT
/* cmd_calibrate.c: kvant calibrate: what centring needs to know of a model, from a text of one's choice.
 *
 * Nobody has to run it: a model whose cache format needs a calibration makes one by itself. It is for people whose texts look like no
 * others, and for looking at what there is to gain: the share of the keys' energy that their mean holds. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache_folder.h"
#include "commands.h"
#include "json_output.h"
#include "options.h"
#include "report.h"

#define MAX_TEXT ((size_t)64 << 20)
#define DEFAULT_TOKENS 1024

static const char usage[] = "kvant calibrate -m MODEL [-f TEXT] [-o FILE] [--tokens N] [--json]";
static const char about[] =
    "The keys of a model have a large mean, which most cache formats leave out of what they store and attention adds back exactly.\n"
    "A calibration holds that mean for each layer and KV head. Kvant makes one from a built-in text the first time a model needs it\n"
    "and keeps it in the cache folder ($KVANT_CACHE, else $XDG_CACHE_HOME/kvant, else ~/.cache/kvant), so this command is only for\n"
    "text of your own (-f), such as a language or a kind of code that is rare elsewhere. Without -o the result goes to the cache\n"
    "folder and is used from then on; `kvant calibrate -m MODEL` goes back to the built-in text. With -o it goes to a file, which\n"
    "run, eval and the other commands read with --kv-calibration FILE. Any calibration of a model gives right answers; a better one\n"
    "gives answers that are nearer to those of an f16 cache, which `kvant eval` measures.";

typedef struct calibrate_options {
    const char *model, *text, *output, *isa;
    int n_tokens;
    bool json;
    kvant_load_params load;
} calibrate_options;

typedef struct findings {
    kvant_model_info info;
    int64_t n_tokens;
    int n_heads; /* whose share is known */
    double median, largest;
    long long file_bytes;
} findings;

/* ---- making ---- */

/* The text's ids, no more than were asked for and than the model can read at once. */
static int read_own_text(const calibrate_options *o, const kvant_model *m, int32_t **ids, int *n) {
    kvant_model_info info;
    kvant_error err = {0};
    char *text;
    size_t size;
    kvant_model_get_info(m, &info);
    int64_t most = o->n_tokens ? o->n_tokens : DEFAULT_TOKENS;
    if (info.n_context_train > 0 && most > info.n_context_train) {
        if (o->n_tokens)
            return fail_with(2, "--tokens %d is more than the context of %" PRId64 " that the model was trained for", o->n_tokens,
                             info.n_context_train);
        most = info.n_context_train;
    }
    int code = read_text(o->text, MAX_TEXT, &text, &size);
    if (code) return code;
    if (kvant_tokenize(m, text, size, true, false, ids, n, &err) != KVANT_OK) code = fail_with(1, "%s", err.message);
    free(text);
    if (!code && *n > most) *n = (int)most;
    return code;
}

static int calibrate(const calibrate_options *o, kvant_model *m) {
    kvant_error err = {0};
    int32_t *ids = NULL;
    int n = o->n_tokens;
    int code = o->text ? read_own_text(o, m, &ids, &n) : 0;
    if (code) return code;
    print_model_line(m);
    if (kvant_model_calibrate(m, ids, n, o->output, &err) != KVANT_OK) code = fail_with(1, "%s", err.message);
    kvant_ids_free(ids);
    return code;
}

/* ---- showing ---- */

static int compare_doubles(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static long long size_of_file(const char *path) {
    FILE *f = fopen(path, "rb");
    long long size = f && fseek(f, 0, SEEK_END) == 0 ? ftell(f) : -1;
    if (f) fclose(f);
    return size;
}

static int find_shares(const kvant_model *m, findings *out) {
    const kvant_calibration *c = kvant_model_calibration(m);
    kvant_model_get_info(m, &out->info);
    int n = out->info.n_layer * out->info.n_kv_head;
    double *shares = malloc((size_t)n * sizeof *shares);
    if (!shares) return fail_with(1, "out of memory");
    for (int i = 0; i < n; i++) {
        double share = kvant_calibration_mean_share(c, i / out->info.n_kv_head, i % out->info.n_kv_head);
        if (share >= 0) shares[out->n_heads++] = share;
    }
    qsort(shares, (size_t)out->n_heads, sizeof *shares, compare_doubles);
    if (out->n_heads > 0) {
        int k = out->n_heads;
        out->median = k % 2 ? shares[k / 2] : (shares[k / 2 - 1] + shares[k / 2]) / 2;
        out->largest = shares[k - 1];
    }
    free(shares);
    out->n_tokens = kvant_calibration_tokens(c);
    out->file_bytes = size_of_file(out->info.calibration_file);
    return 0;
}

static int print_table(const findings *f) {
    static const char *const header[] = {"layers", "KV heads", "tokens", "mean's share: median", "largest", "bytes", "file"};
    table *t = table_create((int)(sizeof header / sizeof *header));
    if (!t) return fail_with(1, "out of memory");
    for (size_t c = 0; c < sizeof header / sizeof *header; c++)
        table_cell(t, "%s", header[c]);
    table_cell(t, "%d", f->info.n_layer);
    table_cell(t, "%d", f->info.n_kv_head);
    table_cell(t, "%" PRId64, f->n_tokens);
    table_cell(t, "%.1f %%", 100 * f->median);
    table_cell(t, "%.1f %%", 100 * f->largest);
    table_cell(t, "%lld", f->file_bytes);
    table_cell(t, "%s", f->info.calibration_file);
    table_print(t, stdout);
    table_destroy(t);
    printf("the mean's share of the energy of the keys, over layers and KV heads; the first %d tokens of the text do not count\n",
           KVANT_SINK_TOKENS);
    return 0;
}

static int print_json(const findings *f) {
    json_t *root = json_object(), *share = json_object();
    json_object_set_new(root, "model", json_text(f->info.name));
    json_object_set_new(root, "layers", json_integer(f->info.n_layer));
    json_object_set_new(root, "kv_heads", json_integer(f->info.n_kv_head));
    json_object_set_new(root, "head_dim", json_integer(f->info.head_dim));
    json_object_set_new(root, "tokens", json_integer(f->n_tokens));
    json_object_set_new(share, "median", json_real(f->median));
    json_object_set_new(share, "max", json_real(f->largest));
    json_object_set_new(root, "mean_share", share);
    json_object_set_new(root, "file", json_text(f->info.calibration_file));
    json_object_set_new(root, "bytes", json_integer(f->file_bytes));
    return json_print(root, JSON_INDENT(2) | JSON_REAL_PRECISION(8));
}

/* ---- the command ---- */

static int check_options(calibrate_options *o) {
    if (o->isa && kvant_isa_parse(o->isa, &o->load.isa) != KVANT_OK)
        return fail_with(2, "--isa %.40s: expected ref, avx2, avx512 or best", o->isa);
    o->load.cache_dir = cache_folder();
    if (!o->output && !o->load.cache_dir)
        return fail_with(2, "there is no cache folder (KVANT_CACHE, XDG_CACHE_HOME and HOME name none): -o FILE says where the calibration goes");
    return 0;
}

int cmd_calibrate(int argc, char **argv) {
    calibrate_options o = {0};
    kvant_load_params_default(&o.load);
    const option flags[] = {
        {"--model", "-m", OPTION_STRING, &o.model, 0, 0, "FILE", "the model, a GGUF file"},
        {"--file", "-f", OPTION_STRING, &o.text, 0, 0, "TEXT", "the text to read, - for stdin (a built-in text)"},
        {"--output", "-o", OPTION_STRING, &o.output, 0, 0, "FILE", "the file to write (one in the cache folder, found by itself)"},
        {"--tokens", NULL, OPTION_INT, &o.n_tokens, 16, 1 << 20, "N", "read the first N tokens at most (1024)"},
        {"--threads", "-t", OPTION_INT, &o.load.n_threads, 1, 256, "N", "threads (the physical cores)"},
        {"--isa", NULL, OPTION_STRING, &o.isa, 0, 0, "LEVEL", "the highest kernel level: ref, avx2, avx512, best (best)"},
        {"--json", NULL, OPTION_FLAG, &o.json, 0, 0, NULL, "JSON instead of a table"},
    };
    const char *rest[1];
    int n_rest = 0;
    int code = options_parse(usage, about, flags, (int)(sizeof flags / sizeof *flags), argc, argv, rest, 1, &n_rest);
    if (code) return code < 0 ? 0 : code;
    if ((code = options_need_model(&o.model, rest, n_rest)) != 0) return code;
    if ((code = check_options(&o)) != 0) return code;
    kvant_model *m;
    kvant_error err = {0};
    findings f = {0};
    if (kvant_model_open(o.model, &o.load, &m, &err) != KVANT_OK) return fail_with(1, "%s", err.message);
    code = calibrate(&o, m);
    if (!code) code = find_shares(m, &f);
    if (!code) code = o.json ? print_json(&f) : print_table(&f);
    kvant_model_close(m);
    return code;
}
