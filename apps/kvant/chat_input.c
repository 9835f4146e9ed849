// SPDX-License-Identifier: MIT
/* chat_input.c: lines from libedit or from a pipe, put together to messages.
 *
 * libedit reads keys through a function of this file, because Ctrl-C, a changed window and a return from the background must
 * reach a read that waits. Without libedit a terminal's own line editing is what there is. */
#define _POSIX_C_SOURCE 200809L
#include "chat_input.h"

#include <errno.h>
#include <jansson.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <sys/stat.h>
#include <unistd.h>
#ifdef KVANT_HAVE_LIBEDIT
#include <histedit.h>
#include <langinfo.h>
#include <wchar.h>
#endif

#include "interrupt.h"
#include "options.h"

#define HISTORY_LINES 1000
#define CTRL_D 4
#define PROMPT "> "
#define PROMPT_MORE ". "

struct chat_input {
    bool terminal;
    FILE *screen; /* where prompts go, on a terminal */
    const char *prompt;
    char *text; /* the message so far */
    size_t size, room;
    char *line; /* the last line, without its end */
    size_t line_size, line_room;
    char history_path[4096]; /* "" where nothing is remembered */
#ifdef KVANT_HAVE_LIBEDIT
    EditLine *editor;
    History *history;
    mbstate_t bytes; /* of a character that is not complete */
    bool at_start;   /* no key of this line was read yet */
    bool pastes;     /* the terminal may mark pasted text */
#endif
};

/* ---- signals ---- */

#define MOST_INTERRUPTS 3 /* the last of so many, one after the other, ends the program: something hangs */

static volatile sig_atomic_t n_interrupts, was_resized, was_continued;

static void on_signal(int sig) {
    if (sig == SIGINT) {
        interrupted = 1;
        if (++n_interrupts >= MOST_INTERRUPTS - 1) signal(sig, SIG_DFL);
    }
    if (sig == SIGWINCH) was_resized = 1;
    if (sig == SIGCONT) was_continued = 1;
}

/* Without SA_RESTART, so that a read ends. */
static void watch_signal(int sig) {
    struct sigaction action = {.sa_handler = on_signal};
    sigemptyset(&action.sa_mask);
    sigaction(sig, &action, NULL);
}

void chat_input_watch(void) {
    interrupted = n_interrupts = was_resized = was_continued = 0;
    watch_signal(SIGINT);
    watch_signal(SIGWINCH);
    watch_signal(SIGCONT);
}

/* ---- growing text ---- */

static bool append(char **text, size_t *size, size_t *room, const char *more, size_t n) {
    if (*size + n + 1 > *room) {
        size_t wanted = 2 * (*size + n + 1);
        char *grown = realloc(*text, wanted);
        if (!grown) return false;
        *text = grown;
        *room = wanted;
    }
    memcpy(*text + *size, more, n);
    *size += n;
    (*text)[*size] = '\0';
    return true;
}

/* ---- a line as it stands ---- */

/* The rest of a line that is too long is read and dropped. */
static chat_input_kind read_plain(chat_input *in) {
    int c;
    bool any = false, fits = true;
    in->line_size = 0;
    if (in->terminal) {
        fputs(in->prompt, in->screen);
        fflush(in->screen);
    }
    while ((c = getc(stdin)) != EOF && c != '\n') {
        char byte = (char)c;
        any = true;
        fits = fits && in->line_size < CHAT_MESSAGE_MAX && append(&in->line, &in->line_size, &in->line_room, &byte, 1);
    }
    if (c == EOF && in->terminal) fputc('\n', in->screen);
    if (c == EOF && interrupted && in->terminal) {
        clearerr(stdin);
        return CHAT_INPUT_CLEARED;
    }
    if (c == EOF && !any) return CHAT_INPUT_END;
    if (!fits || !append(&in->line, &in->line_size, &in->line_room, "", 0)) {
        fail_with(1, "a line is longer than %zu bytes; it is left out", CHAT_MESSAGE_MAX);
        return CHAT_INPUT_REFUSED;
    }
    if (in->line_size > 0 && in->line[in->line_size - 1] == '\r') in->line[--in->line_size] = '\0';
    return CHAT_INPUT_MESSAGE;
}

/* ---- a line that is edited ---- */

#ifdef KVANT_HAVE_LIBEDIT
static char *show_prompt(EditLine *editor) {
    static char prompt[16];
    chat_input *in = NULL;
    el_get(editor, EL_CLIENTDATA, &in);
    snprintf(prompt, sizeof prompt, "%s", in ? in->prompt : "");
    return prompt;
}

/* Signals come only while it waits, or before: none is lost between a look at its flag and the wait. false: one came, or there is
 * no key (patient: waits for one). */
static bool wait_for_key(bool patient) {
    sigset_t ours, before;
    fd_set set;
    const struct timespec at_once = {0, 0};
    sigemptyset(&ours);
    sigaddset(&ours, SIGINT);
    sigaddset(&ours, SIGWINCH);
    sigaddset(&ours, SIGCONT);
    sigprocmask(SIG_BLOCK, &ours, &before);
    FD_ZERO(&set);
    FD_SET(STDIN_FILENO, &set);
    int n = interrupted ? -1 : pselect(STDIN_FILENO + 1, &set, NULL, NULL, patient ? NULL : &at_once, &before);
    int why = errno;
    sigprocmask(SIG_SETMASK, &before, NULL);
    errno = why;
    return n > 0;
}

/* A Ctrl-D that was typed while the terminal still read lines by itself arrives as a NUL. */
static int read_key(EditLine *editor, wchar_t *out) {
    chat_input *in = NULL;
    el_get(editor, EL_CLIENTDATA, &in);
    for (;;) {
        char byte;
        bool typed_before = in->at_start && wait_for_key(false);
        in->at_start = false;
        ssize_t n = wait_for_key(true) ? read(STDIN_FILENO, &byte, 1) : -1;
        if (interrupted) return -1;
        if (n < 0 && errno == EINTR) {
            if (was_resized) el_resize(editor);
            if (was_continued) { /* the shell has had the terminal in between */
                el_set(editor, EL_PREP_TERM, 1);
                el_set(editor, EL_REFRESH);
            }
            was_resized = was_continued = 0;
            continue;
        }
        if (n <= 0) return (int)n;
        if (typed_before && byte == '\0') byte = CTRL_D;
        size_t used = mbrtowc(out, &byte, 1, &in->bytes);
        if (used == (size_t)-2) continue;
        if (used != (size_t)-1) return 1;
        memset(&in->bytes, 0, sizeof in->bytes); /* no character: dropped */
    }
}

/* Terminals that know how put marks around pasted text, which then is one message, with its lines, until Enter is typed. */
#define PASTE_ON "\x1b[?2004h"
#define PASTE_OFF "\x1b[?2004l"
#define PASTE_MAX (1 << 20) /* characters */

static unsigned char insert_paste(EditLine *editor, int key) {
    static const wchar_t end[] = L"\x1b[201~";
    const size_t end_size = sizeof end / sizeof *end - 1;
    wchar_t *text = malloc((PASTE_MAX + 1) * sizeof *text), c, last = 0;
    size_t n = 0, matched = 0;
    (void)key;
    while (text && matched < end_size && el_wgetc(editor, &c) == 1) {
        matched = c == end[matched] ? matched + 1 : c == end[0];
        bool is_end = matched > 0, is_line = c == L'\r' || (c == L'\n' && last != L'\r');
        last = c;
        if (is_line) c = L'\n';
        if (!is_end && n < PASTE_MAX && (is_line || c == L'\t' || (c >= L' ' && c != 0x7F))) text[n++] = c;
    }
    if (text) {
        text[n] = L'\0';
        (void)el_winsertstr(editor, text);
    }
    free(text);
    return CC_REFRESH;
}

/* What terminals send for keys that libedit does not know by itself. */
static void bind_keys(EditLine *editor) {
    static const char *const keys[][2] = {{"^R", "em-inc-search-prev"},  {"\\e[3~", "ed-delete-next-char"},
                                          {"\\e[H", "ed-move-to-beg"},   {"\\e[F", "ed-move-to-end"},
                                          {"\\e[1~", "ed-move-to-beg"},  {"\\e[4~", "ed-move-to-end"},
                                          {"\\e[1;5C", "em-next-word"},  {"\\e[1;5D", "ed-prev-word"},
                                          {"^W", "ed-delete-prev-word"}, {"\\e[200~", "kvant-paste"}};
    el_set(editor, EL_ADDFN, "kvant-paste", "insert what is pasted", insert_paste);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        el_set(editor, EL_BIND, keys[i][0], keys[i][1], NULL);
}

static void close_editor(chat_input *in) {
    if (in->editor) el_end(in->editor);
    if (in->history) history_end(in->history);
    in->editor = NULL;
    in->history = NULL;
}

static void open_editor(chat_input *in) {
    HistEvent event;
    setlocale(LC_CTYPE, "");
    if (strcmp(nl_langinfo(CODESET), "UTF-8") != 0) setlocale(LC_CTYPE, "C.UTF-8");
    const char *kind = getenv("TERM");
    in->pastes = kind && strcmp(kind, "dumb") != 0;
    in->history = history_init();
    in->editor = el_init("kvant", stdin, in->screen, stderr);
    if (!in->editor || !in->history) { /* out of memory: lines are read as they are */
        close_editor(in);
        return;
    }
    history(in->history, &event, H_SETSIZE, HISTORY_LINES);
    history(in->history, &event, H_SETUNIQUE, 1);
    if (in->history_path[0]) history(in->history, &event, H_LOAD, in->history_path); /* none yet is no error */
    el_set(in->editor, EL_CLIENTDATA, in);
    el_set(in->editor, EL_PROMPT, show_prompt);
    el_set(in->editor, EL_EDITOR, "emacs");
    el_set(in->editor, EL_HIST, history, in->history);
    el_set(in->editor, EL_GETCFN, read_key);
    bind_keys(in->editor);
    el_source(in->editor, NULL); /* the user's .editrc has the last word */
}

static void remember(chat_input *in, const char *line) {
    HistEvent event;
    if (line[strspn(line, " \t")] == '\0') return;
    history(in->history, &event, H_ENTER, line);
    if (in->history_path[0]) history(in->history, &event, H_SAVE, in->history_path);
}

static chat_input_kind read_edited(chat_input *in) {
    int n = 0;
    errno = 0;
    memset(&in->bytes, 0, sizeof in->bytes);
    in->at_start = true;
    if (in->pastes) fputs(PASTE_ON, in->screen);
    el_set(in->editor, EL_PREP_TERM, 1); /* before the prompt is shown: whoever has seen it can type any key */
    const char *line = el_gets(in->editor, &n);
    if (in->pastes) fputs(PASTE_OFF, in->screen);
    fflush(in->screen);
    if (!line || n <= 0) {
        fputs(interrupted ? "^C\n" : "\n", in->screen);
        fflush(in->screen);
        el_reset(in->editor);
        return interrupted ? CHAT_INPUT_CLEARED : CHAT_INPUT_END;
    }
    size_t size = (size_t)n;
    while (size > 0 && (line[size - 1] == '\n' || line[size - 1] == '\r'))
        size--;
    in->line_size = 0;
    if (size > CHAT_MESSAGE_MAX || !append(&in->line, &in->line_size, &in->line_room, line, size)) {
        fail_with(1, "a line is longer than %zu bytes; it is left out", CHAT_MESSAGE_MAX);
        return CHAT_INPUT_REFUSED;
    }
    remember(in, in->line);
    return CHAT_INPUT_MESSAGE;
}
#endif

static chat_input_kind read_line(chat_input *in) {
    if (in->terminal) chat_input_watch();
#ifdef KVANT_HAVE_LIBEDIT
    if (in->editor) return read_edited(in);
#endif
    return read_plain(in);
}

/* ---- messages ---- */

static const char block[] = "\"\"\"";

static bool ends_with(const char *text, size_t size, const char *end) {
    size_t n = strlen(end);
    return size >= n && memcmp(text + size - n, end, n) == 0;
}

/* Lines until the one that ends in """; the first one's text is there already. */
static chat_input_kind read_block(chat_input *in) {
    bool ended = ends_with(in->text, in->size, block);
    while (!ended) {
        chat_input_kind kind = read_line(in);
        if (kind == CHAT_INPUT_END) {
            fail_with(1, "the text ends inside a block that %s began; it is left out", block);
            return CHAT_INPUT_REFUSED;
        }
        if (kind != CHAT_INPUT_MESSAGE) return kind;
        ended = ends_with(in->line, in->line_size, block);
        bool first = in->size == 0;
        if ((!first && !append(&in->text, &in->size, &in->room, "\n", 1)) ||
            !append(&in->text, &in->size, &in->room, in->line, in->line_size) || in->size > CHAT_MESSAGE_MAX) {
            fail_with(1, "a message is longer than %zu bytes; it is left out", CHAT_MESSAGE_MAX);
            return CHAT_INPUT_REFUSED;
        }
    }
    in->size -= sizeof block - 1;
    if (in->size > 0 && in->text[in->size - 1] == '\n') in->size--; /* """ on a line of its own */
    in->text[in->size] = '\0';
    return CHAT_INPUT_MESSAGE;
}

static chat_input_kind read_message(chat_input *in) {
    in->size = 0;
    in->prompt = PROMPT;
    for (bool more = true; more;) {
        chat_input_kind kind = read_line(in);
        if (kind == CHAT_INPUT_END && in->size > 0) break; /* the line that was to follow a \ is missing */
        if (kind != CHAT_INPUT_MESSAGE) return kind;
        in->prompt = PROMPT_MORE;
        bool begins = in->size == 0 && strncmp(in->line, block, sizeof block - 1) == 0;
        size_t skip = begins ? sizeof block - 1 : 0;
        more = !begins && in->line_size > 0 && in->line[in->line_size - 1] == '\\';
        if (more) in->line[in->line_size - 1] = '\n';
        if (!append(&in->text, &in->size, &in->room, in->line + skip, in->line_size - skip) || in->size > CHAT_MESSAGE_MAX) {
            fail_with(1, "a message is longer than %zu bytes; it is left out", CHAT_MESSAGE_MAX);
            return CHAT_INPUT_REFUSED;
        }
        if (begins) return read_block(in);
    }
    return CHAT_INPUT_MESSAGE;
}

/* A JSON string is exactly what a message may be, and what /save writes. */
static bool is_text(const char *text, size_t size) {
    json_t *string = memchr(text, '\0', size) ? NULL : json_stringn(text, size);
    json_decref(string);
    return string != NULL;
}

chat_input_kind chat_input_next(chat_input *in, const char **text) {
    chat_input_kind kind = read_message(in);
    if (kind == CHAT_INPUT_MESSAGE && !is_text(in->text, in->size)) {
        fail_with(1, "a message must be UTF-8 text without NUL bytes; this one is left out");
        kind = CHAT_INPUT_REFUSED;
    }
    *text = in->text;
    return kind;
}

/* ---- the whole ---- */

/* The folders above it are made too; whether it worked shows when history is written. */
static void make_folder(const char *path) {
    char part[4096];
    size_t n = strlen(path);
    if (n == 0 || n >= sizeof part) return;
    memcpy(part, path, n + 1);
    for (size_t i = 1; i <= n; i++) {
        if (part[i] != '/' && part[i] != '\0') continue;
        char kept = part[i];
        part[i] = '\0';
        (void)mkdir(part, 0777);
        part[i] = kept;
    }
}

chat_input *chat_input_open(const char *history_folder) {
    chat_input *in = calloc(1, sizeof *in);
    if (!in || !append(&in->text, &in->size, &in->room, "", 0) || !append(&in->line, &in->line_size, &in->line_room, "", 0)) {
        chat_input_close(in);
        return NULL;
    }
    in->screen = isatty(STDOUT_FILENO) == 1 ? stdout : stderr;
    in->terminal = isatty(STDIN_FILENO) == 1 && isatty(fileno(in->screen)) == 1;
    if (!in->terminal) return in;
    if (history_folder) {
        make_folder(history_folder);
        int n = snprintf(in->history_path, sizeof in->history_path, "%s/chat_history", history_folder);
        if (n < 0 || (size_t)n >= sizeof in->history_path) in->history_path[0] = '\0';
    }
#ifdef KVANT_HAVE_LIBEDIT
    open_editor(in);
#endif
    return in;
}

void chat_input_close(chat_input *in) {
    if (!in) return;
#ifdef KVANT_HAVE_LIBEDIT
    close_editor(in);
#endif
    free(in->text);
    free(in->line);
    free(in);
}

bool chat_input_is_terminal(const chat_input *in) { return in->terminal; }

bool chat_input_can_edit(const chat_input *in) {
#ifdef KVANT_HAVE_LIBEDIT
    return in->editor != NULL;
#else
    (void)in;
    return false;
#endif
}

void chat_input_preset(chat_input *in, const char *text) {
#ifdef KVANT_HAVE_LIBEDIT
    if (in->editor) el_push(in->editor, text);
#else
    (void)in;
    (void)text;
#endif
}
