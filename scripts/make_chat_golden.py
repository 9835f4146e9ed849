#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Renders chats with jinja2 and writes what src/text/chat_template.c must give for them.

    python3 scripts/make_chat_golden.py TEMPLATES > tests/golden/chat/cases.json

TEMPLATES is a folder of NAME.jinja files, or GGUF files' chat templates saved so. Of a template only an excerpt goes into the
result: the marks by which families and their variants are told, and its own system message. Templates that write today's date do
not belong there, since Kvant leaves it out.
"""
import json
import pathlib
import re
import sys

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

MARKS = [
    "<|im_start|>assistant\\n<think>\\n' }}", "<|im_start|>", "<|im_sep|>", "split('</think>')", "split('</think>'",
    "Reasoning Mode: ", " [INST] ", "\"[INST]\"", "[INST] ", "[INST]", "[SYSTEM_PROMPT] ", "[SYSTEM_PROMPT]",
    "[AVAILABLE_TOOLS]", "loop.last and system_message", "{{ ' ' + m", "['content'] + '\n\n'", "eos_token + ' '", "<<SYS>>",
    "content.strip()", "| trim", "bos_token + '[INST]", "[gMASK]<sop>", "<think></think>", "<|end|>", "<|start|>",
    "<|message|>", "<|return|>", "Valid channels", "<start_of_turn>", "<|turn>", "<turn|>", "<|channel>thought\\n<channel|>'",
    "<|start_header_id|>", "<|end_header_id|>", "Cutting Knowledge Date", "<|start_of_role|>", "<|end_of_role|>", "<｜User｜>",
    "<｜Assistant｜><think>\\n'}}", "<｜Assistant｜>", "{{'</think>'}}", "thinking", "'User: '", "'Assistant: '",
]
SYSTEM = re.compile(r"<\|im_start\|>system(?:\\n|\n)(?:\\.|[^'\"{}\\])+?<\|im_end\|>")
NEWLINES = re.compile(r"\|>\\n|\|>\n|'\\n'|'\n'")
LAST_ASSISTANT = re.compile(r"<\|assistant\|>(?:\\n|\n)?")

CHATS = {
    "question": [("user", "Hello")],
    "system": [("system", "You are a helpful assistant"), ("user", "Hello")],
    "turns": [("user", "Hello"), ("assistant", "Hi there"), ("user", "Who are you?"), ("assistant", "I am an assistant."),
              ("user", "Another\n\nquestion, 'quoted' <b>")],
    "system and turns": [("system", "Be brief."), ("user", "1 + 1?"), ("assistant", "2"), ("user", "Überprüfe 日本語 🙂")],
    "spaces": [("user", "  spaces around \n"), ("assistant", " and  here "), ("user", "end ")],
    "thinking": [("user", "Why?"), ("assistant", "<think>\nhm\n</think>\n\nBecause."), ("user", "Oh.")],
}


def excerpt(text):
    parts = SYSTEM.findall(text)[:1] + [mark for mark in MARKS if mark in text]
    parts += NEWLINES.findall(text)[:1] + LAST_ASSISTANT.findall(text)[-1:]
    return "~".join(parts)


def main():
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)

    def refuse(message):
        raise jinja2.TemplateError(message)

    env.globals["raise_exception"] = refuse
    cases = []
    for path in sorted(pathlib.Path(sys.argv[1]).glob("*.jinja")):
        text = path.read_text(encoding="utf-8")
        eos = "<｜end▁of▁sentence｜>" if "deepseek" in path.stem else "</s>"
        for name, chat in CHATS.items():
            messages = [{"role": role, "content": content} for role, content in chat]
            try:
                out = env.from_string(text).render(messages=messages, add_generation_prompt=True, bos_token="<s>", eos_token=eos)
            except jinja2.TemplateError:
                continue  # a template that refuses this chat
            if any(m["content"].strip() not in out for m in messages if m["role"] == "system"):
                continue  # a template that forgets system messages
            cases.append({"template": path.stem, "excerpt": excerpt(text), "chat": name, "messages": messages,
                          "expected": out.removeprefix("<s>")})
    json.dump(cases, sys.stdout, ensure_ascii=False, indent=1)
    print()


if __name__ == "__main__":
    main()
