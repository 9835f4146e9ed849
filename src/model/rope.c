// SPDX-License-Identifier: MIT
/* rope.c: rotary positions with linear, YaRN, Llama-3 and LongRoPE scaling.
 *
 * All scalings are linear in the position, so each reduces to one frequency per pair, fixed when the model is loaded, and one
 * magnitude. Angles are computed in float64: position * frequency in float32 loses bits at long contexts.
 * YaRN: https://arxiv.org/abs/2309.00071, with the ramp over pair indices that GGUF files assume. */
#include "model/rope.h"

#include <math.h>

#include "base/memory.h"

static const double two_pi = 6.283185307179586;

/* The (fractional) pair index whose wave turns n_turns times within the original context. */
static double corner(const kvant_rope_params *p, double n_turns) {
    return p->n_rot * log(p->n_ctx_orig / (n_turns * two_pi)) / (2.0 * log(p->base));
}

kvant_status kvant_rope_create(const kvant_rope_params *p, kvant_rope *out) {
    int half = p->n_rot / 2;
    double *frequency = kvant_alloc(half > 0 ? (size_t)half : 1, sizeof *frequency);
    if (!frequency) return KVANT_ENOMEM;
    double low = 0, high = 0;
    if (p->yarn_mix != 0.0) {
        low = fmax(0.0, floor(corner(p, p->beta_fast)));
        high = fmin(p->n_rot - 1.0, ceil(corner(p, p->beta_slow)));
    }
    for (int i = 0; i < half; i++) {
        double plain = pow(p->base, -2.0 * i / p->n_rot);
        if (p->factors) plain /= (double)p->factors[i];
        double scaled = plain * p->freq_scale;
        if (p->yarn_mix != 0.0) {
            double ramp = (i - low) / fmax(0.001, high - low);
            double mix = (1.0 - fmin(1.0, fmax(0.0, ramp))) * p->yarn_mix;
            scaled = scaled * (1.0 - mix) + plain * mix;
        }
        frequency[i] = scaled;
    }
    double magnitude = p->attn_factor;
    if (p->yarn_mix != 0.0) magnitude *= 1.0 + 0.1 * log(1.0 / p->freq_scale);
    *out = (kvant_rope){.n_rot = p->n_rot, .pairs = p->pairs, .frequency = frequency, .magnitude = (float)magnitude};
    return KVANT_OK;
}

void kvant_rope_destroy(kvant_rope *r) {
    kvant_free(r->frequency);
    r->frequency = NULL;
}

void kvant_rope_angles(const kvant_rope *r, int64_t position, float *cosine, float *sine) {
    for (int i = 0; i < r->n_rot / 2; i++) {
        double angle = (double)position * r->frequency[i];
        cosine[i] = (float)cos(angle) * r->magnitude;
        sine[i] = (float)sin(angle) * r->magnitude;
    }
}

void kvant_rope_apply(const kvant_rope *r, const float *cosine, const float *sine, int n_head, int head_dim, float *x) {
    int half = r->n_rot / 2;
    for (int h = 0; h < n_head; h++, x += head_dim) {
        if (r->pairs == KVANT_ROPE_INTERLEAVED) {
            for (int i = 0; i < half; i++) {
                float a = x[2 * i], b = x[2 * i + 1];
                x[2 * i] = a * cosine[i] - b * sine[i];
                x[2 * i + 1] = a * sine[i] + b * cosine[i];
            }
        } else {
            for (int i = 0; i < half; i++) {
                float a = x[i], b = x[half + i];
                x[i] = a * cosine[i] - b * sine[i];
                x[half + i] = a * sine[i] + b * cosine[i];
            }
        }
    }
}
