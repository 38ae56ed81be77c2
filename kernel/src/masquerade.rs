//! Masquerading: by nftables, or by iptables where the kernel has no nftables.

use lvs_model::Masquerade;
use thiserror::Error;

use crate::{
    iptables::{self, IptablesError},
    nft::{self, NftError},
};

/// Masquerading could not be read or set.
#[derive(Debug, Error)]
pub enum MasqueradeError {
    /// nftables.
    #[error(transparent)]
    Nft(#[from] NftError),
    /// iptables, since the kernel has no nftables.
    #[error(transparent)]
    Iptables(#[from] IptablesError),
}

/// Reads what masquerades for us; `None`: nothing.
pub(crate) async fn observe() -> Result<Option<Masquerade>, MasqueradeError> {
    match nft::observe().await? {
        Some(found) => Ok(Some(found)),
        None => Ok(iptables::observe().await?),
    }
}

/// Makes exactly this be masqueraded.
pub(crate) async fn set(masquerade: &Masquerade) -> Result<(), MasqueradeError> {
    match nft::set(masquerade).await {
        Err(NftError::Unsupported { .. }) => Ok(iptables::set(masquerade).await?),
        result => Ok(result?),
    }
}

/// Removes what masquerades for us.
pub(crate) async fn remove() -> Result<(), MasqueradeError> {
    match nft::remove().await {
        Ok(()) | Err(NftError::Unsupported { .. } | NftError::NoProgram) => {
            Ok(iptables::remove().await?)
        }
        Err(error) => Err(error.into()),
    }
}
