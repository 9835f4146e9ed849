// SPDX-License-Identifier: MIT
/* draft_options.c: see draft_options.h. */
#include "draft_options.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

int draft_options_add(option *table, int n, int max, draft_options *d) {
    const option flags[] = {
        {NULL, NULL, OPTION_FLAG, NULL, 0, 0, NULL, "draft (the answer stays the same, token for token)"},
        {"--draft", NULL, OPTION_STRING, &d->name, 0, 0, "NAME", "ngram: guess what followed the same words before; for edits and quotations"},
        {"--draft-model", NULL, OPTION_STRING, &d->model, 0, 0, "FILE", "a smaller model with the same vocabulary guesses"},
        {"--num-draft-tokens", NULL, OPTION_INT, &d->n, 1, 64, "N", "the most tokens guessed at a time; fewer when guesses fail (4)"},
        {"--draft-kv-bits", NULL, OPTION_INT, &d->kv_bits, 2, 8, "N", "bits a value of the draft's own cache: 2, 3, 4, 5, 6, 8"},
        {"--draft-kv", NULL, OPTION_STRING, &d->kv, 0, 0, "K[/V]", "its formats by name (8 bits, lossless)"},
    };
    int count = (int)(sizeof flags / sizeof *flags);
    for (int i = 0; i < count && n < max; i++)
        table[n++] = flags[i];
    return n;
}

int draft_options_check(const draft_options *d) {
    if (d->name && strcmp(d->name, "ngram") != 0)
        return fail_with(2, "--draft %.40s: expected ngram; a model is given with --draft-model FILE", d->name);
    if (d->name && d->model) return fail_with(2, "--draft and --draft-model exclude each other");
    if (d->n && !d->name && !d->model) return fail_with(2, "--num-draft-tokens needs a draft: --draft ngram, or --draft-model FILE");
    if ((d->kv || d->kv_bits) && !d->model)
        return fail_with(2, "%s is about the cache of a draft model; give that with --draft-model FILE", d->kv ? "--draft-kv" : "--draft-kv-bits");
    if (d->kv && d->kv_bits) return fail_with(2, "--draft-kv and --draft-kv-bits exclude each other");
    return 0;
}

int draft_open(draft *out, const draft_options *d, const kvant_load_params *load) {
    kvant_load_params p;
    kvant_error err = {0};
    *out = (draft){0};
    if (!d->name && !d->model) return 0;
    out->settings.n_draft = d->n ? d->n : DRAFT_TOKENS;
    out->params = &out->settings;
    if (!d->model) return 0;
    kvant_load_params_default(&p);
    p.n_threads = load->n_threads;
    p.isa = load->isa;
    p.prefill_step_size = load->prefill_step_size;
    p.cache_dir = load->cache_dir;
    p.kv.kv = d->kv_bits ? NULL : d->kv ? d->kv : "auto";
    p.kv.kv_bits = d->kv_bits;
    kvant_status st = kvant_model_open(d->model, &p, &out->model, &err);
    if (st != KVANT_OK) return fail_with(st == KVANT_EINVAL ? 2 : 1, "draft: %s", err.message);
    out->settings.model = out->model;
    return 0;
}

void draft_close(draft *d) {
    kvant_model_close(d->model);
    *d = (draft){0};
}

void draft_print_begin(const draft *d) {
    kvant_model_info info;
    char k[KVANT_FORMAT_NAME_MAX], v[KVANT_FORMAT_NAME_MAX];
    if (!d->model) return;
    kvant_model_get_info(d->model, &info);
    kvant_format_name(&info.k, k);
    kvant_format_name(&info.v, v);
    fprintf(stderr, "kvant: draft: %s, %d layers, cache %s/%s, at most %d tokens at a time\n", info.name, info.n_layer, k, v,
            d->settings.n_draft);
}

void draft_print_end(const draft *d, kvant_draft_stats s) {
    if (!d->params) return;
    if (s.n_rounds == 0) {
        fprintf(stderr, "kvant: draft: nothing was guessed: no guess was worth its time, or nothing that followed could be guessed\n");
        return;
    }
    double share = s.n_drafted > 0 ? 100.0 * (double)s.n_accepted / (double)s.n_drafted : 0;
    fprintf(stderr, "kvant: draft: %" PRId64 " of %" PRId64 " tokens accepted (%.0f %%), in %" PRId64 " rounds\n", s.n_accepted,
            s.n_drafted, share, s.n_rounds);
}
