//! The agent as a systemd service: the unit of `dist/` with its sandbox, and the commands of the README.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result};
use lab::{Boot, Kernel};

const README: &str = include_str!("../../README.md");

/// A director that masquerades and adds a VIP, and a real server with a tunnel and a policy route. Together they use
/// everything that an agent programs, and every program that it runs.
const CONFIGURATION: &str = "
apiVersion: lvs-operator.io/v1alpha1
kind: DirectorGroup
metadata: {name: mine}
spec: {nodes: {names: [lab]}}
---
apiVersion: lvs-operator.io/v1alpha1
kind: DirectorGroup
metadata: {name: elsewhere}
spec: {nodes: {names: [elsewhere]}}
---
apiVersion: lvs-operator.io/v1alpha1
kind: VirtualService
metadata: {name: directed}
spec:
  directorGroup: mine
  addresses: [192.168.220.100]
  ports: [{port: 80}]
  forwarding: NAT
  nat: {returnPath: Masquerade}
  backends: [{address: 192.168.220.11, weight: 3}]
---
apiVersion: lvs-operator.io/v1alpha1
kind: VirtualService
metadata: {name: tunnelled}
spec:
  directorGroup: elsewhere
  addresses: [192.168.221.100]
  ports: [{port: 82}]
  forwarding: TUN
  tunnel: {type: GUE, port: 5555}
  backends: [{address: 192.168.220.137}]
---
apiVersion: lvs-operator.io/v1alpha1
kind: VirtualService
metadata: {name: routed}
spec:
  directorGroup: elsewhere
  addresses: [192.168.221.101]
  ports: [{port: 83}]
  forwarding: NAT
  nat: {returnPath: PolicyRoute, gateways: [192.168.220.1]}
  backends: [{address: 192.168.220.137}]
";

/// The expected output of `visit.sh`: two capabilities are left (12 and 13, NET_ADMIN and NET_RAW), and system calls are
/// filtered.
const VISITED: &str = "active
CapEff:\t0000000000003000
NoNewPrivs:\t1
Seccomp:\t2
IPVS services (1 on lab)
  TCP 192.168.220.100:80                   wlc
    -> 192.168.220.11:80                   NAT   weight 3
Owned by lvs-agent
  address  192.168.220.100/32 dev eth0
  address  192.168.221.100/32 dev lo
  address  169.254.76.83/32 dev lvs-ipip-2dd74a
  link     lvs-ipip-2dd74a
  route    0.0.0.0/0 table 7656322
  rules    1
  table    inet lvs-operator
  sysctl   net.ipv4.ip_forward = 1 (before: 0)
  sysctl   net.ipv4.conf.all.arp_ignore = 1 (before: 0)
  sysctl   net.ipv4.conf.all.arp_announce = 2 (before: 0)
  sysctl   net.ipv4.conf.all.send_redirects = 0 (before: 1)
  sysctl   net.ipv4.conf.eth0.send_redirects = 0 (before: 1)
  sysctl   net.ipv4.vs.conntrack = 1 (before: 0)
  sysctl   net.ipv4.vs.expire_nodest_conn = 1 (before: 0)
  sysctl   net.ipv4.vs.expire_quiescent_template = 1 (before: 0)
192.168.220.100/32
192.168.221.100/32
lvs-ipip-2dd74a
1
1
a file that changes
    -> 192.168.220.11:80                   NAT   weight 4
a kill
1
a stop
-A -t 192.168.220.100:80 -s wlc
-a -t 192.168.220.100:80 -r 192.168.220.11:80 -m -w 4
192.168.220.100/32
a cleanup
the end
";

#[test]
fn installed_as_in_the_readme_it_works_in_its_sandbox_and_a_stop_changes_no_kernel_state()
-> Result<()> {
    let host = tempfile::tempdir()?;
    let script = |name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guest_service");
        fs::read_to_string(path.join(name)).with_context(|| format!("reading {name}"))
    };
    lay_out(host.path())?;
    let visit = format!("{}{}", installation()?, script("visit.sh")?);
    fs::write(host.path().join("visit.sh"), visit)?;

    let finished = Boot::script(script("boot.sh")?)
        .kernel(Kernel::UserMode)
        .env("HOST", host.path().to_string_lossy())
        .timeout(Duration::from_secs(180))
        .run()?;

    let written = |name: &str| fs::read_to_string(host.path().join(name)).unwrap_or_default();
    let remarks = format!("{}{}", written("stderr"), finished.stderr);
    assert_eq!(written("stdout"), VISITED, "{remarks}");
    Ok(())
}

/// Creates a checkout with the built programs, and the configuration.
fn lay_out(checkout: &Path) -> Result<()> {
    let agent = std::env::var_os("LVS_AGENT");
    let agent = agent.context("LVS_AGENT names no lvs-agent; run `make test-reboot`")?;
    for directory in ["target/release", "dist"] {
        fs::create_dir_all(checkout.join(directory))?;
    }
    fs::copy(agent, checkout.join("target/release/lvs-agent"))?;
    let unit = include_str!("../../dist/lvs-agent.service");
    fs::write(checkout.join("dist/lvs-agent.service"), unit)?;
    fs::write(checkout.join("web.yaml"), CONFIGURATION)?;
    Ok(())
}

/// Returns the commands of the README's chapter, except the one that compiles.
fn installation() -> Result<String> {
    let (_, chapter) = README
        .split_once("\n## Install as a service\n\n```\n")
        .context("the README has no such chapter")?;
    let (commands, _) = chapter
        .split_once("```")
        .context("a code block has no end")?;
    let lines = commands.lines().filter(|line| !line.starts_with("cargo "));
    Ok(lines.map(|line| format!("{line}\n")).collect())
}
