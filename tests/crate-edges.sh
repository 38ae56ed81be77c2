#!/usr/bin/env bash
# Refuses dependencies that would break the layers: the model depends on no async runtime, Kubernetes client or netlink; the
# API types on no async runtime; the netlink family on neither Kubernetes nor the model; VRRP on no socket and no other crate.
set -euo pipefail
cd "$(dirname "$0")/.."

status=0
# refuse CRATE PATTERN: fails if the name of a direct or indirect dependency of CRATE (no dev dependency) matches PATTERN as
# a whole.
refuse() {
  local tree found
  tree=$(cargo tree --package "$1" --edges normal --prefix none --all-features --format '{p}')
  found=$(tail -n +2 <<<"$tree" | cut -d' ' -f1 | sort -u | grep -Ex "$2" | paste -sd' ' || true)
  if [[ -n $found ]]; then
    echo "crate-edges: $1 must not depend on: $found" >&2
    status=1
  fi
}
refuse lvs-model 'tokio|kube|kube-.*|.*netlink.*|nftables|k8s-openapi'
refuse lvs-crd 'tokio|.*netlink.*'
refuse lvs-controller 'rtnetlink|ipvs-netlink|lvs-agent|lvs-kernel'
refuse lvs-kernel 'kube|kube-.*|k8s-openapi|axum|lvs-crd'
refuse lvs-vrrp 'tokio|mio|socket2|nix|kube|kube-.*|k8s-openapi|.*netlink.*|lvs-.*'
refuse ipvs-netlink 'kube|kube-.*|k8s-openapi|lvs-.*'
exit $status
