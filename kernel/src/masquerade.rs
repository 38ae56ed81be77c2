//! Reads and writes the masquerading rules: by nftables, or by iptables on a kernel without NAT for nftables.

use lvs_model::Masquerade;
use thiserror::Error;

use crate::{
    iptables::{self, IptablesError},
    nft::{self, NftError},
};

/// Why the masquerading rules could not be read or changed.
#[derive(Debug, Error)]
pub enum MasqueradeError {
    /// nftables failed.
    #[error(transparent)]
    Nft(#[from] NftError),
    /// iptables failed, on a kernel without NAT for nftables.
    #[error(transparent)]
    Iptables(#[from] IptablesError),
}

/// Reads our masquerading rules. `None` if there are none.
///
/// Without the program nft, a table of ours may exist unseen: that is an error, unless the rules are in iptables.
pub(crate) async fn observe() -> Result<Option<Masquerade>, MasqueradeError> {
    let by_nft = nft::observe().await;
    match by_nft {
        Ok(Some(found)) => Ok(Some(found)),
        Ok(None) => Ok(iptables::observe().await?),
        Err(error @ NftError::NoProgram) => match iptables::observe().await? {
            Some(found) => Ok(Some(found)),
            None => Err(error.into()),
        },
        Err(error) => Err(error.into()),
    }
}

/// Makes our rules masquerade exactly these services.
pub(crate) async fn set(masquerade: &Masquerade) -> Result<(), MasqueradeError> {
    match nft::set(masquerade).await {
        Err(NftError::Unsupported { .. }) => Ok(iptables::set(masquerade).await?),
        result => Ok(result?),
    }
}

/// Removes our masquerading rules.
pub(crate) async fn remove() -> Result<(), MasqueradeError> {
    match nft::remove().await {
        Ok(()) | Err(NftError::Unsupported { .. } | NftError::NoProgram) => {
            Ok(iptables::remove().await?)
        }
        Err(error) => Err(error.into()),
    }
}
