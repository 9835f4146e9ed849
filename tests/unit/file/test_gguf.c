// SPDX-License-Identifier: MIT
/* test_gguf.c: good GGUF files are read in full; broken ones are refused by one sentence that names what is wrong.
 *
 * Every file is parsed from a heap copy of exactly its size, so that a sanitizer sees the first byte read behind it. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/half.h"
#include "unit/file/gguf_builder.h"

static gguf_builder builder;

/* The copy lives until the next call; kvant_gguf_close must come before it. */
static kvant_status parse(const gguf_builder *b, size_t size, kvant_gguf **out, kvant_error *err) {
    static uint8_t *copy;
    free(copy);
    copy = malloc(size ? size : 1);
    memcpy(copy, b->data, size);
    return kvant_gguf_parse("test.gguf", copy, size, NULL, out, err);
}

static kvant_gguf *parse_good(const gguf_builder *b) {
    kvant_gguf *f = NULL;
    kvant_error err = {0};
    if (parse(b, b->size, &f, &err) != KVANT_OK) fail_msg("refused: %s", err.message);
    return f;
}

static void put_every_type(gguf_builder *b, uint32_t version) {
    put_header(b, version, 2, 20);
    put_scalar(b, "t.u8", KVANT_GGUF_U8, 200, 1);
    put_scalar(b, "t.i8", KVANT_GGUF_I8, 0x80, 1);
    put_scalar(b, "t.u16", KVANT_GGUF_U16, 65535, 2);
    put_scalar(b, "t.i16", KVANT_GGUF_I16, 0x8000, 2);
    put_scalar(b, "t.u32", KVANT_GGUF_U32, UINT32_MAX, 4);
    put_scalar(b, "t.i32", KVANT_GGUF_I32, (uint32_t)-5, 4);
    put_scalar(b, "t.f32", KVANT_GGUF_F32, kvant_f32_bits(2.5f), 4);
    put_scalar(b, "t.bool", KVANT_GGUF_BOOL, 1, 1);
    put_string(b, "t.string", "Gr\xc3\xbc\xc3\x9f Gott");
    put_scalar(b, "t.u64", KVANT_GGUF_U64, UINT64_MAX, 8);
    put_scalar(b, "t.i64", KVANT_GGUF_I64, (uint64_t)INT64_MIN, 8);
    put_scalar(b, "t.f64", KVANT_GGUF_F64, 0x4008000000000000u, 8); /* 3.0 */
    put_array(b, "a.i16", KVANT_GGUF_I16, 3);
    put_uint(b, 0x00020001FFFFu, 6);
    put_array(b, "a.string", KVANT_GGUF_STRING, 3);
    put_text(b, "one");
    put_text(b, "");
    put_text(b, "\xff\xfe");
    put_array(b, "a.f64", KVANT_GGUF_F64, 2);
    put_uint(b, 0x4008000000000000u, 8);
    put_uint(b, 0x7FE0000000000000u, 8); /* larger than any float */
    put_array(b, "a.bool", KVANT_GGUF_BOOL, 2);
    put_uint(b, 0x0100, 2);
    put_array(b, "a.empty", KVANT_GGUF_STRING, 0);
    put_array(b, "a.u64", KVANT_GGUF_U64, 1);
    put_uint(b, UINT64_MAX, 8);
    put_u32(b, "general.alignment", 64);
    put_scalar(b, "split.count", KVANT_GGUF_U16, 1, 2);
    put_tensor(b, "second", 1, (uint64_t[]){5}, 0, 64);
    put_tensor(b, "first", 2, (uint64_t[]){32, 2}, 8, 0); /* Q8_0: 68 bytes would overlap, see below */
}

/* The two tensors of put_every_type with offsets that fit: first at 0 (68 bytes), second at 128 (20 bytes). */
static void put_good_file(gguf_builder *b, uint32_t version) {
    put_every_type(b, version);
    size_t at = b->size - (8 + 5 + 4 + 16 + 4 + 8) - 8;
    b->data[at] = 128;
    put_padding(b, 64);
    for (int i = 0; i < 148; i++)
        put_uint(b, (uint64_t)i, 1);
}

static void versions_2_and_3_and_every_value_type_are_read(void **state) {
    (void)state;
    for (uint32_t version = 2; version <= 3; version++) {
        put_good_file(&builder, version);
        kvant_gguf *f = parse_good(&builder);
        assert_int_equal(f->version, version);
        assert_int_equal(f->n_values, 20);
        assert_int_equal(f->alignment, 64);
        assert_string_equal(f->path, "test.gguf");
        uint32_t u;
        float x;
        bool flag;
        kvant_text text;
        assert_int_equal(kvant_gguf_u32(f, "t.u8", &u, NULL), KVANT_OK);
        assert_int_equal(u, 200);
        assert_int_equal(kvant_gguf_u32(f, "t.u16", &u, NULL), KVANT_OK);
        assert_int_equal(u, 65535);
        assert_int_equal(kvant_gguf_u32(f, "t.u32", &u, NULL), KVANT_OK);
        assert_int_equal(u, UINT32_MAX);
        assert_int_equal(kvant_gguf_u32(f, "t.f64", &u, NULL), KVANT_OK);
        assert_int_equal(u, 3);
        assert_int_equal(kvant_gguf_u32(f, "t.bool", &u, NULL), KVANT_OK);
        assert_int_equal(u, 1);
        assert_int_equal(kvant_gguf_f32_or(f, "t.i8", 0, &x, NULL), KVANT_OK);
        assert_true(x == -128);
        assert_int_equal(kvant_gguf_f32_or(f, "t.i16", 0, &x, NULL), KVANT_OK);
        assert_true(x == -32768);
        assert_int_equal(kvant_gguf_f32_or(f, "t.i64", 0, &x, NULL), KVANT_OK);
        assert_true(x == -0x1p63f);
        assert_int_equal(kvant_gguf_f32_or(f, "t.u64", 0, &x, NULL), KVANT_OK);
        assert_true(x == 0x1p64f);
        assert_int_equal(kvant_gguf_f32_or(f, "t.f32", 0, &x, NULL), KVANT_OK);
        assert_true(x == 2.5f);
        assert_int_equal(kvant_gguf_bool_or(f, "t.bool", false, &flag, NULL), KVANT_OK);
        assert_true(flag);
        assert_int_equal(kvant_gguf_string(f, "t.string", &text, NULL), KVANT_OK);
        assert_int_equal(text.size, 11);
        assert_memory_equal(text.data, "Gr\xc3\xbc\xc3\x9f Gott", 11);
        kvant_gguf_close(f);
    }
}

static void arrays_are_read_element_by_element(void **state) {
    (void)state;
    put_good_file(&builder, 3);
    kvant_gguf *f = parse_good(&builder);
    const kvant_gguf_value *v = kvant_gguf_find(f, "a.i16");
    assert_non_null(v);
    assert_int_equal(v->n_elements, 3);
    assert_int_equal(kvant_gguf_array_int(v, 0), -1);
    assert_int_equal(kvant_gguf_array_int(v, 1), 1);
    assert_true(kvant_gguf_array_f32(v, 2) == 2.0f);
    v = kvant_gguf_find(f, "a.string");
    kvant_text text = kvant_gguf_array_string(v, 0);
    assert_int_equal(text.size, 3);
    assert_memory_equal(text.data, "one", 3);
    assert_int_equal(kvant_gguf_array_string(v, 1).size, 0);
    text = kvant_gguf_array_string(v, 2);
    assert_int_equal(text.size, 2);
    assert_memory_equal(text.data, "\xff\xfe", 2);
    v = kvant_gguf_find(f, "a.f64");
    assert_int_equal(kvant_gguf_array_int(v, 0), 3);
    assert_true(isinf(kvant_gguf_array_f32(v, 1)));
    assert_int_equal(kvant_gguf_array_int(v, 1), INT64_MAX);
    v = kvant_gguf_find(f, "a.bool");
    assert_int_equal(kvant_gguf_array_int(v, 0), 0);
    assert_int_equal(kvant_gguf_array_int(v, 1), 1);
    assert_int_equal(kvant_gguf_find(f, "a.empty")->n_elements, 0);
    assert_int_equal(kvant_gguf_array_int(kvant_gguf_find(f, "a.u64"), 0), INT64_MAX);
    kvant_gguf_close(f);
}

static void tensors_are_found_by_name_with_shape_and_data(void **state) {
    (void)state;
    put_good_file(&builder, 3);
    kvant_gguf *f = parse_good(&builder);
    const kvant_gguf_tensor *t = kvant_gguf_find_tensor(f, "first");
    assert_non_null(t);
    assert_int_equal(t->n_dims, 2);
    assert_int_equal(t->dims[0], 32);
    assert_int_equal(t->dims[1], 2);
    assert_int_equal(t->dims[2], 1);
    assert_int_equal(t->bytes, 68);
    assert_int_equal(t->data[0], 0);
    t = kvant_gguf_find_tensor(f, "second");
    assert_int_equal(t->bytes, 20);
    assert_int_equal(t->data[0], 128);
    assert_ptr_equal(t->data + t->bytes, f->map.data + f->map.size);
    assert_null(kvant_gguf_find_tensor(f, "third"));
    assert_null(kvant_gguf_find_tensor(f, "firs"));
    assert_null(kvant_gguf_find_tensor(f, "first "));
    assert_null(kvant_gguf_find_tensor(f, ""));
    kvant_gguf_close(f);
}

static void a_value_of_the_wrong_kind_or_range_is_refused_by_name(void **state) {
    (void)state;
    put_good_file(&builder, 3);
    kvant_gguf *f = parse_good(&builder);
    kvant_error err;
    uint32_t u = 7;
    float x;
    bool flag;
    kvant_text text;
    assert_int_equal(kvant_gguf_u32(f, "absent", &u, &err), KVANT_EFORMAT);
    assert_string_equal(err.message, "test.gguf: has no absent in its metadata, which it needs");
    assert_int_equal(kvant_gguf_u32(f, "t.string", &u, &err), KVANT_EFORMAT);
    assert_string_equal(err.message, "test.gguf: t.string is of type string, expected a number");
    assert_int_equal(kvant_gguf_u32(f, "t.i32", &u, &err), KVANT_EFORMAT);
    assert_string_equal(err.message, "test.gguf: t.i32 is -5, expected a whole number from 0 to 4294967295");
    assert_int_equal(kvant_gguf_u32(f, "t.u64", &u, NULL), KVANT_EFORMAT);
    assert_int_equal(kvant_gguf_u32(f, "t.f32", &u, NULL), KVANT_EFORMAT);
    assert_int_equal(kvant_gguf_u32(f, "a.i16", &u, NULL), KVANT_EFORMAT);
    assert_int_equal(u, 7); /* untouched by failures */
    assert_int_equal(kvant_gguf_u32_or(f, "t.string", 1, &u, NULL), KVANT_EFORMAT);
    assert_int_equal(kvant_gguf_u32_or(f, "absent", 9, &u, NULL), KVANT_OK);
    assert_int_equal(u, 9);
    assert_int_equal(kvant_gguf_f32_or(f, "absent", 0.5f, &x, NULL), KVANT_OK);
    assert_true(x == 0.5f);
    assert_int_equal(kvant_gguf_f32_or(f, "a.f64", 0, &x, NULL), KVANT_EFORMAT);
    assert_int_equal(kvant_gguf_bool_or(f, "absent", true, &flag, NULL), KVANT_OK);
    assert_true(flag);
    assert_int_equal(kvant_gguf_bool_or(f, "t.u8", true, &flag, NULL), KVANT_EFORMAT);
    assert_int_equal(kvant_gguf_string(f, "t.u8", &text, NULL), KVANT_EFORMAT);
    assert_int_equal(kvant_gguf_string(f, "absent", &text, NULL), KVANT_EFORMAT);
    kvant_gguf_close(f);
}

static void every_truncation_is_refused(void **state) {
    (void)state;
    put_good_file(&builder, 3);
    for (size_t size = 0; size < builder.size; size++) {
        kvant_gguf *f = NULL;
        kvant_error err = {0};
        kvant_status st = parse(&builder, size, &f, &err);
        if (st == KVANT_OK) fail_msg("accepted when cut at %zu of %zu bytes", size, builder.size);
        assert_null(f);
        assert_int_equal(err.status, st);
        assert_non_null(strstr(err.message, "test.gguf"));
        assert_null(strchr(err.message, '\n'));
    }
}

/* Any one byte changed to any of some values: parsed or refused, nothing else (a sanitizer build makes this sharp). */
static void a_changed_byte_never_does_more_than_be_refused(void **state) {
    (void)state;
    static const uint8_t masks[] = {0x01, 0x04, 0x10, 0x40, 0x80, 0xFF};
    put_good_file(&builder, 3);
    int refused = 0;
    for (size_t i = 0; i < builder.size; i++) {
        for (size_t m = 0; m < sizeof masks; m++) {
            builder.data[i] ^= masks[m];
            kvant_gguf *f = NULL;
            if (parse(&builder, builder.size, &f, NULL) == KVANT_OK)
                kvant_gguf_close(f);
            else
                refused++;
            builder.data[i] ^= masks[m];
        }
    }
    assert_true(refused > 1000);
}

static void many_names_are_sorted_and_found(void **state) {
    (void)state;
    enum { N = 1000 };
    put_header(&builder, 3, 0, N);
    char key[32];
    for (int i = 0; i < N; i++) {
        snprintf(key, sizeof key, "key.%d", i * 7919 % N);
        put_u32(&builder, key, (uint32_t)(i * 7919 % N));
    }
    kvant_gguf *f = parse_good(&builder);
    for (int i = 0; i < N; i++) {
        uint32_t u;
        snprintf(key, sizeof key, "key.%d", i);
        assert_int_equal(kvant_gguf_u32(f, key, &u, NULL), KVANT_OK);
        assert_int_equal(u, i);
    }
    assert_null(kvant_gguf_find(f, "key.1000"));
    kvant_gguf_close(f);
}

static void padding_behind_the_tensors_is_accepted(void **state) {
    (void)state;
    put_good_file(&builder, 3);
    put_padding(&builder, 64);
    kvant_gguf_close(parse_good(&builder));
    put_padding(&builder, 4096);
    kvant_gguf_close(parse_good(&builder));
}

static void a_tensor_of_an_unknown_type_has_a_beginning_but_no_size(void **state) {
    (void)state;
    put_header(&builder, 3, 1, 0);
    put_tensor(&builder, "w", 1, (uint64_t[]){33}, 99, 0);
    put_padding(&builder, 32);
    put_uint(&builder, 1, 8);
    kvant_gguf *f = parse_good(&builder);
    assert_int_equal(f->tensors[0].bytes, 0);
    assert_ptr_equal(f->tensors[0].data + 8, f->map.data + f->map.size);
    assert_null(kvant_gguf_tensor_type_name(99));
    kvant_gguf_close(f);
}

static int open_all(const char *format, const char *const *names, int n) {
    int opened = 0;
    for (int i = 0; i < n; i++) {
        char path[512];
        snprintf(path, sizeof path, format, KVANT_DATA, names[i]);
        FILE *there = fopen(path, "rb");
        if (!there) {
            print_message("skipped: %s is absent\n", path);
            continue;
        }
        fclose(there);
        kvant_gguf *f;
        kvant_error err;
        if (kvant_gguf_open(path, NULL, &f, &err) != KVANT_OK) fail_msg("%s", err.message);
        kvant_text text;
        assert_int_equal(kvant_gguf_string(f, "general.architecture", &text, NULL), KVANT_OK);
        const kvant_gguf_value *tokens = kvant_gguf_find(f, "tokenizer.ggml.tokens");
        assert_non_null(tokens);
        for (uint64_t t = 0; t < tokens->n_elements; t++)
            assert_true(kvant_gguf_array_string(tokens, t).size < 1000);
        kvant_gguf_close(f);
        opened++;
    }
    return opened;
}

static void real_files_open(void **state) {
    (void)state;
    static const char *const models[] = {"random-gemma2-dense", "random-gemma3-dense", "random-gpt-oss-moe",
                                         "random-llama-dense",  "random-llama-moe",    "random-phi3-dense",
                                         "random-qwen2-dense",  "random-qwen3-dense",  "stories260K"};
    static const char *const vocabularies[] = {"gemma-4", "gpt-2", "llama-bpe", "llama-spm", "phi-3", "qwen2", "starcoder"};
    int n = open_all("%s/models/%s.gguf", models, (int)(sizeof models / sizeof *models));
    n += open_all("%s/tokenizers/ggml-vocab-%s.gguf", vocabularies, (int)(sizeof vocabularies / sizeof *vocabularies));
    if (n == 0) skip();
}

static void a_file_that_is_not_there_is_an_input_error(void **state) {
    (void)state;
    kvant_gguf *f;
    kvant_error err;
    assert_int_equal(kvant_gguf_open("/nonexistent/model.gguf", NULL, &f, &err), KVANT_EIO);
    assert_non_null(strstr(err.message, "/nonexistent/model.gguf"));
    assert_int_equal(kvant_gguf_open("/", NULL, &f, &err), KVANT_EIO);
    assert_non_null(strstr(err.message, "a folder"));
}

static void every_type_size_is_whole_blocks(void **state) {
    (void)state;
    int known = 0;
    for (uint32_t type = 0; type < 64; type++) {
        size_t bytes;
        const char *name = kvant_gguf_tensor_type_name(type);
        assert_int_equal(kvant_gguf_type_size(type, 512, &bytes), name != NULL);
        if (!name) continue;
        known++;
        assert_true(bytes >= 64 && bytes <= 512 * 8);
        assert_false(kvant_gguf_type_size(type, INT64_MAX - 511, &bytes) && bytes < (size_t)INT64_MAX / 16);
        assert_false(kvant_gguf_type_size(type, -512, &bytes));
    }
    assert_true(known >= 30);
    size_t bytes;
    assert_true(kvant_gguf_type_size(12, 512, &bytes));
    assert_int_equal(bytes, 288);
    assert_false(kvant_gguf_type_size(12, 255, &bytes));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(versions_2_and_3_and_every_value_type_are_read),
        cmocka_unit_test(arrays_are_read_element_by_element),
        cmocka_unit_test(tensors_are_found_by_name_with_shape_and_data),
        cmocka_unit_test(a_value_of_the_wrong_kind_or_range_is_refused_by_name),
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(a_changed_byte_never_does_more_than_be_refused),
        cmocka_unit_test(many_names_are_sorted_and_found),
        cmocka_unit_test(padding_behind_the_tensors_is_accepted),
        cmocka_unit_test(a_tensor_of_an_unknown_type_has_a_beginning_but_no_size),
        cmocka_unit_test(every_type_size_is_whole_blocks),
        cmocka_unit_test(a_file_that_is_not_there_is_an_input_error),
        cmocka_unit_test(real_files_open),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
