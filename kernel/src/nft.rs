//! The nft table that masquerades packets of NAT services, by the program nft.

mod ruleset;

use std::io;

use lvs_model::Masquerade;
use nftables::schema::Nftables;
use thiserror::Error;
use tracing::debug;

use crate::program::{self, ProgramError};

/// A change of the table, or a look at it, that failed.
#[derive(Debug, Error)]
pub enum NftError {
    /// The program is not there.
    #[error("masquerading needs the program nft: apt-get install nftables, or the like")]
    NoProgram,
    /// The program does not run.
    #[error("running nft")]
    Run(#[source] io::Error),
    /// The kernel lacks something.
    #[error(
        "{doing}: the kernel lacks NAT for nftables: load modules nft_chain_nat, nft_masq and nft_ct"
    )]
    Unsupported { doing: &'static str },
    /// The program refuses.
    #[error("{doing}: nft says: {says}")]
    Refused { doing: &'static str, says: String },
    /// The commands for it cannot be written down.
    #[error("writing commands for nft")]
    Write(#[source] serde_json::Error),
}

/// Reads the table. `None`: there is none. One with anything in it that `set` does not make is an empty `Masquerade`, so
/// that it differs from any that is wanted. Without the program, or nftables in the kernel, there is nothing to see.
pub(crate) async fn observe() -> Result<Option<Masquerade>, NftError> {
    let list = ["-j", "list", "table", "inet", ruleset::TABLE];
    let listing = match run("reading the nft table", &list, "").await {
        Ok(listing) => listing,
        Err(NftError::NoProgram) => return Ok(None),
        Err(NftError::Refused { says, .. }) if is_absence(&says) => return Ok(None),
        Err(NftError::Unsupported { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let masquerade = match serde_json::from_str(&listing) {
        Ok(listing) => ruleset::decode(&listing),
        Err(error) => {
            debug!(%error, "nft table not understood");
            None
        }
    };
    Ok(Some(masquerade.unwrap_or_default()))
}

/// Makes the table hold exactly this, in one transaction.
pub(crate) async fn set(masquerade: &Masquerade) -> Result<(), NftError> {
    apply("replacing the nft table", &ruleset::replace(masquerade)).await
}

/// Removes the table. One that is gone is fine.
pub(crate) async fn remove() -> Result<(), NftError> {
    apply("removing the nft table", &ruleset::remove()).await
}

async fn apply(doing: &'static str, commands: &Nftables<'_>) -> Result<(), NftError> {
    let commands = serde_json::to_string(commands).map_err(NftError::Write)?;
    run(doing, &["-j", "-f", "-"], &commands).await.map(drop)
}

/// Runs the program and returns what it prints. The nftables crate would run it too, but keeps its complaints from us.
async fn run(doing: &'static str, arguments: &[&str], input: &str) -> Result<String, NftError> {
    let result = program::run("nft", arguments, input).await;
    result.map_err(|error| match error {
        ProgramError::NotThere => NftError::NoProgram,
        ProgramError::Run(source) => NftError::Run(source),
        ProgramError::Refused(complaint) => refusal(doing, &complaint),
    })
}

/// Takes the program's complaint without what stands before it: `internal:0:0-0: Error: ` for commands in JSON.
fn refusal(doing: &'static str, complaint: &str) -> NftError {
    let says = complaint
        .split_once("Error: ")
        .map_or(complaint, |(_, says)| says);
    if says.contains("Operation not supported") {
        return NftError::Unsupported { doing };
    }
    NftError::Refused {
        doing,
        says: says.to_owned(),
    }
}

/// `nft` has one exit status for everything; its words are English always.
fn is_absence(says: &str) -> bool {
    says.contains("No such file or directory")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nft_complains_of_is_told_without_what_stands_before_it() {
        let told = |complaints| refusal("replacing the nft table", complaints).to_string();
        assert_eq!(
            told("internal:0:0-0: Error: Could not process rule: File exists"),
            "replacing the nft table: nft says: Could not process rule: File exists"
        );
        assert_eq!(
            told("internal:0:0-0: Error: Could not process rule: Operation not supported"),
            "replacing the nft table: the kernel lacks NAT for nftables: load modules nft_chain_nat, nft_masq and nft_ct"
        );
        let absent = refusal("reading the nft table", "Error: No such file or directory");
        assert!(matches!(absent, NftError::Refused { says, .. } if is_absence(&says)));
    }
}
