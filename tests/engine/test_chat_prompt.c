// SPDX-License-Identifier: MIT
/* test_chat_prompt.c: prompts by the templates that model files carry, from the model to the token ids. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "kvant/engine.h"

#define TOOLS                                                                                                                    \
    "[{\"type\":\"function\",\"function\":{\"name\":\"add\",\"description\":\"Adds.\",\"parameters\":{\"type\":\"object\","      \
    "\"properties\":{\"a\":{\"type\":\"number\",\"description\":\"one\"}},\"required\":[\"a\"]}}}]"

/* A model of the test data by its vocabulary alone; skips when it is absent. */
static kvant_model *open_vocabulary(const char *name) {
    char path[512];
    kvant_load_params params;
    kvant_model *m = NULL;
    kvant_error err = {0};
    snprintf(path, sizeof path, KVANT_DATA "/tokenizers/ggml-vocab-%s.gguf", name);
    FILE *f = fopen(path, "rb");
    if (!f) {
        print_message("skipped: %s is absent\n", path);
        skip();
    }
    fclose(f);
    kvant_load_params_default(&params);
    params.vocab_only = true;
    if (kvant_model_open(path, &params, &m, &err) != KVANT_OK) fail_msg("%s", err.message);
    return m;
}

static void check_prompt(const kvant_model *m, const char *family, const kvant_message *messages, int n, const char *expected) {
    char *text;
    kvant_error err = {0};
    if (kvant_chat_prompt(m, family, messages, n, &text, &err) != KVANT_OK) fail_msg("%s", err.message);
    assert_string_equal(text, expected);
    kvant_string_free(text);
}

static void check_json(const kvant_model *m, const char *messages, const kvant_chat_options *options, const char *expected) {
    char *text;
    kvant_error err = {0};
    if (kvant_chat_prompt_json(m, messages, options, &text, &err) != KVANT_OK) fail_msg("%s", err.message);
    assert_string_equal(text, expected);
    kvant_string_free(text);
}

static void check_refusal(const kvant_model *m, const char *messages, const kvant_chat_options *options, kvant_status st,
                          const char *part) {
    char *text;
    kvant_error err = {0};
    assert_int_equal(kvant_chat_prompt_json(m, messages, options, &text, &err), st);
    if (!strstr(err.message, part)) fail_msg("found: %s\nexpected in it: %s", err.message, part);
}

static int count_bos(const kvant_model *m, const char *text, const char *bos) {
    int32_t *ids, *one;
    int n, n_one, count = 0;
    assert_int_equal(kvant_tokenize(m, bos, strlen(bos), false, true, &one, &n_one, NULL), KVANT_OK);
    assert_int_equal(n_one, 1);
    assert_int_equal(kvant_tokenize(m, text, strlen(text), true, true, &ids, &n, NULL), KVANT_OK);
    for (int i = 0; i < n; i++)
        count += ids[i] == one[0];
    kvant_ids_free(ids);
    kvant_ids_free(one);
    return count;
}

static void the_files_own_template_writes_the_prompt(void **state) {
    (void)state;
    const kvant_message question[] = {{"user", "Hi \"you\"\n"}};
    const kvant_message turns[] = {{"system", "S"}, {"user", "u"}, {"assistant", "a"}, {"user", "Ü 日本"}};
    kvant_model *m = open_vocabulary("qwen2");
    check_prompt(m, NULL, question, 1,
                 "<|im_start|>system\nYou are a helpful assistant<|im_end|>\n<|im_start|>user\nHi \"you\"\n<|im_end|>\n"
                 "<|im_start|>assistant\n");
    check_prompt(m, NULL, turns, 4,
                 "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nu<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n"
                 "<|im_start|>user\nÜ 日本<|im_end|>\n<|im_start|>assistant\n");
    kvant_model_close(m);
}

static void a_family_by_name_overrides_the_file(void **state) {
    (void)state;
    const kvant_message question[] = {{"user", "Hi"}};
    kvant_model *m = open_vocabulary("qwen2");
    const kvant_chat_options llama3 = {.family = "llama3"};
    check_prompt(m, "chatml", question, 1, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
    check_json(m, "[{\"role\":\"user\",\"content\":\"Hi\"}]", &llama3,
               "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n");
    kvant_model_close(m);
}

static void one_bos_begins_the_tokens(void **state) {
    (void)state;
    static const struct { const char *name, *bos; } FILES[] = {{"phi-3", "<s>"}, {"gemma-4", "<bos>"}};
    for (size_t i = 0; i < 2; i++) {
        char *text;
        kvant_model *m = open_vocabulary(FILES[i].name);
        const kvant_message question[] = {{"user", "Hi"}};
        assert_int_equal(kvant_chat_prompt(m, NULL, question, 1, &text, NULL), KVANT_OK);
        print_message("%s: %s\n", FILES[i].name, text);
        assert_int_equal(count_bos(m, text, FILES[i].bos), 1);
        kvant_string_free(text);
        kvant_model_close(m);
    }
}

static void tools_variables_and_parts_reach_the_template(void **state) {
    (void)state;
    kvant_model *m = open_vocabulary("gemma-4");
    const kvant_chat_options tools = {.tools = TOOLS, .variables = "{\"enable_thinking\": true}"};
    const kvant_chat_options closed = {.without_generation_prompt = true};
    check_json(m, "[{\"role\":\"user\",\"content\":\" x \"}]", &tools,
               "<|turn>system\n<|think|><|tool>declaration:add{description:<|\"|>Adds.<|\"|>,parameters:{properties:{a:{"
               "description:<|\"|>one<|\"|>,"
               "type:<|\"|>NUMBER<|\"|>}},required:[<|\"|>a<|\"|>],type:<|\"|>OBJECT<|\"|>}}<tool|><turn|>\n<|turn>user\nx<turn|>"
               "\n<|turn>model\n");
    check_json(m,
               "[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"What \"},{\"type\":\"image\"}]},"
               "{\"role\":\"assistant\",\"content\":\"<|channel>hm<channel|>Yes\"}]",
               &closed, "<|turn>user\nWhat\n\n<|image|>\n\n<turn|>\n<|turn>model\nYes<turn|>\n");
    kvant_model_close(m);
}

static void what_is_no_chat_is_refused_by_name(void **state) {
    (void)state;
    char *text;
    kvant_error err = {0};
    kvant_model *m = open_vocabulary("qwen2");
    const kvant_chat_options family_with_tools = {.family = "chatml", .tools = "[]"}, wrong_tools = {.tools = "{}"},
                             no_family = {.family = "nonsense"}, wrong_variables = {.variables = "[]"},
                             broken = {.variables = "{"};
    const char *good = "[{\"role\":\"user\",\"content\":\"x\"}]";
    check_refusal(m, "[", NULL, KVANT_EINVAL, "messages of a chat: line 1");
    check_refusal(m, "[]", NULL, KVANT_EINVAL, "no message");
    check_refusal(m, "{}", NULL, KVANT_EINVAL, "an array");
    check_refusal(m, "[{\"role\":\"user\"}]", NULL, KVANT_EFORMAT, "\"content\" undefined");
    check_refusal(m, good, &family_with_tools, KVANT_EUNSUPPORTED, "tools");
    check_refusal(m, good, &wrong_tools, KVANT_EINVAL, "tools of a chat");
    check_refusal(m, good, &no_family, KVANT_EUNSUPPORTED, "nonsense");
    check_refusal(m, good, &wrong_variables, KVANT_EINVAL, "variables of a chat");
    check_refusal(m, good, &broken, KVANT_EINVAL, "variables of a chat: line 1");
    check_refusal(m, "[{\"role\":\"user\",\"content\":\"a\\u0000b\"}]", NULL, KVANT_EFORMAT, "NUL");
    const kvant_message nothing[] = {{"user", NULL}};
    assert_int_equal(kvant_chat_prompt(m, NULL, nothing, 1, &text, &err), KVANT_EINVAL);
    assert_int_equal(kvant_chat_prompt(m, NULL, nothing, 0, &text, &err), KVANT_EINVAL);
    kvant_model_close(m);
    m = open_vocabulary("llama-bpe"); /* has no template */
    check_refusal(m, good, NULL, KVANT_EUNSUPPORTED, "holds no chat template");
    kvant_model_close(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_files_own_template_writes_the_prompt),
        cmocka_unit_test(a_family_by_name_overrides_the_file),
        cmocka_unit_test(one_bos_begins_the_tokens),
        cmocka_unit_test(tools_variables_and_parts_reach_the_template),
        cmocka_unit_test(what_is_no_chat_is_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
