// SPDX-License-Identifier: MIT
/* test_safetensors.c: safetensors files: what is read, and that a wrong one ends in a sentence that names what is wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "file/safetensors.h"
#include "safetensors_builder.h"

static void tensors_are_found_with_shape_type_and_data(void **state) {
    (void)state;
    st_file b = st_make("{\"__metadata__\":{\"format\":\"pt\"},"
                        "\"b\":{\"dtype\":\"F16\",\"shape\":[2,3],\"data_offsets\":[4,16]},"
                        "\"a\":{\"dtype\":\"U32\",\"shape\":[],\"data_offsets\":[0,4]}}  ",
                        16);
    kvant_safetensors *f = NULL;
    kvant_error err;
    if (kvant_safetensors_parse("x", b.bytes, b.size, &f, &err) != KVANT_OK) fail_msg("%s", err.message);
    assert_int_equal(f->n_tensors, 2);
    const kvant_safetensor *t = kvant_safetensors_find(f, "b");
    assert_non_null(t);
    assert_int_equal(t->type, KVANT_ST_F16);
    assert_int_equal(t->n_dims, 2);
    assert_int_equal(t->dims[0], 2);
    assert_int_equal(t->dims[1], 3);
    assert_int_equal(t->bytes, 12);
    assert_int_equal(t->data[0], 4);
    t = kvant_safetensors_find(f, "a");
    assert_int_equal(t->n_dims, 0);
    assert_int_equal(t->bytes, 4);
    assert_null(kvant_safetensors_find(f, "c"));
    assert_null(kvant_safetensors_find(f, "__metadata__"));
    kvant_safetensors_close(f);
    free(b.bytes);
}

static void expect_refused(st_file b, kvant_status status, const char *word) {
    kvant_safetensors *f = NULL;
    kvant_error err = {0};
    /* A block of its own, so that a sanitizer sees every byte too many. */
    uint8_t *exact = malloc(b.size ? b.size : 1);
    memcpy(exact, b.bytes, b.size);
    kvant_status st = kvant_safetensors_parse("bad.safetensors", exact, b.size, &f, &err);
    if (st != status || !strstr(err.message, word) || strchr(err.message, '\n'))
        fail_msg("expected status %d and \"%s\", found %d: %s", status, word, st, err.message);
    assert_null(f);
    free(exact);
    free(b.bytes);
}

static void wrong_headers_are_refused(void **state) {
    (void)state;
    const struct {
        const char *header, *word;
        size_t data;
        kvant_status status;
    } cases[] = {
        {"[]", "not a JSON object", 0, KVANT_EFORMAT},
        {"{\"a\":", "not a JSON object", 0, KVANT_EFORMAT},
        {"{\"a\":{},\"a\":{}}", "unique", 0, KVANT_EFORMAT},
        {"{\"a\":1}", "not an object", 0, KVANT_EFORMAT},
        {"{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", "no dtype", 4, KVANT_EFORMAT},
        {"{\"a\":{\"dtype\":\"F7\",\"shape\":[1],\"data_offsets\":[0,4]}}", "F7", 4, KVANT_EUNSUPPORTED},
        {"{\"a\":{\"dtype\":\"F\\n7\",\"shape\":[1],\"data_offsets\":[0,4]}}", "not printable", 4, KVANT_EUNSUPPORTED},
        {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", "no shape", 4, KVANT_EFORMAT},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", "dimension 0", 4, KVANT_EFORMAT},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1.5],\"data_offsets\":[0,4]}}", "dimension 0", 4, KVANT_EFORMAT},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,4],\"data_offsets\":[0,4]}}", "more bytes", 4, KVANT_EFORMAT},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}", "9 dimensions", 4,
         KVANT_EUNSUPPORTED},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", "data_offsets", 4, KVANT_EFORMAT},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", "data_offsets", 4, KVANT_EFORMAT},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[-4,0]}}", "data_offsets", 4, KVANT_EFORMAT},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", "truncated", 3, KVANT_EFORMAT},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,3]}}", "needs 4", 4, KVANT_EFORMAT},
        {"{\"\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", "empty name", 4, KVANT_EFORMAT},
        {"{\"a\\n\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", "control", 4, KVANT_EFORMAT},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
         "\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[3,5]}}",
         "share bytes", 8, KVANT_EFORMAT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect_refused(st_make(cases[i].header, cases[i].data), cases[i].status, cases[i].word);
}

static void lengths_that_cannot_be_are_refused(void **state) {
    (void)state;
    st_file b = st_make("{}", 0);
    b.size = 7;
    expect_refused(b, KVANT_EFORMAT, "too few");
    b = st_make("{}", 0);
    b.bytes[0] = 3;
    expect_refused(b, KVANT_EFORMAT, "truncated");
    b = st_make("{}", 0);
    b.bytes[7] = 1;
    expect_refused(b, KVANT_EFORMAT, "not a safetensors file");
}

static void a_cut_file_is_refused_at_any_length(void **state) {
    (void)state;
    const char *header = "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}";
    size_t whole = 8 + strlen(header) + 8;
    for (size_t n = 0; n < whole; n++) {
        st_file b = st_make(header, 8);
        b.size = n;
        expect_refused(b, KVANT_EFORMAT, "bad.safetensors");
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tensors_are_found_with_shape_type_and_data),
        cmocka_unit_test(wrong_headers_are_refused),
        cmocka_unit_test(lengths_that_cannot_be_are_refused),
        cmocka_unit_test(a_cut_file_is_refused_at_any_length),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
