//! Which kernel a run gets, and what that kernel must have.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

/// Where the modules of the User Mode Linux kernel lie.
pub(crate) const UML_MODULES: &str = "/usr/lib/uml/modules";

/// The kernel's table of IPVS services: it is there exactly when IPVS is.
const IPVS_TABLE: &str = "/proc/net/ip_vs";

/// Where system programs lie; the `PATH` of an ordinary user, and of a kernel's first process, leaves some of them out.
pub(crate) const SYSTEM_DIRECTORIES: &[&str] = &["/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// Modules without which a lab is pointless.
pub(crate) const REQUIRED_MODULES: &[&str] = &["ip_vs", "veth", "bridge", "dummy"];

/// Modules that single tests need; a kernel without one of them is reported and used all the same.
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

/// The kinds of kernel that a command can be run under.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kernel {
    /// The kernel of this machine, in fresh namespaces.
    Host,
    /// A User Mode Linux kernel, booted for the run.
    UserMode,
}

impl Kernel {
    /// Chooses the host's kernel when it has IPVS, or can load it, and User Mode Linux otherwise.
    ///
    /// `LAB_KERNEL=host` or `LAB_KERNEL=user-mode` in the environment decides instead.
    pub fn choose() -> Result<Self> {
        match std::env::var("LAB_KERNEL").as_deref() {
            Ok("host") => Ok(Self::Host),
            Ok("user-mode") => Ok(Self::UserMode),
            Ok("" | "auto") | Err(_) if host_offers_ipvs() => Ok(Self::Host),
            Ok("" | "auto") | Err(_) => Ok(Self::UserMode),
            Ok(other) => bail!("LAB_KERNEL is `{other}`; it may be auto, host or user-mode"),
        }
    }

    /// Checks that this kind of kernel can be started from here; the error says what to do.
    pub fn check(self) -> Result<()> {
        ensure!(
            is_root(),
            "the lab makes network namespaces and mounts, and must be started as root"
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

/// Succeeds when the running kernel has IPVS and this process may use it.
///
/// Kernel tests call this first, so that one that was started outside the lab fails with what to do instead of with an errno.
pub fn require_ipvs() -> Result<()> {
    ensure!(
        has_ipvs(),
        "this tier needs a kernel with IPVS, and this one has none; run `make test-kernel`"
    );
    ensure!(
        is_root(),
        "this tier makes network namespaces and must run as root; run `make test-kernel`"
    );
    Ok(())
}

/// True when IPVS is there now; nothing is loaded.
pub(crate) fn has_ipvs() -> bool {
    Path::new(IPVS_TABLE).exists()
}

/// True when the kernel of this machine has IPVS or loads it on request.
fn host_offers_ipvs() -> bool {
    has_ipvs()
        || (is_root() && modprobe(&["ip_vs"]).is_ok_and(|missing| missing.is_empty()) && has_ipvs())
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Loads `modules` and returns the names of those which could not be loaded.
pub(crate) fn modprobe(modules: &[&str]) -> Result<Vec<String>> {
    let output = Command::new(find_program("modprobe")?)
        .arg("-a")
        .args(modules)
        .stdin(Stdio::null())
        .output()
        .context("could not run modprobe")?;
    let complaints = String::from_utf8_lossy(&output.stderr);
    let named = |module: &str| {
        complaints
            .split(['\'', ' ', ':'])
            .any(|word| word == module)
    };
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
