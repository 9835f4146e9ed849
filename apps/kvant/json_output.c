// SPDX-License-Identifier: MIT
/* json_output.c: strings of any bytes, numbers of any value, and one way to print. */
#include "json_output.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "options.h"

json_t *json_text_n(const char *s, size_t n) {
    json_t *j = json_stringn(s, n);
    if (j) return j;
    char *copy = malloc(n + 1);
    if (!copy) return json_null();
    for (size_t i = 0; i < n; i++)
        copy[i] = (unsigned char)s[i] < 0x80 ? s[i] : '?';
    j = json_stringn(copy, n);
    free(copy);
    return j;
}

json_t *json_text(const char *s) { return json_text_n(s ? s : "", s ? strlen(s) : 0); }

json_t *json_number_or_null(double value) { return isfinite(value) ? json_real(value) : json_null(); }

int json_print(json_t *root, size_t flags) {
    int failed = json_dumpf(root, stdout, flags);
    json_decref(root);
    if (putchar('\n') == EOF || fflush(stdout) != 0) failed = 1;
    return failed ? fail_with(1, "the JSON cannot be written to stdout") : 0;
}
