//! Chooses the kernel of a run, and checks what it must have.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

/// The directory with the modules of the User Mode Linux kernel.
pub(crate) const UML_MODULES: &str = "/usr/lib/uml/modules";

/// The kernel's table of IPVS services, which exists if and only if IPVS is loaded.
const IPVS_TABLE: &str = "/proc/net/ip_vs";

/// The directories of system programs. The `PATH` of an ordinary user, and of a kernel's first process, lacks some of them.
pub(crate) const SYSTEM_DIRECTORIES: &[&str] = &["/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// The modules that every lab needs.
pub(crate) const REQUIRED_MODULES: &[&str] = &["ip_vs", "veth", "bridge", "dummy"];

/// The modules that only some tests need. Missing ones are reported, and the kernel is used anyway.
pub(crate) const OPTIONAL_MODULES: &[&str] = &[
    // Schedulers and the rest of IPVS.
    "ip_vs_rr",
    "ip_vs_wrr",
    "ip_vs_lc",
    "ip_vs_wlc",
    "ip_vs_lblc",
    "ip_vs_lblcr",
    "ip_vs_dh",
    "ip_vs_sh",
    "ip_vs_mh",
    "ip_vs_sed",
    "ip_vs_nq",
    "ip_vs_fo",
    "ip_vs_ovf",
    "ip_vs_pe_sip",
    "ip_vs_ftp",
    // Tunnels.
    "ipip",
    "sit",
    "ip6_tunnel",
    "gre",
    "ip_gre",
    "ip6_gre",
    "fou",
    "fou6",
    // Connection tracking and address translation.
    "nf_conntrack",
    "nf_conntrack_netlink",
    "nf_tables",
    "nft_ct",
    "nft_masq",
    "nft_nat",
    "nft_chain_nat",
    "iptable_filter",
    "ip6table_filter",
    "iptable_nat",
    "ip6table_nat",
    "xt_conntrack",
    "xt_MASQUERADE",
    "xt_ipvs",
    "xt_mark",
    // Traffic.
    "sctp",
    "nlmon",
];

/// The kernel that a command runs under.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kernel {
    /// The kernel of this machine, in new namespaces.
    Host,
    /// A User Mode Linux kernel, booted for the run.
    UserMode,
}

impl Kernel {
    /// Chooses the host's kernel if it has IPVS or can load it, otherwise User Mode Linux.
    ///
    /// The environment variable `LAB_KERNEL`, `host` or `user-mode`, overrides this.
    pub fn choose() -> Result<Self> {
        match std::env::var("LAB_KERNEL").as_deref() {
            Ok("host") => Ok(Self::Host),
            Ok("user-mode") => Ok(Self::UserMode),
            Ok("" | "auto") | Err(_) if host_offers_ipvs() => Ok(Self::Host),
            Ok("" | "auto") | Err(_) => Ok(Self::UserMode),
            Ok(other) => bail!("LAB_KERNEL is `{other}`; it must be auto, host or user-mode"),
        }
    }

    /// Checks that this kernel can be started; an error says what to do.
    pub fn check(self) -> Result<()> {
        ensure!(
            is_root(),
            "the lab creates network namespaces and mounts, and must run as root"
        );
        for (program, package) in [
            ("setpriv", "util-linux"),
            ("unshare", "util-linux"),
            ("taskset", "util-linux"),
            ("ip", "iproute2"),
        ] {
            find_program(program)
                .with_context(|| format!("run `apt-get install {package}`, or `make setup`"))?;
        }
        match self {
            Self::Host => Ok(()),
            Self::UserMode => {
                find_program("linux.uml").context(
                    "this machine's kernel has no IPVS, so the lab boots User Mode Linux: run `apt-get install user-mode-linux`, or `make setup`",
                )?;
                find_program("modprobe").context("run `apt-get install kmod`, or `make setup`")?;
                ensure!(
                    Path::new(UML_MODULES).is_dir(),
                    "{UML_MODULES} is missing: run `apt-get install --reinstall user-mode-linux`"
                );
                Ok(())
            }
        }
    }
}

/// Fails unless the running kernel has IPVS and this process may use it.
///
/// Kernel tests call this first, so that a test that runs outside the lab fails with instructions instead of an errno.
pub fn require_ipvs() -> Result<()> {
    ensure!(
        has_ipvs(),
        "these tests need a kernel with IPVS, and this one has none; run `make test-kernel`"
    );
    ensure!(
        is_root(),
        "these tests create network namespaces and must run as root; run `make test-kernel`"
    );
    Ok(())
}

/// Returns whether IPVS is loaded; loads nothing.
pub(crate) fn has_ipvs() -> bool {
    Path::new(IPVS_TABLE).exists()
}

/// Returns whether the kernel of this machine has IPVS or can load it.
fn host_offers_ipvs() -> bool {
    has_ipvs()
        || (is_root() && modprobe(&["ip_vs"]).is_ok_and(|missing| missing.is_empty()) && has_ipvs())
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Loads `modules` and returns the names of those that could not be loaded.
pub(crate) fn modprobe(modules: &[&str]) -> Result<Vec<String>> {
    let output = Command::new(find_program("modprobe")?)
        .arg("-a")
        .args(modules)
        .stdin(Stdio::null())
        .output()
        .context("could not run modprobe")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    let named = |module: &str| errors.split(['\'', ' ', ':']).any(|word| word == module);
    Ok(modules
        .iter()
        .filter(|module| named(module))
        .map(ToString::to_string)
        .collect())
}

/// Finds `program` in `PATH` or in the directories of system programs.
pub(crate) fn find_program(program: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(SYSTEM_DIRECTORIES.iter().map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
        .with_context(|| format!("the program `{program}` is missing"))
}
