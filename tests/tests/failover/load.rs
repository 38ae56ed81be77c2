//! Requests of a client while VIPs move.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::{Result, ensure};
use lab::{Client, Host};

use crate::pair::{Pair, counter};

/// Requests to the VIPs, one after the other, until it is asked what has failed.
pub(crate) struct Load {
    client: Host,
    retransmissions: u64,
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<(usize, Vec<String>)>,
}

impl Load {
    pub(crate) fn on(pair: &Pair, vips: &[&str]) -> Result<Self> {
        let host = pair.lab.host("client")?;
        let retransmissions = host.in_namespace(retransmissions)??;
        let client = Client::on(host);
        let addresses = vips.iter().map(|vip| Ok(SocketAddr::new(vip.parse()?, 80)));
        let addresses: Vec<SocketAddr> = addresses.collect::<Result<_>>()?;
        let is_over = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&is_over);
        let thread = thread::spawn(move || {
            let (mut answers, mut failures) = (0, Vec::new());
            for address in addresses.iter().cycle() {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                match client.fetch(address) {
                    Ok(_) => answers += 1,
                    Err(error) => failures.push(format!("{address}: {error:#}")),
                }
            }
            (answers, failures)
        });
        Ok(Self {
            client: host.clone(),
            retransmissions,
            is_over,
            thread,
        })
    }

    /// Fails also if a packet was lost and sent again. How long requests take is no measure: processes wait for the only processor.
    pub(crate) fn expect_no_failure(self) -> Result<()> {
        self.is_over.store(true, Ordering::Relaxed);
        let (answers, failures) = self.thread.join().unwrap();
        let lost = self.client.in_namespace(retransmissions)?? - self.retransmissions;
        println!("{answers} requests answered, {lost} packets sent again");
        ensure!(
            answers > 0 && failures.is_empty() && lost == 0,
            "{answers} answers, {lost} packets sent again, {failures:?}"
        );
        Ok(())
    }
}

/// The TCP segments that the network namespace of this thread has sent again, of both families.
fn retransmissions() -> Result<u64> {
    counter("snmp", "Tcp:", "RetransSegs")
}
