# make build    target/release/probe; needs cargo and a linker
# make install  to $(DESTDIR)$(PREFIX): the program, its man pages, completions for bash, zsh and fish
# make demo     traces a real Go program and a real Rust program (root)
# make test     everything: formatting, lints, the prebuilt objects, unit and live tests (root)
# make test-kernels  a little of everything on Linux 6.1, emulated: a part of make test (root)
# make soak     servers under load while probes come and go, for half an hour or SOAK_SECONDS (root)
# make bench    what a traced call and a look-up cost, beside other tools (root)
# make bpf      the kernel half's objects anew, after a change of it
# make fuzz     each fuzz target of the symbols library for FUZZ_SECONDS (600)
#
# demo, test, bench, bpf and fuzz install what they need on Debian 12: testdata/setup.sh.

# Before the rest of PATH: Debian's rustc, which compiles for BPF, is no match for another's cargo.
CARGO_HOME_BIN := $(or $(CARGO_HOME),$(HOME)/.cargo)/bin

# aya 0.16 declares Rust 1.98. Older compilers build it all the same, with the version check off and one library
# feature (stable since 1.98) switched on. Drop this block when 1.98 is everywhere.
RUSTC_MINOR := $(shell PATH="$(CARGO_HOME_BIN):$$PATH" rustc --version | sed -E 's/^rustc 1\.([0-9]+).*/\1/')
ifeq ($(shell [ "$(RUSTC_MINOR)" -lt 98 ] && echo old),old)
export RUSTC_BOOTSTRAP = 1
export RUSTFLAGS = -Zcrate-attr=feature(result_option_map_or_default)
OLD = --ignore-rust-version
endif

PREFIX ?= /usr/local
SETUP = testdata/setup.sh
export PATH := $(CURDIR)/.testdeps/bin:$(CARGO_HOME_BIN):$(PATH)
export PROBE_TEST_GO ?= $(CURDIR)/.testdeps/go1.27/go/bin/go
export PROBE_TEST_OLD_GO ?= /usr/bin/go
export PROBE_TEST_ESBUILD ?= $(CURDIR)/.testdeps/esbuild/bin/esbuild

.PHONY: build install demo test test-kernels lint soak bench bpf fuzz setup-% programs as-root
build:
	cargo build --release --locked $(OLD) --target-dir target -p probe

PROBE = target/release/probe
SHARE = $(DESTDIR)$(PREFIX)/share
install: build
	install -D -m 755 $(PROBE) $(DESTDIR)$(PREFIX)/bin/probe
	install -d $(SHARE)/man/man1 $(SHARE)/bash-completion/completions $(SHARE)/zsh/site-functions \
		$(SHARE)/fish/vendor_completions.d
	$(PROBE) man >$(SHARE)/man/man1/probe.1
	$(PROBE) man list >$(SHARE)/man/man1/probe-list.1
	$(PROBE) man doctor >$(SHARE)/man/man1/probe-doctor.1
	$(PROBE) completions bash >$(SHARE)/bash-completion/completions/probe
	$(PROBE) completions zsh >$(SHARE)/zsh/site-functions/_probe
	$(PROBE) completions fish >$(SHARE)/fish/vendor_completions.d/probe.fish

as-root:
	@[ "$$(id -u)" = 0 ] || { echo 'uprobes and their set-up need root: run make as root' >&2; exit 1; }

setup-%:
	$(SETUP) $*

# Each program's own output stands between the blocks of its trace.
GO_DEMO = testdata/build/go/demo
RUST_DEMO = testdata/build/rust/demo
demo: as-root setup-demo
	$(MAKE) build
	$(MAKE) -C testdata demo
	@echo; echo '# A Go program: its methods, and the JSON encoder that they call'
	$(PROBE) -x $(GO_DEMO) 'main.(*Store).*' 'encoding/json.(*Encoder).Encode' -- $(GO_DEMO)
	@echo; echo '# A Rust program: a type, an implementation of a trait, a function'
	$(PROBE) -x $(RUST_DEMO) 'demo::Warehouse::*' '<demo::*' demo::lift -- $(RUST_DEMO)

programs:
	$(MAKE) -C testdata

# The fuzz targets are a workspace of their own. Without the fuzzer itself they compile, and need no C++ compiler.
FUZZ = symbols/fuzz
FUZZ_CRATE = --manifest-path $(FUZZ)/Cargo.toml --target-dir target/fuzz --no-default-features

lint:
	cargo fmt --all --check
	cargo fmt --check --manifest-path testdata/rust/counts/Cargo.toml
	cargo fmt --check --manifest-path testdata/rust/demo/Cargo.toml
	cargo fmt --check --manifest-path testdata/rust/server/Cargo.toml
	cargo clippy --locked $(OLD) --workspace --all-targets -- -D warnings
	cargo fmt --check --manifest-path $(FUZZ)/Cargo.toml
	cargo clippy --locked $(OLD) $(FUZZ_CRATE) --all-targets -- -D warnings
	RUSTDOCFLAGS=-Dwarnings cargo doc --locked $(OLD) --no-deps -p symbols

# The prebuilt objects come first: the tests below run what is in them. `cargo test` comes last: its results are what
# one wants to see at the end.
test: as-root setup-test
	$(MAKE) lint
	unformatted=$$($(dir $(PROBE_TEST_GO))gofmt -l testdata/go) && \
		[ -z "$$unformatted" ] || { echo "gofmt: $${unformatted:-failed}" >&2; exit 1; }
	probe-ebpf/check-prebuilt.sh --rebuild
	$(MAKE) programs
	live=$$($(LIVE)); $(ON_KERNELS) "$$live" kernel:: & kernels=$$!; \
		cargo test --locked $(OLD) $(TESTED) --no-run; built=$$?; wait $$kernels && exit $$built
	cargo test --locked $(OLD) $(TESTED)

TESTED = -p symbols -p probe-ebpf -p probe
# The live tests' program says where it is as it is built.
LIVE = cargo test --locked $(OLD) -p probe --test live --no-run --message-format=json-render-diagnostics | \
	sed -n 's/.*"name":"live".*"executable":"\([^"]*\)".*/\1/p'
# The emulated machine has one processor: there is another for what is to be done beside it.
ON_KERNELS = testdata/kernels/run.sh .testdeps/linux-6.1/boot/vmlinuz-*

test-kernels: as-root setup-kernels
	$(MAKE) programs
	live=$$($(LIVE)); $(ON_KERNELS) "$$live" kernel::

# Half an hour of what `make test` does for two minutes.
soak: as-root setup-test
	$(MAKE) programs
	SOAK_SECONDS=$${SOAK_SECONDS:-1800} cargo test --release --locked $(OLD) -p probe --test soak -- --nocapture

bench: as-root setup-bench
	$(MAKE) build programs
	cargo bench --locked $(OLD) -p probe
	PROBE=$(CURDIR)/$(PROBE) cargo bench --locked $(OLD) -p symbols --bench lookup

# The objects under probe-ebpf/prebuilt are committed: only a change of the kernel half needs this.
bpf: setup-bpf
	probe-ebpf/build.sh

# A finding fails, and its input is in symbols/fuzz/artifacts. Corpora are kept in symbols/fuzz/corpus and grow.
FUZZ_SECONDS ?= 600
FUZZ_TARGETS ?= $(basename $(notdir $(wildcard $(FUZZ)/fuzz_targets/*.rs)))
fuzz: export RUSTC_BOOTSTRAP = 1
fuzz: setup-fuzz
	cargo run --locked $(OLD) $(FUZZ_CRATE) --example seeds $(FUZZ)/corpus
	set -e; for target in $(FUZZ_TARGETS); do \
		cargo fuzz run --fuzz-dir $(FUZZ) $$target -- \
			-max_total_time=$(FUZZ_SECONDS) -max_len=65536 -timeout=10 -rss_limit_mb=1024 -print_final_stats=1; \
	done
