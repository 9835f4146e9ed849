// SPDX-License-Identifier: MIT
/* test_status.c: a sentence is kept whole or cut between two characters; status names and the log callback. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "base/status.h"

/* Bytes of the message when n_x letters and then characters of `size` bytes each fill more than its room. */
static void check_cut(int n_x, const char *character) {
    char text[2000];
    size_t size = strlen(character), n = 0;
    while (n < (size_t)n_x)
        text[n++] = 'x';
    while (n + size < sizeof text) {
        memcpy(text + n, character, size);
        n += size;
    }
    text[n] = '\0';
    kvant_error err;
    kvant_fail(&err, KVANT_EIO, "%s", text);
    size_t room = sizeof err.message - 1, kept = strlen(err.message);
    size_t want = (size_t)n_x + (room - (size_t)n_x) / size * size;
    if (kept != want) fail_msg("%d letters, then characters of %zu bytes: %zu bytes kept, expected %zu", n_x, size, kept, want);
    assert_memory_equal(err.message, text, kept);
}

static void a_long_sentence_is_cut_between_characters(void **state) {
    (void)state;
    for (int n_x = 1; n_x < 10; n_x++) {
        check_cut(n_x, "y");
        check_cut(n_x, "\xc3\xa9");
        check_cut(n_x, "\xe2\x82\xac");
        check_cut(n_x, "\xf0\x9f\x98\x80");
    }
}

static void a_sentence_that_fits_is_kept_as_it_is(void **state) {
    (void)state;
    kvant_error err;
    assert_int_equal(kvant_fail(&err, KVANT_EINVAL, "%s: found %d, expected %d", "file", 3, 4), KVANT_EINVAL);
    assert_int_equal(err.status, KVANT_EINVAL);
    assert_string_equal(err.message, "file: found 3, expected 4");
    char text[1024];
    memset(text, 'a', 1020);
    memcpy(text + 1020, "\xe2\x82\xac", 4); /* with its NUL: exactly the room */
    kvant_fail(&err, KVANT_EINVAL, "%s", text);
    assert_string_equal(err.message, text);
    assert_int_equal(kvant_fail(NULL, KVANT_ENOMEM, "nobody listens"), KVANT_ENOMEM);
}

static void the_status_values_never_change(void **state) {
    (void)state;
    assert_int_equal(KVANT_OK, 0);
    assert_int_equal(KVANT_EINVAL, -1);
    assert_int_equal(KVANT_ENOMEM, -2);
    assert_int_equal(KVANT_EIO, -3);
    assert_int_equal(KVANT_EFORMAT, -4);
    assert_int_equal(KVANT_EUNSUPPORTED, -5);
    assert_int_equal(KVANT_EFULL, -6);
    assert_int_equal(KVANT_ECANCELLED, -7);
    for (int st = 0; st >= -7; st--)
        assert_string_not_equal(kvant_status_name((kvant_status)st), "unknown status");
    assert_string_equal(kvant_status_name((kvant_status)-100), "unknown status");
}

static char heard[1024];
static kvant_log_level heard_level;
static void hear(void *user, kvant_log_level level, const char *line) {
    *(int *)user += 1;
    heard_level = level;
    strncpy(heard, line, sizeof heard - 1);
}

static void the_log_is_heard_by_whom_was_set(void **state) {
    (void)state;
    int calls = 0;
    kvant_log(KVANT_LOG_INFO, "nobody listens");
    kvant_set_log(hear, &calls);
    kvant_log(KVANT_LOG_WARNING, "max_kv_size %d is ignored", 7);
    assert_int_equal(calls, 1);
    assert_int_equal(heard_level, KVANT_LOG_WARNING);
    assert_string_equal(heard, "max_kv_size 7 is ignored");
    kvant_set_log(NULL, NULL);
    kvant_log(KVANT_LOG_INFO, "nobody listens");
    assert_int_equal(calls, 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_long_sentence_is_cut_between_characters),
        cmocka_unit_test(a_sentence_that_fits_is_kept_as_it_is),
        cmocka_unit_test(the_status_values_never_change),
        cmocka_unit_test(the_log_is_heard_by_whom_was_set),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
