// SPDX-License-Identifier: MIT
/* jinja_text_methods.c: the methods of str. */
#include "text/jinja_run.h"
#include "text/utf8.h"

typedef kvant_jinja_run run;
typedef kvant_jinja_value value;
typedef kvant_jinja_call call;
typedef kvant_jinja_text text;

static bool given(const call *c, int index) { return c->arg[index].kind != JINJA_MISSING && c->arg[index].kind != JINJA_NONE; }
static const text *self_text(const call *c) { return c->self.as.text; }

static kvant_status share(run *r, const text *t, size_t from, size_t to, value *out) {
    kvant_status st = kvant_jinja_share(r->heap, t->bytes + from, to - from, out);
    return st == KVANT_OK ? kvant_jinja_step_bytes(r, to - from) : kvant_jinja_out_of_memory(r, st);
}

/* Whether strip takes a character: one of `set`, or white space without it. */
static bool is_stripped(const char *s, size_t n, uint32_t code, const text *set) {
    if (!set) return kvant_jinja_is_space(code);
    uint32_t other;
    for (size_t i = 0; i < set->size;) {
        size_t size = kvant_utf8_read((const uint8_t *)set->bytes + i, set->size - i, &other);
        if (size == n && memcmp(set->bytes + i, s, n) == 0) return true;
        i += size;
    }
    return false;
}

static kvant_status strip_sides(run *r, call *c, bool left, bool right, value *out) {
    const text *t = self_text(c), *set = NULL;
    size_t from = 0, to = t->size;
    uint32_t code;
    if (given(c, 0)) KVANT_TRY(kvant_jinja_text_arg(r, c, 0, &set));
    KVANT_TRY(kvant_jinja_step_bytes(r, t->size));
    while (left && from < to) {
        size_t n = kvant_utf8_read((const uint8_t *)t->bytes + from, to - from, &code);
        if (!is_stripped(t->bytes + from, n, code, set)) break;
        if (set) KVANT_TRY(kvant_jinja_step_bytes(r, set->size));
        from += n;
    }
    while (right && to > from) {
        size_t i = to - 1;
        while (i > from && to - i < 4 && ((uint8_t)t->bytes[i] & 0xC0) == 0x80)
            i--;
        if (kvant_utf8_read((const uint8_t *)t->bytes + i, to - i, &code) != to - i ||
            !is_stripped(t->bytes + i, to - i, code, set))
            break;
        if (set) KVANT_TRY(kvant_jinja_step_bytes(r, set->size));
        to = i;
    }
    return share(r, t, from, to, out);
}

static kvant_status strip(run *r, call *c, value *out) { return strip_sides(r, c, true, true, out); }
static kvant_status lstrip(run *r, call *c, value *out) { return strip_sides(r, c, true, false, out); }
static kvant_status rstrip(run *r, call *c, value *out) { return strip_sides(r, c, false, true, out); }

static kvant_status add_part(run *r, const text *t, size_t from, size_t to, value *list) {
    value v;
    KVANT_TRY(share(r, t, from, to, &v));
    kvant_status st = kvant_jinja_push(r->heap, list->as.items, v);
    return st == KVANT_OK ? st : kvant_jinja_out_of_memory(r, st);
}

/* White space as the separator: none at the ends, and any amount is one. */
static kvant_status split_spaces(run *r, const text *t, int64_t most, value *out) {
    size_t i = 0;
    uint32_t code;
    while (i < t->size) {
        size_t start;
        for (start = i; start < t->size; start += i) {
            i = kvant_utf8_read((const uint8_t *)t->bytes + start, t->size - start, &code);
            if (!kvant_jinja_is_space(code)) break;
        }
        if (start >= t->size) return KVANT_OK;
        if (most >= 0 && (int64_t)out->as.items->n >= most) return add_part(r, t, start, t->size, out);
        size_t end = start, n = 0;
        for (; end < t->size; end += n) {
            n = kvant_utf8_read((const uint8_t *)t->bytes + end, t->size - end, &code);
            if (kvant_jinja_is_space(code)) break;
        }
        KVANT_TRY(add_part(r, t, start, end, out));
        i = end;
    }
    return KVANT_OK;
}

static kvant_status new_list(run *r, value *out) {
    kvant_status st = kvant_jinja_list(r->heap, out);
    return st == KVANT_OK ? st : kvant_jinja_out_of_memory(r, st);
}

static kvant_status split(run *r, call *c, value *out) {
    const text *t = self_text(c), *by;
    int64_t most;
    KVANT_TRY(kvant_jinja_int_arg(r, c, 1, -1, &most));
    KVANT_TRY(new_list(r, out));
    if (!given(c, 0)) return split_spaces(r, t, most, out);
    KVANT_TRY(kvant_jinja_text_arg(r, c, 0, &by));
    if (!by->size) return kvant_jinja_fail(r, KVANT_EFORMAT, "split() by nothing", "a separator");
    size_t from = 0, at;
    while (most < 0 || (int64_t)out->as.items->n < most) {
        KVANT_TRY(kvant_jinja_find_bytes(r, t->bytes, t->size, from, by->bytes, by->size, &at));
        if (at == SIZE_MAX) break;
        KVANT_TRY(add_part(r, t, from, at, out));
        from = at + by->size;
    }
    return add_part(r, t, from, t->size, out);
}

/* The last place of a text before `end`, or SIZE_MAX. */
static kvant_status find_last(run *r, const text *t, size_t end, const text *what, size_t *at) {
    *at = SIZE_MAX;
    KVANT_TRY(kvant_jinja_step_bytes(r, end));
    if (what->size > end) return KVANT_OK;
    for (size_t i = end - what->size + 1; i-- > 0;) {
        if (what->size > 31) KVANT_TRY(kvant_jinja_step(r, 1));
        if (memcmp(t->bytes + i, what->bytes, what->size) != 0) continue;
        *at = i;
        return KVANT_OK;
    }
    return KVANT_OK;
}

static kvant_status rsplit(run *r, call *c, value *out) {
    const text *t = self_text(c), *by;
    int64_t most;
    KVANT_TRY(kvant_jinja_int_arg(r, c, 1, -1, &most));
    if (!given(c, 0)) {
        if (most >= 0) return kvant_jinja_fail(r, KVANT_EUNSUPPORTED, "rsplit() by white space with a limit", "a separator");
        return split(r, c, out);
    }
    KVANT_TRY(kvant_jinja_text_arg(r, c, 0, &by));
    if (!by->size) return kvant_jinja_fail(r, KVANT_EFORMAT, "rsplit() by nothing", "a separator");
    size_t end = t->size, at;
    KVANT_TRY(new_list(r, out));
    while (most < 0 || (int64_t)out->as.items->n < most) {
        KVANT_TRY(find_last(r, t, end, by, &at));
        if (at == SIZE_MAX) break;
        KVANT_TRY(add_part(r, t, at + by->size, end, out));
        end = at;
    }
    KVANT_TRY(add_part(r, t, 0, end, out));
    kvant_jinja_items *items = out->as.items;
    for (size_t i = 0; i < items->n / 2; i++) {
        value v = items->data[i];
        items->data[i] = items->data[items->n - 1 - i];
        items->data[items->n - 1 - i] = v;
    }
    return KVANT_OK;
}

static bool is_line_end(uint32_t c) {
    return (c >= 10 && c <= 13) || (c >= 28 && c <= 30) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

static kvant_status splitlines(run *r, call *c, value *out) {
    const text *t = self_text(c);
    bool keep = given(c, 0) && kvant_jinja_truth(&c->arg[0]);
    size_t from = 0;
    KVANT_TRY(new_list(r, out));
    for (size_t i = 0; i < t->size;) {
        uint32_t code;
        size_t n = kvant_utf8_read((const uint8_t *)t->bytes + i, t->size - i, &code);
        if (is_line_end(code)) {
            if (code == '\r' && i + 1 < t->size && t->bytes[i + 1] == '\n') n = 2;
            KVANT_TRY(add_part(r, t, from, keep ? i + n : i, out));
            from = i + n;
        }
        i += n;
    }
    return from < t->size ? add_part(r, t, from, t->size, out) : KVANT_OK;
}

static bool has_affix(const text *t, const value *affix, bool end) {
    if (affix->kind != JINJA_STRING || affix->as.text->size > t->size) return false;
    const text *a = affix->as.text;
    return memcmp(end ? t->bytes + t->size - a->size : t->bytes, a->bytes, a->size) == 0;
}

static kvant_status match_affix(run *r, call *c, bool end, value *out) {
    bool yes = false;
    const value *v = &c->arg[0];
    if (given(c, 1))
        return kvant_jinja_fail(r, KVANT_EUNSUPPORTED, "startswith() or endswith() with a place", "a slice before it");
    if (v->kind != JINJA_STRING && v->kind != JINJA_TUPLE)
        return kvant_jinja_wrong(r, c->what->name, v, "a str or a tuple of them");
    if (v->kind == JINJA_STRING)
        yes = has_affix(self_text(c), v, end);
    else
        for (size_t i = 0; i < v->as.items->n; i++)
            yes = yes || has_affix(self_text(c), &v->as.items->data[i], end);
    *out = kvant_jinja_bool(yes);
    return KVANT_OK;
}

static kvant_status startswith(run *r, call *c, value *out) { return match_affix(r, c, false, out); }
static kvant_status endswith(run *r, call *c, value *out) { return match_affix(r, c, true, out); }

static kvant_status remove_affix(run *r, call *c, value *out) {
    const text *t = self_text(c), *affix;
    bool end = strcmp(c->what->name, "removesuffix") == 0;
    KVANT_TRY(kvant_jinja_text_arg(r, c, 0, &affix));
    size_t n = has_affix(t, &c->arg[0], end) ? affix->size : 0;
    return end ? share(r, t, 0, t->size - n, out) : share(r, t, n, t->size, out);
}

static kvant_status change_case(run *r, call *c, value *out) {
    const char *name = c->what->name;
    kvant_jinja_case to = strcmp(name, "upper") == 0        ? CASE_UPPER
                          : strcmp(name, "title") == 0      ? CASE_TITLE_METHOD
                          : strcmp(name, "capitalize") == 0 ? CASE_CAPITALIZE
                                                            : CASE_LOWER;
    return kvant_jinja_change_case(r, self_text(c), to, out);
}

static kvant_status replace(run *r, call *c, value *out) {
    const text *t = self_text(c), *old, *new_text;
    int64_t most;
    KVANT_TRY(kvant_jinja_text_arg(r, c, 0, &old));
    KVANT_TRY(kvant_jinja_text_arg(r, c, 1, &new_text));
    KVANT_TRY(kvant_jinja_int_arg(r, c, 2, -1, &most));
    kvant_jinja_builder b;
    kvant_jinja_builder_init(&b, r->heap);
    size_t from = 0, at;
    for (int64_t n = 0; most < 0 || n < most; n++) {
        if (old->size == 0) { /* between all characters */
            uint32_t code;
            kvant_jinja_add(&b, new_text->bytes, new_text->size);
            if (from >= t->size) break;
            size_t size = kvant_utf8_read((const uint8_t *)t->bytes + from, t->size - from, &code);
            kvant_jinja_add(&b, t->bytes + from, size);
            from += size;
            KVANT_TRY(kvant_jinja_step(r, 1));
            continue;
        }
        KVANT_TRY(kvant_jinja_find_bytes(r, t->bytes, t->size, from, old->bytes, old->size, &at));
        if (at == SIZE_MAX) break;
        kvant_jinja_add(&b, t->bytes + from, at - from);
        kvant_jinja_add(&b, new_text->bytes, new_text->size);
        from = at + old->size;
    }
    kvant_jinja_add(&b, t->bytes + from, t->size - from);
    return kvant_jinja_finish(r, &b, out);
}

static kvant_status join(run *r, call *c, value *out) {
    kvant_jinja_items items;
    kvant_jinja_builder b;
    kvant_jinja_builder_init(&b, r->heap);
    KVANT_TRY(kvant_jinja_iterate(r, &c->arg[0], &items));
    for (size_t i = 0; i < items.n; i++) {
        if (items.data[i].kind != JINJA_STRING) return kvant_jinja_wrong(r, "join()", &items.data[i], "a str");
        if (i) kvant_jinja_add(&b, self_text(c)->bytes, self_text(c)->size);
        kvant_jinja_add(&b, items.data[i].as.text->bytes, items.data[i].as.text->size);
        KVANT_TRY(kvant_jinja_step(r, 1));
    }
    return kvant_jinja_finish(r, &b, out);
}

static kvant_status format(run *r, call *c, value *out) { return kvant_jinja_format(r, self_text(c), c, out); }

static kvant_status find(run *r, call *c, value *out) {
    const text *t = self_text(c), *what;
    const char *name = c->what->name;
    size_t at;
    int64_t start;
    KVANT_TRY(kvant_jinja_text_arg(r, c, 0, &what));
    KVANT_TRY(kvant_jinja_int_arg(r, c, 1, 0, &start));
    if (given(c, 2)) return kvant_jinja_fail(r, KVANT_EUNSUPPORTED, "find() with an end", "a slice before it");
    if (start < 0) start = start + (int64_t)t->n_chars < 0 ? 0 : start + (int64_t)t->n_chars;
    size_t from = kvant_jinja_char_offset(t, (size_t)start);
    if (*name == 'r')
        KVANT_TRY(find_last(r, t, t->size, what, &at));
    else
        KVANT_TRY(kvant_jinja_find_bytes(r, t->bytes, t->size, from, what->bytes, what->size, &at));
    if (at != SIZE_MAX && (at < from || (uint64_t)start > t->n_chars)) at = SIZE_MAX;
    if (at == SIZE_MAX && strstr(name, "index"))
        return kvant_jinja_fail(r, KVANT_EFORMAT, "no such text for index()", "one that is there");
    KVANT_TRY(kvant_jinja_step_bytes(r, t->size));
    *out = kvant_jinja_int(at == SIZE_MAX ? -1 : (int64_t)kvant_jinja_count_chars(t->bytes, at));
    return KVANT_OK;
}

static kvant_status count(run *r, call *c, value *out) {
    const text *t = self_text(c), *what;
    size_t from = 0, at;
    int64_t n = 0;
    KVANT_TRY(kvant_jinja_text_arg(r, c, 0, &what));
    if (what->size == 0) n = (int64_t)t->n_chars + 1;
    while (what->size) {
        KVANT_TRY(kvant_jinja_step(r, 1));
        KVANT_TRY(kvant_jinja_find_bytes(r, t->bytes, t->size, from, what->bytes, what->size, &at));
        if (at == SIZE_MAX) break;
        n++;
        from = at + what->size;
    }
    *out = kvant_jinja_int(n);
    return KVANT_OK;
}

static kvant_status partition(run *r, call *c, value *out) {
    const text *t = self_text(c), *by;
    bool last = *c->what->name == 'r';
    size_t at;
    KVANT_TRY(kvant_jinja_text_arg(r, c, 0, &by));
    if (!by->size) return kvant_jinja_fail(r, KVANT_EFORMAT, "partition() by nothing", "a separator");
    if (last)
        KVANT_TRY(find_last(r, t, t->size, by, &at));
    else
        KVANT_TRY(kvant_jinja_find_bytes(r, t->bytes, t->size, 0, by->bytes, by->size, &at));
    size_t a = at != SIZE_MAX ? at : last ? 0 : t->size, b = at != SIZE_MAX ? at + by->size : a;
    KVANT_TRY(new_list(r, out));
    out->kind = JINJA_TUPLE;
    KVANT_TRY(add_part(r, t, 0, a, out));
    KVANT_TRY(add_part(r, t, a, b, out));
    return add_part(r, t, b, t->size, out);
}

static kvant_status adjust(run *r, call *c, value *out) {
    const text *t = self_text(c);
    const char *name = c->what->name, *fill = strcmp(name, "zfill") == 0 ? "0" : " ";
    int64_t width;
    KVANT_TRY(kvant_jinja_int_arg(r, c, 0, 0, &width));
    size_t missing = width > (int64_t)t->n_chars ? (size_t)width - t->n_chars : 0;
    size_t left = *name == 'l' ? 0 : *name == 'c' ? missing / 2 + (missing & (size_t)width & 1) : missing;
    kvant_jinja_builder b;
    kvant_jinja_builder_init(&b, r->heap);
    size_t sign = *name == 'z' && t->size && (*t->bytes == '-' || *t->bytes == '+');
    kvant_jinja_add(&b, t->bytes, sign);
    kvant_jinja_add_repeated(&b, fill, 1, left);
    kvant_jinja_add(&b, t->bytes + sign, t->size - sign);
    kvant_jinja_add_repeated(&b, fill, 1, missing - left);
    return kvant_jinja_finish(r, &b, out);
}

static bool has_kind(uint32_t code, char kind) {
    switch (kind) {
    case 'd':
        return kvant_jinja_is_digit(code);
    case 's':
        return kvant_jinja_is_space(code);
    case 'a':
        return kvant_jinja_is_letter(code);
    default:
        return kvant_jinja_is_letter(code) || kvant_jinja_is_digit(code);
    }
}

/* isdigit, isspace, isalpha, isalnum. */
static kvant_status is_kind(run *r, call *c, value *out) {
    const text *t = self_text(c);
    const char *name = c->what->name;
    char kind = strcmp(name, "isalnum") == 0                                       ? 'n'
                : strcmp(name, "isnumeric") == 0 || strcmp(name, "isdecimal") == 0 ? 'd'
                                                                                   : name[2];
    bool yes = t->size != 0;
    for (size_t i = 0; i < t->size && yes;) {
        uint32_t code;
        i += kvant_utf8_read((const uint8_t *)t->bytes + i, t->size - i, &code);
        yes = has_kind(code, kind);
    }
    *out = kvant_jinja_bool(yes);
    return kvant_jinja_step_bytes(r, t->size);
}

static kvant_status is_case(run *r, call *c, value *out) {
    bool yes = false;
    const char *test = strcmp(c->what->name, "isupper") == 0 ? "upper" : "lower";
    KVANT_TRY(kvant_jinja_apply_test(r, test, 5, c, &yes));
    *out = kvant_jinja_bool(yes);
    return KVANT_OK;
}

const kvant_jinja_builtin *kvant_jinja_find_text_method(const char *name) {
    static const kvant_jinja_builtin METHODS[] = {
        {"strip", strip, "chars", 0},
        {"lstrip", lstrip, "chars", 0},
        {"rstrip", rstrip, "chars", 0},
        {"split", split, "sep maxsplit", 0},
        {"rsplit", rsplit, "sep maxsplit", 0},
        {"splitlines", splitlines, "keepends", 0},
        {"startswith", startswith, "prefix start", 1},
        {"endswith", endswith, "suffix start", 1},
        {"removeprefix", remove_affix, "prefix", 1},
        {"removesuffix", remove_affix, "suffix", 1},
        {"upper", change_case, "", 0},
        {"lower", change_case, "", 0},
        {"casefold", change_case, "", 0},
        {"title", change_case, "", 0},
        {"capitalize", change_case, "", 0},
        {"replace", replace, "old new count", 2},
        {"join", join, "iterable", 1},
        {"format", format, NULL, 0},
        {"find", find, "sub start end", 1},
        {"rfind", find, "sub start end", 1},
        {"index", find, "sub start end", 1},
        {"rindex", find, "sub start end", 1},
        {"count", count, "sub", 1},
        {"partition", partition, "sep", 1},
        {"rpartition", partition, "sep", 1},
        {"ljust", adjust, "width", 1},
        {"rjust", adjust, "width", 1},
        {"center", adjust, "width", 1},
        {"zfill", adjust, "width", 1},
        {"isdigit", is_kind, "", 0},
        {"isnumeric", is_kind, "", 0},
        {"isdecimal", is_kind, "", 0},
        {"isspace", is_kind, "", 0},
        {"isalpha", is_kind, "", 0},
        {"isalnum", is_kind, "", 0},
        {"isupper", is_case, "", 0},
        {"islower", is_case, "", 0},
    };
    return kvant_jinja_find_in(METHODS, sizeof METHODS / sizeof *METHODS, name, strlen(name));
}
