//! Reads and writes sysctls below /proc/sys.

use std::{
    collections::BTreeMap,
    fs, io,
    num::ParseIntError,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use lvs_model::{ConntrackTable, InterfaceName, Sysctl};
use thiserror::Error;
use tracing::debug;

/// Why a sysctl could not be set.
#[derive(Debug, Error)]
pub(crate) enum SysctlError {
    /// /proc/sys is mounted read-only.
    #[error(
        "setting {sysctl}: {} is read-only; a container needs the host's /proc/sys/net mounted at {MOUNTED}/net, or to be privileged",
        path(sysctl).display()
    )]
    ReadOnly { sysctl: Sysctl },
    /// The process lacks a permission.
    #[error("setting {sysctl}: it needs root and CAP_NET_ADMIN in this network namespace")]
    Denied { sysctl: Sysctl },
    /// The sysctl does not exist.
    #[error(
        "setting {sysctl}: {} does not exist: the interface is gone, or the kernel lacks {}",
        path(sysctl).display(),
        provider(sysctl)
    )]
    Absent { sysctl: Sysctl },
    /// The kernel refuses the value.
    #[error("setting {sysctl} to {value}")]
    Write {
        sysctl: Sysctl,
        value: i64,
        #[source]
        error: io::Error,
    },
    /// The value cannot be read back.
    #[error("reading {sysctl} back")]
    Read {
        sysctl: Sysctl,
        #[source]
        error: ReadError,
    },
    /// The value read back differs: the kernel or another program has changed it.
    #[error("{sysctl} was set to {value} and is {found}")]
    Differs {
        sysctl: Sysctl,
        value: i64,
        found: i64,
    },
}

/// Why a sysctl could not be read.
#[derive(Debug, Error)]
pub(crate) enum ReadError {
    /// The file cannot be read.
    #[error("reading the file")]
    File(#[from] io::Error),
    /// The file does not contain one number.
    #[error("parsing the number")]
    Number(#[from] ParseIntError),
}

/// Reads the sysctls of the namespace and of the interfaces. Those that do not exist are left out: the module ip_vs
/// provides `net.ipv4.vs`.
pub(crate) fn observe<'a>(
    interfaces: impl Iterator<Item = &'a InterfaceName>,
) -> BTreeMap<Sysctl, i64> {
    let of_interfaces = interfaces.flat_map(of_interface);
    of_namespace()
        .into_iter()
        .chain(of_interfaces)
        .filter_map(found)
        .collect()
}

/// Reads how full the table of connection tracking is. `None` if the kernel has none.
pub(crate) fn conntrack() -> Option<ConntrackTable> {
    let number = |name: &str| {
        let path = Path::new("/proc/sys/net/netfilter").join(name);
        fs::read_to_string(path).ok()?.trim().parse().ok()
    };
    Some(ConntrackTable {
        count: number("nf_conntrack_count")?,
        max: number("nf_conntrack_max")?,
    })
}

/// Writes a value and verifies it.
pub(crate) fn write(sysctl: &Sysctl, value: i64) -> Result<(), SysctlError> {
    let sysctl = || sysctl.clone();
    fs::write(path(&sysctl()), value.to_string())
        .map_err(|error| refused(sysctl(), value, error))?;
    let found = read(&sysctl()).map_err(|error| SysctlError::Read {
        sysctl: sysctl(),
        error,
    })?;
    if found == value {
        Ok(())
    } else {
        Err(SysctlError::Differs {
            sysctl: sysctl(),
            value,
            found,
        })
    }
}

fn of_namespace() -> [Sysctl; 13] {
    [
        Sysctl::Ipv4Forward,
        Sysctl::Ipv6Forward,
        Sysctl::AcceptRedirects(None),
        Sysctl::ArpIgnore(None),
        Sysctl::ArpAnnounce(None),
        Sysctl::RpFilter(None),
        Sysctl::SendRedirects(None),
        Sysctl::VsConntrack,
        Sysctl::VsConnReuseMode,
        Sysctl::VsExpireNodestConn,
        Sysctl::VsExpireQuiescentTemplate,
        Sysctl::VsSloppyTcp,
        Sysctl::VsBackupOnly,
    ]
}

fn of_interface(interface: &InterfaceName) -> [Sysctl; 5] {
    [
        Sysctl::Forwarding,
        Sysctl::ArpIgnore,
        Sysctl::ArpAnnounce,
        Sysctl::RpFilter,
        Sysctl::SendRedirects,
    ]
    .map(|sysctl| sysctl(Some(interface.clone())))
}

fn found(sysctl: Sysctl) -> Option<(Sysctl, i64)> {
    match read(&sysctl) {
        Ok(value) => Some((sysctl, value)),
        Err(error) => {
            debug!(%sysctl, ?error, "sysctl skipped: it cannot be read");
            None
        }
    }
}

fn read(sysctl: &Sysctl) -> Result<i64, ReadError> {
    Ok(fs::read_to_string(path(sysctl))?.trim().parse()?)
}

fn refused(sysctl: Sysctl, value: i64, error: io::Error) -> SysctlError {
    if error.kind() == io::ErrorKind::ReadOnlyFilesystem {
        SysctlError::ReadOnly { sysctl }
    } else if error.kind() == io::ErrorKind::PermissionDenied {
        SysctlError::Denied { sysctl }
    } else if error.kind() == io::ErrorKind::NotFound {
        SysctlError::Absent { sysctl }
    } else {
        SysctlError::Write {
            sysctl,
            value,
            error,
        }
    }
}

/// Where a container has the host's /proc/sys mounted, since its own is read-only. The files in it still show the
/// values of the network namespace that the process is in.
const MOUNTED: &str = "/host/proc/sys";

fn path(sysctl: &Sysctl) -> PathBuf {
    static ROOT: LazyLock<&str> = LazyLock::new(|| {
        let is_mounted = Path::new(MOUNTED).join("net").is_dir();
        if is_mounted { MOUNTED } else { "/proc/sys" }
    });
    Path::new(*ROOT).join(sysctl.path())
}

/// Returns the part of the kernel that provides a sysctl.
fn provider(sysctl: &Sysctl) -> &'static str {
    match sysctl {
        Sysctl::VsConntrack
        | Sysctl::VsConnReuseMode
        | Sysctl::VsExpireNodestConn
        | Sysctl::VsExpireQuiescentTemplate
        | Sysctl::VsSloppyTcp
        | Sysctl::VsBackupOnly => "module ip_vs",
        Sysctl::Ipv6Forward => "IPv6",
        Sysctl::Ipv4Forward
        | Sysctl::Forwarding(_)
        | Sysctl::AcceptRedirects(_)
        | Sysctl::ArpIgnore(_)
        | Sysctl::ArpAnnounce(_)
        | Sysctl::RpFilter(_)
        | Sysctl::SendRedirects(_) => "IPv4",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sysctls_of_the_namespace_and_of_the_given_interfaces_are_read() {
        let lo: InterfaceName = "lo".parse().unwrap();
        let observed = observe([&lo].into_iter());
        assert!(observed.contains_key(&Sysctl::Ipv4Forward));
        assert!(observed.contains_key(&Sysctl::ArpIgnore(None)));
        assert!(observed.contains_key(&Sysctl::RpFilter(Some(lo))));
    }

    #[test]
    fn sysctls_of_a_missing_interface_are_skipped_and_cannot_be_written() {
        let gone: InterfaceName = "gone0".parse().unwrap();
        let sysctl = Sysctl::ArpIgnore(Some(gone.clone()));
        assert!(!observe([&gone].into_iter()).contains_key(&sysctl));
        let error = write(&sysctl, 1).unwrap_err();
        assert_eq!(
            error.to_string(),
            "setting net.ipv4.conf.gone0.arp_ignore: /proc/sys/net/ipv4/conf/gone0/arp_ignore does not exist: \
             the interface is gone, or the kernel lacks IPv4"
        );
    }

    #[test]
    fn the_error_for_a_read_only_proc_names_the_sysctl_and_its_path() {
        let error = io::Error::from(io::ErrorKind::ReadOnlyFilesystem);
        let text = refused(Sysctl::Ipv4Forward, 1, error).to_string();
        assert!(text.starts_with(
            "setting net.ipv4.ip_forward: /proc/sys/net/ipv4/ip_forward is read-only;"
        ));
    }
}
