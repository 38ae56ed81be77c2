//! The demonstration of the operator: one object is applied, and director and real servers follow.
//!
//! The API server and the controller run on this machine; the machines with their agents run in a guest with a link to
//! it. The machines are configured by `kubectl` only.

use std::{
    collections::BTreeMap,
    env, fs, io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use lab::{
    Boot, ControlPlane, ControlPlaneSpec, Controller, Host, Lab, LinkSpec, Process, ProgramSet,
    Responder, Tap, Topology, agent_program, install_chart, start_kube_agent, wait_until,
};
use owo_colors::{OwoColorize, Stream};

use super::{CHAPTERS, Chapter, fetch_pages, heading, kernel_state};

/// Set in the guest: the first address of the network of its link to this machine.
const WIRE: &str = "LAB_DEMO_WIRE";
/// The directory with the kubeconfigs.
const KUBECONFIGS: &str = "LAB_DEMO_KUBECONFIGS";
const KUBECTL: &str = "LAB_DEMO_KUBECTL";

/// The machines with agents, the director first.
const MACHINES: [&str; 3] = ["director", "rs1", "rs2"];
/// The network of the link to this machine.
const WIRE_NETWORK: &str = "mgmt";
/// How long the operator may take for one change.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Shows every chapter with the operator.
pub(crate) fn run() -> Result<()> {
    match env::var(WIRE) {
        Ok(wire) => inside(&wire),
        Err(_) => outside(),
    }
}

/// On this machine: the control plane, the controller, and the guest.
fn outside() -> Result<()> {
    let started = Instant::now();
    let tap = Tap::create()?;
    let mut spec = ControlPlaneSpec {
        address: tap.address(1).into(),
        programs: ProgramSet::Api,
        ..ControlPlaneSpec::default()
    };
    for machine in MACHINES {
        spec = spec.user(&user(machine), &[]);
    }
    heading("this machine: etcd, kube-apiserver, the chart, lvs-controller");
    let control_plane = ControlPlane::start_as(&spec)?;
    install(&control_plane, &MACHINES)?;
    let mut controller =
        Controller::start(&control_plane, &control_plane.kubeconfig(), "controller")?;
    println!("ready after {:.1} s", started.elapsed().as_secs_f64());

    let lab = env::current_exe().context("could not find out which program this is")?;
    let colour = if io::IsTerminal::is_terminal(&io::stdout()) {
        "FORCE_COLOR"
    } else {
        "NO_COLOR"
    };
    let kubeconfigs = kubeconfigs(&control_plane, &MACHINES)?;
    let guest = Boot::new(lab.to_string_lossy())
        .args(["demo-cluster"])
        .tap(&tap)
        .memory("1G")
        .env(WIRE, tap.address(0).to_string())
        .env(KUBECONFIGS, kubeconfigs.to_string_lossy())
        .env(KUBECTL, control_plane.program("kubectl")?.to_string_lossy())
        .env(colour, "1")
        .timeout(Duration::from_secs(600))
        .start_into(io::stdout(), io::stderr())?;
    let finished = guest.wait()?;
    ensure!(finished.exit.success(), "the demonstration failed");
    controller.stop()?;
    println!(
        "All three modes answered from both real servers, and every kernel was left as it was found ({:.0} s in all).",
        started.elapsed().as_secs_f64()
    );
    Ok(())
}

pub(crate) fn user(machine: &str) -> String {
    format!("lvs:machine:{machine}")
}

/// Installs the chart, and creates the machines' LvsNodes and their group, as an administrator does.
pub(crate) fn install(control_plane: &ControlPlane, machines: &[&str]) -> Result<()> {
    let users: Vec<String> = machines.iter().map(|machine| user(machine)).collect();
    let with_users: Vec<(&str, &str)> = machines
        .iter()
        .copied()
        .zip(users.iter().map(String::as_str))
        .collect();
    install_chart(control_plane, &with_users)?;
    let nodes: Vec<String> = machines
        .iter()
        .map(|machine| {
            format!(
                "apiVersion: lvs-operator.io/v1alpha1\nkind: LvsNode\nmetadata: {{name: {machine}}}\nspec: {{identity: '{}'}}\n",
                user(machine)
            )
        })
        .collect();
    let group = "apiVersion: lvs-operator.io/v1alpha1\nkind: DirectorGroup\nmetadata: {name: default}\nspec: {nodes: {names: [director]}, realServers: {cidrs: [192.168.0.0/16, 10.0.0.0/8]}}\n---\napiVersion: lvs-operator.io/v1alpha1\nkind: AddressPool\nmetadata: {name: public}\nspec: {addresses: [192.168.0.0/16, 10.1.0.0/16], autoAssign: false}\n";
    control_plane.apply(&format!("{}---\n{group}", nodes.join("---\n")))?;
    Ok(())
}

/// Writes the kubeconfigs of the machines and of the administrator to a directory for the guest.
pub(crate) fn kubeconfigs(control_plane: &ControlPlane, machines: &[&str]) -> Result<PathBuf> {
    let directory = control_plane.directory().join("guest");
    fs::create_dir(&directory)?;
    fs::copy(control_plane.kubeconfig(), directory.join("admin"))?;
    for machine in machines {
        fs::copy(
            control_plane.kubeconfig_of(&user(machine))?,
            directory.join(machine),
        )?;
    }
    Ok(directory)
}

/// In the guest: the machines.
fn inside(wire: &str) -> Result<()> {
    let wire: Ipv4Addr = wire.parse()?;
    for (number, chapter) in CHAPTERS.iter().enumerate() {
        let started = Instant::now();
        show(number + 1, chapter, wire).with_context(|| format!("chapter {}", chapter.title))?;
        println!(
            "{}\n",
            format!("({:.1} s)", started.elapsed().as_secs_f64())
                .if_supports_color(Stream::Stdout, |text| text.dimmed())
        );
    }
    Ok(())
}

fn show(number: usize, chapter: &Chapter, wire: Ipv4Addr) -> Result<()> {
    introduce(number, chapter);
    let lab = Lab::lay_out(&wired(chapter, wire)?)?;
    lab.plug("vec0", WIRE_NETWORK)?;
    let hosts: Vec<&Host> = MACHINES
        .iter()
        .map(|machine| lab.host(machine))
        .collect::<Result<_>>()?;
    let _responders: Vec<Responder> = hosts
        .iter()
        .skip(1)
        .map(|host| host.respond(chapter.server_port))
        .collect::<Result<_>>()?;
    let before: Vec<String> = hosts
        .iter()
        .map(|host| kernel_state(host))
        .collect::<Result<_>>()?;
    let agents: Vec<Process> = hosts
        .iter()
        .map(|host| start_agent(host, number))
        .collect::<Result<_>>()?;

    let client = lab.host("client")?;
    let example = chapter.example;
    println!("{}", fs::read_to_string(example)?.trim_end());
    apply(client, example).map_err(|error| error.context(logs(number)))?;
    heading("kubectl get lvsvs -o wide");
    print!("{}", kubectl(client, &["get", "lvsvs", "-o", "wide"])?);
    heading("director: ipvsadm -Ln");
    print!("{}", lab.host("director")?.run(&["ipvsadm", "-Ln"])?);
    fetch_pages(chapter, client)?;

    heading(&format!("kubectl delete -f {example}"));
    print!("{}", kubectl(client, &["delete", "-f", example])?);
    for (host, before) in hosts.iter().zip(&before) {
        wait_until(&format!("{} to be as it was", host.name()), TIMEOUT, || {
            Ok((kernel_state(host)? == *before).then_some(()))
        })?;
    }
    println!("every kernel is as it was before");
    for mut agent in agents {
        agent.stop(Duration::from_secs(10))?;
    }
    Ok(())
}

fn introduce(number: usize, chapter: &Chapter) {
    let title = format!("=== Chapter {number}: {} ===", chapter.title);
    println!(
        "{}\n{}\n",
        title.if_supports_color(Stream::Stdout, |text| text.bold()),
        chapter.story
    );
}

/// Applies an example and waits until its real servers take connections.
fn apply(client: &Host, example: &str) -> Result<()> {
    heading(&format!("kubectl apply -f {example}"));
    print!("{}", kubectl(client, &["apply", "-f", example])?);
    let timeout = format!("--timeout={}s", TIMEOUT.as_secs());
    kubectl(
        client,
        &["wait", "--for=condition=Ready", &timeout, "-f", example],
    )?;
    wait_until("both real servers to take connections", TIMEOUT, || {
        let taking = kubectl(
            client,
            &[
                "get",
                "-f",
                example,
                "-o",
                "jsonpath={.status.realServersColumn}",
            ],
        )?;
        Ok((taking == "2/2").then_some(()))
    })
}

/// Returns the chapter's topology, in which each machine also has a link to this machine.
fn wired(chapter: &Chapter, wire: Ipv4Addr) -> Result<Topology> {
    let mut topology: Topology = chapter.topology.parse()?;
    topology.networks.push(WIRE_NETWORK.to_owned());
    let [a, b, c, _] = wire.octets();
    for (name, number) in MACHINES.iter().chain(&["client"]).zip(11..) {
        let address = Ipv4Addr::new(a, b, c, number);
        let link = LinkSpec {
            network: Some(WIRE_NETWORK.to_owned()),
            addresses: vec![format!("{address}/24").parse()?],
            mtu: None,
        };
        let host = topology
            .hosts
            .get_mut(*name)
            .context("the chapter lacks a machine")?;
        host.links.insert("mgmt0".to_owned(), link);
    }
    Ok(topology)
}

fn start_agent(host: &Host, number: usize) -> Result<Process> {
    let scratch = PathBuf::from(env::var_os("LAB_SCRATCH").unwrap_or_else(|| "/tmp".into()));
    let state = scratch.join(format!("cluster-{number}-{}", host.name()));
    let log = log_of(number, host.name());
    start_kube_agent(
        host,
        &agent_program()?,
        &file_of(host.name())?,
        &state,
        &log,
    )
}

fn log_of(number: usize, machine: &str) -> PathBuf {
    let scratch = PathBuf::from(env::var_os("LAB_SCRATCH").unwrap_or_else(|| "/tmp".into()));
    scratch.join(format!("agent-{number}-{machine}.log"))
}

/// The logs of the agents, for debugging.
fn logs(number: usize) -> String {
    let texts: BTreeMap<&str, String> = MACHINES
        .iter()
        .map(|machine| {
            let text = fs::read_to_string(log_of(number, machine));
            (*machine, text.unwrap_or_else(|error| error.to_string()))
        })
        .collect();
    let texts = texts
        .iter()
        .map(|(machine, text)| format!("--- agent of {machine}\n{text}"));
    texts.collect()
}

fn file_of(name: &str) -> Result<PathBuf> {
    let directory =
        env::var_os(KUBECONFIGS).with_context(|| format!("{KUBECONFIGS} is not set"))?;
    Ok(Path::new(&directory).join(name))
}

fn kubectl(host: &Host, arguments: &[&str]) -> Result<String> {
    let program = env::var(KUBECTL).with_context(|| format!("{KUBECTL} is not set"))?;
    let kubeconfig = file_of("admin")?;
    let mut command = vec![program.as_str(), "--kubeconfig"];
    let kubeconfig = kubeconfig.to_string_lossy();
    command.push(&kubeconfig);
    command.extend(arguments);
    host.run(&command)
}
