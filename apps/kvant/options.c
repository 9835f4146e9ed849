// SPDX-License-Identifier: MIT
/* options.c: the parser of command lines, and the flags that commands share.
 *
 * Everything that was typed has its effect or is refused: an unknown flag, a value out of range, a number with something behind
 * it, a flag without its value. What the cache settings mean together is decided by the library; here are only their words. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache_folder.h"
#include "options.h"

#define MAX_NAME 64
#define CACHE_DISK UINT64_C(10000000000) /* bytes, unless said otherwise */

/* Whose --help the hint of an error names; "" for the program itself. */
static char command_name[MAX_NAME];

int fail_with(int code, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    fputs("kvant: ", stderr);
    vfprintf(stderr, fmt, args);
    fputc('\n', stderr);
    va_end(args);
    if (code == 2) fprintf(stderr, "Help: kvant %s%s--help\n", command_name, command_name[0] ? " " : "");
    return code;
}

static void log_line(void *user, kvant_log_level level, const char *line) {
    (void)user;
    fprintf(stderr, "kvant: %s%s\n", level == KVANT_LOG_WARNING ? "warning: " : "", line);
}

void show_library_lines(void) { kvant_set_log(log_line, NULL); }

/* ---- names ---- */

static int smallest(int a, int b, int c) {
    int least = a < b ? a : b;
    return least < c ? least : c;
}

int name_distance(const char *a, const char *b) {
    int row[MAX_NAME + 1], n = (int)strlen(b);
    if (n > MAX_NAME || strlen(a) > MAX_NAME) return INT32_MAX;
    for (int j = 0; j <= n; j++)
        row[j] = j;
    for (int i = 1; a[i - 1]; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= n; j++) {
            int above = row[j];
            row[j] = smallest(above + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1]));
            diagonal = above;
        }
    }
    return row[n];
}

/* Whether arg is the flag `name`, alone or as name=value; *value is behind the = or NULL. */
static bool matches(const char *arg, const char *name, const char **value) {
    size_t n = name ? strlen(name) : 0;
    if (!name || strncmp(arg, name, n) != 0 || (arg[n] != '\0' && arg[n] != '=')) return false;
    *value = arg[n] == '=' ? arg + n + 1 : NULL;
    return true;
}

static const option *find_option(const option *table, int n, const char *arg, const char **value) {
    for (int i = 0; i < n; i++) {
        if (matches(arg, table[i].name, value)) return &table[i];
        if (matches(arg, table[i].alias, value)) return &table[i];
    }
    return NULL;
}

static int refuse_unknown(const option *table, int n, const char *arg) {
    const char *nearest = "--help";
    int best = name_distance(arg, nearest);
    for (int i = 0; i < n; i++) {
        int d = table[i].name ? name_distance(arg, table[i].name) : INT32_MAX;
        if (d >= best) continue;
        best = d;
        nearest = table[i].name;
    }
    if (best <= 3 || (best < INT32_MAX && best * 2 < (int)strlen(arg)))
        return fail_with(2, "there is no flag %.60s; did you mean %s?", arg, nearest);
    return fail_with(2, "there is no flag %.60s", arg);
}

/* ---- values ---- */

static int refuse_value(const option *o, const char *text, const char *kind) {
    if (o->min == 0 && o->max == 0) return fail_with(2, "%s %.60s: expected %s", o->name, text, kind);
    return fail_with(2, "%s %.60s: expected %s from %.15g to %.15g", o->name, text, kind, o->min, o->max);
}

static bool in_range(const option *o, double x) { return (o->min == 0 && o->max == 0) || (x >= o->min && x <= o->max); }

static int parse_integer(const option *o, const char *text) {
    char *end;
    bool is_signed = o->kind != OPTION_UINT64,
         starts = text[0] == '-' ? is_signed && text[1] >= '0' && text[1] <= '9' : text[0] >= '0' && text[0] <= '9';
    errno = 0;
    long long x = is_signed ? strtoll(text, &end, 10) : 0;
    unsigned long long u = is_signed ? 0 : strtoull(text, &end, 10);
    bool whole = starts && *end == '\0' && errno == 0, fits = o->kind != OPTION_INT || (x >= INT32_MIN && x <= INT32_MAX);
    if (!whole || !fits || !in_range(o, is_signed ? (double)x : (double)u)) return refuse_value(o, text, "a whole number");
    if (o->kind == OPTION_INT)
        *(int *)o->value = (int)x;
    else if (o->kind == OPTION_INT64)
        *(int64_t *)o->value = x;
    else
        *(uint64_t *)o->value = u;
    return 0;
}

static int parse_size(const option *o, const char *text) {
    static const struct {
        const char *name;
        double bytes;
    } units[] = {{"B", 1},    {"K", 1e3},  {"M", 1e6},  {"G", 1e9},  {"T", 1e12}, {"KB", 1e3},      {"MB", 1e6},
                 {"GB", 1e9}, {"TB", 1e12}, {"KiB", 0x1p10}, {"MiB", 0x1p20}, {"GiB", 0x1p30}, {"TiB", 0x1p40}};
    char *end;
    double x = text[0] >= '0' && text[0] <= '9' ? strtod(text, &end) : -1;
    for (size_t i = 0; x >= 0 && i < sizeof units / sizeof *units; i++) {
        if (strcmp(end, units[i].name) != 0 || !(x * units[i].bytes < 0x1p62)) continue;
        *(uint64_t *)o->value = (uint64_t)(x * units[i].bytes);
        return 0;
    }
    if (strcmp(text, "0") != 0) return fail_with(2, "%s %.60s: expected a size with its unit (300M, 1.5G, 2GiB), or 0", o->name, text);
    *(uint64_t *)o->value = 0;
    return 0;
}

static int parse_value(const option *o, const char *text) {
    if (o->kind == OPTION_STRING) {
        *(const char **)o->value = text;
        return 0;
    }
    if (o->kind == OPTION_LIST) {
        option_list *list = o->value;
        if (list->n == OPTION_LIST_MAX) return fail_with(2, "%s: given more than %d times", o->name, OPTION_LIST_MAX);
        list->items[list->n++] = text;
        return 0;
    }
    if (o->kind == OPTION_SIZE) return parse_size(o, text);
    if (o->kind != OPTION_FLOAT) return parse_integer(o, text);
    char *end;
    double x = strtod(text, &end);
    bool starts = (text[0] >= '0' && text[0] <= '9') || text[0] == '-' || text[0] == '.';
    if (!starts || end == text || *end || !isfinite(x) || !in_range(o, x)) return refuse_value(o, text, "a number");
    *(float *)o->value = (float)x;
    return 0;
}

/* ---- help ---- */

static void print_help(const char *usage, const char *about, const option *table, int n) {
    printf("Usage: %s\n\n%s\n", usage, about);
    for (int i = 0; i < n; i++) {
        const option *o = &table[i];
        char left[80];
        if (!o->name) {
            printf("\n%s\n", o->help);
            continue;
        }
        snprintf(left, sizeof left, "%s%s%s%s%s", o->alias ? o->alias : "", o->alias ? ", " : "", o->name, o->arg ? " " : "",
                 o->arg ? o->arg : "");
        printf("  %-30s%s%s\n", left, strlen(left) >= 30 ? " " : "", o->help);
    }
}

int options_parse(const char *usage, const char *about, const option *table, int n, int argc, char **argv, const char **argv_rest,
                  int max_rest, int *n_rest) {
    int rest = 0;
    bool flags_over = false;
    snprintf(command_name, sizeof command_name, "%s", argc > 0 ? argv[0] : "");
    for (int i = 1; i < argc && !flags_over; i++) { /* help wins, wherever it stands */
        flags_over = strcmp(argv[i], "--") == 0;
        if (strcmp(argv[i], "--help") != 0 && strcmp(argv[i], "-h") != 0) continue;
        print_help(usage, about, table, n);
        return -1;
    }
    flags_over = false;
    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i], *value = NULL;
        if (!flags_over && strcmp(arg, "--") == 0) {
            flags_over = true;
            continue;
        }
        if (flags_over || arg[0] != '-' || arg[1] == '\0') {
            if (rest == max_rest) return fail_with(2, "%.100s: there is no place for this argument (usage: %s)", arg, usage);
            argv_rest[rest++] = arg;
            continue;
        }
        const option *o = find_option(table, n, arg, &value);
        if (!o) return refuse_unknown(table, n, arg);
        if (o->kind == OPTION_FLAG) {
            if (value) return fail_with(2, "%s takes no value, found %.60s", o->name, value);
            *(bool *)o->value = true;
            continue;
        }
        if (!value && ++i == argc) return fail_with(2, "%s needs a value: %s", arg, o->arg ? o->arg : "VALUE");
        int code = parse_value(o, value ? value : argv[i]);
        if (code) return code;
    }
    if (n_rest) *n_rest = rest;
    return 0;
}

int options_need_model(const char **model, const char *const *rest, int n_rest) {
    if (n_rest > 0 && *model) return fail_with(2, "%.200s: the model is given already, by -m", rest[0]);
    if (n_rest > 0) *model = rest[0];
    if (!*model) return fail_with(2, "a model is needed: -m MODEL.gguf");
    return 0;
}

/* ---- the shared flags ---- */

int options_add_model(option *table, int n, int max, model_options *m) {
    kvant_load_params_default(&m->load);
    kvant_kv_params *kv = &m->load.kv;
    const option flags[] = {
        {NULL, NULL, OPTION_FLAG, NULL, 0, 0, NULL, "model and machine"},
        {"--model", "-m", OPTION_STRING, &m->model, 0, 0, "FILE", "the model: a GGUF file, or a folder of MLX or Hugging Face"},
        {"--context", "-c", OPTION_INT64, &m->n_context, 1, 1 << 27, "N", "the most tokens, prompt and answer together"},
        {"--threads", "-t", OPTION_INT, &m->load.n_threads, 1, 256, "N", "threads (the physical cores)"},
        {"--isa", NULL, OPTION_STRING, &m->isa, 0, 0, "LEVEL", "the highest kernel level: ref, avx2, avx512, best (best)"},
        {"--prefill-step-size", NULL, OPTION_INT, &m->load.prefill_step_size, 1, 8192, "N", "tokens of a prefill chunk (512)"},
        {"--exact", NULL, OPTION_FLAG, &m->exact, 0, 0, NULL, "float32 activations (the default of eval and logits)"},
        {"--fast", NULL, OPTION_FLAG, &m->fast, 0, 0, NULL,
         "activations rounded to 8 bits a block (the default of run and bench)"},
        {NULL, NULL, OPTION_FLAG, NULL, 0, 0, NULL, "cache"},
        {"--kv-preset", NULL, OPTION_STRING, &m->kv_preset, 0, 0, "NAME", "lossless (8 bits, the default), balanced (5/4), small (4), tiny (3)"},
        {"--kv-budget", NULL, OPTION_STRING, &m->kv_budget, 0, 0, "SIZE", "the best formats by layer that hold -c tokens in 300M, 1.5GiB, ..."},
        {"--kv-bits", NULL, OPTION_STRING, &m->kv_bits, 0, 0, "N", "bits a value: 2, 3, 4, 5, 6, 8, or none (f16); the best format at these bits"},
        {"--k-bits", NULL, OPTION_INT, &kv->k_bits, 2, 8, "N", "bits of K alone"},
        {"--v-bits", NULL, OPTION_INT, &kv->v_bits, 2, 8, "N", "bits of V alone"},
        {"--kv", NULL, OPTION_STRING, &kv->kv, 0, 0, "K[/V]", "formats by name: bc5/bc4, i8, f16, affine4:64, q8_0, bc4.bare"},
        {"--kv-center", NULL, OPTION_STRING, &m->kv_center, 0, 0, "auto|off", "whether keys are stored without their mean (auto)"},
        {"--kv-group-size", NULL, OPTION_INT, &kv->kv_group_size, 32, 128, "N", "elements that share a scale in affine: 32, 64, 128 (64)"},
        {"--kv-codec", NULL, OPTION_STRING, &kv->kv_codec, 0, 0, "NAME", "kvant (the best), affine (MLX's format), f16 or f32"},
        {"--cache-type-k", "-ctk", OPTION_STRING, &m->ctk, 0, 0, "NAME", "format of K, also by llama.cpp's names: q8_0, q4_0"},
        {"--cache-type-v", "-ctv", OPTION_STRING, &m->ctv, 0, 0, "NAME", "format of V"},
        {"--quantized-kv-start", NULL, OPTION_INT, &kv->quantized_kv_start, 0, 1 << 27, "N", "quantize from N tokens on (0)"},
        {"--max-kv-size", NULL, OPTION_INT, &kv->max_kv_size, 5, 1 << 27, "N",
         "a window: the first 4 tokens and the latest, N in all"},
        {"--kv-calibration", NULL, OPTION_STRING, &m->load.calibration_file, 0, 0, "FILE",
         "the keys' mean from a file of kvant calibrate (made by itself)"},
        {"--compat", NULL, OPTION_STRING, &m->compat, 0, 0, "mlx", "mlx-engine's rules: attend first, quantize after the chunk"},
    };
    int count = (int)(sizeof flags / sizeof *flags);
    for (int i = 0; i < count && n < max; i++)
        table[n++] = flags[i];
    return n;
}

int options_add_prefixes(option *table, int n, int max, model_options *m, uint64_t default_ram) {
    const option flags[] = {
        {"--cache-dir", NULL, OPTION_STRING, &m->load.prefix_dir, 0, 0, "DIR",
         "keep what was read in this folder, quantized; a later run reads on from there"},
        {"--cache-disk", NULL, OPTION_SIZE, &m->load.prefix_disk, 0, 0, "SIZE", "the most bytes of that folder, oldest go first; 0: no limit (10G)"},
        {"--cache-ram", NULL, OPTION_SIZE, &m->cache_ram, 0, 0, "SIZE", "the most bytes of past prompts in memory; 0: none (1G)"},
    };
    int count = (int)(sizeof flags / sizeof *flags) - (default_ram == 0);
    m->load.prefix_disk = CACHE_DISK;
    m->cache_ram = default_ram;
    for (int i = 0; i < count && n < max; i++)
        table[n++] = flags[i];
    return n;
}

int options_add_sampling(option *table, int n, kvant_sampler_params *s, option_list *stops) {
    const option flags[] = {
        {"--temp", NULL, OPTION_FLOAT, &s->temperature, 0, 100, "X", "temperature, 0: the most probable token"},
        {"--top-p", NULL, OPTION_FLOAT, &s->top_p, 0, 1, "X", "the fewest tokens with this probability together (1: off)"},
        {"--min-p", NULL, OPTION_FLOAT, &s->min_p, 0, 1, "X", "tokens with X of the top token's probability (0: off)"},
        {"--top-k", NULL, OPTION_INT, &s->top_k, 0, 1 << 26, "N", "the N most probable tokens (0: off)"},
        {"--repeat-penalty", NULL, OPTION_FLOAT, &s->repeat_penalty, 0.01, 100, "X",
         "makes recent tokens less probable (1: off)"},
        {"--repeat-last-n", NULL, OPTION_INT, &s->repeat_last_n, 0, 65536, "N", "tokens that the penalty sees (64)"},
        {"--seed", NULL, OPTION_UINT64, &s->seed, 0, 0, "N", "one seed, one answer"},
        {"--stop", NULL, OPTION_LIST, stops, 0, 0, "TEXT", "ends the answer before this text; may be repeated"},
    };
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
        table[n++] = flags[i];
    return n;
}

/* llama.cpp's cache types that Kvant does not have, and what is nearest. */
static const struct {
    const char *name, *nearest;
} foreign_types[] = {{"bf16", "f16"}, {"iq4_nl", "q4_0"}};

static int check_cache_type(const char *flag, const char *name) {
    kvant_format format;
    kvant_error err = {0};
    for (size_t i = 0; i < sizeof foreign_types / sizeof *foreign_types; i++) {
        if (strcmp(name, foreign_types[i].name) == 0)
            return fail_with(2, "%s %s: Kvant has no such cache format; the nearest is %s", flag, name, foreign_types[i].nearest);
    }
    if (kvant_format_parse(name, &format, &err) != KVANT_OK) return fail_with(2, "%s: %s", flag, err.message);
    return 0;
}

static int finish_cache_types(model_options *m) {
    kvant_kv_params *kv = &m->load.kv;
    if (!m->ctk && !m->ctv) return 0;
    const char *k = m->ctk ? m->ctk : "f16", *v = m->ctv ? m->ctv : "f16";
    int code = check_cache_type("-ctk", k);
    if (!code) code = check_cache_type("-ctv", v);
    if (code) return code;
    if (kv->kv || m->kv_bits || kv->k_bits || kv->v_bits || kv->kv_codec || kv->kv_group_size)
        return fail_with(2, "-ctk and -ctv choose the cache format by name; leave out %s",
                         kv->kv              ? "--kv"
                         : kv->kv_codec      ? "--kv-codec"
                         : kv->kv_group_size ? "--kv-group-size"
                                             : "the flags of bits");
    snprintf(m->kv_pair, sizeof m->kv_pair, "%s/%s", k, v);
    kv->kv = m->kv_pair;
    return 0;
}

static int finish_bits(model_options *m) {
    kvant_kv_params *kv = &m->load.kv;
    char *end;
    if (!m->kv_bits) return 0;
    if (strcmp(m->kv_bits, "none") == 0) {
        if (kv->k_bits || kv->v_bits || kv->kv || kv->kv_group_size)
            return fail_with(2, "--kv-bits none is an f16 cache; leave out %s",
                             kv->kv              ? "--kv"
                             : kv->kv_group_size ? "--kv-group-size"
                                                 : "--k-bits and --v-bits");
        if (!kv->kv_codec)
            kv->kv_codec = "f16";
        else if (strcmp(kv->kv_codec, "affine") == 0 || strcmp(kv->kv_codec, "kvant") == 0)
            return fail_with(2, "--kv-codec %s needs bits: --kv-bits 4", kv->kv_codec);
        return 0;
    }
    long bits = strtol(m->kv_bits, &end, 10);
    if (m->kv_bits[0] < '0' || m->kv_bits[0] > '9' || *end || bits < 2 || bits > 8 || bits == 7)
        return fail_with(2, "--kv-bits %.40s: expected 2, 3, 4, 5, 6, 8 or none", m->kv_bits);
    kv->kv_bits = (int)bits;
    return 0;
}

static int finish_preset(model_options *m) {
    kvant_kv_params *kv = &m->load.kv;
    bool known = false;
    if (m->kv_center && strcmp(m->kv_center, "auto") != 0 && strcmp(m->kv_center, "off") != 0)
        return fail_with(2, "--kv-center %.40s: expected auto or off", m->kv_center);
    kv->kv_center_off = m->kv_center && strcmp(m->kv_center, "off") == 0;
    if (!m->kv_preset) return 0;
    for (int i = 0; i < KVANT_PRESETS; i++)
        known = known || strcmp(m->kv_preset, kvant_preset_at(i)->name) == 0;
    if (!known) return fail_with(2, "--kv-preset %.40s: expected lossless, balanced, small or tiny", m->kv_preset);
    if (kv->kv || m->kv_bits || kv->k_bits || kv->v_bits || kv->kv_codec || kv->kv_group_size)
        return fail_with(2, "--kv-preset %s chooses the formats; leave out the other flags that do", m->kv_preset);
    kv->kv = m->kv_preset;
    return 0;
}

/* A budget is for a context, which must be said: what the model was trained for may be ten times what is meant. */
static int finish_budget(model_options *m) {
    kvant_kv_params *kv = &m->load.kv;
    if (m->kv_budget) {
        if (kv->kv || m->kv_bits || kv->k_bits || kv->v_bits || kv->kv_codec || kv->kv_group_size)
            return fail_with(2, "--kv-budget %.40s chooses the formats; leave out the other flags that do", m->kv_budget);
        if (strlen(m->kv_budget) > 40) return fail_with(2, "--kv-budget %.40s...: expected a size, as 300M or 1.5GiB", m->kv_budget);
        snprintf(m->kv_pair, sizeof m->kv_pair, "budget:%s", m->kv_budget);
        kv->kv = m->kv_pair;
    }
    if (!kv->kv || strncmp(kv->kv, "budget:", 7) != 0) return 0;
    if (m->n_context == 0) return fail_with(2, "--kv-budget needs the context that is to fit: -c N");
    kv->kv_budget_tokens = m->n_context;
    return 0;
}

void options_default_lossless(model_options *m) {
    kvant_kv_params *kv = &m->load.kv;
    bool nothing = !kv->kv && !kv->kv_bits && !kv->k_bits && !kv->v_bits && !kv->kv_codec && !kv->kv_group_size;
    if (nothing && !kv->compat_mlx) kv->kv = "auto";
}

int options_finish_model(model_options *m) {
    const kvant_kv_params *kv = &m->load.kv;
    if (m->isa && kvant_isa_parse(m->isa, &m->load.isa) != KVANT_OK)
        return fail_with(2, "--isa %.40s: expected ref, avx2, avx512 or best", m->isa);
    if (m->compat && strcmp(m->compat, "mlx") != 0) return fail_with(2, "--compat %.40s: expected mlx", m->compat);
    m->load.kv.compat_mlx = m->compat != NULL;
    m->load.prefix_ram = m->cache_ram > SIZE_MAX ? SIZE_MAX : (size_t)m->cache_ram;
    if (!m->load.prefix_dir && m->load.prefix_disk != 0 && m->load.prefix_disk != CACHE_DISK)
        return fail_with(2, "--cache-disk limits the folder of --cache-dir DIR; give that too");
    m->load.cache_dir = cache_folder();
    if (m->exact && m->fast) return fail_with(2, "--exact and --fast exclude each other");
    if (m->kv_bits && kv->k_bits && kv->v_bits)
        return fail_with(2, "--kv-bits has no effect beside --k-bits and --v-bits; leave one of them out");
    int code = finish_preset(m);
    if (!code) code = finish_cache_types(m);
    if (!code) code = finish_budget(m);
    return code ? code : finish_bits(m);
}

/* ---- input ---- */

int read_text(const char *path, size_t max, char **data, size_t *size) {
    bool is_stdin = strcmp(path, "-") == 0;
    const char *name = is_stdin ? "stdin" : path;
    FILE *f = is_stdin ? stdin : fopen(path, "rb");
    if (!f) return fail_with(1, "%s: cannot be opened: %s", name, strerror(errno));
    char *text = NULL;
    size_t used = 0, room = 0, got = 0;
    int code = 0;
    do {
        used += got;
        if (used > max) code = fail_with(1, "%s: is longer than %zu bytes", name, max);
        if (!code && room - used < 2) {
            room = room ? 2 * room : 65536;
            char *grown = realloc(text, room);
            if (grown)
                text = grown;
            else
                code = fail_with(1, "%s: out of memory after %zu bytes", name, used);
        }
    } while (!code && (got = fread(text + used, 1, room - used - 1, f)) > 0);
    if (!code && ferror(f)) code = fail_with(1, "%s: cannot be read: %s", name, strerror(errno));
    if (!is_stdin) fclose(f);
    if (code) {
        free(text);
        return code;
    }
    text[used] = '\0';
    *data = text;
    *size = used;
    return 0;
}

int parse_token_ids(const char *name, const char *text, size_t size, int n_vocab, int32_t **ids, int *n) {
    int32_t *out = size / 2 < INT32_MAX ? malloc((size / 2 + 1) * sizeof *out) : NULL;
    int count = 0;
    if (!out) return fail_with(1, "%s: no memory for its token ids", name);
    for (size_t at = 0; at < size;) {
        if (text[at] && strchr(" \t\r\n,[]", text[at])) {
            at++;
            continue;
        }
        int64_t id = 0;
        size_t first = at;
        for (; at < size && text[at] >= '0' && text[at] <= '9'; at++)
            if (id < n_vocab) id = 10 * id + (text[at] - '0');
        bool ends = at == size || (text[at] && strchr(" \t\r\n,[]", text[at]));
        if (at == first || !ends || id >= n_vocab) {
            free(out);
            return fail_with(1, "%s: token %d, at byte %zu: expected an id from 0 to %d", name, count, first, n_vocab - 1);
        }
        out[count++] = (int32_t)id;
    }
    *ids = out;
    *n = count;
    return 0;
}
