//! Measures how long an acknowledged change of an EndpointSlice takes to reach the director's kernel, for the operator and
//! for kube-proxy in ipvs mode, on one API server in one run.
//!
//! The API server and the controller run on this machine. A guest with a link to it runs a director with its agent, a machine
//! with kube-proxy, and the program that changes slices and reads both kernels. Operator and kube-proxy are measured one at a
//! time, while the other is stopped.

use std::{
    env, fs, io,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use ipvs_netlink::Handle;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use lab::{
    Boot, ControlPlane, ControlPlaneSpec, Controller, Host, Lab, Process, ProgramSet, Tap,
    Topology, last_lines,
};

use super::measure;
use crate::demo::cluster::{install, kubeconfigs, user};

mod agent;
mod objects;

use agent::{Agent, KUBECONFIGS, Start, kubeconfig, scratch};
use objects::{Kind, Objects, Pace, TIMEOUT};

const WIRE: &str = "LAB_BENCH_WIRE";
const KUBE_PROXY: &str = "LAB_BENCH_KUBE_PROXY";

/// How often the operator fills an empty kernel from each start; the median counts. kube-proxy does it once, since it takes minutes
/// to be ready for the next change.
const FILLS: usize = 5;
/// The scale at which filling an empty kernel is measured.
const FILLED: usize = 1_000;
/// The number of measured changes at each scale: enough that changes delayed by a check of the whole kernel are within the
/// last percent.
const SAMPLES: usize = 300;
/// The number of measured changes of kube-proxy, each of which may take minutes.
const PROXY_PACE: Pace = Pace {
    first: 1,
    most: 10,
    least: 3,
    time: Duration::from_secs(300),
};
/// How long an idle agent must receive nothing. Its watches are renewed every 35 s.
const SILENCE: Duration = Duration::from_secs(3);
/// For how long an idle agent is measured. It renews its Lease every 10 s.
const SHORTEST_IDLE: Duration = Duration::from_secs(20);
const LONGEST_IDLE: Duration = Duration::from_secs(60);

/// The machines: a director, another with an agent that no change concerns, and one with kube-proxy.
const TOPOLOGY: &str = "
networks: [lan, mgmt]
hosts:
  director: {links: {eth0: {network: lan, addresses: [10.0.0.1/8]}, mgmt0: {network: mgmt, addresses: [WIRE.11/24]}}}
  other: {links: {mgmt0: {network: mgmt, addresses: [WIRE.12/24]}}}
  proxy: {links: {eth0: {network: lan, addresses: [10.0.0.2/8]}, mgmt0: {network: mgmt, addresses: [WIRE.13/24]}}, routes: {default: WIRE.1}}
  watcher: {links: {mgmt0: {network: mgmt, addresses: [WIRE.14/24]}}}
";

/// What is measured.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// The numbers of VirtualServices to measure with, one after the other.
    #[arg(default_values_t = [100, 1_000, 5_000])]
    scales: Vec<usize>,
    /// The endpoints of each of them.
    #[arg(long, default_value_t = 10)]
    endpoints: usize,
    /// Measures the operator without kube-proxy beside it.
    #[arg(long)]
    alone: bool,
}

impl Options {
    fn arguments(&self) -> Vec<String> {
        let Self {
            scales,
            endpoints,
            alone,
        } = self;
        let scales = scales.iter().map(ToString::to_string);
        let endpoints = ["--endpoints".to_owned(), endpoints.to_string()];
        let alone = alone.then(|| "--alone".to_owned());
        scales.chain(endpoints).chain(alone).collect()
    }
}

/// Measures, on this machine or in the guest.
pub(crate) fn run(options: &Options) -> Result<()> {
    match env::var(WIRE) {
        Ok(wire) => inside(&wire, options),
        Err(_) => outside(options),
    }
}

fn outside(options: &Options) -> Result<()> {
    let tap = Tap::create()?;
    let mut spec = ControlPlaneSpec {
        address: tap.address(1).into(),
        programs: ProgramSet::Cluster,
        ..ControlPlaneSpec::default()
    };
    let machines = ["director", "other"];
    for machine in machines {
        spec = spec.user(&user(machine), &[]);
    }
    let control_plane = ControlPlane::start_as(&spec)?;
    install(&control_plane, &machines)?;
    let controller = Controller::start(&control_plane, &control_plane.kubeconfig(), "controller")?;
    let kubeconfigs = kubeconfigs(&control_plane, &machines)?;
    let lab = env::current_exe().context("could not find out which program this is")?;
    let [a, b, c, _] = tap.address(0).octets();
    let guest = Boot::new(lab.to_string_lossy())
        .args(["bench-latency"])
        .args(options.arguments())
        .tap(&tap)
        .memory("3G")
        .env(WIRE, format!("{a}.{b}.{c}"))
        .env(KUBECONFIGS, kubeconfigs.to_string_lossy())
        .env(
            KUBE_PROXY,
            control_plane.program("kube-proxy")?.to_string_lossy(),
        )
        .timeout(Duration::from_secs(3600))
        .start_into(io::stdout(), io::stderr())?;
    let finished = guest.wait()?;
    ensure!(finished.exit.success(), "the measurement failed");
    println!(
        "lvs-controller: peak memory {} MiB",
        measure::peak_of_tree(controller.id())? / 1024
    );
    Ok(())
}

fn inside(wire: &str, options: &Options) -> Result<()> {
    let lab = Lab::lay_out(&TOPOLOGY.replace("WIRE", wire).parse::<Topology>()?)?;
    lab.plug("vec0", "mgmt")?;
    let watcher = lab.host("watcher")?;
    watcher.in_namespace(|| {
        // One worker besides this thread, because the threads that open sockets in other namespaces wait for it.
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?
            .block_on(measure_all(&lab, options))
    })?
}

/// A socket for the IPVS table of a machine.
fn table(host: &Host) -> Result<Handle> {
    let runtime = tokio::runtime::Handle::current();
    Ok(host.in_namespace(|| runtime.block_on(Handle::connect()))??)
}

async fn client() -> Result<Client> {
    let file = Kubeconfig::read_from(kubeconfig("admin")?)?;
    Ok(Client::try_from(
        Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?,
    )?)
}

fn start_kube_proxy(host: &Host) -> Result<Process> {
    let program = env::var_os(KUBE_PROXY).with_context(|| format!("{KUBE_PROXY} is not set"))?;
    let mut command = host.command(program);
    command
        .args([
            "--proxy-mode=ipvs",
            "--hostname-override=proxy",
            "--conntrack-max-per-core=0",
        ])
        .arg("--kubeconfig")
        .arg(kubeconfig("admin")?)
        .stdout(std::process::Stdio::null())
        .stderr(fs::File::create(scratch().join("kube-proxy.log"))?);
    host.spawn(&mut command)
}

/// The end of kube-proxy's log, for an error message.
fn log_of_kube_proxy() -> String {
    let lines = last_lines(&scratch().join("kube-proxy.log"), 5);
    format!("the end of kube-proxy's log:\n{lines}")
}

/// Returns how many bytes of IPv4 packets a machine has received. They include those from the API server, and no neighbour
/// discovery.
fn received_bytes(host: &Host) -> Result<u64> {
    let text = host.in_namespace(|| fs::read_to_string("/proc/thread-self/net/netstat"))??;
    // Two lines begin with it: one with names, one with values.
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("IpExt:"));
    let (names, values) = lines
        .next()
        .zip(lines.next())
        .context("there is no IpExt")?;
    let mut columns = names.split_whitespace().zip(values.split_whitespace());
    let found = columns.find(|(name, _)| *name == "InOctets");
    let (_, octets) = found.context("there is no InOctets")?;
    Ok(octets.parse()?)
}

/// Waits until a machine has received nothing for a while; returns the bytes received so far.
async fn await_silence(host: &Host) -> Result<u64> {
    let started = Instant::now();
    let mut received = received_bytes(host)?;
    loop {
        tokio::time::sleep(SILENCE).await;
        let now = received_bytes(host)?;
        if now == received {
            return Ok(received);
        }
        ensure!(
            started.elapsed() < TIMEOUT,
            "{} is never silent",
            host.name()
        );
        received = now;
    }
}

/// Returns how many bytes a machine receives in some time in which nothing changes.
async fn idle_bytes(host: &Host, time: Duration) -> Result<u64> {
    let measured = time.clamp(SHORTEST_IDLE, LONGEST_IDLE);
    let before = received_bytes(host)?;
    tokio::time::sleep(measured).await;
    let received = received_bytes(host)? - before;
    Ok(received * u64::try_from(time.as_millis())? / u64::try_from(measured.as_millis())?)
}

async fn measure_all(lab: &Lab, options: &Options) -> Result<()> {
    let mut bench = LatencyBench {
        objects: Objects::new(client().await?, options.endpoints),
        director_table: table(lab.host("director")?)?,
        proxy_table: table(lab.host("proxy")?)?,
    };
    bench.objects.add_node_of_kube_proxy().await?;
    let mut rows = Vec::new();
    for &scale in &options.scales {
        eprintln!("bench: {scale} virtual services");
        bench.objects.grow(scale).await?;
        let operator = bench.measure_operator(lab, scale).await?;
        println!("{scale} x {}: {}", options.endpoints, operator.text());
        if options.alone {
            continue;
        }
        eprintln!("bench: {scale} virtual services: kube-proxy");
        let kube = bench.measure_kube_proxy(lab.host("proxy")?).await?;
        println!("{scale} x {}: {}", options.endpoints, kube.text());
        rows.push(ScaleRow {
            scale,
            refilled: operator.refilled,
            operator: operator.measured,
            kube: kube.measured,
        });
    }
    if !rows.is_empty() {
        println!("{}", verdict(&rows, options.endpoints)?);
    }
    Ok(())
}

/// The objects at the API server, and the tables that must follow them.
struct LatencyBench {
    objects: Objects,
    director_table: Handle,
    proxy_table: Handle,
}

impl LatencyBench {
    async fn measure_operator(&mut self, lab: &Lab, scale: usize) -> Result<OfOperator> {
        let Self {
            objects,
            director_table,
            ..
        } = self;
        let (director, other) = (lab.host("director")?, lab.host("other")?);
        // The controller must have written every binding before filling an empty kernel is measured.
        let _other = Agent::start(other, Start::NewMachine)?;
        let mut agent = Agent::start(director, Start::NewMachine)?;
        objects
            .await_table(director_table, Kind::Operator, &mut agent.process)
            .await?;
        // Statuses are written later and are not measured.
        objects.await_ready().await?;
        let (agent, refilled) = self.fill(director, agent, Start::Reboot).await?;
        let (agent, filled) = self.fill(director, agent, Start::NewMachine).await?;
        let Self {
            objects,
            director_table,
            ..
        } = self;
        // Its own status update must not count.
        let received = await_silence(other).await?;
        let to_director = received_bytes(director)?;
        let written = objects.written_bytes().await?;
        let started = Instant::now();
        let samples = objects
            .sample(director_table, Kind::Operator, Pace::of(SAMPLES))
            .await?;
        let took = started.elapsed();
        let strangers = received_bytes(other)? - received;
        let to_director = received_bytes(director)? - to_director;
        let written = objects.written_bytes().await? - written;
        let idle = idle_bytes(other, took).await?;
        eprintln!(
            "bench: {scale} virtual services: p50 {:.1?}, p99 {:.1?}",
            quantile(&samples, 50),
            quantile(&samples, 99)
        );
        let peak = measure::peak_of_tree(agent.process.id())?;
        agent.stop()?;
        let measured = Measured {
            samples,
            filled,
            peak,
        };
        Ok(OfOperator {
            refilled,
            bytes: to_director / u64::try_from(SAMPLES)?,
            written: written / u64::try_from(SAMPLES)?,
            measured,
            strangers,
            idle,
        })
    }

    /// Fills an empty kernel several times; returns the last agent and the median.
    async fn fill(
        &mut self,
        director: &Host,
        mut agent: Agent,
        start: Start,
    ) -> Result<(Agent, Duration)> {
        let mut fills = Vec::new();
        while fills.len() < FILLS {
            // Neither its status nor what it saves on disk may burden the next one.
            await_silence(director).await?;
            agent.stop()?;
            agent = Agent::start(director, start)?;
            let started = Instant::now();
            self.objects
                .await_table(&mut self.director_table, Kind::Operator, &mut agent.process)
                .await?;
            fills.push(started.elapsed());
        }
        eprintln!("bench: full table {fills:.2?} ({start:?})");
        Ok((agent, quantile(&fills, 50)))
    }

    async fn measure_kube_proxy(&mut self, proxy: &Host) -> Result<OfKubeProxy> {
        let Self {
            objects,
            proxy_table,
            ..
        } = self;
        let mut kube_proxy = start_kube_proxy(proxy)?;
        let started = Instant::now();
        objects
            .await_table(proxy_table, Kind::KubeProxy, &mut kube_proxy)
            .await
            .with_context(log_of_kube_proxy)?;
        let filled = started.elapsed();
        // Its work after filling the table delays only the first change.
        let first = objects.change(proxy_table, Kind::KubeProxy, 0).await?;
        let samples = objects
            .sample(proxy_table, Kind::KubeProxy, PROXY_PACE)
            .await?;
        let peak = measure::peak_of_tree(kube_proxy.id())?;
        kube_proxy.stop(Duration::from_secs(60))?;
        let measured = Measured {
            samples,
            filled,
            peak,
        };
        Ok(OfKubeProxy { measured, first })
    }
}

/// The results of one program.
struct Measured {
    /// The duration of each change.
    samples: Vec<Duration>,
    /// The time to fill an empty table.
    filled: Duration,
    /// The peak memory in KiB.
    peak: u64,
}

impl Measured {
    fn text(&self) -> String {
        let ms = |percent| quantile(&self.samples, percent).as_secs_f64() * 1e3;
        format!(
            "p50 {:.1} ms, p99 {:.1} ms of {} changes, start to full table {:.2} s, peak {} MiB",
            ms(50),
            ms(99),
            self.samples.len(),
            self.filled.as_secs_f64(),
            self.peak / 1024
        )
    }
}

/// The results of the operator.
struct OfOperator {
    measured: Measured,
    /// The time to fill the table after a reboot.
    refilled: Duration,
    /// The bytes to the director for one change, on average.
    bytes: u64,
    /// The bytes that controller and agents write to the API server for one change, on average.
    written: u64,
    /// The bytes to an agent that no change concerns.
    strangers: u64,
    /// The bytes to it in the same time without changes: for its Lease.
    idle: u64,
}

impl OfOperator {
    fn text(&self) -> String {
        let Self {
            measured,
            refilled,
            bytes,
            written,
            strangers,
            idle,
        } = self;
        let measured = measured.text();
        let refilled = refilled.as_secs_f64();
        format!(
            "lvs-operator {measured}, {refilled:.2} s after a reboot, {bytes} bytes to the agent and {written} to the API server for a change; {strangers} bytes to an agent that \
             {SAMPLES} changes do not concern, and {idle} for its Lease in the same time without changes"
        )
    }
}

/// The results of kube-proxy.
struct OfKubeProxy {
    measured: Measured,
    /// The duration of the first change after its start.
    first: Duration,
}

impl OfKubeProxy {
    fn text(&self) -> String {
        let Self { measured, first } = self;
        let measured = measured.text();
        format!("kube-proxy {measured}; {first:.1?} for the first change after its start")
    }
}

/// The results at one scale.
struct ScaleRow {
    scale: usize,
    operator: Measured,
    /// The operator's time to fill the table after a reboot.
    refilled: Duration,
    kube: Measured,
}

/// The ratios that the project promises.
fn verdict(rows: &[ScaleRow], endpoints: usize) -> Result<String> {
    let (first, last) = (
        rows.first().context("nothing was measured")?,
        rows.last().context("nothing was measured")?,
    );
    let p99 = |measured: &Measured| quantile(&measured.samples, 99).as_secs_f64();
    let filled = rows.iter().find(|row| row.scale == FILLED).unwrap_or(last);
    Ok(format!(
        "p99 at {} is {:.2} x p99 at {} (promised: at most 1.3) and {:.0} x better than kube-proxy's (at least 10); \
         from an empty kernel to {} x {endpoints} {:.0} x faster than kube-proxy on a new machine, {:.0} x after a reboot",
        last.scale,
        p99(&last.operator) / p99(&first.operator),
        first.scale,
        p99(&last.kube) / p99(&last.operator),
        filled.scale,
        filled.kube.filled.as_secs_f64() / filled.operator.filled.as_secs_f64(),
        filled.kube.filled.as_secs_f64() / filled.refilled.as_secs_f64(),
    ))
}

/// Returns the given percentile of the samples.
fn quantile(samples: &[Duration], percent: usize) -> Duration {
    let mut sorted = samples.to_vec();
    sorted.sort();
    let index = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(index).copied().unwrap_or_default()
}
