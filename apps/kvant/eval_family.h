// SPDX-License-Identifier: MIT
/* eval_family.h: which formats belong on one line of a picture. */
#ifndef KVANT_APP_EVAL_FAMILY_H
#define KVANT_APP_EVAL_FAMILY_H

#include <stddef.h>

/* The family of a row's name: the codec of K without its bits and group ("affine4:64/f16" is affine, "q4_0" q_0, "bc4.bare/bc4"
 * bc.bare; "f16/bc4" f16). A name without digits is a preset. Cut at size. */
void eval_family(const char *name, char *out, size_t size);

#endif
