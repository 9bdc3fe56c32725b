#!/usr/bin/env bash
# Are the committed objects of the kernel half what their stamp says, and does the stamp fit the sources?
#
#   probe-ebpf/check-prebuilt.sh             needs no toolchain: stamp, hashes, no path of a machine in an object
#   probe-ebpf/check-prebuilt.sh --rebuild   also builds them anew into target/bpf/fresh, and wants the same bytes
#                                            where compiler and linker are the stamp's
set -eu
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export LC_ALL=C
prebuilt=probe-ebpf/prebuilt
fresh=target/bpf/fresh

fail() {
    echo "check-prebuilt: $1" >&2
    exit 1
}

without_objects() { grep -v '\.bpf\.o$'; }

# A path is at the start of a string in .BTF and .symtab; in .rodata strings run together, so there this machine's
# own folders are looked for anywhere. Where a compiler's vendor built `core` (/rustc/HASH, Debian's /usr/src/rustc-X)
# is written into the compiler's own files: it is the same everywhere, and no flag of ours maps it.
machine_paths() {
    strings -n 4 "$1" | grep -E '^/[A-Za-z0-9._-]+/' | grep -vE '^/(usr/src/rustc-|rustc/)' || true
    strings -n 4 "$1" | grep -F -e "$PWD" -e "$HOME/" -e "${CARGO_HOME:-$HOME/.cargo}" || true
}

[ -s "$prebuilt/STAMP" ] || fail "$prebuilt/STAMP is missing: run make bpf"
wanted=$(probe-ebpf/build.sh --stamp | grep '^sources ')
stamped=$(grep '^sources ' "$prebuilt/STAMP")
[ "$wanted" = "$stamped" ] || fail "the stamp is stale, the sources have changed: run make bpf"
(cd "$prebuilt" && grep '\.bpf\.o$' STAMP | sha256sum --check --quiet) || fail "an object is not the one of its stamp: run make bpf"
for object in "$prebuilt"/*.bpf.o; do
    paths=$(machine_paths "$object")
    [ -z "$paths" ] || fail "$object carries paths of the machine that built it: $paths"
done

if [ "${1:-}" = --rebuild ]; then
    probe-ebpf/build.sh "$fresh" >/dev/null
    if [ "$(without_objects <"$fresh/STAMP")" = "$(without_objects <"$prebuilt/STAMP")" ]; then
        for object in "$prebuilt"/*.bpf.o; do
            cmp "$object" "$fresh/${object##*/}" || fail "$object: the same sources and tools gave other bytes: run make bpf"
        done
        echo "prebuilt objects: rebuilt, the same bytes"
    else
        echo "prebuilt objects: rebuilt with other tools than the stamp's, bytes not compared"
        diff "$prebuilt/STAMP" "$fresh/STAMP" || true
    fi
fi
echo "prebuilt objects: ok"
