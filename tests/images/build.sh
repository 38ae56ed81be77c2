#!/usr/bin/env bash
# Makes the images of the controller and of the agent, without a daemon and without a registry, and prints the path of an archive
# that `ctr images import` takes.
#
#   build.sh AGENT CONTROLLER FOLDER
#
# AGENT and CONTROLLER are the programs just built; the archive is made in FOLDER. As in the Containerfile, below them is the Debian
# that they were built on, with nft, iptables and modprobe. It is made once by mmdebstrap and kept in the user's cache, named after
# this script; remove it there to have a newer one. Each image has the tags `one` and `two`, for upgrades from one to the other. A
# third one, lvs-operator.test/pause, sleeps: it holds the namespaces of a pod.
set -euo pipefail

say() { echo "images: $*" >&2; }
fail() { say "$*"; exit 1; }
[[ $# -eq 3 ]] || fail "usage: build.sh AGENT CONTROLLER FOLDER"
agent=$(realpath "$1") controller=$(realpath "$2") folder=$(realpath -m "$3")

# What was linked against this machine's C library runs on the same release.
. /etc/os-release
suite=${VERSION_CODENAME?}
self=$(sha256sum "$0" | cut -c1-12)
cache=$HOME/.cache/lvs-operator/images
base=$cache/$suite-$self.tar
mkdir -p "$cache" "$folder"

# Makes the root file system below every program, unless it is there.
exec 9>"$cache/lock"
flock --nonblock 9 || { say "waiting for another build"; flock 9; }
if [[ ! -e $base ]]; then
  began=$SECONDS
  say "making the root file system of Debian $suite, once, in $cache: about a minute"
  command -v mmdebstrap >/dev/null || fail "needs mmdebstrap: run \`make setup\`"
  # The machine's own mirrors, and of them those of the distribution only.
  sources=()
  for file in /etc/apt/sources.list /etc/apt/sources.list.d/debian.sources; do
    [[ ! -s $file ]] || sources+=("$file")
  done
  mmdebstrap --quiet --variant=essential --include=nftables,iptables,kmod \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' "$suite" "$base.part.tar" "${sources[@]}" >&2
  mv "$base.part.tar" "$base"
  say "made in $((SECONDS - began)) s"
fi
flock --unlock 9

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
digest() { sha256sum "$1" | cut -d' ' -f1; }
cp --reflink=auto "$base" base.tar
below=$(digest base.tar)

# layer PROGRAM NAME: a layer with one program, without what only a debugger reads.
layer() {
  install -D -m 0755 "$1" "$2/usr/local/bin/$2"
  strip "$2/usr/local/bin/$2"
  tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$2" -cf "$2.tar" usr
}
layer "$agent" lvs-agent
layer "$controller" lvs-controller

# image NAME LAYER USER ENTRYPOINT TAG...: its configuration, and its line of the archive's table of contents.
image() {
  local name=$1 layer=$2 user=$3 entrypoint=$4 layers='"base.tar"' digests="\"sha256:$below\"" tags=()
  shift 4
  if [[ -n $layer ]]; then
    layers+=",\"$layer.tar\"" digests+=",\"sha256:$(digest "$layer.tar")\""
  fi
  cat >"$name.json" <<END
{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[$digests]},
"config":{"User":"$user","Entrypoint":$entrypoint,"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]}}
END
  for tag; do tags+=("\"lvs-operator.test/$name:$tag\""); done
  contents+=("{\"Config\":\"$name.json\",\"RepoTags\":[$(IFS=,; echo "${tags[*]}")],\"Layers\":[$layers]}")
}
contents=()
image lvs-agent lvs-agent "" '["/usr/local/bin/lvs-agent"]' one two
image lvs-controller lvs-controller 65532:65532 '["/usr/local/bin/lvs-controller"]' one two
image pause "" "" '["/bin/sleep","infinity"]' one
(IFS=,; echo "[${contents[*]}]") >manifest.json

tar -cf images.tar.part manifest.json lvs-agent.json lvs-controller.json pause.json base.tar lvs-agent.tar lvs-controller.tar
mv images.tar.part "$folder/images.tar"
echo "$folder/images.tar"
