#!/usr/bin/env bash
# Runs a tier of tests and fails when it fails, and also when not a single test ran in it.
set -euo pipefail

log=$(mktemp)
trap 'rm -f "$log"' EXIT
"$@" 2>&1 | tee "$log"
if ! grep -Eq '^test result: ok\. [1-9]' "$log"; then
  echo "no test ran: $*" >&2
  exit 1
fi
