//! The API server is down for a minute, and clients notice nothing.
//!
//! The API server and the controller run on this machine. The client, the director and the real servers with their
//! agents run in a guest that has a link to this machine. The guest runs this same test; an environment variable marks
//! it as the guest.

#![expect(clippy::indexing_slicing, reason = "the helpers of a test may fail it")]

use std::{
    collections::BTreeMap,
    env, fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use lab::{
    Boot, Client, Host, Lab, LinkSpec, Objects, Operator, Process, Responder, Tap, Topology,
    agent_program, ask_both, condition_of, scenery, start_kube_agent, wait_until,
};
use serde_json::{Value, json};

use crate::shop::is_observed;

/// Set in the guest: the address of the API server.
const API: &str = "LAB_OUTAGE_API";
/// Set in the guest: the path of a file whose existence ends the guest.
const END: &str = "LAB_OUTAGE_END";
/// The prefix of the variables with the kubeconfigs; the name of the machine follows.
const KUBECONFIG: &str = "LAB_OUTAGE_KUBECONFIG_";

/// How long the API server is down.
const OUTAGE: Duration = Duration::from_secs(60);
/// How long anything else may take, in the test and in the guest.
const TIMEOUT: Duration = Duration::from_secs(120);
/// The pause between two requests of the client.
const PACE: Duration = Duration::from_millis(10);

const DIRECTOR: &str = "director";
/// The machines with agents.
const MACHINES: [&str; 3] = [DIRECTOR, "rs1", "rs2"];
const WIRE_NETWORK: &str = "mgmt";
const WEB: &str = "192.168.220.100:80";
/// The VIP and port of the service that is created after the outage.
const LATE: &str = "192.168.220.101:80";

// The lines that the guest prints.
const SERVES: &str = "guest: both real servers answer";
const SERVES_FROM_DISK: &str =
    "guest: machines with empty kernels and the disks of the others answer";
const SERVES_AFTER_RESTART: &str = "guest: restarted agents serve the cached objects";
const SERVES_LATE: &str = "guest: the service created after the outage answers";

#[test]
fn an_outage_of_the_api_server_fails_no_request() -> Result<()> {
    match env::var(API) {
        Ok(api) => inside(api.parse()?),
        Err(_) => outside(),
    }
}

fn outside() -> Result<()> {
    let tap = Tap::create()?;
    let mut operator = Operator::install_at(tap.address(1).into(), &MACHINES)?;
    let mut controller = operator.lead("one")?;
    for machine in MACHINES {
        operator.admit(machine)?;
    }
    operator.namespace("shop")?;
    operator.admin.apply(&group())?;
    operator.admin.apply(&service("web", WEB))?;
    let guest = boot(&operator, &tap)?;
    guest.wait_for_output(SERVES, TIMEOUT)?;
    await_served(&operator.admin, "web")?;
    // The agents and the controller may still write statuses about later generations.
    let before = wait_until("every object to have a current status", TIMEOUT, || {
        let objects = objects(&operator.admin)?;
        Ok(objects.values().all(is_observed).then_some(objects))
    })?;

    operator.control_plane.stop_api_server()?;
    let stopped = Instant::now();
    // A controller that cannot renew its lease exits. It is started again, as the kubelet does.
    assert_eq!(controller.await_end()?, Some(1));
    let mut controller = operator.start_controller("one")?;
    guest.wait_for_output(SERVES_FROM_DISK, TIMEOUT)?;
    guest.wait_for_output(SERVES_AFTER_RESTART, TIMEOUT)?;
    let ready_after = stopped.elapsed();
    ensure!(ready_after < OUTAGE, "the guest needed {ready_after:?}");
    // The outage lasts a full minute.
    thread::sleep(OUTAGE.saturating_sub(ready_after));
    operator.control_plane.start_api_server()?;
    let returned = Instant::now();
    operator.await_kinds()?;
    assert_eq!(objects(&operator.admin)?, before);

    operator.admin.apply(&service("late", LATE))?;
    guest.wait_for_output(SERVES_LATE, TIMEOUT)?;
    println!(
        "a change after the outage was served within {:.1} s",
        returned.elapsed().as_secs_f64()
    );
    await_served(&operator.admin, "late")?;
    assert!(controller.is_running()?);
    let with_late = objects(&operator.admin)?;
    for name in [
        "VirtualService shop/web",
        "DirectorBinding shop/web.director",
    ] {
        assert_eq!(with_late[name], before[name]);
    }
    fs::write(end_of(&operator), "")?;
    let finished = guest.wait()?;
    print!("{}", finished.stdout);
    ensure!(finished.exit.success(), "{}", finished.stderr);

    operator.admin.delete("VirtualService", "shop/late")?;
    wait_until("the former objects", TIMEOUT, || {
        Ok((specs(&objects(&operator.admin)?) == specs(&before)).then_some(()))
    })
}

/// Boots the guest.
fn boot(operator: &Operator, tap: &Tap) -> Result<lab::Guest> {
    let mut guest = Boot::new(env::current_exe()?.to_string_lossy())
        .args(["--exact", "--nocapture"])
        .args(["absence::an_outage_of_the_api_server_fails_no_request"])
        .tap(tap)
        .memory("1G")
        .env(API, operator.control_plane.address().to_string())
        .env(END, end_of(operator).to_string_lossy())
        .timeout(Duration::from_secs(600));
    for machine in MACHINES {
        let kubeconfig = operator.machine_kubeconfig(machine)?;
        guest = guest.env(
            format!("{KUBECONFIG}{machine}"),
            kubeconfig.to_string_lossy(),
        );
    }
    guest.start()
}

fn end_of(operator: &Operator) -> PathBuf {
    operator.control_plane.directory().join("outage-is-over")
}

fn await_served(admin: &Objects, name: &str) -> Result<()> {
    let is_served = |object: &Value| {
        condition_of(object, "Ready").as_deref() == Some("True Ready")
            && object["status"]["realServersColumn"] == "2/2"
    };
    let name = format!("shop/{name}");
    admin.await_that("VirtualService", &name, "served", is_served)?;
    Ok(())
}

/// Returns everything that users, the controller and agents have written, without the managed fields.
fn objects(admin: &Objects) -> Result<BTreeMap<String, Value>> {
    let mut all = BTreeMap::new();
    for kind in [
        "VirtualService",
        "DirectorGroup",
        "DirectorBinding",
        "LvsNode",
    ] {
        for mut object in admin.list(kind, "")? {
            let metadata = &mut object["metadata"];
            metadata["managedFields"] = Value::Null;
            let name = metadata["name"].as_str().unwrap_or_default();
            let name = match metadata["namespace"].as_str() {
                Some(namespace) => format!("{kind} {namespace}/{name}"),
                None => format!("{kind} {name}"),
            };
            all.insert(name, object);
        }
    }
    Ok(all)
}

fn specs(objects: &BTreeMap<String, Value>) -> Vec<(&String, &Value)> {
    let all = objects.iter();
    all.map(|(name, object)| (name, &object["spec"])).collect()
}

fn group() -> Value {
    json!({
        "apiVersion": "lvs-operator.io/v1alpha1", "kind": "DirectorGroup",
        "metadata": {"name": "default"},
        "spec": {"nodes": {"names": [DIRECTOR]}, "realServers": {"cidrs": ["0.0.0.0/0", "::/0"]}},
    })
}

/// A DR service with both real servers.
fn service(name: &str, vip: &str) -> Value {
    let (address, port) = vip.split_once(':').unwrap_or((vip, "80"));
    json!({
        "apiVersion": "lvs-operator.io/v1alpha1", "kind": "VirtualService",
        "metadata": {"namespace": "shop", "name": name},
        "spec": {
            "addresses": [address],
            "ports": [{"port": port.parse::<u16>().unwrap_or_default()}],
            "scheduler": {"name": "rr"},
            "backends": [
                {"address": "192.168.220.132"}, {"address": "192.168.220.133"},
            ],
        },
    })
}

fn inside(api: SocketAddr) -> Result<()> {
    let lab = Lab::lay_out(&wired(api.ip())?)?;
    lab.plug("vec0", WIRE_NETWORK)?;
    let mut site = Machines::start(&lab, "first")?;
    let client = Client::on(lab.host("client")?);
    site.await_both(&client, WEB)?;
    let is_over = AtomicBool::new(false);
    let requests = thread::scope(|scope| {
        let traffic = scope.spawn(|| keep_asking(&client, &is_over));
        let seen = see_the_outage(&lab, api, &mut site, &client);
        is_over.store(true, Ordering::Relaxed);
        let requests = traffic.join();
        seen?;
        let requests = requests.map_err(|_panic| anyhow::anyhow!("the client panicked"))?;
        requests.map_err(|error| error.context(site.logs()))
    })?;
    println!("guest: {requests} requests, and none failed");
    Ok(())
}

/// Sends requests until `is_over`, over new connections and over one that stays open. Returns their number.
fn keep_asking(client: &Client, is_over: &AtomicBool) -> Result<usize> {
    let mut lasting = client.connect(WEB)?;
    let mut requests = 0;
    while !is_over.load(Ordering::Relaxed) {
        let failed = || format!("after {requests} requests");
        client.fetch(WEB).with_context(failed)?;
        lasting.ask().with_context(failed)?;
        requests += 2;
        thread::sleep(PACE);
    }
    Ok(requests)
}

fn see_the_outage(lab: &Lab, api: SocketAddr, site: &mut Machines, client: &Client) -> Result<()> {
    let director = lab.host(DIRECTOR)?;
    let is_there = || -> Result<bool> {
        director.in_namespace(|| TcpStream::connect_timeout(&api, PACE * 100).is_ok())
    };
    ensure!(is_there()?, "the director does not reach the API server");
    println!("{SERVES}");
    wait_until("the API server to go", TIMEOUT, || {
        Ok((!is_there()?).then_some(()))
    })?;

    // The same machines after a power cut: empty kernels, with the files of their disks.
    let other = Lab::lay_out(&scenery::DR.parse()?)?;
    site.copy_disks("from-disk")?;
    let from_disk = Machines::start(&other, "from-disk")?;
    from_disk.await_both(&Client::on(other.host("client")?), WEB)?;
    println!("{SERVES_FROM_DISK}");
    drop(from_disk);
    drop(other);

    for machine in MACHINES {
        site.restart(lab.host(machine)?)?;
    }
    println!("{SERVES_AFTER_RESTART}");
    wait_until("the API server to come back", TIMEOUT, || {
        Ok(is_there()?.then_some(()))
    })?;
    site.await_both(client, LATE)?;
    println!("{SERVES_LATE}");
    let end = env::var_os(END).with_context(|| format!("{END} is not set"))?;
    wait_until("the end of the test", TIMEOUT, || {
        Ok(Path::new(&end).exists().then_some(()))
    })
}

/// The topology of DR, in which each machine also has a link to the host.
fn wired(api: IpAddr) -> Result<Topology> {
    let IpAddr::V4(api) = api else {
        anyhow::bail!("the wire has no IPv6");
    };
    let [a, b, c, _] = api.octets();
    let mut topology: Topology = scenery::DR.parse()?;
    topology.networks.push(WIRE_NETWORK.to_owned());
    for (name, number) in MACHINES.iter().zip(11..) {
        let address = Ipv4Addr::new(a, b, c, number);
        let link = LinkSpec {
            network: Some(WIRE_NETWORK.to_owned()),
            addresses: vec![format!("{address}/24").parse()?],
            mtu: None,
        };
        let host = topology.hosts.get_mut(*name);
        let host = host.context("the topology lacks a machine")?;
        host.links.insert("mgmt0".to_owned(), link);
    }
    Ok(topology)
}

/// The agents of all machines, and the servers of the real servers.
struct Machines {
    agents: BTreeMap<String, Process>,
    _responders: Vec<Responder>,
    disks: PathBuf,
}

impl Machines {
    /// Starts agents and servers. `disks` is the directory of their state.
    fn start(lab: &Lab, disks: &str) -> Result<Self> {
        let disks = scratch().join(disks);
        fs::create_dir_all(&disks)?;
        let hosts = MACHINES.map(|machine| lab.host(machine));
        let hosts: Vec<&Host> = hosts.into_iter().collect::<Result<_>>()?;
        let servers = hosts.iter().filter(|host| host.name() != DIRECTOR);
        let mut machines = Self {
            agents: BTreeMap::new(),
            _responders: servers
                .map(|host| host.respond(80))
                .collect::<Result<_>>()?,
            disks,
        };
        for host in hosts {
            machines.start_agent(host)?;
        }
        Ok(machines)
    }

    fn start_agent(&mut self, host: &Host) -> Result<()> {
        let name = host.name();
        let kubeconfig = env::var_os(format!("{KUBECONFIG}{name}"));
        let kubeconfig = kubeconfig.with_context(|| format!("{name} has no kubeconfig"))?;
        let (state, log) = (self.disks.join(name), self.log(name));
        let agent = start_kube_agent(host, &agent_program()?, kubeconfig.as_ref(), &state, &log)?;
        self.agents.insert(name.to_owned(), agent);
        Ok(())
    }

    /// Kills an agent, starts it again, and waits until it serves the objects cached on its disk.
    fn restart(&mut self, host: &Host) -> Result<()> {
        let agent = self.agents.get_mut(host.name());
        agent.context("there is no agent")?.kill()?;
        self.start_agent(host)?;
        let log = self.log(host.name());
        wait_until("the agent to serve the cached objects", TIMEOUT, || {
            let log = fs::read_to_string(&log)?;
            Ok(log.contains("serving the cached objects").then_some(()))
        })
        .map_err(|error| error.context(self.logs()))
    }

    /// Copies the present files of the machines' disks.
    fn copy_disks(&self, to: &str) -> Result<()> {
        for machine in MACHINES {
            let to = scratch().join(to).join(machine);
            fs::create_dir_all(&to)?;
            for entry in fs::read_dir(self.disks.join(machine))? {
                let entry = entry?;
                if entry.file_type()?.is_file() {
                    fs::copy(entry.path(), to.join(entry.file_name()))?;
                }
            }
        }
        Ok(())
    }

    /// Waits until both real servers answer.
    fn await_both(&self, client: &Client, server: &str) -> Result<()> {
        let server: SocketAddr = server.parse()?;
        wait_until(&format!("both at {server}"), TIMEOUT, || {
            Ok(ask_both(client, server).ok().map(drop))
        })
        .map_err(|error| error.context(self.logs()))
    }

    fn log(&self, machine: &str) -> PathBuf {
        self.disks.join(format!("{machine}.log"))
    }

    /// The logs of the agents, for debugging.
    fn logs(&self) -> String {
        let text = |machine: &&str| fs::read_to_string(self.log(machine)).unwrap_or_default();
        let all = MACHINES.iter().map(|machine| (machine, text(machine)));
        all.map(|(machine, text)| format!("--- agent of {machine}\n{text}"))
            .collect()
    }
}

fn scratch() -> PathBuf {
    let scratch = env::var_os("LAB_SCRATCH");
    scratch.map_or_else(|| Path::new("/tmp").to_owned(), PathBuf::from)
}
