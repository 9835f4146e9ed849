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
#include "vision/pixtral_tower.h"

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

int main(void) {
    kvant_error err;
    if (kvant_safetensors_open(ROOT "/golden.safetensors", &golden, &err) != KVANT_OK) {
        printf("skipped: %s is absent\n", ROOT);
        return SKIPPED;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pictures_are_prepared_as_by_the_processor),
        cmocka_unit_test(the_tower_gives_the_features_of_mlx),
        cmocka_unit_test(logits_and_tokens_are_those_of_mlx),
        cmocka_unit_test(text_alone_reads_as_in_a_text_model),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    kvant_safetensors_close(golden);
    return failed;
}
