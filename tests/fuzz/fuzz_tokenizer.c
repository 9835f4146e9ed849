// SPDX-License-Identifier: MIT
/* fuzz_tokenizer.c: a vocabulary made from bytes, and a text to encode with it.
 *
 * Input: 8 bytes of settings, then tokens (size, type, score, bytes), then merges (size, bytes), then the text; see read_input.
 * Sizes are single bytes so that a mutation moves borders instead of breaking the whole. */
#include <string.h>

#include "exercise_tokenizer.h"
#include "fuzz_target.h"

#define MAX_TOKENS 300
#define MAX_MERGES 100

static const char *const models[] = {"gpt2", "llama", "gemma4", "t5", "bert", "nonsense", "plamo2", "rwkv"};
static const char *const pres[] = {NULL,     "default", "llama-bpe", "qwen2",  "gpt-2", "starcoder", "deepseek-llm", "falcon",
                                   "gpt-4o", "tekken",  "gemma4",    "smollm", "bloom", "kimi-k2",   "nonsense",     ""};

typedef struct piece {
    const uint8_t *data;
    size_t size;
    int type;
    float score;
} piece;

typedef struct input {
    piece tokens[MAX_TOKENS], merges[MAX_MERGES];
    int n_token, n_merge;
} input;

static const char *token_at(void *user, int id, size_t *size) {
    const input *in = user;
    *size = in->tokens[id].size;
    return (const char *)in->tokens[id].data;
}
static float score_at(void *user, int id) { return ((const input *)user)->tokens[id].score; }
static int type_at(void *user, int id) { return ((const input *)user)->tokens[id].type; }
static const char *merge_at(void *user, int index, size_t *size) {
    const input *in = user;
    *size = in->merges[index].size;
    return (const char *)in->merges[index].data;
}

/* A small number, or one of those that break things. */
static int odd_id(uint8_t b) { return b == 255 ? -1 : b == 254 ? INT32_MAX : b == 253 ? INT32_MIN : b; }

static size_t read_piece(const uint8_t *data, size_t size, size_t at, piece *p) {
    size_t n = data[at++];
    if (n > size - at) n = size - at;
    p->data = data + at;
    p->size = n;
    return at + n;
}

static size_t read_tokens(const uint8_t *data, size_t size, size_t at, int n, input *in) {
    for (in->n_token = 0; in->n_token < n && size - at >= 3; in->n_token++) {
        piece *p = &in->tokens[in->n_token];
        p->type = (int8_t)data[at];
        p->score = data[at + 1] == 255 ? (float)1e38 * 10 : data[at + 1] == 254 ? (float)1e38 * 10 * 0 : -(float)data[at + 1] / 8;
        at = read_piece(data, size, at + 2, p);
    }
    return at;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static input in;
    if (size < 9) return 0;
    size_t at = read_tokens(data, size, 9, data[0], &in);
    for (in.n_merge = 0; in.n_merge < data[1] && in.n_merge < MAX_MERGES && at < size; in.n_merge++)
        at = read_piece(data, size, at, &in.merges[in.n_merge]);
    uint8_t flags = data[3];
    kvant_vocab_source source = {
        .name = "fuzz.gguf",
        .model = models[data[2] % (sizeof models / sizeof *models)],
        .pre = pres[(data[2] >> 3) % (sizeof pres / sizeof *pres)],
        .n_token = in.n_token,
        .user = &in,
        .token = token_at,
        .score = flags & 1 ? NULL : score_at,
        .type = flags & 2 ? NULL : type_at,
        .n_merge = in.n_merge,
        .merge = merge_at,
        .bos_id = odd_id(data[4]),
        .eos_id = odd_id(data[5]),
        .eot_id = odd_id(data[6]),
        .unk_id = odd_id(data[7]),
        .add_bos = flags >> 2 & 1,
        .add_eos = (flags >> 3 & 1) - (flags >> 4 & 1),
        .add_space_prefix = (flags >> 5 & 1) - (flags >> 6 & 1),
    };
    kvant_tokenizer *t;
    kvant_error err = {0};
    if (kvant_tokenizer_create(&source, &t, &err) != KVANT_OK) {
        expect(err.message[0] != '\0');
        return 0;
    }
    exercise_tokenizer(t, (const char *)data + at, size - at);
    kvant_tokenizer_destroy(t);
    return 0;
}
