# The project's recipes. `make help` lists them.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
TARGET := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)
LAB := $(abspath $(TARGET)/debug/lab)
# The agent that the tests run: it can be killed at any step of a plan.
AGENT := $(abspath $(TARGET)/debug/lvs-agent)
CONTROLLER := $(abspath $(TARGET)/debug/lvs-controller)
# The rules of `structure`: circles, types, docs, sizes.
RULES := circles,types,docs,sizes
# What every tier builds. A single package would get other features of the dependencies, and they would be compiled again.
ALL := --workspace --all-features
DENY_VERSION := 0.20.2
TOOLS := $(HOME)/.cache/lvs-operator/tools
DENY := $(TOOLS)/cargo-deny-$(DENY_VERSION)/bin/cargo-deny

.PHONY: help setup build demo demo-files test test-unit test-kernel test-reboot tools-api test-api tools-cluster test-e2e cluster cluster-down bench-program bench-latency lint clippy deny crate-edges structure check-docs check-crates fmt generate chart-test clean

help: ## lists these recipes
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name what; do printf '  make %-15s %s\n' "$$name" "$$what"; done

setup: ## installs what the lab needs (as root; otherwise says what to install)
	@tests/setup.sh

build: ## builds everything
	$(CARGO) build $(ALL) --all-targets

demo: ## shows the operator: NAT, DR and TUN by files, then by `kubectl apply`; the first time builds an API server meanwhile
	@CARGO="$(CARGO)" TARGET="$(abspath $(TARGET))" tests/demo.sh

demo-files: ## shows the first part only, without Kubernetes: three machines and a file
	@CARGO="$(CARGO)" TARGET="$(abspath $(TARGET))" tests/demo.sh files

test: test-unit chart-test test-kernel test-reboot test-api ## runs all tiers but the one that needs a cluster of nodes

# Without the features: the tests of the other tiers are behind them.
test-unit: ## runs the tests that need no kernel of their own
	$(CARGO) test --workspace

# Cargo passes every test binary to the lab instead of starting it. The tier fails if no test ran. The tests of `ipvs` are
# ignored by default, for users of that crate alone; its `speed` tests measure.
test-kernel: setup programs ## runs the kernel tests under a kernel that has IPVS
	LVS_AGENT=$(AGENT) tests/run-tier.sh $(CARGO) test $(ALL) --test 'kernel*' --no-fail-fast \
	  --config 'target."cfg(all())".runner = ["$(LAB)", "run", "--"]' -- --include-ignored --skip speed::

test-reboot: setup programs ## runs the tests that boot guests of their own: the lab's, a reboot, and the service under systemd
	LVS_AGENT=$(AGENT) tests/run-tier.sh $(CARGO) test $(ALL) --test 'guest_*' --no-fail-fast

# The test targets are named for their features of the dependencies, which a build of programs only would not have.
.PHONY: programs
programs:
	$(CARGO) build $(ALL) --bins --test 'kernel*' --test 'guest_*'

# Builds what is missing, once; KUBEBUILDER_ASSETS or PATH may provide it instead.
tools-api: ## provides etcd, kube-apiserver, kubectl and helm: built once, in minutes, unless they are there
	tests/tools/build.sh api

tools-cluster: ## the same, and the other programs of a cluster
	tests/tools/build.sh cluster

# One test boots a guest. Tests wait most of the time, so more of them run at once than there are processors.
test-api: setup tools-api ## runs the tests that start a Kubernetes API server, with the chart and the controller
	$(CARGO) build $(ALL) --bins --test api
	LVS_AGENT=$(AGENT) tests/run-tier.sh $(CARGO) test $(ALL) --test api --no-fail-fast -- --test-threads=6

# One after the other, because they share one cluster; uncaptured, because they report their progress.
test-e2e: setup-cluster tools-cluster ## runs the tests on a cluster of three nodes, with the image and the chart of here
	$(CARGO) build $(ALL) --bins --test 'e2e_*'
	LVS_AGENT=$(AGENT) LVS_CONTROLLER=$(CONTROLLER) \
	  tests/run-tier.sh $(CARGO) test $(ALL) --test 'e2e_*' --no-fail-fast -- --test-threads=1 --nocapture

cluster: setup-cluster tools-cluster ## starts a cluster of three nodes with the operator, and says how to use it
	$(CARGO) build $(ALL) --bins
	LVS_AGENT=$(AGENT) LVS_CONTROLLER=$(CONTROLLER) $(LAB) cluster-up

cluster-down: ## ends that cluster and removes everything of it
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

bench-latency: setup tools-cluster ## compares how fast a changed EndpointSlice is in the kernel: the operator, kube-proxy
	$(CARGO) build --release -p lvs-agent -p lvs-controller -p lvs-tests
	LVS_AGENT=$(abspath $(TARGET)/release/lvs-agent) LVS_CONTROLLER=$(abspath $(TARGET)/release/lvs-controller) \
	  $(abspath $(TARGET)/release/lab) bench-latency

# The cheap checks first, and those that share their builds one after the other.
lint: deny crate-edges clippy structure check-docs check-crates ## checks all that can be checked without running tests

clippy: ## checks the formatting, and the source with rustc's and Clippy's warnings denied
	$(CARGO) fmt --all --check
	$(CARGO) clippy $(ALL) --all-targets -- -D warnings

deny: $(DENY) ## checks the licences, duplicates, sources and known flaws of the dependencies
	$(DENY) --workspace check licenses bans sources
	@if timeout 120 $(DENY) fetch db >/dev/null 2>&1; then \
	  $(DENY) --workspace check --disable-fetch advisories; \
	else \
	  echo '*** NOT CHECKED: the database of known flaws (RustSec) cannot be fetched from here ***' >&2; \
	fi

$(DENY):
	$(CARGO) install cargo-deny --version $(DENY_VERSION) --locked --root $(TOOLS)/cargo-deny-$(DENY_VERSION)

crate-edges: ## checks that no crate has a dependency that its layer forbids
	tests/crate-edges.sh

# The test target is named for its features of the dependencies: the tiers use the same build.
structure: ## checks the modules, types, files and functions of every crate by the rules in RULES
	$(CARGO) build $(ALL) --bin structure --test kernel_lab
	$(abspath $(TARGET)/debug/structure) --check $(RULES)

# Private items too, since most of the documentation is theirs. The example is named for its features of the dependencies, which
# Clippy has checked; the programs `lab` and `lvs-agent` would have the pages of their libraries.
check-docs: ## checks the documentation with rustdoc's warnings denied
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc $(ALL) --no-deps --document-private-items \
	  --lib --bin crdgen --bin lvs-controller --bin structure --example list

check-crates: ## checks that each crate compiles alone, and the agent without Kubernetes
	tests/check-crates.sh

fmt: ## formats the source
	$(CARGO) fmt --all

generate: ## writes what is made from the API types: the CRDs and docs/api.md
	$(CARGO) run -p lvs-crd --bin crdgen -- --write .

clean: ## removes what was built
	$(CARGO) clean
