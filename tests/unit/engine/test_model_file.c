// SPDX-License-Identifier: MIT
/* test_model_file.c: what people see of a model file: valid UTF-8 cut to the buffer, arrays as JSON, models of other kinds
 * refused by name. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/half.h"
#include "engine/model_file.h"
#include "kvant/engine.h"
#include "unit/file/gguf_builder.h"

static gguf_builder builder;
static const char scratch[] = "test_model_file.scratch.gguf";

static kvant_file *open_built(const gguf_builder *b) {
    FILE *out = fopen(scratch, "wb");
    assert_non_null(out);
    assert_int_equal(fwrite(b->data, 1, b->size, out), b->size);
    assert_int_equal(fclose(out), 0);
    kvant_file *f;
    kvant_error err;
    if (kvant_file_open(scratch, &f, &err) != KVANT_OK) fail_msg("%s", err.message);
    remove(scratch); /* stays mapped */
    return f;
}

static void check_value(const kvant_file *f, int index, const char *want_type, const char *want) {
    char key[64], type[32], value[2048];
    assert_int_equal(kvant_file_metadata(f, index, key, sizeof key, type, sizeof type, value, sizeof value), KVANT_OK);
    assert_string_equal(type, want_type);
    assert_string_equal(value, want);
}

static void values_are_readable(void **state) {
    (void)state;
    put_header(&builder, 3, 0, 12);
    put_scalar(&builder, "i8", KVANT_GGUF_I8, 0xFE, 1);
    put_scalar(&builder, "u64", KVANT_GGUF_U64, UINT64_MAX, 8);
    put_scalar(&builder, "f32", KVANT_GGUF_F32, kvant_f32_bits(1e-5f), 4);
    put_scalar(&builder, "nan", KVANT_GGUF_F32, 0x7FC00000, 4);
    put_scalar(&builder, "f64", KVANT_GGUF_F64, 0x3FB999999999999Au, 8);
    put_scalar(&builder, "bool", KVANT_GGUF_BOOL, 1, 1);
    put_string(&builder, "text", "a\x1b[1mb\nc \"d\"");
    put_string(&builder, "bytes", "\xff ok \xc3\xa9 \xed\xa0\x80 \xc0\x80 \xf4\x90\x80\x80 \xe2\x82");
    put_array(&builder, "strings", KVANT_GGUF_STRING, 2);
    put_text(&builder, "a\"\\\n");
    put_text(&builder, "\xe2\x96\x81the\xff");
    put_array(&builder, "floats", KVANT_GGUF_F32, 2);
    put_uint(&builder, kvant_f32_bits(0.1f), 4);
    put_uint(&builder, kvant_f32_bits(-INFINITY), 4);
    put_array(&builder, "empty", KVANT_GGUF_I32, 0);
    put_array(&builder, "long", KVANT_GGUF_U8, 1000);
    for (int i = 0; i < 1000; i++)
        put_uint(&builder, 7, 1);
    kvant_file *f = open_built(&builder);
    assert_int_equal(kvant_file_n_metadata(f), 12);
    check_value(f, 0, "i8", "-2");
    check_value(f, 1, "u64", "18446744073709551615");
    check_value(f, 2, "f32", "1e-05");
    check_value(f, 3, "f32", "nan");
    check_value(f, 4, "f64", "0.1");
    check_value(f, 5, "bool", "true");
    check_value(f, 6, "string", "a\x1b[1mb\nc \"d\"");
#define X "\xef\xbf\xbd"
    check_value(f, 7, "string", X " ok \xc3\xa9 " X X X " " X X " " X X X X " " X X);
    check_value(f, 8, "string[2]", "[\"a\\\"\\\\\\u000a\", \"\xe2\x96\x81the" X "\"]");
    check_value(f, 9, "f32[2]", "[0.1, \"-inf\"]");
    check_value(f, 10, "i32[0]", "[]");
    char key[64], type[32], value[2048];
    kvant_file_metadata(f, 11, key, sizeof key, type, sizeof type, value, sizeof value);
    assert_string_equal(key, "long");
    assert_string_equal(type, "u8[1000]");
    assert_int_equal(strlen(value), 64 * 3 + (int)strlen(" and 936 more"));
    assert_non_null(strstr(value, "7] and 936 more"));
    assert_int_equal(kvant_file_metadata(f, 12, key, sizeof key, type, sizeof type, value, sizeof value), KVANT_EINVAL);
    assert_int_equal(kvant_file_metadata(f, -1, key, sizeof key, type, sizeof type, value, sizeof value), KVANT_EINVAL);
    kvant_file_close(f);
}

/* For every size of the buffer: NUL-terminated inside it, never half a character. */
static void any_buffer_is_kept_within(void **state) {
    (void)state;
    char text[600] = "";
    for (int i = 0; i < 150; i++)
        strcat(text, "\xe2\x82\xac");
    put_header(&builder, 3, 0, 2);
    put_string(&builder, "euros", text);
    put_array(&builder, "list", KVANT_GGUF_STRING, 40);
    for (int i = 0; i < 40; i++)
        put_text(&builder, "\xe2\x82\xac\xe2\x82\xac");
    kvant_file *f = open_built(&builder);
    for (int index = 0; index < 2; index++) {
        for (size_t size = 0; size < 500; size++) {
            char *value = malloc(size ? size : 1), key[8], type[8];
            assert_int_equal(kvant_file_metadata(f, index, key, sizeof key, type, sizeof type, value, size), KVANT_OK);
            if (size > 0) {
                assert_non_null(memchr(value, '\0', size));
                size_t n = strlen(value), continuation = 0, lead = 0;
                for (size_t i = 0; i < n; i++) {
                    if ((unsigned char)value[i] == 0xE2) lead++;
                    if (((unsigned char)value[i] & 0xC0) == 0x80) continuation++;
                }
                assert_int_equal(continuation, 2 * lead);
                if (index == 0 && size > 60 && size <= 450) assert_non_null(strstr(value, "... (450 bytes)"));
                if (index == 1 && size > 60 && size < 400) assert_non_null(strstr(value, " more"));
            }
            free(value);
        }
    }
    kvant_file_close(f);
}

static void tensors_are_listed(void **state) {
    (void)state;
    put_header(&builder, 3, 2, 0);
    put_tensor(&builder, "blk.0.w", 2, (uint64_t[]){32, 2}, 8, 0);
    put_tensor(&builder, "odd", 1, (uint64_t[]){5}, 777, 96);
    put_padding(&builder, 32);
    put_uint(&builder, 1, 128);
    kvant_file *f = open_built(&builder);
    kvant_file_tensor t;
    assert_int_equal(kvant_file_n_tensors(f), 2);
    assert_int_equal(kvant_file_tensor_at(f, 0, &t), KVANT_OK);
    assert_string_equal(t.name, "blk.0.w");
    assert_string_equal(t.type, "Q8_0");
    assert_int_equal(t.n_dims, 2);
    assert_int_equal(t.dims[0], 32);
    assert_int_equal(t.bytes, 68);
    assert_int_equal(kvant_file_tensor_at(f, 1, &t), KVANT_OK);
    assert_string_equal(t.type, "type 777");
    assert_int_equal(t.bytes, 0);
    assert_int_equal(kvant_file_tensor_at(f, 2, &t), KVANT_EINVAL);
    kvant_file_close(f);
}

static void other_kinds_of_models_are_refused_by_name(void **state) {
    (void)state;
    static const char *const names[] = {"clip", "mllama", "qwen2vl", "qwen3vl", "cogvlm"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        put_header(&builder, 3, 0, 1);
        put_string(&builder, "general.architecture", names[i]);
        kvant_file *f = open_built(&builder);
        kvant_model_info info;
        kvant_error err;
        assert_int_equal(kvant_file_model_info(f, &info, &err), KVANT_EUNSUPPORTED);
        if (!strstr(err.message, names[i]) || !strstr(err.message, "llama") || !strstr(err.message, scratch))
            fail_msg("%s: %s", names[i], err.message);
        size_t bytes;
        assert_int_equal(kvant_file_cache_bytes(f, "f16", 4096, &bytes, &err), KVANT_EUNSUPPORTED);
        kvant_file_close(f);
    }
    put_header(&builder, 3, 0, 2);
    put_string(&builder, "general.architecture", "llama");
    put_string(&builder, "general.type", "adapter");
    kvant_file *f = open_built(&builder);
    kvant_model_info info;
    kvant_error err;
    assert_int_equal(kvant_file_model_info(f, &info, &err), KVANT_EUNSUPPORTED);
    assert_non_null(strstr(err.message, "general.type is adapter (architecture llama), expected model"));
    kvant_file_close(f);
    put_header(&builder, 3, 0, 1);
    put_string(&builder, "general.architecture", "llama");
    f = open_built(&builder);
    assert_int_equal(kvant_file_model_info(f, &info, &err), KVANT_EUNSUPPORTED);
    assert_non_null(strstr(err.message, "holds a vocabulary and no weights"));
    kvant_file_close(f);
}

/* With weights of any kind, so that it is the architecture that is refused. */
static void an_unknown_architecture_is_named_with_the_known_ones(void **state) {
    (void)state;
    put_header(&builder, 3, 1, 1);
    put_string(&builder, "general.architecture", "nonsense-arch");
    put_tensor(&builder, "token_embd.weight", 1, (uint64_t[]){4}, 0, 0);
    put_padding(&builder, 32);
    put_uint(&builder, 0, 16);
    kvant_file *f = open_built(&builder);
    kvant_model_info info;
    kvant_error err;
    assert_int_equal(kvant_file_model_info(f, &info, &err), KVANT_EUNSUPPORTED);
    assert_non_null(strstr(err.message, "nonsense-arch"));
    assert_non_null(strstr(err.message, "qwen2"));
    kvant_file_close(f);
}

/* The formulas against each other: f16 takes 2 bytes an element, affine4:64 4.5 bits. */
static void cache_bytes_follow_the_format(void **state) {
    (void)state;
    const char *path = KVANT_DATA "/models/random-llama-dense.gguf";
    kvant_file *f;
    kvant_error err;
    if (kvant_file_open(path, &f, &err) != KVANT_OK) {
        print_message("skipped: %s\n", err.message);
        skip();
    }
    kvant_model_info info;
    if (kvant_file_model_info(f, &info, &err) != KVANT_OK) fail_msg("%s", err.message);
    assert_string_equal(info.kit, "text");
    assert_string_equal(info.architecture, "llama");
    assert_true(info.n_parameters > 0 && info.file_bytes > info.weight_bytes);
    size_t f16, affine;
    double elements = 2.0 * 4096 * info.n_layer * info.n_kv_head * info.head_dim;
    assert_int_equal(kvant_file_cache_bytes(f, "f16", 4096, &f16, &err), KVANT_OK);
    assert_true((double)f16 >= 2 * elements && (double)f16 <= 2.06 * elements);
    assert_int_equal(kvant_file_cache_bytes(f, "nonsense", 4096, &affine, &err), KVANT_EINVAL);
    assert_int_equal(kvant_file_cache_bytes(f, "f16", -1, &affine, &err), KVANT_EINVAL);
    if (info.head_dim % 32 == 0) {
        assert_int_equal(kvant_file_cache_bytes(f, "affine4:32", 4096, &affine, &err), KVANT_OK);
        assert_true((double)affine >= 5.0 / 8 * elements && (double)affine <= 5.0 / 8 * 1.03 * elements);
    }
    kvant_file_close(f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_are_readable),
        cmocka_unit_test(any_buffer_is_kept_within),
        cmocka_unit_test(tensors_are_listed),
        cmocka_unit_test(other_kinds_of_models_are_refused_by_name),
        cmocka_unit_test(an_unknown_architecture_is_named_with_the_known_ones),
        cmocka_unit_test(cache_bytes_follow_the_format),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
