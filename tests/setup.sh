#!/usr/bin/env bash
# Installs the missing programs that the lab and the benchmarks need. If this is not root, prints the command instead.
#
#   setup.sh           for one guest and for the machine's own kernel
#   setup.sh cluster   also what the nodes of a cluster need
set -euo pipefail

# program:package; the second line is only for benchmarks and tests.
needed=(ip:iproute2 nft:nftables modprobe:kmod setpriv:util-linux taskset:util-linux
  iptables-legacy:iptables ipvsadm:ipvsadm keepalived:keepalived tcpdump:tcpdump conntrack:conntrack ipset:ipset curl:curl lua5.4:lua5.4 /lib/systemd/systemd:systemd)
PATH=$PATH:/usr/sbin:/sbin
# A node is a guest that uses these programs of this machine; strip and mmdebstrap build the images.
if [[ ${1-} == cluster ]]; then
  needed+=(strip:binutils containerd:containerd runc:runc /usr/lib/cni/bridge:containernetworking-plugins
    mkfs.ext4:e2fsprogs mmdebstrap:mmdebstrap sysctl:procps)
fi

packages=()
for pair in "${needed[@]}"; do
  command -v "${pair%%:*}" >/dev/null || packages+=("${pair##*:}")
done
# If the machine's own kernel has IPVS, no other kernel is needed, except for the nodes of a cluster, which always have
# kernels of their own.
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
  echo "setup: the lab creates network namespaces and must run as root" >&2
  exit 1
fi
