// SPDX-License-Identifier: MIT
/* stop_text.h: ends an answer at a stop string that may be split over tokens.
 *
 * Text goes in a piece at a time; what comes out never contains a stop string nor a beginning of one that later pieces complete.
 */
#ifndef KVANT_ENGINE_STOP_TEXT_H
#define KVANT_ENGINE_STOP_TEXT_H

#include <stdbool.h>
#include <stddef.h>

typedef struct kvant_stop_text {
    int n;
    const char *const *stops; /* [n], borrowed, none empty */
    char *held;               /* not handed out yet: the beginning of a stop string, perhaps */
    size_t size, room;
    size_t out; /* of held, what the last call handed out */
    bool found;
} kvant_stop_text;

void kvant_stop_text_begin(kvant_stop_text *s, const char *const *stops, int n);
void kvant_stop_text_free(kvant_stop_text *s);
/* *out, *out_size: what can be shown now, valid until the next call. After a stop string was found nothing more is shown.
 * false: out of memory. */
bool kvant_stop_text_push(kvant_stop_text *s, const char *text, size_t size, const char **out, size_t *out_size);
/* What was held for nothing, at the end of the answer. */
void kvant_stop_text_finish(kvant_stop_text *s, const char **out, size_t *out_size);

#endif
