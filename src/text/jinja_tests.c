// SPDX-License-Identifier: MIT
/* jinja_tests.c: what may stand behind `is`. */
#include "text/jinja_run.h"

typedef kvant_jinja_run run;
typedef kvant_jinja_value value;
typedef kvant_jinja_call call;

static kvant_status answer(value *out, bool yes) {
    *out = kvant_jinja_bool(yes);
    return KVANT_OK;
}

#define TEST(name, expression)                                                                                                   \
    static kvant_status name(run *r, call *c, value *out) {                                                                      \
        (void)r;                                                                                                                 \
        const value *v = &c->self;                                                                                               \
        return answer(out, expression);                                                                                          \
    }

TEST(is_defined, v->kind != JINJA_UNDEFINED)
TEST(is_undefined, v->kind == JINJA_UNDEFINED)
TEST(is_none, v->kind == JINJA_NONE)
TEST(is_string, v->kind == JINJA_STRING)
TEST(is_number, kvant_jinja_is_number(v))
TEST(is_integer, v->kind == JINJA_INT)
TEST(is_float, v->kind == JINJA_FLOAT)
TEST(is_boolean, v->kind == JINJA_BOOL)
TEST(is_true, v->kind == JINJA_BOOL && v->as.boolean)
TEST(is_false, v->kind == JINJA_BOOL && !v->as.boolean)
TEST(is_mapping, v->kind == JINJA_DICT)
TEST(is_sequence, v->kind == JINJA_UNDEFINED || v->kind == JINJA_STRING || v->kind == JINJA_TUPLE || v->kind == JINJA_DICT ||
                      (v->kind == JINJA_LIST && (!v->as.items->view || strcmp(v->as.items->view, "range") == 0)))
TEST(is_iterable, v->kind == JINJA_UNDEFINED || v->kind == JINJA_STRING || v->kind == JINJA_DICT || v->kind == JINJA_LOOP ||
                      kvant_jinja_has_items(v))
TEST(is_callable, v->kind == JINJA_UNDEFINED || v->kind == JINJA_MACRO || v->kind == JINJA_FUNCTION || v->kind == JINJA_METHOD ||
                      v->kind == JINJA_CYCLER || v->kind == JINJA_JOINER)
TEST(is_same, c->arg[0].kind == v->kind && kvant_jinja_scalar_equal(v, &c->arg[0]))
#undef TEST

static kvant_status is_odd(run *r, call *c, value *out) {
    value two = kvant_jinja_int(2), rest;
    KVANT_TRY(kvant_jinja_binary(r, OP_MOD, &c->self, &two, &rest));
    return answer(out, kvant_jinja_is_number(&rest) && kvant_jinja_real(&rest) == 1);
}

static kvant_status is_even(run *r, call *c, value *out) {
    value two = kvant_jinja_int(2), rest;
    KVANT_TRY(kvant_jinja_binary(r, OP_MOD, &c->self, &two, &rest));
    return answer(out, kvant_jinja_is_number(&rest) && kvant_jinja_real(&rest) == 0);
}

static kvant_status is_divisible(run *r, call *c, value *out) {
    value rest;
    KVANT_TRY(kvant_jinja_binary(r, OP_MOD, &c->self, &c->arg[0], &rest));
    return answer(out, kvant_jinja_is_number(&rest) && kvant_jinja_real(&rest) == 0);
}

static kvant_status compares(run *r, call *c, value *out) {
    static const struct {
        const char *name;
        kvant_jinja_op op;
    } OPS[] = {{"eq", OP_EQ},          {"==", OP_EQ},       {"equalto", OP_EQ}, {"ne", OP_NE}, {"!=", OP_NE}, {"lt", OP_LT},
               {"<", OP_LT},           {"lessthan", OP_LT}, {"le", OP_LE},      {"<=", OP_LE}, {"gt", OP_GT}, {">", OP_GT},
               {"greaterthan", OP_GT}, {"ge", OP_GE},       {">=", OP_GE},      {"in", OP_IN}};
    bool yes = false;
    for (size_t i = 0; i < sizeof OPS / sizeof *OPS; i++)
        if (strcmp(c->what->name, OPS[i].name) == 0) KVANT_TRY(kvant_jinja_compare(r, OPS[i].op, &c->self, &c->arg[0], &yes));
    return answer(out, yes);
}

/* Whether a text has letters, and all of them of one case. */
static kvant_status has_case(run *r, call *c, value *out) {
    bool upper = strcmp(c->what->name, "upper") == 0;
    value text, same, other;
    KVANT_TRY(kvant_jinja_to_text(r, &c->self, &text));
    KVANT_TRY(kvant_jinja_change_case(r, text.as.text, upper ? CASE_UPPER : CASE_LOWER, &same));
    KVANT_TRY(kvant_jinja_change_case(r, text.as.text, upper ? CASE_LOWER : CASE_UPPER, &other));
    return answer(out, kvant_jinja_scalar_equal(&text, &same) && !kvant_jinja_scalar_equal(&same, &other));
}

static kvant_status is_known(run *r, call *c, value *out) {
    const kvant_jinja_text *name;
    if (c->self.kind != JINJA_STRING) return kvant_jinja_wrong(r, c->what->name, &c->self, "a str");
    name = c->self.as.text;
    bool filter = strcmp(c->what->name, "filter") == 0;
    return answer(out, filter ? kvant_jinja_find_filter(name->bytes, name->size) ||
                                    kvant_jinja_find_list_filter(name->bytes, name->size)
                              : kvant_jinja_find_test(name->bytes, name->size) != NULL);
}

static const kvant_jinja_builtin TESTS[] = {
    {"defined", is_defined, "", 0},    {"undefined", is_undefined, "", 0},
    {"none", is_none, "", 0},          {"string", is_string, "", 0},
    {"number", is_number, "", 0},      {"integer", is_integer, "", 0},
    {"float", is_float, "", 0},        {"boolean", is_boolean, "", 0},
    {"true", is_true, "", 0},          {"false", is_false, "", 0},
    {"mapping", is_mapping, "", 0},    {"sequence", is_sequence, "", 0},
    {"iterable", is_iterable, "", 0},  {"callable", is_callable, "", 0},
    {"sameas", is_same, "other", 1},   {"odd", is_odd, "", 0},
    {"even", is_even, "", 0},          {"divisibleby", is_divisible, "num", 1},
    {"lower", has_case, "", 0},        {"upper", has_case, "", 0},
    {"filter", is_known, "", 0},       {"test", is_known, "", 0},
    {"eq", compares, "b", 1},          {"==", compares, "b", 1},
    {"equalto", compares, "b", 1},     {"ne", compares, "b", 1},
    {"!=", compares, "b", 1},          {"lt", compares, "b", 1},
    {"<", compares, "b", 1},           {"lessthan", compares, "b", 1},
    {"le", compares, "b", 1},          {"<=", compares, "b", 1},
    {"gt", compares, "b", 1},          {">", compares, "b", 1},
    {"greaterthan", compares, "b", 1}, {"ge", compares, "b", 1},
    {">=", compares, "b", 1},          {"in", compares, "seq", 1},
};

const kvant_jinja_builtin *kvant_jinja_find_test(const char *name, size_t size) {
    return kvant_jinja_find_in(TESTS, sizeof TESTS / sizeof *TESTS, name, size);
}
