// SPDX-License-Identifier: MIT
/* stop_text.c: the earliest stop string ends the text; an end of the text that could become one is held back. */
#include "engine/stop_text.h"

#include <string.h>

#include "base/memory.h"

void kvant_stop_text_begin(kvant_stop_text *s, const char *const *stops, int n) { *s = (kvant_stop_text){.n = n, .stops = stops}; }

void kvant_stop_text_free(kvant_stop_text *s) {
    kvant_free(s->held);
    s->held = NULL;
}

/* Forgets what was handed out and appends. */
static bool append(kvant_stop_text *s, const char *text, size_t size) {
    if (s->out) memmove(s->held, s->held + s->out, s->size - s->out);
    s->size -= s->out;
    s->out = 0;
    if (s->size + size > s->room) {
        size_t room = 2 * (s->size + size);
        char *held = kvant_realloc(s->held, room, 1);
        if (!held) return false;
        s->held = held;
        s->room = room;
    }
    if (size) memcpy(s->held + s->size, text, size);
    s->size += size;
    return true;
}

/* How much of a stop string stands at `at`: all of it, a beginning that ends with the text, or nothing. */
static bool stands_at(const kvant_stop_text *s, const char *stop, size_t at, bool *whole) {
    size_t length = strlen(stop), left = s->size - at;
    *whole = left >= length;
    return memcmp(s->held + at, stop, *whole ? length : left) == 0;
}

bool kvant_stop_text_push(kvant_stop_text *s, const char *text, size_t size, const char **out, size_t *out_size) {
    *out = "";
    *out_size = 0;
    if (s->found) return true;
    if (!append(s, text, size)) return false;
    size_t held_from = s->size;
    for (size_t at = 0; at < s->size && !s->found; at++) {
        for (int i = 0; i < s->n; i++) {
            bool whole;
            if (!stands_at(s, s->stops[i], at, &whole)) continue;
            if (at < held_from) held_from = at;
            if (whole) {
                s->found = true;
                held_from = at;
                break;
            }
        }
    }
    s->out = held_from;
    if (held_from > 0) *out = s->held;
    *out_size = held_from;
    return true;
}

void kvant_stop_text_finish(kvant_stop_text *s, const char **out, size_t *out_size) {
    bool any = !s->found && s->size > s->out;
    *out = any ? s->held + s->out : "";
    *out_size = any ? s->size - s->out : 0;
    s->out = s->size;
}
