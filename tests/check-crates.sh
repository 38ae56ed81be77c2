#!/usr/bin/env bash
# Checks each crate alone, with the features of its dependencies that it asks for itself: in a build of the whole workspace a dependency
# has the features that all crates together ask for, and a crate that forgets one compiles all the same.
#
# The dependencies have other features for each crate, so many of them are checked several times. The profile `alone` keeps
# that cheap, and apart from other builds in target/alone.
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
# The agent of a machine outside of a cluster, which has no client of the API server in it.
alone --package lvs-agent --no-default-features
