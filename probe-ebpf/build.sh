#!/usr/bin/env bash
# Builds the kernel half for every architecture, and the stamp that says what it was built from.
#
#   probe-ebpf/build.sh [FOLDER]      the objects and STAMP go to FOLDER (default: probe-ebpf/prebuilt)
#   probe-ebpf/build.sh --stamp       only prints what a build here and now would be stamped with
#
# Debian's rustc is used because it alone brings a `core` for the BPF target; $BPF_RUSTC names another one.
# Two builds with the same stamp give the same bytes, wherever the checkout and the crate registry lie: every flag
# that matters stands here (not in the workspace's profile), paths are mapped away, and DWARF (not BTF) is removed.
set -eu
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export LC_ALL=C

ARCHITECTURES="x86_64 aarch64"
BPF_RUSTC=${BPF_RUSTC:-/usr/bin/rustc}
export LLVM_PREFIX=${LLVM_PREFIX:-/usr/lib/llvm-22}
export PATH="$LLVM_PREFIX/bin:$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"

# The hash covers what decides the bytes: sources, manifest, this script, and the exact aya-ebpf* crates.
sources_hash() {
    {
        find probe-ebpf/src -type f -name '*.rs' | sort | xargs -d '\n' sha256sum
        sha256sum probe-ebpf/Cargo.toml probe-ebpf/build.sh
        sed -n '/^name = "aya-ebpf/,/^$/p' Cargo.lock
    } | sha256sum | cut -d' ' -f1
}

locked_version() {
    sed -n "/^name = \"$1\"\$/{n;s/version = \"\(.*\)\"/\1/p}" Cargo.lock
}

stamp() {
    echo "sources $(sources_hash)"
    echo "aya-ebpf $(locked_version aya-ebpf)"
    "$BPF_RUSTC" --version 2>/dev/null || echo "rustc unknown"
    bpf-linker --version 2>/dev/null || echo "bpf-linker unknown"
    echo "llvm $("$LLVM_PREFIX/bin/llvm-config" --version 2>/dev/null || echo unknown)"
}

# Leaves the stripped object of architecture $1 at $2.
build() {
    local registry="${CARGO_HOME:-$HOME/.cargo}/registry/src" flags separator=$'\x1f'
    flags="--cfg${separator}bpf_target_arch=\"$1\"${separator}-Cdebuginfo=2${separator}-Clink-arg=--btf"
    flags+="${separator}--remap-path-prefix=$PWD=probe"
    # The registry's folder carries a hash of its own name: map each, so that crates come out as `registry/NAME-VERSION`.
    for folder in "$registry"/*; do
        flags+="${separator}--remap-path-prefix=$folder=registry"
    done
    # Encoded flags win over RUSTFLAGS, which the Makefile sets for the user half, and survive blanks in paths.
    env -u RUSTC_WRAPPER -u RUSTC_WORKSPACE_WRAPPER RUSTC="$BPF_RUSTC" RUSTC_BOOTSTRAP=1 \
        CARGO_ENCODED_RUSTFLAGS="$flags" CARGO_PROFILE_RELEASE_LTO=fat CARGO_PROFILE_RELEASE_CODEGEN_UNITS=1 \
        CARGO_PROFILE_RELEASE_OPT_LEVEL=3 CARGO_PROFILE_RELEASE_DEBUG=2 CARGO_PROFILE_RELEASE_PANIC=abort \
        cargo build --release --locked --ignore-rust-version --target bpfel-unknown-none \
        --target-dir "target/bpf/$1" -p probe-ebpf --bin probe-ebpf --features kernel
    "$LLVM_PREFIX/bin/llvm-strip" -g -o "$2" "target/bpf/$1/bpfel-unknown-none/release/probe-ebpf"
    chmod 644 "$2"
}

if [ "${1:-}" = --stamp ]; then
    stamp
    exit
fi
out=${1:-probe-ebpf/prebuilt}
mkdir -p "$out"
cargo fetch --locked --quiet # so that the registry's folder exists and can be mapped
for architecture in $ARCHITECTURES; do
    build "$architecture" "$out/probe-$architecture.bpf.o"
done
{
    stamp
    (cd "$out" && sha256sum probe-*.bpf.o)
} >"$out/STAMP"
cat "$out/STAMP"
