// SPDX-License-Identifier: MIT
/* experts.c: an MLP of which each token uses a few of many copies.
 *
 * The router chooses per token; then tokens are grouped by expert, so that each expert's weights are read once for all of a
 * step's tokens. A token's outputs are added in the order of expert numbers, whatever else is in the step, so its bits do not
 * depend on how tokens were split into steps. */
#include <math.h>
#include <string.h>

#include "model/decoder_internal.h"

/* The k largest of n logits, the first of equals; NaN is never larger. chosen[k] in falling order. */
static void choose(const float *logits, int n, int k, int *chosen) {
    for (int j = 0; j < k; j++) {
        int best = -1;
        for (int e = 0; e < n; e++) {
            bool taken = false;
            for (int i = 0; i < j; i++)
                taken |= chosen[i] == e;
            if (!taken && (best < 0 || logits[e] > logits[best])) best = e;
        }
        chosen[j] = best;
    }
}

/* softmax over all, then the chosen ones renormalised. The floor keeps a sum that underflowed from dividing. */
static void weigh_softmax_topk(const float *logits, int n, int k, const int *chosen, float *weight) {
    const double smallest = 6.103515625e-5;
    double largest = (double)logits[chosen[0]], all = 0, sum = 0;
    for (int e = 0; e < n; e++)
        all += exp((double)logits[e] - largest);
    for (int j = 0; j < k; j++)
        sum += exp((double)logits[chosen[j]] - largest) / all;
    if (!(sum > smallest)) sum = smallest;
    for (int j = 0; j < k; j++)
        weight[j] = (float)(exp((double)logits[chosen[j]] - largest) / all / sum);
}

static void weigh_topk_softmax(const float *logits, int k, const int *chosen, float *weight) {
    double largest = (double)logits[chosen[0]], sum = 0;
    for (int j = 0; j < k; j++)
        sum += exp((double)logits[chosen[j]] - largest);
    for (int j = 0; j < k; j++)
        weight[j] = (float)(exp((double)logits[chosen[j]] - largest) / sum);
}

static void route(const kvant_hparams *hp, kvant_workspace *w, int n) {
    int k = hp->n_expert_used;
    for (int i = 0; i < n; i++) {
        const float *logits = w->router + (size_t)i * (size_t)hp->n_expert;
        int *chosen = w->chosen + (size_t)i * (size_t)k;
        float *weight = w->chosen_weight + (size_t)i * (size_t)k;
        choose(logits, hp->n_expert, k, chosen);
        if (hp->traits->gate == KVANT_GATE_TOPK_SOFTMAX)
            weigh_topk_softmax(logits, k, chosen, weight);
        else
            weigh_softmax_topk(logits, hp->n_expert, k, chosen, weight);
    }
}

/* The rows that chose expert e, into members and member_weight. */
static int gather_members(const kvant_hparams *hp, kvant_workspace *w, int n, int e) {
    int n_member = 0, k = hp->n_expert_used;
    for (int i = 0; i < n; i++) {
        for (int j = 0; j < k; j++) {
            if (w->chosen[(size_t)i * (size_t)k + (size_t)j] != e) continue;
            w->members[n_member] = i;
            w->member_weight[n_member++] = w->chosen_weight[(size_t)i * (size_t)k + (size_t)j];
            break;
        }
    }
    return n_member;
}

/* Expert e on the n_member rows that are set in w->wide; adds to sum [n][n_embd]. */
static void apply_expert(const kvant_decoder *d, kvant_workspace *w, const kvant_layer *layer, int e, int n_member, float *sum,
                         kvant_precision precision) {
    const kvant_hparams *hp = &d->hp;
    size_t n_ff = (size_t)hp->n_ff, n_embd = (size_t)hp->n_embd;
    kvant_linear_apply(d, &layer->gate_experts[e], w->wide, n_member, w->gate, n_ff);
    kvant_linear_apply(d, &layer->up_experts[e], w->wide, n_member, w->up, n_ff);
    kvant_rows_activate(d, w->gate, w->up, n_member, hp->n_ff);
    kvant_activations_set(w->narrow, w->gate, n_member, hp->n_ff, precision);
    kvant_linear_apply(d, &layer->down_experts[e], w->narrow, n_member, w->expert_out, n_embd);
    for (int m = 0; m < n_member; m++)
        d->ctx->kernels->add_scaled_f32(sum + (size_t)w->members[m] * n_embd, w->expert_out + (size_t)m * n_embd,
                                        w->member_weight[m], hp->n_embd);
}

void kvant_experts_apply(const kvant_decoder *d, kvant_workspace *w, const kvant_layer *layer, float *h, int n,
                         kvant_precision precision) {
    const kvant_hparams *hp = &d->hp;
    size_t n_embd = (size_t)hp->n_embd;
    kvant_activations_set(w->wide, h, n, hp->n_embd, precision);
    kvant_linear_apply(d, &layer->router, w->wide, n, w->router, (size_t)hp->n_expert);
    route(hp, w, n);
    float *sum = w->mixture;
    memset(sum, 0, (size_t)n * n_embd * sizeof *sum);
    for (int e = 0; e < hp->n_expert; e++) {
        int n_member = gather_members(hp, w, n, e);
        if (n_member == 0) continue;
        if (n > 1) { /* with one token its row stays set for all its experts */
            for (int m = 0; m < n_member; m++)
                memcpy(w->gathered + (size_t)m * n_embd, h + (size_t)w->members[m] * n_embd, n_embd * sizeof *h);
            kvant_activations_set(w->wide, w->gathered, n_member, hp->n_embd, precision);
        }
        apply_expert(d, w, layer, e, n_member, sum, precision);
    }
    memcpy(h, sum, (size_t)n * n_embd * sizeof *h);
}
