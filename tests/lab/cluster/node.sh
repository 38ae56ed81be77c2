# Runs a guest as a node of a Kubernetes cluster: starts a container runtime and a kubelet, then runs scripts.
#
# The root is the host's own file system. A node writes to its disk, which is mounted over /var and survives a reboot, and to
# /run, which is in memory. The node's configuration is in /run/node.

# Binds the host's files that the node needs to /run/node, since the mount over /var may hide them.
take_files() {
  mkdir -p /run/node/cni
  for file in "lab $NODE_LAB" "kubelet $NODE_KUBELET" "kubeconfig $NODE_KUBECONFIG" "ca.crt $NODE_AUTHORITY" "images.tar $NODE_IMAGES" \
    "kube-proxy $NODE_PROXY" "kube-proxy.kubeconfig $NODE_PROXY_KUBECONFIG"; do
    touch "/run/node/${file%% *}"
    mount --bind "${file#* }" "/run/node/${file%% *}"
  done
}

mount_disk() {
  mount -o noatime,nobarrier /dev/ubda /var
  mkdir -p /var/lib /var/log /var/tmp
  ln -sfn /run /var/run
  # cadvisor reads the clock rate, which this kernel does not have in /proc/cpuinfo.
  { cat /proc/cpuinfo; echo 'cpu MHz : 2000.000'; } >/run/node/cpuinfo
  mount --bind /run/node/cpuinfo /proc/cpuinfo
}

set_up_network() {
  hostname "$NODE"
  ip addr add "$NODE_ADDRESS/24" dev vec0
  ip link set vec0 up
  ip route add default via "$NODE_GATEWAY"
  sysctl -qw net.ipv4.ip_forward=1
  echo "$NODE_ROUTES" | while read -r network neighbour; do
    ip route add "$network" via "$neighbour"
  done
}

start_containerd() {
  cat >/run/node/cni/10-lab.conflist <<END
{"cniVersion": "1.0.0", "name": "lab", "plugins": [{"type": "bridge", "bridge": "cni0", "isGateway": true,
 "ipam": {"type": "host-local", "dataDir": "/var/lib/cni", "ranges": [[{"subnet": "$NODE_PODS"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]}
END
  cat >/run/node/containerd.toml <<END
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
address = "/run/containerd/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
path = "/var/lib/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "$NODE_PAUSE"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "/run/node/cni"
END
  containerd --config /run/node/containerd.toml >>/var/log/containerd.log 2>&1 &
  until ctr --timeout 5s --connect-timeout 5s version >/dev/null 2>&1; do
    kill -0 $! || { cat /var/log/containerd.log >&2; exit 1; }
    sleep 0.1
  done
}

# Imports the images, unless they are on the disk from before a reboot.
import_images() {
  if ! ctr -n k8s.io images list -q | grep -qxF "$NODE_PAUSE"; then
    ctr -n k8s.io images import /run/node/images.tar >/dev/null
    sync
  fi
}

# keep NAME COMMAND...: runs a program and restarts it whenever it ends, as an init system does.
keep() {
  local log=/var/log/$1.log
  shift
  while :; do "$@" >>"$log" 2>&1 || true; sleep 1; done &
}

start_kubelet() {
  cat >/run/node/kubelet.yaml <<END
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: false}, x509: {clientCAFile: /run/node/ca.crt}}
# Only the API server has a certificate of the authority.
authorization: {mode: AlwaysAllow}
# Nothing answers there, but the kubelet warns about pods without a DNS server.
clusterDNS: [10.96.0.10]
cgroupDriver: cgroupfs
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
enforceNodeAllocatable: []
failSwapOn: false
localStorageCapacityIsolation: false
makeIPTablesUtilChains: false
resolvConf: ""
volumePluginDir: /var/lib/kubelet/volume-plugins
END
  keep kubelet /run/node/kubelet --config /run/node/kubelet.yaml --kubeconfig /run/node/kubeconfig --hostname-override "$NODE" \
    --node-ip "$NODE_ADDRESS"
}

# In mode iptables and with iptables-legacy, since this kernel's nftables has no NAT.
start_kube_proxy() {
  mkdir -p /run/node/bin
  for program in iptables iptables-save iptables-restore ip6tables ip6tables-save ip6tables-restore; do
    ln -s "/usr/sbin/${program%%-*}-legacy${program#"${program%%-*}"}" "/run/node/bin/$program"
  done
  keep kube-proxy env PATH="/run/node/bin:$PATH" /run/node/kube-proxy --proxy-mode iptables \
    --kubeconfig /run/node/kube-proxy.kubeconfig --hostname-override "$NODE"
}

modprobe overlay
take_files
mount_disk
set_up_network
start_containerd
import_images
start_kubelet
start_kube_proxy
exec /run/node/lab run-scripts
