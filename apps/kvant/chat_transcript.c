// SPDX-License-Identifier: MIT
/* chat_transcript.c: see chat_transcript.h. Whether two pieces may stand together is not believed but looked at: the new ids must
 * say exactly the text that they were made from, in the place where they stand. */
#include "chat_transcript.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

static kvant_status no_memory(kvant_error *err) {
    if (err) {
        *err = (kvant_error){.status = KVANT_ENOMEM};
        strcpy(err->message, "chat: out of memory");
    }
    return KVANT_ENOMEM;
}

void chat_transcript_free(chat_transcript *t) {
    free(t->text);
    free(t->ids);
    free(t->marks);
    *t = (chat_transcript){0};
}

static bool append_text(chat_transcript *t, const char *text, size_t size) {
    if (t->text_size + size + 1 > t->text_room) {
        size_t room = 2 * (t->text_size + size + 1);
        char *grown = realloc(t->text, room);
        if (!grown) return false;
        t->text = grown;
        t->text_room = room;
    }
    memcpy(t->text + t->text_size, text, size);
    t->text_size += size;
    return true;
}

static bool append_ids(chat_transcript *t, const int32_t *ids, int64_t n) {
    if (n > INT_MAX - t->n) return false;
    if (t->n + n > t->room) {
        int64_t room = 2 * (t->n + n);
        int32_t *grown = realloc(t->ids, (size_t)room * sizeof *grown);
        if (!grown) return false;
        t->ids = grown;
        t->room = room;
    }
    if (n > 0) memcpy(t->ids + t->n, ids, (size_t)n * sizeof *ids);
    t->n += n;
    return true;
}

/* A mark here, unless there is one. */
static bool mark(chat_transcript *t) {
    if (t->n_marks > 0 && t->marks[t->n_marks - 1].n == t->n) return true;
    if (t->n_marks == t->marks_room) {
        int room = t->marks_room ? 2 * t->marks_room : 64;
        chat_mark *grown = realloc(t->marks, (size_t)room * sizeof *grown);
        if (!grown) return false;
        t->marks = grown;
        t->marks_room = room;
    }
    t->marks[t->n_marks++] = (chat_mark){t->text_size, t->n};
    return true;
}

/* Back to the last mark whose text a prompt has too, or to nothing. */
static void go_back(chat_transcript *t, const char *prompt) {
    size_t same = 0;
    while (same < t->text_size && prompt[same] == t->text[same])
        same++; /* a prompt ends with NUL, which is not in the text */
    while (t->n_marks > 0 && t->marks[t->n_marks - 1].text_size > same)
        t->n_marks--;
    t->text_size = t->n_marks ? t->marks[t->n_marks - 1].text_size : 0;
    t->n = t->n_marks ? t->marks[t->n_marks - 1].n : 0;
}

/* A stream that has said the first n ids. */
static kvant_text_stream *stream_after(const chat_transcript *t, const kvant_model *m, int64_t n) {
    kvant_text_stream *stream = NULL;
    const char *text;
    size_t size;
    if (kvant_text_stream_create(m, true, &stream) != KVANT_OK) return NULL;
    for (int64_t i = 0; i < n; i++)
        (void)kvant_text_stream_push(stream, t->ids[i], &text, &size);
    return stream;
}

/* Whether ids, after those of the transcript, say this text. */
static bool continues(const chat_transcript *t, const kvant_model *m, const int32_t *ids, int n, const char *text) {
    kvant_text_stream *stream = stream_after(t, m, t->n);
    const char *piece;
    size_t size, at = 0, length = strlen(text);
    bool same = stream != NULL;
    for (int i = 0; i <= n && same; i++) {
        kvant_status st =
            i < n ? kvant_text_stream_push(stream, ids[i], &piece, &size) : kvant_text_stream_finish(stream, &piece, &size);
        same = st == KVANT_OK && size <= length - at && memcmp(text + at, piece, size) == 0;
        if (same) at += size;
    }
    kvant_text_stream_destroy(stream);
    return same && at == length;
}

static kvant_status append_rest(chat_transcript *t, const char *text, const int32_t *ids, int n, kvant_error *err) {
    if (append_ids(t, ids, n) && append_text(t, text, strlen(text)) && mark(t)) return KVANT_OK;
    return no_memory(err);
}

kvant_status chat_transcript_read(chat_transcript *t, const kvant_model *m, const char *prompt, int64_t *n_kept,
                                  kvant_error *err) {
    int32_t *ids = NULL;
    int n = 0;
    kvant_status st = KVANT_OK;
    go_back(t, prompt);
    const char *rest = prompt + t->text_size;
    *n_kept = t->n;
    if (t->n > 0 && *rest == '\0') return KVANT_OK;
    if (t->n > 0) {
        st = kvant_tokenize(m, rest, strlen(rest), false, true, &ids, &n, err);
        if (st == KVANT_OK && continues(t, m, ids, n, rest)) {
            st = append_rest(t, rest, ids, n, err);
            kvant_ids_free(ids);
            return st;
        }
        kvant_ids_free(ids);
        ids = NULL;
    }
    t->n = 0;
    t->text_size = 0;
    t->n_marks = 0;
    *n_kept = 0;
    if (st == KVANT_OK) st = kvant_tokenize(m, prompt, strlen(prompt), true, true, &ids, &n, err);
    if (st == KVANT_OK) st = append_rest(t, prompt, ids, n, err);
    kvant_ids_free(ids);
    return st;
}

static bool is_blank(const char *text, size_t size) {
    for (size_t i = 0; i < size; i++)
        if (!strchr(" \t\n\v\f\r", text[i])) return false;
    return true;
}

/* Templates may trim an answer, so a mark stands before the white space at its end too: set once what follows is known. */
void chat_transcript_add_answer(chat_transcript *t, const kvant_model *m, const int32_t *ids, int64_t n) {
    kvant_text_stream *stream = stream_after(t, m, t->n);
    chat_transcript before = *t;
    const char *text = "";
    size_t size = 0;
    int64_t n_told = n; /* ids before the white space at the end */
    bool ok = stream != NULL;
    for (int64_t i = n; ok && i > 0; i--) {
        char *piece = NULL;
        ok = kvant_detokenize(m, &ids[i - 1], 1, true, &piece, &size, NULL) == KVANT_OK;
        bool blank = ok && is_blank(piece, size);
        kvant_string_free(piece);
        if (!blank) break;
        n_told = i - 1;
    }
    for (int64_t i = 0; ok && i < n; i++) {
        ok = kvant_text_stream_push(stream, ids[i], &text, &size) == KVANT_OK && append_ids(t, &ids[i], 1) &&
             append_text(t, text, size);
        if (ok && i + 1 == n_told) ok = mark(t);
    }
    if (ok) ok = kvant_text_stream_finish(stream, &text, &size) == KVANT_OK && append_text(t, text, size) && mark(t);
    kvant_text_stream_destroy(stream);
    if (ok) return;
    t->n = before.n;
    t->text_size = before.text_size;
    t->n_marks = before.n_marks;
}
