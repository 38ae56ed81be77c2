//! The control plane that the API tests start: its data, its users, and its removal.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use lab::{ControlPlane, ControlPlaneSpec, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const COLOURS: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: colours, namespace: default}
data: {sky: blue}
";

const SKY: &[&str] = &["get", "configmap", "colours", "-o", "jsonpath={.data.sky}"];

#[test]
fn applied_objects_survive_an_outage_of_the_api_server() -> Result<()> {
    let mut control_plane = ControlPlane::start()?;
    let address = control_plane.address();
    assert_eq!(control_plane.apply(COLOURS)?, "configmap/colours created\n");
    control_plane.stop_api_server()?;
    assert!(TcpStream::connect(address).is_err());
    assert!(control_plane.kubectl(SKY).is_err());
    control_plane.start_api_server()?;
    assert_eq!(control_plane.address(), address);
    assert_eq!(control_plane.kubectl(SKY)?, "blue");
    Ok(())
}

#[test]
fn two_control_planes_do_not_see_each_other() -> Result<()> {
    let one = ControlPlane::start()?;
    let other = ControlPlane::start()?;
    one.apply(COLOURS)?;
    assert_eq!(one.kubectl(SKY)?, "blue");
    let error = other.kubectl(SKY).unwrap_err().to_string();
    assert!(error.contains("\"colours\" not found"), "{error}");
    Ok(())
}

#[test]
fn a_user_is_identified_by_its_token_and_may_do_what_its_role_allows() -> Result<()> {
    let spec = ControlPlaneSpec::default()
        .user("system:node:n1", &["system:nodes"])
        .user("painter", &["artists"]);
    let control_plane = ControlPlane::start_as(&spec)?;
    control_plane.apply(COLOURS)?;
    let painter = control_plane.kubeconfig_of("painter")?;
    let node = control_plane.kubeconfig_of("system:node:n1")?;

    let error = control_plane.kubectl_with(painter, SKY).unwrap_err();
    assert!(
        error.to_string().contains("User \"painter\" cannot get"),
        "{error}"
    );
    let role = [
        "create",
        "role",
        "reader",
        "--verb=get",
        "--resource=configmaps",
    ];
    control_plane.kubectl(&role)?;
    let binding = [
        "create",
        "rolebinding",
        "reader",
        "--role=reader",
        "--group=artists",
    ];
    control_plane.kubectl(&binding)?;
    let sky = wait_until("the role to take effect", Duration::from_secs(20), || {
        Ok(control_plane.kubectl_with(painter, SKY).ok())
    })?;
    assert_eq!(sky, "blue");
    // A node may read what its pods refer to, and this one has no pods.
    let error = control_plane.kubectl_with(node, SKY).unwrap_err();
    assert!(
        error.to_string().contains("no relationship found"),
        "{error}"
    );
    Ok(())
}

#[test]
fn a_service_account_is_identified_by_its_token() -> Result<()> {
    let control_plane = ControlPlane::start()?;
    control_plane.kubectl(&["create", "serviceaccount", "agent"])?;
    let token = control_plane.kubectl(&["create", "token", "agent"])?;
    let kubeconfig = control_plane.kubeconfig_for_token("agent", token.trim_end())?;
    let whoami = [
        "auth",
        "whoami",
        "-o",
        "jsonpath={.status.userInfo.username}",
    ];
    assert_eq!(
        control_plane.kubectl_with(&kubeconfig, &whoami)?,
        "system:serviceaccount:default:agent"
    );
    Ok(())
}

#[test]
fn an_api_server_that_ends_is_reported_with_its_log() -> Result<()> {
    let mut control_plane = ControlPlane::start()?;
    control_plane.check()?;
    let ids = control_plane.process_ids();
    let api_server = i32::try_from(*ids.get("kube-apiserver").context("no API server")?)?;
    kill(Pid::from_raw(api_server), Signal::SIGKILL)?;
    let error = wait_until("the end of the API server", Duration::from_secs(20), || {
        Ok(control_plane.check().err())
    })?;
    let error = error.to_string();
    assert!(
        error.starts_with("kube-apiserver ended with signal: 9"),
        "{error}"
    );
    assert!(error.contains("kube-apiserver.log:\n"), "{error}");
    Ok(())
}

#[test]
fn a_start_that_fails_shows_the_log_and_leaves_nothing() -> Result<()> {
    let assets = tempfile::tempdir()?;
    let place = tempfile::tempdir()?;
    for program in ["etcd", "kubectl", "kube-apiserver"] {
        symlink("/bin/cat", assets.path().join(program))?;
    }
    let lab = Command::new(env!("CARGO_BIN_EXE_lab"))
        .arg("control-plane")
        .env("KUBEBUILDER_ASSETS", assets.path())
        .env("TMPDIR", place.path())
        .output()?;
    assert!(!lab.status.success());
    let error = String::from_utf8(lab.stderr)?;
    let end = "etcd ended with exit status: 1; the end of /";
    assert!(error.contains(end), "{error}");
    assert!(
        error.contains("unrecognized option '--data-dir="),
        "{error}"
    );
    assert_eq!(fs::read_dir(place.path())?.count(), 0);
    Ok(())
}

#[test]
fn missing_programs_are_named() -> Result<()> {
    let nothing = tempfile::tempdir()?;
    let lab = Command::new(env!("CARGO_BIN_EXE_lab"))
        .arg("control-plane")
        .env("KUBEBUILDER_ASSETS", nothing.path())
        .output()?;
    let error = String::from_utf8(lab.stderr)?;
    let lacking = format!(
        "{} lacks etcd kubectl kube-apiserver",
        nothing.path().display()
    );
    assert!(error.contains(&lacking), "{error}");
    Ok(())
}

#[test]
fn nothing_is_left_of_a_control_plane_that_was_dropped() -> Result<()> {
    let control_plane = ControlPlane::start()?;
    let directory = control_plane.directory().to_owned();
    assert_eq!(processes_that_mention(&directory)?.len(), 2);
    drop(control_plane);
    assert_eq!(processes_that_mention(&directory)?, Vec::<String>::new());
    assert!(!directory.exists());
    Ok(())
}

#[test]
fn nothing_is_left_of_a_control_plane_after_a_panic() -> Result<()> {
    let control_plane = ControlPlane::start()?;
    let directory = control_plane.directory().to_owned();
    let panic = catch_unwind(AssertUnwindSafe(move || {
        let _control_plane = control_plane;
        panic!("on purpose");
    }));
    assert!(panic.is_err());
    assert_eq!(processes_that_mention(&directory)?, Vec::<String>::new());
    assert!(!directory.exists());
    Ok(())
}

#[test]
fn no_process_is_left_when_the_lab_is_ended() -> Result<()> {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGKILL] {
        let mut lab = Command::new(env!("CARGO_BIN_EXE_lab"))
            .arg("control-plane")
            .stdout(Stdio::piped())
            .spawn()?;
        let output = lab.stdout.take().context("the lab has no output")?;
        let mut kubeconfig = String::new();
        BufReader::new(output).read_line(&mut kubeconfig)?;
        let kubeconfig = PathBuf::from(kubeconfig.trim_end());
        let directory = kubeconfig.parent().context("no kubeconfig was printed")?;
        assert_eq!(processes_that_mention(directory)?.len(), 2);

        kill(Pid::from_raw(i32::try_from(lab.id())?), signal)?;
        let minute = Duration::from_secs(60);
        let status = wait_until("the end of the lab", minute, || Ok(lab.try_wait()?))?;
        wait_until("the end of the control plane", minute, || {
            Ok(processes_that_mention(directory)?.is_empty().then_some(()))
        })?;
        // A lab that is killed with SIGKILL cannot remove its directory.
        assert_eq!(status.success(), signal != Signal::SIGKILL, "{signal}");
        assert_eq!(directory.exists(), signal == Signal::SIGKILL, "{signal}");
        if directory.exists() {
            fs::remove_dir_all(directory)?;
        }
    }
    Ok(())
}

/// Returns the command lines that contain the path of a directory.
fn processes_that_mention(directory: &Path) -> Result<Vec<String>> {
    let name = directory.display().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Ok(line) = fs::read(entry?.path().join("cmdline")) else {
            continue;
        };
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(&name) {
            found.push(line);
        }
    }
    Ok(found)
}
