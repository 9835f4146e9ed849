#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Renders chats with jinja2 and writes what the families of src/text/chat_template.c must give for them.

    python3 scripts/make_chat_golden.py TEMPLATES > tests/golden/chat/cases.json

TEMPLATES is a folder of NAME.jinja files, or GGUF files' chat templates saved so. A family writes what is common to the templates
of its models: what one of them adds is no case of it, which the table below tells.
"""
import json
import pathlib
import sys

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

CHATS = {
    "question": [("user", "Hello")],
    "system": [("system", "You are a helpful assistant"), ("user", "Hello")],
    "turns": [("user", "Hello"), ("assistant", "Hi there"), ("user", "Who are you?"), ("assistant", "I am an assistant."),
              ("user", "Another\n\nquestion, 'quoted' <b>")],
    "system and turns": [("system", "Be brief."), ("user", "1 + 1?"), ("assistant", "2"), ("user", "Überprüfe 日本語 🙂")],
    "spaces": [("user", "  spaces around \n"), ("assistant", " and  here "), ("user", "end ")],
    "thinking": [("user", "Why?"), ("assistant", "<think>\nhm\n</think>\n\nBecause."), ("user", "Oh.")],
}


# Of these a template does something of its own.
SYSTEM = {"question", "turns", "spaces", "thinking"}  # writes a system message when there is none
THOUGHTS = {"thinking"}  # drops the thoughts of earlier answers
LAST = {"system and turns"}  # puts the system message into the last question
ANSWERS = {"turns", "system and turns", "spaces", "thinking"}  # marks that answers were not thought about

# template: its family, and the chats that are no cases
FAMILIES = {
    "deepseek-v2": ("deepseek2", set()), "deepseek-v3": ("deepseek3", THOUGHTS), "gemma-3-it": ("gemma", set()),
    "gemma-7b-it": ("gemma", set()), "glm-4.5": ("glm4", ANSWERS), "gpt-oss": ("gpt-oss", set()),
    "granite-3.0": ("granite", set()), "llama-2-chat": ("llama2", set()), "llama-3": ("llama3", set()),
    "mistral-7b-v0.2": ("mistral", set()), "mistral-v1": ("mistral-v1", set()), "mistral-v3": ("mistral-v3", LAST),
    "mistral-v3-tekken": ("mistral-v3-tekken", LAST), "mistral-v7": ("mistral-v7", set()),
    "mistral-v7-tekken": ("mistral-v7-tekken", set()), "mlx-gemma3_text-bf16": ("gemma", set()),
    "mlx-llama-f16": ("llama3", set()), "mlx-mixtral-q4g64-2shards": ("phi3", set()), "mlx-phi3-f16": ("phi3", set()),
    "mlx-qwen2-bf16": ("chatml", SYSTEM), "mlx-qwen3_moe-mixedq": ("chatml", SYSTEM), "phi-3-mini": ("phi3", set()),
    "phi-3-small": ("phi3", set()), "phi-4": ("phi4", set()), "qwen2": ("chatml", SYSTEM), "qwen2.5": ("chatml", SYSTEM),
    "qwen3": ("chatml", THOUGHTS), "smollm2": ("chatml", SYSTEM),
}


def main():
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)

    def refuse(message):
        raise jinja2.TemplateError(message)

    env.globals["raise_exception"] = refuse
    cases = []
    for path in sorted(pathlib.Path(sys.argv[1]).glob("*.jinja")):
        text = path.read_text(encoding="utf-8")
        if path.stem not in FAMILIES:
            continue
        family, others = FAMILIES[path.stem]
        eos = "<｜end▁of▁sentence｜>" if "deepseek" in path.stem else "</s>"
        for name, chat in CHATS.items():
            if name in others:
                continue
            messages = [{"role": role, "content": content} for role, content in chat]
            try:
                out = env.from_string(text).render(messages=messages, add_generation_prompt=True, bos_token="<s>", eos_token=eos)
            except jinja2.TemplateError:
                continue  # a template that refuses this chat
            if any(m["content"].strip() not in out for m in messages if m["role"] == "system"):
                continue  # a template that forgets system messages
            cases.append({"template": path.stem, "family": family, "chat": name, "messages": messages,
                          "expected": out.removeprefix("<s>")})
    json.dump(cases, sys.stdout, ensure_ascii=False, indent=1)
    print()


if __name__ == "__main__":
    main()
