#!/usr/bin/env bash
# Shows the operator.
#
#   demo.sh files      three machines and a file, without Kubernetes
#   demo.sh failover   two directors, and the power of one is cut
#   demo.sh            the first, and then with `kubectl apply`
#
# The control plane of the second part is built in the background from the start, at the lowest priority and with its output
# in a file. The first part does not wait for it. The build ends with this script; what it has compiled is kept.
#
# CARGO and TARGET are as in the Makefile.
set -euo pipefail
cd "$(dirname "$0")/.."
programs=$TARGET/demo
log=$HOME/.cache/lvs-operator/tools/demo.log
export LVS_AGENT=$programs/lvs-agent LVS_CONTROLLER=$programs/lvs-controller

say() { echo "demo: $*" >&2; }

builder=
start_control_plane_build() {
  ! tests/tools/build.sh --find api >/dev/null 2>&1 || return 0
  # Fails early if the control plane cannot be built.
  tests/tools/build.sh --check api || { say "\`make demo-files\` needs no control plane"; exit 1; }
  mkdir -p "$(dirname "$log")"
  trap end_control_plane_build EXIT
  # A background process of a shell ignores Ctrl-C; the build ends with this shell.
  setpriv --pdeathsig TERM nice -n 19 tests/tools/build.sh api </dev/null >/dev/null 2>"$log" &
  builder=$!
  say "the control plane is built in the background; its log is $log"
}
end_control_plane_build() {
  if [[ -n $(jobs -pr) ]]; then
    kill "$builder"
    wait "$builder" || true
  fi
}

# Builds what a demonstration without Kubernetes needs, and runs it. lvs-model is listed so that it has the same features as in a
# build of the workspace, and nothing is compiled twice.
show() {
  $CARGO build --profile demo -p lvs-model -p lvs-agent -p lvs-tests --all-features --bins
  "$programs/lab" "$1"
}

show_operator() {
  $CARGO build --profile demo --workspace --all-features --bins
  # Waits for the build in the background and shows its progress; a build that has failed is repeated, with its error.
  tests/tools/build.sh api >/dev/null
  "$programs/lab" demo-cluster
}

case ${1-} in
  files)
    tests/setup.sh
    show demo
    ;;
  failover)
    tests/setup.sh
    show demo-failover
    ;;
  '')
    start_control_plane_build
    tests/setup.sh
    say "part 1 of 2: three machines and a file, without Kubernetes"
    show demo
    say "part 2 of 2: the same with \`kubectl apply\`"
    show_operator
    ;;
  *) say "usage: demo.sh [files|failover]"; exit 2 ;;
esac
