// SPDX-License-Identifier: MIT
/* format.c: the grammar of format names: a codec, its bits and its group ("f16", "affine4:64"), or a pair "K/V". */
#include <stdio.h>
#include <string.h>

#include "codec/codec.h"

#define KNOWN "f16, f32, and affineB:G with B of 2, 3, 4, 5, 6, 8 and G of 32, 64, 128 (affine4 is affine4:64)"

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
    kvant_format f = {KVANT_CODEC_AFFINE, parse_number(&name), 64};
    if (*name == ':') {
        name++;
        f.group = parse_number(&name);
    }
    bool bits_ok = f.bits >= 2 && f.bits <= 8 && f.bits != 7;
    if (*name != '\0' || !bits_ok || (f.group != 32 && f.group != 64 && f.group != 128)) return false;
    *out = f;
    return true;
}

kvant_status kvant_format_parse(const char *name, kvant_format *out, kvant_error *err) {
    if (strcmp(name, "f16") == 0)
        *out = (kvant_format){KVANT_CODEC_F16, 0, 0};
    else if (strcmp(name, "f32") == 0)
        *out = (kvant_format){KVANT_CODEC_F32, 0, 0};
    else if (!parse_affine(name, out))
        return kvant_fail(err, KVANT_EINVAL, "format: found \"%.40s\", expected one of " KNOWN, name);
    return KVANT_OK;
}

kvant_status kvant_format_parse_pair(const char *name, kvant_format *k, kvant_format *v, kvant_error *err) {
    const char *slash = strchr(name, '/');
    if (!slash) {
        kvant_format both;
        KVANT_TRY(kvant_format_parse(name, &both, err));
        *k = *v = both;
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
    *k = fk;
    *v = fv;
    return KVANT_OK;
}

void kvant_format_name(const kvant_format *f, char out[KVANT_FORMAT_NAME_MAX]) {
    const kvant_codec *codec = kvant_codec_find(f->codec);
    if (f->codec == KVANT_CODEC_AFFINE)
        snprintf(out, KVANT_FORMAT_NAME_MAX, "affine%d:%d", f->bits, f->group);
    else
        snprintf(out, KVANT_FORMAT_NAME_MAX, "%s", codec ? codec->name : "unknown");
}

kvant_status kvant_format_check(const kvant_format *f, int head_dim, kvant_error *err) {
    const kvant_codec *codec = kvant_codec_find(f->codec);
    if (!codec) return kvant_fail(err, KVANT_EINVAL, "format: codec %d is not one of " KNOWN, (int)f->codec);
    if (f->codec == KVANT_CODEC_AFFINE) {
        char name[KVANT_FORMAT_NAME_MAX];
        kvant_format again;
        kvant_format_name(f, name);
        KVANT_TRY(kvant_format_parse(name, &again, err));
    }
    return codec->check(f, head_dim, err);
}

double kvant_format_bits(const kvant_format *f, int head_dim) {
    const kvant_codec *codec = kvant_codec_find(f->codec);
    if (!codec || kvant_format_check(f, head_dim, NULL) != KVANT_OK) return 0;
    size_t bytes = codec->part_bytes(f, KVANT_SIDE_K, head_dim) + codec->part_bytes(f, KVANT_SIDE_V, head_dim);
    return 8.0 * (double)bytes / (2.0 * KVANT_PAGE_TOKENS * head_dim);
}
