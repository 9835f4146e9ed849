// SPDX-License-Identifier: MIT
/* pretokenizer_table.c: the pre-tokenizers by the names that GGUF files use.
 *
 * The expressions are those of the models' own tokenizer files, with \s meaning Unicode white space (pretokenizer.c sees to
 * that). Where an expression of theirs takes time that grows with the square of a text (a look ahead over a run of digits, white
 * space at the end), an equal one that does not stands here. Several names share a row when they differ in nothing that matters
 * here. */
#include "text/pretokenizer.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* ---- the expressions that recur ---- */

#define CONTRACTION "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
#define WORD "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+"
#define SPACES "\\s+(?!\\S)|\\s+"
#define LINES_AND_SPACES "\\s*[\\r\\n]+|" SPACES
#define SYMBOLS " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"

/* Not inside a run of white space: who fails to find its last newline there need not look again. */
#define NOT_AFTER_BLANK \
    "(?<![\\t\\x0B\\x0C \\x85\\xA0\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{3000}])"

#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)"
#define CL100K(digits) CONTRACTION "|" WORD "|" digits "|" SYMBOLS "|" LINES_AND_SPACES

/* Words whose capitals begin a new one. */
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define CASED_WORDS(upper, lower, suffix) \
    "[^\\r\\n\\p{L}\\p{N}]?" upper "*" lower "+" suffix "|[^\\r\\n\\p{L}\\p{N}]?" upper "+" lower "*" suffix
#define SYMBOLS_AND_SLASH " ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*"
#define O200K CASED_WORDS(UPPER, LOWER, CONTRACTION "?") "|\\p{N}{1,3}|" SYMBOLS_AND_SLASH "|" LINES_AND_SPACES

/* The same two sets without Han characters: all that is left when everything else is excluded. */
#define UPPER_NO_HAN "[^\\p{Han}\\p{Ll}\\p{N}\\p{P}\\p{S}\\p{Z}\\p{C}]"
#define LOWER_NO_HAN "[^\\p{Han}\\p{Lu}\\p{Lt}\\p{N}\\p{P}\\p{S}\\p{Z}\\p{C}]"

#define ASCII_SYMBOL_WORD "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+"
#define DEEPSEEK3_WORDS ASCII_SYMBOL_WORD "|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
#define DEEPSEEK3_MAIN DEEPSEEK3_WORDS "| ?[\\p{P}\\p{S}]+[\\r\\n]*|" LINES_AND_SPACES
#define CJK_AND_KANA "[\\x{4E00}-\\x{9FA5}\\x{3040}-\\x{309F}\\x{30A0}-\\x{30FF}]+"
#define CJK_AND_HANGUL "[\\x{4E00}-\\x{9FA5}\\x{0800}-\\x{4E00}\\x{AC00}-\\x{D7FF}]+"

/* Letters of the bicameral scripts, as DeepSeek LLM lists them. */
#define DEEPSEEK_LETTERS \
    "A-Za-z\\xB5\\xC0-\\xD6\\xD8-\\xF6\\xF8-\\x{1BA}\\x{1BC}-\\x{1BF}\\x{1C4}-\\x{293}\\x{295}-\\x{2AF}\\x{370}-\\x{373}" \
    "\\x{376}\\x{377}\\x{37B}-\\x{37D}\\x{37F}\\x{386}\\x{388}-\\x{38A}\\x{38C}\\x{38E}-\\x{3A1}\\x{3A3}-\\x{3F5}" \
    "\\x{3F7}-\\x{481}\\x{48A}-\\x{52F}\\x{531}-\\x{556}\\x{10A0}-\\x{10C5}\\x{13A0}-\\x{13F5}\\x{13F8}-\\x{13FD}" \
    "\\x{1C90}-\\x{1CBA}\\x{1CBD}-\\x{1CBF}\\x{1D00}-\\x{1D2B}\\x{1D6B}-\\x{1D77}\\x{1D79}-\\x{1D9A}\\x{1E00}-\\x{1F15}" \
    "\\x{1F18}-\\x{1F1D}\\x{1F20}-\\x{1F45}\\x{1F48}-\\x{1F4D}\\x{1F50}-\\x{1F57}\\x{1F59}\\x{1F5B}\\x{1F5D}" \
    "\\x{1F5F}-\\x{1F7D}\\x{1F80}-\\x{1FB4}\\x{1FB6}-\\x{1FBC}\\x{1FBE}\\x{1FC2}-\\x{1FC4}\\x{1FC6}-\\x{1FCC}" \
    "\\x{1FD0}-\\x{1FD3}\\x{1FD6}-\\x{1FDB}\\x{1FE0}-\\x{1FEC}\\x{1FF2}-\\x{1FF4}\\x{1FF6}-\\x{1FFC}\\x{2102}\\x{2107}" \
    "\\x{210A}-\\x{2113}\\x{2115}\\x{2119}-\\x{211D}\\x{2124}\\x{2126}\\x{2128}\\x{212A}-\\x{212D}\\x{212F}-\\x{2134}" \
    "\\x{2139}\\x{213C}-\\x{213F}\\x{2145}-\\x{2149}\\x{214E}\\x{2183}\\x{2184}\\x{2C00}-\\x{2C7B}\\x{2C7E}-\\x{2CE4}" \
    "\\x{2CEB}-\\x{2CEE}\\x{2CF2}\\x{2CF3}\\x{A640}-\\x{A66D}\\x{A680}-\\x{A69B}\\x{A722}-\\x{A76F}\\x{A771}-\\x{A787}" \
    "\\x{A78B}-\\x{A78E}\\x{AB70}-\\x{ABBF}\\x{FB00}-\\x{FB06}\\x{FB13}-\\x{FB17}\\x{FF21}-\\x{FF3A}\\x{FF41}-\\x{FF5A}" \
    "\\x{10400}-\\x{1044F}\\x{104B0}-\\x{104D3}\\x{104D8}-\\x{104FB}\\x{10C80}-\\x{10CB2}\\x{10CC0}-\\x{10CF2}" \
    "\\x{118A0}-\\x{118DF}\\x{1E900}-\\x{1E943}"
#define DEEPSEEK_PUNCTUATION "!-/:-~\\x{FF01}-\\x{FF0F}\\x{FF1A}-\\x{FF5E}\\x{2018}-\\x{201F}\\x{3000}-\\x{3002}"

/* . , ! ? ellipsis, ideographic stop and comma, danda, Arabic stop and comma */
#define BLOOM " ?[^(\\s|.,!?\\x{2026}\\x{3002}\\x{FF0C}\\x{3001}\\x{0964}\\x{06D4}\\x{060C})]+"

#define AFMOE_CJK \
    "[\\x{4E00}-\\x{9FFF}\\x{3400}-\\x{4DBF}\\x{F900}-\\x{FAFF}\\x{3040}-\\x{309F}\\x{30A0}-\\x{30FF}\\x{FF65}-\\x{FF9F}" \
    "\\x{2F00}-\\x{2FDF}\\x{0E40}-\\x{0E7F}\\x{0E80}-\\x{0EFF}\\x{1780}-\\x{17FF}\\x{1000}-\\x{109F}\\x{AA60}-\\x{AA7F}" \
    "\\x{A9E0}-\\x{A9FF}\\x{AC00}-\\x{D7AF}\\x{1100}-\\x{11FF}]+"

#define YOUTU_SCRIPTS \
    "[\\x{AC00}-\\x{D7A3}\\x{3131}-\\x{318E}]+" \
    "|[\\x{FF01}\\x{2026}\\x{201C}\\x{201D}\\x{2018}\\x{2019}\\x{2014}\\x{FF1A}\\x{FF1B}\\x{FF0C}\\x{3001}-\\x{303F}" \
    "\\x{FE30}-\\x{FE4F}]+|[\\x{3105}-\\x{312F}]+|" CJK_AND_KANA

/* ---- the table ---- */

const kvant_pretokenizer kvant_pretokenizers[] = {
    {.names = {"default"}, .expressions = {"[\\p{P}\\$\\+<=>\\^~\\|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]"}},
    {.names = {"llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano"},
     .expressions = {CL100K("\\p{N}{1,3}")},
     .ignore_merges = true,
     .add_bos = true},
    {.names = {"dbrx", "smaug-bpe", "glm4", "chatglm-bpe"}, .expressions = {CL100K("\\p{N}{1,3}")}},
    {.names = {"minicpm5"}, .expressions = {"\\p{N}{1,3}", CL100K("\\p{N}+")}, .ignore_merges = true},
    {.names = {"jais-2"},
     .expressions =
         {CONTRACTION
          "|" WORD "|\\p{N}{1,3}|" SYMBOLS "|" NOT_AFTER_BLANK "\\s*[\\r\\n]+|\\s{512}(?!\\S)|\\s{256}(?!\\S)"
          "|\\s{128}(?!\\S)|\\s{64}(?!\\S)|\\s{32}(?!\\S)|\\s{16}(?!\\S)|\\s{8}(?!\\S)|\\s{4}(?!\\S)|\\s{1,2}(?!\\S)|\\s{1}"}},
    {.names = {"qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez", "stablelm2", "hunyuan", "solar-open", "grok-2"},
     .expressions = {CL100K("\\p{N}")}},
    {.names = {"qwen35"},
     .expressions = {CONTRACTION
                     "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|" LINES_AND_SPACES}},
    {.names = {"ufakzeka"}, .expressions = {WORD "|\\p{N}|" SYMBOLS "|" LINES_AND_SPACES}},
    {.names = {"laguna"}, .expressions = {"[^\\n]+|[\\n]+", CL100K("\\p{N}")}},
    {.names = {"seed-coder"}, .expressions = {CONTRACTION "|" WORD "|\\p{N}| ?[^\\s\\p{L}\\p{N}\\r\\n]+|" LINES_AND_SPACES}},
    {.names = {"bailingmoe", "bailingmoe2", "llada-moe"},
     .expressions = {"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|" WORD "|\\p{N}|" SYMBOLS "|\\s*[\\r\\n]|" SPACES}},
    {.names = {"exaone-moe"},
     .expressions = {CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?(?:\\p{L}\\p{M}*+(?: \\p{L}\\p{M}*+)*+)++|\\p{N}"
                                 "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]?|\\s*[\\r\\n]|" SPACES}},
    {.names = {"gpt-2", "phi-2", "jina-es", "jina-de", "gigachat", "jina-v2-es", "jina-v2-de", "a.x-4.0", "mellum", "modern-bert",
               "exaone4"},
     .expressions = {GPT2}},
    {.names = {"mpt", "olmo", "jais", "trillion", "granite-docling", "jina-v1-en", "jina-v2-code", "roberta-bpe"},
     .expressions = {GPT2}},
    {.names = {"starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b", "mellum2"},
     .expressions = {"\\p{N}", GPT2}},
    {.names = {"falcon"}, .expressions = {"[\\p{P}\\$\\+<=>\\^~\\|`]+", GPT2, "[0-9][0-9][0-9]"}},
    {.names = {"deepseek-llm"},
     .expressions = {"[\\r\\n]", "\\s?[" DEEPSEEK_LETTERS "]+", "\\s?[" DEEPSEEK_PUNCTUATION "]+", "(?<!\\s)\\s++\\z",
                     CJK_AND_HANGUL, "\\p{N}+"}},
    {.names = {"deepseek-coder"}, .expressions = {"[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", CJK_AND_HANGUL, "\\p{N}"}},
    {.names = {"deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"},
     .expressions = {"\\p{N}{1,3}", CJK_AND_KANA, DEEPSEEK3_MAIN}},
    {.names = {"spark2_5"},
     .expressions = {"\\p{N}{1,3}", CJK_AND_KANA, DEEPSEEK3_WORDS "| ?[\\p{P}\\p{S}]+|[\\r\\n]|" SPACES, "\\p{N}"}},
    {.names = {"afmoe"}, .expressions = {"\\p{N}+", KVANT_DIGITS_IN_THREES, AFMOE_CJK, DEEPSEEK3_MAIN}},
    {.names = {"youtu"},
     .expressions = {YOUTU_SCRIPTS, CASED_WORDS(UPPER, LOWER, CONTRACTION "?") "|\\p{N}|" SYMBOLS_AND_SLASH "|" LINES_AND_SPACES},
     .ignore_merges = true},
    {.names = {"gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"}, .expressions = {O200K}},
    {.names = {"granite-embed-multi-97m"}, .expressions = {O200K}, .ignore_merges = true},
    /* Threes are counted back from the end of a number, unless a letter or _ follows it. */
    {.names = {"tiny_aya", "cohere2moe"}, .expressions = {"(?<!\\d)\\d++\\b", KVANT_DIGITS_IN_THREES, O200K}},
    {.names = {"tekken"},
     .expressions = {CASED_WORDS(UPPER, LOWER, "") "|\\p{N}|" SYMBOLS_AND_SLASH "|" LINES_AND_SPACES},
     .ignore_merges = true,
     .add_bos = true},
    {.names = {"kimi-k2"},
     .expressions = {"\\p{Han}+|" CASED_WORDS(UPPER_NO_HAN, LOWER_NO_HAN, CONTRACTION "?") "|\\p{N}{1,3}|" SYMBOLS
                                                                                           "|" LINES_AND_SPACES}},
    {.names = {"poro-chat", "bloom", "gpt3-finnish"}, .expressions = {BLOOM}},
    {.names = {"viking"}, .expressions = {BLOOM, "\\p{N}"}},
    {.names = {"chameleon"},
     .expressions = {"<sentinel:[0-9]+>", "IMGIMG[A-I]{1,4}Z", "[\\t\\n]|    |  ", "\\p{N}", "[\\p{P}!-/:-@\\[-`{-~]", GPT2},
     .add_bos = true},
    {.names = {"superbpe"}, .expressions = {"\\p{N}+", KVANT_DIGITS_IN_THREES}},
    {.names = {"gemma4", "granite-embed-multi-311m"},
     .expressions = {"[^\\n]+|[\\n]+"},
     .add_bos = true,
     .raw = true,
     .visible_spaces = true,
     .newline_runs = true},
    {.names = {"sarvam-moe"}, .expressions = {"[^\\n]+|[\\n]+"}, .raw = true, .visible_spaces = true},
    {.names = {"whitespace"}, .expressions = {"\\S+"}, .raw = true},
};
const int kvant_n_pretokenizers = (int)(sizeof kvant_pretokenizers / sizeof *kvant_pretokenizers);

/* ---- looking up ---- */

const kvant_pretokenizer *kvant_pretokenizer_find(const char *name) {
    for (int i = 0; i < kvant_n_pretokenizers; i++)
        for (const char *const *n = kvant_pretokenizers[i].names; *n; n++)
            if (strcmp(*n, name) == 0) return &kvant_pretokenizers[i];
    return NULL;
}

#define MAX_NAME 32

/* Levenshtein's distance, of the first MAX_NAME bytes. */
static int name_distance(const char *a, const char *b) {
    int row[MAX_NAME + 1], n_b = strlen(b) < MAX_NAME ? (int)strlen(b) : MAX_NAME;
    for (int j = 0; j <= n_b; j++) row[j] = j;
    for (int i = 1; i <= MAX_NAME && a[i - 1]; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= n_b; j++) {
            int change = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            int gap = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
            row[j] = change < gap ? change : gap;
        }
    }
    return row[n_b];
}

void kvant_pretokenizer_nearest(const char *name, char *out, size_t size) {
    const char *best[3] = {NULL, NULL, NULL};
    int distance[3] = {INT32_MAX, INT32_MAX, INT32_MAX};
    for (int i = 0; i < kvant_n_pretokenizers; i++) {
        for (const char *const *n = kvant_pretokenizers[i].names; *n; n++) {
            int d = name_distance(name, *n), at = 3;
            while (at > 0 && d < distance[at - 1]) at--;
            for (int k = 2; k > at; k--) {
                best[k] = best[k - 1];
                distance[k] = distance[k - 1];
            }
            if (at < 3) {
                best[at] = *n;
                distance[at] = d;
            }
        }
    }
    snprintf(out, size, "'%s', '%s' or '%s'", best[0], best[1], best[2]);
}
