// SPDX-License-Identifier: MIT
/* test_hash.c: the hash is XXH3 of 128 bits, as others compute it, however its bytes are handed over. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "base/hash.h"

static void hex_of(const kvant_hash *h, char hex[2 * KVANT_HASH_BYTES + 1]) {
    uint8_t bytes[KVANT_HASH_BYTES];
    kvant_hash_get(h, bytes);
    for (int i = 0; i < KVANT_HASH_BYTES; i++)
        snprintf(hex + 2 * i, 3, "%02x", bytes[i]);
}

static void hex_whole(const void *bytes, size_t size, char hex[2 * KVANT_HASH_BYTES + 1]) {
    kvant_hash h;
    kvant_hash_begin(&h);
    kvant_hash_add(&h, bytes, size);
    hex_of(&h, hex);
}

/* What Python's xxhash 3 says: xxhash.xxh3_128(...).hexdigest(). */
static void the_values_of_other_programs_are_met(void **state) {
    (void)state;
    static const struct {
        const char *text, *hex;
    } known[] = {{"", "99aa06d3014798d86001c324468d497f"},
                 {"a", "a96faf705af16834e6c632b61e964e1f"},
                 {"foobar", "3c9e102628997f44ac87b0b131c6992d"}};
    char hex[2 * KVANT_HASH_BYTES + 1];
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        hex_whole(known[i].text, strlen(known[i].text), hex);
        assert_string_equal(hex, known[i].hex);
    }
}

/* Short, middle and long inputs take different ways: byte i is 251 i + 17. */
static void every_length_has_its_value(void **state) {
    (void)state;
    static const struct {
        size_t size;
        const char *hex;
    } known[] = {{1, "f46d8182f5a4994af319fe2bdfcdfebd"},    {3, "9caf6fd3ccbb2d995b66777ec1fe429c"},
                 {8, "452b12132852bc432c00a9ae73d288c6"},    {16, "1f14d3f460438786a005cfa4c2c47628"},
                 {17, "704743bf292a9418dfdbfacd3a0a80d9"},   {128, "c7b860a3207206f45e2aacf203db2454"},
                 {129, "f8823eb23896d6c418eb3f65bbb487cc"},  {240, "d127ae423e0395cd6f6d3027a6ebdb55"},
                 {241, "a7e1b0775f0b333ff48fdd0c011df94b"},  {1024, "e29da995ae485d025dc4796f3f95a79d"},
                 {1025, "7a083f1e99ee11d125742e86d09e00c2"}, {5000, "df8381bff506fce8c9c6f725d78609a3"}};
    static uint8_t bytes[5000];
    char hex[2 * KVANT_HASH_BYTES + 1];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(251 * i + 17);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        hex_whole(bytes, known[i].size, hex);
        assert_string_equal(hex, known[i].hex);
        uint8_t at_once[KVANT_HASH_BYTES];
        kvant_hash_of(bytes, known[i].size, at_once);
        for (int j = 0; j < KVANT_HASH_BYTES; j++) {
            char two[3];
            snprintf(two, sizeof two, "%02x", at_once[j]);
            assert_memory_equal(two, known[i].hex + 2 * j, 2);
        }
    }
}

static void pieces_give_what_the_whole_gives(void **state) {
    (void)state;
    static uint8_t bytes[3000];
    char whole[2 * KVANT_HASH_BYTES + 1], pieces[2 * KVANT_HASH_BYTES + 1];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(251 * i + 17);
    hex_whole(bytes, sizeof bytes, whole);
    kvant_hash h;
    kvant_hash_begin(&h);
    for (size_t i = 0; i < sizeof bytes; i += 7) {
        kvant_hash_add(&h, bytes + i, sizeof bytes - i < 7 ? sizeof bytes - i : 7);
        hex_of(&h, pieces); /* asking changes nothing */
    }
    assert_string_equal(pieces, whole);
    hex_whole("\x08\x07\x06\x05\x04\x03\x02\x01", 8, whole);
    kvant_hash_begin(&h);
    kvant_hash_add_u64(&h, UINT64_C(0x0102030405060708));
    hex_of(&h, pieces);
    assert_string_equal(pieces, whole);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_values_of_other_programs_are_met),
        cmocka_unit_test(every_length_has_its_value),
        cmocka_unit_test(pieces_give_what_the_whole_gives),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
