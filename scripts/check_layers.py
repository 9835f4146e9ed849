#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Checks what docs/ARCHITECTURE.md promises of the tree: which folder may include which, where intrinsics, system headers,
printing, exits and the environment may be used, the sizes of files and functions, unique file names, SPDX lines.
Prints one line a fault and exits 1 when there is one."""
import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ALLOWED = {
    "base": "", "kernel": "base", "text": "base", "file": "base", "codec": "base kernel", "weight": "base kernel",
    "cache": "base codec", "attn": "base kernel codec cache", "model": "base kernel weight file cache attn",
    "vision": "base kernel weight file", "engine": "base cache file model vision text",
}
SYSTEM = re.compile(r"#\s*include\s*<(sys/|unistd|pthread|fcntl|dlfcn|sched|signal|dirent|termios|poll|windows)")
INTRINSIC = re.compile(r"#\s*include\s*<(\w*intrin|arm_neon)\.h>|\b_mm\d*_|\bvdotq_")
FORBIDDEN = re.compile(r"\b(printf|puts|putchar|exit|abort|_Exit|getenv|setenv|strcpy|strcat|sprintf|gets|system)\s*\(")
MAX_C, MAX_H, MAX_FUNCTION, MAX_KERNEL, MAX_WIDTH = 800, 400, 80, 150, 150
faults = []


def fault(path, line, text):
    faults.append(f"{os.path.relpath(path, ROOT)}:{line}: {text}")


def without_comments(text):
    blank = lambda m: re.sub(r"[^\n]", " ", m.group(0))
    return re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"', blank, text, flags=re.S)


def check_functions(path, lines, limit):
    start = None
    for i, line in enumerate(lines, 1):
        if start is None and re.match(r"[A-Za-z_].*\)\s*\{\s*$", line):
            start = i
        elif start is None and line.startswith("{") and i > 1 and lines[i - 2].rstrip().endswith(")"):
            start = i
        elif start is not None and line.startswith("}"):
            if i - start > limit:
                fault(path, start, f"a function of {i - start} lines (at most {limit})")
            start = None


def check_source(path, part):
    text = open(path, encoding="utf-8").read()
    lines, code = text.split("\n"), without_comments(text)
    in_kernel = part == "kernel"
    if not lines[0].startswith("// SPDX-License-Identifier: MIT"):
        fault(path, 1, "the first line is not the SPDX line")
    if len(lines) > (MAX_H if path.endswith(".h") else MAX_C):
        fault(path, 1, f"{len(lines)} lines")
    check_functions(path, lines, MAX_KERNEL if in_kernel else MAX_FUNCTION)
    for i, line in enumerate(lines, 1):
        if len(line) > MAX_WIDTH:
            fault(path, i, f"{len(line)} columns")
        if re.search(r"\b(TODO|FIXME|XXX)\b", line):
            fault(path, i, "unfinished work is marked here")
    if part in ("app", "example"):
        allowed = None
    else:
        allowed = {part, *ALLOWED[part].split()}
        for m in FORBIDDEN.finditer(code):
            fault(path, code.count("\n", 0, m.start()) + 1, f"{m.group(1)}() inside a library")
    for i, line in enumerate(lines, 1):
        m = re.match(r'\s*#\s*include\s*"([^"]+)"', line)
        folder = m.group(1).split("/")[0] if m and "/" in m.group(1) else None
        if folder and folder != "kvant" and (allowed is None or folder not in allowed):
            fault(path, i, f"{part} may not include {folder}/")
        if SYSTEM.match(line) and not (part == "base" and os.path.basename(path).startswith("os")):
            # The program meets the terminal by itself.
            if not (part == "app" and re.search(r"<(signal|unistd|sys/select|sys/stat)", line)):
                fault(path, i, "a system header outside src/base/os*")
    for i, line in enumerate(code.split("\n"), 1):
        if INTRINSIC.search(line) and not in_kernel:
            fault(path, i, "intrinsics outside src/kernel")


def check_table():
    """The table of docs/ARCHITECTURE.md is this script's."""
    path = os.path.join(ROOT, "docs", "ARCHITECTURE.md")
    with open(path) as f:
        rows = dict(re.findall(r"^\| src/(\w+) \| ([^|]*?) \|", f.read(), re.M))
    for part, allowed in ALLOWED.items():
        told = rows.get(part, "no row").replace("nothing of ours", "").split()
        if sorted(told) != sorted(allowed.split()):
            fault(path, 1, f"src/{part}: the table says {rows.get(part, 'nothing')}, the rule is {allowed or 'nothing of ours'}")


def main():
    check_table()
    names = {}
    for top, part_of in (("src", lambda p: p.split(os.sep)[0]), ("include", lambda p: "base"), ("apps", lambda p: "app"),
                         ("examples", lambda p: "example")):
        base = os.path.join(ROOT, top)
        for folder, _, files in os.walk(base):
            for f in sorted(files):
                if not f.endswith((".c", ".h")):
                    continue
                path = os.path.join(folder, f)
                if f in names and names[f] != path:
                    fault(path, 1, f"the name is taken by {os.path.relpath(names[f], ROOT)}")
                names[f] = path
                check_source(path, part_of(os.path.relpath(path, base)))
    for f in faults:
        print(f)
    print(f"layers and style: {len(names)} files, {len(faults)} faults")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
