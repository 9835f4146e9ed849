// SPDX-License-Identifier: MIT
/* kv_config.c: the sugar of kv_bits, kv_group_size and kv_codec over one grammar of formats, with mlx-engine's rules.
 *
 * Nothing falls back: what cannot be done is an error that names the nearest thing that can. */
#include <string.h>

#include "base/status.h"
#include "engine/kv_budget.h"
#include "engine/kv_config.h"

#define GROUP_DEFAULT 64

static bool bits_valid(int bits) { return bits >= 2 && bits <= 8 && bits != 7; }

static kvant_status check_bits(const char *field, int bits, bool compat_mlx, kvant_error *err) {
    if (bits == 0 || (bits_valid(bits) && !(compat_mlx && bits == 5))) return KVANT_OK;
    if (compat_mlx)
        return kvant_fail(err, KVANT_EINVAL, "%s: found %d, expected one of 2, 3, 4, 6, 8 (as mlx-engine; without compat also 5)", field, bits);
    return kvant_fail(err, KVANT_EINVAL, "%s: found %d, expected one of 2, 3, 4, 5, 6, 8 (unset or none is f16)", field, bits);
}

static kvant_status refuse_both(const char *a, const char *b, kvant_error *err) {
    return kvant_fail(err, KVANT_EINVAL, "%s and %s were both given; give one of them", a, b);
}

static kvant_status check_fields(const kvant_kv_params *p, kvant_error *err) {
    bool any_bits = p->kv_bits || p->k_bits || p->v_bits;
    KVANT_TRY(check_bits("kv_bits", p->kv_bits, p->compat_mlx, err));
    KVANT_TRY(check_bits("k_bits", p->k_bits, p->compat_mlx, err));
    KVANT_TRY(check_bits("v_bits", p->v_bits, p->compat_mlx, err));
    if (p->kv && any_bits) return refuse_both("kv", "kv_bits (or k_bits, v_bits)", err);
    if (p->kv && p->kv_group_size) return refuse_both("kv", "kv_group_size", err);
    if (p->kv && p->kv_codec) return refuse_both("kv", "kv_codec", err);
    if (p->kv_budget && (p->kv || any_bits || p->kv_group_size || p->kv_codec))
        return refuse_both("kv_budget", p->kv ? "kv" : any_bits ? "kv_bits (or k_bits, v_bits)" : p->kv_codec ? "kv_codec" : "kv_group_size", err);
    if (p->kv_budget_tokens < 0)
        return kvant_fail(err, KVANT_EINVAL, "kv_budget_tokens: found %lld, expected 0 or more", (long long)p->kv_budget_tokens);
    if (p->kv_group_size && !any_bits)
        return kvant_fail(err, KVANT_EINVAL, "kv_group_size: found %d without kv_bits; quantizing the cache requires kv_bits to be set",
                          p->kv_group_size);
    if (p->kv_group_size && p->kv_group_size != 32 && p->kv_group_size != 64 && p->kv_group_size != 128)
        return kvant_fail(err, KVANT_EINVAL, "kv_group_size: found %d, expected one of 32, 64, 128", p->kv_group_size);
    if (p->quantized_kv_start < 0)
        return kvant_fail(err, KVANT_EINVAL, "quantized_kv_start: found %d, expected 0 or more tokens", p->quantized_kv_start);
    if (p->max_kv_size < 0 || (p->max_kv_size > 0 && p->max_kv_size <= KVANT_SINK_TOKENS))
        return kvant_fail(err, KVANT_EINVAL, "max_kv_size: found %d, expected 0 (no window) or more than %d, the first tokens that stay",
                          p->max_kv_size, KVANT_SINK_TOKENS);
    return KVANT_OK;
}

static bool is_float(const kvant_format *f) { return f->codec == KVANT_CODEC_F16 || f->codec == KVANT_CODEC_F32; }

/* The largest group of affine that head_dim allows, so that a default never fails where another group would do. */
static int default_group(int head_dim) { return head_dim % 64 == 0 ? GROUP_DEFAULT : 32; }

/* The format of K or V at some bits, 0: f16. In MLX's order affine has float32 scales, with which it follows MLX's codes exactly,
 * whatever the precision of the model; with half scales they part after some tokens. */
static kvant_format format_at(int bits, bool is_k, bool affine, bool exact, int group, int head_dim) {
    kvant_format f = {KVANT_CODEC_F16, 0, 0, false};
    if (bits && affine) return (kvant_format){exact ? KVANT_CODEC_AFFINE_F32 : KVANT_CODEC_AFFINE, bits, group, false};
    (void)kvant_format_for_bits(bits, head_dim, is_k ? &f : NULL, is_k ? NULL : &f); /* bits were checked */
    return f;
}

static kvant_status resolve_formats(const kvant_kv_params *p, int head_dim, kvant_cache_config *out, kvant_error *err) {
    const char *codec = p->kv_codec;
    int k_bits = p->k_bits ? p->k_bits : p->kv_bits, v_bits = p->v_bits ? p->v_bits : p->kv_bits;
    if (p->kv && strcmp(p->kv, "auto") == 0) {
        KVANT_TRY(kvant_format_parse_pair("lossless", &out->k, &out->v, err));
        if (!head_dim || kvant_format_check(&out->k, head_dim, NULL) == KVANT_OK) return KVANT_OK;
        kvant_log(KVANT_LOG_WARNING, "the cache is f16: head_dim %d is not a multiple of 16, which formats with fewer bits need", head_dim);
        return kvant_format_parse_pair("f16", &out->k, &out->v, err);
    }
    if (p->kv) return kvant_format_parse_pair(p->kv, &out->k, &out->v, err);
    if (codec && (strcmp(codec, "f16") == 0 || strcmp(codec, "f32") == 0)) {
        if (k_bits || v_bits)
            return kvant_fail(err, KVANT_EINVAL, "kv_codec %s has no bits to choose; leave kv_bits out or give kv_codec kvant or affine", codec);
        return kvant_format_parse_pair(codec, &out->k, &out->v, err);
    }
    bool kvant = codec && strcmp(codec, "kvant") == 0, affine = (codec && !kvant) || p->kv_group_size || (p->compat_mlx && !kvant);
    if (codec && !kvant && strcmp(codec, "affine") != 0)
        return kvant_fail(err, KVANT_EINVAL, "kv_codec: found \"%.40s\", expected kvant, affine, f16 or f32", codec);
    if (kvant && p->kv_group_size)
        return kvant_fail(err, KVANT_EINVAL, "kv_group_size: found %d, but kv_codec kvant has no groups; affine has", p->kv_group_size);
    if (codec && !k_bits && !v_bits)
        return kvant_fail(err, KVANT_EINVAL, "kv_codec %s requires kv_bits (2, 3, 4, 5, 6 or 8)", codec);
    int group = p->kv_group_size ? p->kv_group_size : head_dim ? default_group(head_dim) : GROUP_DEFAULT;
    out->k = format_at(k_bits, true, affine, p->compat_mlx, group, head_dim);
    out->v = format_at(v_bits, false, affine, p->compat_mlx, group, head_dim);
    return KVANT_OK;
}

/* The formats are chosen when the model is there; until then it is f16. Who keeps tokens in f16 for a while has no use of it. */
static kvant_status check_budget(const kvant_kv_params *p, kvant_error *err) {
    kvant_budget budget;
    if (!p->kv_budget) KVANT_TRY(kvant_budget_parse(p->kv, &budget, err));
    if (p->compat_mlx) return refuse_both("kv budget", "compat mlx", err);
    return p->quantized_kv_start > 0 ? refuse_both("kv budget", "quantized_kv_start", err) : KVANT_OK;
}

bool kvant_kv_config_has_budget(const kvant_kv_params *p) { return p->kv_budget || kvant_budget_is(p->kv); }

kvant_status kvant_kv_config_resolve(const kvant_kv_params *p, int head_dim, kvant_cache_config *out, kvant_error *err) {
    kvant_cache_config c = *out;
    KVANT_TRY(check_fields(p, err));
    if (kvant_kv_config_has_budget(p)) KVANT_TRY(check_budget(p, err));
    else KVANT_TRY(resolve_formats(p, head_dim, &c, err));
    if (p->kv_center_off) kvant_kv_config_bare(&c.k);
    if (head_dim) {
        KVANT_TRY(kvant_format_check(&c.k, head_dim, err));
        KVANT_TRY(kvant_format_check(&c.v, head_dim, err));
    }
    bool quantizes = c.k.codec != KVANT_CODEC_F16 || c.v.codec != KVANT_CODEC_F16;
    if (p->quantized_kv_start > 0 && !quantizes)
        return kvant_fail(err, KVANT_EINVAL, "quantized_kv_start: found %d, but the cache is f16; quantizing requires kv_bits or kv to be set",
                          p->quantized_kv_start);
    c.quantized_kv_start = p->quantized_kv_start;
    c.quantize_after_step = p->compat_mlx;
    c.max_kv_size = p->max_kv_size;
    if (p->compat_mlx && !(is_float(&c.k) && is_float(&c.v)) && p->max_kv_size > 0) {
        kvant_log(KVANT_LOG_WARNING, "max_kv_size %d is ignored while kv_bits is set, as mlx-engine does (compat mlx)", p->max_kv_size);
        c.max_kv_size = 0;
    }
    *out = c;
    return KVANT_OK;
}

void kvant_kv_config_own_cache(const kvant_kv_params *p, const char *architecture, kvant_cache_config *c) {
    if (!p->compat_mlx || c->max_kv_size == 0) return;
    kvant_log(KVANT_LOG_WARNING, "max_kv_size %d is ignored: mlx-lm makes the cache of %s models itself, without such a window (compat mlx)",
              c->max_kv_size, architecture);
    c->max_kv_size = 0;
}

void kvant_kv_config_bare(kvant_format *k) {
    if (k->codec == KVANT_CODEC_ZONE) k->codec = KVANT_CODEC_BOOK; /* the order of a key's elements is that of centred keys */
    k->bare = k->bare || kvant_format_is_centred(k);
}

bool kvant_kv_config_centres(const kvant_cache_config *c) {
    for (int i = 0; c->layer_k && i < c->n_layer; i++)
        if (kvant_format_is_centred(&c->layer_k[i])) return true;
    return c->center_floats || (!c->layer_k && kvant_format_is_centred(&c->k));
}
