//! Controller and agent notice within a minute that the connection of a watch is silently dead.
//!
//! A proxy stands between them and the API server. When it is cut, its open connections stay open and drop all data, like
//! a firewall that has lost its state; new connections work.

use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use lab::{
    ControlPlane, Controller, Host, Lab, Operator, agent_program, start_kube_agent, wait_until,
};
use serde_json::json;

use crate::shop::{directed, within};

/// How long a dead watch may stay unnoticed.
const LIMIT: Duration = Duration::from_secs(60);
const TIMEOUT: Duration = Duration::from_secs(90);

#[test]
fn a_controller_with_dead_watches_follows_within_a_minute() -> Result<()> {
    let operator = directed()?;
    let mut one = operator.lead("one")?;
    let proxy = Proxy::to(&operator.control_plane, TcpListener::bind("127.0.0.1:0")?)?;
    let kubeconfig = proxy.kubeconfig(&operator, operator.controller_kubeconfig(), "two")?;
    let two = Controller::start(&operator.control_plane, &kubeconfig, "two")?;
    two.await_ready()?;

    let cut = Instant::now();
    ensure!(proxy.cut() > 0, "the proxy had no connection");
    one.kill()?;
    // Controller `two` takes over with the objects of its dead watches; this object is new.
    operator.admin.apply(&json!({
        "apiVersion": "lvs-operator.io/v1alpha1", "kind": "VirtualService",
        "metadata": {"namespace": "shop", "name": "web"},
        "spec": {"addresses": ["10.0.0.100"], "ports": [{"port": 80}]},
    }))?;
    let followed = wait_until("the binding", TIMEOUT, || {
        let binding = operator.admin.find("DirectorBinding", "shop/web.lvs1")?;
        Ok(binding.map(drop))
    });
    followed.or_else(|error| Err(error.context(two.log()?)))?;
    within("the controller to follow", cut, LIMIT)?;
    assert_eq!(operator.leader()?.as_deref(), Some("two"));
    Ok(())
}

#[test]
fn an_agent_with_dead_watches_follows_within_a_minute() -> Result<()> {
    let operator = Operator::install(&["rs1"])?;
    operator.admit("rs1")?;
    let lab = Lab::lay_out(&"hosts: {rs1: {}}".parse()?)?;
    let host = lab.host("rs1")?;
    let proxy = Proxy::inside(host, &operator.control_plane)?;
    let kubeconfig = proxy.kubeconfig(&operator, operator.machine_kubeconfig("rs1")?, "agent")?;
    let directory = operator.control_plane.directory();
    let state = directory.join("agent-state");
    let log = directory.join("agent.log");
    let _agent = start_kube_agent(host, &agent_program()?, &kubeconfig, &state, &log)?;
    let await_field = |kind: &str, name: &str, pointer: &str| {
        let what = format!("the agent to write {pointer} of {kind} {name}");
        wait_until(&what, TIMEOUT, || {
            let object = operator.admin.get(kind, name)?;
            Ok(object.pointer(pointer).map(drop))
        })
    };
    await_field("LvsNode", "rs1", "/status/facts")?;

    let cut = Instant::now();
    ensure!(proxy.cut() > 0, "the proxy had no connection");
    operator.namespace("shop")?;
    operator.admin.apply(&json!({
        "apiVersion": "lvs-operator.io/v1alpha1", "kind": "RealServerBinding",
        "metadata": {"namespace": "shop", "name": "web.rs1", "labels": {"lvs-operator.io/node": "rs1"}},
        "spec": {
            "node": "rs1", "virtualService": "web", "forwarding": "NAT",
            "addresses": ["10.0.0.100"], "ports": [{"port": 80}],
            "realServers": [{"address": "10.0.0.11"}],
        },
    }))?;
    await_field("RealServerBinding", "shop/web.rs1", "/status/conditions/0")?;
    within("the agent to follow", cut, LIMIT)
}

/// Carries connections to the API server. Its threads end with the connections.
pub(crate) struct Proxy {
    address: SocketAddr,
    /// The number of connections so far.
    made: Arc<AtomicUsize>,
    /// The number of the first connection that works.
    working: Arc<AtomicUsize>,
}

impl Proxy {
    /// Accepts connections in the network of a host of the lab, as [`Self::to`] does.
    pub(crate) fn inside(host: &Host, control_plane: &ControlPlane) -> Result<Self> {
        let listener = host.in_namespace(|| TcpListener::bind("127.0.0.1:0"))??;
        Self::to(control_plane, listener)
    }

    /// Accepts connections, and opens one to the API server for each.
    fn to(control_plane: &ControlPlane, listener: TcpListener) -> Result<Self> {
        let server = control_plane.address();
        let proxy = Self {
            address: listener.local_addr()?,
            made: Arc::default(),
            working: Arc::default(),
        };
        let (made, working) = (Arc::clone(&proxy.made), Arc::clone(&proxy.working));
        thread::spawn(move || {
            for client in listener.incoming() {
                let number = made.fetch_add(1, Ordering::SeqCst);
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(server)) else {
                    continue;
                };
                let (Ok(from_client), Ok(from_server)) = (client.try_clone(), server.try_clone())
                else {
                    continue;
                };
                for (from, to) in [(from_client, server), (from_server, client)] {
                    let working = Arc::clone(&working);
                    thread::spawn(move || {
                        carry(from, to, || number >= working.load(Ordering::SeqCst));
                    });
                }
            }
        });
        Ok(proxy)
    }

    /// Cuts the open connections; returns the number of connections so far.
    fn cut(&self) -> usize {
        let made = self.made.load(Ordering::SeqCst);
        self.working.store(made, Ordering::SeqCst);
        made
    }

    /// Writes a kubeconfig that leads through the proxy.
    pub(crate) fn kubeconfig(
        &self,
        operator: &Operator,
        direct: &Path,
        name: &str,
    ) -> Result<PathBuf> {
        let server = operator.control_plane.address().to_string();
        let text = fs::read_to_string(direct)?;
        ensure!(
            text.contains(&server),
            "the kubeconfig does not name {server}"
        );
        let directory = operator.control_plane.directory();
        let path = directory.join(format!("{name}.proxy.kubeconfig"));
        fs::write(&path, text.replace(&server, &self.address.to_string()))?;
        Ok(path)
    }
}

/// Forwards one direction. A cut connection forwards neither data nor its end.
fn carry(mut from: TcpStream, mut to: TcpStream, works: impl Fn() -> bool) {
    let mut buffer = [0; 16 * 1024];
    loop {
        let count = from.read(&mut buffer).unwrap_or(0);
        let data = buffer.get(..count).unwrap_or_default();
        if count == 0 || (works() && to.write_all(data).is_err()) {
            break;
        }
    }
    if works() {
        // The other side may have closed it already.
        drop(to.shutdown(Shutdown::Write));
    }
}
