//! The operator on a control plane: the chart, the controller, and writers of statuses in place of agents.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::MicroTime, jiff::Timestamp};
use lvs_crd::{
    AGENT_LEASE_DURATION, AGENT_LEASE_PERIOD, NODE_LABEL, agent_lease_name,
    condition::{self, ConditionType, Reason, Verdict},
    node_label,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::control_plane::{ControlPlane, ControlPlaneSpec, ProgramSet};
use crate::host::Process;
use crate::objects::Objects;
use crate::wait::wait_until;

/// The namespace of the chart and of the Lease.
pub(crate) const NAMESPACE: &str = "lvs-system";
/// The name of the release, and of the chart.
const RELEASE: &str = "lvs-operator";
pub(crate) const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/lvs-operator");
/// How long the controller may take to start and to end.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Installs the chart: the CRDs, the roles, and the policy that an agent writes only its own machine's objects. The pods have
/// no node to run on. `machines` are those outside the cluster, each with its user.
pub fn install_chart(control_plane: &ControlPlane, machines: &[(&str, &str)]) -> Result<()> {
    install_release(control_plane, CHART.as_ref(), machines, json!({}))
}

/// Installs a chart with values, and the machines in addition.
fn install_release(
    control_plane: &ControlPlane,
    chart: &Path,
    machines: &[(&str, &str)],
    mut values: Value,
) -> Result<()> {
    let machines = machines
        .iter()
        .map(|(name, user)| json!({"name": name, "user": user}));
    if let Some(fields) = values.as_object_mut() {
        fields.insert("machines".to_owned(), machines.collect());
    }
    let file = control_plane.directory().join("values.yaml");
    fs::write(&file, values.to_string())?;
    let (chart, file) = (chart.display().to_string(), file.display().to_string());
    let arguments = ["install", RELEASE, &chart, "--create-namespace"];
    let options = ["--namespace", NAMESPACE, "--values", &file];
    helm(control_plane, &[arguments, options].concat()).map(drop)
}

/// Runs helm as the administrator and returns its standard output; an error includes its standard error.
pub(crate) fn helm(control_plane: &ControlPlane, arguments: &[&str]) -> Result<String> {
    let output = Command::new(control_plane.program("helm")?)
        .args(arguments)
        .arg("--kubeconfig")
        .arg(control_plane.kubeconfig())
        .env("HELM_CACHE_HOME", control_plane.directory())
        .output()
        .context("could not start helm")?;
    ensure!(
        output.status.success(),
        "helm {}: {}{}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).context("the output of helm is not text")
}

/// A control plane with the chart installed, without a running controller.
pub struct Operator {
    /// The control plane.
    pub control_plane: ControlPlane,
    /// The objects as the administrator sees them.
    pub admin: Objects,
    /// The kubeconfig of the controller's service account.
    kubeconfig: PathBuf,
}

impl Operator {
    /// Starts a control plane and installs the chart. `machines` are those outside the cluster.
    pub fn install(machines: &[&str]) -> Result<Self> {
        Self::install_at(Ipv4Addr::LOCALHOST.into(), machines)
    }

    /// Like [`Operator::install`], with the address on which the API server listens.
    pub fn install_at(address: IpAddr, machines: &[&str]) -> Result<Self> {
        let operator = Self::start(CHART.as_ref(), address, machines, json!({}))?;
        operator.await_kinds()?;
        operator.admin.apply(&json!({
            "apiVersion": "lvs-operator.io/v1alpha1", "kind": "AddressPool",
            "metadata": {"name": "any"},
            "spec": {
                "addresses": ["10.0.0.0/8", "192.0.2.0/24", "192.168.0.0/16", "198.18.0.0/15", "2001:db8::/32"],
                "autoAssign": false,
                "avoidNetworkAddresses": false,
            },
        }))?;
        Ok(operator)
    }

    /// Like [`Operator::install`], with values of the chart and no machines.
    pub fn install_with(values: Value) -> Result<Self> {
        let operator = Self::start(CHART.as_ref(), Ipv4Addr::LOCALHOST.into(), &[], values)?;
        operator.await_kinds()?;
        Ok(operator)
    }

    /// Installs another chart, such as that of an older version, without waiting for its kinds.
    pub fn install_from(chart: &Path, machines: &[&str]) -> Result<Self> {
        Self::start(chart, Ipv4Addr::LOCALHOST.into(), machines, json!({}))
    }

    fn start(chart: &Path, address: IpAddr, machines: &[&str], values: Value) -> Result<Self> {
        let mut spec = ControlPlaneSpec {
            address,
            programs: ProgramSet::Api,
            ..ControlPlaneSpec::default()
        };
        let users: Vec<String> = machines.iter().map(|name| user(name)).collect();
        for user in &users {
            spec = spec.user(user, &[]);
        }
        let control_plane = ControlPlane::start_as(&spec)?;
        let named: Vec<(&str, &str)> = machines
            .iter()
            .copied()
            .zip(users.iter().map(String::as_str))
            .collect();
        install_release(&control_plane, chart, &named, values)?;
        let admin = Objects::of(&control_plane.kubeconfig())?;
        let kubeconfig = token(&control_plane, "lvs-operator-controller", None)?;
        Ok(Self {
            control_plane,
            admin,
            kubeconfig,
        })
    }

    /// Uninstalls the release.
    pub fn uninstall(&self) -> Result<()> {
        let arguments = ["uninstall", RELEASE, "--namespace", NAMESPACE];
        helm(&self.control_plane, &arguments).map(drop)
    }

    /// Upgrades the release to the chart of this source, with the values of the release and these in addition.
    pub fn upgrade(&self, settings: &[&str]) -> Result<String> {
        let arguments = ["upgrade", RELEASE, CHART, "--namespace", NAMESPACE];
        let mut arguments = [&arguments[..], &["--reset-then-reuse-values"]].concat();
        for setting in settings {
            arguments.extend(["--set", setting]);
        }
        helm(&self.control_plane, &arguments)
    }

    /// Waits until the API server serves the chart's kinds, which takes a moment after their creation and after a start.
    pub fn await_kinds(&self) -> Result<()> {
        for kind in [
            "VirtualService",
            "AddressPool",
            "DirectorGroup",
            "DirectorBinding",
            "RealServerBinding",
            "LvsNode",
        ] {
            wait_until(&format!("{kind} to be served"), TIMEOUT, || {
                Ok(self.admin.list(kind, "").ok().map(drop))
            })?;
        }
        Ok(())
    }

    /// The kubeconfig of the controller's service account.
    pub fn controller_kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Starts a controller with the rights from the chart.
    pub fn start_controller(&self, name: &str) -> Result<Controller> {
        Controller::start(&self.control_plane, &self.kubeconfig, name)
    }

    /// Starts a controller and waits until it is the leader.
    pub fn lead(&self, name: &str) -> Result<Controller> {
        let controller = self.start_controller(name)?;
        self.await_leader(name, TIMEOUT)?;
        Ok(controller)
    }

    /// Waits until a controller is the leader.
    pub fn await_leader(&self, name: &str, timeout: Duration) -> Result<()> {
        wait_until(&format!("{name} to lead"), timeout, || {
            Ok((self.leader()?.as_deref() == Some(name)).then_some(()))
        })
    }

    /// The leader, according to the Lease.
    pub fn leader(&self) -> Result<Option<String>> {
        let lease = self
            .admin
            .find("Lease", &format!("{NAMESPACE}/lvs-controller"))?;
        let holder = lease.and_then(|lease| {
            let holder = lease.pointer("/spec/holderIdentity")?.as_str()?;
            Some(holder.to_owned())
        });
        Ok(holder.filter(|holder| !holder.is_empty()))
    }

    /// Creates a namespace.
    pub fn namespace(&self, name: &str) -> Result<()> {
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        self.admin.apply(&namespace).map(drop)
    }

    /// The agent of a node of the cluster. The Node object must exist, since the agent's token is bound to it.
    pub fn agent(&self, node: &str) -> Result<Reporter> {
        let kubeconfig = token(&self.control_plane, "lvs-operator-agent", Some(node))?;
        Reporter::start(&kubeconfig, node)
    }

    /// The agent of a machine outside the cluster.
    pub fn machine(&self, name: &str) -> Result<Reporter> {
        Reporter::start(self.machine_kubeconfig(name)?, name)
    }

    /// The kubeconfig of the agent of a machine outside the cluster.
    pub fn machine_kubeconfig(&self, name: &str) -> Result<&Path> {
        self.control_plane.kubeconfig_of(&user(name))
    }

    /// The objects as one of the chart's service accounts sees them, with a token that is bound to no node.
    pub fn account(&self, account: &str) -> Result<Objects> {
        Objects::of(&token(&self.control_plane, account, None)?)
    }

    /// Creates the LvsNode of a machine outside the cluster, as an administrator does.
    pub fn admit(&self, machine: &str) -> Result<()> {
        let object = json!({
            "apiVersion": "lvs-operator.io/v1alpha1",
            "kind": "LvsNode",
            "metadata": {"name": machine},
            "spec": {"identity": user(machine)},
        });
        self.admin.apply(&object).map(drop)
    }
}

/// The user of the agent of a machine outside the cluster.
pub(crate) fn user(machine: &str) -> String {
    format!("lvs:machine:{machine}")
}

/// Writes a kubeconfig with a token of one of the chart's service accounts, bound to `node` if there is one.
fn token(control_plane: &ControlPlane, account: &str, node: Option<&str>) -> Result<PathBuf> {
    let mut arguments = vec!["create", "token", account, "--namespace", NAMESPACE];
    if let Some(node) = node {
        arguments.extend(["--bound-object-kind", "Node", "--bound-object-name", node]);
    }
    let token = control_plane.kubectl(&arguments)?;
    let name = format!("{account}.{}", node.unwrap_or("unbound"));
    control_plane.kubeconfig_for_token(&name, token.trim_end())
}

/// A running lvs-controller. Dropping it kills it; its log stays in the control plane's directory.
pub struct Controller {
    process: Process,
    log: PathBuf,
}

impl Controller {
    /// Starts a controller with the rights of a kubeconfig. `LVS_CONTROLLER` names the program; by default it is the one next to
    /// this program.
    pub fn start(control_plane: &ControlPlane, kubeconfig: &Path, name: &str) -> Result<Self> {
        let program = program("lvs-controller", "LVS_CONTROLLER")?;
        let log = control_plane.directory().join(format!("{name}.log"));
        let child = Command::new(&program)
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .args(["--lease-namespace", NAMESPACE, "--identity", name])
            .args(["--log", "info,lvs_controller=debug"])
            .stdin(Stdio::null())
            .stderr(File::options().create(true).append(true).open(&log)?)
            .spawn()
            .with_context(|| format!("could not start {}", program.display()))?;
        let process = Process::adopt(child, name.to_owned());
        Ok(Self { process, log })
    }

    /// Waits until its watches have synced, whether or not it is the leader.
    pub fn await_ready(&self) -> Result<()> {
        wait_until("the watches of a controller to sync", TIMEOUT, || {
            let log = self.log()?;
            Ok(log.contains("ready: every watch has synced").then_some(()))
        })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Returns whether it has not ended.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.process.try_wait()?.is_none())
    }

    /// Kills it, as a power cut of its node does.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill().map(drop)
    }

    /// Sends a signal without waiting.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Waits until it has ended, and returns its exit code.
    pub fn await_end(&mut self) -> Result<Option<i32>> {
        Ok(self.process.wait(TIMEOUT)?.code())
    }

    /// Sends SIGTERM, and waits until it has ended with success.
    pub fn stop(&mut self) -> Result<()> {
        let status = self.process.stop(TIMEOUT)?;
        ensure!(
            status.success(),
            "the controller ended with {status}: {}",
            self.log()?
        );
        Ok(())
    }

    /// Its log so far.
    pub fn log(&self) -> Result<String> {
        fs::read_to_string(&self.log).with_context(|| format!("reading {}", self.log.display()))
    }
}

/// The path of a program of the project: from an environment variable, or from the build that this program belongs to.
pub(crate) fn program(name: &str, variable: &str) -> Result<PathBuf> {
    if let Some(program) = std::env::var_os(variable) {
        return Ok(program.into());
    }
    let own = std::env::current_exe().context("could not find the path of this program")?;
    let found = own
        .ancestors()
        .skip(1)
        .take(2)
        .map(|directory| directory.join(name))
        .find(|program| program.exists());
    found.with_context(|| format!("there is no {name}: build it, or name it in {variable}"))
}

/// Writes statuses as the agent of a machine does, with its user, and renews the agent's Lease until it is dropped.
pub struct Reporter {
    /// The objects as its user sees them.
    pub objects: Objects,
    node: String,
    /// The thread that renews the Lease ends with it.
    _alive: Sender<()>,
}

impl Reporter {
    fn start(kubeconfig: &Path, node: &str) -> Result<Self> {
        let (alive, ended) = channel();
        let (objects, lease) = (Objects::of(kubeconfig)?, agent_lease(node));
        std::thread::spawn(move || {
            loop {
                let mut lease = lease.clone();
                if let Some(spec) = lease.pointer_mut("/spec").and_then(Value::as_object_mut) {
                    let now = MicroTime(Timestamp::now());
                    spec.insert("renewTime".to_owned(), json!(now));
                }
                // A test may stop the API server, or the policy may not be in force yet.
                drop(objects.apply(&lease));
                if ended.recv_timeout(AGENT_LEASE_PERIOD) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        });
        Ok(Self {
            objects: Objects::of(kubeconfig)?,
            node: node.to_owned(),
            _alive: alive,
        })
    }

    /// Writes the status of a binding, for its current generation.
    pub fn report(&self, binding: &str, verdict: &Verdict) -> Result<()> {
        let object = self.objects.get("DirectorBinding", binding)?;
        self.objects
            .apply_status("lvs-agent", &binding_status(&object, verdict)?)
            .map(drop)
    }

    /// Reports `Programmed` for all bindings of its node whose status is not about their current generation; returns how many.
    /// A binding may be deleted in the meantime.
    pub fn report_all(&self) -> Result<usize> {
        self.report_on("DirectorBinding", &programmed())
    }

    /// Reports `Ready` for all RealServerBindings of its node, in the same way.
    pub fn report_all_served(&self) -> Result<usize> {
        self.report_on("RealServerBinding", &ready(None))
    }

    fn report_on(&self, kind: &str, verdict: &Verdict) -> Result<usize> {
        let label = format!("{NODE_LABEL}={}", node_label(&self.node));
        let bindings = self.objects.list(kind, &label)?;
        let mut count = 0;
        for object in bindings {
            if object.pointer("/spec/slice").is_some() {
                continue;
            }
            let generation = object.pointer("/metadata/generation");
            if object.pointer("/status/observedGeneration") != generation {
                let status = binding_status(&object, verdict)?;
                match self.objects.apply_status("lvs-agent", &status) {
                    Ok(_) => count += 1,
                    Err(error) if is_not_found(&error) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(count)
    }

    /// Writes the status of the machine's LvsNode: a standby of a group, and what is wrong between it and other directors.
    pub fn stand_by(&self, group: &str, problem: Option<&str>) -> Result<()> {
        let object = self.objects.get("LvsNode", &self.node)?;
        let mut standing = json!({
            "group": group, "interface": "eth0", "ipFamily": "IPv4", "state": "Standby",
            "since": "2026-11-29T10:12:00Z",
        });
        if let (Some(problem), Some(standing)) = (problem, standing.as_object_mut()) {
            standing.insert("problem".to_owned(), json!(problem));
        }
        let status = json!({
            "observedGeneration": object.pointer("/metadata/generation"),
            "standings": [standing],
            "conditions": conditions(&object, &ready(None))?,
        });
        let status = with_status(&object, &status);
        self.objects.apply_status("lvs-agent", &status)?;
        Ok(())
    }

    /// Writes the status of the machine's LvsNode, with its addresses, and those of its RealServerBindings: ready, except
    /// `failures`, which have a virtual service and a message.
    pub fn describe(&self, addresses: &[&str], failures: &[(&str, &str)]) -> Result<()> {
        let object = self.objects.get("LvsNode", &self.node)?;
        let addresses: Vec<Value> = addresses
            .iter()
            .map(|address| json!({"interface": "eth0", "address": address}))
            .collect();
        let status = json!({
            "observedGeneration": object.pointer("/metadata/generation"),
            "facts": {"kernel": "6.12.0", "ipvsVersion": "1.2.1", "addresses": addresses},
            "conditions": conditions(&object, &ready(None))?,
        });
        self.objects
            .apply_status("lvs-agent", &with_status(&object, &status))?;
        let label = format!("{NODE_LABEL}={}", node_label(&self.node));
        for object in self.objects.list("RealServerBinding", &label)? {
            let service = object
                .pointer("/spec/virtualService")
                .and_then(Value::as_str);
            let mut failures = failures.iter();
            let failure = failures.find(|(name, _)| service == Some(*name));
            let verdict = ready(failure.map(|(_, message)| *message));
            let status = binding_status(&object, &verdict)?;
            match self.objects.apply_status("lvs-agent", &status) {
                Err(error) if !is_not_found(&error) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// The Lease of a machine's agent, without the time of its renewal.
pub fn agent_lease(node: &str) -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "namespace": NAMESPACE,
            "name": agent_lease_name(node),
            "labels": {NODE_LABEL: node_label(node)},
        },
        "spec": {"holderIdentity": node, "leaseDurationSeconds": AGENT_LEASE_DURATION.as_secs()},
    })
}

/// Ready, or why not.
fn ready(failure: Option<&str>) -> Verdict {
    let (status, reason) = match failure {
        None => (condition::Status::True, Reason::Ready),
        Some(_) => (condition::Status::False, Reason::ProgrammingFailed),
    };
    Verdict::new(
        ConditionType::Ready,
        status,
        reason,
        failure.unwrap_or_default(),
    )
}

fn is_not_found(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(kube::Error::Api(status)) if status.is_not_found())
}

/// A condition of an object as `STATUS REASON`; `None` if there is none of that type.
pub fn condition_of(object: &Value, kind: &str) -> Option<String> {
    let found = find_condition(object, kind)?;
    Some(format!(
        "{} {}",
        text(found, "status"),
        text(found, "reason")
    ))
}

/// The message of a condition; `None` if there is none of that type.
pub fn message_of(object: &Value, kind: &str) -> Option<String> {
    find_condition(object, kind).map(|found| text(found, "message").to_owned())
}

fn find_condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    let conditions = object.pointer("/status/conditions")?.as_array()?;
    conditions.iter().find(|found| text(found, "type") == kind)
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// The verdict of an agent on a binding that is in its kernel.
pub fn programmed() -> Verdict {
    Verdict::new(
        ConditionType::Programmed,
        condition::Status::True,
        Reason::Programmed,
        "",
    )
}

fn binding_status(object: &Value, verdict: &Verdict) -> Result<Value> {
    let status = json!({
        "observedGeneration": object.pointer("/metadata/generation"),
        "conditions": conditions(object, verdict)?,
    });
    Ok(with_status(object, &status))
}

fn conditions(object: &Value, verdict: &Verdict) -> Result<Value> {
    let before = object.pointer("/status/conditions").cloned();
    let before: Vec<_> = serde_json::from_value(before.unwrap_or_else(|| json!([])))?;
    let generation = object
        .pointer("/metadata/generation")
        .and_then(Value::as_i64);
    let verdicts = vec![verdict.clone()];
    let conditions = condition::conditions(verdicts, &before, generation, Timestamp::now());
    Ok(serde_json::to_value(conditions)?)
}

/// An object with its identity and a status, to apply.
fn with_status(object: &Value, status: &Value) -> Value {
    let mut metadata = json!({"name": object.pointer("/metadata/name")});
    if let Some(namespace) = object.pointer("/metadata/namespace")
        && let Some(fields) = metadata.as_object_mut()
    {
        fields.insert("namespace".to_owned(), namespace.clone());
    }
    json!({
        "apiVersion": object["apiVersion"],
        "kind": object["kind"],
        "metadata": metadata,
        "status": status,
    })
}
