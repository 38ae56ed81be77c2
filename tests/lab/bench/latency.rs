//! How long after a change of an EndpointSlice was acknowledged the director's kernel has it: the operator and kube-proxy
//! in ipvs mode, on one API server in one run.
//!
//! On this machine run the API server and the controller; in a guest with a wire to it, a director with its agent, a
//! machine with kube-proxy, and whoever changes slices and looks at both kernels. Each is measured while the other is stopped.

use std::{
    env, fs, io,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use ipvs_netlink::{Handle, Protocol, ServiceKey};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{
    Api, Client, Config,
    api::{ListParams, Patch, PatchParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use lab::{
    Boot, ControlPlane, ControlPlaneSpec, Controller, Host, Lab, Process, ProgramSet, Tap, Topology,
};
use lvs_crd::VirtualService;
use serde_json::{Value, json};

use super::measure;
use crate::demo::cluster::{install, kubeconfigs, user};

const WIRE: &str = "LAB_BENCH_WIRE";
const KUBECONFIGS: &str = "LAB_BENCH_KUBECONFIGS";
const KUBE_PROXY: &str = "LAB_BENCH_KUBE_PROXY";

/// The first cluster IP that the bench gives to a Service.
const CLUSTER_IPS: Ipv4Addr = Ipv4Addr::new(10, 96, 16, 1);
/// How many VirtualServices there are, one after the other.
const SCALES: [usize; 3] = [100, 1_000, 5_000];
/// The scale at which the time from an empty kernel is taken.
const FILLED: usize = 1_000;
/// The endpoints of each Service.
const ENDPOINTS: usize = 10;
/// How many changes are timed at each scale: enough for one that meets a check of the whole kernel to be within the last per cent.
const SAMPLES: usize = 300;
const PROXY_SAMPLES: usize = 10;
/// How many objects are written at once.
const AT_ONCE: usize = 32;
/// How long nothing comes to an agent that has nothing to do; its watches are renewed every 45 s.
const SILENCE: Duration = Duration::from_secs(3);
const NAMESPACE: &str = "default";
const PATIENCE: Duration = Duration::from_secs(900);

/// The machines: a director, another with an agent that no change concerns, and one with kube-proxy.
const TOPOLOGY: &str = "
networks: [lan, mgmt]
hosts:
  director: {links: {eth0: {network: lan, addresses: [10.0.0.1/8]}, mgmt0: {network: mgmt, addresses: [WIRE.11/24]}}}
  other: {links: {mgmt0: {network: mgmt, addresses: [WIRE.12/24]}}}
  proxy: {links: {eth0: {network: lan, addresses: [10.0.0.2/8]}, mgmt0: {network: mgmt, addresses: [WIRE.13/24]}}, routes: {default: WIRE.1}}
  watcher: {links: {mgmt0: {network: mgmt, addresses: [WIRE.14/24]}}}
";

/// Measures, on this machine or in the guest.
pub(crate) fn run(scales: &[usize]) -> Result<()> {
    let scales = if scales.is_empty() { &SCALES } else { scales };
    match env::var(WIRE) {
        Ok(wire) => inside(&wire, scales),
        Err(_) => outside(scales),
    }
}

fn outside(scales: &[usize]) -> Result<()> {
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
        .args(scales.iter().map(ToString::to_string))
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

fn inside(wire: &str, scales: &[usize]) -> Result<()> {
    let lab = Lab::lay_out(&TOPOLOGY.replace("WIRE", wire).parse::<Topology>()?)?;
    lab.plug("vec0", "mgmt")?;
    let watcher = lab.host("watcher")?;
    watcher.in_namespace(|| {
        // A worker beside this thread: sockets of other namespaces are opened by threads that wait for it.
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?
            .block_on(measure_all(&lab, scales))
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

fn kubeconfig(name: &str) -> Result<PathBuf> {
    let directory =
        env::var_os(KUBECONFIGS).with_context(|| format!("{KUBECONFIGS} is not set"))?;
    Ok(PathBuf::from(directory).join(name))
}

fn scratch() -> PathBuf {
    PathBuf::from(env::var_os("LAB_SCRATCH").unwrap_or_else(|| "/tmp".into()))
}

/// The agent of a machine, with nothing from an earlier one.
struct Agent {
    process: Process,
}

impl Agent {
    fn start(host: &Host) -> Result<Self> {
        let agent = env::var_os("LVS_AGENT").context("LVS_AGENT names no lvs-agent")?;
        let state = scratch().join(format!("latency-{}", host.name()));
        let mut cleanup = host.command(&agent);
        cleanup
            .args(["cleanup", "--node-name", host.name(), "--state-dir"])
            .arg(&state);
        cleanup.stdout(std::process::Stdio::null());
        ensure!(cleanup.status()?.success(), "lvs-agent cleanup failed");
        fs::remove_dir_all(&state)?;
        let mut command = host.command(&agent);
        command
            .args(["run", "--kube", "--node-name", host.name(), "--kubeconfig"])
            .arg(kubeconfig(host.name())?)
            .arg("--state-dir")
            .arg(&state)
            .stderr(fs::File::create(
                scratch().join(format!("{}.log", host.name())),
            )?);
        Ok(Self {
            process: host.spawn(&mut command)?,
        })
    }
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

/// The IPv4 packets that a machine has received, in bytes: the API server's are among them, and neighbour discovery is not.
fn received_bytes(host: &Host) -> Result<u64> {
    let text = host.in_namespace(|| fs::read_to_string("/proc/thread-self/net/netstat"))??;
    // Two lines begin with it: the names, and the values.
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

/// Waits until a machine has received nothing for a while; returns what it had received.
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
            started.elapsed() < PATIENCE,
            "{} is never silent",
            host.name()
        );
        received = now;
    }
}

async fn measure_all(lab: &Lab, scales: &[usize]) -> Result<()> {
    let client = client().await?;
    let (director, proxy, other) = (
        lab.host("director")?,
        lab.host("proxy")?,
        lab.host("other")?,
    );
    let mut cluster = Objects { client, count: 0 };
    let (mut director_table, mut proxy_table) = (table(director)?, table(proxy)?);
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "proxy"}});
    apply(&cluster.client, "/api/v1/nodes/proxy".to_owned(), node).await?;
    // kube-proxy waits half a minute for an address of its node.
    let status = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": "proxy"},
        "status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.2"}]},
    });
    apply(
        &cluster.client,
        "/api/v1/nodes/proxy/status".to_owned(),
        status,
    )
    .await?;
    let mut rows = Vec::new();
    for &scale in scales {
        eprintln!("bench: {scale} virtual services");
        cluster.grow(scale).await?;
        // The controller has to have written every binding before the time from an empty kernel is taken.
        let _other = Agent::start(other)?;
        let mut first = Agent::start(director)?;
        cluster
            .await_table(&mut director_table, Kind::Operator)
            .await?;
        // Statuses follow at their leisure; they are not what is measured.
        cluster.await_ready().await?;
        first.process.stop(Duration::from_secs(30))?;
        let mut agent = Agent::start(director)?;
        let filled = Instant::now();
        cluster
            .await_table(&mut director_table, Kind::Operator)
            .await?;
        let operator_filled = filled.elapsed();
        // Its own status and what comes back of it are no change of others.
        let received = await_silence(other).await?;
        let operator = cluster
            .sample(&mut director_table, Kind::Operator, SAMPLES)
            .await?;
        let strangers = received_bytes(other)? - received;
        eprintln!(
            "bench: {scale} virtual services: p50 {:.1?}, p99 {:.1?}, full table {operator_filled:.2?}",
            quantile(&operator, 50),
            quantile(&operator, 99)
        );
        let agent_peak = measure::peak_of_tree(agent.process.id())?;
        agent.process.stop(Duration::from_secs(30))?;

        eprintln!("bench: {scale} virtual services: kube-proxy");
        let mut kube_proxy = start_kube_proxy(proxy)?;
        let filled = Instant::now();
        cluster
            .await_table(&mut proxy_table, Kind::KubeProxy)
            .await?;
        let proxy_filled = filled.elapsed();
        let kube = cluster
            .sample(&mut proxy_table, Kind::KubeProxy, PROXY_SAMPLES)
            .await?;
        let proxy_peak = measure::peak_of_tree(kube_proxy.id())?;
        kube_proxy.stop(Duration::from_secs(60))?;
        let row = Row {
            scale,
            operator,
            kube,
            operator_filled,
            proxy_filled,
            agent_peak,
            proxy_peak,
            strangers,
        };
        println!("{}", row.text());
        rows.push(row);
    }
    println!("{}", verdict(&rows)?);
    Ok(())
}

/// What was measured at one scale.
struct Row {
    scale: usize,
    operator: Vec<Duration>,
    kube: Vec<Duration>,
    operator_filled: Duration,
    proxy_filled: Duration,
    agent_peak: u64,
    proxy_peak: u64,
    strangers: u64,
}

impl Row {
    fn text(&self) -> String {
        let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
        format!(
            "{} x {ENDPOINTS}: lvs-operator p50 {:.1} ms, p99 {:.1} ms, start to full table {:.2} s, agent {} MiB; \
             kube-proxy p50 {:.0} ms, p99 {:.0} ms, start to full table {:.1} s, {} MiB; \
             bytes to an agent that {SAMPLES} changes do not concern: {}",
            self.scale,
            ms(quantile(&self.operator, 50)),
            ms(quantile(&self.operator, 99)),
            self.operator_filled.as_secs_f64(),
            self.agent_peak / 1024,
            ms(quantile(&self.kube, 50)),
            ms(quantile(&self.kube, 99)),
            self.proxy_filled.as_secs_f64(),
            self.proxy_peak / 1024,
            self.strangers,
        )
    }
}

/// The ratios that the project promises.
fn verdict(rows: &[Row]) -> Result<String> {
    let (first, last) = (
        rows.first().context("nothing was measured")?,
        rows.last().context("nothing was measured")?,
    );
    let p99 = |samples: &[Duration]| quantile(samples, 99).as_secs_f64();
    let filled = rows.iter().find(|row| row.scale == FILLED).unwrap_or(last);
    Ok(format!(
        "p99 at {} is {:.2} x p99 at {} (promised: at most 1.3) and {:.0} x better than kube-proxy's (at least 10); \
         from an empty kernel to {} x {ENDPOINTS} {:.0} x faster than kube-proxy",
        last.scale,
        p99(&last.operator) / p99(&first.operator),
        first.scale,
        p99(&last.kube) / p99(&last.operator),
        filled.scale,
        filled.proxy_filled.as_secs_f64() / filled.operator_filled.as_secs_f64(),
    ))
}

/// A sample that so many per cent do not exceed.
fn quantile(samples: &[Duration], percent: usize) -> Duration {
    let mut sorted = samples.to_vec();
    sorted.sort();
    let index = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(index).copied().unwrap_or_default()
}

/// Whose table is looked at.
#[derive(Clone, Copy)]
enum Kind {
    Operator,
    KubeProxy,
}

/// The Services, slices and VirtualServices.
struct Objects {
    client: Client,
    count: usize,
}

impl Objects {
    /// Makes objects until there are so many of each kind.
    async fn grow(&mut self, count: usize) -> Result<()> {
        use futures::{StreamExt, TryStreamExt};
        let objects = (self.count..count)
            .flat_map(|index| [service(index), slice(index), virtual_service(index)]);
        futures::stream::iter(objects)
            .map(|(path, object)| apply(&self.client, path, object))
            .buffer_unordered(AT_ONCE)
            .try_collect::<Vec<()>>()
            .await?;
        self.count = count;
        Ok(())
    }

    /// Waits until the last services have all their destinations and the table has its size.
    async fn await_table(&self, table: &mut Handle, kind: Kind) -> Result<()> {
        let started = Instant::now();
        loop {
            let services = table.services().await?.len();
            if services >= self.count {
                let keys = (0..self.count).map(|index| self.key(index, kind));
                let mut is_full = true;
                for key in keys.rev().take(50) {
                    is_full &= table.destinations(&key).await?.len() == ENDPOINTS;
                }
                if is_full {
                    return Ok(());
                }
            }
            ensure!(
                started.elapsed() < PATIENCE,
                "{services} of {} services are in the table",
                self.count
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until every VirtualService is Ready.
    async fn await_ready(&self) -> Result<()> {
        let api: Api<VirtualService> = Api::namespaced(self.client.clone(), NAMESPACE);
        let is_ready = |object: &VirtualService| {
            let conditions = object.status.iter().flat_map(|status| &status.conditions);
            let mut ready = conditions.filter(|condition| condition.type_ == "Ready");
            ready.any(|condition| condition.status == "True")
        };
        let started = Instant::now();
        loop {
            let objects = api.list(&ListParams::default()).await?.items;
            let ready = objects.iter().filter(|object| is_ready(object)).count();
            if ready >= self.count {
                return Ok(());
            }
            ensure!(
                started.elapsed() < PATIENCE,
                "{ready} of {} virtual services are ready",
                self.count
            );
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    fn key(&self, index: usize, kind: Kind) -> ServiceKey {
        let address = match kind {
            Kind::Operator => vip(index),
            Kind::KubeProxy => cluster_ip(index),
        };
        ServiceKey::Address {
            protocol: Protocol::Tcp,
            address: address.into(),
            port: 80,
        }
    }

    /// Changes the first endpoint of one Service after the other, and times each until the kernel has it.
    async fn sample(
        &self,
        table: &mut Handle,
        kind: Kind,
        samples: usize,
    ) -> Result<Vec<Duration>> {
        let api: Api<EndpointSlice> = Api::namespaced(self.client.clone(), NAMESPACE);
        let mut took = Vec::with_capacity(samples);
        for sample in 0..samples {
            // A stride that meets all of the table.
            let index = (sample * 7919) % self.count;
            let address = changed_endpoint(sample, kind);
            let mut changed = endpoints(index);
            if let Some(first) = changed.first_mut() {
                *first = address;
            }
            let patch = json!({"endpoints": changed.iter().map(|address| json!({"addresses": [address.to_string()]})).collect::<Vec<_>>()});
            api.patch(
                &format!("s{index}-1"),
                &PatchParams::default(),
                &Patch::Merge(&patch),
            )
            .await?;
            let acknowledged = Instant::now();
            let key = self.key(index, kind);
            loop {
                let found = table.destinations(&key).await?;
                if found
                    .iter()
                    .any(|found| found.key.address == IpAddr::V4(address))
                {
                    break;
                }
                ensure!(
                    acknowledged.elapsed() < PATIENCE,
                    "sample {sample} did not get to the kernel"
                );
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            took.push(acknowledged.elapsed());
        }
        Ok(took)
    }
}

fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

fn vip(index: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 1, 0, 1).to_bits() + number(index))
}

fn cluster_ip(index: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(CLUSTER_IPS.to_bits() + number(index))
}

fn endpoints(index: usize) -> Vec<Ipv4Addr> {
    let first = Ipv4Addr::new(10, 64, 0, 1).to_bits() + number(index * ENDPOINTS);
    (0..number(ENDPOINTS))
        .map(|offset| Ipv4Addr::from_bits(first + offset))
        .collect()
}

fn changed_endpoint(sample: usize, kind: Kind) -> Ipv4Addr {
    let first = match kind {
        Kind::Operator => Ipv4Addr::new(10, 128, 0, 1),
        Kind::KubeProxy => Ipv4Addr::new(10, 160, 0, 1),
    };
    Ipv4Addr::from_bits(
        first.to_bits() + number(sample) + number(std::process::id() as usize % 4096) * 256,
    )
}

type Object = (String, Value);

fn service(index: usize) -> Object {
    let object = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("s{index}")},
        "spec": {"clusterIP": cluster_ip(index).to_string(), "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]},
    });
    (
        format!("/api/v1/namespaces/{NAMESPACE}/services/s{index}"),
        object,
    )
}

fn slice(index: usize) -> Object {
    let endpoints: Vec<Value> = endpoints(index)
        .iter()
        .map(|address| json!({"addresses": [address.to_string()]}))
        .collect();
    let object = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": format!("s{index}-1"), "labels": {"kubernetes.io/service-name": format!("s{index}")}},
        "addressType": "IPv4", "ports": [{"name": "http", "port": 80, "protocol": "TCP"}], "endpoints": endpoints,
    });
    (
        format!("/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices/s{index}-1"),
        object,
    )
}

fn virtual_service(index: usize) -> Object {
    let object = json!({
        "apiVersion": "lvs-operator.io/v1alpha1", "kind": "VirtualService", "metadata": {"name": format!("v{index}")},
        "spec": {"addresses": [vip(index).to_string()], "ports": [{"name": "http", "port": 80}], "backends": {"service": {"name": format!("s{index}")}}},
    });
    (
        format!("/apis/lvs-operator.io/v1alpha1/namespaces/{NAMESPACE}/virtualservices/v{index}"),
        object,
    )
}

/// Applies an object at its path.
async fn apply(client: &Client, path: String, object: Value) -> Result<()> {
    let request = http::Request::patch(format!("{path}?fieldManager=bench&force=true"))
        .header("Content-Type", "application/apply-patch+yaml")
        .body(serde_json::to_vec(&object)?)?;
    client
        .request::<Value>(request)
        .await
        .map(drop)
        .with_context(|| format!("applying {path}"))
}
