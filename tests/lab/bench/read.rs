//! Measures reading the whole table, as the agent's check does.

use std::{hint::black_box, path::Path, time::Instant};

use anyhow::{Context, Result, ensure};
use ipvs_netlink::Handle;
use lab::Host;

use super::{
    configurations::Load,
    measure,
    table::{READ, READ_BY_IPVSADM, READ_KEPT, Row},
};

/// The prefixes of the lines in which `lab read-table` prints its results.
const READ_MICROSECONDS: &str = "read-us=";
const READ_DESTINATIONS: &str = "read-destinations=";

/// Reads a machine's table with ipvsadm and with the agent's code, each in a process of its own.
pub(super) fn measure(host: &Host, load: Load) -> Result<Vec<Row>> {
    let lab = std::env::current_exe().context("could not find out which program this is")?;
    let ipvsadm = measure::run(measure::command(host, Path::new("ipvsadm"), &["-Sn"])?)?;
    let ours = |what, arguments: &[&str]| -> Result<Row> {
        let usage = measure::run(measure::command(host, &lab, arguments)?)?;
        let destinations: usize = measure::reported(&usage.stderr, READ_DESTINATIONS)?;
        ensure!(
            destinations == load.services * load.destinations,
            "{destinations} destinations were read"
        );
        let took = measure::reported_duration(&usage.stderr, READ_MICROSECONDS)?;
        Ok(Row::timed(what, took).with_memory(usage.peak_kib))
    };
    Ok(vec![
        Row::timed(READ_BY_IPVSADM, ipvsadm.took).with_memory(ipvsadm.peak_kib),
        ours(READ, &["read-table"])?,
        ours(READ_KEPT, &["read-table", "--keep"])?,
    ])
}

/// Reads the table of the present network namespace and prints the time on standard error, for `lab
/// read-table`.
pub(crate) fn read_table(keep: bool) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let started = Instant::now();
    let destinations = runtime.block_on(async {
        let mut handle = Handle::connect().await?;
        let mut destinations = 0;
        if keep {
            let tables = black_box(handle.snapshot().await?);
            destinations = tables.iter().map(|table| table.destinations.len()).sum();
        } else {
            let mut tables = handle.tables().await?;
            while let Some(table) = tables.next().await? {
                destinations += black_box(table).destinations.len();
            }
        }
        anyhow::Ok(destinations)
    })?;
    eprintln!("{READ_MICROSECONDS}{}", started.elapsed().as_micros());
    eprintln!("{READ_DESTINATIONS}{destinations}");
    Ok(())
}
