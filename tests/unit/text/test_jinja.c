// SPDX-License-Identifier: MIT
/* test_jinja.c: what no template may do (caps, depth, endless loops), what failures say, and what templates cannot show: the
 * clock, changed lists, bytes that are no UTF-8. What templates write is compared with jinja2 in tests/golden/test_templates.c.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "text/jinja.h"

typedef struct result {
    kvant_status st;
    kvant_error err;
    kvant_buffer out;
} result;

/* Renders a template with variables in JSON; memory and options as given. */
static result render_with(const char *text, size_t size, const char *json, size_t memory, const kvant_template_options *options) {
    result r = {.st = KVANT_OK};
    kvant_template *t;
    kvant_jinja_heap *h;
    kvant_jinja_value globals;
    kvant_buffer_init(&r.out, (size_t)256 << 20);
    r.st = kvant_template_parse("m.gguf", text, size, &t, &r.err);
    if (r.st != KVANT_OK) return r;
    assert_int_equal(kvant_jinja_heap_create(memory, &h), KVANT_OK);
    r.st = kvant_jinja_from_json(h, "variables", json, strlen(json), &globals, &r.err);
    if (r.st == KVANT_OK) r.st = kvant_template_render(t, h, &globals, options, &r.out, &r.err);
    kvant_jinja_heap_destroy(h);
    kvant_template_destroy(t);
    return r;
}

static result render(const char *text, const char *json) { return render_with(text, strlen(text), json, (size_t)64 << 20, NULL); }

static void check_text(const char *text, const char *json, const char *expected) {
    result r = render(text, json);
    if (r.st != KVANT_OK) fail_msg("%s: %s", text, r.err.message);
    assert_string_equal(r.out.data ? r.out.data : "", expected);
    kvant_buffer_free(&r.out);
}

static void check_failure(result r, kvant_status st, const char *part) {
    if (r.st != st || !strstr(r.err.message, part))
        fail_msg("found %d: %s\nexpected %d: %s", (int)r.st, r.err.message, (int)st, part);
    assert_int_equal(r.out.size, 0);
    kvant_buffer_free(&r.out);
}

static void failures_name_file_line_and_what_was_found(void **state) {
    (void)state;
    static const struct {
        const char *text;
        kvant_status st;
        const char *part;
    } CASES[] = {
        {"a\n{{ x.y }}", KVANT_EFORMAT, "m.gguf: chat template, line 2: found \"x\" undefined, expected something with \"y\""},
        {"{{ 'a' + 1 }}", KVANT_EFORMAT, "line 1: found str + int, expected types that fit"},
        {"\n\n{% if %}", KVANT_EFORMAT, "line 3: found \"%}\", expected an expression"},
        {"{% if x %}\n", KVANT_EFORMAT, "found its end, expected elif"},
        {"{% include 'x' %}", KVANT_EUNSUPPORTED, "found the statement \"include\""},
        {"{{ 1 | nosuch }}", KVANT_EUNSUPPORTED, "found the filter \"nosuch\""},
        {"{{ 1 is nosuch }}", KVANT_EUNSUPPORTED, "found the test \"nosuch\""},
        {"{{ 'a'.nosuch() }}", KVANT_EFORMAT, "found \"nosuch\" undefined for a call"},
        {"{% for x in l recursive %}{% endfor %}", KVANT_EUNSUPPORTED, "recursive"},
        {"{{ f(*l) }}", KVANT_EUNSUPPORTED, "arguments from a list"},
        {"{{ raise_exception('No \"' ~ 'system\" here') }}", KVANT_EINVAL,
         "m.gguf: the chat template does not take this chat: No \"system\" here"},
        {"{{ [1] | join(1, 2, 3) }}", KVANT_EFORMAT, "found too many values in a call of join, expected (d attribute)"},
        {"{{ 'x' | replace('x') }}", KVANT_EFORMAT, "found too few values in a call of replace"},
        {"{{ 'x' | trim(nosuch=1) }}", KVANT_EFORMAT, "found an unknown name in a call of trim"},
        {"{{ strftime_now('%Q') }}", KVANT_EUNSUPPORTED, "strftime_now"},
        {"{{ 9223372036854775807 + 1 }}", KVANT_EUNSUPPORTED, "beyond 64 bits"},
        {"{{ 9223372036854775808 }}", KVANT_EUNSUPPORTED, "more than 63 bits"},
        {"{{ range }}", KVANT_EFORMAT, "found function for output"},
        {"{{ 'abc", KVANT_EFORMAT, "a string without its end"},
        {"{{ (1] }}", KVANT_EFORMAT, "found ']', expected )"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++)
        check_failure(render(CASES[i].text, "{\"l\": [1]}"), CASES[i].st, CASES[i].part);
    check_failure(render("x", "{"), KVANT_EINVAL, "variables: line 1");
    check_failure(render("x", "[]"), KVANT_EINVAL, "found no dict of names");
}

static void nothing_runs_for_ever_or_fills_the_memory(void **state) {
    (void)state;
    static const char *const CASES[] = {
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% set ns = namespace(s='x' * 1000) %}{% for a in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
        "{{ 'x' * 99999999999 }}",
        "{{ [0] * 99999999999 }}",
        "{% for a in range(99999) %}{{ 'x' * 10000 }}{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
        "{% set l = [] %}{% set x = l.append(l) %}{{ l }}",
        "{% set l = [] %}{% set x = l.append(l) %}{{ l | tojson }}",
        "{% set k = [] %}{% set x = k.append(k) %}{% set l = [] %}{% set x = l.append(l) %}{{ k == l }}",
        ("{% set ns = namespace(a=[1], b=[1]) %}{% for i in range(60) %}{% set ns.a = [ns.a, ns.a] %}{% set ns.b = [ns.b, ns.b] "
         "%}{% endfor %}{{ ns.a == ns.b }}"),
        "{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l | tojson }}",
        "{% set l = [1] %}{% for x in range(90000) %}{% for x in l %}{% set y = l.append(1) %}{% endfor %}{% endfor %}",
        "{{ ('a' * 9000000).replace('a', 'bb' * 100) }}",
        "{% set s = 'ab' * 900000 %}{% for i in range(90000) %}{{ s.count('b') }}{% endfor %}",
        "{% set s = 'é' * 900000 %}{% for i in range(90000) %}{{ s[i] }}{% endfor %}",
        "{% set s = 'a' * 3000000 %}{% for i in range(90000) %}{% if ('a' * 2000 ~ 'b') in s %}{% endif %}{% endfor %}",
        "{{ [[1]] | map('map', 'map', 'map') | list }}{{ range(99999) | list | tojson(indent='x' * 100000) }}",
        "{{ '%09999d' % 1 }}{{ '{:>99999}'.format('x') }}",
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        kvant_template_options options;
        kvant_template_options_default(&options);
        options.max_steps = 2000000;
        result r = render_with(CASES[i], strlen(CASES[i]), "{}", (size_t)32 << 20, &options);
        if (r.st == KVANT_OK || !r.err.message[0]) fail_msg("%s: ended well", CASES[i]);
        if (r.st != KVANT_EFULL && r.st != KVANT_EUNSUPPORTED && r.st != KVANT_EFORMAT)
            fail_msg("%s: %s", CASES[i], r.err.message);
        kvant_buffer_free(&r.out);
    }
}

static void output_has_a_cap_of_its_own(void **state) {
    (void)state;
    kvant_template_options options;
    kvant_template_options_default(&options);
    options.max_output = 10;
    result r = render_with("{{ 'x' * 10 }}", 14, "{}", 1 << 20, &options);
    assert_int_equal(r.st, KVANT_OK);
    assert_int_equal(r.out.size, 10);
    kvant_buffer_free(&r.out);
    check_failure(render_with("{{ 'x' * 11 }}", 14, "{}", 1 << 20, &options), KVANT_EFULL, "more than 10 bytes");
    options.max_output = 1 << 20;
    options.max_steps = 100;
    check_failure(render_with("{% for i in range(200) %}{% endfor %}", 37, "{}", 1 << 20, &options), KVANT_EFULL,
                  "more than 100 steps");
}

/* A text of `n` times `part` between `before` and `after`. */
static char *repeated(const char *before, const char *part, size_t n, const char *middle, const char *end_part,
                      const char *after) {
    char *s = malloc(strlen(before) + n * (strlen(part) + strlen(end_part)) + strlen(middle) + strlen(after) + 1), *p = s;
    assert_non_null(s);
    p += strlen(strcpy(p, before));
    for (size_t i = 0; i < n; i++)
        p += strlen(strcpy(p, part));
    p += strlen(strcpy(p, middle));
    for (size_t i = 0; i < n; i++)
        p += strlen(strcpy(p, end_part));
    strcpy(p, after);
    return s;
}

static void deep_nesting_is_refused_not_followed(void **state) {
    (void)state;
    static const char *const PARTS[][5] = {
        {"{{ ", "(", "1", ")", " }}"},
        {"{{ ", "[", "", "]", " }}"},
        {"{{ ", "{'a':", "1", "}", " }}"},
        {"{{ ", "not ", "1", "", " }}"},
        {"{{ ", "- ", "1", "", " }}"},
        {"{{ ", "1 + ", "1", "", " }}"},
        {"{{ x", "", "", ".a", " }}"},
        {"{{ x", "", "", "|trim", " }}"},
        {"{{ ", "1 if 1 else ", "1", "", " }}"},
        {"{{ ", "f(", "", ")", " }}"},
        {"", "{% if 1 %}", "x", "{% endif %}", ""},
        {"", "{% for i in [1] %}", "x", "{% endfor %}", ""},
        {"", "{% macro m() %}", "", "{% endmacro %}", ""},
        {"{% macro m() %}{{ 1", "", "", " + 1", " }}{% endmacro %}{{ m() }}"},
        {"{% for ", "(", "x", ")", " in [] %}{% endfor %}"},
        {"{{ 1", "", "", " is defined", " }}"},
    };
    for (size_t i = 0; i < sizeof PARTS / sizeof *PARTS; i++) {
        char *s = repeated(PARTS[i][0], PARTS[i][1], 50000, PARTS[i][2], PARTS[i][3], PARTS[i][4]);
        result r = render_with(s, strlen(s), "{\"x\": \"y\"}", (size_t)64 << 20, NULL);
        if (r.st == KVANT_OK || !r.err.message[0]) fail_msg("%s%s...: ended well", PARTS[i][0], PARTS[i][1]);
        kvant_buffer_free(&r.out);
        free(s);
        s = repeated(PARTS[i][0], PARTS[i][1], 20, PARTS[i][2], PARTS[i][3], PARTS[i][4]); /* some is no harm */
        kvant_template *t;
        kvant_error err = {0};
        if (strstr(s, "is defined is defined")) {
            free(s);
            continue;
        }
        if (kvant_template_parse("t", s, strlen(s), &t, &err) != KVANT_OK) fail_msg("%s", err.message);
        kvant_template_destroy(t);
        free(s);
    }
    check_failure(render("x", "[[[[[[[[[["), KVANT_EINVAL, "variables");
    char *json = repeated("", "[", 3000, "1", "]", "");
    check_failure(render("x", json), KVANT_EINVAL, "variables");
    free(json);
}

static void the_clock_is_the_callers(void **state) {
    (void)state;
    kvant_template_options options;
    kvant_template_options_default(&options);
    options.now = (kvant_jinja_time){2024, 2, 29, 23, 5, 9};
    const char *text = "{{ strftime_now('%d %b %Y, %A %j %H:%M:%S %I %p %-d%%') }}";
    result r = render_with(text, strlen(text), "{}", 1 << 20, &options);
    assert_int_equal(r.st, KVANT_OK);
    assert_string_equal(r.out.data, "29 Feb 2024, Thursday 060 23:05:09 11 PM 29%");
    kvant_buffer_free(&r.out);
}

static void lists_and_dicts_can_be_changed(void **state) {
    (void)state;
    check_text("{% set l = [1] %}{% set _ = l.append(2) %}{{ l }}{{ l.pop() }}{{ l.pop(0) }}{{ l }}", "{}", "[1, 2]21[]");
    check_text("{% set l = [1, 2, 3] %}{% for x in l %}{{ x }}{% set _ = l.pop() %}{% endfor %}{{ l }}", "{}", "123[]");
    check_text("{% set l = [1] %}{% set _ = l.insert(0, 9) %}{% set _ = l.extend([7, 8]) %}{{ l }}", "{}", "[9, 1, 7, 8]");
    check_text("{% set _ = d.update({'b': 2}) %}{{ d }}{{ d.pop('a') }}{{ d }}{{ d.pop('z', 'none') }}", "{\"d\": {\"a\": 1}}",
               "{'a': 1, 'b': 2}1{'b': 2}none");
    check_text("{% for k in d.copy() %}{% set _ = d.pop(k) %}{% endfor %}{{ d }}",
               "{\"d\": {\"a\":1,\"b\":1,\"c\":1,\"d\":1,\"e\":1,\"f\":1,\"g\":1,\"h\":1,\"i\":1,\"j\":1,\"k\":1}}", "{}");
}

static void iterators_are_gone_through_once(void **state) {
    (void)state;
    check_text("{% set m = [1, 2] | map('string') %}{{ m | join }}{{ m | join }}|{{ m | list }}", "{}", "12|[]");
    check_text("{% set m = [1, 2, 3] | select %}{{ m | first }}{{ m | list }}{% if [] | select %}always true{% endif %}", "{}",
               "1[2, 3]always true");
    check_failure(render("{{ [1] | map('string') | length }}", "{}"), KVANT_EFORMAT, "found generator for length");
}

static void bytes_that_are_no_utf8_pass_through(void **state) {
    (void)state;
    static const char TEXT[] =
        "{{ s }}{{ s | length }}{{ s[0] == 'a' }}\xff{{ s | upper | trim }}{{ [s] }}{{ s[::-1] | length }}";
    kvant_template *t;
    kvant_jinja_heap *h;
    kvant_jinja_value globals, s;
    kvant_error err = {0};
    kvant_buffer out;
    kvant_buffer_init(&out, 1 << 20);
    assert_int_equal(kvant_template_parse("t", TEXT, strlen(TEXT), &t, &err), KVANT_OK);
    assert_int_equal(kvant_jinja_heap_create(1 << 20, &h), KVANT_OK);
    assert_int_equal(kvant_jinja_dict(h, &globals), KVANT_OK);
    assert_int_equal(kvant_jinja_string(h, "a\xff\xe3\x81\0b", 6, &s), KVANT_OK);
    assert_int_equal(kvant_jinja_dict_set(h, &globals, "s", s), KVANT_OK);
    if (kvant_template_render(t, h, &globals, NULL, &out, &err) != KVANT_OK) fail_msg("%s", err.message);
    assert_memory_equal(out.data, "a\xff\xe3\x81\0b", 6);
    assert_memory_equal(out.data + 6, "6True\xff", 6);
    kvant_buffer_free(&out);
    kvant_jinja_heap_destroy(h);
    kvant_template_destroy(t);
}

static void many_keys_are_found(void **state) {
    (void)state;
    check_text(
        "{% set ns = namespace(d={}) %}{% for i in range(3000) %}{% set _ = ns.d.update({i: i * i, 'k' ~ i: i}) %}{% endfor %}"
        "{{ ns.d | length }} {{ ns.d[2999] }} {{ ns.d['k1234'] }} {{ ns.d[0] }} {{ 3000 in ns.d }} {{ ns.d[17.0] }}",
        "{}", "6000 8994001 1234 0 False 289");
}

static void a_heap_says_when_it_is_full(void **state) {
    (void)state;
    kvant_jinja_heap *h;
    kvant_jinja_value v, list;
    kvant_error err = {0};
    static char big[100000];
    assert_int_equal(kvant_jinja_heap_create(70000, &h), KVANT_OK);
    assert_int_equal(kvant_jinja_string(h, big, sizeof big, &v), KVANT_EFULL);
    assert_int_equal(kvant_jinja_list(h, &list), KVANT_OK);
    kvant_status st = KVANT_OK;
    for (int i = 0; i < 100000 && st == KVANT_OK; i++)
        st = kvant_jinja_list_add(h, &list, kvant_jinja_none());
    assert_int_equal(st, KVANT_EFULL);
    memset(big, ' ', sizeof big);
    big[0] = '"';
    big[sizeof big - 1] = '"';
    assert_int_equal(kvant_jinja_from_json(h, "big", big, sizeof big, &v, &err), KVANT_EFULL);
    assert_non_null(strstr(err.message, "big: "));
    kvant_jinja_heap_destroy(h);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(failures_name_file_line_and_what_was_found),
        cmocka_unit_test(nothing_runs_for_ever_or_fills_the_memory),
        cmocka_unit_test(output_has_a_cap_of_its_own),
        cmocka_unit_test(deep_nesting_is_refused_not_followed),
        cmocka_unit_test(the_clock_is_the_callers),
        cmocka_unit_test(lists_and_dicts_can_be_changed),
        cmocka_unit_test(iterators_are_gone_through_once),
        cmocka_unit_test(bytes_that_are_no_utf8_pass_through),
        cmocka_unit_test(many_keys_are_found),
        cmocka_unit_test(a_heap_says_when_it_is_full),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
