//! Masquerades by iptables, on kernels without NAT for nftables.
//!
//! The rules are in our own chain `LVS-OPERATOR` of the nat table. One rule in `POSTROUTING` jumps to it.

pub(crate) mod strays;

use std::{collections::BTreeSet, io, net::IpAddr};

use lvs_model::{Family, Masquerade, Protocol, ServiceKey};
use thiserror::Error;

use crate::program::{self, ProgramError};

/// Why the chain could not be read or changed.
#[derive(Debug, Error)]
pub enum IptablesError {
    /// The program is not installed.
    #[error(
        "this kernel lacks modules for nftables (nft_chain_nat, nft_masq and nft_ct for masquerading, nft_socket for connections of other \
         real servers), and without them the program {program} is needed: apt-get install iptables, or the like"
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

/// The name of our chain in each table.
const NAME: &str = "LVS-OPERATOR";
const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// The chain for masquerading.
const CHAIN: Chain = Chain {
    table: "nat",
    hook: "POSTROUTING",
};

/// Reads the chains. `None` if there are none.
///
/// If a chain contains anything that [`set`] does not write, the result is an empty `Masquerade`: it differs from every
/// desired one, so that the chain is written again.
pub(crate) async fn observe() -> Result<Option<Masquerade>, IptablesError> {
    let services = CHAIN.observe(decode).await?;
    Ok(services.map(|services| Masquerade { services }))
}

/// Makes the chains cover exactly these services. The chain of each family is replaced atomically.
pub(crate) async fn set(masquerade: &Masquerade) -> Result<(), IptablesError> {
    let services = masquerade.services.iter();
    let rules = services.map(|service| (service.family(), rule(service)));
    CHAIN.set(rules.collect()).await
}

/// Removes the chains and the rules that jump to them. Succeeds if they are gone.
pub(crate) async fn remove() -> Result<(), IptablesError> {
    CHAIN.remove().await
}

const fn is_refusal(error: &IptablesError) -> bool {
    matches!(error, IptablesError::Refused { .. })
}

/// One of our chains.
#[derive(Clone, Copy)]
struct Chain {
    table: &'static str,
    /// The chain of the kernel with a rule that jumps to ours.
    hook: &'static str,
}

impl Chain {
    /// Reads the chains of both families. `None` if there are none; nothing if one has a rule that `decode` does not know.
    async fn observe<T: Ord>(
        self,
        decode: impl Fn(&str, Family) -> Option<BTreeSet<T>>,
    ) -> Result<Option<BTreeSet<T>>, IptablesError> {
        let mut all = BTreeSet::new();
        let mut is_there = false;
        for family in FAMILIES {
            let Some(rules) = self.list(family).await? else {
                continue;
            };
            is_there = true;
            match decode(&rules, family) {
                Some(found) => all.extend(found),
                None => return Ok(Some(BTreeSet::new())),
            }
        }
        Ok(is_there.then_some(all))
    }

    /// Makes the chains of both families hold exactly these rules.
    async fn set(self, rules: Vec<(Family, String)>) -> Result<(), IptablesError> {
        for family in FAMILIES {
            let own = rules.iter().filter(|(of, _)| *of == family);
            let own: Vec<String> = own.map(|(_, rule)| rule.clone()).collect();
            self.replace(family, &own).await?;
        }
        Ok(())
    }

    /// Removes the chains of both families.
    async fn remove(self) -> Result<(), IptablesError> {
        for family in FAMILIES {
            self.remove_of(family).await?;
        }
        Ok(())
    }

    /// Makes the chain hold exactly these rules; without any, removes it.
    async fn replace(self, family: Family, rules: &[String]) -> Result<(), IptablesError> {
        let Self { table, hook } = self;
        if rules.is_empty() {
            return self.remove_of(family).await;
        }
        let commands = self.restore_commands(rules);
        run(restore(family), &["--noflush"], &commands).await?;
        // `iptables -C` also fails if another program holds the lock: a second rule would be added.
        let listing = self.list(family).await?;
        if listing.is_none_or(|listing| self.rules_in(&listing).is_none()) {
            let jump = ["-t", table, "-A", hook, "-j", NAME];
            run(command(family), &jump, "").await?;
        }
        Ok(())
    }

    async fn remove_of(self, family: Family) -> Result<(), IptablesError> {
        let Self { table, hook } = self;
        if self.list(family).await?.is_none() {
            return Ok(());
        }
        // The rule is missing if a crash came between adding the chain and adding the rule.
        let unlinked = run(command(family), &["-t", table, "-D", hook, "-j", NAME], "").await;
        run(command(family), &["-t", table, "-F", NAME], "").await?;
        let removed = run(command(family), &["-t", table, "-X", NAME], "").await;
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

    /// Lists the rules of the table. `None` if it does not contain our chain.
    ///
    /// Does not load the table: the tables in use are read from /proc first.
    async fn list(self, family: Family) -> Result<Option<String>, IptablesError> {
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
        if !names.lines().any(|name| name == self.table) {
            return Ok(None);
        }
        let rules = run(command(family), &["-t", self.table, "-S"], "").await?;
        Ok(rules
            .lines()
            .any(|line| line == format!("-N {NAME}"))
            .then_some(rules))
    }

    /// Returns the rules of the chain in a listing of the table. `None` if no rule jumps to it.
    fn rules_in(self, listing: &str) -> Option<Vec<&str>> {
        let jump = format!("-A {} -j {NAME}", self.hook);
        let mut lines = listing.lines();
        lines.any(|line| line == jump).then_some(())?;
        let prefix = format!("-A {NAME} ");
        let lines = listing.lines();
        Some(
            lines
                .filter_map(|line| line.strip_prefix(&prefix))
                .collect(),
        )
    }

    fn restore_commands(self, rules: &[String]) -> String {
        let mut text = format!("*{}\n:{NAME} - [0:0]\n", self.table);
        for rule in rules {
            text += &format!("-A {NAME} {rule}\n");
        }
        text + "COMMIT\n"
    }
}

/// Returns the rule of a service, in the form that `iptables -S` prints.
fn rule(service: &ServiceKey) -> String {
    format!("{} -j MASQUERADE", matches(service))
}

/// Returns the matches of a service's rule, in the form that `iptables -S` prints.
fn matches(service: &ServiceKey) -> String {
    match service {
        ServiceKey::Address {
            address,
            protocol,
            port,
        } => {
            let protocol = protocol.keyword();
            format!("-p {protocol} -m conntrack --ctorigdst {address} --ctorigdstport {port}")
        }
        ServiceKey::Fwmark { mark, .. } => format!("-m mark --mark {mark:#x}"),
    }
}

/// Returns the services of a chain. `None` if it contains another rule, or if `POSTROUTING` does not jump to it.
fn decode(rules: &str, family: Family) -> Option<BTreeSet<ServiceKey>> {
    let rules = CHAIN.rules_in(rules)?;
    let services = rules.into_iter().map(|rule| decode_rule(rule, family));
    services.collect()
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
            let protocol = Protocol::of_keyword(protocol)?;
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
        let rules: Vec<String> = services.iter().map(rule).collect();
        let text = CHAIN.restore_commands(&rules);
        let listed = format!("-A POSTROUTING -j {NAME}\n{text}");
        assert_eq!(decode(&listed, Family::V4), Some(services));
        assert_eq!(
            decode(&text, Family::V4),
            None,
            "no rule jumps to the chain"
        );
        let foreign = format!("{listed}-A {NAME} -j ACCEPT\n");
        assert_eq!(
            decode(&foreign, Family::V4),
            None,
            "the chain contains a foreign rule"
        );
    }
}
