//! What this kernel is, as far as files tell that everybody may read.

use std::{collections::BTreeSet, fs, path::Path};

use lvs_model::SchedulerName;

/// What this kernel is. What cannot be read is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// Its release, as `uname -r`.
    pub release: String,
    /// The version of IPVS, which is not loaded for this; empty where it is not there.
    pub ipvs_version: String,
    /// The schedulers that it has, or can load as far as `/lib/modules` tells.
    pub schedulers: Vec<SchedulerName>,
}

impl About {
    /// Reads it.
    pub fn read() -> Self {
        let release = text("/proc/sys/kernel/osrelease").trim().to_owned();
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

fn text(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The first line is `IP Virtual Server version 1.2.1 (size=4096)`.
fn ipvs_version(table: &str) -> &str {
    let version = table
        .strip_prefix("IP Virtual Server version ")
        .and_then(|rest| rest.split_whitespace().next());
    version.unwrap_or_default()
}

/// The kernel asks for this module when it lacks a scheduler (`ip_vs_scheduler_get`, net/netfilter/ipvs/ip_vs_sched.c).
fn module_of(scheduler: SchedulerName) -> String {
    format!("ip_vs_{}", scheduler.as_str())
}

/// The modules that a list of `/lib/modules` names: `kernel/net/netfilter/ipvs/ip_vs_rr.ko.xz`, with the modules that
/// it needs behind a colon in `modules.dep`.
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
    fn the_version_is_in_the_first_line_of_the_table() {
        let table = "IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port\n";
        assert_eq!(ipvs_version(table), "1.2.1");
        assert_eq!(ipvs_version(""), "");
    }

    #[test]
    fn modules_are_named_by_their_files_with_and_without_compression() {
        let list = "kernel/net/netfilter/ipvs/ip_vs_rr.ko\n\
                    kernel/net/netfilter/ipvs/ip_vs_sh.ko.xz: kernel/net/netfilter/ipvs/ip_vs.ko.xz\n\nrubbish\n";
        assert_eq!(
            modules_of(list).collect::<Vec<_>>(),
            ["ip_vs_rr", "ip_vs_sh"]
        );
    }
}
