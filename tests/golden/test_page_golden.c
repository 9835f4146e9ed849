// SPDX-License-Identifier: MIT
/* test_page_golden.c: pages hold the bytes of docs/FORMAT.md and stand for the vectors that tests/golden/pages/pages.bin says, at
 * every instruction level; a sequence stores the same.
 *
 * The golden file is read by scripts/decode_page.py too, which shares nothing with src/: that it decodes every page proves the
 * description complete. The file was made by this program, `test_page_golden --write FILE` (scripts/make_page_golden.sh), so what
 * it holds here against is time: a layout that changes unseen. Little-endian:
 *
 *   "KVPAGES1"
 *   u32 n_set, then of each:    u32 bits, n_book, block; f32 units; i8 levels[n_book << bits]
 *   u32 n_model, then of each:  u32 head_dim, n_kv_head, n_rot, interleaved; f32 magnitude; f64 frequency[n_rot/2];
 *                               u32 size of its calibration, and its bytes (docs/FORMAT.md);
 *                               u32 n_token, position[n_token]; f32 k, v [n_token][n_kv_head][head_dim], k after RoPE
 *   u32 n_record, then of each: char name[32] ("K/V"); u32 model, page, originals (0 or 1), bytes of the page, bytes as packed
 *     the page, its 64 bytes of header as zeros, packed: (u8 zeros, u8 n, u8 bytes[n]) until it is full. It holds the model's
 *     tokens that lie in this page; what follows is of these, in their order:
 *     u64 FNV-1a of the float32 of what is stored of k, and of v, for every token and KV head
 *     model 0: f32 what is stored of k [head_dim], of the first token and KV head
 *     originals: f32 k, v [head_dim], turned back to what they were, for every token and KV head */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/half.h"
#include "cache/page.h"
#include "codec/codebooks.h"
#include "kernel/kernel_table.h"

#define GOLDEN KVANT_SOURCE "/tests/golden/pages/pages.bin"
#define SEED 8128u
#define FILE_MAX (1u << 18)
#define NAME 32
#define MODELS 3
#define TOKENS_MAX 4
#define HEADS_MAX 2
#define DIM_MAX 128
#define CHUNK 256 /* tokens of an append */

/* The models that the file is made of: the ways of RoPE, and vectors that only the Hartley step can rotate. */
static const struct {
    int head_dim, n_kv_head, n_rot;
    bool interleaved;
    float magnitude;
    uint32_t position[TOKENS_MAX];
    int n_token;
} designs[MODELS] = {{64, 2, 64, false, 1.0f, {2, 61, 1137}, 3},
                     {96, 1, 64, true, 1.25f, {2, 61, 1137}, 3},
                     {128, 1, 128, false, 1.0f, {2, 61, 5000}, 3}};

/* The pairs, and for which models ("K/V" of both names; a digit for each model). */
static const struct {
    const char *name, *models;
    bool first_page, originals;
} pairs[] = {{"bc4/bc4", "012", true, true},
             {"bz3/bc3", "1", true, true},
             {"affine4:32/bc4", "0", true, false},
             {"lm4/affine4:32", "0", true, false},
             {"bc2/bc2", "012", false, false},
             {"bc3/bc3", "012", false, false},
             {"bc4/bc4", "012", false, false},
             {"bc5/bc5", "012", false, false},
             {"bz3/bc3", "012", false, false},
             {"bz4/bc4", "012", false, false},
             {"bz2/bc2", "012", false, false},
             {"bc3:16/bc3:16", "012", false, false},
             {"bc4:16/bc4:16", "012", false, false},
             {"bc5:16/bc5:16", "012", false, false},
             {"i6/i6", "012", false, false},
             {"i8/i8", "012", false, false},
             {"lm2/lm2", "012", false, false},
             {"lm3/lm3", "012", false, false},
             {"lm4/lm4", "012", false, false},
             {"q8_0/q8_0", "012", false, false},
             {"q5_1/q5_1", "012", false, false},
             {"q5_0/q5_0", "012", false, false},
             {"q4_1/q4_1", "012", false, false},
             {"q4_0/q4_0", "012", false, false},
             {"bc4.bare/i8", "0", false, false},
             {"q4_0.bare/q4_0", "0", false, false},
             {"affine2:32/affine2:32", "0", false, false},
             {"affine3:32/affine3:32", "1", false, false},
             {"affine4:64/affine4:64", "02", false, false},
             {"affine4:32/affine4:32", "1", false, false},
             {"affine5:64/affine5:64", "2", false, false},
             {"affine6:32/affine6:32", "1", false, false},
             {"affine8:128/affine8:128", "2", false, false},
             {"affine8:32/affine8:32", "0", false, false},
             {"f16/f16", "01", false, false},
             {"f32/f32", "0", false, false}};

typedef struct model {
    int n_token;
    uint32_t position[TOKENS_MAX];
    kvant_calibration_config config;
    kvant_rope_config rope;
    double frequency[DIM_MAX / 2];
    kvant_calibration *calibration;
    float k[TOKENS_MAX][HEADS_MAX][DIM_MAX], v[TOKENS_MAX][HEADS_MAX][DIM_MAX]; /* the rows are [head_dim] */
} model;

static model models[MODELS];

/* ---- bytes ---- */

/* Written, or read: `size` is the room, or what there is. */
typedef struct buffer {
    uint8_t *data;
    size_t at, size;
} buffer;

static uint8_t *take(buffer *b, size_t n) {
    assert_true(n <= b->size - b->at);
    b->at += n;
    return b->data + b->at - n;
}

static void put_u32(buffer *b, uint32_t v) { kvant_write_u32(take(b, 4), v); }

static void put_u64(buffer *b, uint64_t v) {
    put_u32(b, (uint32_t)v);
    put_u32(b, (uint32_t)(v >> 32));
}

static void put_floats(buffer *b, const float *x, int n) {
    for (int i = 0; i < n; i++)
        put_u32(b, kvant_f32_bits(x[i]));
}

static uint32_t get_u32(buffer *b) { return kvant_read_u32(take(b, 4)); }

static float get_f32(buffer *b) { return kvant_bits_f32(get_u32(b)); }

static double get_f64(buffer *b) {
    uint64_t bits = kvant_read_u64(take(b, 8));
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static uint64_t hash_floats(const float *x, int n) {
    uint64_t h = 0xCBF29CE484222325u;
    for (int i = 0; i < n; i++)
        for (int j = 0; j < 32; j += 8)
            h = (h ^ (kvant_f32_bits(x[i]) >> j & 255)) * 0x100000001B3u;
    return h;
}

/* ---- a record: one page ---- */

typedef struct page_case {
    char name[NAME];
    int model;
    int64_t page;
    bool originals;
} page_case;

static kvant_cache *create_cache(kvant_context *ctx, const page_case *c) {
    const model *m = &models[c->model];
    kvant_cache_config config;
    kvant_cache *cache;
    kvant_error err = {0};
    kvant_cache_config_default(&config);
    config.n_layer = 1;
    config.n_kv_head = m->config.n_kv_head;
    config.head_dim = m->config.head_dim;
    config.calibration = m->calibration;
    if (kvant_format_parse_pair(c->name, &config.k, &config.v, &err) != KVANT_OK) fail_msg("%s", err.message);
    if (kvant_cache_create(ctx, &config, &cache, &err) != KVANT_OK) fail_msg("%s: %s", c->name, err.message);
    return cache;
}

static bool is_in_page(const page_case *c, int token) { return models[c->model].position[token] / KVANT_PAGE_TOKENS == c->page; }

/* What append does, for chosen slots alone. */
static kvant_page *fill_page(kvant_cache *cache, const page_case *c) {
    const model *m = &models[c->model];
    const kvant_transforms *t = &cache->transforms;
    const kvant_kernels *kernels = cache->ctx->kernels;
    kvant_page *page;
    assert_int_equal(kvant_transforms_reserve(&cache->transforms, (c->page + 1) * KVANT_PAGE_TOKENS), KVANT_OK);
    assert_int_equal(kvant_page_create(cache, kvant_cache_packed(cache, 0, c->page), &page), KVANT_OK);
    for (int i = 0; i < m->n_token; i++)
        for (int h = 0; h < m->config.n_kv_head && is_in_page(c, i); h++) {
            float mean[DIM_MAX], k[DIM_MAX], v[DIM_MAX];
            if (t->layers[0].centred) kvant_transform_mean(t, 0, h, m->position[i], mean);
            kvant_transform_key(t, 0, h, m->k[i][h], mean, k, kernels);
            memcpy(v, m->v[i][h], sizeof v);
            kvant_transform_value(t, 0, v, kernels);
            kvant_page_put(page, h, (int)(m->position[i] % KVANT_PAGE_TOKENS), k, v, kernels);
        }
    return page;
}

static void put_packed(buffer *b, const uint8_t *bytes, size_t n) {
    for (size_t i = 0; i < n;) {
        size_t zeros = 0, rest = 0;
        while (i + zeros < n && zeros < 255 && !bytes[i + zeros])
            zeros++;
        i += zeros;
        while (i + rest < n && rest < 255 && (bytes[i + rest] || (i + rest + 1 < n && bytes[i + rest + 1])))
            rest++;
        *take(b, 1) = (uint8_t)zeros;
        *take(b, 1) = (uint8_t)rest;
        if (rest) memcpy(take(b, rest), bytes + i, rest);
        i += rest;
    }
}

static void put_vectors(buffer *b, const kvant_cache *cache, const kvant_page *page, const page_case *c) {
    const model *m = &models[c->model];
    const kvant_transforms *t = &cache->transforms;
    const kvant_kernels *kernels = cache->ctx->kernels;
    float first[DIM_MAX] = {0}, k[DIM_MAX], v[DIM_MAX], mean[DIM_MAX];
    int d = m->config.head_dim, n = 0;
    for (int i = 0; i < m->n_token; i++)
        for (int h = 0; h < m->config.n_kv_head && is_in_page(c, i); h++) {
            kvant_page_get(page, h, (int)(m->position[i] % KVANT_PAGE_TOKENS), k, v, kernels);
            if (n++ == 0) memcpy(first, k, sizeof first);
            put_u64(b, hash_floats(k, d));
            put_u64(b, hash_floats(v, d));
        }
    if (c->model == 0) put_floats(b, first, d);
    for (int i = 0; i < m->n_token && c->originals; i++)
        for (int h = 0; h < m->config.n_kv_head && is_in_page(c, i); h++) {
            kvant_page_get(page, h, (int)(m->position[i] % KVANT_PAGE_TOKENS), k, v, kernels);
            if (t->layers[0].centred) kvant_transform_mean(t, 0, h, m->position[i], mean);
            kvant_transform_key_back(t, 0, h, k, mean, k, kernels);
            kvant_transform_value_back(t, 0, v, kernels);
            put_floats(b, k, d);
            put_floats(b, v, d);
        }
}

static void put_record(buffer *b, kvant_context *ctx, const page_case *c) {
    kvant_cache *cache = create_cache(ctx, c);
    kvant_page *page = fill_page(cache, c);
    size_t n = page->layout->bytes;
    uint8_t *bytes = malloc(n);
    assert_non_null(bytes);
    memcpy(bytes, page, n);
    memset(bytes, 0, KVANT_PAGE_HEADER);
    memcpy(take(b, NAME), c->name, NAME);
    put_u32(b, (uint32_t)c->model);
    put_u32(b, (uint32_t)c->page);
    put_u32(b, c->originals);
    put_u32(b, (uint32_t)n);
    uint8_t *packed = take(b, 4);
    size_t begin = b->at;
    put_packed(b, bytes, n);
    kvant_write_u32(packed, (uint32_t)(b->at - begin));
    put_vectors(b, cache, page, c);
    free(bytes);
    kvant_page_release(cache, page);
    kvant_cache_destroy(cache);
}

/* ---- reading the file ---- */

static uint8_t file_bytes[FILE_MAX];

static void read_sets(buffer *b) {
    uint32_t n = get_u32(b);
    for (uint32_t i = 0; i < n; i++) {
        int bits = (int)get_u32(b), n_book = (int)get_u32(b);
        const kvant_book_set *set = kvant_book_set_find(bits, n_book);
        assert_non_null(set);
        assert_true(set->units == get_f32(b));
        size_t size = (size_t)n_book << bits;
        assert_memory_equal(set->levels, take(b, size), size);
    }
}

static void read_model(buffer *b, model *m) {
    static const uint8_t fingerprint[KVANT_FINGERPRINT_BYTES] = "golden pages 001";
    int d = (int)get_u32(b), n_head = (int)get_u32(b);
    m->rope = (kvant_rope_config){.n_rot = (int)get_u32(b), .interleaved = get_u32(b) != 0, .frequency = m->frequency};
    m->rope.magnitude = get_f32(b);
    assert_true(d <= DIM_MAX && m->rope.n_rot <= d && n_head <= HEADS_MAX);
    for (int i = 0; i < m->rope.n_rot / 2; i++)
        m->frequency[i] = get_f64(b);
    m->config = (kvant_calibration_config){
        .n_layer = 1, .n_head = n_head, .n_kv_head = n_head, .head_dim = d, .n_rope = 1, .ropes = &m->rope};
    size_t size = get_u32(b);
    kvant_error err = {0};
    const uint8_t *calibration = take(b, size);
    if (kvant_calibration_read(&m->config, fingerprint, calibration, size, "pages.bin", &m->calibration, &err) != KVANT_OK)
        fail_msg("%s", err.message);
    m->n_token = (int)get_u32(b);
    assert_true(m->n_token <= TOKENS_MAX);
    for (int i = 0; i < m->n_token; i++)
        m->position[i] = get_u32(b);
    for (int side = 0; side < 2; side++)
        for (int i = 0; i < m->n_token; i++)
            for (int h = 0; h < n_head; h++)
                for (int e = 0; e < d; e++)
                    (side ? m->v : m->k)[i][h][e] = get_f32(b);
}

/* At the records. */
static buffer open_golden(int *n_record) {
    FILE *file = fopen(GOLDEN, "rb");
    assert_non_null(file);
    buffer b = {file_bytes, 0, fread(file_bytes, 1, FILE_MAX, file)};
    fclose(file);
    assert_memory_equal(take(&b, 8), "KVPAGES1", 8);
    read_sets(&b);
    assert_int_equal(get_u32(&b), MODELS);
    for (int i = 0; i < MODELS; i++)
        read_model(&b, &models[i]);
    *n_record = (int)get_u32(&b);
    return b;
}

static void close_golden(void) {
    for (int i = 0; i < MODELS; i++)
        kvant_calibration_destroy(models[i].calibration);
    memset(models, 0, sizeof models);
}

static page_case peek_case(const buffer *b) {
    buffer copy = *b;
    page_case c;
    memcpy(c.name, take(&copy, NAME), NAME);
    assert_true(memchr(c.name, 0, NAME) != NULL);
    c.model = (int)get_u32(&copy);
    c.page = get_u32(&copy);
    c.originals = get_u32(&copy) != 0;
    assert_true(c.model < MODELS);
    return c;
}

/* ---- the promises ---- */

static void pages_hold_the_golden_bytes(kvant_isa isa) {
    kvant_context *ctx;
    if (kvant_context_create(1, isa, &ctx, NULL) != KVANT_OK) {
        print_message("skipped: this machine has no %s\n", kvant_isa_name(isa));
        skip();
    }
    int n_record, n_wrong = 0;
    buffer b = open_golden(&n_record);
    assert_true(n_record > 0);
    for (int i = 0; i < n_record; i++) {
        static uint8_t room[1 << 16];
        page_case c = peek_case(&b);
        buffer own = {room, 0, sizeof room};
        put_record(&own, ctx, &c);
        const uint8_t *golden = take(&b, own.at);
        size_t at = 0, page_end = NAME + 20 + kvant_read_u32(golden + NAME + 16);
        while (at < own.at && golden[at] == room[at])
            at++;
        if (at == own.at) continue;
        n_wrong++;
        print_message("%s, head_dim %d, page %d: %s differ\n", c.name, models[c.model].config.head_dim, (int)c.page,
                      at < page_end ? "the bytes of the page" : "the vectors");
        if (at < page_end) break; /* packed, they may have another length, so the next record cannot be found */
    }
    if (n_wrong == 0) assert_int_equal(b.at, b.size);
    close_golden();
    kvant_context_destroy(ctx);
    assert_int_equal(n_wrong, 0);
}

static void portable_c_gives_the_golden_pages(void **state) {
    (void)state;
    pages_hold_the_golden_bytes(KVANT_ISA_REF);
}

static void avx2_gives_the_golden_pages(void **state) {
    (void)state;
    pages_hold_the_golden_bytes(KVANT_ISA_AVX2);
}

static void avx512_gives_the_golden_pages(void **state) {
    (void)state;
    pages_hold_the_golden_bytes(KVANT_ISA_AVX512);
}

/* Tokens up to the end of the page, all zeros but those of the model. */
static void append_tokens(kvant_sequence *s, const page_case *c) {
    const model *m = &models[c->model];
    static float k[CHUNK * HEADS_MAX * DIM_MAX], v[CHUNK * HEADS_MAX * DIM_MAX];
    size_t d = (size_t)m->config.head_dim, row = (size_t)m->config.n_kv_head * d;
    int64_t n = (c->page + 1) * KVANT_PAGE_TOKENS;
    for (int64_t first = 0; first < n; first += CHUNK) {
        int64_t end = first + CHUNK < n ? first + CHUNK : n;
        memset(k, 0, sizeof k);
        memset(v, 0, sizeof v);
        for (int i = 0; i < m->n_token; i++)
            for (int h = 0; h < m->config.n_kv_head && m->position[i] >= first && m->position[i] < end; h++) {
                size_t at = (size_t)(m->position[i] - first) * row + (size_t)h * d;
                memcpy(k + at, m->k[i][h], d * sizeof *k);
                memcpy(v + at, m->v[i][h], d * sizeof *v);
            }
        assert_int_equal(kvant_sequence_append(s, 0, k, v, (int)(end - first)), KVANT_OK);
    }
}

static void a_sequence_stores_the_golden_vectors(void **state) {
    (void)state;
    kvant_context *ctx;
    assert_int_equal(kvant_context_create(2, KVANT_ISA_BEST, &ctx, NULL), KVANT_OK);
    int n_record;
    buffer b = open_golden(&n_record);
    for (int r = 0; r < n_record; r++) {
        page_case c = peek_case(&b);
        const model *m = &models[c.model];
        kvant_cache *cache = create_cache(ctx, &c);
        kvant_sequence *s;
        assert_int_equal(kvant_sequence_create(cache, &s), KVANT_OK);
        append_tokens(s, &c);
        b.at += NAME + 12;
        assert_int_equal(get_u32(&b), s->layers[0].pages[c.page]->layout->bytes);
        b.at += get_u32(&b);
        int d = m->config.head_dim;
        float k[DIM_MAX], v[DIM_MAX];
        for (int i = 0; i < m->n_token; i++)
            for (int h = 0; h < m->config.n_kv_head && is_in_page(&c, i); h++) {
                kvant_page_get(s->layers[0].pages[c.page], h, (int)(m->position[i] % KVANT_PAGE_TOKENS), k, v, ctx->kernels);
                assert_true(hash_floats(k, d) == kvant_read_u64(take(&b, 8)));
                assert_true(hash_floats(v, d) == kvant_read_u64(take(&b, 8)));
            }
        if (c.model == 0) b.at += 4 * (size_t)d;
        for (int i = 0; i < m->n_token && c.originals; i++)
            for (int h = 0; h < m->config.n_kv_head && is_in_page(&c, i); h++) {
                assert_int_equal(kvant_sequence_decode(s, 0, m->position[i], h, k, v), KVANT_OK);
                for (int e = 0; e < 2 * d; e++)
                    assert_true(get_f32(&b) == (e < d ? k[e] : v[e - d]));
            }
        kvant_sequence_destroy(s);
        kvant_cache_destroy(cache);
    }
    assert_int_equal(b.at, b.size);
    close_golden();
    kvant_context_destroy(ctx);
}

/* ---- making the file ---- */

static uint64_t seed = SEED;

static double random_unit(void) {
    uint64_t z = seed += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return ((double)((z ^ z >> 31) >> 11) + 0.5) / 9007199254740992.0;
}

static double random_normal(void) {
    double u = random_unit();
    return sqrt(-2 * log(u)) * cos(6.283185307179586 * random_unit());
}

/* A key at a position: its head's mean and a deviation, turned. */
static void make_key(const kvant_rope_config *r, int d, const double *mean, const double *width, uint32_t position, float *k) {
    double x[DIM_MAX];
    for (int i = 0; i < d; i++)
        x[i] = mean[i] + width[i] * random_normal();
    for (int i = 0; i < r->n_rot / 2; i++) {
        int a = r->interleaved ? 2 * i : i, b = r->interleaved ? a + 1 : r->n_rot / 2 + i;
        double angle = position * r->frequency[i], magnitude = (double)r->magnitude;
        double re = magnitude * cos(angle), im = magnitude * sin(angle);
        double y = x[a] * re - x[b] * im;
        x[b] = x[a] * im + x[b] * re;
        x[a] = y;
    }
    for (int i = 0; i < d; i++)
        k[i] = (float)x[i];
}

static void make_model(int index, buffer *b) {
    static const uint8_t fingerprint[KVANT_FINGERPRINT_BYTES] = "golden pages 001";
    model *m = &models[index];
    int d = designs[index].head_dim, n_head = designs[index].n_kv_head;
    double mean[HEADS_MAX][DIM_MAX], width[HEADS_MAX][DIM_MAX];
    m->rope = (kvant_rope_config){designs[index].n_rot, designs[index].interleaved, designs[index].magnitude, m->frequency};
    for (int i = 0; i < m->rope.n_rot / 2; i++)
        m->frequency[i] = pow(10000, -2.0 * i / m->rope.n_rot);
    m->config = (kvant_calibration_config){
        .n_layer = 1, .n_head = n_head, .n_kv_head = n_head, .head_dim = d, .n_rope = 1, .ropes = &m->rope};
    assert_int_equal(kvant_calibration_create(&m->config, &m->calibration, NULL), KVANT_OK);
    for (int h = 0; h < n_head; h++)
        for (int i = 0; i < d; i++) {
            mean[h][i] = 4 * random_normal();
            width[h][i] = exp(0.7 * random_normal());
        }
    for (uint32_t t = 4; t < 300; t++) {
        float k[HEADS_MAX * DIM_MAX], q[HEADS_MAX * DIM_MAX];
        for (int h = 0; h < n_head; h++) {
            make_key(&m->rope, d, mean[h], width[h], t, k + h * d);
            for (int i = 0; i < d; i++)
                q[h * d + i] = (float)((1 + i % 5) * random_normal());
        }
        assert_int_equal(kvant_calibration_add(m->calibration, 0, t, k, q, 1), KVANT_OK);
    }
    assert_int_equal(kvant_calibration_finish(m->calibration, NULL), KVANT_OK);
    m->n_token = designs[index].n_token;
    for (int i = 0; i < m->n_token; i++) {
        m->position[i] = designs[index].position[i];
        for (int h = 0; h < n_head; h++) {
            make_key(&m->rope, d, mean[h], width[h], m->position[i], m->k[i][h]);
            for (int e = 0; e < d; e++)
                m->v[i][h][e] = (float)random_normal();
        }
    }
    uint8_t *bytes;
    size_t size;
    assert_int_equal(kvant_calibration_write(m->calibration, fingerprint, &bytes, &size), KVANT_OK);
    put_u32(b, (uint32_t)d);
    put_u32(b, (uint32_t)n_head);
    put_u32(b, (uint32_t)m->rope.n_rot);
    put_u32(b, m->rope.interleaved);
    put_floats(b, &m->rope.magnitude, 1);
    for (int i = 0; i < m->rope.n_rot / 2; i++) {
        uint64_t bits;
        memcpy(&bits, &m->frequency[i], sizeof bits);
        put_u64(b, bits);
    }
    put_u32(b, (uint32_t)size);
    memcpy(take(b, size), bytes, size);
    kvant_calibration_bytes_free(bytes);
    put_u32(b, (uint32_t)m->n_token);
    for (int i = 0; i < m->n_token; i++)
        put_u32(b, m->position[i]);
    for (int side = 0; side < 2; side++)
        for (int i = 0; i < m->n_token; i++)
            for (int h = 0; h < n_head; h++)
                put_floats(b, side ? m->v[i][h] : m->k[i][h], d);
}

static void put_sets(buffer *b) {
    put_u32(b, 8);
    for (int i = 0; i < 8; i++) {
        const kvant_book_set *set = i < 5 ? kvant_book_set_find(1 + i, 16) : kvant_book_set_find(i - 3, 1);
        size_t size = (size_t)set->n_book << set->bits;
        put_u32(b, (uint32_t)set->bits);
        put_u32(b, (uint32_t)set->n_book);
        put_floats(b, &set->units, 1);
        memcpy(take(b, size), set->levels, size);
    }
}

static int write_golden(const char *path) {
    kvant_context *ctx;
    if (kvant_context_create(1, KVANT_ISA_REF, &ctx, NULL) != KVANT_OK) return 1;
    buffer b = {file_bytes, 0, FILE_MAX};
    memcpy(take(&b, 8), "KVPAGES1", 8);
    put_sets(&b);
    put_u32(&b, MODELS);
    for (int i = 0; i < MODELS; i++)
        make_model(i, &b);
    uint8_t *count = take(&b, 4);
    uint32_t n = 0;
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        for (const char *which = pairs[i].models; *which; which++, n++) {
            page_case c = {{0}, *which - '0', 0, pairs[i].originals};
            snprintf(c.name, NAME, "%s", pairs[i].name);
            if (!pairs[i].first_page) c.page = designs[c.model].position[2] / KVANT_PAGE_TOKENS;
            put_record(&b, ctx, &c);
        }
    kvant_write_u32(count, n);
    close_golden();
    kvant_context_destroy(ctx);
    FILE *file = fopen(path, "wb");
    if (!file) return 1;
    bool done = fwrite(b.data, 1, b.at, file) == b.at;
    return fclose(file) == 0 && done ? 0 : 1;
}

int main(int argc, char **argv) {
    if (argc == 3 && strcmp(argv[1], "--write") == 0) return write_golden(argv[2]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(portable_c_gives_the_golden_pages),
        cmocka_unit_test(avx2_gives_the_golden_pages),
        cmocka_unit_test(avx512_gives_the_golden_pages),
        cmocka_unit_test(a_sequence_stores_the_golden_vectors),
    };
    return cmocka_run_group_tests_name("golden pages", tests, NULL, NULL);
}
