// SPDX-License-Identifier: MIT
/* answer.c: answers one prompt through the engine, with a 4-bit key/value cache.
 *
 * usage: answer MODEL.gguf "a question" */
#include <stdio.h>
#include <string.h>

#include <kvant/engine.h>

static int report(const char *what, const kvant_error *err) {
    fprintf(stderr, "%s: %s\n", what, err->message);
    return 1;
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: answer MODEL.gguf \"a question\"\n");
        return 2;
    }
    kvant_error err = {0};
    kvant_load_params load;
    kvant_load_params_default(&load);
    load.kv.kv_bits = 4;
    kvant_model *model = NULL;
    if (kvant_model_open(argv[1], &load, &model, &err) != KVANT_OK) return report("open", &err);

    kvant_message question = {"user", argv[2]};
    char *prompt = NULL;
    int32_t *ids = NULL;
    int n = 0;
    if (kvant_chat_prompt(model, NULL, &question, 1, &prompt, &err) != KVANT_OK) return report("prompt", &err);
    if (kvant_tokenize(model, prompt, strlen(prompt), true, true, &ids, &n, &err) != KVANT_OK) return report("tokenize", &err);

    kvant_session_params params;
    kvant_session_params_default(&params);
    kvant_session *session = NULL;
    kvant_text_stream *stream = NULL;
    if (kvant_session_create(model, &params, &session, &err) != KVANT_OK) return report("session", &err);
    if (kvant_text_stream_create(model, false, &stream) != KVANT_OK) return 1;
    if (kvant_session_prefill(session, ids, n, NULL, NULL, &err) != KVANT_OK) return report("prefill", &err);

    kvant_sampler_params greedy;
    kvant_sampler_params_default(&greedy);
    kvant_model_info info;
    kvant_model_get_info(model, &info);
    kvant_sampler *sampler = NULL;
    if (kvant_sampler_create(&greedy, info.n_vocab, &sampler, &err) != KVANT_OK) return report("sampler", &err);
    for (int i = 0; i < 200; i++) {
        int32_t id = kvant_sampler_next(sampler, kvant_session_logits(session));
        const char *text;
        size_t size;
        if (kvant_token_is_end(model, id) || kvant_text_stream_push(stream, id, &text, &size) != KVANT_OK) break;
        fwrite(text, 1, size, stdout);
        fflush(stdout);
        if (kvant_session_decode(session, id, &err) != KVANT_OK) break;
    }
    printf("\n[%zu bytes of cache for %d tokens]\n", kvant_session_cache_bytes(session), (int)kvant_session_length(session));
    return 0; /* the system takes back what is left; a longer-lived program destroys in reverse order */
}
