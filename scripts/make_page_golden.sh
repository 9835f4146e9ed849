#!/bin/sh
# SPDX-License-Identifier: MIT
# Makes tests/golden/pages/pages.bin with the test program of a build: pages in all formats and what they stand for. To be run after
# a layout or a codebook has been changed on purpose; scripts/decode_page.py must still decode the result.
#   scripts/make_page_golden.sh [BUILD]
set -eu
cd "$(dirname "$0")/.."
build=${1:-build}
cmake --build "$build" --target test_page_golden
program=$(find "$build" -name test_page_golden -type f | head -n 1)
"$program" --write tests/golden/pages/pages.bin
python3 scripts/decode_page.py tests/golden/pages/pages.bin
