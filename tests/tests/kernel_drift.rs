//! What others take away is put back; what others set is told and left.

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use lab::{Dump, Running, Site, scenery, virtual_service};

const VIPS: [&str; 2] = ["192.168.220.100", "fd00:220::100"];

fn at(address: &str) -> SocketAddr {
    SocketAddr::new(address.parse::<IpAddr>().unwrap(), 80)
}

fn service(fields: &str, endpoints: &[&str]) -> String {
    let endpoints: Vec<String> = endpoints
        .iter()
        .map(|address| format!("{{address: '{address}'}}"))
        .collect();
    let spec = format!(
        "addresses: [192.168.220.100, 'fd00:220::100'], {fields}, scheduler: {{name: rr}},
         ports: [{{name: t, port: 80}}, {{name: u, protocol: UDP, port: 80}}],
         backends: {{endpoints: [{}]}}",
        endpoints.join(", ")
    );
    virtual_service("web", &spec)
}

fn dr() -> String {
    service(
        "forwarding: DR",
        &[
            "192.168.220.132",
            "192.168.220.133",
            "fd00:220::132",
            "fd00:220::133",
        ],
    )
}

fn expect_service(site: &Site) -> Result<()> {
    VIPS.iter()
        .try_for_each(|vip| site.expect_both(at(vip), |_| at(vip)))
}

/// A site whose agents all run.
fn run(scenery: &str, yaml: &str) -> Result<(Site, Vec<Running>)> {
    let site = Site::lay_out(scenery, 80)?;
    site.write(yaml)?;
    let running = site
        .agents()
        .iter()
        .map(lab::Agent::start)
        .collect::<Result<_>>()?;
    Ok((site, running))
}

/// Runs commands on a host behind its agent's back, sees that they change the kernel, and awaits that it is as before.
fn expect_repair(site: &Site, running: &Running, host: &str, commands: &[&[&str]]) -> Result<()> {
    let host = site.host(host)?;
    let before = Dump::of(host)?;
    for command in commands {
        host.run(command)?;
        running.await_that(&format!("the repair of {command:?}"), || {
            Ok(before.difference(&Dump::of(host)?).is_empty())
        })?;
    }
    expect_service(site)
}

#[test]
fn a_deleted_ipvs_table_is_put_back() -> Result<()> {
    let (site, running) = run(scenery::DR, &dr())?;
    expect_service(&site)?;
    let director = site.host("director")?;
    let before = Dump::of(director)?;
    director.run(&["ipvsadm", "-C"])?;
    assert_eq!(director.ipvs()?, []);
    running[2].await_that("the table", || {
        Ok(before.difference(&Dump::of(director)?).is_empty())
    })?;
    expect_service(&site)
}

#[test]
fn a_deleted_destination_and_a_changed_service_are_put_back() -> Result<()> {
    let (site, running) = run(scenery::DR, &dr())?;
    let director = site.host("director")?;
    let before = Dump::of(director)?;
    director.run(&[
        "ipvsadm",
        "-d",
        "-t",
        "192.168.220.100:80",
        "-r",
        "192.168.220.132:80",
    ])?;
    director.run(&["ipvsadm", "-E", "-u", "192.168.220.100:80", "-s", "wlc"])?;
    director.run(&[
        "ipvsadm",
        "-e",
        "-t",
        "[fd00:220::100]:80",
        "-r",
        "[fd00:220::132]:80",
        "-g",
        "-w",
        "9",
    ])?;
    assert!(!before.difference(&Dump::of(director)?).is_empty());
    running[2].await_that("the table", || {
        Ok(before.difference(&Dump::of(director)?).is_empty())
    })?;
    expect_service(&site)
}

#[test]
fn a_deleted_vip_of_the_director_is_put_back() -> Result<()> {
    let (site, running) = run(scenery::DR, &dr())?;
    expect_repair(
        &site,
        &running[2],
        "director",
        &[
            &["ip", "addr", "del", "192.168.220.100/32", "dev", "eth1"],
            &["ip", "addr", "del", "fd00:220::100/128", "dev", "eth1"],
        ],
    )
}

#[test]
fn a_deleted_vip_of_a_real_server_is_put_back() -> Result<()> {
    let (site, running) = run(scenery::DR, &dr())?;
    expect_repair(
        &site,
        &running[0],
        "rs1",
        &[
            &["ip", "addr", "del", "192.168.220.100/32", "dev", "lo"],
            &["ip", "addr", "del", "fd00:220::100/128", "dev", "lo"],
        ],
    )
}

#[test]
fn an_interface_that_went_down_gets_its_ipv6_vip_back() -> Result<()> {
    let (site, running) = run(scenery::DR, &dr())?;
    let director = site.host("director")?;
    let vips = |dump: &Dump| {
        dump.lines_with("::100/128")
            .iter()
            .filter(|line| line.contains("inet6"))
            .count()
    };
    assert_eq!(vips(&Dump::of(director)?), 1);
    director.run(&["ip", "link", "set", "eth1", "down"])?;
    director.run(&["ip", "link", "set", "eth1", "up"])?;
    director.run(&[
        "ip",
        "addr",
        "replace",
        "fd00:220::137/64",
        "dev",
        "eth1",
        "nodad",
    ])?;
    running[2].await_that("the VIP", || Ok(vips(&Dump::of(director)?) == 1))?;
    director.run(&["ip", "route", "replace", "default", "via", "192.168.220.1"])?;
    expect_service(&site)
}

#[test]
fn a_deleted_tunnel_and_one_that_is_down_are_put_back() -> Result<()> {
    let yaml = service(
        "forwarding: TUN",
        &[
            "192.168.230.132",
            "192.168.230.133",
            "fd00:230::132",
            "fd00:230::133",
        ],
    );
    let (site, running) = run(scenery::TUN, &yaml)?;
    expect_service(&site)?;
    let host = site.host("rs1")?;
    let links = host.run(&["ip", "-o", "link", "show"])?;
    let tunnels: Vec<&str> = links
        .lines()
        .filter_map(|line| {
            line.split([' ', '@', ':'])
                .find(|word| word.starts_with("lvs-"))
        })
        .collect();
    assert_eq!(tunnels.len(), 3, "{links}");
    let furniture = || -> Result<Vec<String>> {
        let dump = Dump::of(host)?;
        let mut lines: Vec<String> = dump
            .lines_with("lvs-")
            .into_iter()
            .filter(|line| {
                !line.contains("link-netnsid")
                    && (line.contains("inet ")
                        || line.contains("rp_filter")
                        || line.contains("mtu"))
            })
            .map(|line| {
                line.split_whitespace()
                    .skip_while(|word| !word.starts_with("lvs-"))
                    .collect::<Vec<_>>()
                    .join(" ")
            })
            .collect();
        lines.sort();
        Ok(lines)
    };
    let before = furniture()?;
    for tunnel in tunnels {
        host.run(&["ip", "link", "del", tunnel])?;
        running[0].await_that(&format!("the tunnel {tunnel}"), || {
            Ok(furniture()? == before)
        })?;
        host.run(&["ip", "link", "set", tunnel, "down"])?;
        running[0].await_that(&format!("{tunnel} to be up"), || Ok(furniture()? == before))?;
    }
    expect_service(&site)
}

#[test]
fn a_deleted_rule_and_a_deleted_route_are_put_back() -> Result<()> {
    let yaml = service(
        "forwarding: NAT, nat: {returnPath: PolicyRoute, gateways: [192.168.100.10, 'fd00:100::10']}",
        &[
            "192.168.100.11",
            "192.168.100.12",
            "fd00:100::11",
            "fd00:100::12",
        ],
    );
    let (site, running) = run(scenery::NAT_WITH_ANOTHER_GATEWAY, &yaml)?;
    let host = site.host("rs1")?;
    let before = Dump::of(host)?;
    for family in ["-4", "-6"] {
        let rules = host.run(&["ip", family, "rule", "show"])?;
        let ours = rules
            .lines()
            .find(|line| line.contains("lookup 76"))
            .expect("no rule of ours");
        let selector: Vec<&str> = ours
            .split_once(':')
            .expect("a rule has a colon")
            .1
            .split_whitespace()
            .collect();
        let table = *selector.last().expect("a rule ends with its table");
        let delete_rule: Vec<&str> = ["ip", family, "rule", "del"]
            .into_iter()
            .chain(selector.clone())
            .collect();
        host.run(&delete_rule)?;
        running[0].await_that("the rule", || {
            Ok(before.difference(&Dump::of(host)?).is_empty())
        })?;
        host.run(&["ip", family, "route", "flush", "table", table])?;
        running[0].await_that("the route", || {
            Ok(before.difference(&Dump::of(host)?).is_empty())
        })?;
    }
    VIPS.iter().try_for_each(|vip| {
        site.expect_both(at(vip), |server| {
            SocketAddr::new(site.address(server, at(vip).ip()).unwrap(), 80)
        })
    })
}

#[test]
fn a_sysctl_that_another_program_sets_is_told_and_not_fought() -> Result<()> {
    let (site, running) = run(scenery::DR, &dr())?;
    let host = site.host("rs1")?;
    assert_eq!(host.sysctl("net.ipv4.conf.all.arp_announce")?, "2");
    let mark = running[0].mark();
    host.set_sysctl("net.ipv4.conf.all.arp_announce", "1")?;
    running[0].reload()?;
    running[0].await_log(
        mark,
        "net.ipv4.conf.all.arp_announce was set to 2 here and another program has set it to 1; it is left so",
    )?;
    // Later passes leave it too.
    let mark = running[0].mark();
    host.run(&["ip", "addr", "del", "192.168.220.100/32", "dev", "lo"])?;
    running[0].await_log(mark, "programmed")?;
    assert_eq!(host.sysctl("net.ipv4.conf.all.arp_announce")?, "1");
    // Nor is the value of the other program taken away by cleanup.
    drop(running);
    site.agent("rs1")?.cleanup()?;
    assert_eq!(host.sysctl("net.ipv4.conf.all.arp_announce")?, "1");
    assert_eq!(host.sysctl("net.ipv4.conf.all.arp_ignore")?, "0");
    Ok(())
}
