// SPDX-License-Identifier: MIT
/* test_chat_template.c: names and refusals; the texts themselves are checked by tests/golden/test_chat.c. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "text/chat_template.h"

static void every_listed_name_is_a_family_that_writes(void **state) {
    (void)state;
    char names[512];
    const kvant_chat_message chat[] = {{"system", "Rules"}, {"user", "Q"}, {"assistant", "A"}, {"user", "Q2"}};
    assert_true(strlen(kvant_chat_family_names()) < sizeof names);
    strcpy(names, kvant_chat_family_names());
    int n = 0;
    for (char *name = strtok(names, ", "); name; name = strtok(NULL, ", "), n++) {
        const kvant_chat_family *f = kvant_chat_family_by_name(name);
        assert_non_null(f);
        kvant_buffer out;
        kvant_buffer_init(&out, 4096);
        assert_int_equal(kvant_chat_render(f, chat, 4, true, &out, NULL), KVANT_OK);
        const char *rules = strstr(out.data, "Rules"), *q2 = strstr(out.data, "Q2");
        assert_true(rules && q2 && strstr(rules, "Q") && strstr(rules, "A") && rules < q2);
        kvant_buffer_free(&out);
    }
    assert_int_equal(n, 19);
    assert_null(kvant_chat_family_by_name("no-such-family"));
}

static void roles_without_a_place_are_refused_and_nothing_is_written(void **state) {
    (void)state;
    kvant_error err = {0};
    kvant_buffer out;
    kvant_buffer_init(&out, 4096);
    kvant_buffer_append_str(&out, "before");
    const kvant_chat_message tool[] = {{"user", "Q"}, {"tool", "x"}};
    assert_int_equal(kvant_chat_render(kvant_chat_family_by_name("chatml"), tool, 2, true, &out, &err), KVANT_EINVAL);
    assert_non_null(strstr(err.message, "'tool'"));
    const kvant_chat_message late[] = {{"user", "Q"}, {"system", "x"}};
    assert_int_equal(kvant_chat_render(kvant_chat_family_by_name("gemma"), late, 2, true, &out, &err), KVANT_EINVAL);
    const kvant_chat_message alone[] = {{"system", "x"}};
    assert_int_equal(kvant_chat_render(kvant_chat_family_by_name("llama2"), alone, 1, true, &out, &err), KVANT_EINVAL);
    assert_string_equal(out.data, "before");
    kvant_buffer_free(&out);
    kvant_buffer_init(&out, 10);
    const kvant_chat_message plain[] = {{"user", "a question"}};
    assert_int_equal(kvant_chat_render(kvant_chat_family_by_name("chatml"), plain, 1, true, &out, &err), KVANT_EFULL);
    kvant_buffer_free(&out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_listed_name_is_a_family_that_writes),
        cmocka_unit_test(roles_without_a_place_are_refused_and_nothing_is_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
