//! The program `lvs-agent`.

use std::process::ExitCode;

use clap::Parser;
use lvs_agent::{cli::Cli, commands};
use lvs_runtime::log;
use owo_colors::{OwoColorize, Stream};

fn main() -> ExitCode {
    keep_memory();
    match start(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            anstream::eprintln!(
                "{} {error:#}",
                "lvs-agent:".if_supports_color(Stream::Stderr, |text| text.red())
            );
            ExitCode::from(2)
        }
    }
}

fn start(cli: Cli) -> anyhow::Result<ExitCode> {
    log::init(&cli.log)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(commands::execute(cli.command))
}

/// Makes glibc's malloc reuse large freed blocks instead of returning them to the kernel.
///
/// Returning them and mapping fresh ones costs a page fault for every 4 KiB, more than the work done with the memory.
/// Freeing a mapped block raises the mmap and trim thresholds to its size, up to 32 MiB (mallopt(3),
/// `M_MMAP_THRESHOLD`); the block itself is never touched. With another C library this has no effect.
fn keep_memory() {
    const LARGEST_MMAP_THRESHOLD: usize = 32 << 20;
    drop(std::hint::black_box(Vec::<u8>::with_capacity(
        LARGEST_MMAP_THRESHOLD - (64 << 10),
    )));
}
