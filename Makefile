# aya 0.16 declares Rust 1.98. Older compilers build it all the same, with the version check off and one library
# feature (stable since 1.98) switched on. Drop this block when 1.98 is everywhere.
RUSTC_MINOR := $(shell rustc --version | sed -E 's/^rustc 1\.([0-9]+).*/\1/')
ifeq ($(shell [ "$(RUSTC_MINOR)" -lt 98 ] && echo old),old)
export RUSTC_BOOTSTRAP = 1
export RUSTFLAGS = -Zcrate-attr=feature(result_option_map_or_default)
OLD = --ignore-rust-version
endif

.PHONY: build
build:
	cargo build --release --locked $(OLD) -p probe

# The objects under probe-ebpf/prebuilt are committed: only a change of the kernel half needs this.
.PHONY: bpf
bpf:
	probe-ebpf/build.sh
