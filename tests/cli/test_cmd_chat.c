// SPDX-License-Identifier: MIT
/* test_cmd_chat.c: kvant chat as a script meets it through a pipe, and as a person at a terminal (a pseudo-terminal): what is
 * computed and what is not, every command, broken files, a full context, keys and Ctrl-C. */
#define _XOPEN_SOURCE 700
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cli/program_test.h"

#define STORIES KVANT_DATA "/models/stories260K.gguf"
#define CHAT "chat -m " STORIES " --chat-template chatml "
#define SCRIPT "test_cmd_chat_script.txt"
#define ERRORS "test_cmd_chat_errors.txt"
#define FILE_ "test_cmd_chat_saved.json"
#define FOLDER "test_cmd_chat_folder"
#define CACHE "test_cmd_chat_cache"

static char said[1 << 16], told[1 << 16]; /* stdout and stderr of the last run */

static void write_text(const char *path, const char *text) { write_bytes(path, text, strlen(text)); }

/* The lines of SCRIPT through a pipe; the exit code. */
static int run_script(const char *arguments) {
    char command[4096];
    snprintf(command, sizeof command, "cat " SCRIPT " | '%s' %s 2>" ERRORS, KVANT_PROGRAM, arguments);
    size_t n;
    int code = run_shell(command, said, sizeof said, &n);
    FILE *errors = fopen(ERRORS, "rb");
    assert_non_null(errors);
    told[fread(told, 1, sizeof told - 1, errors)] = '\0';
    fclose(errors);
    return code;
}

static int chat(const char *flags, const char *script) {
    char arguments[2048];
    snprintf(arguments, sizeof arguments, CHAT "%s", flags);
    write_text(SCRIPT, script);
    return run_script(arguments);
}

static void assert_tells(const char *piece) {
    if (!strstr(told, piece)) fail_msg("stderr does not say \"%s\" but: %s", piece, told);
}

/* The figures of the n-th "last prompt" line that /stats has told. */
typedef struct stats {
    long n_prompt, reused, session, ram, disk, computed, context;
} stats;

static stats told_stats(int n) {
    stats s = {0};
    const char *at = told - 1, *line = NULL;
    for (int i = 0; i <= n; i++) {
        at = strstr(at + 1, "in the cache  ");
        assert_non_null(at);
    }
    assert_int_equal(sscanf(at, "in the cache %ld tokens", &s.context), 1);
    line = strstr(at, "last prompt");
    assert_non_null(line);
    assert_int_equal(sscanf(line, "last prompt %ld tokens: %ld reused (session %ld, memory %ld, disk %ld), %ld computed",
                            &s.n_prompt, &s.reused, &s.session, &s.ram, &s.disk, &s.computed),
                     6);
    assert_int_equal(s.reused, s.session + s.ram + s.disk);
    assert_int_equal(s.n_prompt, s.reused + s.computed);
    return s;
}

/* ---- conversations through a pipe ---- */

static void a_pipe_gets_the_answers_and_nothing_else(void **state) {
    (void)state;
    static char rest[sizeof said];
    if (!is_there(STORIES)) skip();
    assert_int_equal(chat("--temp 0 -n 12", "Once upon a time\n\n/stats\n/help\nThen what?\n"), 0);
    assert_tells("of at most 512");
    assert_null(strstr(told, "> "));
    assert_null(strstr(said, "> "));
    assert_null(strchr(told, '\x1b'));
    assert_null(strchr(said, '\x1b'));
    assert_null(strstr(said, "context"));
    assert_int_equal(said[strlen(said) - 1], '\n');
    /* The same questions without commands have the same answers, whatever ends the last line. */
    strcpy(rest, said);
    assert_int_equal(chat("--temp 0 -n 12", "Once upon a time\r\nThen what?"), 0);
    assert_string_equal(said, rest);
    assert_int_equal(chat("--temp 0 -n 12", ""), 0);
    assert_string_equal(said, "");
}

static void only_what_is_new_is_computed(void **state) {
    (void)state;
    if (!is_there(STORIES)) skip();
    assert_int_equal(chat("--temp 0 -n 20", "Once upon a time\n/stats\nThen what?\n/stats\nAnd then?\n/stats\n"), 0);
    stats first = told_stats(0), second = told_stats(1), third = told_stats(2);
    assert_int_equal(first.reused, 0);
    assert_int_equal(first.context, first.n_prompt + 20); /* the whole answer was read */
    assert_int_equal(second.session, first.context);
    assert_int_equal(third.session, second.context);
    assert_true(third.computed < third.n_prompt / 2);
}

/* The answer to a conversation does not depend on how it came about: kvant run reads the same text at once. */
static void answers_are_those_of_one_reading(void **state) {
    (void)state;
    static char answers[sizeof said], prompt[4096], arguments[512];
    if (!is_there(STORIES)) skip();
    assert_int_equal(chat("--temp 0 -n 20", "Once upon a time\nThen what?\n/save " FILE_ "\n"), 0);
    strcpy(answers, said);
    json_t *root = json_load_file(FILE_, 0, NULL), *messages = json_object_get(root, "messages");
    assert_int_equal(json_array_size(messages), 4);
    const char *first = json_string_value(json_object_get(json_array_get(messages, 1), "content")),
               *second = json_string_value(json_object_get(json_array_get(messages, 3), "content"));
    snprintf(prompt, sizeof prompt,
             "<|im_start|>user\nOnce upon a time<|im_end|>\n<|im_start|>assistant\n%s<|im_end|>\n<|im_start|>user\nThen "
             "what?<|im_end|>\n"
             "<|im_start|>assistant\n",
             first);
    write_text(SCRIPT, prompt);
    snprintf(arguments, sizeof arguments, "run -m " STORIES " --raw -n 20");
    assert_int_equal(run_script(arguments), 0);
    assert_string_equal(said, second);
    snprintf(prompt, sizeof prompt, "%s\n%s\n", first, second);
    assert_string_equal(answers, prompt);
    json_decref(root);
}

static void retry_undo_and_edit_compute_what_they_change(void **state) {
    (void)state;
    if (!is_there(STORIES)) skip();
    /* /retry reads one token for its logits, and samples on */
    assert_int_equal(chat("--seed 7 -n 16", "Once upon a time\n/stats\n/retry\n/stats\n/save " FILE_ "\n"), 0);
    stats asked = told_stats(0), again = told_stats(1);
    assert_int_equal(again.n_prompt, asked.n_prompt);
    assert_int_equal(again.computed, 1);
    char *second = strchr(said, '\n');
    assert_non_null(second);
    *second++ = '\0';
    if (strncmp(said, second, strlen(said)) == 0) fail_msg("/retry gave the same answer: %s", second);
    json_t *root = json_load_file(FILE_, 0, NULL);
    assert_int_equal(json_array_size(json_object_get(root, "messages")), 2); /* in its place */
    json_decref(root);
    /* greedy: said, and done differently */
    assert_int_equal(chat("--temp 0 -n 16", "Once upon a time\n/retry\nNow\n/stats\n"), 0);
    assert_tells("at temperature 0 the answer would be the same");
    assert_tells("sampling      temperature 0:");
    /* /undo, then the same question again: all of it is known but the last token */
    assert_int_equal(chat("--temp 0 -n 16", "Once upon a time\nThen?\n/stats\n/undo\nThen?\n/stats\n"), 0);
    assert_tells("taken back: Then?");
    assert_int_equal(told_stats(1).n_prompt, told_stats(0).n_prompt);
    assert_int_equal(told_stats(1).computed, 1);
    /* /edit: another last question */
    assert_int_equal(chat("--temp 0 -n 16", "Once upon a time\nThen?\n/stats\n/edit Why?\n/stats\n/save " FILE_ "\n"), 0);
    assert_true(told_stats(1).session >= told_stats(0).n_prompt - told_stats(0).computed);
    root = json_load_file(FILE_, 0, NULL);
    json_t *messages = json_object_get(root, "messages");
    assert_int_equal(json_array_size(messages), 4);
    assert_string_equal(json_string_value(json_object_get(json_array_get(messages, 2), "content")), "Why?");
    json_decref(root);
    /* /clear */
    assert_int_equal(chat("--temp 0 -n 16", "Once upon a time\n/stats\n/clear\nOnce upon a time\n/stats\n"), 0);
    assert_int_equal(told_stats(1).n_prompt, told_stats(0).n_prompt);
    assert_int_equal(told_stats(1).computed, 1);
    /* nothing to take back */
    assert_int_equal(chat("-n 4", "/undo\n/retry\n/edit x\n"), 1);
    assert_tells("nothing was asked yet");
    assert_string_equal(said, "");
}

static void what_a_cache_folder_keeps_is_not_read_again(void **state) {
    (void)state;
    if (!is_there(STORIES)) skip();
    char command[256];
    snprintf(command, sizeof command, "rm -rf '%s'", FOLDER);
    assert_int_equal(system(command), 0);
    const char *flags = "--temp 0 -n 30 --cache-dir " FOLDER;
    const char *question = "Once upon a time there was a little girl and she had a red ball and a dog and a cat and a big box, "
                           "so what did she do?\n";
    char script[512];
    snprintf(script, sizeof script, "%s/stats\n/save " FILE_ "\n", question);
    assert_int_equal(chat(flags, script), 0);
    stats first = told_stats(0);
    assert_int_equal(chat(flags, "/load " FILE_ "\nThen?\n/stats\n"), 0);
    stats later = told_stats(0);
    print_message("%ld tokens, of which a folder had %ld\n", later.n_prompt, later.disk);
    assert_true(later.disk >= 64); /* a page */
    assert_true(later.disk <= first.context);
}

static void a_draft_guesses_and_the_answers_stay(void **state) {
    (void)state;
    static char without[sizeof said];
    if (!is_there(STORIES)) skip();
    const char *script = "Once upon a time\nThen what?\n/undo\nOnce upon a time\n/stats\n";
    for (int sampled = 0; sampled < 2; sampled++) {
        char flags[64], drafted[96];
        snprintf(flags, sizeof flags, "-n 24 %s", sampled ? "--seed 5" : "--temp 0");
        snprintf(drafted, sizeof drafted, "%s --draft ngram", flags);
        assert_int_equal(chat(flags, script), 0);
        assert_null(strstr(told, "guesses"));
        strcpy(without, said);
        assert_int_equal(chat(drafted, script), 0);
        assert_tells("guesses were right");
        assert_string_equal(said, without);
    }
}

static void seeds_repeat_a_conversation(void **state) {
    (void)state;
    static char first[sizeof said];
    if (!is_there(STORIES)) skip();
    const char *script = "Once upon a time\n/retry\nThen what?\n";
    assert_int_equal(chat("--seed 3 -n 20", script), 0);
    strcpy(first, said);
    assert_int_equal(chat("--seed 3 -n 20", script), 0);
    assert_string_equal(said, first);
    assert_int_equal(chat("--seed 4 -n 20", script), 0);
    assert_string_not_equal(said, first);
}

static void messages_have_several_lines_or_a_slash(void **state) {
    (void)state;
    if (!is_there(STORIES)) skip();
    assert_int_equal(
        chat("--temp 0 -n 4",
             "one\\\ntwo\\\n/three\n\"\"\"\nfour\n/undo\n\n five\n\"\"\"\n//six\n\"\"\"seven\"\"\"\nGr\xC3\xBC\xC3\x9F"
             "e \xE4\xBD\xA0\n/save " FILE_ "\n"),
        0);
    json_t *root = json_load_file(FILE_, 0, NULL), *messages = json_object_get(root, "messages");
    static const char *const expected[] = {"one\ntwo\n/three", "four\n/undo\n\n five", "/six", "seven",
                                           "Gr\xC3\xBC\xC3\x9F"
                                           "e \xE4\xBD\xA0"};
    assert_int_equal(json_array_size(messages), 10);
    for (size_t i = 0; i < 5; i++)
        assert_string_equal(json_string_value(json_object_get(json_array_get(messages, 2 * i), "content")), expected[i]);
    json_decref(root);
    /* no text */
    const char bytes[] = "a\0b\n\xFF\xFE\nc\n/save " FILE_ "\n";
    write_bytes(SCRIPT, bytes, sizeof bytes - 1);
    assert_int_equal(run_script(CHAT "--temp 0 -n 4"), 1);
    assert_tells("must be UTF-8 text without NUL bytes");
    root = json_load_file(FILE_, 0, NULL);
    assert_int_equal(json_array_size(json_object_get(root, "messages")), 2);
    json_decref(root);
    assert_int_equal(chat("-n 4", "\"\"\"\nnever ended\n"), 1);
    assert_tells("the text ends inside a block");
}

static void commands_name_the_nearest(void **state) {
    (void)state;
    if (!is_there(STORIES)) skip();
    assert_int_equal(chat("-n 4", "/slats\n"), 1);
    assert_tells("there is no command /slats; did you mean /stats?");
    assert_int_equal(chat("-n 4", "/etc/passwd is what\n"), 1);
    assert_tells("// begins a message");
    assert_int_equal(chat("-n 4", "/undo both\n"), 1);
    assert_tells("/undo takes nothing more, found both");
    assert_int_equal(chat("-n 4", "/save\n"), 1);
    assert_tells("/save needs the name of a file");
    assert_int_equal(chat("-n 4", "/quit\nOnce upon a time\n"), 0);
    assert_string_equal(said, "");
    assert_int_equal(chat("-n 4", "/help\n"), 0);
    static const char *const names[] = {"/help",   "/retry", "/edit", "/undo",  "/clear",
                                        "/system", "/save",  "/load", "/stats", "/quit"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        assert_tells(names[i]);
}

static void system_messages_are_set_shown_and_removed(void **state) {
    (void)state;
    if (!is_there(STORIES)) skip();
    assert_int_equal(chat("--temp 0 -n 4 --system 'Be kind.'",
                          "/system\nHi\n/save " FILE_ "\n/system Be brief.\n/system\n/system -\n/system\n"),
                     0);
    assert_tells("Be kind.");
    assert_tells("Be brief.");
    assert_tells("with the next question the conversation is read again");
    assert_tells("there is no system message;");
    json_t *root = json_load_file(FILE_, 0, NULL);
    assert_string_equal(json_string_value(json_object_get(root, "system")), "Be kind.");
    json_decref(root);
}

static void a_full_context_loses_nothing(void **state) {
    (void)state;
    if (!is_there(STORIES)) skip();
    /* a question that does not fit is not added; the conversation goes on without it */
    assert_int_equal(chat("--temp 0 -n 20 -c 150",
                          "Once upon a time\nA long question that has so many words in it that it does not fit into what is left "
                          "of a small context, "
                          "or so I hope, because otherwise this test says nothing?\n/save " FILE_ "\nAnd?\n/stats\n"),
                     1);
    assert_tells("the context holds 150; /undo takes");
    json_t *root = json_load_file(FILE_, 0, NULL);
    assert_int_equal(json_array_size(json_object_get(root, "messages")), 2);
    json_decref(root);
    assert_true(told_stats(0).reused > 0);
    /* and /retry asks it again where there is room */
    assert_int_equal(
        chat("--temp 0 -n 20 -c 130",
             "Once upon a time\nThe second question does not fit beside the first, does it?\n/undo\n/retry\n/save " FILE_ "\n"),
        1);
    assert_tells("then /retry asks this one again");
    root = json_load_file(FILE_, 0, NULL);
    json_t *only = json_object_get(root, "messages");
    assert_int_equal(json_array_size(only), 2);
    assert_memory_equal(json_string_value(json_object_get(json_array_get(only, 0), "content")), "The second question", 19);
    json_decref(root);
    /* an answer that fills it is kept */
    assert_int_equal(chat("--temp 0 -c 100", "Once upon a time\n/save " FILE_ "\nThen?\n/undo\nHm?\n"), 1);
    assert_tells("the answer ends because the context of 100 tokens is full; nothing is lost");
    root = json_load_file(FILE_, 0, NULL);
    assert_int_equal(json_array_size(json_object_get(root, "messages")), 2);
    assert_true(json_string_length(json_object_get(json_array_get(json_object_get(root, "messages"), 1), "content")) > 20);
    json_decref(root);
}

/* ---- files ---- */

#define SETTINGS                                                                                                                 \
    "\"settings\": {\"temperature\": 0.5, \"top_p\": 0.9, \"min_p\": 0, \"top_k\": 0, \"repeat_penalty\": 1, "                   \
    "\"repeat_last_n\": 64, \"seed\": 9}"
#define MESSAGES "\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}, {\"role\": \"assistant\", \"content\": \"Ho\"}]"

static void a_conversation_goes_on_from_a_file(void **state) {
    (void)state;
    static char whole[sizeof said], *last;
    if (!is_there(STORIES)) skip();
    assert_int_equal(chat("--temp 0 -n 20", "Once upon a time\nThen what?\n"), 0);
    strcpy(whole, said);
    assert_int_equal(chat("--temp 0 -n 20", "Once upon a time\n/save " FILE_ "\n"), 0);
    last = whole + strlen(said);
    assert_int_equal(chat("-n 20", "/load " FILE_ "\nThen what?\n/stats\n"), 0); /* temperature 0 comes with it */
    assert_string_equal(said, last);
    assert_null(strstr(told, "note:"));
    /* of another model: a note, and it works */
    write_text(FILE_, "{\"kvant_chat\": 1, \"model\": \"other\", \"system\": null, " SETTINGS ", " MESSAGES "}");
    assert_int_equal(chat("-n 4", "/load " FILE_ "\nThen what?\n/stats\n"), 0);
    assert_tells("it was held with other");
    assert_tells("temperature 0.5");
    assert_tells("seed 9");
}

static void a_broken_file_is_refused_by_field_and_changes_nothing(void **state) {
    (void)state;
    if (!is_there(STORIES)) skip();
    static const struct {
        const char *text, *says;
    } broken[] = {
        {"", "is not JSON"},
        {"{\"kvant_chat\": 1", "line 1: is not JSON"},
        {"[]", "is no conversation that /save has written"},
        {"{}", "kvant_chat is missing"},
        {"{\"kvant_chat\": 2}", "kvant_chat: found 2, expected 1"},
        {"{\"kvant_chat\": \"1\"}", "kvant_chat: found \"1\", expected 1"},
        {"{\"kvant_chat\": 1}", "model: found nothing"},
        {"{\"kvant_chat\": 1, \"model\": 3}", "model: found 3"},
        {"{\"kvant_chat\": 1, \"model\": \"m\"}", "system: found nothing, expected a text, or null"},
        {"{\"kvant_chat\": 1, \"model\": \"m\", \"system\": null}", "settings: found nothing"},
        {"{\"kvant_chat\": 1, \"model\": \"m\", \"system\": null, \"settings\": {}}",
         "settings.temperature: found nothing, expected a number from 0 to 100"},
        {"{\"kvant_chat\": 1, \"model\": \"m\", \"system\": null, \"settings\": {\"temperature\": -1}}",
         "settings.temperature: found -1"},
        {"{\"kvant_chat\": 1, \"model\": \"m\", \"system\": null, \"settings\": {\"temperature\": 1, \"top_p\": 1, \"min_p\": 0, "
         "\"top_k\": 1.5}}",
         "settings.top_k: found 1.5, expected a whole number"},
        {"{\"kvant_chat\": 1, \"model\": \"m\", \"system\": null, " SETTINGS "}", "messages: found nothing, expected a list"},
        {"{\"kvant_chat\": 1, \"model\": \"m\", \"system\": null, " SETTINGS ", \"messages\": [1]}", "messages[0]: found 1"},
        {"{\"kvant_chat\": 1, \"model\": \"m\", \"system\": null, " SETTINGS
         ", \"messages\": [{\"role\": \"tool\", \"content\": \"x\"}]}",
         "messages[0].role: found \"tool\", expected \"user\""},
        {"{\"kvant_chat\": 1, \"model\": \"m\", \"system\": null, " SETTINGS
         ", \"messages\": [{\"role\": \"user\", \"content\": 1}]}",
         "messages[0].content: found 1, expected a text"},
        {"{\"kvant_chat\": 1, \"model\": \"m\", \"system\": null, " SETTINGS
         ", \"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}",
         "messages: found 1, expected an answer"},
        {"{\"kvant_chat\": 1, \"kvant_chat\": 1}", "is not JSON"},
        {"{\"kvant_chat\": 1, \"model\": \"a\\u0000b\"}", "is not JSON"},
    };
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        write_text("test_cmd_chat_broken.json", broken[i].text);
        remove(FILE_);
        int code = chat("--temp 0 -n 4", "Hello\n/load test_cmd_chat_broken.json\n/save " FILE_ "\n");
        assert_int_equal(code, 1);
        if (!strstr(told, broken[i].says)) fail_msg("%s: does not say \"%s\" but: %s", broken[i].text, broken[i].says, told);
        assert_tells("test_cmd_chat_broken.json: ");
        json_t *root = json_load_file(FILE_, 0, NULL);
        assert_non_null(root);
        assert_int_equal(json_array_size(json_object_get(root, "messages")), 2);
        json_decref(root);
    }
    assert_int_equal(chat("-n 4", "/load /nonexistent.json\n/load .\n/save /nonexistent/x.json\n/save .\n"), 1);
    assert_tells("/nonexistent.json: cannot be opened");
    assert_tells("/nonexistent/x.json: the conversation cannot be written");
    assert_false(is_there("..new"));
    /* deeper than anyone writes, and larger than the limit */
    static char deep[100000];
    memset(deep, '[', sizeof deep - 1);
    write_text("test_cmd_chat_broken.json", deep);
    assert_int_equal(chat("-n 4", "/load test_cmd_chat_broken.json\n"), 1);
    assert_tells("is not JSON");
    FILE *f = fopen("test_cmd_chat_broken.json", "wb");
    assert_non_null(f);
    assert_int_equal(fseek(f, 65 << 20, SEEK_SET), 0);
    fputc(' ', f);
    fclose(f);
    assert_int_equal(chat("-n 4", "/load test_cmd_chat_broken.json\n"), 1);
    assert_tells("is longer than");
    remove("test_cmd_chat_broken.json");
}

static void flags_are_checked_and_a_template_is_needed(void **state) {
    (void)state;
    if (!is_there(STORIES)) skip();
    write_text(SCRIPT, "Hi\n");
    assert_int_equal(run_script("chat -m " STORIES), 1);
    assert_tells("--chat-template NAME");
    assert_int_equal(run_script("chat -m " STORIES " --chat-template nonsense"), 2);
    assert_tells("nonsense");
    assert_int_equal(run_script("chat"), 2);
    assert_tells("a model is needed");
    assert_int_equal(run_script(CHAT "-n 0"), 2);
    assert_int_equal(run_script(CHAT "--stop ''"), 2);
    assert_int_equal(run_script(CHAT "--tepm 1"), 2);
    assert_tells("did you mean --temp?");
    assert_int_equal(run_script("chat --help"), 0);
    assert_non_null(strstr(said, "0.7"));
    assert_non_null(strstr(said, "--cache-dir"));
}

/* ---- at a terminal ---- */

#ifdef KVANT_HAVE_LIBEDIT
#define PROMPT "h> " /* behind what asks the terminal to mark pastes */
#else
#define PROMPT "> "
#endif

static int terminal;
static pid_t child;
static size_t n_shown;

/* Starts a chat with a pseudo-terminal for all of its streams. */
static void open_terminal(const char *const *arguments) {
    terminal = posix_openpt(O_RDWR | O_NOCTTY);
    assert_true(terminal >= 0 && grantpt(terminal) == 0 && unlockpt(terminal) == 0);
    const char *name = ptsname(terminal);
    assert_non_null(name);
    child = fork();
    assert_true(child >= 0);
    n_shown = 0;
    said[0] = '\0';
    if (child > 0) return;
    setsid();
    int slave = open(name, O_RDWR); /* the controlling terminal of the new session */
    if (slave < 0 || dup2(slave, 0) < 0 || dup2(slave, 1) < 0 || dup2(slave, 2) < 0) _exit(126);
    close(slave);
    close(terminal);
    setenv("TERM", "xterm", 1);
    setenv("LC_ALL", "C", 1);
    execv(KVANT_PROGRAM, (char *const *)(uintptr_t)arguments);
    _exit(127);
}

static void type(const char *keys) { assert_int_equal(write(terminal, keys, strlen(keys)), strlen(keys)); }

/* What is shown from now on, until it holds `piece`; `from`: where to begin to look. */
static void wait_for(size_t from, const char *piece) {
    time_t end = time(NULL) + 30;
    while (!strstr(said + from, piece)) {
        struct pollfd p = {.fd = terminal, .events = POLLIN};
        if (time(NULL) > end) fail_msg("the terminal does not show \"%s\" but: %s", piece, said + from);
        if (poll(&p, 1, 100) <= 0) continue;
        ssize_t n = read(terminal, said + n_shown, sizeof said - 1 - n_shown);
        if (n <= 0) fail_msg("the program has left; it showed: %s", said);
        n_shown += (size_t)n;
        said[n_shown] = '\0';
    }
}

static int leave_terminal(void) {
    int status = 0;
    time_t end = time(NULL) + 30;
    while (waitpid(child, &status, WNOHANG) == 0) {
        struct pollfd p = {.fd = terminal, .events = POLLIN};
        if (poll(&p, 1, 50) > 0 && (p.revents & POLLIN)) {
            char rest[4096];
            if (read(terminal, rest, sizeof rest) < 0) continue;
        }
        if (time(NULL) > end) fail_msg("the program does not leave");
    }
    close(terminal);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static json_t *saved_message(json_t *root, size_t i) {
    return json_object_get(json_array_get(json_object_get(root, "messages"), i), "content");
}

static void keys_edit_a_line_and_history_brings_it_back(void **state) {
    (void)state;
    if (!is_there(STORIES)) skip();
#ifndef KVANT_HAVE_LIBEDIT
    print_message("this build has no libedit: keys are the terminal's\n");
    skip();
#endif
    const char *const arguments[] = {"kvant", "chat", "-m", STORIES, "--chat-template", "chatml", "--temp", "0", "-n", "4", NULL};
    remove(FILE_);
    open_terminal(arguments);
    wait_for(0, PROMPT);
    size_t from = n_shown;
    type("Onse upon\x1b[D\x1b[D\x1b[D\x1b[D\x1b[D\x1b[D\x7f"
         "c\x1b[C\x05 a t\xC3\xBCme\r"); /* left, rubout, right, ^E */
    wait_for(from, "answer ends after 4 tokens");
    wait_for(from, PROMPT);
    from = n_shown;
    type("half a line\x03"); /* Ctrl-C drops it */
    wait_for(from, "^C");
    wait_for(from, PROMPT);
    from = n_shown;
    type("\x1b[A!\r"); /* the line before, with more */
    wait_for(from, "answer ends after 4 tokens");
    wait_for(from, PROMPT);
    from = n_shown;
    type("\x1b[200~pasted:\rline 2 \xC3\xA9\x1b[201~ and on\r"); /* between the marks a terminal puts around it */
    wait_for(from, "answer ends after 4 tokens");
    wait_for(from, PROMPT);
    from = n_shown;
    type("/save " FILE_ "\r");
    wait_for(from, "saved in");
    wait_for(from, PROMPT);
    type("\x04"); /* Ctrl-D */
    assert_int_equal(leave_terminal(), 0);
    json_t *root = json_load_file(FILE_, 0, NULL);
    assert_non_null(root);
    bool edits = strcmp(json_string_value(saved_message(root, 0)), "Once upon a t\xC3\xBCme") == 0;
    if (!edits) print_message("the line was taken as: %s\n", json_string_value(saved_message(root, 0)));
    assert_true(edits);
    assert_string_equal(json_string_value(saved_message(root, 2)), "Once upon a t\xC3\xBCme!");
    assert_string_equal(json_string_value(saved_message(root, 4)), "pasted:\nline 2 \xC3\xA9 and on");
    json_decref(root);
    /* and in the next chat, from the file, which is the user's alone */
    struct stat st;
    assert_int_equal(stat(CACHE "/chat_history", &st), 0);
    assert_int_equal(st.st_mode & 077, 0);
    open_terminal(arguments);
    wait_for(0, PROMPT);
    from = n_shown;
    type("\x1b[A\x1b[A\x1b[A"); /* past /save and what was pasted */
    wait_for(from, "me!");
    type("\x03");
    wait_for(from, "^C");
    type("\x04");
    assert_int_equal(leave_terminal(), 0);
}

static void ctrl_c_ends_an_answer_and_keeps_what_was_said(void **state) {
    (void)state;
    if (!is_there(STORIES)) skip();
    /* a greedy answer that goes round in circles, in a context that takes a while to fill */
    const char *const arguments[] = {"kvant", "chat", "-m",      STORIES, "--chat-template", "chatml", "--temp",
                                     "0",     "-n",   "1000000", "-c",    "100000",          NULL};
    remove(FILE_);
    open_terminal(arguments);
    wait_for(0, PROMPT);
    size_t from = n_shown;
    type("Once upon a time\r");
    wait_for(from, "time\r\n");
    from = n_shown;
    wait_for(from, " "); /* something is said */
    type("\x03");
    wait_for(from, "interrupted; what was said is kept");
    wait_for(from, PROMPT);
    from = n_shown;
    type("/save " FILE_ "\r");
    wait_for(from, "saved in");
    wait_for(from, PROMPT);
    from = n_shown;
    type("/stats\r");
    wait_for(from, "sampling");
    wait_for(from, PROMPT);
    type("\x04");
    assert_int_equal(leave_terminal(), 0);
    json_t *root = json_load_file(FILE_, 0, NULL);
    assert_non_null(root);
    assert_int_equal(json_array_size(json_object_get(root, "messages")), 2);
    assert_true(json_string_length(saved_message(root, 1)) > 0);
    json_decref(root);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pipe_gets_the_answers_and_nothing_else),
        cmocka_unit_test(only_what_is_new_is_computed),
        cmocka_unit_test(answers_are_those_of_one_reading),
        cmocka_unit_test(retry_undo_and_edit_compute_what_they_change),
        cmocka_unit_test(what_a_cache_folder_keeps_is_not_read_again),
        cmocka_unit_test(a_draft_guesses_and_the_answers_stay),
        cmocka_unit_test(seeds_repeat_a_conversation),
        cmocka_unit_test(messages_have_several_lines_or_a_slash),
        cmocka_unit_test(commands_name_the_nearest),
        cmocka_unit_test(system_messages_are_set_shown_and_removed),
        cmocka_unit_test(a_full_context_loses_nothing),
        cmocka_unit_test(a_conversation_goes_on_from_a_file),
        cmocka_unit_test(a_broken_file_is_refused_by_field_and_changes_nothing),
        cmocka_unit_test(flags_are_checked_and_a_template_is_needed),
        cmocka_unit_test(keys_edit_a_line_and_history_brings_it_back),
        cmocka_unit_test(ctrl_c_ends_an_answer_and_keeps_what_was_said),
    };
    setenv("KVANT_CACHE", CACHE, 1); /* where history is kept */
    if (!is_there(STORIES)) print_message("%s is not there: nothing is tested\n", STORIES);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
