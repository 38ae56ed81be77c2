//! The lab itself on a kernel with IPVS: networks carry traffic, and nothing is left afterwards.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::Result;
use lab::{Boot, Client, Exit, Lab, Protocol, Responder, Topology, wait_until};

/// Two networks with a router between them, and a server on each.
const ROUTED: &str = r#"
networks: [outer, inner]
hosts:
  client:
    links: {eth0: {network: outer, addresses: [192.168.220.50/24, "fd00:220::50/64"]}}
    routes: {default: [192.168.220.1, "fd00:220::1"]}
  router:
    forwarding: true
    links:
      eth0: {network: inner, addresses: [192.168.100.1/24, "fd00:100::1/64"]}
      eth1: {network: outer, addresses: [192.168.220.1/24, "fd00:220::1/64"]}
  near:
    links: {eth0: {network: outer, addresses: [192.168.220.60/24, "fd00:220::60/64"]}}
  far1:
    links:
      eth0: {network: inner, addresses: [192.168.100.11/24, "fd00:100::11/64"], mtu: 1400}
      lo: {addresses: [192.168.33.1/32, "fd00:33::1/128"]}
    routes: {default: [192.168.100.1, "fd00:100::1"]}
    sysctls: {net.ipv4.conf.eth0.arp_ignore: 1, net.ipv4.conf.all.arp_announce: 2}
  far2:
    links: {eth0: {network: inner, addresses: [192.168.100.12/24, "fd00:100::12/64"]}}
    routes: {default: [192.168.100.1, "fd00:100::1"]}
"#;

fn routed() -> Result<Lab> {
    lab::require_ipvs()?;
    let start = Instant::now();
    let lab = Lab::lay_out(&ROUTED.parse::<Topology>()?)?;
    println!("five hosts laid out in {:?}", start.elapsed());
    Ok(lab)
}

#[test]
fn a_bridge_and_a_router_carry_every_protocol_and_family() -> Result<()> {
    let lab = routed()?;
    let _near = lab.host("near")?.respond(80)?;
    let _far = lab.host("far1")?.respond(80)?;
    for (server, name) in [
        ("192.168.220.60:80", "near"),
        ("[fd00:220::60]:80", "near"),
        ("192.168.100.11:80", "far1"),
        ("[fd00:100::11]:80", "far1"),
    ] {
        let server: SocketAddr = server.parse()?;
        let client: IpAddr = if server.is_ipv4() {
            "192.168.220.50"
        } else {
            "fd00:220::50"
        }
        .parse()?;
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let answer = Client::on(lab.host("client")?)
                .over(protocol)
                .fetch(server)?;
            assert_eq!(
                (answer.server.as_str(), answer.peer.ip(), answer.local),
                (name, client, server),
                "{protocol}"
            );
        }
    }
    Ok(())
}

#[test]
fn a_datagram_is_answered_from_the_address_it_was_sent_to() -> Result<()> {
    let lab = routed()?;
    let far = lab.host("far1")?;
    let _far = far.respond(80)?;
    lab.host("router")?.run(&[
        "ip",
        "route",
        "add",
        "192.168.33.1",
        "via",
        "192.168.100.11",
    ])?;
    lab.host("router")?
        .run(&["ip", "route", "add", "fd00:33::1", "via", "fd00:100::11"])?;
    // A connected socket drops answers from any other address.
    for server in ["192.168.33.1:80", "[fd00:33::1]:80"] {
        let answer = Client::on(lab.host("client")?).udp().fetch(server)?;
        assert_eq!(answer.local, server.parse()?);
    }
    Ok(())
}

#[test]
fn sctp_is_carried() -> Result<()> {
    let lab = routed()?;
    let address = "192.168.220.60:9".parse()?;
    let near = lab.host("near")?;
    let _near = near.in_namespace(|| Responder::start("near", [(Protocol::Sctp, address)]))??;
    let answer = Client::on(lab.host("client")?)
        .over(Protocol::Sctp)
        .fetch(address)?;
    assert_eq!(answer.local, address);
    Ok(())
}

#[test]
fn a_connection_stays_open_and_keeps_its_source() -> Result<()> {
    let lab = routed()?;
    let _near = lab.host("near")?.respond(80)?;
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let client = Client::on(lab.host("client")?)
            .over(protocol)
            .source_port(4321);
        let mut connection = client.connect("192.168.220.60:80")?;
        for _ in 0..3 {
            assert_eq!(connection.ask()?.peer, "192.168.220.50:4321".parse()?);
        }
        assert_eq!(connection.local(), "192.168.220.50:4321".parse()?);
    }
    Ok(())
}

#[test]
fn answers_are_counted_by_server() -> Result<()> {
    let lab = routed()?;
    let _near = lab.host("near")?.respond(80)?;
    let counts = Client::on(lab.host("client")?).fetch_many("192.168.220.60:80", 20)?;
    assert_eq!(counts, [("near".to_owned(), 20)].into());
    Ok(())
}

#[test]
fn a_browser_gets_a_page() -> Result<()> {
    let lab = routed()?;
    let _near = lab.host("near")?.respond(80)?;
    let page = lab.host("client")?.run(&[
        "curl",
        "--silent",
        "--max-time",
        "3",
        "http://192.168.220.60/",
    ])?;
    assert_eq!(page, "near saw 192.168.220.50 at 192.168.220.60:80\n");
    Ok(())
}

#[test]
fn a_stopped_responder_does_not_answer() -> Result<()> {
    let lab = routed()?;
    let client = Client::on(lab.host("client")?);
    drop(lab.host("near")?.respond(80)?);
    assert!(client.fetch("192.168.220.60:80").is_err());
    Ok(())
}

/// Checks the purpose of `lab/guest/xstate.c`: each thread keeps its vector registers across context switches.
#[test]
fn threads_keep_their_vector_registers_apart() -> Result<()> {
    lab::require_ipvs()?;
    let copy_often = |byte: u8| {
        let from = vec![byte; 4096];
        let mut to = vec![0; 4096];
        (0..100_000).all(|round| {
            to.fill(!byte);
            if round % 16 == 0 {
                std::thread::yield_now();
            }
            to.copy_from_slice(std::hint::black_box(&from));
            to == from
        })
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (1..=3)
            .map(|byte| scope.spawn(move || copy_often(byte)))
            .collect();
        for thread in threads {
            assert!(thread.join().is_ok_and(|kept| kept));
        }
    });
    Ok(())
}

#[test]
fn a_host_has_settings_links_and_a_view_of_its_own() -> Result<()> {
    let lab = routed()?;
    let far = lab.host("far1")?;
    assert_eq!(far.sysctl("net.ipv4.conf.eth0.arp_ignore")?, "1");
    assert_eq!(far.sysctl("net.ipv4.conf.all.arp_announce")?, "2");
    assert_eq!(far.run(&["cat", "/sys/class/net/eth0/mtu"])?, "1400\n");
    assert_eq!(far.run(&["cat", "/proc/sys/net/ipv4/ip_forward"])?, "0\n");
    assert_eq!(lab.host("router")?.sysctl("net.ipv4.ip_forward")?, "1");
    far.set_sysctl("net.ipv4.vs.conntrack", "1")?;
    assert_eq!(far.sysctl("net.ipv4.vs.conntrack")?, "1");
    assert_eq!(lab.host("far2")?.sysctl("net.ipv4.vs.conntrack")?, "0");
    Ok(())
}

#[test]
fn a_failed_command_shows_its_standard_error() -> Result<()> {
    let lab = routed()?;
    let error = lab
        .host("client")?
        .run(&["cat", "/nowhere"])
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("`cat /nowhere` on client") && error.contains("No such file"),
        "{error}"
    );
    Ok(())
}

#[test]
fn several_labs_can_exist_at_once() -> Result<()> {
    let (one, two) = (routed()?, routed()?);
    let _near = one.host("near")?.respond(80)?;
    assert!(
        Client::on(one.host("client")?)
            .fetch("192.168.220.60:80")
            .is_ok()
    );
    assert!(
        Client::on(two.host("client")?)
            .fetch("192.168.220.60:80")
            .is_err()
    );
    Ok(())
}

#[test]
fn teardown_leaves_no_namespace_and_no_process() -> Result<()> {
    let lab = routed()?;
    let names: Vec<String> = lab
        .hosts()
        .map(|host| host.namespace().to_owned())
        .collect();
    let client = lab.host("client")?;
    // One process of the lab, and one that the lab does not know.
    let known = client.spawn(client.command("sleep").arg("1000"))?;
    let mut unknown = client.command("sleep").arg("1001").spawn()?;
    // `ip netns exec` has entered the namespace when it has replaced itself with the program.
    for process in [known.id(), unknown.id()] {
        let name = format!("/proc/{process}/comm");
        wait_until("the processes to start", Duration::from_secs(5), || {
            Ok((fs::read_to_string(&name)? == "sleep\n").then_some(()))
        })?;
    }
    let start = Instant::now();
    drop(lab);
    println!("five hosts torn down in {:?}", start.elapsed());
    wait_until(
        "the end of the unknown process",
        Duration::from_secs(5),
        || Ok(unknown.try_wait()?),
    )?;
    for name in names {
        assert!(!fs::exists(format!("/run/netns/{name}"))?, "{name}");
    }
    Ok(())
}

#[test]
fn teardown_follows_a_panic() {
    let outcome = std::panic::catch_unwind(|| {
        let lab = routed().unwrap();
        let name = lab.host("client").unwrap().namespace().to_owned();
        std::panic::panic_any(name);
    });
    let name = outcome.unwrap_err().downcast::<String>().unwrap();
    assert!(!fs::exists(format!("/run/netns/{name}")).unwrap());
}

#[test]
fn a_kernel_that_has_ipvs_is_used_as_it_is() -> Result<()> {
    lab::require_ipvs()?;
    let script = "ip -brief link | wc -l; ls /run/netns 2>/dev/null | wc -l; ipvsadm -A -t 192.0.2.1:80; kill -9 $$";
    let lab = routed()?;
    let finished = Boot::new("sh").args(["-c", script]).start()?.wait()?;
    assert_eq!(finished.exit, Exit::Signal(9), "{}", finished.stderr);
    // The guest has its own network and mount namespaces: it sees none of the lab's namespaces, and its service
    // is not visible here.
    assert!(finished.stdout.ends_with("\n0\n"), "{}", finished.stdout);
    assert!(!fs::read_to_string("/proc/net/ip_vs")?.contains("C0000201:0050"));
    drop(lab);
    Ok(())
}
