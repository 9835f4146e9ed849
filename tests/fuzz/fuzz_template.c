// SPDX-License-Identifier: MIT
/* fuzz_template.c: a chat template and the variables it is rendered with.
 * Input: the JSON text of the variables, a NUL, the template; without a NUL the template alone, for a small chat. */
#include <stdlib.h>
#include <string.h>

#include "fuzz_target.h"
#include "text/jinja.h"

static const char CHAT[] =
    "{\"messages\":[{\"role\":\"system\",\"content\":\"Be brief.\"},{\"role\":\"user\",\"content\":\"H\\u00e9llo <b> \\n\"},"
    "{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":{\"a\":1,\"b\":[2.5,"
    "true]}}}]},"
    "{\"role\":\"tool\",\"content\":[{\"type\":\"text\",\"text\":\"x\"}]}],\"tools\":[{\"type\":\"function\",\"function\":{"
    "\"name\":\"f\","
    "\"parameters\":{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"}},\"required\":[\"a\"]}}}],"
    "\"add_generation_prompt\":true,\"bos_token\":\"<s>\",\"eos_token\":\"</s>\"}";

static void expect(int condition) {
    if (!condition) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const uint8_t *zero = size ? memchr(data, 0, size) : NULL;
    const char *json = zero ? (const char *)data : CHAT, *text = zero ? (const char *)zero + 1 : (const char *)data;
    size_t json_size = zero ? (size_t)(zero - data) : sizeof CHAT - 1, text_size = zero ? size - json_size - 1 : size;
    kvant_jinja_heap *h;
    kvant_jinja_value globals;
    kvant_template *t;
    kvant_template_options options;
    kvant_error err = {0};
    kvant_status st = kvant_template_parse("fuzz", text ? text : "", text_size, &t, &err);
    if (st != KVANT_OK) {
        expect(err.message[0] != '\0' && err.status == st);
        return 0;
    }
    expect(kvant_jinja_heap_create((size_t)4 << 20, &h) == KVANT_OK);
    if (kvant_jinja_from_json(h, "variables", json, json_size, &globals, NULL) == KVANT_OK) {
        kvant_buffer out;
        kvant_buffer_init(&out, (size_t)1 << 20);
        kvant_template_options_default(&options);
        options.max_steps = 50000;
        options.max_output = (size_t)1 << 20;
        err.message[0] = '\0';
        st = kvant_template_render(t, h, &globals, &options, &out, &err);
        expect(st == KVANT_OK ? out.size <= options.max_output : err.message[0] != '\0' && out.size == 0);
        kvant_buffer_free(&out);
    }
    kvant_jinja_heap_destroy(h);
    kvant_template_destroy(t);
    return 0;
}
