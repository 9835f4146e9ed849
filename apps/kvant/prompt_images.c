// SPDX-License-Identifier: MIT
/* prompt_images.c: opens the pictures of a prompt and puts them into their places. */
#include "prompt_images.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "report.h"

char *prompt_images_add_places(const char *text, int n) {
    size_t place = strlen(IMAGE_PLACE), size = strlen(text), n_added = strstr(text, IMAGE_PLACE) ? 0 : (size_t)n;
    char *out = malloc(n_added * place + size + 1);
    if (!out) return NULL;
    for (size_t i = 0; i < n_added; i++)
        memcpy(out + i * place, IMAGE_PLACE, place);
    memcpy(out + n_added * place, text, size + 1);
    return out;
}

int prompt_images_open(prompt_images *p, kvant_model *m, const option_list *files) {
    kvant_error err = {0};
    for (int i = 0; i < files->n; i++) {
        kvant_status st = kvant_image_open(m, files->items[i], &p->items[i], &err);
        if (st != KVANT_OK) return fail_with(st == KVANT_EINVAL ? 2 : 1, "%s", err.message);
        p->n++;
        kvant_image_info info = kvant_image_get_info(p->items[i]);
        fprintf(stderr, "kvant: %s: %d x %d pixels, read as %d x %d patches, %d tokens\n", files->items[i], info.width,
                info.height, info.columns, info.rows, info.n_tokens);
    }
    return 0;
}

int prompt_images_expand(const prompt_images *p, const kvant_model *m, int32_t **ids, int *n) {
    kvant_error err = {0};
    int32_t *expanded;
    int n_expanded;
    kvant_status st = kvant_image_expand(m, *ids, *n, p->items, p->n, &expanded, &n_expanded, &err);
    if (st != KVANT_OK) return fail_with(st == KVANT_EINVAL ? 2 : 1, "%s", err.message);
    kvant_ids_free(*ids);
    *ids = expanded;
    *n = n_expanded;
    return 0;
}

void prompt_images_close(prompt_images *p) {
    for (int i = 0; i < p->n; i++)
        kvant_image_close(p->items[i]);
    p->n = 0;
}
