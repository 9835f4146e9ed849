// SPDX-License-Identifier: MIT
/* test_hash.c: the hash is FNV-1a of 128 bits, as others compute it, however its bytes are handed over. */
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

/* Values of the FNV-1a authors' test vectors. */
static void published_values_are_met(void **state) {
    (void)state;
    static const struct {
        const char *text, *hex;
    } known[] = {{"", "6c62272e07bb014262b821756295c58d"},
                 {"a", "d228cb696f1a8caf78912b704e4a8964"},
                 {"foobar", "343e1662793c64bf6f0d3597ba446f18"}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        char hex[2 * KVANT_HASH_BYTES + 1];
        kvant_hash h;
        kvant_hash_begin(&h);
        kvant_hash_add(&h, known[i].text, strlen(known[i].text));
        hex_of(&h, hex);
        assert_string_equal(hex, known[i].hex);
    }
}

static void pieces_give_what_the_whole_gives(void **state) {
    (void)state;
    uint8_t bytes[300];
    char whole[2 * KVANT_HASH_BYTES + 1], pieces[2 * KVANT_HASH_BYTES + 1];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(251 * i + 17);
    kvant_hash a, b;
    kvant_hash_begin(&a);
    kvant_hash_add(&a, bytes, sizeof bytes);
    hex_of(&a, whole);
    kvant_hash_begin(&b);
    for (size_t i = 0; i < sizeof bytes; i += 7)
        kvant_hash_add(&b, bytes + i, sizeof bytes - i < 7 ? sizeof bytes - i : 7);
    hex_of(&b, pieces);
    assert_string_equal(pieces, whole);
    kvant_hash_begin(&a);
    kvant_hash_begin(&b);
    kvant_hash_add(&a, "\x08\x07\x06\x05\x04\x03\x02\x01", 8);
    kvant_hash_add_u64(&b, UINT64_C(0x0102030405060708));
    assert_memory_equal(&a, &b, sizeof a);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(published_values_are_met), cmocka_unit_test(pieces_give_what_the_whole_gives)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
