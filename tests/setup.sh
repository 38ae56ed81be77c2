#!/usr/bin/env bash
# Installs what the lab and the comparisons need, where that is missing and this is root. Says what to do otherwise.
#
#   setup.sh           for one guest and for the machine's own kernel
#   setup.sh cluster   also what the nodes of a cluster need
set -euo pipefail

# program:package; the second line is only for comparison and for the tests.
needed=(ip:iproute2 nft:nftables modprobe:kmod setpriv:util-linux taskset:util-linux
  iptables-legacy:iptables ipvsadm:ipvsadm keepalived:keepalived tcpdump:tcpdump conntrack:conntrack ipset:ipset curl:curl lua5.4:lua5.4 /lib/systemd/systemd:systemd)
PATH=$PATH:/usr/sbin:/sbin
# A node is a guest that has these of this machine; strip and mmdebstrap make the images.
if [[ ${1-} == cluster ]]; then
  needed+=(strip:binutils containerd:containerd runc:runc /usr/lib/cni/bridge:containernetworking-plugins
    mkfs.ext4:e2fsprogs mmdebstrap:mmdebstrap sysctl:procps)
fi

packages=()
for pair in "${needed[@]}"; do
  command -v "${pair%%:*}" >/dev/null || packages+=("${pair##*:}")
done
# A machine whose own kernel has IPVS needs no other; the nodes of a cluster are kernels of their own on every machine.
if [[ ${1-} == cluster ]] || { [[ ! -e /proc/net/ip_vs ]] && ! modprobe ip_vs 2>/dev/null; }; then
  command -v linux.uml >/dev/null || packages+=(user-mode-linux)
  command -v cc >/dev/null || packages+=(gcc libc6-dev)
fi

if [[ ${#packages[@]} -gt 0 ]]; then
  install="apt-get install --yes --no-install-recommends ${packages[*]}"
  if [[ $EUID -ne 0 ]]; then
    echo "setup: missing: ${packages[*]}. As root, run: $install" >&2
    exit 1
  fi
  if ! command -v apt-get >/dev/null; then
    echo "setup: missing: ${packages[*]}. Install them; this machine has no apt-get." >&2
    exit 1
  fi
  echo "setup: installing ${packages[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update --quiet
  $install
fi
if [[ $EUID -ne 0 ]]; then
  echo "setup: the lab makes network namespaces and must run as root" >&2
  exit 1
fi
