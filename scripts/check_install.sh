#!/bin/sh
# SPDX-License-Identifier: MIT
# check_install.sh BUILD: installs a build into an empty folder and uses it as a stranger would: both headers alone in C17 and
# C++17, a program linked through pkg-config, another through find_package.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
build=$1
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cmake --install "$build" --prefix "$place/usr" >"$place/log" 2>&1 || { cat "$place/log"; exit 1; }
for header in kvant engine; do
    printf '#include <kvant/%s.h>\nint main(void) { return 0; }\n' $header >"$place/alone.c"
    cp "$place/alone.c" "$place/alone.cpp"
    cc -std=c17 -pedantic -Wall -Wextra -Werror -I"$place/usr/include" -c "$place/alone.c" -o "$place/alone.o"
    c++ -std=c++17 -pedantic -Wall -Wextra -Werror -I"$place/usr/include" -c "$place/alone.cpp" -o "$place/alone.o"
done
PKG_CONFIG_PATH=$(dirname "$(find "$place/usr" -name kvant.pc)")
export PKG_CONFIG_PATH
# shellcheck disable=SC2046
cc -std=c17 "$root/examples/encode_attend.c" $(pkg-config --cflags --static --libs kvant) -o "$place/encode_attend"
"$place/encode_attend" >/dev/null
# shellcheck disable=SC2046
cc -std=c17 "$root/examples/answer.c" $(pkg-config --cflags --static --libs kvant_engine) -o "$place/answer"
mkdir "$place/project"
cat >"$place/project/CMakeLists.txt" <<PROJECT
cmake_minimum_required(VERSION 3.22)
project(stranger C)
find_package(kvant REQUIRED)
add_executable(answer "$root/examples/answer.c")
target_link_libraries(answer PRIVATE kvant::kvant_engine)
PROJECT
cmake -S "$place/project" -B "$place/project/build" -G Ninja -DCMAKE_PREFIX_PATH="$place/usr" >"$place/log" 2>&1 &&
    cmake --build "$place/project/build" >>"$place/log" 2>&1 || { cat "$place/log"; exit 1; }
"$place/usr/bin/kvant" --version >/dev/null
echo "install: headers, pkg-config, find_package and the program work from an installed folder"
