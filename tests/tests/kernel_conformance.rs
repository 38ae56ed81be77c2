//! The conformance suite on the real kernel, in a network namespace of its own for each claim.
#![expect(clippy::unwrap_used, reason = "values that the test itself writes")]

use lab::{Lab, Topology};
use lvs_kernel::Kernel;

#[macro_use]
#[path = "conformance/claims.rs"]
mod claims;
#[path = "conformance/suite.rs"]
mod suite;

const MACHINE: &str = "
networks: [outer]
hosts:
  machine: {links: {eth0: {network: outer, addresses: [10.66.0.1/24]}}}
";

/// Runs a claim on the kernel, in a network namespace of its own.
fn on(claim: impl AsyncFnOnce(&mut Kernel) -> anyhow::Result<()> + Send) -> anyhow::Result<()> {
    lab::require_ipvs()?;
    let lab = Lab::lay_out(&MACHINE.parse::<Topology>()?)?;
    lab.host("machine")?.in_namespace(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let mut kernel = Kernel::connect()?;
            claim(&mut kernel).await
        })
    })?
}

test_every_claim!();
