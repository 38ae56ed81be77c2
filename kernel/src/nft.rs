//! Reads and writes our nft tables, by the program nft: the one that masquerades packets of NAT services, and the one that marks
//! stray packets.

mod ruleset;
mod strays;

use std::io;

use lvs_model::{Masquerade, Strays};
use nftables::schema::Nftables;
use thiserror::Error;
use tracing::debug;

use crate::{
    program::{self, ProgramError},
    route::{Attributes, Frame},
};

const NFGENMSG_LEN: usize = 4;
const NFTA_TABLE: u16 = 1;

/// Why the table could not be read or changed.
#[derive(Debug, Error)]
pub enum NftError {
    /// The program is not installed.
    #[error("masquerading needs the program nft: apt-get install nftables, or the like")]
    NoProgram,
    /// The program cannot be run.
    #[error("running nft")]
    Run(#[source] io::Error),
    /// The kernel lacks a module.
    #[error(
        "{doing}: the kernel lacks NAT for nftables: load modules nft_chain_nat, nft_masq and nft_ct"
    )]
    Unsupported { doing: &'static str },
    /// The program reports an error.
    #[error("{doing}: nft says: {message}")]
    Refused {
        doing: &'static str,
        message: String,
    },
    /// The program did not end in time.
    #[error("{doing}: running nft: {error}")]
    Hung { doing: &'static str, error: String },
    /// The commands cannot be written as JSON.
    #[error("writing commands for nft")]
    Write(#[source] serde_json::Error),
}

/// What nft says on a kernel that lacks something.
const UNSUPPORTED: [&str; 3] = [
    // The type of a chain is missing.
    "Operation not supported",
    // All of netfilter's netlink is missing.
    "Unable to initialize Netlink socket: Protocol not supported",
    // nf_tables is missing.
    "cache initialization failed: Invalid argument",
];

/// Reads the table that masquerades. `None` if there is none, or if the kernel has no nftables.
pub(crate) async fn observe() -> Result<Option<Masquerade>, NftError> {
    observe_table(ruleset::TABLE, ruleset::decode).await
}

/// Reads the table that marks stray packets. `None` if there is none, or if the kernel has no nftables.
pub(crate) async fn observe_strays() -> Result<Option<Strays>, NftError> {
    observe_table(strays::TABLE, strays::decode).await
}

/// Reads a table.
///
/// If it contains anything that we do not write, the result is the empty value: it differs from every desired one, so that the
/// table is written again.
async fn observe_table<T: Default>(
    table: &str,
    decode: impl Fn(&Nftables<'static>) -> Option<T>,
) -> Result<Option<T>, NftError> {
    let list = ["-j", "list", "table", "inet", table];
    let listing = match run("reading the nft table", &list, "").await {
        Ok(listing) => listing,
        Err(NftError::Refused { message, .. }) if is_not_found(&message) => return Ok(None),
        Err(NftError::Unsupported { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let found = match serde_json::from_str(&listing) {
        Ok(listing) => decode(&listing),
        Err(error) => {
            debug!(%error, "cannot parse the listing of the nft table");
            None
        }
    };
    Ok(Some(found.unwrap_or_default()))
}

/// Returns whether a notification of nftables is about a table with one of our names or something in it.
///
/// The payload is a `struct nfgenmsg`, then attributes: the first kind is the name of the table in every message except that at the
/// end of a transaction (`NFTA_TABLE_NAME`, `NFTA_CHAIN_TABLE` and so on).
pub(crate) fn is_of_ours(notification: &Frame) -> bool {
    let attributes = Attributes::after(NFGENMSG_LEN, &notification.payload);
    attributes.is_ok_and(|attributes| {
        let table = attributes.text(NFTA_TABLE);
        [ruleset::TABLE, strays::TABLE].map(Some).contains(&table)
    })
}

/// Makes the table cover exactly these services, in one transaction.
pub(crate) async fn set(masquerade: &Masquerade) -> Result<(), NftError> {
    apply("replacing the nft table", &ruleset::replace(masquerade)).await
}

/// Removes the table. Succeeds if it is gone.
pub(crate) async fn remove() -> Result<(), NftError> {
    apply("removing the nft table", &ruleset::remove()).await
}

/// Makes the table that marks stray packets set exactly these marks, in one transaction.
pub(crate) async fn set_strays(desired: &Strays) -> Result<(), NftError> {
    apply("replacing the nft table", &strays::replace(desired)).await
}

/// Removes the table that marks stray packets. Succeeds if it is gone.
pub(crate) async fn remove_strays() -> Result<(), NftError> {
    apply("removing the nft table", &strays::remove()).await
}

async fn apply(doing: &'static str, commands: &Nftables<'_>) -> Result<(), NftError> {
    let commands = serde_json::to_string(commands).map_err(NftError::Write)?;
    let result = run(doing, &["-j", "-f", "-"], &commands).await;
    result.map(drop).map_err(missing_module)
}

/// Maps "not found" to `Unsupported`. The commands name only what they create, so what is missing is a module
/// (`nf_tables_chain_type_lookup`, net/netfilter/nf_tables_api.c).
fn missing_module(error: NftError) -> NftError {
    match &error {
        NftError::Refused { doing, message } if is_not_found(message) => {
            NftError::Unsupported { doing }
        }
        NftError::Refused { .. }
        | NftError::NoProgram
        | NftError::Run(_)
        | NftError::Unsupported { .. }
        | NftError::Hung { .. }
        | NftError::Write(_) => error,
    }
}

/// Runs nft and returns its output. The nftables crate can run it too, but does not return its error messages.
async fn run(doing: &'static str, arguments: &[&str], input: &str) -> Result<String, NftError> {
    let result = program::run("nft", arguments, input).await;
    result.map_err(|error| match error {
        ProgramError::NotFound => NftError::NoProgram,
        ProgramError::Run(source) => NftError::Run(source),
        ProgramError::Refused(message) => refusal(doing, &message),
        error @ ProgramError::TimedOut(_) => NftError::Hung {
            doing,
            error: error.to_string(),
        },
    })
}

/// Returns the error for a message of nft, without its prefix: `internal:0:0-0: Error: ` for commands in JSON.
fn refusal(doing: &'static str, message: &str) -> NftError {
    let message = message
        .split_once("Error: ")
        .map_or(message, |(_, message)| message);
    if UNSUPPORTED.iter().any(|text| message.contains(text)) {
        return NftError::Unsupported { doing };
    }
    NftError::Refused {
        doing,
        message: message.to_owned(),
    }
}

/// Returns whether nft reports that the table does not exist.
///
/// Its exit status is the same for all errors; its messages are never translated.
fn is_not_found(message: &str) -> bool {
    message.contains("No such file or directory")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_nft_is_reported_without_its_prefix() {
        let report = |message| refusal("replacing the nft table", message).to_string();
        assert_eq!(
            report("internal:0:0-0: Error: Could not process rule: File exists"),
            "replacing the nft table: nft says: Could not process rule: File exists"
        );
        assert_eq!(
            report("internal:0:0-0: Error: Could not process rule: Operation not supported"),
            "replacing the nft table: the kernel lacks NAT for nftables: load modules nft_chain_nat, nft_masq and nft_ct"
        );
        for message in [
            "mnl.c:66: Unable to initialize Netlink socket: Protocol not supported",
            "netlink: Error: cache initialization failed: Invalid argument",
        ] {
            let error = refusal("reading the nft table", message);
            assert!(matches!(error, NftError::Unsupported { .. }), "{error}");
        }
        let absent = refusal("reading the nft table", "Error: No such file or directory");
        assert!(matches!(absent, NftError::Refused { message, .. } if is_not_found(&message)));
    }

    #[test]
    fn what_the_kernel_does_not_find_is_a_module_unless_a_table_is_read() {
        let doing = "replacing the nft table";
        let message = "internal:0:0-0: Error: Could not process rule: No such file or directory";
        let error = missing_module(refusal(doing, message));
        assert!(matches!(error, NftError::Unsupported { .. }), "{error}");
        let other = "internal:0:0-0: Error: Could not process rule: Device or resource busy";
        let error = missing_module(refusal(doing, other));
        assert!(matches!(error, NftError::Refused { .. }), "{error}");
    }
}
