//! The kernel's release, IPVS version and schedulers, from world-readable files.

use std::{collections::BTreeSet, fs, path::Path};

use lvs_model::{KernelVersion, SchedulerName};

const RELEASE: &str = "/proc/sys/kernel/osrelease";

/// The kernel's release, IPVS version and schedulers. What cannot be read is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// The release, as printed by `uname -r`.
    pub release: String,
    /// The version of IPVS. Empty if IPVS is not loaded; reading it does not load the module.
    pub ipvs_version: String,
    /// The schedulers that are loaded, built in, or listed in `/lib/modules`.
    pub schedulers: Vec<SchedulerName>,
}

impl About {
    /// Reads the files.
    pub fn read() -> Self {
        let release = text(RELEASE).trim().to_owned();
        let modules = Path::new("/lib/modules").join(&release);
        let lists = ["modules.builtin", "modules.dep"].map(|list| text(modules.join(list)));
        let mut known = BTreeSet::new();
        for list in &lists {
            known.extend(modules_of(list));
        }
        let has = |scheduler: &SchedulerName| {
            let module = module_of(*scheduler);
            known.contains(module.as_str()) || Path::new("/sys/module").join(&module).exists()
        };
        Self {
            ipvs_version: ipvs_version(&text("/proc/net/ip_vs")).to_owned(),
            schedulers: SchedulerName::ALL.into_iter().filter(has).collect(),
            release,
        }
    }
}

/// Reads the kernel's version. `None` if it cannot be read.
pub(crate) fn version() -> Option<KernelVersion> {
    KernelVersion::of_release(&text(RELEASE))
}

fn text(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// Returns the version in the first line of /proc/net/ip_vs: `IP Virtual Server version 1.2.1 (size=4096)`.
fn ipvs_version(table: &str) -> &str {
    let version = table
        .strip_prefix("IP Virtual Server version ")
        .and_then(|rest| rest.split_whitespace().next());
    version.unwrap_or_default()
}

/// Returns the module that the kernel requests for a scheduler (`ip_vs_scheduler_get`,
/// net/netfilter/ipvs/ip_vs_sched.c).
fn module_of(scheduler: SchedulerName) -> String {
    format!("ip_vs_{}", scheduler.as_str())
}

/// Returns the names of the modules in a list from `/lib/modules`.
///
/// A line contains a path such as `kernel/net/netfilter/ipvs/ip_vs_rr.ko.xz`. In `modules.dep` a colon and the modules
/// that it depends on follow.
fn modules_of(list: &str) -> impl Iterator<Item = &str> {
    list.lines().filter_map(|line| {
        let path = line.split_once(':').map_or(line, |(path, _)| path);
        let file = path.rsplit('/').next()?;
        file.split_once(".ko").map(|(name, _)| name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_the_first_line_of_the_table() {
        let table = "IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port\n";
        assert_eq!(ipvs_version(table), "1.2.1");
        assert_eq!(ipvs_version(""), "");
    }

    #[test]
    fn module_names_are_read_from_plain_and_compressed_files() {
        let list = "kernel/net/netfilter/ipvs/ip_vs_rr.ko\n\
                    kernel/net/netfilter/ipvs/ip_vs_sh.ko.xz: kernel/net/netfilter/ipvs/ip_vs.ko.xz\n\nrubbish\n";
        assert_eq!(
            modules_of(list).collect::<Vec<_>>(),
            ["ip_vs_rr", "ip_vs_sh"]
        );
    }
}
