#!/usr/bin/env bash
# Builds the images of the controller and of the agent without a container daemon or a registry, and prints the path of an
# archive for `ctr images import`.
#
#   build.sh AGENT CONTROLLER FOLDER
#
# AGENT and CONTROLLER are the built programs; the archive is written to FOLDER. As in the Containerfile, the base is the
# Debian release of the build machine, with nft, iptables and modprobe. mmdebstrap creates it once, in a directory of the
# user's cache that is named after this script; remove it there to get a newer one. Each image has the tags `one` and `two`,
# for upgrades from one to the other. A third image, lvs-operator.test/pause, sleeps: it holds the namespaces of a pod.
set -euo pipefail

say() { echo "images: $*" >&2; }
fail() { say "$*"; exit 1; }
[[ $# -eq 3 ]] || fail "usage: build.sh AGENT CONTROLLER FOLDER"
agent=$(realpath "$1") controller=$(realpath "$2") folder=$(realpath -m "$3")

# The programs are linked against this machine's C library, so they run on the same release.
. /etc/os-release
suite=${VERSION_CODENAME?}
self=$(sha256sum "$0" | cut -c1-12)
cache=$HOME/.cache/lvs-operator/images
base=$cache/$suite-$self.tar
mkdir -p "$cache" "$folder"

# Creates the root file system of the images, unless it exists.
exec 9>"$cache/lock"
flock --nonblock 9 || { say "waiting for another build"; flock 9; }
if [[ ! -e $base ]]; then
  began=$SECONDS
  say "creating the root file system of Debian $suite, once, in $cache: about a minute"
  command -v mmdebstrap >/dev/null || fail "needs mmdebstrap: run \`make setup\`"
  # The machine's own mirrors of the distribution; other sources are left out.
  sources=()
  for file in /etc/apt/sources.list /etc/apt/sources.list.d/debian.sources; do
    [[ ! -s $file ]] || sources+=("$file")
  done
  mmdebstrap --quiet --variant=essential --include=nftables,iptables,kmod \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' "$suite" "$base.part.tar" "${sources[@]}" >&2
  mv "$base.part.tar" "$base"
  say "created in $((SECONDS - began)) s"
fi
flock --unlock 9

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
digest() { sha256sum "$1" | cut -d' ' -f1; }
cp --reflink=auto "$base" base.tar
below=$(digest base.tar)

# layer PROGRAM NAME: a layer with one program, without its debug information.
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
