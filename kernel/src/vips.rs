//! The addresses of this network namespace, read and changed by themselves: a socket for a thread that does nothing else.

use std::collections::BTreeMap;

use lvs_model::{AddressConfig, AddressKey, NetworkStep};

use crate::{
    KernelError,
    route::{RouteFailure, RouteSocket},
};

/// A socket that reads and changes addresses.
pub struct VipSocket {
    route: RouteSocket,
}

/// An address could not be added, changed or removed. Its text says which, and why.
#[derive(Clone, Debug, thiserror::Error)]
#[error(transparent)]
pub struct VipFailure(#[from] RouteFailure);

impl VipSocket {
    /// Opens the socket. To be called in a tokio runtime.
    ///
    /// # Errors
    /// When the kernel gives no socket.
    pub fn connect() -> Result<Self, KernelError> {
        let route = RouteSocket::connect().map_err(KernelError::Network)?;
        Ok(Self { route })
    }

    /// Reads every address.
    ///
    /// # Errors
    /// When they cannot be read in full.
    pub async fn addresses(&self) -> Result<BTreeMap<AddressKey, AddressConfig>, KernelError> {
        self.route.addresses().await.map_err(KernelError::Network)
    }

    /// Executes steps that concern addresses, and returns what became of each. Executing twice equals executing once.
    pub async fn execute(&self, steps: &[&NetworkStep]) -> Vec<Result<(), VipFailure>> {
        let results = self.route.execute(steps).await.into_iter();
        results.map(|result| result.map_err(VipFailure)).collect()
    }
}
