// SPDX-License-Identifier: MIT
/* test_memory.c: allocation refuses sizes that overflow; a buffer never exceeds its cap and loses nothing when refused. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "base/memory.h"

/* volatile: compilers warn of allocations that they can see to be too large */
static volatile size_t half_of_all = SIZE_MAX / 2 + 1;

static void sizes_that_overflow_are_refused(void **state) {
    (void)state;
    assert_null(kvant_alloc(half_of_all, 2));
    assert_null(kvant_alloc(2, half_of_all));
    assert_null(kvant_alloc_aligned(half_of_all, 2));
    assert_null(kvant_alloc_aligned(half_of_all * 2 - 1, 1)); /* rounding up to the alignment would overflow */
    char *p = kvant_alloc(4, 1);
    assert_non_null(p);
    assert_null(kvant_realloc(p, half_of_all, 2));
    kvant_free(p); /* still owned after the refusal */
    size_t product;
    assert_false(kvant_mul_size(half_of_all, 2, &product));
    assert_true(kvant_mul_size(half_of_all - 1, 2, &product));
    assert_true(product == SIZE_MAX - 1);
    assert_true(kvant_mul_size(half_of_all, 0, &product));
    assert_true(product == 0);
}

static void memory_is_zeroed_or_aligned_and_counted(void **state) {
    (void)state;
    uint64_t before = kvant_alloc_count();
    unsigned char *p = kvant_alloc(1000, 1);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(p[i], 0);
    void *empty = kvant_alloc(0, 8);
    assert_non_null(empty);
    for (size_t n = 0; n < 200; n += 13) {
        void *a = kvant_alloc_aligned(n, 1);
        assert_non_null(a);
        assert_true((uintptr_t)a % 64 == 0);
        kvant_free_aligned(a);
    }
    char *s = kvant_strdup("copy");
    assert_string_equal(s, "copy");
    assert_true(kvant_alloc_count() - before == 2 + 16 + 1);
    kvant_free(s);
    kvant_free(empty);
    kvant_free(p);
    kvant_free(NULL);
    kvant_free_aligned(NULL);
}

static void a_buffer_stops_at_its_cap(void **state) {
    (void)state;
    kvant_buffer b;
    kvant_buffer_init(&b, 10);
    assert_int_equal(kvant_buffer_append(&b, "12345678901", 11), KVANT_EFULL);
    assert_int_equal(b.size, 0);
    assert_int_equal(kvant_buffer_append_str(&b, "1234567"), KVANT_OK);
    assert_int_equal(kvant_buffer_append_str(&b, "8901"), KVANT_EFULL);
    assert_string_equal(b.data, "1234567");
    assert_int_equal(kvant_buffer_append_str(&b, "890"), KVANT_OK);
    assert_string_equal(b.data, "1234567890");
    assert_int_equal(kvant_buffer_append(&b, "x", 1), KVANT_EFULL);
    assert_int_equal(kvant_buffer_append(&b, "", 0), KVANT_OK);
    assert_int_equal(kvant_buffer_append(&b, "x", half_of_all * 2 - 1), KVANT_EFULL);
    assert_int_equal(b.size, 10);
    kvant_buffer_free(&b);
    assert_null(b.data);
    assert_int_equal(b.cap, 10); /* usable again */
    assert_int_equal(kvant_buffer_append(&b, NULL, 0), KVANT_OK);
    assert_string_equal(b.data, "");
    kvant_buffer_free(&b);
}

static void a_buffer_keeps_every_byte_as_it_grows(void **state) {
    (void)state;
    kvant_buffer b;
    kvant_buffer_init(&b, 100000);
    for (int i = 0; i < 100000; i++) {
        char c = (char)(i * 31);
        assert_int_equal(kvant_buffer_append(&b, &c, 1), KVANT_OK);
    }
    for (int i = 0; i < 100000; i++)
        assert_int_equal(b.data[i], (char)(i * 31));
    assert_int_equal(b.data[100000], 0);
    assert_true(b.room >= b.size + 1 && b.room <= 4 * b.size);
    kvant_buffer_free(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_that_overflow_are_refused),
        cmocka_unit_test(memory_is_zeroed_or_aligned_and_counted),
        cmocka_unit_test(a_buffer_stops_at_its_cap),
        cmocka_unit_test(a_buffer_keeps_every_byte_as_it_grows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
