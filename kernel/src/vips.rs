//! Reads and changes the addresses of this network namespace on a socket of their own, for the thread that holds VIPs.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use lvs_model::{AddressConfig, AddressKey, NetworkStep};

use crate::{
    KernelError,
    route::{RouteFailure, RouteSocket},
};

/// How long a wait for local addresses lasts at most, and how often it looks.
const LONGEST_WAIT: Duration = Duration::from_millis(150);
const LOOK: Duration = Duration::from_millis(1);

/// A socket that reads and changes addresses.
pub struct VipSocket {
    route: RouteSocket,
}

/// Why an address could not be added, changed or removed. The text names the address.
#[derive(Clone, Debug, thiserror::Error)]
#[error(transparent)]
pub struct VipFailure(#[from] RouteFailure);

impl VipSocket {
    /// Opens the socket. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// When the kernel refuses to open a socket.
    pub fn connect() -> Result<Self, KernelError> {
        let route = RouteSocket::connect().map_err(KernelError::Network)?;
        Ok(Self { route })
    }

    /// Reads every address.
    ///
    /// # Errors
    /// When the addresses cannot be read completely.
    pub async fn addresses(&mut self) -> Result<BTreeMap<AddressKey, AddressConfig>, KernelError> {
        self.route.addresses().await.map_err(KernelError::Network)
    }

    /// Executes steps for addresses, and returns the result of each. Executing a step twice has the same effect as
    /// executing it once.
    pub async fn execute(&mut self, steps: &[&NetworkStep]) -> Vec<Result<(), VipFailure>> {
        let results = self.route.execute(steps).await.into_iter();
        results.map(|result| result.map_err(VipFailure)).collect()
    }

    /// Waits until packets to addresses that were just added are received; at most 0.15 s.
    ///
    /// The kernel makes an IPv6 address local in a workqueue, after it has acknowledged the addition, even without duplicate address
    /// detection (`addrconf_dad_start` in net/ipv6/addrconf.c). Until then it drops packets to it.
    pub async fn wait_until_local(&mut self, addresses: &BTreeSet<IpAddr>) {
        let mut rest = addresses.clone();
        let wait = async {
            while !rest.is_empty() {
                rest = self.route.not_local(&rest).await.unwrap_or_default();
                if !rest.is_empty() {
                    tokio::time::sleep(LOOK).await;
                }
            }
        };
        let _ = tokio::time::timeout(LONGEST_WAIT, wait).await;
    }
}
