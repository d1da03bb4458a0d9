# Everything a person or CI does with Serin. `make help` lists it.

# A fresh rustup puts cargo here and changes PATH only for the next login.
export PATH := $(PATH):$(HOME)/.cargo/bin

# Where cargo puts what it builds, whoever chose the place. Expanded only by the recipes that use it.
TARGET = $(shell cargo metadata --no-deps --format-version 1 --locked | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')

# Flags of the demo, such as `make demo DEMO=--short`; `make demo DEMO=--help` lists them.
DEMO ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint

help: ## Show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1	\2/p' $(MAKEFILE_LIST)

setup: ## Check for a compiler, Rust and cmake, and install what is missing
	@tests/setup/machine.sh

demo: setup ## Watch a good release be promoted and a bad one be rolled back, under load
	cargo build --locked -p serin -p serin-tests --bin serin --bin demo
	@"$(TARGET)/debug/demo" $(DEMO)

test: setup ## Build everything and run every test
	cargo build --workspace --locked
	cargo test --workspace --locked

lint: setup ## Check the format, the lints, and that the pure crates are pure
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	@.ci/purity
