//! `lvs-agent hand-over`: lets other directors take the VIPs over, before this machine is stopped on purpose.
//!
//! The request is a file in the state directory, which the running agent watches. So it also counts after a restart of the agent or a
//! reboot, until it is withdrawn.

use std::{
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::ensure;
use lvs_kernel::VipSocket;
use lvs_model::Ledger;
use tokio::time::sleep;

use crate::state_dir::StateDir;

/// How long another director may take: several intervals between advertisements, unless they are very long.
const LONGEST_WAIT: Duration = Duration::from_secs(15);
/// The pause between two looks at the addresses.
const PAUSE: Duration = Duration::from_millis(100);

/// Asks the running agent to hand its VIPs over, and waits until it has. Returns 1 if no other director takes them.
pub(crate) async fn begin(state_dir: &Path) -> anyhow::Result<ExitCode> {
    ensure!(
        StateDir::is_in_use(state_dir)?,
        "no agent runs with the state directory {}",
        state_dir.display()
    );
    let state = StateDir::read_only(state_dir)?;
    let mut socket = VipSocket::connect()?;
    let before = held(&mut socket, &state.load_ledger()?).await?;
    state.ask_for_standby()?;
    let limit = Instant::now() + LONGEST_WAIT;
    loop {
        let left = held(&mut socket, &state.load_ledger()?).await?;
        if left.is_empty() {
            println!("on standby; VIPs handed over: {}", before.len());
            return Ok(ExitCode::SUCCESS);
        }
        if Instant::now() >= limit {
            eprintln!(
                "no other director has taken over {}; the agent goes on and tries again every 10 s, until `lvs-agent hand-over --end`",
                left.join(", ")
            );
            return Ok(ExitCode::FAILURE);
        }
        sleep(PAUSE).await;
    }
}

/// Withdraws the request: this machine may hold VIPs again.
pub(crate) fn end(state_dir: &Path) -> anyhow::Result<ExitCode> {
    StateDir::read_only(state_dir)?.withdraw_standby()?;
    println!("this machine may hold VIPs again; it takes them over as the DirectorGroup says");
    Ok(ExitCode::SUCCESS)
}

/// The VIPs on this machine that another director could hold.
async fn held(socket: &mut VipSocket, ledger: &Ledger) -> anyhow::Result<Vec<String>> {
    let found = socket.addresses().await?.into_iter();
    let held =
        found.filter(|(key, config)| config.expires && ledger.owns_address(key, config.owner));
    Ok(held.map(|(key, _)| key.address.to_string()).collect())
}
