#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Renders chat templates with jinja2, as the programs do for which they are written, and writes what Kvant must give for them.

    python3 scripts/make_template_golden.py [FOLDER]            # tests/golden/templates
    python3 scripts/make_template_golden.py FOLDER --shared     # the chats below for every *.jinja of another folder

For every NAME.jinja of the folder: NAME.json with cases of variables and the text or the error expected. A file whose name begins
with "lang_" shows the language; it has its variables in its first line, as a comment. The others are rendered for all chats below.
errors.txt: templates of one line that cannot be rendered.
Needs jinja2.
"""
import datetime
import json
import pathlib
import sys

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

ROOT = pathlib.Path(__file__).resolve().parent.parent
NOW = datetime.datetime(2026, 3, 5, 14, 7, 9)

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tells the weather of a place, e.g. \"Zürich\" <now>.",
        "parameters": {
            "type": "object",
            "properties": {
                "location": {"type": "string", "description": "City & country"},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"], "default": "celsius"},
                "days": {"type": "integer", "description": "How many", "nullable": True},
            },
            "required": ["location"],
        },
    },
}
ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds numbers.",
        "parameters": {
            "type": "object",
            "properties": {
                "numbers": {"type": "array", "items": {"type": "number"}, "description": "What to add"},
                "options": {"type": "object", "properties": {"exact": {"type": "boolean"}}},
            },
            "required": ["numbers", "options"],
        },
        "return": {"type": "number", "description": "The sum"},
    },
}
CALL = {"id": "abcdefghi", "type": "function", "function": {"name": "get_weather", "arguments": {"location": "Köln", "days": 2}}}
CALL2 = {"id": "jklmnopqr", "type": "function", "function": {"name": "add", "arguments": {"numbers": [1, 2.5, -3e-07], "options": {}}}}


def says(role, content, **more):
    return {"role": role, "content": content, **more}


CHATS = {
    "question": {"messages": [says("user", "Hello")]},
    "system": {"messages": [says("system", "You are a helpful assistant"), says("user", "Hello")]},
    "no generation prompt": {"messages": [says("user", "Hello"), says("assistant", "Hi.")], "add_generation_prompt": False},
    "turns": {"messages": [says("user", "Hello"), says("assistant", "Hi there"), says("user", "Who are you?"),
                           says("assistant", "I am an assistant."), says("user", "Another\n\nquestion, 'quoted' <b>")]},
    "unicode": {"messages": [says("system", "Sei knapp."), says("user", "1 + 1?"), says("assistant", "2"),
                             says("user", "Überprüfe 日本語 🙂")]},
    "spaces": {"messages": [says("system", " \n"), says("user", "  spaces around \n"), says("assistant", " and  here "),
                            says("user", "end ")]},
    "empty": {"messages": [says("user", ""), says("assistant", ""), says("user", "x")]},
    "thinking": {"messages": [says("user", "Why?"), says("assistant", "<think>\nhm\n</think>\n\nBecause."), says("user", "Oh."),
                              says("assistant", "<think>\n\n</think>\nYes."), says("user", "And?")]},
    "reasoning": {"messages": [says("system", "Think."), says("user", "Why?"),
                               says("assistant", "Because.", reasoning_content="hm\n", thinking="hm"), says("user", "Oh.")]},
    "no thinking": {"messages": [says("user", "Quick!")], "enable_thinking": False, "thinking": False},
    "must think": {"messages": [says("system", "/no_think be brief"), says("user", "Slow.")], "enable_thinking": True,
                   "thinking": True, "reasoning_effort": "high"},
    "tools": {"messages": [says("user", "Weather?")], "tools": [WEATHER, ADD]},
    "tool call": {"messages": [says("system", "Use tools."), says("user", "Weather?"), says("assistant", "", tool_calls=[CALL]),
                               says("tool", "{\"temp\": 21.5}", name="get_weather", tool_call_id="abcdefghi")],
                  "tools": [WEATHER]},
    "tool turns": {"messages": [says("user", "Weather and sum?"),
                                says("assistant", None, reasoning_content="two calls", tool_calls=[CALL, CALL2]),
                                says("tool", "sunny", name="get_weather", tool_call_id="abcdefghi"),
                                says("tool", "-0.5", name="add", tool_call_id="jklmnopqr"),
                                says("assistant", "Sunny, and -0.5."), says("user", "Thanks")],
                   "tools": [WEATHER, ADD]},
    "parts": {"messages": [says("user", [{"type": "text", "text": "What is in "}, {"type": "text", "text": "this?"}]),
                           says("assistant", [{"type": "text", "text": "A cat."}]), says("user", "Sure?")]},
    "documents": {"messages": [says("user", "Sum it up")],
                  "documents": [{"title": "One", "text": "First text."}, {"title": "Two", "text": "Second\ntext."}]},
    "wrong order": {"messages": [says("assistant", "Hi"), says("assistant", "again"), says("user", "x"), says("user", "y")]},
    "unknown role": {"messages": [says("user", "Hello"), says("critic", "Bad.")]},
}
TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "add_generation_prompt": True}


def to_json(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


class Generation(jinja2.ext.Extension):
    """{% generation %}: marks what a model writes; here its body alone."""
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_write"), [], [], body).set_lineno(line)

    def _write(self, caller):
        return caller()


class Refused(jinja2.TemplateError):
    pass


def environment():
    def refuse(message):
        raise Refused(message)

    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
    env.filters["tojson"] = to_json
    env.globals["raise_exception"] = refuse
    env.globals["strftime_now"] = lambda form: NOW.strftime(form)
    return env


def case(template, name, variables):
    try:
        return {"case": name, "variables": variables, "expected": template.render(**json.loads(json.dumps(variables)))}
    except Refused as e:
        return {"case": name, "variables": variables, "error": str(e)}
    except (jinja2.TemplateError, TypeError, ValueError, OverflowError, ZeroDivisionError) as e:
        return {"case": name, "variables": variables, "error": "", "jinja2": f"{type(e).__name__}: {e}"}


def failing_case(env, text):
    variables = {"d": {}, "s": "x", "n": None, "l": [1]}
    try:
        result = case(env.from_string(text), text, variables)
    except jinja2.TemplateError as e:
        result = {"case": text, "variables": variables, "error": "", "jinja2": f"{type(e).__name__}: {e}"}
    assert "error" in result, text
    return {**result, "template": text}


def main():
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "tests/golden/templates"
    env, n, failures = environment(), 0, 0
    files = sorted(folder.glob("*.jinja"))
    for path in files:
        text = path.read_text(encoding="utf-8")
        if path.stem.startswith("lang_"):
            header = text.split("\n", 1)[0]
            chats = {"language": json.loads(header[header.index("{", 2):header.rindex("#}")])}
            tokens = {}
        else:
            chats, tokens = CHATS, TOKENS
        template = env.from_string(text)
        cases = [case(template, name, {**tokens, **variables}) for name, variables in chats.items()]
        n += len(cases)
        failures += sum("error" in c for c in cases)
        for c in cases:
            if "jinja2" in c and "--quiet" not in sys.argv:
                print(f"{path.stem}, {c['case']}: {c['jinja2']}")
        path.with_suffix(".json").write_text(json.dumps(cases, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    errors = folder / "errors.txt"
    if errors.exists():
        cases = [failing_case(env, line) for line in errors.read_text(encoding="utf-8").splitlines()]
        errors.with_suffix(".json").write_text(json.dumps(cases, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    print(f"{len(files)} templates, {n} cases, {failures} of them errors")


if __name__ == "__main__":
    main()
