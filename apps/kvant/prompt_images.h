// SPDX-License-Identifier: MIT
/* prompt_images.h: the pictures of a prompt, typed as files. */
#ifndef KVANT_APP_PROMPT_IMAGES_H
#define KVANT_APP_PROMPT_IMAGES_H

#include "kvant/engine.h"
#include "options.h"

#define IMAGE_PLACE "[IMG]"

typedef struct prompt_images {
    kvant_image *items[OPTION_LIST_MAX];
    int n;
} prompt_images;

/* A text with a place for each of n pictures before it, unless it has places itself; freed with free(). NULL: out of memory. */
char *prompt_images_add_places(const char *text, int n);
/* Opens the files and says on stderr what they are. 0, or an exit code with a sentence on stderr. */
int prompt_images_open(prompt_images *p, kvant_model *m, const option_list *files);
/* Puts the pictures into the ids (kvant_ids_free). 0, or an exit code as above. */
int prompt_images_expand(const prompt_images *p, const kvant_model *m, int32_t **ids, int *n);
void prompt_images_close(prompt_images *p);

#endif
