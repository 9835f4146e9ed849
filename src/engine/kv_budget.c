// SPDX-License-Identifier: MIT
/* kv_budget.c: spending bytes where they spare the most.
 *
 * Every layer's K and V begin with the fewest bits. A step to more bits costs bytes and spares sensitivity times what it takes from
 * the format's noise; for every item only the steps of its convex hull count, which spare less and less a byte. So taking all steps
 * in the order of what they spare a byte is optimal up to the last step that fits, and skipping those that do not fit any more keeps
 * the expectation monotone in the budget: what is left over is worth less a byte than the step that a larger budget takes. */
#include "engine/kv_budget.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/status.h"

#define PREFIX "budget:"

/* From the fewest bits. The noise of each is its relative squared error on normal values; bz has no such figure, as it is the right
 * keys' elements that it stores finer: what counts is that keys in it cost 0.73 times the divergence of keys in bc with blocks of 16
 * (SmolLM2; in bz2 0.6 times). */
static const struct {
    kvant_format format;
    double noise;
} ladder[] = {
    {{KVANT_CODEC_BOOK, 2, 0, false}, 0.0711},   {{KVANT_CODEC_ZONE, 2, 0, false}, 0.0427},   {{KVANT_CODEC_BOOK, 3, 0, false}, 0.0213},
    {{KVANT_CODEC_BOOK, 3, 16, false}, 0.0171},  {{KVANT_CODEC_ZONE, 3, 0, false}, 0.0125},   {{KVANT_CODEC_BOOK, 4, 0, false}, 0.00527},
    {{KVANT_CODEC_BOOK, 4, 16, false}, 0.00422}, {{KVANT_CODEC_ZONE, 4, 0, false}, 0.00308},  {{KVANT_CODEC_BOOK, 5, 0, false}, 0.00135},
    {{KVANT_CODEC_BOOK, 5, 16, false}, 0.00107},
    {{KVANT_CODEC_INT, 6, 0, false}, 0.00071},  {{KVANT_CODEC_INT, 8, 0, false}, 0.000045}, {{KVANT_CODEC_F16, 0, 0, false}, 0},
};
#define RUNGS (int)(sizeof ladder / sizeof *ladder)
#define RUNG_LOSSLESS (RUNGS - 2)
#define RUNG_PROBE 0

/* ---- what is asked for ---- */

bool kvant_budget_is(const char *kv) { return kv && strncmp(kv, PREFIX, sizeof PREFIX - 1) == 0; }

/* Bytes of a unit, 0: there is no such. */
static double unit_bytes(const char *unit) {
    static const struct {
        const char *name;
        double bytes;
    } units[] = {{"B", 1},    {"K", 1e3},  {"M", 1e6},  {"G", 1e9},  {"T", 1e12}, {"KB", 1e3},      {"MB", 1e6},
                 {"GB", 1e9}, {"TB", 1e12}, {"KiB", 0x1p10}, {"MiB", 0x1p20}, {"GiB", 0x1p30}, {"TiB", 0x1p40}};
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (strcmp(unit, units[i].name) == 0) return units[i].bytes;
    return 0;
}

kvant_status kvant_budget_parse(const char *kv, kvant_budget *out, kvant_error *err) {
    const char *text = kv + sizeof PREFIX - 1;
    char *end;
    *out = (kvant_budget){0};
    if (!(text[0] >= '0' && text[0] <= '9') && text[0] != '.') {
        if (kvant_format_parse_pair(text, &out->k, &out->v, NULL) == KVANT_OK) return KVANT_OK;
        return kvant_fail(err, KVANT_EINVAL, "kv budget: found \"%.40s\", expected a size (300M, 1.5GiB), bits a value (4.3), or a format whose "
                          "bytes are meant (bc4, small)", text);
    }
    double x = strtod(text, &end), unit = *end ? unit_bytes(end) : 0;
    bool starts_hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
    if (!*end && x >= 1 && x <= 16 && !starts_hex) {
        out->bits = x;
        return KVANT_OK;
    }
    if (unit > 0 && x * unit >= 1 && x * unit < 0x1p60 && !starts_hex) {
        out->bytes = (size_t)(x * unit);
        return KVANT_OK;
    }
    return kvant_fail(err, KVANT_EINVAL, "kv budget: found \"%.40s\", expected a size with its unit (300M, 1.5G; KiB, MiB, GiB are powers of "
                      "1024), or 1 to 16 bits a value", text);
}

static size_t uniform_bytes(const kvant_cache_config *shape, const kvant_format *k, const kvant_format *v, int64_t n_tokens) {
    kvant_cache_config c = *shape;
    c.layer_k = c.layer_v = NULL;
    c.k = *k;
    c.v = *v;
    return kvant_cache_bytes_for(&c, n_tokens);
}

kvant_status kvant_budget_bytes(const kvant_budget *b, const kvant_cache_config *shape, int64_t n_tokens, size_t *out, kvant_error *err) {
    const kvant_format *f16 = &ladder[RUNGS - 1].format;
    if (b->bytes) {
        *out = b->bytes;
        return KVANT_OK;
    }
    if (b->bits > 0) {
        *out = (size_t)(b->bits / 16 * (double)uniform_bytes(shape, f16, f16, n_tokens));
        return KVANT_OK;
    }
    KVANT_TRY(kvant_format_check(&b->k, shape->head_dim, err));
    KVANT_TRY(kvant_format_check(&b->v, shape->head_dim, err));
    *out = uniform_bytes(shape, &b->k, &b->v, n_tokens);
    return KVANT_OK;
}

kvant_status kvant_budget_probe(kvant_format *out, double *noise, int head_dim, kvant_error *err) {
    KVANT_TRY(kvant_format_check(&ladder[RUNG_PROBE].format, head_dim, err));
    *out = ladder[RUNG_PROBE].format;
    *noise = ladder[RUNG_PROBE].noise;
    return KVANT_OK;
}

/* ---- choosing ---- */

/* From one rung of an item to a higher one of its hull. */
typedef struct step {
    int item, from, to; /* item: 2 * layer, + 1 for V */
    size_t bytes;
    double spared, worth; /* worth: spared a byte */
} step;

typedef struct choosing {
    const kvant_cache_config *shape;
    const double *sensitivity[2];
    bool center_off;
    int64_t n_tokens;
    int n_steps;
    step *steps; /* [2 * n_layer * (RUNGS - 1)] */
    int *rung;   /* [2 * n_layer] */
} choosing;

static kvant_format format_of(const choosing *x, int rung, bool is_v) {
    kvant_format f = ladder[rung].format;
    f.bare = !is_v && x->center_off && kvant_format_is_centred(&f);
    return f;
}

/* Whether an item can be stored so: zones are an order of centred keys. */
static bool is_rung(const choosing *x, int rung, bool is_v) {
    const kvant_format *f = &ladder[rung].format;
    if (f->codec == KVANT_CODEC_ZONE && (is_v || x->center_off)) return false;
    return kvant_format_check(f, x->shape->head_dim, NULL) == KVANT_OK;
}

static size_t layer_bytes(const choosing *x, int layer, int k_rung, int v_rung) {
    kvant_cache_config c = *x->shape;
    int window = c.layer_window ? c.layer_window[layer] : 0;
    c.n_layer = 1;
    c.layer_window = &window;
    kvant_format k = format_of(x, k_rung, false), v = format_of(x, v_rung, true);
    return uniform_bytes(&c, &k, &v, x->n_tokens);
}

/* A layer's bytes are the sum of its sides' while one of them has few bits; both f16, it takes a little less. */
static void add_item_steps(choosing *x, int item) {
    int layer = item / 2, is_v = item % 2;
    size_t bytes[RUNGS] = {0};
    double s = x->sensitivity[is_v][layer];
    for (int r = 0; r < RUNGS; r++)
        if (is_rung(x, r, is_v)) bytes[r] = is_v ? layer_bytes(x, layer, 0, r) : layer_bytes(x, layer, r, 0);
    for (int at = 0; at < RUNGS - 1;) {
        step best = {.item = item, .from = at, .to = -1};
        for (int to = at + 1; to < RUNGS; to++) {
            if (!is_rung(x, to, is_v)) continue;
            step t = {item, at, to, bytes[to] - bytes[at], s * (ladder[at].noise - ladder[to].noise), 0};
            t.worth = t.spared / (double)(t.bytes ? t.bytes : 1);
            if (best.to < 0 || t.worth >= best.worth) best = t;
        }
        x->steps[x->n_steps++] = best;
        at = best.to;
    }
}

static int compare_steps(const void *a, const void *b) {
    const step *x = a, *y = b;
    if (x->worth != y->worth) return x->worth > y->worth ? -1 : 1;
    return x->item != y->item ? x->item - y->item : x->from - y->from;
}

static size_t all_bytes(const choosing *x) {
    size_t bytes = 0;
    for (int i = 0; i < x->shape->n_layer; i++)
        bytes += layer_bytes(x, i, x->rung[2 * i], x->rung[2 * i + 1]);
    return bytes;
}

static size_t all_bytes_at(choosing *x, int rung) {
    for (int i = 0; i < 2 * x->shape->n_layer; i++)
        x->rung[i] = rung;
    return all_bytes(x);
}

/* Refuses a budget that not even the fewest bits fit. */
static kvant_status refuse(const choosing *x, size_t least, size_t max_bytes, kvant_error *err) {
    choosing shorter = *x;
    int64_t fits = 0, beyond = x->n_tokens; /* a context that fits, one that does not */
    while (beyond - fits > 1) {
        shorter.n_tokens = fits + (beyond - fits) / 2;
        if (all_bytes(&shorter) <= max_bytes) fits = shorter.n_tokens;
        else beyond = shorter.n_tokens;
    }
    char name[KVANT_FORMAT_NAME_MAX];
    kvant_format_name(&ladder[0].format, name);
    if (fits == 0)
        return kvant_fail(err, KVANT_EFULL, "kv budget: %.4g MB hold no page of %d tokens; a context of %lld takes at least %.4g MB (all %s)",
                          (double)max_bytes / 1e6, KVANT_PAGE_TOKENS, (long long)x->n_tokens, ceil((double)least / 1e3) / 1e3, name);
    return kvant_fail(err, KVANT_EFULL, "kv budget: %.4g MB are too few for %lld tokens, which take at least %.4g MB (all %s); a context of "
                      "%lld fits (-c)", (double)max_bytes / 1e6, (long long)x->n_tokens, ceil((double)least / 1e3) / 1e3, name, (long long)fits);
}

static kvant_status choose(choosing *x, size_t max_bytes, kvant_budget_choice *out, kvant_error *err) {
    out->is_lossless = all_bytes_at(x, RUNG_LOSSLESS) <= max_bytes;
    if (out->is_lossless) return KVANT_OK;
    size_t bytes = all_bytes_at(x, 0);
    if (bytes > max_bytes) return refuse(x, bytes, max_bytes, err);
    for (int i = 0; i < 2 * x->shape->n_layer; i++)
        add_item_steps(x, i);
    qsort(x->steps, (size_t)x->n_steps, sizeof *x->steps, compare_steps);
    for (int i = 0; i < x->n_steps; i++) {
        const step *s = &x->steps[i];
        if (x->rung[s->item] != s->from || s->bytes > max_bytes - bytes) continue; /* one of its earlier steps did not fit, or it does not */
        x->rung[s->item] = s->to;
        bytes += s->bytes;
    }
    return KVANT_OK;
}

kvant_status kvant_budget_choose(const kvant_cache_config *shape, const double *k_sensitivity, const double *v_sensitivity,
                                 bool center_off, int64_t n_tokens, size_t max_bytes, kvant_format *k, kvant_format *v,
                                 kvant_budget_choice *out, kvant_error *err) {
    size_t items = 2 * (size_t)shape->n_layer;
    kvant_budget_choice c = {0};
    if (n_tokens < 1) return kvant_fail(err, KVANT_EINVAL, "kv budget: found a context of %lld tokens, expected 1 or more", (long long)n_tokens);
    KVANT_TRY(kvant_format_check(&ladder[0].format, shape->head_dim, err));
    choosing x = {.shape = shape, .sensitivity = {k_sensitivity, v_sensitivity}, .center_off = center_off, .n_tokens = n_tokens};
    x.steps = kvant_alloc(items * (RUNGS - 1), sizeof *x.steps);
    x.rung = kvant_alloc(items, sizeof *x.rung);
    kvant_status st = x.steps && x.rung ? choose(&x, max_bytes, &c, err) : kvant_fail(err, KVANT_ENOMEM, "kv budget: out of memory");
    if (st == KVANT_OK) {
        c.bytes = all_bytes(&x);
        for (int i = 0; i < shape->n_layer; i++) {
            k[i] = format_of(&x, x.rung[2 * i], false);
            v[i] = format_of(&x, x.rung[2 * i + 1], true);
            c.kl += k_sensitivity[i] * ladder[x.rung[2 * i]].noise + v_sensitivity[i] * ladder[x.rung[2 * i + 1]].noise;
        }
        *out = c;
    }
    kvant_free(x.steps);
    kvant_free(x.rung);
    return st;
}

void kvant_budget_digits(const kvant_format *formats, int n_layer, char *out) {
    for (int i = 0; i < n_layer; i++)
        out[i] = formats[i].codec == KVANT_CODEC_F16 ? 'f' : (char)('0' + formats[i].bits);
    out[n_layer] = '\0';
}
