#!/usr/bin/env bash
# Checks each crate alone, with only the features of its dependencies that it declares itself. In a build of the whole
# workspace, a dependency has the features that all crates together declare, so a missing declaration is not noticed there.
#
# Many dependencies are checked several times, since each crate selects other features. The profile `alone` makes that
# cheap, and separate from other builds, in target/alone.
set -euo pipefail
cd "$(dirname "$0")/.."
export RUSTFLAGS='-D warnings'

# alone ARGUMENTS: checks the package that the arguments select.
alone() {
  echo "check-crates: $*"
  "${CARGO:-cargo}" check --quiet --profile alone "$@"
}

members=$(cargo tree --workspace --depth 0 --prefix none --format '{p}' | cut -d' ' -f1 | sort -u)
for member in $members; do
  alone --package "$member"
done
# The agent for files only, without a client of the API server.
alone --package lvs-agent --no-default-features
