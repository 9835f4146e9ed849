// SPDX-License-Identifier: MIT
/* test_gguf_hostile.c: a table of broken and hostile GGUF files, each with the sentence that refuses it. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>

#include "base/memory.h"
#include "unit/file/gguf_builder.h"

typedef struct hostile_case {
    const char *what;
    void (*build)(gguf_builder *b);
    kvant_status status;
    const char *sentence; /* what the message must contain */
} hostile_case;

static void empty_file(gguf_builder *b) { b->size = 0; }
static void other_magic(gguf_builder *b) {
    b->size = 0;
    put_bytes(b, "PK\x03\x04 and more than the header's 24 bytes", 40);
}
static void version_1(gguf_builder *b) { put_header(b, 1, 0, 0); }
static void version_4(gguf_builder *b) { put_header(b, 4, 0, 0); }
static void big_endian(gguf_builder *b) { put_header(b, 0x03000000, 0, 0); }
static void short_header(gguf_builder *b) {
    put_header(b, 3, 0, 0);
    b->size = 20;
}
static void many_values(gguf_builder *b) { put_header(b, 3, 0, UINT64_MAX); }
static void more_values_than_bytes(gguf_builder *b) {
    put_header(b, 3, 0, 3);
    put_u32(b, "a", 1);
    put_u32(b, "b", 2);
}
static void many_tensors(gguf_builder *b) { put_header(b, 3, UINT64_MAX / 24 + 2, 0); }
static void long_key(gguf_builder *b) {
    put_header(b, 3, 0, 1);
    put_uint(b, UINT64_MAX - 7, 8);
    put_bytes(b, "0123456789abcdef", 16);
}
static void no_key(gguf_builder *b) {
    put_header(b, 3, 0, 1);
    put_u32(b, "", 1);
    put_uint(b, 0, 8);
}
static void same_key(gguf_builder *b) {
    put_header(b, 3, 0, 3);
    put_u32(b, "x.y", 1);
    put_u32(b, "other", 1);
    put_u32(b, "x.y", 2);
}
static void unknown_type(gguf_builder *b) {
    put_header(b, 3, 0, 1);
    put_scalar(b, "k", 13, 0, 8);
}
static void bad_bool(gguf_builder *b) {
    put_header(b, 3, 0, 1);
    put_scalar(b, "flag", KVANT_GGUF_BOOL, 2, 1);
}
static void long_string(gguf_builder *b) {
    put_header(b, 3, 0, 1);
    put_key(b, "name", KVANT_GGUF_STRING);
    put_uint(b, (uint64_t)1 << 63, 8);
    put_bytes(b, "abc", 3);
}
static void nested_array(gguf_builder *b) {
    put_header(b, 3, 0, 1);
    put_array(b, "deep", KVANT_GGUF_ARRAY, 1);
    put_uint(b, 0, 32);
}
static void unknown_elements(gguf_builder *b) {
    put_header(b, 3, 0, 1);
    put_array(b, "odd", 77, 0);
}
static void huge_array(gguf_builder *b) {
    put_header(b, 3, 0, 1);
    put_array(b, "ints", KVANT_GGUF_I32, UINT64_MAX / 4 + 2); /* 4 * n overflows to 4 */
    put_uint(b, 0, 8);
}
static void huge_string_array(gguf_builder *b) {
    put_header(b, 3, 0, 1);
    put_array(b, "tokens", KVANT_GGUF_STRING, (uint64_t)1 << 40);
    put_uint(b, 0, 8);
}
static void string_array_that_overruns(gguf_builder *b) {
    put_header(b, 3, 0, 1);
    put_array(b, "tokens", KVANT_GGUF_STRING, 2);
    put_text(b, "fine");
    put_uint(b, 100, 8);
}
static void bad_bool_array(gguf_builder *b) {
    put_header(b, 3, 0, 1);
    put_array(b, "flags", KVANT_GGUF_BOOL, 2);
    put_uint(b, 0x0301, 2);
}
static void alignment_0(gguf_builder *b) {
    put_header(b, 3, 0, 1);
    put_u32(b, "general.alignment", 0);
}
static void alignment_48(gguf_builder *b) {
    put_header(b, 3, 0, 1);
    put_u32(b, "general.alignment", 48);
}
static void alignment_text(gguf_builder *b) {
    put_header(b, 3, 0, 1);
    put_string(b, "general.alignment", "32");
}
static void one_part(gguf_builder *b) {
    put_header(b, 3, 0, 1);
    put_scalar(b, "split.count", KVANT_GGUF_U16, 4, 2);
}
static void control_bytes_in_key(gguf_builder *b) {
    put_header(b, 3, 0, 1);
    put_scalar(b, "\x1b[31mred\n", 50, 0, 8);
}

/* One tensor "blk.0.w" and room bytes of data behind it. */
static void one_tensor(gguf_builder *b, uint32_t n_dims, const uint64_t *dims, uint32_t type, uint64_t offset, size_t room) {
    put_header(b, 3, 1, 0);
    put_tensor(b, "blk.0.w", n_dims, dims, type, offset);
    put_padding(b, 32);
    for (size_t i = 0; i < room; i++)
        put_uint(b, 1, 1);
}
static void five_dims(gguf_builder *b) { one_tensor(b, 5, (uint64_t[]){1, 1, 1, 1, 1}, 0, 0, 4); }
static void many_dims(gguf_builder *b) {
    put_header(b, 3, 1, 0);
    put_text(b, "blk.0.w");
    put_uint(b, UINT32_MAX, 4);
    put_uint(b, 0, 32);
}
static void zero_dim(gguf_builder *b) { one_tensor(b, 2, (uint64_t[]){4, 0}, 0, 0, 16); }
static void huge_dim(gguf_builder *b) { one_tensor(b, 1, (uint64_t[]){UINT64_MAX}, 0, 0, 16); }
static void dims_that_overflow(gguf_builder *b) {
    one_tensor(b, 4, (uint64_t[]){1u << 16, 1u << 16, 1u << 16, 1u << 16}, 0, 0, 16);
}
static void bytes_that_overflow(gguf_builder *b) {
    one_tensor(b, 2, (uint64_t[]){(uint64_t)1 << 31, (uint64_t)1 << 31}, 28, 0, 16);
}
static void ragged_row(gguf_builder *b) { one_tensor(b, 2, (uint64_t[]){33, 2}, 12, 0, 256); }
static void odd_offset(gguf_builder *b) { one_tensor(b, 1, (uint64_t[]){4}, 0, 16, 64); }
static void offset_behind_end(gguf_builder *b) { one_tensor(b, 1, (uint64_t[]){4}, 0, 4096, 16); }
static void offset_that_overflows(gguf_builder *b) { one_tensor(b, 1, (uint64_t[]){4}, 0, UINT64_MAX - 31, 16); }
static void short_data(gguf_builder *b) { one_tensor(b, 2, (uint64_t[]){256, 4}, 12, 0, 575); }
static void junk_behind(gguf_builder *b) { one_tensor(b, 1, (uint64_t[]){4}, 0, 0, 100); }
static void unknown_type_behind_end(gguf_builder *b) { one_tensor(b, 1, (uint64_t[]){4}, 1000, 32, 32); }
static void unknown_type_too_large(gguf_builder *b) { one_tensor(b, 1, (uint64_t[]){(uint64_t)1 << 62}, 1000, 0, 32); }
static void nameless_tensor(gguf_builder *b) {
    put_header(b, 3, 1, 0);
    put_tensor(b, "", 1, (uint64_t[]){4}, 0, 0);
    put_uint(b, 0, 64);
}
static void same_tensor(gguf_builder *b) {
    put_header(b, 3, 2, 0);
    put_tensor(b, "w", 1, (uint64_t[]){4}, 0, 0);
    put_tensor(b, "w", 1, (uint64_t[]){4}, 0, 32);
    put_padding(b, 32);
    put_uint(b, 0, 64);
}
static void overlapping_tensors(gguf_builder *b) {
    put_header(b, 3, 3, 0);
    put_tensor(b, "a", 1, (uint64_t[]){4}, 0, 64);
    put_tensor(b, "b", 1, (uint64_t[]){12}, 0, 32);
    put_tensor(b, "c", 1, (uint64_t[]){8}, 0, 0);
    put_padding(b, 32);
    put_uint(b, 0, 128);
}

#define TRUNCATED "(truncated download?)"
static const hostile_case cases[] = {
    {"empty file", empty_file, KVANT_EFORMAT, "bad.gguf: is empty, expected a GGUF file"},
    {"another magic", other_magic, KVANT_EFORMAT, "begins with the bytes 50 4b 03 04, expected 47 47 55 46"},
    {"version 1", version_1, KVANT_EUNSUPPORTED, "is GGUF version 1; Kvant reads versions 2 and 3"},
    {"version 4", version_4, KVANT_EUNSUPPORTED, "is GGUF version 4; Kvant reads versions 2 and 3"},
    {"big-endian", big_endian, KVANT_EUNSUPPORTED, "is a big-endian GGUF file (version field 0x03000000)"},
    {"short header", short_header, KVANT_EFORMAT,
     "the metadata count of the header needs 8 bytes at offset 16, but the file ends at 20 " TRUNCATED},
    {"2^64 - 1 metadata", many_values, KVANT_EFORMAT,
     "the header claims 18446744073709551615 metadata entries, but only 0 bytes follow it"},
    {"one entry too many", more_values_than_bytes, KVANT_EFORMAT,
     "the header claims 3 metadata entries, but only 34 bytes follow it"},
    {"tensor count whose size overflows", many_tensors, KVANT_EFORMAT, "tensors, but only 0 bytes follow it"},
    {"key of 2^64 - 8 bytes", long_key, KVANT_EFORMAT,
     "the key of metadata entry 0 needs 18446744073709551608 bytes at offset 32, but"},
    {"no key", no_key, KVANT_EFORMAT, "metadata entry 0 has an empty key"},
    {"the same key twice", same_key, KVANT_EFORMAT, "the metadata key x.y stands twice, as number 0 and 2, expected once"},
    {"value type 13", unknown_type, KVANT_EFORMAT, "k has type 13, expected 0 to 12"},
    {"bool of 2", bad_bool, KVANT_EFORMAT, "flag holds a bool of value 2, expected 0 or 1"},
    {"string of 2^63 bytes", long_string, KVANT_EFORMAT,
     "the string of name needs 9223372036854775808 bytes at offset 48, but the file ends at 51"},
    {"array of arrays", nested_array, KVANT_EUNSUPPORTED, "deep is an array of arrays"},
    {"element type 77", unknown_elements, KVANT_EFORMAT, "the elements of odd have type 77, expected 0 to 12"},
    {"array whose size overflows", huge_array, KVANT_EFORMAT,
     "ints claims 4611686018427387905 elements of 4 bytes at offset 52, but the file ends at 60"},
    {"2^40 strings", huge_string_array, KVANT_EFORMAT,
     "tokens claims 1099511627776 strings, but only 8 bytes are left in the file"},
    {"a string of an array overruns", string_array_that_overruns, KVANT_EFORMAT, "the string of tokens needs 100 bytes"},
    {"bool of 3 in an array", bad_bool_array, KVANT_EFORMAT, "flags holds a bool of value 3, expected 0 or 1"},
    {"alignment 0", alignment_0, KVANT_EFORMAT, "general.alignment is 0, expected a power of two"},
    {"alignment 48", alignment_48, KVANT_EFORMAT, "general.alignment is 48, expected a power of two"},
    {"alignment is text", alignment_text, KVANT_EFORMAT, "general.alignment is of type string, expected a number"},
    {"one part of four", one_part, KVANT_EUNSUPPORTED, "is one of 4 parts of a split model"},
    {"escape sequence in a key", control_bytes_in_key, KVANT_EFORMAT, "bad.gguf: ?[31mred? has type 50"},
    {"5 dimensions", five_dims, KVANT_EFORMAT, "tensor blk.0.w has 5 dimensions, expected at most 4"},
    {"2^32 - 1 dimensions", many_dims, KVANT_EFORMAT, "tensor blk.0.w has 4294967295 dimensions, expected at most 4"},
    {"dimension 0", zero_dim, KVANT_EFORMAT, "dimension 1 of tensor blk.0.w is 0, expected at least 1"},
    {"dimension 2^64 - 1", huge_dim, KVANT_EFORMAT, "dimension 0 of tensor blk.0.w is 18446744073709551615, expected"},
    {"elements overflow", dims_that_overflow, KVANT_EFORMAT,
     "dimension 3 of tensor blk.0.w is 65536, expected at least 1 and fewer than 2^63"},
    {"bytes overflow", bytes_that_overflow, KVANT_EFORMAT, "tensor blk.0.w of 2147483648 x 2147483648 is larger than any memory"},
    {"rows are not whole blocks", ragged_row, KVANT_EFORMAT,
     "blk.0.w (33 x 2) has rows of 33 elements, which are not whole blocks of its type Q4_K"},
    {"offset is not aligned", odd_offset, KVANT_EFORMAT,
     "tensor blk.0.w stands at offset 16, expected a multiple of the alignment 32"},
    {"offset behind the end", offset_behind_end, KVANT_EFORMAT,
     "blk.0.w: 4 F32 needs 16 bytes at offset 64 + 4096, but bad.gguf ends at 80 " TRUNCATED},
    {"offset overflows", offset_that_overflows, KVANT_EFORMAT,
     "blk.0.w: 4 F32 needs 16 bytes at offset 64 + 18446744073709551584, but bad.gguf ends at 80"},
    {"one byte of data is missing", short_data, KVANT_EFORMAT,
     "blk.0.w: 256 x 4 Q4_K needs 576 bytes at offset 96 + 0, but bad.gguf ends at 671 " TRUNCATED},
    {"junk behind the last tensor", junk_behind, KVANT_EFORMAT,
     "has 164 bytes, but its contents end at 80: expected nothing behind them but zeros"},
    {"unknown type behind the end", unknown_type_behind_end, KVANT_EFORMAT,
     "blk.0.w: 4 of an unknown type needs 0 bytes at offset 64 + 32"},
    {"unknown type too large", unknown_type_too_large, KVANT_EFORMAT,
     "tensor blk.0.w of 4611686018427387904, of the unknown type 1000, cannot fit the 32 bytes from its offset on"},
    {"nameless tensor", nameless_tensor, KVANT_EFORMAT, "tensor 0 has an empty name"},
    {"the same tensor twice", same_tensor, KVANT_EFORMAT, "the tensor w stands twice, as number 0 and 1, expected once"},
    {"tensors overlap", overlapping_tensors, KVANT_EFORMAT, "tensor b (48 bytes at offset 32) overlaps a at offset 64"},
};

static void hostile_files_are_refused_by_the_sentence(void **state) {
    (void)state;
    static gguf_builder b;
    int failures = 0;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const hostile_case *c = &cases[i];
        c->build(&b);
        uint8_t *copy = malloc(b.size ? b.size : 1);
        memcpy(copy, b.data, b.size);
        kvant_gguf *f = NULL;
        kvant_error err = {0};
        kvant_status st = kvant_gguf_parse("bad.gguf", copy, b.size, NULL, &f, &err);
        if (st != c->status || err.status != st || f || !strstr(err.message, c->sentence)) {
            print_error("%s: status %d (expected %d): \"%s\", expected \"%s\"\n", c->what, st, c->status, err.message,
                        c->sentence);
            failures++;
        }
        if (f) kvant_gguf_close(f);
        free(copy);
    }
    assert_int_equal(failures, 0);
}

static void sentences_stay_whole_when_names_are_long(void **state) {
    (void)state;
    static gguf_builder b;
    char name[3000];
    for (size_t i = 0; i + 2 < sizeof name; i += 2)
        memcpy(name + i, "\xc3\xa9", 2);
    name[sizeof name - 2] = '\0';
    put_header(&b, 3, 0, 1);
    put_scalar(&b, name, 99, 0, 8);
    kvant_gguf *f;
    kvant_error err;
    assert_int_equal(kvant_gguf_parse("bad.gguf", b.data, b.size, NULL, &f, &err), KVANT_EFORMAT);
    assert_true(strlen(err.message) < 200);
    assert_non_null(strstr(err.message, "\xc3\xa9... has type 99"));
}

static void a_refused_file_costs_few_allocations(void **state) {
    (void)state;
    static gguf_builder b;
    huge_string_array(&b);
    uint64_t before = kvant_alloc_count();
    kvant_gguf *f;
    assert_int_equal(kvant_gguf_parse("bad.gguf", b.data, b.size, NULL, &f, NULL), KVANT_EFORMAT);
    assert_true(kvant_alloc_count() - before <= 4);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hostile_files_are_refused_by_the_sentence),
        cmocka_unit_test(sentences_stay_whole_when_names_are_long),
        cmocka_unit_test(a_refused_file_costs_few_allocations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
