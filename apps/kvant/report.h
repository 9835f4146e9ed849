// SPDX-License-Identifier: MIT
/* report.h: what the program shows a person: progress lines, tables, byte counts, the first line. */
#ifndef KVANT_APP_REPORT_H
#define KVANT_APP_REPORT_H

#include <stdio.h>

#include "kvant/engine.h"

/* A progress bar on stderr with time left, drawn at most ten times a second and only where stderr is a terminal. */
typedef struct progress {
    const char *label;
    double started, drawn;
    bool terminal;
} progress;
void progress_begin(progress *p, const char *label);
void progress_update(progress *p, double done, double total);
void progress_end(progress *p); /* erases the line */

/* "12.3 MiB" into buf (at least 16 bytes); returns buf. */
const char *format_bytes(double bytes, char *buf, size_t size);

/* A table of text cells: the first row is the header; numbers are right-aligned. Cells are copied. */
typedef struct table table;
table *table_create(int n_columns);
void table_destroy(table *t);
void table_cell(table *t, const char *fmt, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 2, 3)))
#endif
    ;
void table_print(const table *t, FILE *out);

/* The honest first line on stderr: model, layers, KV heads, head_dim, the formats really used for K and V, total bits a value,
 * bytes a token, bytes for the whole context, kernel level, threads. */
void print_first_line(const kvant_model *m, int64_t n_context);
/* The same without the cache, for commands that compare several. */
void print_model_line(const kvant_model *m);

#endif
