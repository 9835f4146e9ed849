// SPDX-License-Identifier: MIT
/* kv_list.h: several cache formats on one command line, for the commands that compare them. */
#ifndef KVANT_APP_KV_LIST_H
#define KVANT_APP_KV_LIST_H

#include "options.h"

#define KV_LIST_MAX 24
#define KV_NAME_MAX (2 * KVANT_FORMAT_NAME_MAX)

typedef struct kv_item {
    char name[KV_NAME_MAX]; /* canonical: one format, or "K/V"; a preset keeps its own */
    bool is_preset;         /* a name without digits, which may stand for more than two formats */
    kvant_format k, v;
    double budget_bits; /* "budget:4.3", formats by layer that take this many bits a value: 4.3; then k and v mean nothing. "budget:bc4":
                           0, k and v are what it may take. */
    bool is_budget;
} kv_item;

typedef struct kv_list {
    int n;
    bool typed;         /* someone chose formats: not those of `otherwise` */
    bool default_group; /* nobody typed a group: it may become 32 where head_dim asks for it */
    kv_item items[KV_LIST_MAX];
} kv_list;

/* Takes the formats that were typed (--kv A,B/C,…; --kv-bits 8,none,4 with --kv-group-size and --kv-codec; --k-bits and --v-bits;
 * -ctk and -ctv) out of the options, so that the model itself is loaded with an f16 cache (with --quantized-kv-start or --compat
 * mlx, which need one, with the first quantized format; `list` must live until then). Nothing typed: `otherwise`, a list as for
 * --kv. Formats named twice count once. Call it instead of options_finish_model, which it calls. 0, or 2 with a sentence. */
int kv_list_take(kv_list *list, model_options *m, const char *otherwise);

/* Whether all of them can store vectors of head_dim elements, once groups that nobody typed fit: 0, or 2 with a sentence. */
int kv_list_check(kv_list *list, int head_dim);

/* Finds or makes the model's calibration when one of them needs it, so that the first line can name it: 0, or 1 with a sentence. */
int kv_list_calibrate(const kv_list *list, const kvant_load_params *load, kvant_model *m);

double kv_item_bits(const kv_item *item, int head_dim);

/* The whole numbers of "0,2048,8192", each between min and max: their count, or -1 with a sentence that names the flag. */
int parse_numbers(const char *flag, const char *text, int64_t min, int64_t max, int64_t *out, int max_n);

#endif
