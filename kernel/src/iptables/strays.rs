//! Reads and writes the rules that mark stray packets, by iptables-legacy, for kernels without `nft_socket`.
//!
//! The rules are in our own chain `LVS-OPERATOR` of the mangle table. One rule in `PREROUTING` jumps to it. The match `socket` ignores
//! sockets that are bound to all addresses, such as that of a listening program.

use std::{collections::BTreeSet, net::IpAddr, num::NonZeroU32};

use lvs_model::{Family, Protocol, ServiceKey, StrayMark, Strays};

use super::{Chain, IptablesError};

const CHAIN: Chain = Chain {
    table: "mangle",
    hook: "PREROUTING",
};

/// Reads the chains. `None` if there are none.
///
/// If a chain contains anything that [`set`] does not write, the result is an empty `Strays`: it differs from every desired one, so
/// that the chain is written again.
pub(crate) async fn observe() -> Result<Option<Strays>, IptablesError> {
    let marks = CHAIN.observe(|listing, _| decode(listing)).await?;
    Ok(marks.map(|marks| Strays { marks }))
}

/// Makes the chains set exactly these marks. The chain of each family is replaced atomically.
pub(crate) async fn set(strays: &Strays) -> Result<(), IptablesError> {
    let marks = strays.marks.iter();
    let rules = marks.flat_map(|mark| {
        let rules = rules(mark).into_iter().flatten();
        rules.map(|rule| (mark.service.family(), rule))
    });
    CHAIN.set(rules.collect()).await
}

/// Removes the chains and the rules that jump to them. Succeeds if they are gone.
pub(crate) async fn remove() -> Result<(), IptablesError> {
    CHAIN.remove().await
}

/// Returns the rules of a mark, in the form that `iptables -S` prints. `None` if it is not of a VIP with a TCP port.
fn rules(mark: &StrayMark) -> Option<[String; 2]> {
    let ServiceKey::Address { address, port, .. } = mark.service else {
        return None;
    };
    let prefix = Family::of(address).host_prefix();
    let packets =
        format!("-d {address}/{prefix} -p tcp -m tcp --dport {port} --tcp-flags SYN NONE");
    Some([
        format!("{packets} -m socket -j RETURN"),
        format!("{packets} -j MARK --set-xmark {:#x}/0xffffffff", mark.mark),
    ])
}

/// Returns the marks of a chain. `None` if it contains another rule, or if no rule jumps to it.
fn decode(listing: &str) -> Option<BTreeSet<StrayMark>> {
    let found = CHAIN.rules_in(listing)?;
    let marks = found.iter().filter(|rule| rule.contains(" -j MARK "));
    let marks: BTreeSet<StrayMark> = marks.map(|rule| decode_mark(rule)).collect::<Option<_>>()?;
    let written: Vec<String> = marks.iter().filter_map(rules).flatten().collect();
    (found == written).then_some(marks)
}

fn decode_mark(rule: &str) -> Option<StrayMark> {
    let words: Vec<&str> = rule.split_whitespace().collect();
    let after = |option: &str| {
        let at = words.iter().position(|word| *word == option)?;
        words.get(at + 1).copied()
    };
    let (address, _) = after("-d")?.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let (mark, _) = after("--set-xmark")?.split_once('/')?;
    let mark = u32::from_str_radix(mark.strip_prefix("0x")?, 16).ok()?;
    Some(StrayMark {
        service: ServiceKey::Address {
            address,
            protocol: Protocol::Tcp,
            port: after("--dport")?.parse().ok()?,
        },
        mark: NonZeroU32::new(mark)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoded_chain_decodes_to_itself() {
        let mark = |address: &str, mark: u32| StrayMark {
            service: ServiceKey::Address {
                address: address.parse().unwrap(),
                protocol: Protocol::Tcp,
                port: 80,
            },
            mark: mark.try_into().unwrap(),
        };
        let marks = BTreeSet::from([
            mark("192.0.2.1", 0x4c56_0000),
            mark("192.0.2.2", 0x4c56_0001),
        ]);
        let rules: Vec<String> = marks.iter().filter_map(rules).flatten().collect();
        let rules = rules.iter().map(|rule| format!("-A LVS-OPERATOR {rule}\n"));
        let listing: String = ["-A PREROUTING -j LVS-OPERATOR\n".to_owned()]
            .into_iter()
            .chain(rules)
            .collect();

        assert_eq!(decode(&listing), Some(marks));

        let foreign = format!("{listing}-A LVS-OPERATOR -j ACCEPT\n");
        assert_eq!(decode(&foreign), None);
        let unlinked = listing.replace("PREROUTING", "INPUT");
        assert_eq!(decode(&unlinked), None);
    }
}
