#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Makes tests/golden/tokenizers_json/NAME.json: small tokenizers of many kinds, and what Hugging Face's library does with them.

Run with the package `tokenizers` (made with 0.23.3): make_tokenizer_json_golden.py FOLDER. Each file holds "tokenizer" (a
tokenizer.json), "config" (a tokenizer_config.json) and "samples": text, ids, ids_special, decoded, decoded_skip_special.
"""
import json
import os
import sys

import tokenizers
from tokenizers import Tokenizer, models, trainers

TEXTS = [
    "Hello world", " leading", "trailing ", "  two  spaces  ", "", " ", "\n", "\t\n \r\n  x", "a\u00a0b\u3000c\u2009d", "don't can't I'll we've",
    "It's 12345 o'clock, 3.14!", "Grüße – naïve café", "cafe\u0301 e\u0323\u0301 \u1100\u1161\u11a8 \u212b \ufb01 \u00bd \u2460",
    "привет мир", "你好，世界。", "日本語テスト", "emoji 🙂🚀👩\u200d👩\u200d👧", "def f(x):\n    return x**2  # ok", '{"a": [1, 2.5, null]}',
    "a<s> b", "x <mask> y", "x<mask>y", "<pad><pad> z", "tool_call", "a tool b", "atool toolb", "see  TOOL  now", "THE İSTANBUL ΣΑΣ",
    "aaaaaaaaaaaaaaaaaaaa", "▁odd▁marks", "ʻokina _under_score x_1", "100% $5 + 3 = 8 <ok> ~^|`", "\u202e\u200bzero\u200d", "a-b--c---d",
    "<0x41> is no byte", "x\x00y", "tool\ntool", "naïve\u0308\u0301\u0302", "\ufeffbom", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 ½ ① Ⅷ", "word"*9, "... !? ...", "ends <s>", "<s>",
]
# Bytes of no character become U+FFFD in both, but not the same number of them: there are no such samples.

# No token holds a NUL, which no key of the reader's JSON library may; none is an added token a second time.
CORPUS = [x for x in TEXTS if "\0" not in x and "<" not in x] + ["the world of words and the worlds of the word", "hello there world hello", "returns return returning", "Grüße naïve café"] * 6


def specials():
    return [
        {"content": "<unk>", "special": True, "normalized": False}, {"content": "<s>", "special": True, "normalized": False},
        {"content": "</s>", "special": True, "normalized": False}, {"content": "<pad>", "special": True, "normalized": False, "rstrip": True},
        {"content": "<mask>", "special": True, "normalized": False, "lstrip": True},
        {"content": "tool", "special": False, "normalized": True, "single_word": True},
        {"content": "TOOL", "special": False, "normalized": False, "lstrip": True, "rstrip": True},
    ]


def added(vocab):
    """The list for the file: ids of the vocabulary, or new ones."""
    out, new = [], max(vocab.values()) + 1
    for token in specials():
        x = {"id": vocab.get(token["content"], -1), "lstrip": False, "rstrip": False, "single_word": False}
        x.update(token)
        if x["id"] < 0:
            x["id"] = new
            new += 1
        out.append(x)
    return out


def template(vocab, before, after):
    ids = {name: {"id": name, "ids": [vocab[name]], "tokens": [name]} for name in before + after}
    single = [{"SpecialToken": {"id": n, "type_id": 0}} for n in before] + [{"Sequence": {"id": "A", "type_id": 0}}]
    single += [{"SpecialToken": {"id": n, "type_id": 0}} for n in after]
    return {"type": "TemplateProcessing", "single": single, "pair": single + [{"Sequence": {"id": "B", "type_id": 0}}], "special_tokens": ids}


def file_of(model, normalizer, pre_tokenizer, post_processor, decoder, extra):
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": extra, "normalizer": normalizer,
            "pre_tokenizer": pre_tokenizer, "post_processor": post_processor, "decoder": decoder, "model": model}


BYTES_OF_TOKENS = ["<unk>", "<s>", "</s>"] + ["<0x%02X>" % b for b in range(256)]
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
LLAMA_DECODER = {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
                                                  {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}


def shell(normalizer, pre_tokenizer):
    """A tokenizer without a model, for training one."""
    return Tokenizer.from_str(json.dumps(file_of({"type": "BPE", "vocab": {}, "merges": []}, normalizer, pre_tokenizer, None, None, [])))


def train_bpe(normalizer, pre_tokenizer, special, size, alphabet=()):
    t = shell(normalizer, pre_tokenizer)
    t.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=size, special_tokens=special, show_progress=False,
                                                      initial_alphabet=list(alphabet), limit_alphabet=90))
    return json.loads(t.to_str())["model"]


def train_unigram(normalizer, pre_tokenizer, special, size):
    t = shell(normalizer, pre_tokenizer)
    t.model = models.Unigram()
    t.train_from_iterator(CORPUS, trainers.UnigramTrainer(vocab_size=size, special_tokens=special, unk_token="<unk>", show_progress=False))
    return json.loads(t.to_str())["model"]


def byte_level(normalizer, pre_tokenizer, **changes):
    model = train_bpe(normalizer, pre_tokenizer, [], 420, tokenizers.pre_tokenizers.ByteLevel.alphabet())
    model.update(changes)
    extra = added(model["vocab"])
    ids = {x["content"]: x["id"] for x in extra}
    return file_of(model, normalizer, pre_tokenizer, template(ids, ["<s>"], []), BYTE_LEVEL, extra)


def spaced(normalizer, pre_tokenizer, decoder, fallback=True, **changes):
    model = train_bpe(normalizer, pre_tokenizer, BYTES_OF_TOKENS if fallback else BYTES_OF_TOKENS[:3], 600 if fallback else 240)
    model.update(unk_token="<unk>", fuse_unk=True, byte_fallback=fallback)
    model.update(changes)
    return file_of(model, normalizer, pre_tokenizer, template(model["vocab"], ["<s>", "<s>"], ["</s>"]), decoder, added(model["vocab"]))


def unigram(normalizer, pre_tokenizer, decoder, fallback):
    model = train_unigram(normalizer, pre_tokenizer, BYTES_OF_TOKENS if fallback else BYTES_OF_TOKENS[:3], 260 + 256 * fallback)
    model["byte_fallback"] = fallback
    vocab = {piece: i for i, (piece, _) in enumerate(model["vocab"])}
    return file_of(model, normalizer, pre_tokenizer, {"type": "BertProcessing", "sep": ["</s>", vocab["</s>"]], "cls": ["<s>", vocab["<s>"]]},
                   decoder, added(vocab))


def metaspace(scheme="always", split=True):
    return {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": split}


def sequence(key, *steps):
    return {"type": "Sequence", key: list(steps)}


def split(pattern, behavior, invert=False, kind="Regex"):
    return {"type": "Split", "pattern": {kind: pattern}, "behavior": behavior, "invert": invert}


def make():
    plain = dict(BYTE_LEVEL, use_regex=False)
    prefix = dict(BYTE_LEVEL, add_prefix_space=True)
    llama = sequence("normalizers", {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"})
    tidy = sequence("normalizers", {"type": "NFKC"}, {"type": "Lowercase"}, {"type": "Strip", "strip_left": True, "strip_right": True},
                    {"type": "Replace", "pattern": {"Regex": "[ \\t]{2,}"}, "content": " "})
    gpt4o = ("[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}&&[^\\p{Han}]]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}&&[^\\p{Han}]]+(?i:'s|'t|'re)?"
             "|[\\p{Han}]+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+")
    meta_decoder = metaspace()
    return {
        "byte_level_gpt2": byte_level(None, BYTE_LEVEL),
        "byte_level_prefix": byte_level({"type": "NFC"}, prefix),
        "byte_level_words": byte_level({"type": "NFD"}, sequence("pretokenizers", split(gpt4o, "Isolated"), plain), ignore_merges=True),
        "byte_level_pieces": byte_level(None, sequence("pretokenizers", {"type": "Digits", "individual_digits": False},
                                                       {"type": "Punctuation", "behavior": "MergedWithPrevious"},
                                                       split("\\w+", "MergedWithNext"), plain)),
        "byte_level_lines": byte_level(None, sequence("pretokenizers", split("^\\w+$", "Contiguous"), split("-", "Contiguous", kind="String"),
                                                      {"type": "Digits", "individual_digits": True}, plain)),
        "llama_old": spaced(llama, None, LLAMA_DECODER),
        "llama_new": spaced(None, metaspace("first", False), LLAMA_DECODER),
        "gemma": spaced({"type": "Replace", "pattern": {"String": " "}, "content": "▁"}, split(" ", "MergedWithPrevious", kind="String"),
                        sequence("decoders", {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"})),
        "unknown_fused": spaced({"type": "NFKD"}, metaspace(), meta_decoder, fallback=False),
        "unknown_single": spaced(None, metaspace("never"), metaspace("never"), fallback=False, fuse_unk=False),
        "unknown_lost": spaced(tidy, {"type": "Whitespace"}, None, fallback=False, unk_token=None),
        "removed": spaced(None, sequence("pretokenizers", {"type": "WhitespaceSplit"}, split("[aeiou]", "Removed", True),
                                         {"type": "Punctuation", "behavior": "Contiguous"}), None, fallback=False),
        "unigram": unigram(sequence("normalizers", {"type": "NFKC"}, {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}),
                           metaspace(), meta_decoder, False),
        "unigram_bytes": unigram(None, metaspace("first"), LLAMA_DECODER, True),
        "unigram_whole": unigram(llama, None, LLAMA_DECODER, True),
    }


def main(folder):
    os.makedirs(folder, exist_ok=True)
    for name, file in make().items():
        t = Tokenizer.from_str(json.dumps(file))
        samples = []
        for text in TEXTS:
            ids = t.encode(text, add_special_tokens=False).ids
            samples.append({"text": text, "ids": ids, "ids_special": t.encode(text).ids, "decoded": t.decode(ids, skip_special_tokens=False),
                            "decoded_skip_special": t.decode(ids)})
        with open(os.path.join(folder, name + ".json"), "w", encoding="utf-8") as out:
            head = json.dumps({"tokenizer": file, "config": {}}, ensure_ascii=True, separators=(",", ":"))
            out.write(head[:-1] + ',"samples":[\n')
            out.write(",\n".join(json.dumps(x, separators=(",", ":")) for x in samples) + "\n]}\n")


if __name__ == "__main__":
    main(sys.argv[1])
