// SPDX-License-Identifier: MIT
/* jinja_lexer.c: the tokens of a template.
 *
 * White space beside tags is settled here: `-` takes all of it; a block or comment takes the line's indentation before it and one
 * line break behind it unless `+` says otherwise, as the programs do for which chat templates are written. */
#include <locale.h>
#include <stdlib.h>

#include "text/jinja_node.h"
#include "text/utf8.h"

#define MAX_BRACKETS 256

typedef struct lexer {
    kvant_template *t;
    kvant_error *err;
    const char *text;
    size_t size, at, room;
    int line;
    bool line_start; /* the last tag ended a line, or nothing was read yet */
    char brackets[MAX_BRACKETS];
    int n_brackets;
} lexer;

static kvant_status add_token(lexer *x, kvant_jinja_token_kind kind, const char *text, size_t size) {
    kvant_template *t = x->t;
    if (t->n_tokens == x->room) {
        size_t room = x->room ? 2 * x->room : 64;
        kvant_jinja_token *tokens = kvant_jinja_grow(t->heap, t->tokens, x->room * sizeof *tokens, room * sizeof *tokens);
        if (!tokens) return kvant_fail(x->err, t->heap->failure, "%s: chat template: no memory for its tokens", t->name);
        t->tokens = tokens;
        x->room = room;
    }
    t->tokens[t->n_tokens++] = (kvant_jinja_token){kind, x->line, text, size};
    return KVANT_OK;
}

static bool looking_at(const lexer *x, size_t at, const char *s) {
    size_t n = strlen(s);
    return n <= x->size - at && memcmp(x->text + at, s, n) == 0;
}

static void advance(lexer *x, size_t to) {
    for (; x->at < to; x->at++)
        x->line += x->text[x->at] == '\n';
}

/* The bytes of white space at a place. */
static size_t space_at(const lexer *x, size_t at) {
    uint32_t code;
    size_t start = at;
    while (at < x->size) {
        size_t n = kvant_utf8_read((const uint8_t *)x->text + at, x->size - at, &code);
        if (!kvant_jinja_is_space(code)) break;
        at += n;
    }
    return at - start;
}

static size_t trimmed_end(const char *s, size_t n) {
    while (n > 0) {
        size_t i = n - 1;
        uint32_t code;
        while (i > 0 && n - i < 4 && ((uint8_t)s[i] & 0xC0) == 0x80)
            i--;
        if (kvant_utf8_read((const uint8_t *)s + i, n - i, &code) != n - i || !kvant_jinja_is_space(code)) break;
        n = i;
    }
    return n;
}

/* The text before a tag that begins at `end`, without what the tag takes of it. */
static kvant_status add_text(lexer *x, size_t end, char sign, bool strips_line) {
    const char *s = x->text + x->at;
    size_t n = end - x->at;
    if (sign == '-') {
        n = trimmed_end(s, n);
    } else if (sign != '+' && strips_line) {
        size_t line = n;
        while (line > 0 && s[line - 1] != '\n')
            line--;
        if ((line > 0 || x->line_start) && trimmed_end(s + line, n - line) == 0) n = line;
    }
    return n ? add_token(x, TOKEN_TEXT, s, n) : KVANT_OK;
}

/* Behind a tag's end: `-` was there, or a line break that a block takes. */
static void end_tag(lexer *x, size_t at, bool minus, bool takes_break) {
    size_t end = at;
    if (minus)
        end += space_at(x, at);
    else if (takes_break && at < x->size && x->text[at] == '\n')
        end++;
    advance(x, end);
    x->line_start = x->text[end - 1] == '\n';
}

static kvant_status unended(lexer *x, const char *what, const char *expected) {
    return kvant_fail(x->err, KVANT_EFORMAT, "%s: chat template, line %d: found %s without its end, expected %s", x->t->name,
                      x->line, what, expected);
}

static kvant_status read_comment(lexer *x) {
    size_t begin = x->at + 2;
    if (begin < x->size && (x->text[begin] == '-' || x->text[begin] == '+')) begin++;
    size_t i = begin;
    while (i < x->size && !looking_at(x, i, "#}"))
        i++;
    if (i >= x->size) return unended(x, "a comment", "#}");
    char sign = i > begin ? x->text[i - 1] : 0;
    end_tag(x, i + 2, sign == '-', sign != '+');
    return KVANT_OK;
}

/* The name of a tag that stands alone ({% raw %}): the place behind its %}, or 0. */
static size_t lone_tag(const lexer *x, size_t at, const char *name, char *sign) {
    at += 2;
    *sign = 0;
    if (at < x->size && (x->text[at] == '-' || x->text[at] == '+')) at++;
    at += space_at(x, at);
    if (!looking_at(x, at, name)) return 0;
    at += strlen(name);
    at += space_at(x, at);
    if (at < x->size && (x->text[at] == '-' || x->text[at] == '+')) *sign = x->text[at++];
    return looking_at(x, at, "%}") ? at + 2 : 0;
}

/* What stands between {% raw %} and {% endraw %}. */
static kvant_status read_raw(lexer *x, size_t begin_end, char begin_sign) {
    end_tag(x, begin_end, begin_sign == '-', false);
    for (size_t i = x->at; i + 1 < x->size; i++) {
        char sign;
        size_t end = looking_at(x, i, "{%") ? lone_tag(x, i, "endraw", &sign) : 0;
        if (!end) continue;
        KVANT_TRY(add_text(x, i, x->text[i + 2], true));
        advance(x, end);
        end_tag(x, end, sign == '-', sign != '+');
        return KVANT_OK;
    }
    return unended(x, "{% raw %}", "{% endraw %}");
}

static bool is_name_byte(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || (uint8_t)c >= 0x80;
}

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

static size_t digits_at(const lexer *x, size_t at) {
    size_t i = at;
    while (i < x->size && (is_digit(x->text[i]) || (x->text[i] == '_' && i > at && i + 1 < x->size && is_digit(x->text[i + 1]))))
        i++;
    return i - at;
}

static kvant_status read_number(lexer *x) {
    size_t start = x->at, i = start;
    bool is_float = false;
    if (x->text[i] == '0' && i + 1 < x->size && strchr("xXoObB", x->text[i + 1])) {
        i += 2;
        while (i < x->size && is_name_byte(x->text[i]))
            i++;
    } else {
        i += digits_at(x, i);
        if (i + 1 < x->size && x->text[i] == '.' && is_digit(x->text[i + 1]) && !(start > 0 && x->text[start - 1] == '.')) {
            is_float = true;
            i += 1 + digits_at(x, i + 1);
        }
        size_t e = i;
        if (e < x->size && (x->text[e] == 'e' || x->text[e] == 'E')) {
            e++;
            if (e < x->size && (x->text[e] == '+' || x->text[e] == '-')) e++;
            if (digits_at(x, e)) {
                is_float = true;
                i = e + digits_at(x, e);
            }
        }
    }
    KVANT_TRY(add_token(x, is_float ? TOKEN_FLOAT : TOKEN_INT, x->text + start, i - start));
    x->at = i;
    return KVANT_OK;
}

static kvant_status read_string(lexer *x) {
    char quote = x->text[x->at];
    size_t i = x->at + 1;
    while (i < x->size && x->text[i] != quote)
        i += x->text[i] == '\\' ? 2 : 1;
    if (i >= x->size) return unended(x, "a string", quote == '"' ? "a closing \"" : "a closing '");
    KVANT_TRY(add_token(x, TOKEN_STRING, x->text + x->at + 1, i - x->at - 1));
    advance(x, i + 1);
    return KVANT_OK;
}

static kvant_status read_operator(lexer *x) {
    static const char *const LONG[] = {"//", "**", "==", "!=", "<=", ">="};
    static const char OPEN[] = "([{", CLOSE[] = ")]}";
    char c = x->text[x->at];
    size_t n = 1;
    for (size_t i = 0; i < sizeof LONG / sizeof *LONG; i++)
        if (looking_at(x, x->at, LONG[i])) n = 2;
    if (c == '\0' || !strchr("+-*/%~<>=!.,:|()[]{}", c) || (c == '!' && n == 1))
        return kvant_fail(x->err, KVANT_EFORMAT, "%s: chat template, line %d: found the character U+%04X, expected an expression",
                          x->t->name, x->line, (unsigned)(uint8_t)c);
    if (strchr(OPEN, c)) {
        if (x->n_brackets == MAX_BRACKETS)
            return kvant_fail(x->err, KVANT_EFULL, "%s: chat template, line %d: found more than %d open brackets, expected fewer",
                              x->t->name, x->line, MAX_BRACKETS);
        x->brackets[x->n_brackets++] = CLOSE[strchr(OPEN, c) - OPEN];
    } else if (strchr(CLOSE, c)) {
        char expected = x->n_brackets ? x->brackets[--x->n_brackets] : 0;
        if (c != expected)
            return kvant_fail(x->err, KVANT_EFORMAT, "%s: chat template, line %d: found '%c', expected %s%.1s", x->t->name,
                              x->line, c, expected ? "" : "an opening bracket before it", expected ? &expected : "");
    }
    KVANT_TRY(add_token(x, TOKEN_OPERATOR, x->text + x->at, n));
    x->at += n;
    return KVANT_OK;
}

/* From behind {{ or {% to behind its end. */
static kvant_status read_tag(lexer *x, bool block) {
    const char *end = block ? "%}" : "}}";
    kvant_jinja_token_kind end_kind = block ? TOKEN_BLOCK_END : TOKEN_OUTPUT_END;
    x->n_brackets = 0;
    for (;;) {
        advance(x, x->at + space_at(x, x->at));
        if (x->at >= x->size) return unended(x, block ? "{%" : "{{", end);
        char c = x->text[x->at];
        size_t sign = (c == '-' || (c == '+' && block)) && looking_at(x, x->at + 1, end) ? 1 : 0;
        if (x->n_brackets == 0 && looking_at(x, x->at + sign, end)) {
            KVANT_TRY(add_token(x, end_kind, x->text + x->at, sign + 2));
            end_tag(x, x->at + sign + 2, sign && c == '-', block && !sign);
            return KVANT_OK;
        }
        if (is_digit(c)) {
            KVANT_TRY(read_number(x));
        } else if (is_name_byte(c)) {
            size_t i = x->at;
            while (i < x->size && is_name_byte(x->text[i]))
                i++;
            KVANT_TRY(add_token(x, TOKEN_NAME, x->text + x->at, i - x->at));
            x->at = i;
        } else {
            KVANT_TRY(c == '\'' || c == '"' ? read_string(x) : read_operator(x));
        }
    }
}

kvant_status kvant_jinja_tokenize(kvant_template *t, kvant_error *err) {
    lexer x = {.t = t, .err = err, .text = t->text, .size = t->size, .line = 1, .line_start = true};
    while (x.at < x.size) {
        size_t i = x.at;
        while (i < x.size && !(x.text[i] == '{' && i + 1 < x.size && strchr("{%#", x.text[i + 1]) && x.text[i + 1]))
            i++;
        if (i == x.size) {
            KVANT_TRY(add_token(&x, TOKEN_TEXT, x.text + x.at, i - x.at));
            x.at = i;
            break;
        }
        char kind = x.text[i + 1], sign = i + 2 < x.size ? x.text[i + 2] : 0, raw_sign;
        if (sign != '-' && sign != '+') sign = 0;
        size_t raw = kind == '%' ? lone_tag(&x, i, "raw", &raw_sign) : 0;
        KVANT_TRY(add_text(&x, i, sign, kind != '{'));
        advance(&x, i);
        if (raw && raw_sign != '+') {
            KVANT_TRY(read_raw(&x, raw, raw_sign));
        } else if (kind == '#') {
            KVANT_TRY(read_comment(&x));
        } else {
            KVANT_TRY(add_token(&x, kind == '%' ? TOKEN_BLOCK_BEGIN : TOKEN_OUTPUT_BEGIN, x.text + i, 2));
            x.at = i + 2 + (sign != 0);
            KVANT_TRY(read_tag(&x, kind == '%'));
        }
    }
    return add_token(&x, TOKEN_END, x.text + x.size, 0);
}

static kvant_status bad_literal(kvant_template *t, const kvant_jinja_token *token, const char *what, kvant_error *err) {
    return kvant_fail(err, KVANT_EUNSUPPORTED,
                      "%s: chat template, line %d: found %s in the literal %.*s, expected what fits a value of Kvant", t->name,
                      token->line, what, token->size > 40 ? 40 : (int)token->size, token->text);
}

static int digit_of(char c) {
    return is_digit(c) ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : 99;
}

static kvant_status number_value(kvant_template *t, const kvant_jinja_token *token, kvant_jinja_value *out, kvant_error *err) {
    char text[400];
    size_t n = 0;
    for (size_t i = 0; i < token->size; i++) {
        if (token->text[i] == '_') continue;
        if (n + 1 == sizeof text) return bad_literal(t, token, "too many digits", err);
        text[n++] = token->text[i] == '.' ? localeconv()->decimal_point[0] : token->text[i];
    }
    text[n] = '\0';
    if (token->kind == TOKEN_FLOAT) {
        *out = kvant_jinja_float(strtod(text, NULL));
        return KVANT_OK;
    }
    int base = 10;
    size_t i = 0;
    if (n > 1 && text[0] == '0' && !is_digit(text[1])) {
        base = text[1] == 'x' || text[1] == 'X' ? 16 : text[1] == 'o' || text[1] == 'O' ? 8 : 2;
        i = 2;
        if (i == n) return bad_literal(t, token, "no digit", err);
    }
    int64_t value = 0;
    for (; i < n; i++) {
        int d = digit_of(text[i]);
        if (d >= base) return bad_literal(t, token, "a wrong digit", err);
        if (value > (INT64_MAX - d) / base) return bad_literal(t, token, "more than 63 bits", err);
        value = value * base + d;
    }
    *out = kvant_jinja_int(value);
    return KVANT_OK;
}

/* An escape behind its backslash: the bytes read, 0 when it is none. *code: the character. */
static size_t read_escape(const char *s, size_t n, uint32_t *code) {
    static const char NAMES[] = "\\'\"abfnrtv", CODES[] = "\\'\"\a\b\f\n\r\t\v";
    const char *simple = memchr(NAMES, s[0], sizeof NAMES - 1);
    if (simple) {
        *code = (uint32_t)CODES[simple - NAMES];
        return 1;
    }
    size_t i = 0, want = s[0] == 'x' ? 2 : s[0] == 'u' ? 4 : s[0] == 'U' ? 8 : 0;
    *code = 0;
    if (want) {
        for (i = 1; i <= want; i++) {
            if (i >= n || digit_of(s[i]) > 15) return 0;
            *code = *code << 4 | (uint32_t)digit_of(s[i]);
        }
        return 1 + want;
    }
    while (i < 3 && i < n && s[i] >= '0' && s[i] <= '7')
        *code = *code << 3 | (uint32_t)(s[i++] - '0');
    return i;
}

static kvant_status string_value(kvant_template *t, const kvant_jinja_token *token, kvant_jinja_value *out, kvant_error *err) {
    kvant_jinja_builder b;
    kvant_jinja_builder_init(&b, t->heap);
    const char *s = token->text;
    for (size_t i = 0; i < token->size;) {
        uint32_t code;
        char utf8[4];
        size_t n = 0;
        if (s[i] != '\\' || i + 1 >= token->size) {
            kvant_jinja_add(&b, s + i++, 1);
        } else if (s[i + 1] == '\n') {
            i += 2; /* a string goes on in the next line */
        } else if ((n = read_escape(s + i + 1, token->size - i - 1, &code)) != 0) {
            if (code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) return bad_literal(t, token, "half a character", err);
            kvant_jinja_add(&b, utf8, kvant_utf8_write(code, utf8));
            i += 1 + n;
        } else if (strchr("xuUN", s[i + 1]) && s[i + 1]) {
            return bad_literal(t, token, "an escape of an unknown kind", err);
        } else {
            kvant_jinja_add(&b, s + i++, 1);
        }
    }
    kvant_status st = kvant_jinja_builder_finish(&b, out);
    return st == KVANT_OK ? st : kvant_fail(err, st, "%s: chat template: no memory for its strings", t->name);
}

kvant_status kvant_jinja_token_value(kvant_template *t, const kvant_jinja_token *token, kvant_jinja_value *out,
                                     kvant_error *err) {
    return token->kind == TOKEN_STRING ? string_value(t, token, out, err) : number_value(t, token, out, err);
}
