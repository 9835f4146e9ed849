// SPDX-License-Identifier: MIT
/* eval_family.c: families of formats by their names alone, so that a new codec has its line without being known here. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "eval_family.h"

void eval_family(const char *name, char *out, size_t size) {
    size_t end = strcspn(name, "/"), bits = strcspn(name, "0123456789"), n = 0;
    if (bits >= end) {
        snprintf(out, size, "%s", name[end] ? "mixed" : "preset");
        return;
    }
    if (bits == 1 && name[0] == 'f') { /* a float's bits are its name */
        snprintf(out, size, "%.*s", (int)end, name);
        return;
    }
    for (size_t i = 0; i < end && n + 1 < size; i++) {
        if (i == bits) i += strspn(name + bits, "0123456789");
        if (i == end) break;
        if (name[i] == ':') { /* the group, up to what follows it */
            while (i + 1 < end && isdigit((unsigned char)name[i + 1]))
                i++;
            continue;
        }
        out[n++] = name[i];
    }
    if (size > 0) out[n] = '\0';
}
