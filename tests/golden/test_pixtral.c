// SPDX-License-Identifier: MIT
/* test_pixtral.c: a small Pixtral folder gives the pixels, features, logits and tokens that MLX gave for it.
 *
 * golden.safetensors of KVANT_DATA/mlx/pixtral-f16 holds every stage, in float32. Stages are compared by the length of the
 * difference relative to the length of the golden array. Skipped where the data are absent. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

#include "base/bytes.h"
#include "base/memory.h"
#include "base/os.h"
#include "engine/image.h"
#include "file/folder.h"
#include "file/safetensors.h"
#include "kvant/engine.h"
#include "unit/file/gguf_builder.h"
#include "vision/pixtral_tower.h"
#include "weight/weight.h"

#define ROOT KVANT_DATA "/mlx/pixtral-f16"
#define SKIPPED 77

static kvant_safetensors *golden;

static const kvant_safetensor *array_named(const char *name) {
    const kvant_safetensor *t = kvant_safetensors_find(golden, name);
    if (!t) fail_msg("golden.safetensors lacks %s", name);
    return t;
}

static float value_at(const kvant_safetensor *t, size_t i) {
    uint32_t bits = kvant_read_u32(t->data + 4 * i);
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Relative to the golden array from `first` on. */
static double distance(const kvant_safetensor *t, size_t first, const float *x, size_t n) {
    double difference = 0, length = 0;
    assert_true(t->bytes / 4 >= first + n);
    for (size_t i = 0; i < n; i++) {
        double e = (double)value_at(t, first + i), d = (double)x[i] - e;
        difference += d * d;
        length += e * e;
    }
    return sqrt(difference / length);
}

static void read_picture(const char *file, kvant_pixels *out) {
    char path[512];
    uint8_t *bytes;
    size_t size;
    kvant_error err;
    snprintf(path, sizeof path, "%s/%s", ROOT, file);
    if (kvant_os_read_file(path, KVANT_IMAGE_MAX_BYTES, &bytes, &size, &err) != KVANT_OK) fail_msg("%s", err.message);
    if (kvant_pixels_read(path, bytes, size, KVANT_IMAGE_MAX_PIXELS, out, &err) != KVANT_OK) fail_msg("%s", err.message);
    kvant_free(bytes);
}

typedef struct tower {
    kvant_context *ctx;
    kvant_gguf *file;
    kvant_pixtral *t;
} tower;

static tower open_tower(void) {
    tower o = {0};
    kvant_error err;
    if (kvant_context_create(2, KVANT_ISA_BEST, &o.ctx, &err) != KVANT_OK) fail_msg("%s", err.message);
    if (kvant_folder_open(ROOT, &o.file, &err) != KVANT_OK) fail_msg("%s", err.message);
    if (kvant_pixtral_load(o.ctx, o.file, 64, &o.t, &err) != KVANT_OK) fail_msg("%s", err.message);
    return o;
}

static void close_tower(tower *o) {
    kvant_pixtral_destroy(o->t);
    kvant_gguf_close(o->file);
    kvant_context_destroy(o->ctx);
}

/* The largest difference to golden pixels, in steps of 1/255 of the file's own numbers. */
static void check_pixels(const tower *o, const char *file, const char *name) {
    const kvant_pixtral_rules *r = kvant_pixtral_get_rules(o->t);
    const kvant_safetensor *t = array_named(name);
    kvant_pixels p;
    float *x;
    int columns, rows;
    double worst = 0;
    read_picture(file, &p);
    kvant_pixtral_grid(r, p.width, p.height, &columns, &rows);
    assert_int_equal(columns, 8);
    assert_int_equal(rows, 6);
    assert_int_equal(kvant_pixtral_prepare(r, &p, &x), KVANT_OK);
    for (size_t i = 0; i < t->bytes / 4; i++)
        worst = fmax(worst, fabs((double)x[i] - (double)value_at(t, i)));
    printf("  %-24s %d x %d, off by at most %.1e\n", name, p.width, p.height, worst);
    assert_true(worst < 1e-5);
    kvant_free_aligned(x);
    kvant_pixels_free(&p);
}

static void pictures_are_prepared_as_by_the_processor(void **state) {
    (void)state;
    tower o = open_tower();
    check_pixels(&o, "image_a.png", "pixel_values");
    check_pixels(&o, "image_b.png", "image_b.pixel_values");
    close_tower(&o);
}

static void watch(void *user, const char *stage, const float *x, int n, int width) {
    static const char *const names[][2] = {{"patch_conv", "f32.patch_conv"},
                                           {"ln_pre", "f32.ln_pre"},
                                           {"hidden", "f32.vision_hidden"},
                                           {"features", "f32.image_features"}};
    double *worst = user;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(names[i][0], stage) != 0) continue;
        double d = distance(array_named(names[i][1]), 0, x, (size_t)n * (size_t)width);
        printf("  %-24s off by %.2e\n", names[i][1], d);
        if (!(d <= *worst)) *worst = d;
    }
}

static void the_tower_gives_the_features_of_mlx(void **state) {
    (void)state;
    tower o = open_tower();
    const char *files[] = {"image_a.png", "image_b.png"};
    for (int i = 0; i < 2; i++) {
        kvant_pixels p;
        float *x, features[48 * 64];
        double worst = 0;
        read_picture(files[i], &p);
        assert_int_equal(kvant_pixtral_prepare(kvant_pixtral_get_rules(o.t), &p, &x), KVANT_OK);
        assert_int_equal(kvant_pixtral_encode(o.t, x, 8, 6, features, i == 0 ? watch : NULL, &worst), KVANT_OK);
        double d = distance(array_named(i == 0 ? "f32.image_features" : "image_b.f32.image_features"), 0, features, 48 * 64);
        if (i == 1) printf("  %-24s off by %.2e\n", "image_b.f32.image_features", d);
        assert_true(d < 1e-3 && worst < 1e-3);
        kvant_free_aligned(x);
        kvant_pixels_free(&p);
    }
    close_tower(&o);
}

/* ---- the whole model ---- */

typedef struct model {
    kvant_model *m;
    kvant_session *s;
    kvant_image *image;
    int32_t *ids; /* the golden prompt, with the patches of image_a.png in it */
    int n;
    int n_vocab;
} model;

/* Golden ids have [IMG] where the patches are. */
static void put_patches(model *o, const kvant_safetensor *ids) {
    o->n = (int)(ids->bytes / 4);
    o->ids = calloc((size_t)o->n, sizeof *o->ids);
    for (int i = 0, patch = 0; i < o->n; i++) {
        int32_t id = (int32_t)kvant_read_u32(ids->data + 4 * (size_t)i);
        o->ids[i] = id == kvant_model_image_token(o->m) ? o->image->ids[patch++] : id;
    }
}

static model open_model(const char *kv, int bits, int step, bool compat) {
    model o = {0};
    kvant_load_params load;
    kvant_session_params params;
    kvant_model_info info;
    kvant_error err;
    kvant_load_params_default(&load);
    kvant_session_params_default(&params);
    load.n_threads = 2;
    load.prefill_step_size = step;
    load.kv.compat_mlx = compat;
    load.kv.kv = bits ? NULL : kv;
    load.kv.kv_bits = bits;
    load.kv.kv_group_size = bits ? 64 : 0;
    load.prefix_ram = compat ? 0 : (size_t)64 << 20;
    params.precision = KVANT_EXACT;
    if (kvant_model_open(ROOT, &load, &o.m, &err) != KVANT_OK) fail_msg("%s", err.message);
    kvant_model_get_info(o.m, &info);
    o.n_vocab = info.n_vocab;
    assert_string_equal(info.kit, "text+vision");
    assert_int_equal(kvant_model_image_token(o.m), 5);
    if (kvant_session_create(o.m, &params, &o.s, &err) != KVANT_OK) fail_msg("%s", err.message);
    if (kvant_image_open(o.m, ROOT "/image_a.png", &o.image, &err) != KVANT_OK) fail_msg("%s", err.message);
    put_patches(&o, array_named("input_ids"));
    return o;
}

static void close_model(model *o) {
    free(o->ids);
    kvant_image_close(o->image);
    kvant_session_destroy(o->s);
    kvant_model_close(o->m);
}

static int largest(const float *x, int n) {
    int best = 0;
    for (int i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return best;
}

#define N_PROMPT_ROWS 8

/* Chunks as mlx-lm makes them, then every golden token after the golden one before it: the worst relative distance of a row. */
static double follow(model *o, const char *config, int step, int *n_wrong) {
    char name[64];
    kvant_error err;
    double worst = 0;
    size_t row_size = (size_t)o->n_vocab;
    float *rows = calloc((size_t)o->n * row_size, sizeof *rows);
    for (int done = 0; done < o->n;) {
        int left = o->n - done, n = left > 1 ? (left - 1 < step ? left - 1 : step) : 1;
        if (kvant_session_step(o->s, o->ids + done, n, rows + (size_t)done * row_size, &err) != KVANT_OK)
            fail_msg("%s", err.message);
        done += n;
    }
    snprintf(name, sizeof name, "%s.prompt_logits", config);
    for (int i = 0; i < N_PROMPT_ROWS; i++)
        worst = fmax(worst, distance(array_named(name), (size_t)i * row_size,
                                     rows + (size_t)(o->n - N_PROMPT_ROWS + i) * row_size, row_size));
    snprintf(name, sizeof name, "%s.gen_ids", config);
    const kvant_safetensor *gen = array_named(name);
    snprintf(name, sizeof name, "%s.gen_logits", config);
    const kvant_safetensor *logits = kvant_safetensors_find(golden, name); /* textonly has none */
    *n_wrong = 0;
    for (size_t i = 0; i < gen->bytes / 4; i++) {
        int32_t id = (int32_t)kvant_read_u32(gen->data + 4 * i);
        const float *row = kvant_session_logits(o->s);
        if (logits) worst = fmax(worst, distance(logits, i * row_size, row, row_size));
        *n_wrong += largest(row, o->n_vocab) != id;
        if (kvant_session_decode(o->s, id, &err) != KVANT_OK) fail_msg("%s", err.message);
    }
    free(rows);
    return worst;
}

static void patches_and_tokens_are_merged_as_by_mlx(void **state) {
    (void)state;
    model o = open_model("f32", 0, 2048, false);
    kvant_error err;
    size_t n_embd = 64, n = (size_t)o.n;
    const float *rows[256];
    int32_t tokens[256];
    float *x = calloc(n * n_embd, sizeof *x);
    assert_in_range(o.n, 1, 256);
    if (kvant_model_find_rows(o.m, o.ids, o.n, rows, &err) != KVANT_OK) fail_msg("%s", err.message);
    for (size_t i = 0; i < n; i++)
        tokens[i] = rows[i] ? 0 : o.ids[i];
    assert_int_equal(kvant_decoder_forward_layers(o.m->decoder, o.m->workspace, kvant_session_sequence(o.s), tokens, o.n,
                                                  KVANT_EXACT, 0, 0, x, NULL, 0),
                     KVANT_OK);
    for (size_t i = 0; i < n; i++)
        if (rows[i]) memcpy(x + i * n_embd, rows[i], n_embd * sizeof *x);
    double d = distance(array_named("f32.merged"), 0, x, n * n_embd);
    printf("  %-24s off by %.2e\n", "f32.merged", d);
    assert_true(d < 1e-3);
    free(x);
    close_model(&o);
}

static void logits_and_tokens_are_those_of_mlx(void **state) {
    (void)state;
    static const struct {
        const char *name;
        int bits, step;
    } configs[] = {{"none", 0, 2048}, {"kv4_g64", 4, 2048}, {"kv8_g64", 8, 2048}, {"kv4_g64_step64", 4, 64}};
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++)
        for (int half = 0; half < 2; half++) {
            char name[64];
            int n_wrong;
            model o = open_model(half ? NULL : "f32", configs[i].bits, configs[i].step, true);
            snprintf(name, sizeof name, "%s%s", half ? "" : "f32.", configs[i].name);
            double worst = follow(&o, name, configs[i].step, &n_wrong);
            printf("  %-24s off by %.2e, %d ids differ\n", name, worst, n_wrong);
            /* Half precision moves a quantized cache by whole codes. */
            assert_true(worst < (half ? 0.5 : configs[i].bits ? 1e-2 : 1e-3));
            assert_true(half || n_wrong == 0);
            close_model(&o);
        }
}

static void text_alone_reads_as_in_a_text_model(void **state) {
    (void)state;
    int n_wrong;
    model o = open_model("f32", 0, 2048, true);
    free(o.ids);
    const kvant_safetensor *t = array_named("prompt_token_ids_before_expansion"); /* its [IMG] is a token like others */
    o.n = (int)(t->bytes / 4);
    o.ids = calloc((size_t)o.n, sizeof *o.ids);
    for (int i = 0; i < o.n; i++)
        o.ids[i] = (int32_t)kvant_read_u32(t->data + 4 * (size_t)i);
    double worst = follow(&o, "f32.textonly", 2048, &n_wrong);
    printf("  %-24s off by %.2e, %d ids differ\n", "f32.textonly", worst, n_wrong);
    assert_true(worst < 1e-3 && n_wrong == 0);
    close_model(&o);
}

/* ---- prompts ---- */

static void one_place_becomes_the_golden_ids(void **state) {
    (void)state;
    model o = open_model("f32", 0, 2048, false);
    const kvant_safetensor *before = array_named("prompt_token_ids_before_expansion");
    int n_before = (int)(before->bytes / 4), n = 0;
    int32_t ids[256], *expanded = NULL;
    kvant_error err;
    assert_in_range(n_before, 1, 256);
    for (int i = 0; i < n_before; i++)
        ids[i] = (int32_t)kvant_read_u32(before->data + 4 * (size_t)i);
    if (kvant_image_expand(o.m, ids, n_before, &o.image, 1, &expanded, &n, &err) != KVANT_OK) fail_msg("%s", err.message);
    assert_int_equal(n + 1, o.n); /* MLX's processor adds a second BOS */
    assert_memory_equal(expanded, o.ids + 1, (size_t)n * sizeof *expanded);
    kvant_ids_free(expanded);
    assert_int_equal(kvant_image_expand(o.m, ids, n_before, NULL, 0, &expanded, &n, &err), KVANT_EINVAL);
    assert_int_equal(kvant_image_expand(o.m, ids, 5, &o.image, 1, &expanded, &n, &err), KVANT_EINVAL);
    close_model(&o);
}

/* ---- what is known is not computed again ---- */

static void read_prompt(model *o, kvant_session *s, const int32_t *ids, int n, kvant_sync_result *r) {
    kvant_error err;
    (void)o;
    if (kvant_session_sync(s, ids, n, NULL, NULL, r, &err) != KVANT_OK) fail_msg("%s", err.message);
}

static kvant_session *new_session(const model *o) {
    kvant_session_params params;
    kvant_session *s;
    kvant_error err;
    kvant_session_params_default(&params);
    params.precision = KVANT_EXACT;
    if (kvant_session_create(o->m, &params, &s, &err) != KVANT_OK) fail_msg("%s", err.message);
    return s;
}

static void a_second_question_computes_neither_picture_nor_its_tokens(void **state) {
    (void)state;
    model o = open_model("f32", 0, 512, false);
    kvant_sync_result r;
    kvant_error err;
    int n_shared = o.n - 8;
    float *first = malloc((size_t)o.n_vocab * sizeof *first);
    read_prompt(&o, o.s, o.ids, o.n, &r);
    assert_int_equal(r.n_computed, o.n);
    assert_int_equal(o.m->n_images_computed, 1);
    memcpy(first, kvant_session_logits(o.s), (size_t)o.n_vocab * sizeof *first);
    kvant_session_destroy(o.s); /* kept in memory */
    kvant_image_close(o.image);
    if (kvant_image_open(o.m, ROOT "/image_a.png", &o.image, &err) != KVANT_OK) fail_msg("%s", err.message);
    o.s = new_session(&o);
    for (int i = n_shared; i < o.n; i++)
        o.ids[i] = 20 + i % 7;
    read_prompt(&o, o.s, o.ids, o.n, &r);
    assert_int_equal(r.n_from_ram, n_shared);
    assert_int_equal(o.m->n_images_computed, 1);
    /* And the answer is that of one who had to compute all. */
    model fresh = open_model("f32", 0, 512, false);
    memcpy(fresh.ids, o.ids, (size_t)o.n * sizeof *o.ids);
    read_prompt(&fresh, fresh.s, fresh.ids, fresh.n, &r);
    assert_memory_equal(kvant_session_logits(fresh.s), kvant_session_logits(o.s), (size_t)o.n_vocab * sizeof *first);
    assert_memory_not_equal(first, kvant_session_logits(o.s), (size_t)o.n_vocab * sizeof *first);
    close_model(&fresh);
    close_model(&o);
    free(first);
}

static void another_picture_in_the_same_place_is_read(void **state) {
    (void)state;
    model o = open_model("f32", 0, 512, false);
    kvant_image *other;
    kvant_sync_result r;
    kvant_error err;
    int begin = 0;
    float *first = malloc((size_t)o.n_vocab * sizeof *first);
    while (o.ids[begin] >= 0)
        begin++;
    read_prompt(&o, o.s, o.ids, o.n, &r);
    memcpy(first, kvant_session_logits(o.s), (size_t)o.n_vocab * sizeof *first);
    if (kvant_image_open(o.m, ROOT "/image_b.png", &other, &err) != KVANT_OK) fail_msg("%s", err.message);
    for (int i = 0, patch = 0; i < o.n; i++)
        if (o.ids[i] < 0) o.ids[i] = other->ids[patch++];
    read_prompt(&o, o.s, o.ids, o.n, &r);
    assert_int_equal(r.n_reused, begin);
    assert_int_equal(o.m->n_images_computed, 2);
    assert_memory_not_equal(first, kvant_session_logits(o.s), (size_t)o.n_vocab * sizeof *first);
    kvant_image_close(other);
    close_model(&o);
    free(first);
}

static void patches_of_no_open_picture_are_refused(void **state) {
    (void)state;
    model o = open_model("f32", 0, 512, false);
    int32_t ids[3] = {1, -77, 5};
    kvant_error err;
    assert_int_equal(kvant_session_prefill(o.s, ids, 3, NULL, NULL, &err), KVANT_EINVAL);
    assert_non_null(strstr(err.message, "picture"));
    assert_int_equal(kvant_session_prefill(o.s, ids, 1, NULL, NULL, &err), KVANT_OK); /* and it goes on */
    close_model(&o);
}

/* The mean divergence of the next token's distribution, over all positions of the prompt, from float32's. */
static double divergence_of(const char *kv, float *exact) {
    model o = open_model(kv, 0, 512, false);
    kvant_error err;
    size_t n_vocab = (size_t)o.n_vocab;
    float *rows = malloc((size_t)o.n * n_vocab * sizeof *rows);
    double sum = 0;
    if (kvant_session_step(o.s, o.ids, o.n, rows, &err) != KVANT_OK) fail_msg("%s", err.message);
    for (int i = 0; i < o.n; i++) {
        const float *p = exact + (size_t)i * n_vocab, *q = rows + (size_t)i * n_vocab;
        double p_sum = 0, q_sum = 0, kl = 0;
        for (size_t k = 0; k < n_vocab; k++)
            p_sum += exp((double)p[k]), q_sum += exp((double)q[k]);
        for (size_t k = 0; k < n_vocab; k++)
            kl += exp((double)p[k]) / p_sum * ((double)p[k] - (double)q[k] - log(p_sum) + log(q_sum));
        sum += kl;
    }
    if (strcmp(kv, "f32") == 0) memcpy(exact, rows, (size_t)o.n * n_vocab * sizeof *rows);
    free(rows);
    double mean = sum / o.n;
    close_model(&o);
    return mean;
}

static void quantized_caches_stay_close(void **state) {
    (void)state;
    static const struct {
        const char *kv;
        double most;
    } formats[] = {{"f16", 1e-5}, {"i8", 2e-3}, {"bz4/bc4", 0.1}};
    float *exact = calloc((size_t)180 * 400, sizeof *exact);
    (void)divergence_of("f32", exact);
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        double d = divergence_of(formats[i].kv, exact);
        printf("  %-24s mean divergence %.2e\n", formats[i].kv, d);
        assert_true(d >= -1e-9 && d < formats[i].most);
    }
    free(exact);
}

/* ---- the vision model in a GGUF file of its own ---- */

#define MMPROJ "test_pixtral_mmproj.gguf"

static bool starts_with(kvant_text t, const char *what) {
    return t.size >= strlen(what) && memcmp(t.data, what, strlen(what)) == 0;
}

static bool ends_with(kvant_text t, const char *what) {
    return t.size >= strlen(what) && memcmp(t.data + t.size - strlen(what), what, strlen(what)) == 0;
}

static size_t elements_of(const kvant_gguf_tensor *t) { return (size_t)(t->dims[0] * t->dims[1] * t->dims[2] * t->dims[3]); }

/* As such files have them: rows of a head's two halves alternate in q and k; colours of patches come first. */
static float *convert(const kvant_gguf_tensor *t, int n_head) {
    size_t n = elements_of(t), cols = (size_t)t->dims[0];
    float *x = malloc(n * sizeof *x), *y = malloc(n * sizeof *y);
    kvant_weight_decode_row(t->type, t->parts[0].data, (int64_t)n, x);
    memcpy(y, x, n * sizeof *y);
    if (ends_with(t->name, "attn_q.weight") || ends_with(t->name, "attn_k.weight")) {
        size_t head_dim = (size_t)t->dims[1] / (size_t)n_head, half = head_dim / 2;
        for (size_t r = 0; r < (size_t)t->dims[1]; r++) {
            size_t in_head = r % head_dim, to = r - in_head + (in_head < half ? 2 * in_head : 2 * (in_head - half) + 1);
            memcpy(y + to * cols, x + r * cols, cols * sizeof *y);
        }
    }
    if (ends_with(t->name, "patch_embd.weight")) {
        size_t side = (size_t)t->dims[1], plane = side * side;
        for (size_t i = 0; i < n; i++) {
            size_t c = i % 3, pixel = i / 3 % plane, out = i / (3 * plane);
            y[(out * 3 + c) * plane + pixel] = x[i];
        }
    }
    free(x);
    return y;
}

static void put_colours(gguf_builder *b, const char *key, const float *x) {
    put_array(b, key, KVANT_GGUF_F32, 3);
    for (int i = 0; i < 3; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        put_uint(b, bits, 4);
    }
}

static void write_mmproj(const char *projector, uint32_t merge) {
    tower o = open_tower();
    static gguf_builder b;
    uint64_t offset = 0;
    int n = 0;
    for (int i = 0; i < o.file->n_tensors; i++)
        n += starts_with(o.file->tensors[i].name, "v.") || starts_with(o.file->tensors[i].name, "mm.");
    put_header(&b, 3, (uint64_t)n, 13);
    put_string(&b, "general.architecture", "clip");
    put_string(&b, "general.type", "mmproj");
    put_string(&b, "clip.projector_type", projector);
    put_u32(&b, "clip.vision.spatial_merge_size", merge);
    put_u32(&b, "clip.vision.block_count", 2);
    put_u32(&b, "clip.vision.embedding_length", 64);
    put_u32(&b, "clip.vision.feed_forward_length", 128);
    put_u32(&b, "clip.vision.attention.head_count", 2);
    put_u32(&b, "clip.vision.patch_size", 16);
    put_u32(&b, "clip.vision.image_size", 128);
    put_scalar(&b, "clip.vision.attention.layer_norm_epsilon", KVANT_GGUF_F32, 0x3727C5AC, 4); /* 1e-5 */
    put_colours(&b, "clip.vision.image_mean", kvant_pixtral_get_rules(o.t)->mean);
    put_colours(&b, "clip.vision.image_std", kvant_pixtral_get_rules(o.t)->deviation);
    FILE *f = fopen(MMPROJ, "wb");
    assert_non_null(f);
    for (int pass = 0; pass < 2; pass++) {
        if (pass == 1) {
            put_padding(&b, 32);
            fwrite(b.data, 1, b.size, f);
        }
        for (int i = 0; i < o.file->n_tensors; i++) {
            const kvant_gguf_tensor *t = &o.file->tensors[i];
            char name[64];
            if (!starts_with(t->name, "v.") && !starts_with(t->name, "mm.")) continue;
            size_t bytes = elements_of(t) * sizeof(float);
            assert_int_equal(bytes % 32, 0);
            if (pass == 0) {
                uint64_t dims[4];
                for (int d = 0; d < 4; d++)
                    dims[d] = (uint64_t)t->dims[d];
                if (t->n_dims == 4) dims[0] = dims[1], dims[2] = 3;
                snprintf(name, sizeof name, "%.*s", (int)t->name.size, t->name.data);
                put_tensor(&b, name, (uint32_t)t->n_dims, dims, 0, offset);
                offset += bytes;
            } else {
                float *x = convert(t, 2);
                fwrite(x, 1, bytes, f);
                free(x);
            }
        }
    }
    fclose(f);
    close_tower(&o);
}

static void a_gguf_file_of_the_vision_model_gives_the_same(void **state) {
    (void)state;
    kvant_load_params load;
    kvant_model *m;
    kvant_image *image;
    kvant_error err;
    const float *rows[48];
    write_mmproj("pixtral", 1);
    kvant_load_params_default(&load);
    load.n_threads = 2;
    load.mmproj = MMPROJ;
    if (kvant_model_open(ROOT, &load, &m, &err) != KVANT_OK) fail_msg("%s", err.message);
    if (kvant_image_open(m, ROOT "/image_a.png", &image, &err) != KVANT_OK) fail_msg("%s", err.message);
    if (kvant_model_find_rows(m, image->ids, 48, rows, &err) != KVANT_OK) fail_msg("%s", err.message);
    double d = distance(array_named("f32.image_features"), 0, rows[0], 48 * 64);
    printf("  %-24s off by %.2e\n", "features by GGUF", d);
    assert_true(d < 1e-3);
    kvant_image_close(image);
    kvant_model_close(m);
    remove(MMPROJ);
}

static void other_vision_models_are_refused_by_name(void **state) {
    (void)state;
    kvant_load_params load;
    kvant_model *m;
    kvant_error err;
    kvant_load_params_default(&load);
    load.mmproj = MMPROJ;
    write_mmproj("qwen2vl_merger", 1);
    assert_int_equal(kvant_model_open(ROOT, &load, &m, &err), KVANT_EUNSUPPORTED);
    assert_non_null(strstr(err.message, "qwen2vl_merger"));
    assert_non_null(strstr(err.message, "pixtral"));
    write_mmproj("pixtral", 2);
    assert_int_equal(kvant_model_open(ROOT, &load, &m, &err), KVANT_EUNSUPPORTED);
    assert_non_null(strstr(err.message, "merge"));
    remove(MMPROJ);
    load.mmproj = ROOT "/no such file";
    assert_int_equal(kvant_model_open(ROOT, &load, &m, &err), KVANT_EIO);
}

/* Whatever its head says, it is refused with a sentence, or the vision model runs. */
static void damaged_vision_files_never_crash(void **state) {
    (void)state;
    kvant_context *ctx;
    kvant_error err;
    uint8_t *bytes;
    size_t size;
    unsigned seed = 20250402;
    int n_loaded = 0;
    printf("  seed %u\n", seed);
    write_mmproj("pixtral", 1);
    if (kvant_os_read_file(MMPROJ, (size_t)1 << 24, &bytes, &size, &err) != KVANT_OK) fail_msg("%s", err.message);
    if (kvant_context_create(1, KVANT_ISA_BEST, &ctx, &err) != KVANT_OK) fail_msg("%s", err.message);
    for (int round = 0; round < 300; round++) {
        uint8_t *copy = malloc(size);
        kvant_gguf *f;
        kvant_pixtral *t;
        memcpy(copy, bytes, size);
        for (int k = 0; k <= round % 2; k++) {
            seed = seed * 1664525u + 1013904223u;
            copy[(seed >> 8) % 2500] = (uint8_t)(seed % 3 ? seed >> 24 & 7 : seed >> 16);
        }
        if (kvant_gguf_parse("damaged", copy, size, NULL, &f, &err) == KVANT_OK) {
            err.message[0] = '\0';
            if (kvant_pixtral_load(ctx, f, 64, &t, &err) == KVANT_OK) {
                uint8_t pixel[3] = {1, 2, 3};
                kvant_pixels p = {1, 1, pixel};
                float *x, features[64];
                n_loaded++;
                assert_int_equal(kvant_pixtral_prepare(kvant_pixtral_get_rules(t), &p, &x), KVANT_OK);
                assert_int_equal(kvant_pixtral_encode(t, x, 1, 1, features, NULL, NULL), KVANT_OK);
                kvant_free_aligned(x);
                kvant_pixtral_destroy(t);
            } else if (!err.message[0] || strchr(err.message, '\n')) {
                fail_msg("round %d: no sentence", round);
            }
            kvant_gguf_close(f);
        }
        free(copy);
    }
    printf("  %d of 300 still run\n", n_loaded);
    assert_true(n_loaded > 0);
    kvant_free(bytes);
    kvant_context_destroy(ctx);
    remove(MMPROJ);
}

int main(void) {
    kvant_error err;
    if (kvant_safetensors_open(ROOT "/golden.safetensors", &golden, &err) != KVANT_OK) {
        printf("skipped: %s is absent\n", ROOT);
        return SKIPPED;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pictures_are_prepared_as_by_the_processor),
        cmocka_unit_test(the_tower_gives_the_features_of_mlx),
        cmocka_unit_test(patches_and_tokens_are_merged_as_by_mlx),
        cmocka_unit_test(logits_and_tokens_are_those_of_mlx),
        cmocka_unit_test(text_alone_reads_as_in_a_text_model),
        cmocka_unit_test(one_place_becomes_the_golden_ids),
        cmocka_unit_test(a_second_question_computes_neither_picture_nor_its_tokens),
        cmocka_unit_test(another_picture_in_the_same_place_is_read),
        cmocka_unit_test(patches_of_no_open_picture_are_refused),
        cmocka_unit_test(quantized_caches_stay_close),
        cmocka_unit_test(a_gguf_file_of_the_vision_model_gives_the_same),
        cmocka_unit_test(other_vision_models_are_refused_by_name),
        cmocka_unit_test(damaged_vision_files_never_crash),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    kvant_safetensors_close(golden);
    return failed;
}
