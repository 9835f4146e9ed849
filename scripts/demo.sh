#!/bin/sh
# SPDX-License-Identifier: MIT
# demo.sh: installs what is missing, builds a release, fetches a small model and answers a question on a long text with an f16
# cache, with Kvant's 8-bit and 4-bit ones, and with a naive 4-bit format, which shows what centred keys and codebooks are for.
# A second run fetches and builds nothing.
#
# usage: sh scripts/demo.sh [--model FILE] [further options of `kvant compare`]
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/scripts/common.sh"

# --model may stand anywhere; everything else goes to `kvant compare`.
model=
n=$#
while [ "$n" -gt 0 ]; do
    argument=$1; shift; n=$((n - 1))
    case $argument in
    --model|-m) [ "$n" -gt 0 ] || die "$argument needs a file"; model=$1; shift; n=$((n - 1)) ;;
    -h|--help) sed -n '3,8s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) set -- "$@" "$argument" ;;
    esac
done
[ -z "$model" ] || [ -f "$model" ] || die "$model: there is no such file"

# shellcheck disable=SC2086
install_packages $packages
[ -x "$root/build/release/kvant" ] || say "building a release (about half a minute)"
build_tree "$root/build/release" kvant -DCMAKE_BUILD_TYPE=Release -DKVANT_TESTS=OFF
[ -n "$model" ] || model=$(fetch_model smollm2-135m) || die "the model could not be fetched; sh scripts/demo.sh --model FILE uses one that is already there"

"$root/build/release/kvant" compare -m "$model" --kv f16,lossless,small,affine4:64 -f "$root/scripts/text/loomings.txt" \
    -p "In two sentences: who tells this story, and why does he go to sea?" "$@"
say "
your turn: $root/build/release/kvant chat -m $model"
