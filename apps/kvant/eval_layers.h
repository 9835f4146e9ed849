// SPDX-License-Identifier: MIT
/* eval_layers.h: kvant eval --by-layer: what each format does to every KV head. */
#ifndef KVANT_APP_EVAL_LAYERS_H
#define KVANT_APP_EVAL_LAYERS_H

#include "eval.h"

#define EVAL_LAYERS_TOKENS 512 /* unless --tokens says otherwise */
#define EVAL_LAYERS_MIN 16
#define EVAL_LAYERS_MAX 8192

/* Reads the first tokens of the text (all that the evaluation scores) with every format of the list and prints the noise of each
 * head: 0, or an exit code with a sentence on stderr. The model is open and the text read. */
int eval_by_layer(const evaluation *e);

#endif
