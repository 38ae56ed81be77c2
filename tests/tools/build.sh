#!/usr/bin/env bash
# Provides the programs of a Kubernetes cluster, and prints a line "NAME PATH" for each.
#
#   build.sh api       etcd, kubectl and kube-apiserver: enough for tests of the API
#   build.sh cluster   these and the rest of a cluster, and helm
#   build.sh --find …  the same, but what is missing is an error and nothing is built
#
# They come from $KUBEBUILDER_ASSETS where that is set, from PATH where all of the set are on it, and are built from go.mod
# otherwise, into a folder of the user's cache that is named after go.mod and go.sum. Only what is missing there is built. A program
# appears in the folder when it is complete, and two runs at once do the work once.
set -euo pipefail
# Read before the folder changes: it may be relative.
assets=${KUBEBUILDER_ASSETS:+$(realpath -m "$KUBEBUILDER_ASSETS")}
cd "$(dirname "$0")"

api=(etcd kubectl kube-apiserver)
cluster=("${api[@]}" kube-controller-manager kube-scheduler kubelet kube-proxy helm)

say() { echo "tools: $*" >&2; }
fail() { say "$*"; exit 1; }
usage() { fail "usage: build.sh [--find] api|cluster"; }
clock() { printf '%d:%02d' $(($1 / 60)) $(($1 % 60)); }

find_only=
[[ ${1-} != --find ]] || { find_only=yes; shift; }
[[ $# -eq 1 ]] || usage
set_name=$1
case $set_name in
  api) programs=("${api[@]}") ;;
  cluster) programs=("${cluster[@]}") ;;
  *) usage ;;
esac

hash=$(cat go.mod go.sum | sha256sum | cut -c1-12)
folder=$HOME/.cache/lvs-operator/tools/kubernetes-$hash

print_from() {
  for program in "${programs[@]}"; do echo "$program $1/$program"; done
}

missing_from() {
  for program in "${programs[@]}"; do
    [[ -x $1/$program ]] || printf '%s ' "$program"
  done
}

if [[ -n $assets ]]; then
  missing=$(missing_from "$assets")
  [[ -z $missing ]] || fail "KUBEBUILDER_ASSETS=$assets lacks ${missing% }; unset it to have everything built"
  print_from "$assets"
  exit
fi
# All or none: programs of different releases need not understand each other.
if found=$(for program in "${programs[@]}"; do
  path=$(type -P "$program") && echo "$program $path" || exit 1
done); then
  echo "$found"
  exit
fi
if [[ -z $(missing_from "$folder") ]]; then
  print_from "$folder"
  exit
fi
missing=$(missing_from "$folder")
[[ -z $find_only ]] || fail "not built yet: ${missing% }; run \`make tools-$set_name\`"

PATH=$PATH:/usr/local/go/bin
required=$(sed -n 's/^go //p' go.mod)
command -v go >/dev/null || fail "building the control plane needs Go $required (https://go.dev/dl); or set KUBEBUILDER_ASSETS to a folder with ${programs[*]}"
# From 1.21 on, Go fetches the version that go.mod asks for.
[[ $(go env GOVERSION) =~ ^go1\.(2[1-9]|[3-9][0-9]) ]] || fail "$(go version) is too old; install Go $required (https://go.dev/dl)"

mkdir -p "$folder"
exec 9>"$folder/lock"
if ! flock --nonblock 9; then
  say "waiting for another build into $folder"
  flock 9
  if [[ -z $(missing_from "$folder") ]]; then
    print_from "$folder"
    exit
  fi
fi
# What an interrupted build has left.
rm -f "$folder"/*.part

version_of() { sed -n "s|^\t$1 \(v[^ ]*\).*|\1|p" go.mod | head -n 1; }
kubernetes=$(version_of k8s.io/kubernetes)
IFS=. read -r major minor _ <<<"${kubernetes#v}"

# Where a program's source is, and what it calls itself.
package_of() {
  case $1 in
    etcd) echo go.etcd.io/etcd/server/v3 ;;
    helm) echo helm.sh/helm/v3/cmd/helm ;;
    *) echo "k8s.io/kubernetes/cmd/$1" ;;
  esac
}
flags_of() {
  echo -n "-s -w"
  case $1 in
    etcd) ;;
    helm)
      echo -n " -X helm.sh/helm/v3/internal/version.version=$(version_of helm.sh/helm/v3)"
      for place in pkg/lint/rules pkg/chartutil; do
        echo -n " -X helm.sh/helm/v3/$place.k8sVersionMajor=$major -X helm.sh/helm/v3/$place.k8sVersionMinor=$minor"
      done
      ;;
    *)
      for place in component-base/version client-go/pkg/version; do
        echo -n " -X k8s.io/$place.gitVersion=$kubernetes -X k8s.io/$place.gitMajor=$major -X k8s.io/$place.gitMinor=$minor"
      done
      ;;
  esac
}

compiler=
log=$folder/build.log
stop() {
  [[ -z $compiler ]] || kill "$compiler" 2>/dev/null || true
  say "interrupted; what is complete is kept"
  exit 130
}
trap stop INT TERM HUP

# Shows, while the compiler runs, how long it has and how much it has compiled: in place on a terminal, every half minute elsewhere.
watch_compiler() {
  local label=$1 began=$SECONDS shown=0
  while kill -0 "$compiler" 2>/dev/null; do
    sleep 1 9>&-
    local line="$label: $(clock $((SECONDS - began))), $(wc -l <"$log") packages compiled"
    if [[ -t 2 ]]; then
      printf '\r\e[Ktools: %s' "$line" >&2
    elif ((SECONDS - began >= shown + 30)); then
      shown=$((SECONDS - began))
      say "$line"
    fi
  done
  [[ ! -t 2 ]] || printf '\r\e[K' >&2
}

build() {
  local program=$1 label=$2 began=$SECONDS
  # Without cgo the programs are static, and run in any root file system.
  CGO_ENABLED=0 go build -v -trimpath -ldflags "$(flags_of "$program")" -o "$folder/$program.part" "$(package_of "$program")" >"$log" 2>&1 &
  compiler=$!
  watch_compiler "$label"
  if ! wait "$compiler"; then
    tail -n 30 "$log" >&2
    fail "$label did not build; the whole log is $log"
  fi
  compiler=
  mv "$folder/$program.part" "$folder/$program"
  say "$label: built in $(clock $((SECONDS - began)))"
}

say "building Kubernetes $kubernetes from source, once, into $folder"
say "this takes a few minutes; the first time more, because the sources are fetched"
number=0
for program in "${programs[@]}"; do
  number=$((number + 1))
  [[ -x $folder/$program ]] || build "$program" "[$number/${#programs[@]}] $program"
done
say "all ${#programs[@]} are built, in $(clock $SECONDS)"
print_from "$folder"
