// SPDX-License-Identifier: MIT
/* fuzz_affine.c: format names, vectors of any bits (NaN and infinity too) through the affine quantizer and through pages.
 *
 * Input: a format name up to a NUL, 8 bytes of settings, then floats. What must hold: codes fit their bits, what was appended
 * is stored and decoded, bytes follow the formula, finite vectors come back finite and attention over them is finite. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz_target.h"
#include "kvant/kvant.h"

#define MAX_FLOATS 4096

static const int head_dims[] = {8, 32, 64, 80, 96, 128, 192, 256};
static const int all_bits[] = {2, 3, 4, 5, 6, 8, 1, 7, 16};
static const int groups[] = {32, 64, 128, 16};

typedef struct settings {
    int head_dim, n_kv_head, n_layer, start, window, layer_window;
    bool after_step;
    kvant_precision precision;
} settings;

static void expect(bool ok) {
    if (!ok) abort();
}

/* Both ways in: the level of this machine, and the reference. */
static kvant_context *context(bool reference) {
    static kvant_context *both[2];
    if (!both[reference])
        expect(kvant_context_create(1, reference ? KVANT_ISA_REF : KVANT_ISA_BEST, &both[reference], NULL) == KVANT_OK);
    return both[reference];
}

static void quantize(const float *x, int n, int bits, int group) {
    static uint8_t codes[MAX_FLOATS];
    static uint16_t scales[MAX_FLOATS], biases[MAX_FLOATS];
    bool known = (bits >= 2 && bits <= 6) || bits == 8;
    bool valid = known && (group == 32 || group == 64 || group == 128);
    int n_groups = n / group;
    kvant_status st = kvant_affine_quantize(x, n_groups, bits, group, codes, scales, biases);
    expect(st == (valid ? KVANT_OK : KVANT_EINVAL));
    for (int i = 0; valid && i < n_groups * group; i++)
        expect(codes[i] < 1 << bits);
}

static void check_pages(const kvant_sequence *s, const settings *p, int n_tokens, bool finite) {
    static float k[256], v[256];
    for (int layer = 0; layer < p->n_layer; layer++) {
        for (int i = 0; i < kvant_sequence_page_count(s, layer); i++) {
            kvant_page_info info;
            expect(kvant_sequence_page_info(s, layer, i, &info) == KVANT_OK);
            expect(info.n_tokens >= 0 && info.n_tokens <= KVANT_PAGE_TOKENS && info.n_references >= 1);
        }
        for (int t = -1; t <= n_tokens; t++) {
            kvant_status st = kvant_sequence_decode(s, layer, t, p->n_kv_head - 1, k, v);
            if (t < 0 || t == n_tokens)
                expect(st == KVANT_EINVAL);
            else if (p->window == 0 && p->layer_window == 0)
                expect(st == KVANT_OK);
            for (int d = 0; st == KVANT_OK && finite && d < p->head_dim; d++)
                expect(isfinite(k[d]) && isfinite(v[d]));
        }
    }
}

/* Appends the rows of x to every layer in two steps, attends, converts, truncates. */
static void use_sequence(kvant_cache *cache, const settings *p, const float *x, int n_rows, bool finite) {
    static float q[MAX_FLOATS], out[MAX_FLOATS];
    int row = p->head_dim * p->n_kv_head, half = n_rows / 2, done = 0;
    kvant_attend_params attend = {.n_head = p->n_kv_head, .scale = 1 / sqrtf((float)p->head_dim), .precision = p->precision};
    kvant_sequence *s, *fork;
    expect(kvant_sequence_create(cache, &s) == KVANT_OK);
    for (int i = 0; i < MAX_FLOATS; i++)
        q[i] = (float)(i % 17 - 8) / 8;
    for (int step = 0; step < 2; step++) {
        int n = step ? n_rows - half : half;
        if (n == 0) continue;
        for (int layer = 0; layer < p->n_layer; layer++) {
            expect(kvant_sequence_append(s, layer, x + done * row, x + done * row, n) == KVANT_OK);
            expect(kvant_attend(s, layer, &attend, q, n, out) == KVANT_OK);
            for (int i = 0; finite && i < n * row; i++)
                expect(isfinite(out[i]));
        }
        done += n;
        expect(kvant_maybe_quantize_kv_cache(s, NULL) == KVANT_OK);
        expect(kvant_sequence_length(s) == done);
        check_pages(s, p, done, finite);
    }
    expect(kvant_sequence_fork(s, &fork) == KVANT_OK);
    if (kvant_sequence_truncate(s, done / 3) == KVANT_OK) expect(kvant_sequence_length(s) == done / 3);
    expect(kvant_sequence_truncate(s, done + 1) == KVANT_EINVAL);
    check_pages(fork, p, done, finite);
    kvant_sequence_destroy(s);
    kvant_sequence_destroy(fork);
    expect(kvant_cache_bytes(cache) == 0);
}

static void use_cache(const char *name, const settings *p, bool reference, const float *x, int n) {
    kvant_cache_config config;
    kvant_cache *cache;
    kvant_error err = {0};
    kvant_cache_config_default(&config);
    kvant_status st = kvant_format_parse_pair(name, &config.k, &config.v, &err);
    expect(st == KVANT_OK || (st == KVANT_EINVAL && err.message[0]));
    if (st != KVANT_OK) return;
    char canonical[KVANT_FORMAT_NAME_MAX];
    kvant_format again;
    kvant_format_name(&config.k, canonical);
    expect(strlen(canonical) < sizeof canonical && kvant_format_parse(canonical, &again, NULL) == KVANT_OK);
    expect(again.codec == config.k.codec && again.bits == config.k.bits && again.group == config.k.group);
    int windows[] = {p->layer_window, 0};
    config.n_layer = p->n_layer;
    config.n_kv_head = p->n_kv_head;
    config.head_dim = p->head_dim;
    config.layer_window = windows;
    config.quantized_kv_start = p->start;
    config.max_kv_size = p->window;
    config.quantize_after_step = p->after_step;
    bool fits = kvant_format_check(&config.k, p->head_dim, NULL) == KVANT_OK &&
                kvant_format_check(&config.v, p->head_dim, NULL) == KVANT_OK;
    st = kvant_cache_create(context(reference), &config, &cache, &err);
    expect(st != KVANT_OK || fits);
    if (st != KVANT_OK) {
        expect(err.message[0] != '\0');
        return;
    }
    int row = p->head_dim * p->n_kv_head;
    bool finite = true; /* and of a size that every format and a score can hold */
    for (int i = 0; i < n / row * row; i++)
        finite = finite && fabsf(x[i]) < 1e4f;
    use_sequence(cache, p, x, n / row, finite);
    kvant_cache_destroy(cache);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static float x[MAX_FLOATS];
    char name[80];
    size_t n_name = 0;
    while (n_name < size && n_name < sizeof name - 1 && data[n_name])
        n_name++;
    memcpy(name, data, n_name);
    name[n_name] = '\0';
    if (size - n_name < 9) return 0;
    const uint8_t *b = data + n_name + 1;
    settings p = {
        .head_dim = head_dims[b[0] & 7],
        .n_kv_head = 1 + (b[0] >> 3 & 1),
        .n_layer = 1 + (b[0] >> 4 & 1),
        .start = b[1] & 1 ? b[1] : 0,
        .window = b[2] & 1 ? b[2] : 0,
        .layer_window = b[3] & 1 ? b[3] : 0,
        .after_step = b[4] & 1,
        .precision = b[4] & 2 ? KVANT_EXACT : KVANT_FAST,
    };
    size_t bytes = size - n_name - 9;
    int n = (int)(bytes / 2 < MAX_FLOATS ? bytes / 2 : MAX_FLOATS);
    const uint8_t *values = b + 8;
    for (int i = 0; i < n; i++) { /* two bytes a value: the upper half of a float, or a small number */
        uint32_t bits = (uint32_t)values[2 * i] << 16 | (uint32_t)values[2 * i + 1] << 24;
        memcpy(&x[i], &bits, sizeof bits);
        if (b[5] & 1) x[i] = (float)(int8_t)values[2 * i + 1] / 16 + (float)values[2 * i] / 4096;
    }
    quantize(x, n, all_bits[b[6] % 9], groups[b[6] >> 4 & 3]);
    use_cache(name, &p, b[4] & 4, x, n);
    return 0;
}
