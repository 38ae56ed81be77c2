# The project's recipes. `make help` lists them.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
TARGET := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)
LAB := $(abspath $(TARGET)/debug/lab)
# The agent of the tests, which can be killed at any step of a plan.
AGENT := $(abspath $(TARGET)/debug/lvs-agent)
CONTROLLER := $(abspath $(TARGET)/debug/lvs-controller)
# The packages that every tier builds. Building a single package would select other features of the dependencies, and compile
# them again.
ALL := --workspace --all-features
DENY_VERSION := 0.20.2
TOOLS := $(HOME)/.cache/lvs-operator/tools
DENY := $(TOOLS)/cargo-deny-$(DENY_VERSION)/bin/cargo-deny

.PHONY: help setup build demo demo-failover demo-files test test-unit fuzz test-kernel test-reboot tools-api test-api tools-cluster test-e2e test-crash test-many cluster cluster-down bench-program bench-latency bench-large bench-failover bench-connections lint clippy deny crate-edges structure check-docs check-crates fmt generate chart-test clean

help: ## lists these recipes
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name what; do printf '  make %-15s %s\n' "$$name" "$$what"; done

setup: ## installs what the lab needs (as root; otherwise says what to install)
	@tests/setup.sh

build: ## builds everything
	$(CARGO) build $(ALL) --all-targets

demo: ## shows the operator: NAT, DR and TUN with files, then with `kubectl apply`; the first run builds an API server in the background
	@CARGO="$(CARGO)" TARGET="$(abspath $(TARGET))" tests/demo.sh

demo-failover: ## shows a failover: two directors with kernels of their own, and the power of one is cut
	@CARGO="$(CARGO)" TARGET="$(abspath $(TARGET))" tests/demo.sh failover

demo-files: ## shows the first part only, without Kubernetes: three machines and a file
	@CARGO="$(CARGO)" TARGET="$(abspath $(TARGET))" tests/demo.sh files

test: test-unit chart-test test-kernel test-reboot test-api ## runs all tiers except the two long ones, test-crash and test-e2e

# Without the features of lvs-tests: the tests of the other tiers are behind them. The others are named, so that the crates are
# compiled once for all tiers.
test-unit: ## runs the tests that need no special kernel
	$(CARGO) test --workspace --features lvs-agent/fault-injection,lvs-agent/fake

# What cargo-fuzz does without a sanitizer, so that stable Rust and the C++ compiler are enough. A target is given, or else build
# scripts would get the flags too. Inputs that were found interesting are kept in the first folder.
FUZZ_SECONDS ?= 60
FUZZ_DIR := $(abspath $(TARGET))/fuzz
FUZZ_HOST = $(shell rustc -vV | sed -n 's/^host: //p')
FUZZ_FLAGS := --cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
  -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares -Clink-dead-code -Cdebug-assertions -Coverflow-checks \
  -Ccodegen-units=1
fuzz: ## feeds the parser of VRRP packets with random ones, for FUZZ_SECONDS (60)
	RUSTFLAGS='$(FUZZ_FLAGS)' $(CARGO) build --manifest-path vrrp/fuzz/Cargo.toml --locked --release --target $(FUZZ_HOST) --target-dir $(FUZZ_DIR)
	mkdir -p $(FUZZ_DIR)/corpus/parse
	cd $(FUZZ_DIR) && $(FUZZ_DIR)/$(FUZZ_HOST)/release/parse -max_total_time=$(FUZZ_SECONDS) -timeout=5 -max_len=4200 corpus/parse $(CURDIR)/vrrp/fuzz/seeds/parse

# Cargo passes every test binary to the lab instead of starting it. The tier fails if no test ran. The kernel tests of `ipvs`
# are ignored by default, for users of the published crate; its `speed` tests only measure.
# A guest has one processor: two halves that take about as long run side by side. Together, their patterns match every test whose name
# begins with `kernel`. A test that kills the agent at every step has `killed_anywhere` in its name, and runs in `test-crash`.
test-kernel: setup programs ## runs the kernel tests under a kernel that has IPVS
	$(MAKE) -j2 --output-sync=line kernel-half-first kernel-half-second

IN_LAB := --no-fail-fast --config 'target."cfg(all())".runner = ["$(LAB)", "run", "--timeout", "1800", "--"]' -- --include-ignored --skip speed::
WITHOUT_KILLS := --skip killed_anywhere
.PHONY: kernel-half-first kernel-half-second
kernel-half-first:
	LVS_AGENT=$(AGENT) tests/run-tier.sh $(CARGO) test $(ALL) --test 'kernel_fa*' --test 'kernel_[s-z]*' $(IN_LAB) $(WITHOUT_KILLS)
kernel-half-second:
	LVS_AGENT=$(AGENT) tests/run-tier.sh $(CARGO) test $(ALL) --test kernel --test 'kernel_[!fs-z]*' --test 'kernel_f[!a]*' $(IN_LAB) $(WITHOUT_KILLS)

test-crash: setup programs ## kills the agent at every step of its plans, under the same kernel; run before a release
	$(MAKE) -j2 --output-sync=line crash-half-first crash-half-second

.PHONY: crash-half-first crash-half-second
crash-half-first:
	LVS_AGENT=$(AGENT) tests/run-tier.sh $(CARGO) test $(ALL) --test kernel_crash $(IN_LAB) a_director
crash-half-second:
	LVS_AGENT=$(AGENT) tests/run-tier.sh $(CARGO) test $(ALL) --test kernel_crash $(IN_LAB) a_real_server
	LVS_AGENT=$(AGENT) tests/run-tier.sh $(CARGO) test $(ALL) --test kernel_failover $(IN_LAB) killed_anywhere

test-many: setup programs ## changes one of 5,000 virtual services each 0.1 s on two directors and restarts an agent: no VIP moves
	$(CARGO) build --release -p lvs-agent
	LAB_SERVICES=5000 LVS_AGENT=$(abspath $(TARGET)/release/lvs-agent) tests/run-tier.sh $(CARGO) test $(ALL) --test kernel_failover $(IN_LAB) busy::

test-reboot: setup programs ## runs the tests that boot guests of their own: the lab's, a reboot, and the service under systemd
	LVS_AGENT=$(AGENT) tests/run-tier.sh $(CARGO) test $(ALL) --test 'guest_*' --no-fail-fast

# The test targets are listed because they enable features of the dependencies that a build of the programs alone would not.
.PHONY: programs
programs:
	$(CARGO) build $(ALL) --bins --test 'kernel*' --test 'guest_*'

# Builds what is missing, once; KUBEBUILDER_ASSETS or PATH may provide it instead.
tools-api: ## provides etcd, kube-apiserver, kubectl and helm: builds them once, in a few minutes, if they are missing
	tests/tools/build.sh api

tools-cluster: ## the same, and the other programs of a cluster
	tests/tools/build.sh cluster

# One test boots a guest. The tests mostly wait, so more of them run at once than there are processors.
test-api: setup tools-api ## runs the tests that start a Kubernetes API server, with the chart and the controller
	$(CARGO) build $(ALL) --bins --test api
	LVS_AGENT=$(AGENT) tests/run-tier.sh $(CARGO) test $(ALL) --test api --no-fail-fast -- --test-threads=6

# One after the other, because they share one cluster; uncaptured, because they report their progress.
test-e2e: setup-cluster tools-cluster ## runs the tests on a cluster of three nodes, with the images and the chart built from this source
	$(CARGO) build $(ALL) --bins --test 'e2e_*'
	LVS_AGENT=$(AGENT) LVS_CONTROLLER=$(CONTROLLER) \
	  tests/run-tier.sh $(CARGO) test $(ALL) --test 'e2e_*' --no-fail-fast -- --test-threads=1 --nocapture

cluster: setup-cluster tools-cluster ## starts a cluster of three nodes with the operator, and says how to use it
	$(CARGO) build $(ALL) --bins
	LVS_AGENT=$(AGENT) LVS_CONTROLLER=$(CONTROLLER) $(LAB) cluster-up

cluster-down: ## ends that cluster and removes all of its files and devices
	@test -x $(LAB) || $(CARGO) build $(ALL) --bins
	@$(LAB) cluster-down

.PHONY: setup-cluster
setup-cluster:
	@tests/setup.sh cluster

chart-test: ## tests the Helm chart without a cluster: lint, what it renders to, what it refuses, Argo CD's health script
	@tests/tools/build.sh helm >/dev/null
	tests/chart/run.sh

bench-program: setup ## compares programming the kernel: ipvsadm, keepalived, the agent, the floor
	$(CARGO) build --release -p lvs-agent -p lvs-tests
	LVS_AGENT=$(abspath $(TARGET)/release/lvs-agent) $(abspath $(TARGET)/release/lab) run --memory 2G --timeout 3600 -- $(abspath $(TARGET)/release/lab) bench-program

bench-latency: setup tools-cluster ## compares how fast a changed EndpointSlice reaches the kernel: the operator, kube-proxy
	$(CARGO) build --release -p lvs-agent -p lvs-controller -p lvs-tests
	LVS_AGENT=$(abspath $(TARGET)/release/lvs-agent) LVS_CONTROLLER=$(abspath $(TARGET)/release/lvs-controller) \
	  $(abspath $(TARGET)/release/lab) bench-latency

bench-large: setup tools-cluster ## measures the operator with 10,000 virtual services, and with one of 10,000 real servers
	$(CARGO) build --release -p lvs-agent -p lvs-controller -p lvs-tests
	export LVS_AGENT=$(abspath $(TARGET)/release/lvs-agent) LVS_CONTROLLER=$(abspath $(TARGET)/release/lvs-controller); \
	  $(abspath $(TARGET)/release/lab) bench-latency --alone 10000; \
	  $(abspath $(TARGET)/release/lab) bench-latency --alone --endpoints 10000 1

# Each failure, KILLS times with each program.
KILLS ?= 50
bench-failover: setup ## compares how long clients get no answer when a director fails: the agent, keepalived; KILLS (50) times
	$(CARGO) build --release -p lvs-agent -p lvs-tests
	LVS_AGENT=$(abspath $(TARGET)/release/lvs-agent) $(abspath $(TARGET)/release/lab) bench-failover --kills $(KILLS)

# Each row, ROUNDS times. Client and servers are one process, with two sockets for each connection.
ROUNDS ?= 20
bench-connections: setup ## counts the connections that go on when a director fails and a real server is replaced; ROUNDS (20) times
	$(CARGO) build --release -p lvs-agent -p lvs-tests
	LVS_AGENT=$(abspath $(TARGET)/release/lvs-agent) $(abspath $(TARGET)/release/lab) run --memory 2G --timeout 14400 -- \
	  sh -c 'ulimit -n 65536 && exec $(abspath $(TARGET)/release/lab) bench-connections --rounds $(ROUNDS)'

# The cheap checks come first; checks that share a build follow each other.
lint: deny crate-edges clippy structure check-docs check-crates ## checks everything that needs no test run

clippy: ## checks the formatting, and the source with rustc's and Clippy's warnings denied
	$(CARGO) fmt --all --check
	$(CARGO) clippy $(ALL) --all-targets -- -D warnings

deny: $(DENY) ## checks the licences, duplicates, sources and known vulnerabilities of the dependencies
	$(DENY) --workspace check licenses bans sources
	@if timeout 120 $(DENY) fetch db >/dev/null 2>&1; then \
	  $(DENY) --workspace check --disable-fetch advisories; \
	else \
	  echo '*** NOT CHECKED: the database of known vulnerabilities (RustSec) cannot be fetched from here ***' >&2; \
	fi

$(DENY):
	$(CARGO) install cargo-deny --version $(DENY_VERSION) --locked --root $(TOOLS)/cargo-deny-$(DENY_VERSION)

crate-edges: ## checks that no crate has a dependency that its layer forbids
	tests/crate-edges.sh

# The test target is listed because it enables the same features of the dependencies as the tiers, which then share the build.
structure: ## checks the modules, types, files and functions of every crate
	$(CARGO) build $(ALL) --bin structure --test kernel_lab
	$(abspath $(TARGET)/debug/structure)

# Includes private items, which have most of the documentation. The example is listed because it enables the features of the
# dependencies that Clippy has built. `lab` and `lvs-agent` are left out, since their pages would collide with those of their
# libraries.
check-docs: ## checks the documentation with rustdoc's warnings denied
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc $(ALL) --no-deps --document-private-items \
	  --lib --bin crdgen --bin lvs-controller --bin structure --example list

check-crates: ## checks that each crate compiles alone, and the agent without Kubernetes
	tests/check-crates.sh

fmt: ## formats the source
	$(CARGO) fmt --all

generate: ## writes the files that are generated from the API types: the CRDs and docs/api.md
	$(CARGO) run -p lvs-crd --bin crdgen -- --write .

clean: ## removes everything that was built
	$(CARGO) clean
