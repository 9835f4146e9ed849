// SPDX-License-Identifier: MIT
/* codec_list.c: the list of codecs, and the scratch they share. */
#include "base/memory.h"
#include "codec/codec.h"

static const kvant_codec *const codecs[] = {&kvant_codec_f32, &kvant_codec_f16,   &kvant_codec_affine, &kvant_codec_book,
                                            &kvant_codec_int, &kvant_codec_lloyd, &kvant_codec_ggml,   &kvant_codec_zone,
                                            &kvant_codec_affine_f32};

const kvant_codec *kvant_codec_find(kvant_codec_id id) {
    for (size_t i = 0; i < sizeof codecs / sizeof codecs[0]; i++)
        if (codecs[i]->id == id) return codecs[i];
    return NULL;
}

bool kvant_format_is_own(const kvant_format *f) {
    return f->codec == KVANT_CODEC_BOOK || f->codec == KVANT_CODEC_ZONE || f->codec == KVANT_CODEC_INT;
}

bool kvant_format_is_affine(const kvant_format *f) { return f->codec == KVANT_CODEC_AFFINE || f->codec == KVANT_CODEC_AFFINE_F32; }

bool kvant_format_is_centred(const kvant_format *f) {
    return f->codec != KVANT_CODEC_F16 && f->codec != KVANT_CODEC_F32 && !kvant_format_is_affine(f) && !f->bare;
}

kvant_rotation kvant_rotation_none(const kvant_format *f, kvant_side side, int head_dim) {
    (void)f;
    (void)side;
    (void)head_dim;
    return (kvant_rotation){0};
}

kvant_part kvant_part_make(const kvant_format *f, kvant_side side, int head_dim) {
    const kvant_codec *codec = kvant_codec_find(f->codec);
    size_t bytes = codec->part_bytes(f, side, head_dim);
    return (kvant_part){codec, *f, side, head_dim, (bytes + 63) / 64 * 64};
}

kvant_status kvant_codec_scratch_create(int head_dim, kvant_codec_scratch *out) {
    size_t d = ((size_t)head_dim + 31) / 32 * 32, tokens = KVANT_PAGE_TOKENS, n = KVANT_QUERY_MAX;
    size_t longest = d > tokens ? d : tokens;
    size_t sizes[] = {tokens * d, longest * 16 * 4, tokens * d / 32 * 4, tokens * d / 32 * 4, n * tokens * 4,
                      n * tokens, n * 2 * 4,        n * 4 * 2,           n * tokens * 2,      n * 4};
    size_t at[sizeof sizes / sizeof sizes[0]], total = 0;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        at[i] = total;
        total += (sizes[i] + 63) / 64 * 64;
    }
    uint8_t *p = kvant_alloc_aligned(total, 1);
    if (!p) return KVANT_ENOMEM;
    *out = (kvant_codec_scratch){.tile = p + at[0],
                                 .tile_f32 = (float *)(void *)(p + at[1]),
                                 .scale = (float *)(void *)(p + at[2]),
                                 .bias = (float *)(void *)(p + at[3]),
                                 .w = (float *)(void *)(p + at[4]),
                                 .wq = (int8_t *)(p + at[5]),
                                 .wq_scale = (float *)(void *)(p + at[6]),
                                 .wq_sum = (int16_t *)(void *)(p + at[7]),
                                 .w16 = (int16_t *)(void *)(p + at[8]),
                                 .w16_scale = (float *)(void *)(p + at[9]),
                                 .memory = p};
    return KVANT_OK;
}

void kvant_codec_scratch_destroy(kvant_codec_scratch *s) {
    kvant_free_aligned(s->memory);
    *s = (kvant_codec_scratch){0};
}

/* In a file apart from its callers: GCC 12 takes a function that only prefetches for one without effects and drops the call. */
void kvant_fetch_next(const kvant_codec_scratch *s) {
#if defined(__GNUC__)
    for (size_t i = 0; i < s->next_bytes; i += 64)
        __builtin_prefetch(s->next + i);
#else
    (void)s;
#endif
}
