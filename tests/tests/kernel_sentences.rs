//! Error messages say what to do.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context, Result};
use lab::{Agent, Protocol, Ran, Site, scenery, virtual_service};

const MODPROBE: &str = "/proc/sys/kernel/modprobe";

fn nat(name: &str, port: u16, scheduler: &str) -> String {
    let spec = format!(
        "addresses: [192.168.220.100], forwarding: NAT, scheduler: {{name: {scheduler}}},
         ports: [{{name: t, port: {port}, targetPort: 80}}, {{name: u, protocol: UDP, port: {port}, targetPort: 80}}],
         backends: [{{address: 192.168.100.11}}, {{address: 192.168.100.12}}]"
    );
    virtual_service(name, &spec)
}

/// Runs the agent as the last arguments of another command.
fn behind(agent: &Agent, wrapper: &[&str], arguments: &[&str]) -> Result<Ran> {
    let wrapped = agent.command(arguments);
    let (program, options) = wrapper.split_first().context("there is no wrapper")?;
    let mut command = Command::new(program);
    command
        .args(options)
        .arg(wrapped.get_program())
        .args(wrapped.get_args());
    agent.finish(&mut command)
}

#[test]
fn without_cap_net_admin_the_agent_names_the_capability_that_it_needs() -> Result<()> {
    let site = Site::lay_out(scenery::NAT, 80)?;
    let agent = site.agent("director")?;
    agent.write("site.yaml", nat("web", 80, "rr"))?;
    let setpriv = [
        "setpriv",
        "--bounding-set",
        "-net_admin",
        "--inh-caps",
        "-net_admin",
    ];
    for arguments in [&["run", "--once"][..], &["plan"], &["show"], &["cleanup"]] {
        let ran = behind(agent, &setpriv, arguments)?;
        assert_eq!(ran.status.code(), Some(2), "{}", ran.log);
        assert!(
            ran.log.contains("lvs-agent needs CAP_NET_ADMIN: run it as root, or grant it (AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW)"),
            "{}",
            ran.log
        );
    }
    Ok(())
}

#[test]
fn in_a_user_namespace_the_agent_says_that_ipvs_needs_the_initial_one() -> Result<()> {
    let site = Site::lay_out(scenery::NAT, 80)?;
    let agent = site.agent("director")?;
    agent.write("site.yaml", nat("web", 80, "rr"))?;
    let ran = behind(
        agent,
        &["unshare", "--user", "--map-root-user"],
        &["run", "--once"],
    )?;
    assert_eq!(ran.status.code(), Some(2), "{}", ran.log);
    assert!(
        ran.log.contains("IPVS needs CAP_NET_ADMIN in the initial user namespace: run lvs-agent as root, or grant the capability"),
        "{}",
        ran.log
    );
    Ok(())
}

#[test]
fn with_a_read_only_proc_sys_the_agent_says_what_a_container_needs() -> Result<()> {
    let site = Site::lay_out(scenery::NAT, 80)?;
    let agent = site.agent("director")?;
    agent.write("site.yaml", nat("web", 80, "rr"))?;
    let script =
        "mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys && exec \"$@\"";
    let ran = behind(
        agent,
        &["unshare", "--mount", "sh", "-c", script, "sh"],
        &["run", "--once"],
    )?;
    assert_eq!(ran.status.code(), Some(1), "{}", ran.log);
    assert!(
        ran.log.contains(
            "setting net.ipv4.ip_forward: /proc/sys/net/ipv4/ip_forward is read-only; a container needs the host's /proc/sys/net mounted \
             at /host/proc/sys/net, or to be privileged"
        ),
        "{}",
        ran.log
    );
    agent.converge().map(drop)
}

#[test]
fn a_missing_scheduler_is_named_with_its_module_and_stops_no_other_service() -> Result<()> {
    let site = Site::lay_out(scenery::NAT, 80)?;
    let agent = site.agent("director")?;
    let modprobe = fs::read_to_string(MODPROBE)?;
    site.host("director")?
        .run(&["modprobe", "-r", "ip_vs_mh"])?;
    fs::write(MODPROBE, "/bin/false")?;
    agent.write(
        "site.yaml",
        format!("{}{}", nat("web", 80, "rr"), nat("hashed", 81, "mh")),
    )?;
    let ran = agent.run_once()?;
    assert_eq!(ran.status.code(), Some(1), "{}", ran.log);
    for service in ["-t 192.168.220.100:81", "-u 192.168.220.100:81"] {
        let sentence = format!(
            "failed: ipvsadm -A {service} -s mh: this kernel has no scheduler 'mh': load it with `modprobe ip_vs_mh`"
        );
        assert!(ran.log.contains(&sentence), "{}", ran.log);
    }
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let vip: SocketAddr = "192.168.220.100:80".parse()?;
        site.ask_both(protocol, vip)?;
    }
    // The kernel may load modules again.
    fs::write(MODPROBE, modprobe)?;
    agent.converge()?;
    site.client()?.fetch("192.168.220.100:81").map(drop)
}

#[test]
fn a_machine_with_an_invalid_host_name_can_be_shown_and_cleaned_up() -> Result<()> {
    let site = Site::lay_out(scenery::NAT, 80)?;
    let agent = site.agent("director")?;
    let before = lab::Dump::of(agent.host())?;
    agent.write("site.yaml", nat("web", 80, "rr"))?;
    agent.converge()?;
    let call = |verb: &str| {
        let wrapped = agent.command(&[]);
        let script = "echo '(none)' > /proc/sys/kernel/hostname && exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--uts", "sh", "-c", script, "sh"]);
        command.arg(wrapped.get_program()).arg(verb);
        command.arg("--state-dir").arg(agent.state());
        agent.finish(&mut command)
    };
    let shown = call("show")?;
    assert!(shown.stdout.contains("services (2 on (none))"), "{shown:?}");
    let cleaned = call("cleanup")?;
    assert!(cleaned.status.success(), "{}", cleaned.log);
    let left = before.difference(&lab::Dump::of(agent.host())?);
    assert_eq!(left, [""; 0]);
    Ok(())
}

#[test]
fn a_broken_ledger_is_reported_and_objects_with_our_mark_are_recognized() -> Result<()> {
    let site = Site::lay_out(scenery::TUN, 80)?;
    let agent = site.agent("rs1")?;
    let before = lab::Dump::of(agent.host())?;
    let spec = "addresses: [192.168.220.100], forwarding: TUN, ports: [{port: 80}],
                backends: [{address: 192.168.230.132}]";
    agent.write("site.yaml", virtual_service("web", spec))?;
    agent.converge()?;
    fs::write(agent.ledger(), "{")?;
    let ran = agent.run_once()?;
    assert_eq!(ran.status.code(), Some(1), "{}", ran.log);
    for text in [
        "cannot parse the ledger",
        "only objects with the agent's mark count as owned",
        "ledger.json.unreadable: IPVS services and sysctls that it named count as foreign",
    ] {
        assert!(ran.log.contains(text), "{}", ran.log);
    }
    fs::remove_file(agent.ledger().with_added_extension("unreadable"))?;
    agent.converge()?;
    agent.cleanup()?;
    let left = before.difference(&lab::Dump::of(agent.host())?);
    let network: Vec<&String> = left.iter().filter(|line| line.contains(" ip ")).collect();
    assert!(network.is_empty(), "{left:?}");
    Ok(())
}
