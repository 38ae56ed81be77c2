#!/usr/bin/env bash
# Tests the chart without a cluster: lint, the rendered output of each charts/lvs-operator/ci/NAME-values.yaml, values that
# must be refused, the RBAC rules, the CRDs, and Argo CD's health script. UPDATE_EXPECTED=1 writes the output to
# tests/chart/expected/NAME.yaml; review the diff.
set -euo pipefail
cd "$(dirname "$0")/../.."

fail() { echo "chart: $*" >&2; status=1; }
chart=charts/lvs-operator expected=tests/chart/expected status=0 tested=0

helm=$(tests/tools/build.sh --find helm)
helm=${helm#helm }
render() { "$helm" template lvs-operator "$chart" --namespace lvs-system --kube-version 1.33.0 "$@"; }

for values in "$chart"/ci/*-values.yaml; do
  name=$(basename "$values" -values.yaml)
  "$helm" lint --strict --quiet "$chart" --values "$values" >&2 || fail "$name: helm lint refuses it"
  # The CRDs are compared with the types by `cargo test -p lvs-crd`.
  rendered=$(render --values "$values" --set crds.enabled=false) || { fail "$name: does not render"; continue; }
  if [[ -n ${UPDATE_EXPECTED-} ]]; then
    mkdir -p "$expected"
    echo "$rendered" >"$expected/$name.yaml"
  fi
  diff -u "$expected/$name.yaml" - <<<"$rendered" >&2 || fail "$name: the output differs; UPDATE_EXPECTED=1 $0 writes it"
  # Finds rules in roles without a comment above them.
  bare=$(awk '/^- apiGroups:/ && before !~ /^#/ {print NR": "$0} {before = $0}' <<<"$rendered")
  [[ -z $bare ]] || fail "$name: an RBAC rule has no comment with the call that needs it:"$'\n'"$bare"
  tested=$((tested + 1))
done
[[ $tested -gt 0 ]] || fail "no values to test"

# Apart from its Lease, an agent creates nothing; it deletes nothing and reads no Secret. No role has a wildcard.
agent=$(render --show-only templates/agent/rbac.yaml --set 'machines[0].name=rs1,machines[0].user=lvs:rs1')
if found=$(grep -E 'verbs:.*(create|delete|update|\*)|secrets|escalate|impersonate' <<<"$agent"); then
  fail "an agent must not have this right: $found"
fi
lease=$(render --show-only templates/agent/lease.yaml --set admission.enabled=false)
[[ $(grep -A9 '^rules:' <<<"$lease" | grep -E '^- apiGroups|resources:|verbs:') == "- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [create, patch]" ]] || fail "an agent may create and renew Leases, nothing else: $lease"
if found=$(render --values "$chart/ci/full-values.yaml" | sed -n '/^kind: \(Cluster\)\?Role$/,/^---/p' | grep -E '"\*"'); then
  fail "a role has a wildcard: $found"
fi

# There are six CRDs, which are kept at uninstall by default, and none with crds.enabled=false.
crds() { render "$@" | awk '/^kind: CustomResourceDefinition/ {crds++} /helm.sh\/resource-policy: keep/ {kept++} END {print crds + 0, kept + 0}'; }
[[ $(crds) == "6 6" ]] || fail "the chart must hold six CRDs, all of them kept: $(crds)"
[[ $(crds --set crds.keep=false) == "6 0" ]] || fail "crds.keep=false must not keep CRDs"
[[ $(crds --set crds.enabled=false) == "0 0" ]] || fail "crds.enabled=false must leave the CRDs out"

# Each has the API revision, which the controller may read.
[[ $(render | grep -c 'lvs-operator.io/api-revision: ') -eq $(find "$chart/templates/crds" -name '*.yaml' | wc -l) ]] || fail "a CRD has no API revision"
rules=$(render --show-only templates/controller/rbac.yaml)
for crd in "$chart"/templates/crds/*.yaml; do
  grep -qx -- "  - $(basename "$crd" .yaml).lvs-operator.io" <<<"$rules" || fail "the controller has no right to read the revision of $crd"
done

# refuse REASON ARGUMENTS...
refuse() {
  local reason=$1 output
  shift
  if output=$(render "$@" 2>&1); then
    fail "must be refused: $*"
  elif [[ $output != *"$reason"* ]]; then
    fail "must be refused with '$reason': $*: $output"
  fi
}
refuse "additional properties 'replicas' not allowed" --set replicas=2
refuse "additional properties 'privileged' not allowed" --set agent.privileged=true
refuse "does not match pattern" --set agent.image.digest=latest
refuse "got string, want integer" --set controller.replicas=two
refuse "missing property 'user'" --set 'machines[0].name=rs1'
refuse "agent.http.host must not be the loopback" --set monitoring.podMonitor.enabled=true
refuse "does not match pattern" --set agent.stateDir=state
refuse "value must be one of 'labelled', 'all'" --set agent.nodes=some
refuse "the user 'lvs:rs2' must end in ':rs1', the name of its machine" --set 'machines[0].name=rs1,machines[0].user=lvs:rs2'

# Agents run where a label asks for them, or everywhere.
selector() { render --show-only templates/agent/daemonset.yaml "$@" | sed -n '/^      nodeSelector:/,/^      [^ ]/p' | grep '^        ' | xargs; }
[[ $(selector) == "kubernetes.io/os: linux lvs-operator.io/agent: true" ]] || fail "agents must need a label: $(selector)"
[[ $(selector --set agent.nodes=all) == "kubernetes.io/os: linux" ]] || fail "agent.nodes=all must need no label: $(selector --set agent.nodes=all)"

# No module of a tunnel is loaded unless the values name it: ipip, sit and the others add a device to every network namespace.
modules() { render --show-only templates/agent/daemonset.yaml "$@" | sed -n '/^        - load-modules$/,/^        [^-]/p' | sed -n 's/^        - //p' | xargs; }
[[ $(modules) == "load-modules ip_vs" ]] || fail "the init container must load ip_vs only: $(modules)"
[[ $(modules --set 'agent.loadModules.extraModules={fou}') == "load-modules ip_vs fou" ]] || fail "extraModules must be loaded too"

# Pools and groups of the values are hooks, and no hook deletes one.
first=$(render --values "$chart/ci/full-values.yaml" --show-only templates/first-objects.yaml)
[[ $(grep -c 'helm.sh/hook: post-install,post-upgrade' <<<"$first") -eq 2 && $(grep -c 'hook-delete-policy: hook-failed' <<<"$first") -eq 2 ]] ||
  fail "the first pools and groups must be hooks that delete nothing: $first"
refuse "missing property 'addresses'" --set 'addressPools[0].name=public'
refuse "missing property 'nodes'" --set 'directorGroups[0].name=edge'

# Machines outside the cluster share one role; each user has a binding.
machines=$(render --show-only templates/agent/rbac.yaml --set 'machines[0].name=rs1,machines[0].user=lvs:rs1,machines[1].name=rs2,machines[1].user=lvs:rs2')
[[ $(grep -c '^kind: ClusterRole$' <<<"$machines") -eq 2 && $(grep -c '^kind: ClusterRoleBinding$' <<<"$machines") -eq 3 ]] ||
  fail "machines outside the cluster must share one ClusterRole: $(grep '^kind' <<<"$machines" | xargs)"

lua=$(type -P lua5.4 || type -P lua) || { fail "lua5.4 is missing: apt-get install lua5.4"; exit 1; }
"$lua" dist/argocd/health_test.lua || fail "dist/argocd/health.lua"

[[ $status -eq 0 ]] && echo "chart: $tested sets of values, all correct"
exit $status
