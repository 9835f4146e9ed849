// SPDX-License-Identifier: MIT
/* report.c: what the program shows a person: progress with time left, aligned tables, byte counts, the first line.
 *
 * Progress goes to stderr and only where stderr is a terminal, so logs and pipes stay clean. A table keeps its cells as text;
 * a column whose cells all look like numbers is right-aligned, and widths count characters, not bytes. */
#ifndef _WIN32
#define _POSIX_C_SOURCE 200809L /* isatty, fileno */
#include <unistd.h>
#else
#include <io.h>
#define isatty _isatty
#define fileno _fileno
#endif
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "report.h"

#define BAR_WIDTH 30
#define DRAW_SECONDS 0.1

/* ---- progress ---- */

void progress_begin(progress *p, const char *label) {
    *p = (progress){.label = label, .started = kvant_time_seconds()};
    p->terminal = isatty(fileno(stderr)) == 1;
}

/* "1:02:03", "2:03" or "3 s". */
static void format_seconds(double seconds, char *buf, size_t size) {
    long s = seconds < 0 ? 0 : seconds > 359999 ? 359999 : (long)(seconds + 0.5);
    if (s >= 3600)
        snprintf(buf, size, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
    else if (s >= 60)
        snprintf(buf, size, "%ld:%02ld", s / 60, s % 60);
    else
        snprintf(buf, size, "%ld s", s);
}

void progress_update(progress *p, double done, double total) {
    if (!p->terminal || !(total > 0)) return;
    double now = kvant_time_seconds();
    if (p->drawn > 0 && now - p->drawn < DRAW_SECONDS) return;
    p->drawn = now;
    double part = done / total;
    part = part < 0 ? 0 : part > 1 ? 1 : part;
    char bar[BAR_WIDTH + 1], left[32] = "";
    for (int i = 0; i < BAR_WIDTH; i++)
        bar[i] = i < (int)(part * BAR_WIDTH) ? '#' : '.';
    bar[BAR_WIDTH] = '\0';
    /* The first second says nothing about the rest. */
    if (part > 0 && now - p->started > 1) {
        char time[24];
        format_seconds((now - p->started) * (1 - part) / part, time, sizeof time);
        snprintf(left, sizeof left, ", %s left", time);
    }
    fprintf(stderr, "\r%s [%s] %3.0f %%%s\x1b[K", p->label, bar, part * 100, left);
    fflush(stderr);
}

void progress_end(progress *p) {
    if (p->terminal && p->drawn > 0) {
        fputs("\r\x1b[K", stderr);
        fflush(stderr);
    }
    p->drawn = 0;
}

/* ---- bytes ---- */

const char *format_bytes(double bytes, char *buf, size_t size) {
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    int u = 0;
    while (bytes >= 1023.95 && u < 4) {
        bytes /= 1024;
        u++;
    }
    /* One decimal where it says something: 6.3 KiB, 90 MiB, 512 B. */
    bool whole = u == 0 || bytes == (double)(int64_t)bytes;
    snprintf(buf, size, whole ? "%.0f %s" : "%.1f %s", bytes, units[u]);
    return buf;
}

/* ---- tables ---- */

struct table {
    int n_columns;
    size_t n, capacity;
    char **cells;
};

table *table_create(int n_columns) {
    table *t = n_columns > 0 ? calloc(1, sizeof *t) : NULL;
    if (t) t->n_columns = n_columns;
    return t;
}

void table_destroy(table *t) {
    if (!t) return;
    for (size_t i = 0; i < t->n; i++)
        free(t->cells[i]);
    free(t->cells);
    free(t);
}

void table_cell(table *t, const char *fmt, ...) {
    char text[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (t->n == t->capacity) {
        size_t capacity = t->capacity ? 2 * t->capacity : 64;
        char **cells = realloc(t->cells, capacity * sizeof *cells);
        if (!cells) return;
        t->cells = cells;
        t->capacity = capacity;
    }
    size_t bytes = strlen(text) + 1;
    char *copy = malloc(bytes);
    if (copy) memcpy(copy, text, bytes);
    t->cells[t->n++] = copy; /* NULL, out of memory, prints as an empty cell */
}

static const char *cell_text(const table *t, size_t i) { return i < t->n && t->cells[i] ? t->cells[i] : ""; }

/* Characters, that is bytes that do not continue one. */
static int text_width(const char *s) {
    int n = 0;
    for (; *s; s++)
        n += ((unsigned char)*s & 0xC0) != 0x80;
    return n;
}

static bool looks_like_number(const char *s) {
    if (*s == '-' || *s == '+' || *s == '<') s++;
    return (*s >= '0' && *s <= '9') || *s == '\0';
}

void table_print(const table *t, FILE *out) {
    size_t columns = (size_t)t->n_columns, rows = (t->n + columns - 1) / columns;
    int *width = calloc(columns, sizeof *width);
    bool *number = calloc(columns, sizeof *number);
    for (size_t c = 0; width && number && c < columns; c++) {
        number[c] = rows > 1;
        for (size_t r = 0; r < rows; r++) {
            const char *s = cell_text(t, r * columns + c);
            if (text_width(s) > width[c]) width[c] = text_width(s);
            if (r > 0 && !looks_like_number(s)) number[c] = false;
        }
    }
    for (size_t r = 0; width && number && r < rows; r++) {
        for (size_t c = 0; c < columns; c++) {
            const char *s = cell_text(t, r * columns + c);
            int pad = width[c] - text_width(s);
            if (c > 0) fputs("  ", out);
            if (number[c]) fprintf(out, "%*s", pad, "");
            fputs(s, out);
            if (!number[c] && c + 1 < columns) fprintf(out, "%*s", pad, "");
        }
        fputc('\n', out);
    }
    free(width);
    free(number);
}

/* ---- the first line ---- */

/* 4096 -> "4,096". buf: at least 32 bytes. */
static const char *format_count(int64_t n, char *buf, size_t size) {
    char digits[24];
    snprintf(digits, sizeof digits, "%" PRId64, n);
    size_t length = strlen(digits), at = 0;
    for (size_t i = 0; i < length && at + 2 < size; i++) {
        if (i > 0 && digits[i - 1] != '-' && (length - i) % 3 == 0) buf[at++] = ',';
        buf[at++] = digits[i];
    }
    buf[at] = '\0';
    return buf;
}

/* A name from a file, without what a terminal would obey. */
static void copy_printable(const char *s, char *out, size_t size) {
    size_t n = 0;
    for (; s && *s && n + 1 < size; s++)
        out[n++] = (unsigned char)*s < 0x20 || *s == 0x7F ? '?' : *s;
    out[n] = '\0';
}

static void print_model(const kvant_model_info *info) {
    char name[256], architecture[64];
    copy_printable(info->name && info->name[0] ? info->name : info->path, name, sizeof name);
    copy_printable(info->architecture, architecture, sizeof architecture);
    fprintf(stderr, "kvant: %s (%s, %d layers, %d KV head%s x %d)", name, architecture, info->n_layer, info->n_kv_head,
            info->n_kv_head == 1 ? "" : "s", info->head_dim);
}

static void print_machine(const kvant_model_info *info) {
    if (info->calibration) fprintf(stderr, " · calibration: %s", info->calibration);
    fprintf(stderr, " · %s, %d thread%s\n", kvant_isa_name(info->isa), info->n_threads, info->n_threads == 1 ? "" : "s");
}

void print_model_line(const kvant_model *m) {
    kvant_model_info info;
    kvant_model_get_info(m, &info);
    print_model(&info);
    print_machine(&info);
}

/* The format of all layers, or the smallest and the largest: "bc3..bc5". */
static void print_formats(const char *side, const kvant_format *layers, const kvant_format *all, const kvant_model_info *info) {
    char low[KVANT_FORMAT_NAME_MAX], high[KVANT_FORMAT_NAME_MAX];
    const kvant_format *least = all, *most = all;
    for (int i = 0; layers && i < info->n_layer; i++) {
        double bits = kvant_format_bits(&layers[i], info->head_dim);
        if (bits < kvant_format_bits(least, info->head_dim)) least = &layers[i];
        if (bits > kvant_format_bits(most, info->head_dim)) most = &layers[i];
    }
    kvant_format_name(least, low);
    kvant_format_name(most, high);
    if (strcmp(low, high) == 0) fprintf(stderr, " %s %s", side, low);
    else fprintf(stderr, " %s %s..%s", side, low, high);
}

void print_first_line(const kvant_model *m, int64_t n_context) {
    kvant_model_info info;
    kvant_model_get_info(m, &info);
    char token[32], context[32], f16[32], count[32];
    double values = 2.0 * info.n_layer * info.n_kv_head * info.head_dim;
    format_bytes(values * info.kv_bits_total / 8, token, sizeof token);
    format_bytes((double)kvant_model_cache_bytes(m, n_context), context, sizeof context);
    print_model(&info);
    fprintf(stderr, " · cache");
    print_formats("K", info.layer_k, &info.k, &info);
    print_formats("V", info.layer_v, &info.v, &info);
    fprintf(stderr, "%s, %.2f bits a value, %s a token, %s for %s tokens", info.layer_k ? " by layer" : "", info.kv_bits_total, token,
            context, format_count(n_context, count, sizeof count));
    size_t plain;
    bool is_f16 = info.k.codec == KVANT_CODEC_F16 && info.v.codec == KVANT_CODEC_F16;
    if (!is_f16 && kvant_model_cache_bytes_for(m, "f16", n_context, &plain, NULL) == KVANT_OK)
        fprintf(stderr, " (f16: %s)", format_bytes((double)plain, f16, sizeof f16));
    if (info.max_kv_size > 0)
        fprintf(stderr, ", a window of %s tokens and whole pages around it", format_count(info.max_kv_size, count, sizeof count));
    if (info.quantized_kv_start > 0 && !is_f16)
        fprintf(stderr, ", f16 until there are %s tokens", format_count(info.quantized_kv_start, count, sizeof count));
    print_machine(&info);
}
