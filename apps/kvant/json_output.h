// SPDX-License-Identifier: MIT
/* json_output.h: what every command's --json shares. */
#ifndef KVANT_APP_JSON_OUTPUT_H
#define KVANT_APP_JSON_OUTPUT_H

#include <jansson.h>

/* A string of any n bytes: where they are not UTF-8, the bytes beyond ASCII become '?'. */
json_t *json_text_n(const char *s, size_t n);
json_t *json_text(const char *s); /* NUL-terminated; NULL is "" */
/* JSON has no infinity and no NaN: null. */
json_t *json_number_or_null(double value);
/* Prints root and a newline on stdout and releases root; flags as json_dumps. 0, or 1 with a sentence on stderr. */
int json_print(json_t *root, size_t flags);

#endif
