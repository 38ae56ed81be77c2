//! Masquerades by iptables, on kernels without NAT for nftables.
//!
//! The rules are in our own chain `LVS-OPERATOR` of the nat table. One rule in `POSTROUTING` jumps to it.

use std::{collections::BTreeSet, io, net::IpAddr};

use lvs_model::{Family, Masquerade, Protocol, ServiceKey};
use thiserror::Error;

use crate::program::{self, ProgramError};

/// Why the chain could not be read or changed.
#[derive(Debug, Error)]
pub enum IptablesError {
    /// The program is not installed.
    #[error(
        "this kernel lacks NAT for nftables (modules nft_chain_nat, nft_masq and nft_ct), and masquerading without it needs \
         the program {program}: apt-get install iptables, or the like"
    )]
    NoProgram {
        /// The program.
        program: &'static str,
    },
    /// The program cannot be run.
    #[error("running {program}")]
    Run {
        /// The program.
        program: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The program did not end in time.
    #[error("{program}: {error}")]
    Hung {
        /// The program.
        program: &'static str,
        /// The limit.
        error: String,
    },
    /// The tables in use cannot be read.
    #[error("reading {path}")]
    Tables {
        /// The file that lists them.
        path: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The program reports an error.
    #[error("{program} says: {message}")]
    Refused {
        /// The program.
        program: &'static str,
        /// The first line of its error output.
        message: String,
    },
}

/// How long to wait for the lock of the tables, which another program may hold.
const LOCK_SECONDS: &str = "5";

const CHAIN: &str = "LVS-OPERATOR";
const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// Reads the chains. `None` if there are none.
///
/// If a chain contains anything that [`set`] does not write, the result is an empty `Masquerade`: it differs from every
/// desired one, so that the chain is written again.
pub(crate) async fn observe() -> Result<Option<Masquerade>, IptablesError> {
    let mut services = BTreeSet::new();
    let mut is_there = false;
    for family in FAMILIES {
        let Some(rules) = list(family).await? else {
            continue;
        };
        is_there = true;
        match decode(&rules, family) {
            Some(found) => services.extend(found),
            None => return Ok(Some(Masquerade::default())),
        }
    }
    Ok(is_there.then_some(Masquerade { services }))
}

/// Makes the chains cover exactly these services. The chain of each family is replaced atomically.
pub(crate) async fn set(masquerade: &Masquerade) -> Result<(), IptablesError> {
    for family in FAMILIES {
        let services: Vec<&ServiceKey> = masquerade
            .services
            .iter()
            .filter(|key| key.family() == family)
            .collect();
        if services.is_empty() {
            remove_family(family).await?;
            continue;
        }
        run(restore(family), &["--noflush"], &encode(&services)).await?;
        if run(
            command(family),
            &["-t", "nat", "-C", "POSTROUTING", "-j", CHAIN],
            "",
        )
        .await
        .is_err()
        {
            run(
                command(family),
                &["-t", "nat", "-A", "POSTROUTING", "-j", CHAIN],
                "",
            )
            .await?;
        }
    }
    Ok(())
}

/// Removes the chains and the rules that jump to them. Succeeds if they are gone.
pub(crate) async fn remove() -> Result<(), IptablesError> {
    for family in FAMILIES {
        remove_family(family).await?;
    }
    Ok(())
}

async fn remove_family(family: Family) -> Result<(), IptablesError> {
    if list(family).await?.is_none() {
        return Ok(());
    }
    // The rule is missing if a crash came between adding the chain and adding the rule.
    let unlinked = run(
        command(family),
        &["-t", "nat", "-D", "POSTROUTING", "-j", CHAIN],
        "",
    )
    .await;
    run(command(family), &["-t", "nat", "-F", CHAIN], "").await?;
    let removed = run(command(family), &["-t", "nat", "-X", CHAIN], "").await;
    removed
        .and(unlinked.or_else(|error| {
            if is_refusal(&error) {
                Ok(String::new())
            } else {
                Err(error)
            }
        }))
        .map(drop)
}

const fn is_refusal(error: &IptablesError) -> bool {
    matches!(error, IptablesError::Refused { .. })
}

/// Lists the rules of the nat table. `None` if it does not contain our chain.
///
/// Does not load the nat table: the tables in use are read from /proc first.
async fn list(family: Family) -> Result<Option<String>, IptablesError> {
    let path = match family {
        Family::V4 => "/proc/net/ip_tables_names",
        Family::V6 => "/proc/net/ip6_tables_names",
    };
    let names = match std::fs::read_to_string(path) {
        Ok(names) => names,
        // The module is not loaded.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(IptablesError::Tables { path, source }),
    };
    if !names.lines().any(|name| name == "nat") {
        return Ok(None);
    }
    let rules = run(command(family), &["-t", "nat", "-S"], "").await?;
    Ok(rules
        .lines()
        .any(|line| line == format!("-N {CHAIN}"))
        .then_some(rules))
}

fn encode(services: &[&ServiceKey]) -> String {
    let mut text = format!("*nat\n:{CHAIN} - [0:0]\n");
    for service in services {
        text += &format!("-A {CHAIN} {} -j MASQUERADE\n", matches(service));
    }
    text + "COMMIT\n"
}

/// Returns the matches of a service's rule, in the form that `iptables -S` prints.
fn matches(service: &ServiceKey) -> String {
    match service {
        ServiceKey::Address {
            address,
            protocol,
            port,
        } => {
            let protocol = match protocol {
                Protocol::Tcp => "tcp",
                Protocol::Udp => "udp",
                Protocol::Sctp => "sctp",
            };
            format!("-p {protocol} -m conntrack --ctorigdst {address} --ctorigdstport {port}")
        }
        ServiceKey::Fwmark { mark, .. } => format!("-m mark --mark {mark:#x}"),
    }
}

/// Returns the services of a chain. `None` if it contains another rule, or if `POSTROUTING` does not jump to it.
fn decode(rules: &str, family: Family) -> Option<BTreeSet<ServiceKey>> {
    if !rules
        .lines()
        .any(|line| line == format!("-A POSTROUTING -j {CHAIN}"))
    {
        return None;
    }
    let prefix = format!("-A {CHAIN} ");
    rules
        .lines()
        .filter_map(|line| line.strip_prefix(&prefix))
        .map(|rule| decode_rule(rule, family))
        .collect()
}

fn decode_rule(rule: &str, family: Family) -> Option<ServiceKey> {
    let words: Vec<&str> = rule.split_whitespace().collect();
    match words.as_slice() {
        [
            "-p",
            protocol,
            "-m",
            "conntrack",
            "--ctorigdst",
            address,
            "--ctorigdstport",
            port,
            "-j",
            "MASQUERADE",
        ] => {
            let protocol = match *protocol {
                "tcp" => Protocol::Tcp,
                "udp" => Protocol::Udp,
                "sctp" => Protocol::Sctp,
                _ => return None,
            };
            let address: IpAddr = address.parse().ok()?;
            Some(ServiceKey::Address {
                address,
                protocol,
                port: port.parse().ok()?,
            })
        }
        ["-m", "mark", "--mark", mark, "-j", "MASQUERADE"] => {
            let mark = u32::from_str_radix(mark.strip_prefix("0x")?, 16)
                .ok()?
                .try_into()
                .ok()?;
            Some(ServiceKey::Fwmark { mark, family })
        }
        _ => None,
    }
}

const fn command(family: Family) -> &'static str {
    match family {
        Family::V4 => "iptables-legacy",
        Family::V6 => "ip6tables-legacy",
    }
}

const fn restore(family: Family) -> &'static str {
    match family {
        Family::V4 => "iptables-legacy-restore",
        Family::V6 => "ip6tables-legacy-restore",
    }
}

async fn run(
    program: &'static str,
    arguments: &[&str],
    input: &str,
) -> Result<String, IptablesError> {
    let arguments = [&["-w", LOCK_SECONDS], arguments].concat();
    let result = program::run(program, &arguments, input).await;
    result.map_err(|error| match error {
        ProgramError::NotFound => IptablesError::NoProgram { program },
        ProgramError::Run(source) => IptablesError::Run { program, source },
        ProgramError::Refused(message) => IptablesError::Refused { program, message },
        error @ ProgramError::TimedOut(_) => IptablesError::Hung {
            program,
            error: error.to_string(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoded_chain_decodes_to_itself() {
        let services: BTreeSet<ServiceKey> = [
            ServiceKey::Address {
                address: "192.168.220.100".parse().unwrap(),
                protocol: Protocol::Tcp,
                port: 80,
            },
            ServiceKey::Address {
                address: "192.168.220.100".parse().unwrap(),
                protocol: Protocol::Udp,
                port: 53,
            },
            ServiceKey::Fwmark {
                mark: 7.try_into().unwrap(),
                family: Family::V4,
            },
        ]
        .into();
        let text = encode(&services.iter().collect::<Vec<_>>());
        let listed = format!("-A POSTROUTING -j {CHAIN}\n{text}");
        assert_eq!(decode(&listed, Family::V4), Some(services));
        assert_eq!(
            decode(&text, Family::V4),
            None,
            "no rule jumps to the chain"
        );
        let foreign = format!("{listed}-A {CHAIN} -j ACCEPT\n");
        assert_eq!(
            decode(&foreign, Family::V4),
            None,
            "the chain contains a foreign rule"
        );
    }
}
