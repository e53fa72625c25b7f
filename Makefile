# `make` alone prints what there is.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
# rustup puts cargo there, and a shell opened before that does not know it yet.
export PATH := $(PATH):$(HOME)/.cargo/bin
binary := $(or $(CARGO_TARGET_DIR),target)/release/dockgate
# Where `make install` puts it.
PREFIX ?= /usr/local
# How long `make fuzz` spends on each target.
seconds ?= 60
# How often `make powercut` cuts the power, of each kind of disk.
rounds ?= 40

.PHONY: serve
serve: build ## Build it and run it, with gateway.toml if there is one (args="--config FILE" for another)
	exec $(binary) serve $(args)

.PHONY: test
test: ## Install what the tests need and run all of them, as CI does
	tests/run.sh

.PHONY: build
build: needs ## Build the program: target/release/dockgate
	cargo build --release --locked

.PHONY: install
install: ## Copy the program to /usr/local/bin (PREFIX=/opt/dockgate for another place); builds it if need be
	@test -x $(binary) || $(MAKE) build
	install -D -m 0755 $(binary) $(DESTDIR)$(PREFIX)/bin/dockgate

.PHONY: check
check: needs ## What is quick: format, lints, unit tests, the plan
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo test --locked --lib --bins --test tidy

.PHONY: e2e
e2e: build ## Only the tests with real clients (clients="docker podman" for some of them)
	tests/install.sh
	tests/e2e/run.sh $(binary) $(clients)

.PHONY: clients
clients: build ## The clients that take long to build, as new as they can be had: BuildKit, helm, cosign and so on (clients="helm ko" for some)
	tests/install.sh
	tests/e2e/run.sh $(binary) $(or $(clients),--slow)

.PHONY: conformance
conformance: build ## Only the OCI conformance suite
	tests/install.sh
	tests/conformance/run.sh $(binary)

.PHONY: bench
bench: build ## Measure: the small words, then the program beside nginx and docker's registry (docs/performance.md)
	cargo bench --locked --bench words
	benches/serve.sh $(binary)

.PHONY: storm
storm: ## Measure mirrors: many runners on one cold image, dockgate beside docker's registry and nginx (args="--help" tells more)
	benches/mirror.sh storm $(args)

.PHONY: trace
trace: ## Measure a mirror's tiers: a workload shaped like a public registry's, beside an ideal LRU (args as above)
	benches/mirror.sh trace $(args)

.PHONY: latency
latency: ## Measure mirrors: an image that is cold, on disk, in memory (args as above)
	benches/mirror.sh latency $(args)

.PHONY: siege
siege: build ## Besiege it for an hour and a quarter: readers that do not read, logins, floods, an hour of mixed load (args="--short", args="--help")
	benches/siege.sh $(args)

.PHONY: powercut
powercut: ## Cut the power of its disk while many push, with a journal and without, 40 times each (rounds=N)
	tests/install.sh
	DOCKGATE_POWER_CUTS=$(rounds) cargo test --locked --test integration kill::power -- --nocapture --test-threads 1

.PHONY: fuzz
fuzz: needs ## Fuzz each target for a while (seconds=60, targets="oci route" for some of them)
	fuzz/run.sh $(seconds) $(targets)

.PHONY: audit
audit: needs ## Check the dependencies against the list of known vulnerabilities, from the network
	cargo deny --version >/dev/null 2>&1 || cargo install --quiet --locked --debug cargo-deny@0.20.2
	cargo deny --locked check

.PHONY: clean-test
clean-test: ## Remove what the tests have left behind
	rm -rf .test
	find "$${TMPDIR:-/tmp}" -maxdepth 1 -user "$$(id -un)" \( -name 'dockgate-e2e.*' -o -name 'dockgate-conformance.*' \) -exec rm -rf --one-file-system {} +

.PHONY: needs
needs:
	@deploy/install-build-needs.sh

.PHONY: help
help:
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile
