// SPDX-License-Identifier: MIT
/* image.c: pictures that are open in a model: their ids, their features, and their places in a prompt.
 *
 * Pictures that were closed stay for a while with their features: the next question on the same one finds them by their hash. */
#include "engine/image.h"

#include <string.h>

#include "base/memory.h"
#include "engine/fingerprint.h"
#include "file/folder.h"

#define CLOSED_BYTES_MAX ((size_t)256 << 20) /* of features of pictures that are closed */
#define EXPANDED_MAX (1 << 27)

/* ---- the vision model ---- */

static kvant_status load_tower(kvant_model *m, const kvant_gguf *f, kvant_error *err) {
    uint32_t token;
    KVANT_TRY(kvant_pixtral_load(m->ctx, f, m->info.n_embd, &m->vision, err));
    KVANT_TRY(kvant_gguf_u32_or(f, "kvant.vision.image_token", UINT32_MAX, &token, err));
    m->image_token = token < (uint32_t)m->info.n_vocab ? (int32_t)token : -1;
    kvant_fingerprint_file(f, m->vision_fingerprint);
    m->info.weight_bytes += kvant_pixtral_bytes(m->vision);
    return KVANT_OK;
}

/* The id of a special token, -1: the vocabulary has none. */
static int32_t special_token(const kvant_model *m, const char *text) {
    int32_t *ids = NULL, id = -1;
    int n = 0;
    if (!m->tokenizer || kvant_tokenize(m, text, strlen(text), false, true, &ids, &n, NULL) != KVANT_OK) return -1;
    if (n == 1 && ids[0] < m->info.n_vocab) id = ids[0];
    kvant_ids_free(ids);
    return id;
}

kvant_status kvant_model_load_vision(kvant_model *m, const char *projector, kvant_error *err) {
    const kvant_gguf *f = m->file;
    m->image_token = m->image_break = m->image_end = -1;
    if (projector) {
        KVANT_TRY(kvant_model_file_open(projector, &m->projector, err));
        f = m->projector;
        if (!kvant_vision_is_there(f))
            return kvant_fail(err, KVANT_EINVAL, "%s: has no vision model to read pictures with", projector);
    } else if (!kvant_vision_is_there(f)) {
        return KVANT_OK;
    }
    KVANT_TRY(load_tower(m, f, err));
    if (m->image_token < 0) m->image_token = special_token(m, "[IMG]");
    m->image_break = special_token(m, "[IMG_BREAK]");
    m->image_end = special_token(m, "[IMG_END]");
    return KVANT_OK;
}

static void free_image(kvant_image *image) {
    kvant_free(image->ids);
    kvant_free_aligned(image->picture);
    kvant_free_aligned(image->features);
    kvant_free(image);
}

void kvant_model_free_vision(kvant_model *m) {
    for (kvant_image *i = m->images, *next; i; i = next) {
        next = i->next;
        free_image(i);
    }
    kvant_pixtral_destroy(m->vision);
    kvant_gguf_close(m->projector);
}

/* ---- opening ---- */

static kvant_status require_vision(const kvant_model *m, kvant_error *err) {
    if (m->vision) return KVANT_OK;
    return kvant_fail(err, KVANT_EINVAL,
                      "%s: is a text model, which reads no pictures; Kvant runs pixtral models, from a folder or with "
                      "the GGUF file of their vision model (--mmproj)",
                      m->path);
}

/* 31 bits for each patch: together they tell any two pictures apart. */
static void make_ids(kvant_image *image) {
    for (int i = 0; i < image->columns * image->rows; i++) {
        kvant_hash h;
        uint8_t bytes[KVANT_HASH_BYTES];
        kvant_hash_begin(&h);
        kvant_hash_add(&h, image->hash, sizeof image->hash);
        kvant_hash_add_u64(&h, (uint64_t)i);
        kvant_hash_get(&h, bytes);
        uint32_t bits = (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
        image->ids[i] = -1 - (int32_t)(bits >> 1);
    }
}

static void hash_picture(const kvant_model *m, const float *picture, int columns, int rows, uint8_t out[KVANT_HASH_BYTES]) {
    size_t side = (size_t)kvant_pixtral_get_rules(m->vision)->patch;
    kvant_hash h;
    kvant_hash_begin(&h);
    kvant_hash_add(&h, m->vision_fingerprint, sizeof m->vision_fingerprint);
    kvant_hash_add_u64(&h, (uint64_t)columns);
    kvant_hash_add_u64(&h, (uint64_t)rows);
    kvant_hash_add(&h, picture, 3 * side * side * (size_t)columns * (size_t)rows * sizeof *picture);
    kvant_hash_get(&h, out);
}

/* A known picture comes to the front of the list. */
static kvant_image *find_image(kvant_model *m, const uint8_t hash[KVANT_HASH_BYTES]) {
    for (kvant_image **at = &m->images; *at; at = &(*at)->next) {
        kvant_image *image = *at;
        if (memcmp(image->hash, hash, KVANT_HASH_BYTES) != 0) continue;
        *at = image->next;
        image->next = m->images;
        m->images = image;
        return image;
    }
    return NULL;
}

/* Takes over the picture. */
static kvant_image *create_image(kvant_model *m, float *picture, int columns, int rows, const uint8_t hash[KVANT_HASH_BYTES]) {
    kvant_image *image = kvant_alloc(1, sizeof *image);
    int32_t *ids = kvant_alloc((size_t)columns * (size_t)rows, sizeof *ids);
    if (!image || !ids) {
        kvant_free(image);
        kvant_free(ids);
        return NULL;
    }
    *image = (kvant_image){.model = m, .next = m->images, .columns = columns, .rows = rows, .ids = ids, .picture = picture};
    memcpy(image->hash, hash, KVANT_HASH_BYTES);
    make_ids(image);
    m->images = image;
    return image;
}

static kvant_status open_pixels(kvant_model *m, const char *name, const kvant_pixels *p, kvant_image **out, kvant_error *err) {
    const kvant_pixtral_rules *rules = kvant_pixtral_get_rules(m->vision);
    float *picture;
    int columns, rows;
    uint8_t hash[KVANT_HASH_BYTES];
    kvant_pixtral_grid(rules, p->width, p->height, &columns, &rows);
    if (kvant_pixtral_prepare(rules, p, &picture) != KVANT_OK)
        return kvant_fail(err, KVANT_ENOMEM, "%s: no memory to prepare it", name);
    hash_picture(m, picture, columns, rows, hash);
    kvant_image *image = find_image(m, hash);
    if (image) {
        kvant_free_aligned(picture);
    } else {
        image = create_image(m, picture, columns, rows, hash);
        if (!image) {
            kvant_free_aligned(picture);
            return kvant_fail(err, KVANT_ENOMEM, "%s: no memory to prepare it", name);
        }
    }
    image->width = p->width;
    image->height = p->height;
    image->n_references++;
    *out = image;
    return KVANT_OK;
}

kvant_status kvant_image_parse(kvant_model *m, const char *name, const void *bytes, size_t size, kvant_image **out,
                               kvant_error *err) {
    kvant_pixels pixels;
    KVANT_TRY(require_vision(m, err));
    KVANT_TRY(kvant_pixels_read(name, bytes, size, KVANT_IMAGE_MAX_PIXELS, &pixels, err));
    kvant_status st = open_pixels(m, name, &pixels, out, err);
    kvant_pixels_free(&pixels);
    return st;
}

kvant_status kvant_image_open(kvant_model *m, const char *path, kvant_image **out, kvant_error *err) {
    uint8_t *bytes;
    size_t size;
    KVANT_TRY(require_vision(m, err));
    KVANT_TRY(kvant_os_read_file(path, KVANT_IMAGE_MAX_BYTES, &bytes, &size, err));
    kvant_status st = kvant_image_parse(m, path, bytes, size, out, err);
    kvant_free(bytes);
    return st;
}

/* Of the closed pictures, those used last stay. */
static void drop_closed(kvant_model *m) {
    size_t bytes = 0, n_embd = (size_t)m->info.n_embd;
    for (kvant_image **at = &m->images; *at;) {
        kvant_image *image = *at;
        if (image->n_references == 0) bytes += (size_t)(image->columns * image->rows) * n_embd * sizeof(float);
        if (image->n_references > 0 || bytes <= CLOSED_BYTES_MAX) {
            at = &image->next;
            continue;
        }
        *at = image->next;
        free_image(image);
    }
}

void kvant_image_close(kvant_image *image) {
    if (!image) return;
    image->n_references--;
    drop_closed(image->model);
}

kvant_image_info kvant_image_get_info(const kvant_image *image) {
    return (kvant_image_info){.width = image->width,
                              .height = image->height,
                              .columns = image->columns,
                              .rows = image->rows,
                              .n_tokens = image->rows * (image->columns + 1)};
}

/* ---- prompts ---- */

/* Rows of patches, a token after each row, another one after the last. */
static int32_t *write_image(const kvant_model *m, const kvant_image *image, int32_t *to) {
    for (int y = 0; y < image->rows; y++) {
        memcpy(to, image->ids + (size_t)y * (size_t)image->columns, (size_t)image->columns * sizeof *to);
        to += image->columns;
        *to++ = y + 1 < image->rows ? m->image_break : m->image_end;
    }
    return to;
}

static kvant_status check_places(const kvant_model *m, const int32_t *ids, int n, kvant_image *const *images, int n_images,
                                 int64_t *total, kvant_error *err) {
    int places = 0;
    *total = n;
    KVANT_TRY(require_vision(m, err));
    if (m->image_token < 0 || m->image_break < 0 || m->image_end < 0)
        return kvant_fail(err, KVANT_EUNSUPPORTED,
                          "%s: its vocabulary lacks [IMG], [IMG_BREAK] or [IMG_END], between which a picture stands", m->path);
    for (int i = 0; i < n; i++)
        places += ids[i] == m->image_token;
    for (int i = 0; i < n_images; i++)
        *total += (int64_t)kvant_image_get_info(images[i]).n_tokens - 1;
    if (places != n_images)
        return kvant_fail(err, KVANT_EINVAL, "prompt: found %d places for pictures ([IMG]), expected as many as pictures, %d",
                          places, n_images);
    if (*total > EXPANDED_MAX)
        return kvant_fail(err, KVANT_EINVAL, "prompt: found %lld tokens with its pictures, expected at most %d",
                          (long long)*total, EXPANDED_MAX);
    for (int i = 0; i < n_images; i++)
        if (images[i]->model != m) return kvant_fail(err, KVANT_EINVAL, "prompt: picture %d was opened by another model", i + 1);
    return KVANT_OK;
}

kvant_status kvant_image_expand(const kvant_model *m, const int32_t *ids, int n, kvant_image *const *images, int n_images,
                                int32_t **out, int *n_out, kvant_error *err) {
    int64_t total;
    KVANT_TRY(check_places(m, ids, n, images, n_images, &total, err));
    int32_t *expanded = kvant_alloc((size_t)total + 1, sizeof *expanded), *to = expanded;
    if (!expanded) return kvant_fail(err, KVANT_ENOMEM, "prompt: no memory for %lld tokens", (long long)total);
    for (int i = 0; i < n; i++) {
        if (ids[i] == m->image_token)
            to = write_image(m, *images++, to);
        else
            *to++ = ids[i];
    }
    *out = expanded;
    *n_out = (int)total;
    return KVANT_OK;
}

int32_t kvant_model_image_token(const kvant_model *m) { return m->vision ? m->image_token : -1; }

/* ---- what a step reads ---- */

static kvant_status compute_features(kvant_model *m, kvant_image *image, kvant_error *err) {
    if (image->features) return KVANT_OK;
    size_t n = (size_t)image->columns * (size_t)image->rows;
    float *features = kvant_alloc_aligned(n * (size_t)m->info.n_embd, sizeof *features);
    kvant_status st = features
                          ? kvant_pixtral_encode(m->vision, image->picture, image->columns, image->rows, features, NULL, NULL)
                          : KVANT_ENOMEM;
    if (st != KVANT_OK) {
        kvant_free_aligned(features);
        return kvant_fail(err, st, "picture: no memory for its %zu patches", n);
    }
    image->features = features;
    kvant_free_aligned(image->picture);
    image->picture = NULL;
    m->n_images_computed++;
    return KVANT_OK;
}

/* How many of ids [n] are the patches of the picture from `patch` on; breaks between them belong to it too. */
static int run_length(const kvant_image *image, int patch, const int32_t *ids, int n) {
    int end = image->columns * image->rows, same = 0;
    for (; same < n && patch < end; same++) {
        if (ids[same] < 0 && ids[same] != image->ids[patch]) break;
        patch += ids[same] < 0;
    }
    return same;
}

/* The picture and patch that ids [n], the first one negative, begin with: of several that fit, the one that fits longest. */
static kvant_image *find_patch(const kvant_model *m, const int32_t *ids, int n, int *patch) {
    kvant_image *found = NULL;
    int longest = 0;
    for (kvant_image *image = m->images; image; image = image->next)
        for (int p = 0; p < image->columns * image->rows; p++) {
            int length = ids[0] == image->ids[p] ? run_length(image, p, ids, n) : 0;
            if (length <= longest) continue;
            longest = length;
            found = image;
            *patch = p;
        }
    return found;
}

kvant_status kvant_model_find_rows(kvant_model *m, const int32_t *ids, int n, const float **rows, kvant_error *err) {
    kvant_image *image = NULL;
    int patch = 0;
    for (int i = 0; i < n; i++) {
        rows[i] = NULL;
        if (ids[i] >= 0) continue;
        bool goes_on = image && patch < image->columns * image->rows && image->ids[patch] == ids[i];
        if (!goes_on) image = find_patch(m, ids + i, n - i, &patch);
        if (!image)
            return kvant_fail(err, KVANT_EINVAL, "token %d: found id %d, which stands for a picture that is not open", i,
                              (int)ids[i]);
        KVANT_TRY(compute_features(m, image, err));
        rows[i] = image->features + (size_t)patch++ * (size_t)m->info.n_embd;
    }
    return KVANT_OK;
}
