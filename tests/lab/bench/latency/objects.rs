//! The benchmark's objects at the API server: creates and changes them, and waits until a kernel has followed.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use futures::{StreamExt, TryStreamExt};
use ipvs_netlink::{Handle, Protocol, ServiceKey};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{
    Api, Client,
    api::{ListParams, Patch, PatchParams},
};
use lab::Process;
use lvs_crd::VirtualService;
use serde_json::{Value, json};

/// The first cluster IP that the bench gives to a Service.
const CLUSTER_IPS: Ipv4Addr = Ipv4Addr::new(10, 96, 16, 1);
/// The endpoints of a slice.
const SLICE: usize = 500;
/// How many objects are written at once.
const AT_ONCE: usize = 32;
/// A change that takes longer is printed.
const SLOW: Duration = Duration::from_secs(10);
/// How long to wait for a table, a status or silence.
pub(super) const TIMEOUT: Duration = Duration::from_secs(900);
const NAMESPACE: &str = "default";
/// The API server's metric with the bytes of request bodies, by their resource.
const BODIES: &str = "apiserver_request_body_size_bytes_sum{";
/// The resources that controller and agents write.
const WRITTEN: [&str; 5] = [
    "directorbindings",
    "realserverbindings",
    "virtualservices",
    "lvsnodes",
    "events",
];

/// The program whose table is read.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// The operator's agent on the director.
    Operator,
    /// kube-proxy.
    KubeProxy,
}

/// Which changes are measured, and how many.
#[derive(Clone, Copy)]
pub(super) struct Pace {
    /// The number of the first change; each number is another change.
    pub first: usize,
    /// The most changes.
    pub most: usize,
    /// The least changes, however long they take.
    pub least: usize,
    /// After this time no further change is started.
    pub time: Duration,
}

impl Pace {
    /// Creates a pace with exactly this number of changes.
    pub(super) const fn of(samples: usize) -> Self {
        Self {
            first: 0,
            most: samples,
            least: samples,
            time: Duration::MAX,
        }
    }
}

/// The Services, slices and VirtualServices.
pub(super) struct Objects {
    client: Client,
    count: usize,
    /// The endpoints of each Service.
    endpoints: usize,
}

impl Objects {
    /// Returns how many bytes controller and agents have written to the API server, without their Leases.
    pub(super) async fn written_bytes(&self) -> Result<u64> {
        let request = http::Request::get("/metrics")
            .body(Vec::new())
            .context("could not ask for metrics")?;
        let metrics = self.client.request_text(request).await?;
        let bodies = metrics.lines().filter_map(|line| {
            let (labels, sum) = line.strip_prefix(BODIES)?.split_once("} ")?;
            let mut written = WRITTEN.iter();
            let is_ours =
                written.any(|resource| labels.contains(&format!("resource=\"{resource}\"")));
            is_ours.then_some(sum)
        });
        let sums = bodies.map(|sum| sum.parse::<f64>().context("a sum is no number"));
        let sums = sums.collect::<Result<Vec<_>>>()?;
        ensure!(!sums.is_empty(), "the API server has no metric {BODIES}");
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a sum of whole bytes"
        )]
        Ok(sums.iter().sum::<f64>() as u64)
    }

    /// Creates an empty set of objects.
    pub(super) const fn new(client: Client, endpoints: usize) -> Self {
        Self {
            client,
            count: 0,
            endpoints,
        }
    }

    /// Creates the Node that kube-proxy reads, with an address. Without it, kube-proxy would wait half a minute.
    pub(super) async fn add_node_of_kube_proxy(&self) -> Result<()> {
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "proxy"}});
        apply(&self.client, "/api/v1/nodes/proxy".to_owned(), node).await?;
        let status = json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": "proxy"},
            "status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.2"}]},
        });
        apply(
            &self.client,
            "/api/v1/nodes/proxy/status".to_owned(),
            status,
        )
        .await
    }

    /// Creates objects until there are `count` of each kind.
    pub(super) async fn grow(&mut self, count: usize) -> Result<()> {
        let objects = (self.count..count).flat_map(|index| {
            let slices = self.endpoints(index);
            let slices = slices.chunks(SLICE).zip(1..);
            let slices = slices.map(|(endpoints, number)| slice(index, number, endpoints));
            let mut objects: Vec<Object> = slices.collect();
            objects.extend([service(index), virtual_service(index)]);
            objects
        });
        futures::stream::iter(objects)
            .map(|(path, object)| apply(&self.client, path, object))
            .buffer_unordered(AT_ONCE)
            .try_collect::<Vec<()>>()
            .await?;
        self.count = count;
        Ok(())
    }

    /// Waits until the program has filled the table: it has all services, and the last ones have all their destinations.
    pub(super) async fn await_table(
        &self,
        table: &mut Handle,
        kind: Kind,
        program: &mut Process,
    ) -> Result<()> {
        let started = Instant::now();
        loop {
            if let Some(status) = program.try_wait()? {
                bail!("the program that fills the table has ended: {status}");
            }
            let services = table.services().await?.len();
            if services >= self.count {
                let keys = (0..self.count).map(|index| self.key(index, kind));
                let mut is_full = true;
                for key in keys.rev().take(50) {
                    is_full &= table.destinations(&key).await?.len() == self.endpoints;
                }
                if is_full {
                    return Ok(());
                }
            }
            ensure!(
                started.elapsed() < TIMEOUT,
                "{services} of {} services are in the table",
                self.count
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until every VirtualService is Ready.
    pub(super) async fn await_ready(&self) -> Result<()> {
        let api: Api<VirtualService> = Api::namespaced(self.client.clone(), NAMESPACE);
        let is_ready = |object: &VirtualService| {
            let conditions = object.status.iter().flat_map(|status| &status.conditions);
            let mut ready = conditions.filter(|condition| condition.type_ == "Ready");
            ready.any(|condition| condition.status == "True")
        };
        let started = Instant::now();
        loop {
            let asked = Instant::now();
            let objects = api.list(&ListParams::default()).await?.items;
            // An API server that does nothing but send long lists would be slow for those who are measured.
            let pause = asked.elapsed().max(Duration::from_millis(100)) * 10;
            let ready = objects.iter().filter(|object| is_ready(object)).count();
            if ready >= self.count {
                return Ok(());
            }
            ensure!(
                started.elapsed() < TIMEOUT,
                "{ready} of {} virtual services are ready",
                self.count
            );
            tokio::time::sleep(pause).await;
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

    /// Measures one change after the other.
    pub(super) async fn sample(
        &self,
        table: &mut Handle,
        kind: Kind,
        pace: Pace,
    ) -> Result<Vec<Duration>> {
        let mut took = Vec::with_capacity(pace.most);
        let started = Instant::now();
        while took.len() < pace.most && (took.len() < pace.least || started.elapsed() < pace.time) {
            took.push(self.change(table, kind, pace.first + took.len()).await?);
        }
        Ok(took)
    }

    /// Changes the first endpoint of one Service, a different Service for each number, and returns the time until the
    /// kernel has it.
    pub(super) async fn change(
        &self,
        table: &mut Handle,
        kind: Kind,
        number: usize,
    ) -> Result<Duration> {
        let api: Api<EndpointSlice> = Api::namespaced(self.client.clone(), NAMESPACE);
        // With this stride the changes are spread over the whole table.
        let index = (number * 7919) % self.count;
        let address = changed_endpoint(number, kind);
        let mut changed = self.endpoints(index);
        changed.truncate(SLICE);
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
            let took = acknowledged.elapsed();
            if found
                .iter()
                .any(|found| found.key.address == IpAddr::V4(address))
            {
                if took > SLOW {
                    eprintln!("bench: change {number} took {took:.0?}");
                }
                return Ok(took);
            }
            ensure!(took < TIMEOUT, "change {number} did not reach the kernel");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Objects {
    fn endpoints(&self, index: usize) -> Vec<Ipv4Addr> {
        let first = Ipv4Addr::new(10, 64, 0, 1).to_bits() + number(index * self.endpoints);
        (0..number(self.endpoints))
            .map(|offset| Ipv4Addr::from_bits(first + offset))
            .collect()
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

fn slice(index: usize, number: usize, endpoints: &[Ipv4Addr]) -> Object {
    let endpoints: Vec<Value> = endpoints
        .iter()
        .map(|address| json!({"addresses": [address.to_string()]}))
        .collect();
    let object = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": format!("s{index}-{number}"), "labels": {"kubernetes.io/service-name": format!("s{index}")}},
        "addressType": "IPv4", "ports": [{"name": "http", "port": 80, "protocol": "TCP"}], "endpoints": endpoints,
    });
    (
        format!(
            "/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices/s{index}-{number}"
        ),
        object,
    )
}

fn virtual_service(index: usize) -> Object {
    let object = json!({
        "apiVersion": "lvs-operator.io/v1alpha1", "kind": "VirtualService", "metadata": {"name": format!("v{index}")},
        "spec": {"addresses": [vip(index).to_string()], "ports": [{"name": "http", "port": 80}], "backends": [{"service": {"name": format!("s{index}")}}]},
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
