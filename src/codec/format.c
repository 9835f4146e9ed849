// SPDX-License-Identifier: MIT
/* format.c: the grammar of format names: a codec, its bits and its group ("f16", "affine4:64"), or a pair "K/V". */
#include <stdio.h>
#include <string.h>

#include "codec/codec.h"

#define KNOWN                                                                                                                   \
    "lossless, balanced, small, tiny; bc2, bc3, bc4, bc5, bc3:16, bc4:16, bc5:16, bz2, bz3, bz4, i6, i8; f16, f32; affineB:G "     \
    "with B of 2, 3, 4, 5, 6, 8 and G of 32, 64, 128 (affine4 is affine4:64; affine4:64.f32 has float32 scales); "                 \
    "q8_0, q5_1, q5_0, q4_1, q4_0; lm2, lm3, lm4; keys not centred with .bare (q4_0.bare)"

/* The number at *text, or -1 when there is none or it is longer than three digits. */
static int parse_number(const char **text) {
    int n = 0, digits = 0;
    while (**text >= '0' && **text <= '9' && digits < 4) {
        n = 10 * n + (**text - '0');
        (*text)++;
        digits++;
    }
    return digits == 0 || digits > 3 ? -1 : n;
}

static bool parse_affine(const char *name, kvant_format *out) {
    static const char prefix[] = "affine";
    if (strncmp(name, prefix, sizeof prefix - 1) != 0) return false;
    name += sizeof prefix - 1;
    kvant_format f = {KVANT_CODEC_AFFINE, parse_number(&name), 64, false};
    if (*name == ':') {
        name++;
        f.group = parse_number(&name);
    }
    if (strcmp(name, ".f32") == 0) {
        f.codec = KVANT_CODEC_AFFINE_F32;
        name += 4;
    }
    bool bits_ok = f.bits >= 2 && f.bits <= 8 && f.bits != 7;
    if (*name != '\0' || !bits_ok || (f.group != 32 && f.group != 64 && f.group != 128)) return false;
    *out = f;
    return true;
}

/* The formats whose name is fixed. */
static const struct {
    const char *name;
    kvant_format format;
} fixed[] = {{"f16", {KVANT_CODEC_F16, 0, 0, false}},      {"f32", {KVANT_CODEC_F32, 0, 0, false}},
             {"bc2", {KVANT_CODEC_BOOK, 2, 0, false}},     {"bc3", {KVANT_CODEC_BOOK, 3, 0, false}},
             {"bc4", {KVANT_CODEC_BOOK, 4, 0, false}},     {"bc5", {KVANT_CODEC_BOOK, 5, 0, false}},
             {"bc3:16", {KVANT_CODEC_BOOK, 3, 16, false}}, {"bc4:16", {KVANT_CODEC_BOOK, 4, 16, false}},
             {"bc5:16", {KVANT_CODEC_BOOK, 5, 16, false}}, {"bz2", {KVANT_CODEC_ZONE, 2, 0, false}},
             {"bz3", {KVANT_CODEC_ZONE, 3, 0, false}},     {"bz4", {KVANT_CODEC_ZONE, 4, 0, false}},
             {"i6", {KVANT_CODEC_INT, 6, 0, false}},       {"i8", {KVANT_CODEC_INT, 8, 0, false}},
             {"lm2", {KVANT_CODEC_LLOYD, 2, 0, false}},    {"lm3", {KVANT_CODEC_LLOYD, 3, 0, false}},
             {"lm4", {KVANT_CODEC_LLOYD, 4, 0, false}},    {"q8_0", {KVANT_CODEC_GGML, 8, 0, false}},
             {"q5_1", {KVANT_CODEC_GGML, 5, 1, false}},    {"q5_0", {KVANT_CODEC_GGML, 5, 0, false}},
             {"q4_1", {KVANT_CODEC_GGML, 4, 1, false}},    {"q4_0", {KVANT_CODEC_GGML, 4, 0, false}}};
#define N_FIXED (sizeof fixed / sizeof fixed[0])

static bool parse_fixed(const char *name, kvant_format *out) {
    size_t n = strcspn(name, ".");
    bool bare = strcmp(name + n, ".bare") == 0;
    if (name[n] != '\0' && !bare) return false;
    for (size_t i = 0; i < N_FIXED; i++) {
        if (strlen(fixed[i].name) != n || memcmp(fixed[i].name, name, n) != 0) continue;
        *out = fixed[i].format;
        if (bare && (!kvant_format_is_centred(out) || out->codec == KVANT_CODEC_ZONE)) return false;
        out->bare = bare;
        return true;
    }
    return false;
}

kvant_status kvant_format_parse(const char *name, kvant_format *out, kvant_error *err) {
    if (parse_fixed(name, out) || parse_affine(name, out)) return KVANT_OK;
    return kvant_fail(err, KVANT_EINVAL, "format: found \"%.40s\", expected one of " KNOWN, name);
}

static const kvant_preset presets[KVANT_PRESETS] = {
    {"lossless", "i8/i8"}, {"balanced", "bc5/bc4:16"}, {"small", "bz4/bc4"}, {"tiny", "bz3/bc3:16"}};

const kvant_preset *kvant_preset_at(int index) { return index >= 0 && index < KVANT_PRESETS ? &presets[index] : NULL; }

kvant_status kvant_format_for_bits(int bits, int head_dim, kvant_format *k, kvant_format *v) {
    if (bits < 2 || bits > 8 || bits == 7) return KVANT_EINVAL;
    kvant_format f = {bits > 5 ? KVANT_CODEC_INT : KVANT_CODEC_BOOK, bits, 0, false};
    bool zones = bits <= 4 && (head_dim == 0 || head_dim >= 64);
    if (v) *v = f;
    if (k) *k = f;
    if (k && zones) k->codec = KVANT_CODEC_ZONE;
    return KVANT_OK;
}

kvant_status kvant_format_parse_pair(const char *name, kvant_format *k, kvant_format *v, kvant_error *err) {
    for (int i = 0; i < KVANT_PRESETS; i++)
        if (strcmp(name, presets[i].name) == 0) name = presets[i].pair;
    const char *slash = strchr(name, '/');
    if (!slash) {
        kvant_format both;
        KVANT_TRY(kvant_format_parse(name, &both, err));
        *k = *v = both;
        v->bare = false;
        if (v->codec == KVANT_CODEC_ZONE) v->codec = KVANT_CODEC_BOOK; /* zones are for K */
        return KVANT_OK;
    }
    char first[KVANT_FORMAT_NAME_MAX];
    size_t n = (size_t)(slash - name);
    if (n >= sizeof first) return kvant_fail(err, KVANT_EINVAL, "format: found \"%.40s\", expected one of " KNOWN, name);
    memcpy(first, name, n);
    first[n] = '\0';
    kvant_format fk, fv;
    KVANT_TRY(kvant_format_parse(first, &fk, err));
    KVANT_TRY(kvant_format_parse(slash + 1, &fv, err));
    if (fv.codec == KVANT_CODEC_ZONE)
        return kvant_fail(err, KVANT_EINVAL, "format: found \"%.40s\", but zones are for K; the nearest format of V is bc%d",
                          name, fv.bits);
    if (fv.bare)
        return kvant_fail(err, KVANT_EINVAL, "format: found \"%.40s\", but only K can be .bare; V is never centred", name);
    *k = fk;
    *v = fv;
    return KVANT_OK;
}

static bool is_fixed(const kvant_format *f, size_t i) {
    return fixed[i].format.codec == f->codec && fixed[i].format.bits == f->bits && fixed[i].format.group == f->group;
}

void kvant_format_name(const kvant_format *f, char out[KVANT_FORMAT_NAME_MAX]) {
    snprintf(out, KVANT_FORMAT_NAME_MAX, "unknown");
    if (kvant_format_is_affine(f))
        snprintf(out, KVANT_FORMAT_NAME_MAX, "affine%d:%d%s", f->bits, f->group, f->codec == KVANT_CODEC_AFFINE_F32 ? ".f32" : "");
    for (size_t i = 0; i < N_FIXED; i++)
        if (is_fixed(f, i)) snprintf(out, KVANT_FORMAT_NAME_MAX, "%s%s", fixed[i].name, f->bare ? ".bare" : "");
}

bool kvant_format_equal(const kvant_format *a, const kvant_format *b) {
    return a->codec == b->codec && a->bits == b->bits && a->group == b->group && a->bare == b->bare;
}

kvant_status kvant_format_check(const kvant_format *f, int head_dim, kvant_error *err) {
    const kvant_codec *codec = kvant_codec_find(f->codec);
    char name[KVANT_FORMAT_NAME_MAX];
    kvant_format again;
    if (!codec) return kvant_fail(err, KVANT_EINVAL, "format: codec %d is not one of " KNOWN, (int)f->codec);
    kvant_format_name(f, name);
    KVANT_TRY(kvant_format_parse(name, &again, err));
    return codec->check(f, head_dim, err);
}

double kvant_format_bits(const kvant_format *f, int head_dim) {
    const kvant_codec *codec = kvant_codec_find(f->codec);
    if (!codec || kvant_format_check(f, head_dim, NULL) != KVANT_OK) return 0;
    size_t bytes = codec->part_bytes(f, KVANT_SIDE_K, head_dim) + codec->part_bytes(f, KVANT_SIDE_V, head_dim);
    return 8.0 * (double)bytes / (2.0 * KVANT_PAGE_TOKENS * head_dim);
}
