// SPDX-License-Identifier: MIT
/* detokenizer.c: a stream of tokens as text that is valid UTF-8 after every token.
 *
 * The bytes of a token go behind those that are held; everything up to the last complete character is handed out, with U+FFFD for
 * what can never become one (one for each maximal part of a character, as Unicode recommends); an unfinished character is held.
 */
#include "text/tokenizer_rules.h"

/* One token's text may be as long as a vocabulary file holds. */
#define MAX_HELD ((size_t)INT32_MAX)

struct kvant_detokenizer {
    const kvant_tokenizer *t;
    bool special, at_start;
    int strip_left; /* tokenizer.json: how many more are dropped from the beginning */
    kvant_buffer held;  /* bytes of tokens not handed out yet */
    kvant_buffer shown; /* what the last call handed out */
};

kvant_status kvant_detokenizer_create(const kvant_tokenizer *t, bool special, kvant_detokenizer **out) {
    kvant_detokenizer *d = kvant_alloc(1, sizeof *d);
    if (!d) return KVANT_ENOMEM;
    d->t = t;
    d->special = special;
    kvant_buffer_init(&d->held, MAX_HELD);
    kvant_buffer_init(&d->shown, MAX_HELD);
    kvant_detokenizer_reset(d);
    *out = d;
    return KVANT_OK;
}

void kvant_detokenizer_destroy(kvant_detokenizer *d) {
    if (!d) return;
    kvant_buffer_free(&d->held);
    kvant_buffer_free(&d->shown);
    kvant_free(d);
}

void kvant_detokenizer_reset(kvant_detokenizer *d) {
    d->at_start = d->t->rules || kvant_tokenizer_drops_first_space(d->t);
    d->strip_left = d->t->rules ? d->t->rules->decoder.strip_start : 0;
    d->held.size = 0;
}

/* Looks at one character of n >= 1 bytes. Returns its length, or 0 when more bytes may complete it, or minus the number of bytes
 * that are none. The second byte's range depends on the first (Unicode's table of well-formed sequences). */
static int check_character(const uint8_t *p, size_t n) {
    uint8_t first = p[0], low = 0x80, high = 0xBF;
    if (first < 0x80) return 1;
    if (first < 0xC2 || first > 0xF4) return -1;
    int length = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
    if (first == 0xE0) low = 0xA0;
    else if (first == 0xED) high = 0x9F;
    else if (first == 0xF0) low = 0x90;
    else if (first == 0xF4) high = 0x8F;
    for (int i = 1; i < length; i++, low = 0x80, high = 0xBF) {
        if ((size_t)i == n) return 0;
        if (p[i] < low || p[i] > high) return -i;
    }
    return length;
}

/* Moves characters from held to shown. finish: an unfinished one becomes U+FFFD. */
static kvant_status hand_out(kvant_detokenizer *d, bool finish) {
    size_t done = 0, begin = 0;
    const char *bytes = d->held.data;
    d->shown.size = 0;
    while (done < d->held.size) {
        int n = check_character((const uint8_t *)bytes + done, d->held.size - done);
        if (n == 0 && !finish) break;
        if (n > 0) {
            done += (size_t)n;
            continue;
        }
        KVANT_TRY(kvant_buffer_append(&d->shown, bytes + begin, done - begin));
        KVANT_TRY(kvant_buffer_append(&d->shown, "\xEF\xBF\xBD", 3));
        done = begin = n == 0 ? d->held.size : done + (size_t)-n;
    }
    KVANT_TRY(kvant_buffer_append(&d->shown, bytes ? bytes + begin : "", done - begin));
    if (done) memmove(d->held.data, d->held.data + done, d->held.size - done);
    d->held.size -= done;
    return KVANT_OK;
}

/* What a tokenizer.json drops from the beginning of the text; a token may be all of it. */
static void strip_beginning(kvant_detokenizer *d) {
    const kvant_token_decoder *decoder = &d->t->rules->decoder;
    size_t n = decoder->strip_size, done = 0;
    while (d->strip_left > 0 && d->held.size - done >= n && memcmp(d->held.data + done, decoder->strip, n) == 0) {
        done += n;
        d->strip_left--;
    }
    bool may_grow = d->held.size - done < n && (done == d->held.size || memcmp(d->held.data + done, decoder->strip, d->held.size - done) == 0);
    if (!may_grow) d->strip_left = 0;
    if (done) memmove(d->held.data, d->held.data + done, d->held.size - done);
    d->held.size -= done;
}

static kvant_status push_by_rules(kvant_detokenizer *d, int32_t id) {
    KVANT_TRY(kvant_tokenizer_decode_at(d->t, id, d->special, d->at_start, &d->held));
    if (d->special || !(d->t->kinds[id] & KVANT_IS_CONTROL)) d->at_start = false;
    if (d->strip_left && d->held.size) strip_beginning(d);
    return KVANT_OK;
}

kvant_status kvant_detokenizer_push(kvant_detokenizer *d, int32_t id, const char **text, size_t *size) {
    size_t before = d->held.size;
    if (d->t->rules) {
        KVANT_TRY(push_by_rules(d, id));
        KVANT_TRY(hand_out(d, false));
        *text = d->shown.data;
        *size = d->shown.size;
        return KVANT_OK;
    }
    KVANT_TRY(kvant_tokenizer_decode(d->t, id, d->special, &d->held));
    bool plain = !(d->t->kinds[id] & (KVANT_IS_CONTROL | KVANT_IS_UNKNOWN | KVANT_IS_USER_DEFINED));
    if (d->at_start && plain && d->held.size > before) {
        d->at_start = false;
        if (d->held.data[before] == ' ') {
            memmove(d->held.data + before, d->held.data + before + 1, d->held.size - before - 1);
            d->held.size--;
        }
    }
    KVANT_TRY(hand_out(d, false));
    *text = d->shown.data;
    *size = d->shown.size;
    return KVANT_OK;
}

kvant_status kvant_detokenizer_finish(kvant_detokenizer *d, const char **text, size_t *size) {
    KVANT_TRY(hand_out(d, true));
    kvant_detokenizer_reset(d);
    *text = d->shown.data;
    *size = d->shown.size;
    return KVANT_OK;
}
