# Prints what the agent may change in a kernel, line by line, without what changes with pods.

# name NAME COMMAND...: prefixes each line of a command's output with NAME.
name() { name=$1; shift; "$@" 2>/dev/null | grep -vE 'cni0|veth' | sed "s/ tentative//; s/^/$name: /"; }

name link ls -1 /sys/class/net
name address sh -c "ip -o addr | sed 's/^[0-9]*: //'"
name rule sh -c 'ip rule; ip -6 rule'
name route sh -c 'ip route show table all; ip -6 route show table all'
name ipvs ipvsadm -Sn
name ipvs-timeout ipvsadm -Ln --timeout
name nft nft list tables
name iptables sh -c 'iptables-legacy-save | grep LVS-OPERATOR'
# Without the sysctls that the kernel computes at boot from the free memory; no agent changes them.
of_memory='tcp_[a-z]*mem|udp_[a-z]*mem|udplite_mem|[a-z_]*_entries|tcp_max_[a-z_]*|inet_peer_threshold|route/gc_thresh|route/max_size|sync_qlen_max'
name sysctl sh -c "grep -rs . /proc/sys/net/ipv4 /proc/sys/net/ipv6 | grep -vE '/($of_memory):'"
