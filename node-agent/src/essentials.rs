//! The addresses that this machine needs for itself: no VIP may be one of them.

use std::{collections::BTreeMap, fs, net::IpAddr};

/// The resolvers of the C library, as resolv.conf(5) describes it.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The resolvers of this machine, and the address in the URL of its API server, if there is one. Read once: neither changes often.
pub(crate) fn essentials(api_server: Option<&str>) -> BTreeMap<IpAddr, String> {
    let text = fs::read_to_string(RESOLV_CONF).unwrap_or_default();
    let resolvers = resolvers(&text).map(|address| (address, "resolver".to_owned()));
    let api_server = api_server.and_then(|host| {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        Some((host.parse().ok()?, "API server".to_owned()))
    });
    resolvers.chain(api_server).collect()
}

/// Returns the addresses of the lines `nameserver ADDRESS`. A zone, as in `fe80::1%eth0`, is left out.
fn resolvers(text: &str) -> impl Iterator<Item = IpAddr> {
    text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let address = (words.next() == Some("nameserver")).then(|| words.next())??;
        address.split('%').next()?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_are_read_line_by_line() {
        let text = "# nameserver 192.0.2.1\nsearch example\nnameserver 192.0.2.2\n nameserver\tfe80::1%eth0 \nnameserver here\n";
        let found: Vec<String> = resolvers(text).map(|address| address.to_string()).collect();
        assert_eq!(found, ["192.0.2.2", "fe80::1"]);
    }

    #[test]
    fn the_api_server_counts_if_its_url_has_an_address() {
        for (host, address) in [("192.0.2.9", "192.0.2.9"), ("[2001:db8::9]", "2001:db8::9")] {
            let found = essentials(Some(host));
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(found.get(&address).map(String::as_str), Some("API server"));
        }
        let named = essentials(Some("api.example")).into_values();
        assert!(named.eq(essentials(None).into_values()));
    }
}
