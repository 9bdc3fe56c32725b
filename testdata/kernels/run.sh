#!/usr/bin/env bash
# Runs tests on another kernel: in an emulated machine whose whole file system is in memory, at the paths that they have
# here.
#
#   testdata/kernels/run.sh KERNEL TESTS [ARGUMENT...]
#
# KERNEL: a vmlinuz. TESTS: a test program of the crate `probe`, which gets the arguments; the command that it runs stands
# where cargo puts it. The exit status is the tests'; a machine that does not boot, or not end in time, is a failure.
set -eu
kernel=$1 tests=$2
shift 2
probe=$(dirname "$(dirname "$tests")")/probe
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
programs=$(dirname "$here")/build
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
mkdir -p "$root"/{bin,dev,proc,sys,tmp,root,etc,lib64,run}

# libraries FILE...: what the loader loads for them, by the names that it looks for and the files that they are.
libraries() { ldd "$@" 2>/dev/null | grep -o '/[^ ]*' | grep -v ':$' | sort -u; }

cp /bin/busybox "$root/bin/busybox"
install -m 755 "$here/init" "$root/init"
cp /etc/passwd /etc/group "$root/etc/"
mkdir -p "$root$programs"
cp -a "$programs"/{c,cpp,go,rust} "$root$programs"
for program in "$probe" "$tests"; do
    mkdir -p "$root$(dirname "$program")"
    strip -o "$root$program" "$program"
done
needed=$(libraries "$probe" "$tests" $(find "$programs"/{c,cpp,go,rust} -type f -perm -100))
for library in $needed; do
    mkdir -p "$root$(dirname "$library")"
    cp -L "$library" "$root$library"
done
# The programs of testdata are named relative to the crate.
mkdir -p "$root$(realpath "$here/../../probe")" "$root/lib64"
cp -L /lib64/ld-linux-x86-64.so.2 "$root/lib64/"
printf '%q ' "$tests" "$@" >"$root/tests"

(cd "$root" && find . | cpio --quiet -o -H newc) >"$work/initramfs"
# QEMU 7.2: with a thread of its own for each processor, the emulation runs code in the area where single-stepped
# instructions are put that another processor has just overwritten: programs die of uprobes that nobody but the kernel
# has set (seen with tracefs alone, never with one thread).
timeout "${KERNEL_SECONDS:-900}" qemu-system-x86_64 -accel tcg,thread=single -cpu max -smp 2 -m 3G -nographic -no-reboot \
    -kernel "$kernel" -initrd "$work/initramfs" -append "console=ttyS0 quiet panic=-1 ${KERNEL_ARGS:-}" \
    </dev/null | tee "$work/log"
status=$(tr -d '\r' <"$work/log" | sed -n 's/^tests ended: \([0-9]*\) .*/\1/p')
[ -n "$status" ] || { echo "the machine did not run the tests to their end" >&2; exit 1; }
grep -q '^test result: ok. [1-9]' "$work/log" || { echo "no test ran, or one failed" >&2; exit 1; }
exit "$status"
