//! Reads and writes the rules that mark packets to VIPs, by iptables-legacy, for kernels without `nft_socket` or, where a director is a
//! real server too, `nft_fib`.
//!
//! The rules are in our own chain `LVS-OPERATOR` of the mangle table. One rule in `PREROUTING` jumps to it. The match `socket` ignores
//! sockets that are bound to all addresses, such as that of a listening program. The match `addrtype` asks for the interface on which a
//! packet arrives as nftables' `fib` does.

use std::{collections::BTreeSet, net::IpAddr, num::NonZeroU32};

use lvs_model::{Family, LOCAL_MARK, Protocol, ServiceKey, StrayMark, Strays};

use super::{Chain, IptablesError};

const CHAIN: Chain = Chain {
    table: "mangle",
    hook: "PREROUTING",
};

/// What our rules do for one service. The order is that of the rules.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Entry {
    /// Packets that another director has sent stay here, as do those of connections of this machine.
    Local(ServiceKey),
    /// Stray packets are marked.
    Stray(StrayMark),
}

/// Reads the chains. `None` if there are none.
///
/// If a chain contains anything that [`set`] does not write, the result is an empty `Strays`: it differs from every desired one, so
/// that the chain is written again.
pub(crate) async fn observe() -> Result<Option<Strays>, IptablesError> {
    let entries = CHAIN.observe(|listing, _| decode(listing)).await?;
    Ok(entries.map(|entries| {
        let mut strays = Strays::default();
        for entry in entries {
            match entry {
                Entry::Local(key) => drop(strays.local.insert(key)),
                Entry::Stray(mark) => drop(strays.marks.insert(mark)),
            }
        }
        strays
    }))
}

/// Makes the chains set exactly these marks. The chain of each family is replaced atomically.
pub(crate) async fn set(strays: &Strays) -> Result<(), IptablesError> {
    let rules = entries(strays).into_iter().flat_map(|entry| {
        let family = match &entry {
            Entry::Local(key) => key.family(),
            Entry::Stray(mark) => mark.service.family(),
        };
        rules(&entry).into_iter().map(move |rule| (family, rule))
    });
    CHAIN.set(rules.collect()).await
}

/// Removes the chains and the rules that jump to them. Succeeds if they are gone.
pub(crate) async fn remove() -> Result<(), IptablesError> {
    CHAIN.remove().await
}

fn entries(strays: &Strays) -> BTreeSet<Entry> {
    let local = strays.local.iter().copied().map(Entry::Local);
    let marks = strays.marks.iter().copied().map(Entry::Stray);
    local.chain(marks).collect()
}

/// Returns the rules of an entry, in the form that `iptables -S` prints. None if its service has no VIP.
fn rules(entry: &Entry) -> Vec<String> {
    const HELD: &str = "-m addrtype --dst-type LOCAL --limit-iface-in";
    const SENT: &str = "-m addrtype ! --dst-type LOCAL --limit-iface-in";
    const NO_SYN: &str = "--tcp-flags SYN NONE";
    let mark = |mark: NonZeroU32| format!("-j MARK --set-xmark {mark:#x}/0xffffffff");
    let (Entry::Local(key) | Entry::Stray(StrayMark { service: key, .. })) = entry;
    let Some((protocol, packets)) = packets(key) else {
        return Vec::new();
    };
    match entry {
        Entry::Local(_) => {
            let kept = mark(LOCAL_MARK);
            let sent = format!("{packets} {SENT} {kept}");
            let own = format!("{packets} {NO_SYN} {HELD} -m socket {kept}");
            let own = Some(own).filter(|_| protocol == Protocol::Tcp);
            let others = format!("{packets} {HELD} -j RETURN");
            [sent].into_iter().chain(own).chain([others]).collect()
        }
        Entry::Stray(stray) => vec![
            format!("{packets} {NO_SYN} -m socket -j RETURN"),
            format!("{packets} {NO_SYN} {}", mark(stray.mark)),
        ],
    }
}

/// Returns the protocol of a service, and the matches of its packets. `None` if it has no VIP.
fn packets(key: &ServiceKey) -> Option<(Protocol, String)> {
    let ServiceKey::Address {
        address,
        protocol,
        port,
    } = *key
    else {
        return None;
    };
    let prefix = Family::of(address).host_prefix();
    let name = protocol.keyword();
    let packets = format!("-d {address}/{prefix} -p {name} -m {name} --dport {port}");
    Some((protocol, packets))
}

/// Returns the entries of a chain. `None` if it contains another rule, or if no rule jumps to it.
fn decode(listing: &str) -> Option<BTreeSet<Entry>> {
    let found = CHAIN.rules_in(listing)?;
    let deciding = found.iter().filter(|rule| {
        let is_of_connection = rule.contains(" --dst-type LOCAL ") && rule.contains(" -m socket ");
        rule.contains(" -j MARK ") && !is_of_connection
    });
    let entries: BTreeSet<Entry> = deciding
        .map(|rule| decode_entry(rule))
        .collect::<Option<_>>()?;
    let written: Vec<String> = entries.iter().flat_map(rules).collect();
    (found == written).then_some(entries)
}

fn decode_entry(rule: &str) -> Option<Entry> {
    let words: Vec<&str> = rule.split_whitespace().collect();
    let after = |option: &str| {
        let at = words.iter().position(|word| *word == option)?;
        words.get(at + 1).copied()
    };
    let (address, _) = after("-d")?.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let (mark, _) = after("--set-xmark")?.split_once('/')?;
    let mark = u32::from_str_radix(mark.strip_prefix("0x")?, 16).ok()?;
    let mark = NonZeroU32::new(mark)?;
    let service = ServiceKey::Address {
        address,
        protocol: Protocol::of_keyword(after("-p")?)?,
        port: after("--dport")?.parse().ok()?,
    };
    Some(if mark == LOCAL_MARK {
        Entry::Local(service)
    } else {
        Entry::Stray(StrayMark { service, mark })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoded_chain_decodes_to_itself() {
        let key = |address: &str, protocol| ServiceKey::Address {
            address: address.parse().unwrap(),
            protocol,
            port: 80,
        };
        let mark = |address: &str, mark: u32| StrayMark {
            service: key(address, Protocol::Tcp),
            mark: mark.try_into().unwrap(),
        };
        let strays = Strays {
            marks: [
                mark("192.0.2.1", 0x4c56_0000),
                mark("192.0.2.2", 0x4c56_0001),
            ]
            .into(),
            local: [
                key("192.0.2.1", Protocol::Tcp),
                key("192.0.2.1", Protocol::Udp),
            ]
            .into(),
        };
        let entries = entries(&strays);
        let rules = entries.iter().flat_map(rules);
        let rules = rules.map(|rule| format!("-A LVS-OPERATOR {rule}\n"));
        let listing: String = ["-A PREROUTING -j LVS-OPERATOR\n".to_owned()]
            .into_iter()
            .chain(rules)
            .collect();

        assert_eq!(decode(&listing), Some(entries));

        let foreign = format!("{listing}-A LVS-OPERATOR -j ACCEPT\n");
        assert_eq!(decode(&foreign), None);
        let unlinked = listing.replace("PREROUTING", "INPUT");
        assert_eq!(decode(&unlinked), None);
    }
}
