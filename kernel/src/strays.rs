//! Reads and writes the rules that mark packets to VIPs: by nftables, or by iptables on a kernel without `nft_socket` or `nft_fib`.

use lvs_model::Strays;
use thiserror::Error;

use crate::{
    iptables::{self, IptablesError},
    nft::{self, NftError},
};

/// Why the rules could not be read or changed.
#[derive(Debug, Error)]
pub enum StrayError {
    /// The program nft is not installed.
    #[error(
        "keeping connections over a change of real servers, and a director that is a real server, need the program nft: apt-get install \
         nftables, or the like"
    )]
    NoProgram,
    /// nftables failed.
    #[error(transparent)]
    Nft(NftError),
    /// iptables failed, on a kernel without `nft_socket` or `nft_fib`.
    #[error(
        "packets cannot be marked, for connections that another real server had or on a director that is a real server: this kernel lacks \
         nft_socket or nft_fib for nftables"
    )]
    Iptables(#[from] IptablesError),
}

impl From<NftError> for StrayError {
    fn from(error: NftError) -> Self {
        match error {
            NftError::NoProgram => Self::NoProgram,
            NftError::Unsupported { .. }
            | NftError::Run(_)
            | NftError::Refused { .. }
            | NftError::Hung { .. }
            | NftError::Write(_) => Self::Nft(error),
        }
    }
}

/// Reads our rules. `None` if there are none.
///
/// Without the program nft, a table of ours may exist unseen: that is an error, unless the rules are in iptables.
pub(crate) async fn observe() -> Result<Option<Strays>, StrayError> {
    match nft::observe_strays().await {
        Ok(Some(found)) => Ok(Some(found)),
        Ok(None) => Ok(iptables::strays::observe().await?),
        Err(error @ NftError::NoProgram) => match iptables::strays::observe().await? {
            Some(found) => Ok(Some(found)),
            None => Err(error.into()),
        },
        Err(error) => Err(error.into()),
    }
}

/// Makes our rules set exactly these marks. What the kernel needs of nftables depends on the rules, so those in the other place are
/// removed.
pub(crate) async fn set(strays: &Strays) -> Result<(), StrayError> {
    match nft::set_strays(strays).await {
        Ok(()) => Ok(iptables::strays::remove().await?),
        Err(NftError::Unsupported { .. }) => {
            iptables::strays::set(strays).await?;
            match nft::remove_strays().await {
                Ok(()) | Err(NftError::Unsupported { .. }) => Ok(()),
                Err(error) => Err(error.into()),
            }
        }
        Err(error) => Err(error.into()),
    }
}

/// Removes our rules.
pub(crate) async fn remove() -> Result<(), StrayError> {
    match nft::remove_strays().await {
        Ok(()) | Err(NftError::Unsupported { .. } | NftError::NoProgram) => {
            Ok(iptables::strays::remove().await?)
        }
        Err(error) => Err(error.into()),
    }
}
