// SPDX-License-Identifier: MIT
/* token_decoder.c: what a token shows, by the decoder of a tokenizer.json.
 *
 * Every step works on one token at a time, so that a stream shows what the whole list of tokens would; the only step that needs
 * more, dropping spaces from the beginning of the text, is the detokenizer's. */
#include "text/tokenizer_rules.h"
#include "text/utf8.h"

#define MAX_SPELLING ((size_t)64 << 20)

void kvant_token_decoder_free(kvant_token_decoder *d) {
    for (int i = 0; i < d->n; i++) {
        kvant_free(d->steps[i].find);
        kvant_free(d->steps[i].text);
    }
    d->n = 0;
}

static kvant_status replace(const kvant_decode_step *s, const char *text, size_t size, kvant_buffer *out) {
    size_t done = 0, at = 0;
    while (s->find_size && at + s->find_size <= size) {
        if (memcmp(text + at, s->find, s->find_size) != 0) {
            at++;
            continue;
        }
        KVANT_TRY(kvant_buffer_append(out, text + done, at - done));
        KVANT_TRY(kvant_buffer_append(out, s->text, s->text_size));
        done = at += s->find_size;
    }
    return kvant_buffer_append(out, text + done, size - done);
}

static kvant_status strip(const kvant_decode_step *s, const char *text, size_t size, kvant_buffer *out) {
    for (int i = 0; i < s->start && size >= s->find_size && memcmp(text, s->find, s->find_size) == 0; i++) {
        text += s->find_size;
        size -= s->find_size;
    }
    for (int i = 0; i < s->stop && size >= s->find_size && memcmp(text + size - s->find_size, s->find, s->find_size) == 0; i++)
        size -= s->find_size;
    return kvant_buffer_append(out, text, size);
}

/* Bytes for letters, if all of the token is letters; else its text. */
static kvant_status byte_letters(const char *text, size_t size, kvant_buffer *out) {
    size_t before = out->size;
    for (size_t i = 0; i < size;) {
        uint32_t code;
        i += kvant_utf8_read((const uint8_t *)text + i, size - i, &code);
        int byte = kvant_letter_byte(code);
        if (byte < 0) {
            out->size = before;
            return kvant_buffer_append(out, text, size);
        }
        char one = (char)byte;
        KVANT_TRY(kvant_buffer_append(out, &one, 1));
    }
    return KVANT_OK;
}

static kvant_status spell(const kvant_token_decoder *d, const char *text, size_t size, bool first, kvant_buffer *now,
                          kvant_buffer *next) {
    KVANT_TRY(kvant_buffer_append(now, text, size));
    for (int i = 0; i < d->n; i++) {
        const kvant_decode_step *s = &d->steps[i];
        int byte;
        next->size = 0;
        switch (s->kind) {
        case KVANT_DECODE_REPLACE: KVANT_TRY(replace(s, now->data, now->size, next)); break;
        case KVANT_DECODE_STRIP: KVANT_TRY(strip(s, now->data, now->size, next)); break;
        case KVANT_DECODE_BYTE_LETTERS: KVANT_TRY(byte_letters(now->data, now->size, next)); break;
        case KVANT_DECODE_METASPACE: {
            kvant_decode_step hide = *s;
            hide.text_size = first && s->drops_at_first ? 0 : s->text_size;
            KVANT_TRY(replace(&hide, now->data, now->size, next));
            break;
        }
        case KVANT_DECODE_BYTE_FALLBACK:
            byte = kvant_byte_of_text(now->data, now->size);
            if (byte < 0) continue;
            now->data[0] = (char)byte; /* a byte is no text for the steps behind it */
            now->size = 1;
            return KVANT_OK;
        }
        kvant_buffer swap = *now;
        *now = *next;
        *next = swap;
    }
    return KVANT_OK;
}

kvant_status kvant_token_decoder_spell(const kvant_token_decoder *d, const char *text, size_t size, bool first, kvant_buffer *out) {
    if (d->n == 1 && d->steps[0].kind == KVANT_DECODE_BYTE_LETTERS) return byte_letters(text, size, out);
    kvant_buffer now, next;
    kvant_buffer_init(&now, MAX_SPELLING);
    kvant_buffer_init(&next, MAX_SPELLING);
    kvant_status st = d->spaced && !first ? kvant_buffer_append(out, " ", 1) : KVANT_OK;
    if (st == KVANT_OK) st = spell(d, text, size, first, &now, &next);
    if (st == KVANT_OK) st = kvant_buffer_append(out, now.data, now.size);
    kvant_buffer_free(&now);
    kvant_buffer_free(&next);
    return st;
}
