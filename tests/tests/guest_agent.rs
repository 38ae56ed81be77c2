//! The agent after a power cut, on a kernel without IPVS, and where modules of tunnels are loaded.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use lab::{Boot, scenery, virtual_service};
use tempfile::TempDir;

/// How long a guest may take to boot and to program its machines.
const TIMEOUT: Duration = Duration::from_secs(120);

/// The functions of the scripts: the agent of a machine, servers, and a client that sends requests to both VIPs.
const PRELUDE: &str = r#"
agent() { machine=$1 verb=$2; shift 2
  ip netns exec "$machine" "$LVS_AGENT" "$verb" "$@" --node-name "$machine" --state-dir "$STATE/$machine"; }
converge() { for machine in rs1 rs2 director; do agent $machine run --once --config "$STATE/site.yaml"; done; }
respond() { for machine in rs1 rs2; do ip netns exec $machine "$LAB" respond --name $machine &
  until ip netns exec $machine ss -6Hlun | grep -q ':80 '; do :; done; done; }
ask() { for vip in 192.168.220.100:80 '[fd00:220::100]:80'; do for protocol in tcp udp; do
  ip netns exec client "$LAB" fetch --over $protocol --count 4 --tally "$vip"; done; done; }
"#;

/// A directory of the host with the topology of TUN, the configuration of every machine, and the agents' state.
fn state() -> Result<TempDir> {
    let state = tempfile::tempdir()?;
    let spec =
        "addresses: [192.168.220.100, 'fd00:220::100'], forwarding: TUN, scheduler: {name: rr},
         ports: [{name: t, port: 80}, {name: u, protocol: UDP, port: 80}],
         backends: [{address: 192.168.230.132}, {address: 192.168.230.133},
                                {address: 'fd00:230::132'}, {address: 'fd00:230::133'}]";
    fs::write(state.path().join("site.yaml"), virtual_service("web", spec))?;
    fs::write(state.path().join("network.yaml"), scenery::TUN)?;
    Ok(state)
}

/// A guest that lays out the topology and runs a script.
fn guest(state: &Path, script: &str) -> Result<Boot> {
    let lab = env!("CARGO_BIN_EXE_lab");
    let agent = std::env::var("LVS_AGENT")
        .context("LVS_AGENT names no lvs-agent; run `make test-reboot`")?;
    let network = state.join("network.yaml").display().to_string();
    Ok(Boot::new(lab)
        .args(["lay-out", &network, "--", "sh", "-e", "-c"])
        .args([format!("{PRELUDE}{script}")])
        .env("LAB", lab)
        .env("LVS_AGENT", agent)
        .env("STATE", state.display().to_string())
        .current_dir(state))
}

/// Both servers answered four requests between them, over both protocols to both VIPs.
const BOTH_ANSWERED: &str = "2 rs1\n2 rs2\n2 rs1\n2 rs2\n2 rs1\n2 rs2\n2 rs1\n2 rs2\n";

#[test]
fn after_a_power_cut_the_ledger_is_void_and_everything_is_programmed_again() -> Result<()> {
    let state = state()?;
    let first = guest(
        state.path(),
        "converge; respond; ask; agent director run --config $STATE/site.yaml & echo ready; wait",
    )?
    .start()?;
    first.wait_for_output("ready", TIMEOUT)?;
    assert!(first.stdout().contains(BOTH_ANSWERED), "{}", first.stdout());
    first.pull_the_plug();
    let ledger = fs::read_to_string(state.path().join("director/ledger.json"))?;
    assert!(ledger.contains("192.168.220.100"), "{ledger}");

    let second = guest(
        state.path(),
        "for machine in rs1 rs2 director; do agent $machine cleanup --dry-run; done
         echo nothing is owned
         converge; respond; ask
         agent director plan --config $STATE/site.yaml
         for machine in rs1 rs2 director; do agent $machine cleanup > /dev/null; ip netns exec $machine ip -o addr; done
         ip netns exec director ipvsadm -Sn",
    )?
    .run()?;
    let (owned, rest) = second
        .stdout
        .split_once("nothing is owned\n")
        .with_context(|| second.stderr.clone())?;
    assert_eq!(owned, "");
    let left = rest
        .strip_prefix(BOTH_ANSWERED)
        .with_context(|| format!("{rest}{}", second.stderr))?;
    assert!(
        left.contains("192.168.220.137/24") && !left.contains("::100"),
        "{left}"
    );
    assert!(
        !left.contains("192.168.220.100") && !left.contains("lvs-"),
        "{left}"
    );
    Ok(())
}

#[test]
fn without_ipvs_a_director_reports_it_and_a_real_server_works() -> Result<()> {
    let state = state()?;
    let finished = guest(
        state.path(),
        "modprobe -r xt_ipvs
         for round in 1 2 3; do for module in $(lsmod | grep -o '^ip_vs[a-z_0-9]*'); do rmmod $module 2>/dev/null || true; done; done
         modprobe=$(cat /proc/sys/kernel/modprobe)
         echo /bin/false > /proc/sys/kernel/modprobe
         test ! -e /proc/net/ip_vs
         agent rs1 run --once --config $STATE/site.yaml
         agent rs1 plan --config $STATE/site.yaml
         echo the real server is ready
         agent director run --once --config $STATE/site.yaml || echo director: $?
         agent director show > /dev/null
         test ! -e /proc/net/ip_vs
         echo $modprobe > /proc/sys/kernel/modprobe
         agent director run --once --config $STATE/site.yaml
         test -e /proc/net/ip_vs
         echo the director is ready",
    )?
    .run()?;
    assert_eq!(
        finished.stdout, "the real server is ready\ndirector: 1\nthe director is ready\n",
        "{}",
        finished.stderr
    );
    let sentence = "this kernel has no IPVS: load it with `modprobe ip_vs`, or install the package with the kernel's modules";
    assert!(finished.stderr.contains(sentence), "{}", finished.stderr);
    Ok(())
}

#[test]
fn the_kernel_loads_a_tunnel_when_a_service_needs_it_and_the_agent_has_no_right_to_load_modules()
-> Result<()> {
    let state = state()?;
    let finished = guest(
        state.path(),
        "limited() { machine=$1; shift
           ip netns exec $machine setpriv --bounding-set=-all,+net_admin,+net_raw \"$LVS_AGENT\" run --once \"$@\" \
             --node-name $machine --state-dir $STATE/$machine; }
         for module in fou6 fou ip6_gre ip_gre gre ip6_tunnel sit ipip; do modprobe -r $module; done
         sed 's/forwarding: TUN/forwarding: DR/' $STATE/site.yaml > $STATE/dr.yaml
         sed 's/forwarding: TUN/forwarding: TUN, tunnel: {type: GUE, port: 5555}/' $STATE/site.yaml > $STATE/gue.yaml
         limited rs1 --config $STATE/dr.yaml
         lsmod | grep -E '^(fou|gre|ip6_gre|ip6_tunnel|ip_gre|ipip|sit) ' || echo DR: no tunnel
         limited rs1 --config $STATE/site.yaml
         lsmod | grep -oE '^(ipip|sit|ip6_tunnel|fou) ' | sort
         limited rs2 --config $STATE/gue.yaml || echo GUE: $?
         modprobe fou
         limited rs2 --config $STATE/gue.yaml
         echo GUE: done",
    )?
    .run()?;
    assert_eq!(
        finished.stdout, "DR: no tunnel\nip6_tunnel \nipip \nsit \nGUE: 1\nGUE: done\n",
        "{}",
        finished.stderr
    );
    let sentence = "the kernel cannot decapsulate GUE without the module fou, which it does not load by itself: run `modprobe fou`";
    assert!(finished.stderr.contains(sentence), "{}", finished.stderr);
    Ok(())
}
