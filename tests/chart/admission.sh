#!/usr/bin/env bash
# Tries the chart's admission policy and RBAC on the API server of KUBECONFIG (as an administrator):
#   helm install lvs-operator charts/lvs-operator -n lvs-system --create-namespace --set 'machines[0].name=rs1,machines[0].user=lvs:rs1'
#   tests/chart/admission.sh
set -euo pipefail

release=lvs-operator system=lvs-system space=lvs-admission-$$
tried=0 wrong=0

cleanup() {
  kubectl delete namespace "$space" --wait=false >/dev/null 2>&1 || true
  kubectl delete lvsnodes.lvs-operator.io -l "lvs-test=$space" --wait=false >/dev/null 2>&1 || true
  kubectl delete node "$space-n1" --wait=false >/dev/null 2>&1 || true
}
trap cleanup EXIT

objects() {
  cat <<YAML
{apiVersion: v1, kind: Namespace, metadata: {name: $space}}
---
{apiVersion: v1, kind: Node, metadata: {name: $space-n1}}
YAML
  local node
  for node in n1 n2; do
    echo "--- {apiVersion: lvs-operator.io/v1alpha1, kind: LvsNode, metadata: {name: $space-$node, labels: {lvs-test: $space}}, spec: {}}"
  done
  # The machine outside the cluster: rs1 by the chart's value `machines`.
  echo "--- {apiVersion: lvs-operator.io/v1alpha1, kind: LvsNode, metadata: {name: rs1, labels: {lvs-test: $space}}, spec: {identity: \"lvs:rs1\"}}"
  for node in "$space-n1" "$space-n2" rs1; do
    echo "--- {apiVersion: lvs-operator.io/v1alpha1, kind: DirectorBinding, metadata: {name: web-$node, namespace: $space,
      labels: {lvs-operator.io/node: $node}}, spec: {node: $node, virtualService: web, generation: 1, service: {addresses: [192.0.2.1], ports: [{port: 80}]}}}"
  done
  echo "--- {apiVersion: lvs-operator.io/v1alpha1, kind: DirectorBinding, metadata: {name: unlabelled, namespace: $space},
    spec: {node: $space-n1, virtualService: web, generation: 1, service: {addresses: [192.0.2.1], ports: [{port: 80}]}}}"
}

# expect WHAT may|must-not REASON COMMAND...: REASON is a part of the refusal.
expect() {
  local what=$1 verdict=$2 reason=$3 output
  shift 3
  tried=$((tried + 1))
  if output=$("$@" 2>&1); then
    [[ $verdict == may ]] && return
  elif [[ $verdict == must-not && $output == *"$reason"* ]]; then
    return
  fi
  wrong=$((wrong + 1))
  printf 'WRONG: %s %s: %s\n' "$what" "$verdict" "$output" >&2
}

# as USER NODE COMMAND...: NODE is the one that the token of USER is bound to, - for none.
as() {
  local user=$1 node=$2 bound=()
  shift 2
  [[ $node == - ]] || bound=(--as-user-extra "authentication.kubernetes.io/node-name=$node")
  kubectl --as "$user" --as-group system:authenticated "${bound[@]}" "$@"
}

status() {
  local kind=$1 name=$2
  echo "{\"apiVersion\":\"lvs-operator.io/v1alpha1\",\"kind\":\"$kind\",\"metadata\":{\"name\":\"$name\"},\"status\":{\"observedGeneration\":1}}"
}

# report KIND NAME: the call of an agent, server-side apply of the status.
report() {
  local user=$1 node=$2 kind=$3 name=$4
  as "$user" "$node" -n "$space" apply --server-side --force-conflicts --field-manager lvs-agent --subresource status -f <(status "$kind" "$name")
}

objects | sed 's/^--- /---\n/' | kubectl apply --server-side -f - >/dev/null
agent=system:serviceaccount:$system:$release-agent
controller=system:serviceaccount:$system:$release-controller
n1=$space-n1 n2=$space-n2
# A policy takes effect some time after it is made: until an unbound agent is refused by it.
for _ in {1..60}; do
  report "$agent" - LvsNode "$n1" >/dev/null 2>&1 || break
  sleep 0.5
done

expect "the agent of n1: status of its binding" may "" report "$agent" "$n1" DirectorBinding "web-$n1"
expect "the agent of n1: status of its LvsNode" may "" report "$agent" "$n1" LvsNode "$n1"
expect "the agent of n1: status of n2's binding" must-not "of node '$n1' must not write an object of node '$n2'" report "$agent" "$n1" DirectorBinding "web-$n2"
expect "the agent of n1: status of n2's LvsNode" must-not "of node '$n1' must not write an object of node '$n2'" report "$agent" "$n1" LvsNode "$n2"
expect "the agent of n1: status of rs1's LvsNode" must-not "must not write an object of node 'rs1'" report "$agent" "$n1" LvsNode rs1
expect "the agent of n1: status of a binding without its label" must-not "the label lvs-operator.io/node" report "$agent" "$n1" DirectorBinding unlabelled
expect "an agent without a node in its token" must-not "must be bound to a node" report "$agent" - DirectorBinding "web-$n1"

expect "the user of rs1: status of its LvsNode" may "" report lvs:rs1 - LvsNode rs1
expect "the user of rs1: status of its binding" may "" report lvs:rs1 - DirectorBinding web-rs1
expect "the user of rs1: status of n1's LvsNode" must-not "forbidden" report lvs:rs1 - LvsNode "$n1"
expect "the user of rs1: status of n1's binding" must-not "written by the agent of its node '$n1'" report lvs:rs1 - DirectorBinding "web-$n1"
expect "the controller: status of an LvsNode" must-not "forbidden" report "$controller" - LvsNode "$n1"

# part KIND NAME: the call of the controller, server-side apply of a machine's part.
part() {
  objects | sed 's/^--- /---\n/' | as "$controller" - apply --server-side --force-conflicts --field-manager lvs-controller -l "$1" -f -
}
expect "the controller: the LvsNodes" may "" part "lvs-test=$space"
expect "the controller: a binding" may "" part "lvs-operator.io/node=$n2"

for verb in create delete deletecollection update patch; do
  for resource in directorbindings lvsnodes virtualservices directorgroups secrets; do
    expect "an agent: $verb $resource" must-not "no" as "$agent" "$n1" auth can-i "$verb" "$resource" -A
  done
done
expect "an agent: get secrets" must-not "no" as "$agent" "$n1" auth can-i get secrets -A
expect "the controller: create directorbindings" may "" as "$controller" - auth can-i create directorbindings.lvs-operator.io -A
expect "the controller: patch the spec of virtualservices" must-not "no" as "$controller" - auth can-i patch virtualservices.lvs-operator.io -A
expect "the controller: get secrets" must-not "no" as "$controller" - auth can-i get secrets -A

# Whatever RBAC says: an agent with more rights still writes nothing but a status.
kubectl -n "$space" create role more --verb create,update,patch,delete --resource directorbindings.lvs-operator.io >/dev/null
kubectl -n "$space" create rolebinding more --role more --serviceaccount "$system:$release-agent" >/dev/null
for _ in {1..60}; do
  as "$agent" "$n1" -n "$space" auth can-i delete directorbindings.lvs-operator.io >/dev/null && break
  sleep 0.5
done
expect "an agent with more rights: delete" must-not "must not write anything but a status" \
  as "$agent" "$n1" -n "$space" delete directorbinding.lvs-operator.io "web-$n1"
expect "an agent with more rights: change of a spec" must-not "must not write anything but a status" \
  as "$agent" "$n1" -n "$space" patch directorbinding.lvs-operator.io "web-$n1" --type merge -p '{"spec":{"generation":2}}'

# The same with a token that the API server itself has bound to n1.
token=$(kubectl -n "$system" create token "$release-agent" --bound-object-kind Node --bound-object-name "$n1")
server=$(kubectl config view --minify -o jsonpath='{.clusters[0].cluster.server}')
with_token() {
  curl --silent --show-error --insecure --fail-with-body -X PATCH -H "Authorization: Bearer $token" -H 'Content-Type: application/merge-patch+json' \
    "$server/apis/lvs-operator.io/v1alpha1/lvsnodes/$1/status" -d '{"status":{"observedGeneration":3}}'
}
expect "a bound token of n1: status of its LvsNode" may "" with_token "$n1"
expect "a bound token of n1: status of n2's LvsNode" must-not "must not write an object of node" with_token "$n2"

if [[ $wrong -gt 0 ]]; then
  echo "admission: $wrong of $tried are wrong" >&2
  exit 1
fi
echo "admission: $tried tried, all as they must be"
