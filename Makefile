# Everything a person or CI does with Serin. `make help` lists it.

# A fresh rustup puts cargo here and changes PATH only for the next login.
export PATH := $(PATH):$(HOME)/.cargo/bin

# Where cargo puts what it builds, whoever chose the place. Expanded only by the recipes that use it.
TARGET = $(shell cargo metadata --no-deps --format-version 1 --locked | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')

# Flags of the demo, such as `make demo DEMO=--short`; `make demo DEMO=--help` lists them.
DEMO ?=
# Flags of the benchmark, such as `make bench BENCH="--job small"`.
BENCH ?=
# Worlds of `make world`.
SEEDS ?= 100000
# Requests of `make fuzz`.
GARBLED ?= 20000

.DEFAULT_GOAL := help
.PHONY: help setup plane demo test world bench bench-pure fuzz lint

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' $(MAKEFILE_LIST)

setup: ## Check for a compiler, Rust and cmake, and install what is missing
	@tests/setup/machine.sh

plane: ## Build the Kubernetes control plane that tests run on, once
	@tests/setup/plane.sh

demo: setup ## Watch a good release be promoted and a bad one be rolled back, under load
	cargo build --locked -p serin -p serin-tests --bin serin --bin demo
	@"$(TARGET)/debug/demo" $(DEMO)

# Targets of all kinds at once: what tests add to the features of crates would have them compiled a second time.
test: setup plane ## Build everything and run every test
	cargo build --workspace --all-targets --locked
	cargo test --workspace --locked
	SERIN_TEST_ADAPTER=pingora cargo test --workspace --locked --test it edge_ -- --skip hostile --skip differential

bench: setup ## Measure what a request costs, beside nginx, HAProxy, Envoy, Traefik and Caddy
	@benches/setup.sh
	cargo build --release --locked -p serin -p serin-benches --bins
	PATH="$$PATH:/usr/sbin:$$(benches/setup.sh --peers)" "$(TARGET)/release/bench" $(BENCH)

bench-pure: setup ## Measure the pure crates alone: times, and instructions as Valgrind counts them
	cargo bench --locked -p serin-benches --bench hot_path
	GUNGRAUN_RUNNER="$$(benches/tools.sh)" cargo bench --locked -p serin-benches --bench instructions

fuzz: setup ## Send GARBLED garbled requests through both ways that a request can take
	SERIN_GARBLED=$(GARBLED) cargo test --locked -p serin-tests --test it edge_garbled -- --nocapture

world: setup ## Let SEEDS made-up worlds go wrong, and see that every promise holds
	SERIN_WORLD_SEEDS=$(SEEDS) cargo test --locked -p serin-tests --test world every_promise -- --nocapture

lint: setup ## Check the format, the lints, and that the pure crates are pure
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	@.ci/purity
