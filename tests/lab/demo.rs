//! The demonstration: the three forwarding methods of LVS, each from one YAML file, with real packets.

use std::{
    collections::BTreeSet,
    env, fs, io,
    io::IsTerminal,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use lab::{Boot, Client, Host, Lab, Responder, Topology};
use owo_colors::{OwoColorize, Stream};

pub(crate) mod cluster;
pub(crate) mod failover;

/// Set in the guest.
const INSIDE: &str = "LAB_DEMO_INSIDE";

/// How many pages the client requests in each chapter.
const PAGES: usize = 6;

/// One forwarding method.
struct Chapter {
    title: &'static str,
    story: &'static str,
    topology: &'static str,
    example: &'static str,
    vip: &'static str,
    port: u16,
    /// The port on which the real servers listen.
    server_port: u16,
}

const CHAPTERS: [Chapter; 3] = [
    Chapter {
        title: "NAT",
        story: "The director rewrites addresses both ways. The VIP is its own outer address.",
        topology: include_str!("demo/nat.yaml"),
        example: "examples/nat.yaml",
        vip: "192.168.220.100",
        port: 80,
        server_port: 80,
    },
    Chapter {
        title: "DR, direct routing",
        story: "The director changes the link address only; real servers hold the VIP and answer the client themselves.",
        topology: include_str!("demo/dr.yaml"),
        example: "examples/dr.yaml",
        vip: "192.168.220.100",
        port: 81,
        server_port: 81,
    },
    Chapter {
        title: "TUN, tunnelling",
        story: "The director wraps packets into others; real servers are behind a router and answer the client themselves.",
        topology: include_str!("demo/tun.yaml"),
        example: "examples/tun.yaml",
        vip: "192.168.220.100",
        port: 82,
        server_port: 82,
    },
];

/// Shows every chapter, under a kernel with IPVS.
pub(crate) fn run() -> Result<()> {
    if env::var_os(INSIDE).is_none() {
        return start_inside();
    }
    let agent = PathBuf::from(env::var_os("LVS_AGENT").context("LVS_AGENT names no lvs-agent")?);
    let scratch = PathBuf::from(env::var_os("LAB_SCRATCH").unwrap_or_else(|| "/tmp".into()));
    for (number, chapter) in CHAPTERS.iter().enumerate() {
        let started = Instant::now();
        let machines = Machines {
            agent: &agent,
            state: scratch.join(format!("demo-{number}")),
        };
        show(number + 1, chapter, &machines)
            .with_context(|| format!("chapter {}", chapter.title))?;
        println!(
            "{}\n",
            format!("({:.1} s)", started.elapsed().as_secs_f64())
                .if_supports_color(Stream::Stdout, |t| t.dimmed())
        );
    }
    println!(
        "All three modes answered from both real servers, and every kernel was left as it was found."
    );
    Ok(())
}

fn start_inside() -> Result<()> {
    let lab = env::current_exe().context("could not find out which program this is")?;
    let colour = if io::stdout().is_terminal() {
        "FORCE_COLOR"
    } else {
        "NO_COLOR"
    };
    let guest = Boot::new(lab.to_string_lossy())
        .args(["demo"])
        .env(INSIDE, "1")
        .env(colour, "1")
        .timeout(Duration::from_secs(300))
        .start_into(io::stdout(), io::stderr())?;
    let finished = guest.wait()?;
    ensure!(finished.exit.success(), "the demonstration failed");
    Ok(())
}

fn show(number: usize, chapter: &Chapter, machines: &Machines<'_>) -> Result<()> {
    let title = format!("=== Chapter {number}: {} ===", chapter.title);
    println!(
        "{}\n{}\n",
        title.if_supports_color(Stream::Stdout, |text| text.bold()),
        chapter.story
    );
    let topology: Topology = chapter.topology.parse()?;
    let lab = Lab::lay_out(&topology)?;
    let yaml = fs::read_to_string(chapter.example)
        .with_context(|| format!("reading {}", chapter.example))?;
    heading(&format!(
        "{}, the same file on every machine",
        chapter.example
    ));
    println!("{}", yaml.trim_end());

    let servers = [lab.host("rs1")?, lab.host("rs2")?];
    let _responders: Vec<Responder> = servers
        .iter()
        .map(|host| host.respond(chapter.server_port))
        .collect::<Result<_>>()?;
    let director = lab.host("director")?;
    let before: Vec<String> = [director, servers[0], servers[1]]
        .into_iter()
        .map(kernel_state)
        .collect::<Result<_>>()?;
    for host in [servers[0], servers[1], director] {
        heading(&format!("{}: lvs-agent plan, then run", host.name()));
        print!(
            "{}",
            machines.agent(host, &["plan", "--config", chapter.example], &[0, 1])?
        );
        machines.agent(host, &["run", "--once", "--config", chapter.example], &[0])?;
        let again = machines.agent(host, &["plan", "--config", chapter.example], &[0])?;
        ensure!(
            again.is_empty(),
            "{} needs more steps after run:\n{again}",
            host.name()
        );
    }
    heading("director: ipvsadm -Ln");
    print!("{}", director.run(&["ipvsadm", "-Ln"])?);
    fetch_pages(chapter, lab.host("client")?)?;
    clean_up(
        chapter,
        machines,
        &[director, servers[0], servers[1]],
        &before,
    )
}

fn heading(text: &str) {
    println!(
        "\n{}",
        format!("--- {text}").if_supports_color(Stream::Stdout, |text| text.cyan())
    );
}

fn fetch_pages(chapter: &Chapter, client: &Host) -> Result<()> {
    heading(&format!(
        "client: {PAGES} pages from {}:{}",
        chapter.vip, chapter.port
    ));
    let own = client
        .addresses("eth0")
        .first()
        .context("the client has no address")?
        .addr();
    let mut seen = BTreeSet::new();
    for _ in 0..PAGES {
        let answer = Client::on(client).fetch((chapter.vip, chapter.port))?;
        println!("{answer}");
        ensure!(
            answer.peer.ip() == own,
            "the client's address was lost: the server saw {}",
            answer.peer
        );
        seen.insert(answer.server);
    }
    ensure!(seen.len() >= 2, "only {seen:?} answered");
    Ok(())
}

fn clean_up(
    chapter: &Chapter,
    machines: &Machines<'_>,
    hosts: &[&Host],
    before: &[String],
) -> Result<()> {
    heading("everywhere: lvs-agent cleanup");
    for (host, before) in hosts.iter().zip(before) {
        machines.agent(host, &["cleanup"], &[0])?;
        let after = kernel_state(host)?;
        ensure!(
            after == *before,
            "{} is not as it was before:\n{before}\n---\n{after}",
            host.name()
        );
    }
    let director = hosts.first().context("no machine was cleaned up")?;
    if Client::on(director)
        .timeout(Duration::from_millis(300))
        .fetch((chapter.vip, chapter.port))
        .is_ok()
    {
        bail!("the VIP still answers");
    }
    println!("every kernel is as it was before");
    Ok(())
}

/// Returns what the agent may change: addresses, links, rules and sysctls.
fn kernel_state(host: &Host) -> Result<String> {
    let mut state = host.run(&["ip", "-o", "addr"])?;
    state += &host.run(&["ip", "rule"])?;
    for key in [
        "net.ipv4.ip_forward",
        "net.ipv4.conf.all.arp_ignore",
        "net.ipv4.conf.all.arp_announce",
    ] {
        state += &format!("{key}={}\n", host.sysctl(key)?);
    }
    Ok(state)
}

/// The agent on machines of the lab.
struct Machines<'a> {
    agent: &'a Path,
    state: PathBuf,
}

impl Machines<'_> {
    /// Runs the agent on a machine and returns its output. An exit code that is not in `codes` is an error with
    /// that output.
    fn agent(&self, host: &Host, arguments: &[&str], codes: &[i32]) -> Result<String> {
        let mut command: Command = host.command(self.agent);
        command.args(arguments).arg("--node-name").arg(host.name());
        command
            .arg("--state-dir")
            .arg(self.state.join(host.name()))
            .args(["--log", "warn"]);
        let Output {
            status,
            stdout,
            stderr,
        } = command.output()?;
        let text = String::from_utf8_lossy(&stdout).into_owned();
        let errors = String::from_utf8_lossy(&stderr);
        let allowed = status.code().is_some_and(|code| codes.contains(&code));
        ensure!(
            allowed,
            "lvs-agent {} on {}: {status}\n{text}{errors}",
            arguments.join(" "),
            host.name()
        );
        Ok(text + &errors)
    }
}
