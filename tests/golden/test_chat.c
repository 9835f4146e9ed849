// SPDX-License-Identifier: MIT
/* test_chat.c: families by name against what jinja2 made of templates that belong to them (scripts/make_chat_golden.py).
 * An argument names another file of cases. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>
#include <string.h>

#include "text/chat_template.h"

#define MAX_MESSAGES 16

static const char *cases_path = KVANT_SOURCE "/tests/golden/chat/cases.json";

static const char *get(const json_t *object, const char *key) {
    const char *s = json_string_value(json_object_get(object, key));
    assert_non_null(s);
    return s;
}

/* Whether a case comes out right; prints both texts otherwise. */
static bool check_case(const json_t *c) {
    const char *expected = get(c, "expected");
    const json_t *list = json_object_get(c, "messages");
    kvant_chat_message messages[MAX_MESSAGES];
    int n = (int)json_array_size(list);
    assert_true(n <= MAX_MESSAGES);
    for (int i = 0; i < n; i++) {
        const json_t *m = json_array_get(list, (size_t)i);
        messages[i] = (kvant_chat_message){get(m, "role"), get(m, "content")};
    }
    const kvant_chat_family *f = kvant_chat_family_by_name(get(c, "family"));
    kvant_error err = {0};
    kvant_buffer out;
    assert_non_null(f);
    kvant_buffer_init(&out, 1 << 20);
    kvant_status st = kvant_chat_render(f, messages, n, true, &out, &err);
    bool same = st == KVANT_OK && strcmp(out.data, expected) == 0;
    if (!same)
        print_message("%s as %s, \"%s\"\nexpected: %s\nfound:    %s\n", get(c, "template"), get(c, "family"), get(c, "chat"),
                      expected, st == KVANT_OK ? out.data : err.message);
    kvant_buffer_free(&out);
    return same;
}

static void families_write_as_the_templates_of_their_models(void **state) {
    (void)state;
    json_error_t error;
    json_t *cases = json_load_file(cases_path, 0, &error);
    if (!cases) fail_msg("%s: %s", cases_path, error.text);
    int wrong = 0;
    for (size_t i = 0; i < json_array_size(cases); i++) wrong += !check_case(json_array_get(cases, i));
    print_message("%zu chats, %d wrong\n", json_array_size(cases), wrong);
    assert_true(json_array_size(cases) > 100);
    assert_int_equal(wrong, 0);
    json_decref(cases);
}

int main(int argc, char **argv) {
    if (argc > 1) cases_path = argv[1];
    const struct CMUnitTest tests[] = {cmocka_unit_test(families_write_as_the_templates_of_their_models)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
