// SPDX-License-Identifier: MIT
/* kv_list.c: several cache formats on one command line.
 *
 * The flags are those of a single run with commas in their values; what they mean together is decided here and nowhere else:
 * either names (--kv, or -ctk and -ctv) or bits. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kv_list.h"

#define BUDGET "budget:"

/* Copies the piece of a list up to the next comma; *at moves behind it, to NULL at the end. false: the piece does not fit. */
static bool next_piece(const char **at, char *out, size_t size) {
    const char *comma = strchr(*at, ',');
    size_t n = comma ? (size_t)(comma - *at) : strlen(*at);
    bool fits = n < size;
    if (fits) {
        memcpy(out, *at, n);
        out[n] = '\0';
    }
    *at = comma ? comma + 1 : NULL;
    return fits;
}

/* "small", not "f16" or "bc4/f16": the name of a format, or of one of a pair, has digits. */
static bool is_preset_name(const char *name) { return strpbrk(name, "0123456789/") == NULL; }

static void write_name(kv_item *item) {
    if (item->is_preset || item->is_budget) return;
    char k[KVANT_FORMAT_NAME_MAX], v[KVANT_FORMAT_NAME_MAX];
    kvant_format_name(&item->k, k);
    kvant_format_name(&item->v, v);
    if (kvant_format_equal(&item->k, &item->v))
        snprintf(item->name, sizeof item->name, "%s", k);
    else
        snprintf(item->name, sizeof item->name, "%s/%s", k, v);
}

/* Formats by layer: the item is what they may take. Bytes mean nothing where sessions of several lengths are compared. */
static int take_budget(kv_item *item, const char *name) {
    kvant_error err = {0};
    const char *text = name + sizeof BUDGET - 1;
    char *end = NULL;
    item->is_budget = true;
    item->k = item->v = (kvant_format){KVANT_CODEC_F16, 0, 0, false};
    snprintf(item->name, sizeof item->name, "%s", name);
    if (text[0] >= '0' && text[0] <= '9') {
        item->budget_bits = strtod(text, &end);
        if (*end || item->budget_bits < 1 || item->budget_bits > 16)
            return fail_with(2, "%.60s: expected 1 to 16 bits a value, or a format, as budget:4.3 or budget:bc4", name);
        return 0;
    }
    return kvant_format_parse_pair(text, &item->k, &item->v, &err) == KVANT_OK ? 0 : fail_with(2, "%s", err.message);
}

static int add_name(kv_list *list, const char *name) {
    kvant_error err = {0};
    kv_item item = {.is_preset = is_preset_name(name)};
    if (strncmp(name, BUDGET, sizeof BUDGET - 1) == 0) {
        item.is_preset = false;
        int code = take_budget(&item, name);
        if (code) return code;
    } else if (kvant_format_parse_pair(name, &item.k, &item.v, &err) != KVANT_OK) {
        return fail_with(2, "%s", err.message);
    }
    if (item.is_preset) snprintf(item.name, sizeof item.name, "%s", name);
    write_name(&item);
    for (int i = 0; i < list->n; i++) {
        if (strcmp(list->items[i].name, item.name) == 0) return 0;
    }
    if (list->n == KV_LIST_MAX) return fail_with(2, "more than %d cache formats at once", KV_LIST_MAX);
    list->items[list->n++] = item;
    return 0;
}

static int add_names(kv_list *list, const char *names) {
    char piece[128];
    for (const char *at = names; at;) {
        if (!next_piece(&at, piece, sizeof piece))
            return fail_with(2, "--kv %.40s...: a format's name is shorter than that", names);
        int code = add_name(list, piece);
        if (code) return code;
    }
    return 0;
}

/* The names of the formats of K and V at some bits: affine where a group or MLX's rules were asked for, else Kvant's best. */
static void name_bits(char *name, size_t size, int k_bits, int v_bits, int group, bool affine) {
    kvant_format k = {KVANT_CODEC_F16, 0, 0, false}, v = k;
    const kvant_format affine_k = {KVANT_CODEC_AFFINE, k_bits, group, false}, affine_v = {KVANT_CODEC_AFFINE, v_bits, group, false};
    char k_name[KVANT_FORMAT_NAME_MAX], v_name[KVANT_FORMAT_NAME_MAX];
    if (k_bits && (affine || kvant_format_for_bits(k_bits, 0, &k, NULL) != KVANT_OK)) k = affine_k;
    if (v_bits && (affine || kvant_format_for_bits(v_bits, 0, NULL, &v) != KVANT_OK)) v = affine_v;
    kvant_format_name(&k, k_name);
    kvant_format_name(&v, v_name);
    snprintf(name, size, "%.31s/%.31s", k_name, v_name);
}

static int add_bits(kv_list *list, const char *bits, int group, bool affine) {
    char piece[32], name[KV_NAME_MAX];
    for (const char *at = bits; at;) {
        char *end = piece;
        bool fits = next_piece(&at, piece, sizeof piece);
        if (fits && strcmp(piece, "none") == 0) {
            snprintf(name, sizeof name, "f16");
        } else {
            long b = fits ? strtol(piece, &end, 10) : 0;
            if (!fits || end == piece || *end || b < 2 || b > 8 || b == 7)
                return fail_with(2, "--kv-bits %s: each must be none, 2, 3, 4, 5, 6 or 8", bits);
            name_bits(name, sizeof name, (int)b, (int)b, group, affine);
        }
        int code = add_name(list, name);
        if (code) return code;
    }
    return 0;
}

/* K and V apart: --k-bits and --v-bits, the missing one from --kv-bits. */
static int add_split_bits(kv_list *list, const kvant_kv_params *kv, const char *kv_bits, int group, bool affine) {
    int both = kv_bits ? atoi(kv_bits) : 0, bits[2] = {kv->k_bits ? kv->k_bits : both, kv->v_bits ? kv->v_bits : both};
    char pair[KV_NAME_MAX];
    if (kv_bits && strchr(kv_bits, ',')) return fail_with(2, "--k-bits and --v-bits do not go with a list of --kv-bits");
    name_bits(pair, sizeof pair, bits[0], bits[1], group, affine);
    return add_name(list, pair);
}

/* The formats of the list from what was typed; joined: -ctk and -ctv. */
static int fill_list(kv_list *list, const kvant_kv_params *typed, const char *kv_bits, const char *joined,
                     const char *otherwise) {
    bool by_bits = kv_bits || typed->k_bits || typed->v_bits;
    int group = typed->kv_group_size ? typed->kv_group_size : 64;
    bool kvant = typed->kv_codec && strcmp(typed->kv_codec, "kvant") == 0;
    bool affine = typed->kv_group_size || (typed->compat_mlx && !kvant) || (typed->kv_codec && strcmp(typed->kv_codec, "affine") == 0);
    if ((typed->kv != NULL) + (joined != NULL) + by_bits > 1)
        return fail_with(2, "cache formats are given either by name (--kv, or -ctk and -ctv) or by bits, not both");
    if (typed->kv_group_size && !by_bits) return fail_with(2, "--kv-group-size %d without --kv-bits", group);
    if (typed->kv_codec && !kvant && strcmp(typed->kv_codec, "affine") != 0) {
        if (by_bits) return fail_with(2, "--kv-codec %s has no bits to choose; kvant and affine have", typed->kv_codec);
        if (!typed->kv && !joined) return add_names(list, typed->kv_codec);
    }
    if (typed->kv) return add_names(list, typed->kv);
    if (joined) return add_names(list, joined);
    list->default_group = typed->kv_group_size == 0;
    if (typed->k_bits || typed->v_bits) return add_split_bits(list, typed, kv_bits, group, affine);
    if (kv_bits) return add_bits(list, kv_bits, group, affine);
    return add_names(list, otherwise);
}

int kv_list_take(kv_list *list, model_options *m, const char *otherwise) {
    kvant_kv_params typed = m->load.kv;
    const char *kv_bits = m->kv_bits;
    if (m->kv_budget) return fail_with(2, "--kv-budget is for one cache; among formats that are compared it is --kv budget:4.3, in bits a value");
    *list = (kv_list){.typed = typed.kv || kv_bits || typed.k_bits || typed.v_bits || typed.kv_codec || m->ctk || m->ctv};
    m->kv_bits = NULL;
    m->load.kv.kv = m->load.kv.kv_codec = NULL;
    m->load.kv.kv_bits = m->load.kv.k_bits = m->load.kv.v_bits = m->load.kv.kv_group_size = 0;
    int code = options_finish_model(m);
    const char *joined = m->load.kv.kv;
    m->load.kv.kv = NULL;
    if (!code) code = fill_list(list, &typed, kv_bits, joined, otherwise);
    if (code || !(typed.quantized_kv_start > 0 || m->load.kv.compat_mlx)) return code;
    for (int i = 0; i < list->n && !m->load.kv.kv; i++) {
        const kv_item *item = &list->items[i];
        if (item->k.codec != KVANT_CODEC_F16 || item->v.codec != KVANT_CODEC_F16) m->load.kv.kv = item->name;
    }
    return 0;
}

int kv_list_check(kv_list *list, int head_dim) {
    kvant_error err = {0};
    for (int i = 0; i < list->n; i++) {
        kv_item *item = &list->items[i];
        if (list->default_group && head_dim < 64 && item->k.codec == KVANT_CODEC_ZONE) item->k.codec = KVANT_CODEC_BOOK;
        if (list->default_group && head_dim % 64 != 0) {
            if (item->k.codec == KVANT_CODEC_AFFINE) item->k.group = 32;
            if (item->v.codec == KVANT_CODEC_AFFINE) item->v.group = 32;
            write_name(item);
        }
        if (kvant_format_check(&item->k, head_dim, &err) != KVANT_OK || kvant_format_check(&item->v, head_dim, &err) != KVANT_OK)
            return fail_with(2, "%s", err.message);
    }
    return 0;
}

int kv_list_calibrate(const kv_list *list, const kvant_load_params *load, kvant_model *m) {
    kvant_error err = {0};
    bool needed = false;
    for (int i = 0; i < list->n; i++)
        needed = needed || kvant_format_is_centred(&list->items[i].k);
    if (!needed || load->kv.kv_center_off || kvant_model_need_calibration(m, &err) == KVANT_OK) return 0;
    return fail_with(1, "%s", err.message);
}

double kv_item_bits(const kv_item *item, int head_dim) {
    if (item->budget_bits > 0) return item->budget_bits;
    return (kvant_format_bits(&item->k, head_dim) + kvant_format_bits(&item->v, head_dim)) / 2;
}

int parse_numbers(const char *flag, const char *text, int64_t min, int64_t max, int64_t *out, int max_n) {
    char piece[32];
    int n = 0;
    for (const char *at = text; at;) {
        char *end = piece;
        bool fits = next_piece(&at, piece, sizeof piece);
        errno = 0;
        long long value = fits ? strtoll(piece, &end, 10) : 0;
        if (!fits || end == piece || *end || errno || value < min || value > max) {
            fail_with(2, "%s %.100s: each must be a number from %" PRId64 " to %" PRId64, flag, text, min, max);
            return -1;
        }
        if (n == max_n) {
            fail_with(2, "%s: more than %d numbers", flag, max_n);
            return -1;
        }
        out[n++] = value;
    }
    return n;
}
