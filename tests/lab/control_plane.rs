//! A Kubernetes control plane on this machine: etcd, kube-apiserver, and on request the controller manager and the scheduler.
//!
//! - `tests/tools/build.sh` finds the programs; nothing is built from here.
//! - All files are in one temporary directory. etcd listens on a socket in it, the API server on one port.
//! - The port is held as long as the control plane exists, so that the API server can be restarted on it.
//! - The processes end when the control plane is dropped, and with the process that started it, however that ends.

mod credentials;
mod daemon;
mod file;
mod programs;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use self::credentials::{ADMIN, kubeconfig_path, write_credentials, write_kubeconfig};
use self::daemon::Daemon;
use self::programs::Programs;
use crate::wait::wait_until;

pub use self::programs::ProgramSet;

/// How long a program of the control plane may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// The description of a control plane.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ControlPlaneSpec {
    /// The address of this machine on which the API server listens.
    pub address: IpAddr,
    /// Users besides the administrator, each with its groups. Each gets a token and a kubeconfig.
    pub users: BTreeMap<String, Vec<String>>,
    /// The programs that it needs.
    pub programs: ProgramSet,
}

impl Default for ControlPlaneSpec {
    /// Listens on loopback, has no user but the administrator, and needs the programs of the API.
    fn default() -> Self {
        Self {
            address: Ipv4Addr::LOCALHOST.into(),
            users: BTreeMap::new(),
            programs: ProgramSet::Api,
        }
    }
}

impl ControlPlaneSpec {
    /// Adds a user.
    #[must_use]
    pub fn user(mut self, name: &str, groups: &[&str]) -> Self {
        let groups = groups.iter().map(ToString::to_string).collect();
        self.users.insert(name.to_owned(), groups);
        self
    }
}

/// A running control plane. Dropping it ends its processes and removes their files.
#[derive(Debug)]
pub struct ControlPlane {
    // Fields are dropped in this order: the processes before the directory that they write to.
    controllers: Vec<Daemon>,
    api_server: Option<Daemon>,
    etcd: Daemon,
    programs: Programs,
    address: SocketAddr,
    /// Bound to the API server's port without listening, so that no other process gets the port.
    _port: Socket,
    kubeconfigs: BTreeMap<String, PathBuf>,
    directory: TempDir,
}

impl ControlPlane {
    /// Starts a control plane on loopback and waits until its API answers.
    pub fn start() -> Result<Self> {
        Self::start_as(&ControlPlaneSpec::default())
    }

    /// Starts a control plane as described and waits until its API answers.
    pub fn start_as(spec: &ControlPlaneSpec) -> Result<Self> {
        let programs = Programs::find(spec.programs)?;
        let directory = tempfile::Builder::new()
            .prefix("lab-control-plane-")
            // It holds keys, and the socket of etcd, which does not authenticate clients.
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir()
            .context("could not create a directory for the control plane")?;
        let (port, address) = hold_port(spec.address)?;
        let kubeconfigs = write_credentials(directory.path(), address, &spec.users)?;
        let etcd = start_etcd(&programs, directory.path())?;
        let mut control_plane = Self {
            controllers: Vec::new(),
            api_server: None,
            etcd,
            programs,
            address,
            _port: port,
            kubeconfigs,
            directory,
        };
        control_plane.await_etcd()?;
        control_plane.start_api_server()?;
        Ok(control_plane)
    }

    /// Starts the API server, on the same port and with the same data as before, and waits until it is ready.
    pub fn start_api_server(&mut self) -> Result<()> {
        ensure!(self.api_server.is_none(), "the API server runs already");
        let program = self.programs.path("kube-apiserver")?;
        let arguments = self.api_server_arguments();
        self.api_server = Some(Daemon::start(program, &arguments, self.directory.path())?);
        self.await_api_server()
    }

    /// Kills the API server, as a crash would: its clients' connections break. The data stays.
    pub fn stop_api_server(&mut self) -> Result<()> {
        let mut api_server = self
            .api_server
            .take()
            .context("the API server does not run")?;
        api_server.kill()
    }

    /// Starts the controller manager and waits until it has created the first service account.
    pub fn start_controller_manager(&mut self) -> Result<()> {
        let arguments = [
            "--leader-elect=false".to_owned(),
            "--secure-port=0".to_owned(),
            format!("--kubeconfig={}", self.kubeconfig().display()),
            format!("--root-ca-file={}", self.show(file::AUTHORITY)),
            format!(
                "--service-account-private-key-file={}",
                self.show(file::SERVICE_ACCOUNT_KEY)
            ),
        ];
        self.start_controller("kube-controller-manager", &arguments)?;
        self.await_that("the first service account", |control_plane| {
            control_plane.answers(&["get", "serviceaccount", "default"])
        })
    }

    /// Starts the scheduler.
    pub fn start_scheduler(&mut self) -> Result<()> {
        let arguments = [
            "--leader-elect=false".to_owned(),
            "--secure-port=0".to_owned(),
            format!("--kubeconfig={}", self.kubeconfig().display()),
        ];
        self.start_controller("kube-scheduler", &arguments)
    }

    /// Fails if a process that should run has ended; the error includes the end of its log.
    pub fn check(&mut self) -> Result<()> {
        let api = [&mut self.etcd].into_iter().chain(&mut self.api_server);
        api.chain(&mut self.controllers).try_for_each(Daemon::check)
    }

    /// The address and port on which the API server listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The directory with the certificate of the authority (`ca.crt`), the logs, the kubeconfigs and the data.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The process ids of the running programs, by name.
    pub fn process_ids(&self) -> BTreeMap<String, u32> {
        self.daemons()
            .map(|daemon| (daemon.name().to_owned(), daemon.id()))
            .collect()
    }

    /// A program of the control plane's set, such as `helm`.
    pub fn program(&self, name: &str) -> Result<&Path> {
        self.programs.path(name)
    }

    /// The path of the authority's certificate.
    pub fn authority(&self) -> PathBuf {
        self.directory.path().join(file::AUTHORITY)
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        kubeconfig_path(self.directory.path(), ADMIN)
    }

    /// The kubeconfig of a user.
    pub fn kubeconfig_of(&self, user: &str) -> Result<&Path> {
        self.kubeconfigs
            .get(user)
            .map(PathBuf::as_path)
            .with_context(|| format!("the control plane was started without a user `{user}`"))
    }

    /// Writes a kubeconfig with a token, such as one from `kubectl create token`.
    pub fn kubeconfig_for_token(&self, name: &str, token: &str) -> Result<PathBuf> {
        let path = kubeconfig_path(self.directory.path(), name);
        ensure!(
            self.kubeconfigs.values().all(|taken| *taken != path),
            "the user `{name}` has a kubeconfig already"
        );
        write_kubeconfig(self.directory.path(), &path, self.address, token)?;
        Ok(path)
    }

    /// Runs kubectl as the administrator and returns its standard output; an error includes its standard error.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.kubectl_with(&self.kubeconfig(), arguments)
    }

    /// Runs kubectl with a kubeconfig and returns its standard output; an error includes its standard error.
    pub fn kubectl_with(&self, kubeconfig: &Path, arguments: &[&str]) -> Result<String> {
        let mut command = self.kubectl_command(kubeconfig)?;
        command.args(arguments);
        output_of(&mut command, "")
    }

    /// Applies manifests as the administrator and returns kubectl's output.
    pub fn apply(&self, manifests: &str) -> Result<String> {
        let mut command = self.kubectl_command(&self.kubeconfig())?;
        command.args(["apply", "-f", "-"]);
        output_of(&mut command, manifests)
    }

    /// A kubectl command for this control plane, to which the caller adds arguments.
    pub fn kubectl_command(&self, kubeconfig: &Path) -> Result<Command> {
        let mut command = Command::new(self.programs.path("kubectl")?);
        command
            .env("KUBECONFIG", kubeconfig)
            // Its own cache, since the default one may be from another control plane that had this port.
            .arg("--cache-dir")
            .arg(self.directory.path().join(file::KUBECTL_CACHE));
        Ok(command)
    }

    fn await_etcd(&mut self) -> Result<()> {
        let socket = self.directory.path().join(file::ETCD_SOCKET);
        self.await_that("etcd", |_| UnixStream::connect(&socket).is_ok())
    }

    /// Waits for `/readyz`, and then for the namespaces, which the API server creates a moment later.
    fn await_api_server(&mut self) -> Result<()> {
        self.await_that("the port of the API server", |control_plane| {
            TcpStream::connect(control_plane.address).is_ok()
        })?;
        self.await_that("the API server", |control_plane| {
            control_plane.answers(&["get", "--raw", "/readyz"])
        })?;
        self.await_that("the first namespaces", |control_plane| {
            control_plane.answers(&["get", "namespace", "default", "kube-system"])
        })
    }

    /// Waits until a condition holds; fails if a process ends. An error includes the ends of the logs.
    fn await_that(&mut self, what: &str, condition: impl Fn(&Self) -> bool) -> Result<()> {
        let waited = wait_until(what, START_TIMEOUT, || match self.check() {
            Ok(()) => Ok(condition(self).then_some(Ok(()))),
            Err(ended) => Ok(Some(Err(ended))),
        });
        waited.with_context(|| {
            let logs: Vec<String> = self.daemons().map(Daemon::end_of_log).collect();
            logs.join("\n")
        })?
    }

    fn daemons(&self) -> impl Iterator<Item = &Daemon> {
        let api = [&self.etcd].into_iter().chain(&self.api_server);
        api.chain(&self.controllers)
    }

    fn answers(&self, arguments: &[&str]) -> bool {
        let in_time = ["--request-timeout=5s"];
        self.kubectl(&[&in_time, arguments].concat()).is_ok()
    }

    fn start_controller(&mut self, name: &str, arguments: &[String]) -> Result<()> {
        let program = self.programs.path(name)?;
        let controller = Daemon::start(program, arguments, self.directory.path())?;
        self.controllers.push(controller);
        Ok(())
    }

    fn api_server_arguments(&self) -> Vec<String> {
        let mut arguments = vec![
            format!("--etcd-servers=unix://{}", self.show(file::ETCD_SOCKET)),
            format!("--bind-address={}", self.address.ip()),
            format!("--advertise-address={}", self.address.ip()),
            format!("--secure-port={}", self.address.port()),
            // A socket of the lab holds the port.
            "--permit-port-sharing=true".to_owned(),
            format!("--tls-cert-file={}", self.show(file::SERVER_CERTIFICATE)),
            format!("--tls-private-key-file={}", self.show(file::SERVER_KEY)),
            format!("--token-auth-file={}", self.show(file::TOKENS)),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--enable-admission-plugins=NodeRestriction".to_owned(),
            "--allow-privileged=true".to_owned(),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!(
                "--service-account-key-file={}",
                self.show(file::SERVICE_ACCOUNT_PUBLIC_KEY)
            ),
            format!(
                "--service-account-signing-key-file={}",
                self.show(file::SERVICE_ACCOUNT_KEY)
            ),
            format!("--service-cluster-ip-range={}", self.service_ranges()),
            format!(
                "--kubelet-client-certificate={}",
                self.show(file::KUBELET_CLIENT_CERTIFICATE)
            ),
            format!(
                "--kubelet-client-key={}",
                self.show(file::KUBELET_CLIENT_KEY)
            ),
            // For `kubectl logs` and `exec`: the nodes' names need not resolve.
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
            "--profiling=false".to_owned(),
        ];
        if self.address.ip().is_loopback() {
            // The endpoint of the Service `kubernetes` must not be a loopback address; the API server would retry forever.
            arguments.push("--endpoint-reconciler-type=none".to_owned());
        }
        arguments
    }

    /// The address ranges of Services, for both families; the API server's family must come first.
    fn service_ranges(&self) -> &'static str {
        match self.address.ip() {
            IpAddr::V4(_) => "10.96.0.0/16,fd00:10:96::/112",
            IpAddr::V6(_) => "fd00:10:96::/112,10.96.0.0/16",
        }
    }

    /// The path of a file in the directory, as text.
    fn show(&self, file: &str) -> String {
        self.directory.path().join(file).display().to_string()
    }
}

/// Takes a free port of an address, and keeps it as long as the socket exists. Another socket of the same user with
/// `SO_REUSEPORT` can still listen on it; no other process can, and the kernel does not assign it.
fn hold_port(address: IpAddr) -> Result<(Socket, SocketAddr)> {
    let hold = || {
        let wanted = SocketAddr::new(address, 0);
        let socket = Socket::new(Domain::for_address(wanted), Type::STREAM, None)?;
        socket.set_reuse_port(true)?;
        socket.bind(&wanted.into())?;
        let bound = socket.local_addr()?.as_socket();
        Ok::<_, std::io::Error>((socket, bound))
    };
    let (socket, bound) =
        hold().with_context(|| format!("could not bind a port of {address} for the API server"))?;
    Ok((socket, bound.context("the socket has no address")?))
}

fn start_etcd(programs: &Programs, directory: &Path) -> Result<Daemon> {
    let show = |file: &str| directory.join(file).display().to_string();
    // An advertised URL must not be a socket. It is never used, since there is no other member.
    let unused = "http://127.0.0.1:2379";
    let arguments = [
        format!("--data-dir={}", show(file::ETCD_DATA)),
        format!("--listen-client-urls=unix://{}", show(file::ETCD_SOCKET)),
        format!("--advertise-client-urls={unused}"),
        format!("--listen-peer-urls=unix://{}", show(file::ETCD_PEER_SOCKET)),
        format!("--initial-advertise-peer-urls={unused}"),
        format!("--initial-cluster=default={unused}"),
        // The data is not needed after a crash of the machine.
        "--unsafe-no-fsync".to_owned(),
        "--log-level=warn".to_owned(),
    ];
    Daemon::start(programs.path("etcd")?, &arguments, directory)
}

/// Runs a command to its end, with an input, and returns its standard output; an error includes its standard error.
fn output_of(command: &mut Command, input: &str) -> Result<String> {
    let shown = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("could not start {shown}"))?;
    let mut pipe = child.stdin.take().context("the command has no input")?;
    // A command that ends without reading reports the reason itself.
    pipe.write_all(input.as_bytes()).ok();
    drop(pipe);
    let output = child
        .wait_with_output()
        .with_context(|| format!("could not wait for {shown}"))?;
    ensure!(
        output.status.success(),
        "{shown} ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim_end()
    );
    String::from_utf8(output.stdout).with_context(|| format!("the output of {shown} is not text"))
}
