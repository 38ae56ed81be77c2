#!/usr/bin/env bash
# Provides the programs of a Kubernetes cluster, and prints a line "NAME PATH" for each.
#
#   build.sh helm      helm
#   build.sh api       etcd, kubectl, kube-apiserver and helm: enough to try the operator
#   build.sh cluster   these and the other programs of a cluster
#   build.sh --find …  the same, but what is missing is an error and nothing is built
#   build.sh --check … fails if something is missing and cannot be built; prints and builds nothing
#
# They come from $KUBEBUILDER_ASSETS if that is set, from PATH if it has all of the set, and are built from go.mod otherwise.
# helm works with every release, so it comes from the first of the three that has it. The programs are built into a folder of
# the user's cache that is named after a hash of go.mod and go.sum, and only missing ones are built. A program appears in the
# folder when it is complete. Of two runs at the same time, the second waits, and shows the progress of the first.
set -euo pipefail
# Read before the folder changes: it may be relative.
assets=${KUBEBUILDER_ASSETS:+$(realpath -m "$KUBEBUILDER_ASSETS")}
cd "$(dirname "$0")"

api=(etcd kubectl kube-apiserver)
cluster=("${api[@]}" kube-controller-manager kube-scheduler kubelet kube-proxy)

say() { echo "tools: $*" >&2; }
fail() { say "$*"; exit 1; }
usage() { fail "usage: build.sh [--find|--check] helm|api|cluster"; }
clock() { printf '%d:%02d' $(($1 / 60)) $(($1 % 60)); }

mode=build
[[ ${1-} != --find && ${1-} != --check ]] || { mode=${1#--}; shift; }
[[ $# -eq 1 ]] || usage
set_name=$1
case $set_name in
  helm) programs=() ;;
  api) programs=("${api[@]}") ;;
  cluster) programs=("${cluster[@]}") ;;
  *) usage ;;
esac

hash=$(cat go.mod go.sum | sha256sum | cut -c1-12)
folder=$HOME/.cache/lvs-operator/tools/kubernetes-$hash

# The path of each program; programs that are not listed are, or will be, in the folder.
declare -A places
if [[ -n $assets ]]; then
  lacking=()
  for program in ${programs[@]+"${programs[@]}"}; do
    places[$program]=$assets/$program
    [[ -x $assets/$program ]] || lacking+=("$program")
  done
  ((${#lacking[@]} == 0)) || fail "KUBEBUILDER_ASSETS=$assets lacks ${lacking[*]}; unset it to have everything built"
# All or none: programs of different releases may be incompatible.
elif found=$(for program in ${programs[@]+"${programs[@]}"}; do
  path=$(type -P "$program") && echo "$program $path" || exit 1
done); then
  while read -r program path; do
    [[ -z $program ]] || places[$program]=$path
  done <<<"$found"
fi
programs+=(helm)
if [[ -n $assets && -x $assets/helm ]]; then
  places[helm]=$assets/helm
elif path=$(type -P helm); then
  places[helm]=$path
fi

own=()
for program in "${programs[@]}"; do
  [[ -n ${places[$program]-} ]] || own+=("$program")
done

print() {
  for program in "${programs[@]}"; do echo "$program ${places[$program]-$folder/$program}"; done
}

missing() {
  for program in ${own[@]+"${own[@]}"}; do
    [[ -x $folder/$program ]] || printf '%s ' "$program"
  done
}

missing=$(missing)
if [[ -z $missing ]]; then
  [[ $mode == check ]] || print
  exit
fi
[[ $mode != find ]] || fail "not built yet: ${missing% }; run tests/tools/build.sh $set_name"

PATH=$PATH:/usr/local/go/bin
required=$(sed -n 's/^go //p' go.mod)
command -v go >/dev/null || fail "building the control plane needs Go $required (https://go.dev/dl); or set KUBEBUILDER_ASSETS to a folder with ${own[*]}"
# From 1.21 on, Go fetches the version that go.mod asks for.
[[ $(go env GOVERSION) =~ ^go1\.(2[1-9]|[3-9][0-9]) ]] || fail "$(go version) is too old; install Go $required (https://go.dev/dl)"
[[ $mode != check ]] || exit 0

mkdir -p "$folder"
log=$folder/build.log
total=$folder/build.total
work=$folder/build.work

# Prints the progress of the build, of this run or another. The log has a line for each package, and messages of go itself.
progress() {
  local compiled
  compiled=$(grep -vc '^go: ' "$log" 2>/dev/null) || true
  if [[ -s $total ]]; then
    echo "${compiled:-0} of $(<"$total") packages compiled"
  else
    echo "$(grep -c '^go: downloading' "$log" 2>/dev/null || true) modules fetched"
  fi
}

# Shows time and progress of the build as long as a command succeeds: in place on a terminal, every half minute elsewhere.
watch_while() {
  local began=$SECONDS shown=0
  while "$@"; do
    local line
    line="$(clock $((SECONDS - began))), $(progress)"
    if [[ -t 2 ]]; then
      printf '\r\e[Ktools: %s' "$line" >&2
    elif ((SECONDS - began >= shown + 30)); then
      shown=$((SECONDS - began))
      say "$line"
    fi
    sleep 1 9>&-
  done
  [[ ! -t 2 ]] || printf '\r\e[K' >&2
}

exec 9>"$folder/lock"
locked_elsewhere() { ! flock --nonblock 9; }
if locked_elsewhere; then
  say "waiting for a build that runs already, into $folder"
  watch_while locked_elsewhere
  missing=$(missing)
  if [[ -z $missing ]]; then
    print
    exit
  fi
fi

version_of() { sed -n "s|^\t$1 \(v[^ ]*\).*|\1|p" go.mod | head -n 1; }
kubernetes=$(version_of k8s.io/kubernetes)
IFS=. read -r major minor _ <<<"${kubernetes#v}"

# Prints the package of a program, and the name that go gives to the built file.
package_of() {
  case $1 in
    etcd) echo go.etcd.io/etcd/server/v3 ;;
    helm) echo helm.sh/helm/v3/cmd/helm ;;
    *) echo "k8s.io/kubernetes/cmd/$1" ;;
  esac
}
output_of() {
  case $1 in
    etcd) echo server ;;
    *) echo "$1" ;;
  esac
}
# Prints the linker flags that set the programs' versions. A program ignores variables that it does not have.
flags() {
  echo -n "-s -w -X helm.sh/helm/v3/internal/version.version=$(version_of helm.sh/helm/v3)"
  for place in pkg/lint/rules pkg/chartutil; do
    echo -n " -X helm.sh/helm/v3/$place.k8sVersionMajor=$major -X helm.sh/helm/v3/$place.k8sVersionMinor=$minor"
  done
  for place in component-base/version client-go/pkg/version; do
    echo -n " -X k8s.io/$place.gitVersion=$kubernetes -X k8s.io/$place.gitMajor=$major -X k8s.io/$place.gitMinor=$minor"
  done
}

compiler=
stop() {
  # Ends the whole process group, since go does not end its compilers.
  [[ -z $compiler ]] || kill -- "-$compiler" 2>/dev/null || true
  rm -rf "$work"
  say "interrupted; compiled packages are kept"
  exit 130
}
trap stop INT TERM HUP

# Without cgo the programs are static, and run in any root file system.
export CGO_ENABLED=0 GOTMPDIR=$work
# The compiler is short-lived: collecting garbage would take a tenth of the time.
export GOGC=off GOMEMLIMIT=1GiB

compile() {
  local packages=() program
  for program in $missing; do packages+=("$(package_of "$program")"); done
  go list -deps "${packages[@]}" 2>>"$log" >"$work/packages"
  wc -l <"$work/packages" >"$total"
  go build -v -trimpath -gcflags=all=-dwarf=false -ldflags "$(flags)" -o "$work/programs/" "${packages[@]}" >>"$log" 2>&1
}

say "building Kubernetes $kubernetes from source, once, into $folder"
say "this takes a few minutes; the first time more, because the sources are fetched"
# Removes the files of an interrupted build.
rm -rf "$work" "$total"
mkdir -p "$work/programs"
: >"$log"
began=$SECONDS
set -m
compile 9>&- &
compiler=$!
set +m
compiles() { kill -0 "$compiler" 2>/dev/null; }
watch_while compiles
if ! wait "$compiler"; then
  tail -n 30 "$log" >&2
  fail "${missing% }: not built; the whole log is $log. Fix the cause and run it again; compiled packages are kept"
fi
compiler=
for program in $missing; do mv "$work/programs/$(output_of "$program")" "$folder/$program"; done
rm -rf "$work"
say "${missing% }: built in $(clock $((SECONDS - began)))"
print
