//! The names of files in a control plane's directory, apart from logs and kubeconfigs.

pub(super) const AUTHORITY: &str = "ca.crt";
pub(super) const SERVER_CERTIFICATE: &str = "server.crt";
pub(super) const SERVER_KEY: &str = "server.key";
pub(super) const KUBELET_CLIENT_CERTIFICATE: &str = "kubelet-client.crt";
pub(super) const KUBELET_CLIENT_KEY: &str = "kubelet-client.key";
pub(super) const SERVICE_ACCOUNT_KEY: &str = "service-accounts.key";
pub(super) const SERVICE_ACCOUNT_PUBLIC_KEY: &str = "service-accounts.pub";
pub(super) const TOKENS: &str = "tokens.csv";
pub(super) const ETCD_DATA: &str = "etcd";
pub(super) const ETCD_SOCKET: &str = "etcd.sock";
pub(super) const ETCD_PEER_SOCKET: &str = "etcd-peer.sock";
pub(super) const KUBECTL_CACHE: &str = "kubectl-cache";
