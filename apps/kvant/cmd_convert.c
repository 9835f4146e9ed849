// SPDX-License-Identifier: MIT
/* cmd_convert.c: kvant convert SOURCE TARGET: a model as the other kind of file, or with other weights. */
#include <inttypes.h>
#include <stdio.h>

#include "commands.h"
#include "interrupt.h"
#include "json_output.h"
#include "options.h"
#include "report.h"

static const char usage[] = "kvant convert SOURCE TARGET.gguf|TARGET_FOLDER [--weights TYPE] [--json]";
static const char about[] =
    "Writes a model anew: a folder (config.json, safetensors) as a GGUF file, a GGUF file as a folder, or either with other "
    "weights.\n"
    "Weights stay as they are where the target has their type; MLX's 2 to 4 bits become q4_0 in a GGUF file, 5 to 8 bits q8_0, "
    "and\n"
    "ggml's quantized types become f16 in a folder. --weights says another type for all matrices: f32, f16, bf16, q8_0 and q4_0 "
    "in a GGUF\n"
    "file, f32, f16, bf16 and affineB:G (affine4:64) in a folder. What the target cannot say exactly, a tokenizer above all, is "
    "refused.\n"
    "The target appears when it is complete; until then it is TARGET.part, and the same command goes on from there.";

static bool show(void *user, int64_t done, int64_t total) {
    progress_update(user, (double)done, (double)total);
    return !interrupted;
}

static int print_result(const char *source, const char *target, const kvant_convert_result *r, bool json) {
    char bytes[32];
    if (json) {
        json_t *root = json_object();
        json_object_set_new(root, "source", json_text(source));
        json_object_set_new(root, "target", json_text(target));
        json_object_set_new(root, "tensors", json_integer(r->n_tensors));
        json_object_set_new(root, "rounded_tensors", json_integer(r->n_changed));
        json_object_set_new(root, "weight_bytes", json_integer((json_int_t)r->bytes));
        return json_print(root, JSON_INDENT(2));
    }
    printf("%s: %d tensors, %s; %d of them rounded to another type\n", target, r->n_tensors,
           format_bytes((double)r->bytes, bytes, sizeof bytes), r->n_changed);
    return 0;
}

int cmd_convert(int argc, char **argv) {
    kvant_convert_params p = {0};
    kvant_convert_result r = {0};
    kvant_error err = {0};
    progress bar;
    bool json = false;
    const char *rest[2];
    int n_rest = 0;
    const option flags[] = {
        {"--weights", NULL, OPTION_STRING, &p.weights, 0, 0, "TYPE", "f32, f16, bf16, q8_0, q4_0 or affineB:G (as they are)"},
        {"--json", NULL, OPTION_FLAG, &json, 0, 0, NULL, "JSON on stdout"},
    };
    int code = options_parse(usage, about, flags, 2, argc, argv, rest, 2, &n_rest);
    if (code) return code < 0 ? 0 : code;
    if (n_rest != 2) return fail_with(2, "which model, and to what? kvant convert SOURCE TARGET.gguf, or a folder");
    p.progress = show;
    p.user = &bar;
    interrupt_watch();
    progress_begin(&bar, "convert");
    kvant_status st = kvant_convert(rest[0], rest[1], &p, &r, &err);
    progress_end(&bar);
    interrupt_unwatch();
    if (st != KVANT_OK) return fail_with(st == KVANT_EINVAL ? 2 : 1, "%s", err.message);
    return print_result(rest[0], rest[1], &r, json);
}
