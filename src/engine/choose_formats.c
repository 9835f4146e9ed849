// SPDX-License-Identifier: MIT
/* choose_formats.c: the formats of a model's layers for a number of bytes: its sensitivities (sensitivity.h) spent by kv_budget.h. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "engine/kv_budget.h"
#include "engine/model.h"
#include "engine/sensitivity.h"

/* The format that most layers have, and in *all whether it is everyone's. */
static kvant_format most_common(const kvant_format *f, int n, bool *all) {
    int best = 0, best_count = 0;
    for (int i = 0; i < n; i++) {
        int count = 0;
        for (int k = 0; k < n; k++)
            count += kvant_format_equal(&f[i], &f[k]);
        if (count > best_count) best = i, best_count = count;
    }
    *all = best_count == n;
    return f[best];
}

/* What is to be expected of another text. A layer's figure is known only so well: between two texts the logarithms of figures correlate
 * by about 0.5 (SmolLM2, 0.53), so half of what tells a layer from the mean of its side is chance. The sum stays. */
#define BELIEVED 0.5

static void expect(const double *measured, int n, double *out) {
    double mean = 0, sum = 0, sum_out = 0;
    for (int i = 0; i < n; i++)
        mean += log(measured[i]) / n;
    for (int i = 0; i < n; i++) {
        out[i] = exp(mean + BELIEVED * (log(measured[i]) - mean));
        sum += measured[i];
        sum_out += out[i];
    }
    for (int i = 0; i < n; i++)
        out[i] *= sum / sum_out;
}

static kvant_status choose(kvant_model *m, int64_t n_tokens, size_t max_bytes, kvant_format *k, kvant_format *v, kvant_budget_choice *choice,
                           kvant_error *err) {
    const kvant_sensitivity *s;
    if (m->cache.quantized_kv_start > 0 || m->compat_mlx)
        return kvant_fail(err, KVANT_EINVAL, "kv budget: %s keeps tokens in f16, which no budget foresees; leave one of them out",
                          m->compat_mlx ? "compat mlx" : "quantized_kv_start");
    KVANT_TRY(kvant_model_need_sensitivity(m, &s, err));
    int n = s->n_layer;
    double *expected = kvant_alloc((size_t)n, 2 * sizeof *expected);
    if (!expected) return kvant_fail(err, KVANT_ENOMEM, "kv budget: out of memory");
    expect(s->k, n, expected);
    expect(s->v, n, expected + n);
    kvant_status st = kvant_budget_choose(&m->cache, expected, expected + n, m->kv_center_off, n_tokens, max_bytes, k, v, choice, err);
    kvant_free(expected);
    return st;
}

kvant_status kvant_model_choose_formats(kvant_model *m, int64_t n_tokens, size_t max_bytes, kvant_format *k, kvant_format *v,
                                        kvant_error *err) {
    kvant_budget_choice choice;
    return choose(m, n_tokens, max_bytes, k, v, &choice, err);
}

/* Tells what was chosen; without memory for the line, nothing. */
static void tell(const kvant_budget_choice *c, const kvant_format *k, const kvant_format *v, int n_layer, int64_t n_tokens, size_t max_bytes) {
    char *line = kvant_alloc((size_t)n_layer + 1, 2);
    if (c->is_lossless) {
        kvant_log(KVANT_LOG_INFO, "cache budget %.4g MB for %lld tokens: lossless takes %.4g MB, more would change nothing",
                  (double)max_bytes / 1e6, (long long)n_tokens, (double)c->bytes / 1e6);
    } else if (line) {
        kvant_budget_digits(k, n_layer, line);
        kvant_budget_digits(v, n_layer, line + n_layer + 1);
        kvant_log(KVANT_LOG_INFO, "cache budget %.4g MB for %lld tokens: bits by layer K %s V %s, %.4g MB, expected KL divergence %.2g",
                  (double)max_bytes / 1e6, (long long)n_tokens, line, line + n_layer + 1, (double)c->bytes / 1e6, c->kl);
    }
    kvant_free(line);
}

kvant_status kvant_model_apply_budget(kvant_model *m, const char *kv, int64_t n_tokens, kvant_cache_config *c, kvant_format **layers,
                                      kvant_error *err) {
    kvant_budget budget;
    kvant_budget_choice choice;
    size_t bytes, n = (size_t)m->info.n_layer;
    bool k_is_one, v_is_one;
    KVANT_TRY(kvant_budget_parse(kv, &budget, err));
    KVANT_TRY(kvant_budget_bytes(&budget, &m->cache, n_tokens, &bytes, err));
    kvant_format *k = kvant_alloc(n, 2 * sizeof *k), *v = k ? k + n : NULL;
    if (!k) return kvant_fail(err, KVANT_ENOMEM, "kv budget: out of memory");
    kvant_status st = choose(m, n_tokens, bytes, k, v, &choice, err);
    if (st != KVANT_OK) {
        kvant_free(k);
        return st;
    }
    tell(&choice, k, v, m->info.n_layer, n_tokens, bytes);
    c->k = most_common(k, m->info.n_layer, &k_is_one);
    c->v = most_common(v, m->info.n_layer, &v_is_one);
    c->layer_k = k_is_one && v_is_one ? NULL : k;
    c->layer_v = k_is_one && v_is_one ? NULL : v;
    *layers = k;
    return KVANT_OK;
}
