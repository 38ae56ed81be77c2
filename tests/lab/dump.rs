//! Dumps everything that an agent may change in a host's kernel, as lines of text.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};
use ipvs_netlink::{Error, Handle, ServiceTable, Timeouts};

use crate::host::Host;

/// The state of a host's kernel at one moment: links, addresses, routes, rules, GUE ports, sysctls, packet filters and IPVS.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Dump(BTreeSet<String>);

impl Dump {
    /// Reads the kernel of a host.
    pub fn of(host: &Host) -> Result<Self> {
        let mut lines = BTreeSet::new();
        host.in_namespace(|| -> Result<()> {
            for family in ["-4", "-6"] {
                lines.extend(network(family)?);
            }
            for (program, tables) in IPTABLES {
                lines.extend(iptables(program, Path::new(tables))?);
            }
            lines.extend(nftables()?);
            sysctls(Path::new("/proc/sys/net/ipv4"), &mut lines);
            sysctls(Path::new("/proc/sys/net/ipv6"), &mut lines);
            Ok(())
        })?
        .with_context(|| format!("host `{}`", host.name()))?;
        for table in host.ipvs()? {
            let service = format!("{:?}", table.service.key);
            lines.insert(format!("ipvs {service}: {:?}", table.service.config));
            lines.extend(table.destinations.iter().map(|destination| {
                format!(
                    "ipvs {service} -> {:?}: {:?}",
                    destination.key, destination.config
                )
            }));
        }
        lines.insert(format!("ipvs {:?}", host.ipvs_timeouts()?));
        Ok(Self(lines))
    }

    /// The lines that are in only one of the two dumps; empty if they are equal.
    pub fn difference(&self, later: &Self) -> Vec<String> {
        let gone = self.0.difference(&later.0).map(|line| format!("- {line}"));
        let new = later.0.difference(&self.0).map(|line| format!("+ {line}"));
        gone.chain(new).collect()
    }

    /// The dump without what differs for each new link: its index, its permanent address and its link-local addresses.
    #[must_use]
    pub fn portable(&self) -> Self {
        let lines = self.0.iter().filter(|line| !line.contains("fe80:"));
        let lines = lines.map(|line| {
            let mut words: Vec<&str> = line.split(' ').collect();
            if let Some(at) = words.iter().position(|word| *word == "permaddr") {
                words.drain(at..words.len().min(at + 2));
            }
            words.retain(|word| {
                word.strip_suffix(':')
                    .is_none_or(|number| number.parse::<u32>().is_err())
            });
            words.join(" ")
        });
        Self(lines.collect())
    }

    /// The lines that contain `text`.
    pub fn lines_with(&self, text: &str) -> Vec<&str> {
        self.0
            .iter()
            .map(String::as_str)
            .filter(|line| line.contains(text))
            .collect()
    }
}

impl Host {
    /// Reads this host's IPVS services with their destinations and counters.
    pub fn ipvs(&self) -> Result<Vec<ServiceTable>> {
        self.with_ipvs(async |handle| handle.snapshot().await)
    }

    /// Reads the IPVS timeouts of this host.
    pub fn ipvs_timeouts(&self) -> Result<Timeouts> {
        self.with_ipvs(async |handle| handle.timeouts().await)
    }

    /// Runs `work` with a handle to this host's IPVS.
    pub fn with_ipvs<T: Send>(
        &self,
        work: impl AsyncFnOnce(&mut Handle) -> Result<T, Error> + Send,
    ) -> Result<T> {
        self.in_namespace(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_io()
                .build()
                .context("could not start a runtime")?;
            runtime.block_on(async {
                let mut handle = Handle::connect().await.context("could not reach IPVS")?;
                work(&mut handle).await.context("could not use IPVS")
            })
        })?
        .with_context(|| format!("host `{}`", self.name()))
    }
}

/// What `ip` shows in the calling thread's namespace for one family, read by one process.
fn network(family: &str) -> Result<Vec<String>> {
    const QUERIES: &str = "link show\naddr show\nroute show table all\nrule show\nfou show\n";
    let mut child = Command::new("ip")
        .args([family, "-d", "-o", "-batch", "-"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .context("could not start `ip`")?;
    let mut stdin = child.stdin.take().context("`ip` has no standard input")?;
    std::io::Write::write_all(&mut stdin, QUERIES.as_bytes()).context("could not ask `ip`")?;
    drop(stdin);
    let output = child
        .wait_with_output()
        .context("could not wait for `ip`")?;
    ensure!(
        output.status.success(),
        "`ip {family}` ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text
        .lines()
        .map(|line| {
            format!(
                "ip {family} {}",
                line.split_whitespace().collect::<Vec<_>>().join(" ")
            )
        })
        .collect())
}

/// The programs that print the rules of iptables, each with the file that lists the loaded tables.
const IPTABLES: [(&str, &str); 2] = [
    (
        "iptables-legacy-save",
        "/proc/thread-self/net/ip_tables_names",
    ),
    (
        "ip6tables-legacy-save",
        "/proc/thread-self/net/ip6_tables_names",
    ),
];

/// The iptables rules and the chains that are not built in, each with its table. No table is loaded to read it, and an empty
/// table has no line.
fn iptables(program: &str, tables: &Path) -> Result<Vec<String>> {
    if fs::read_to_string(tables).is_ok_and(|names| names.trim().is_empty()) || !tables.exists() {
        return Ok(Vec::new());
    }
    let text = output(program, &[])?;
    let (mut lines, mut table) = (Vec::new(), "");
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name;
        } else if let Some(chain) = line.strip_prefix(':') {
            // `:NAME POLICY [packets:bytes]`; a chain that is not built in has no policy.
            let mut words = chain.split(' ');
            let (name, policy) = (
                words.next().unwrap_or_default(),
                words.next().unwrap_or_default(),
            );
            if policy != "ACCEPT" {
                lines.push(format!("{program} {table}: chain {name} {policy}"));
            }
        } else if line.starts_with("-A ") {
            lines.push(format!("{program} {table}: {line}"));
        }
    }
    Ok(lines)
}

/// The rules of nftables, including those of iptables-nft. Empty if the kernel has no NAT for nftables: without it nothing
/// in the lab creates such rules.
fn nftables() -> Result<Vec<String>> {
    static HAS_NAT: OnceLock<bool> = OnceLock::new();
    const NAT: &str =
        "add table inet lab; add chain inet lab nat { type nat hook postrouting priority 0; }";
    let has_nat = || output("nft", &["--check", NAT]).is_ok();
    if !HAS_NAT.get_or_init(has_nat) {
        return Ok(Vec::new());
    }
    let text = output("nft", &["--stateless", "--json", "list", "ruleset"])?;
    // One line per object. The first object is the program's version; handles differ each time an object is created.
    Ok(text
        .split("}}, {")
        .skip(1)
        .map(|object| {
            let words = object.split(", ");
            let stable = words.filter(|word| !word.contains(r#""handle": "#));
            format!("nft {}", stable.collect::<Vec<_>>().join(", ").trim_end())
        })
        .collect())
}

/// Runs a program in the calling thread's namespace and returns what it prints.
fn output(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("could not start `{program}`"))?;
    ensure!(
        output.status.success(),
        "`{program}` ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Every readable sysctl below a directory, for the calling thread's namespace.
fn sysctls(directory: &Path, lines: &mut BTreeSet<String>) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries.filter_map(Result::ok) {
        let path = entry.path();
        if path.is_dir() {
            sysctls(&path, lines);
        } else if let Ok(value) = fs::read_to_string(&path) {
            lines.insert(format!("{} = {}", path.display(), value.trim_end()));
        }
    }
}
