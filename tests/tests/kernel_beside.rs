//! What other programs have beside the agent costs it nothing: large routing tables and many sockets. A lock that they hold delays it.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    thread::sleep,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use lab::{Agent, Client, Dump, Host, Running, Site, scenery, virtual_service};
use lvs_model::{RouteAnswers, Tables};

/// As many routes of one family as a dump would have to carry.
const ROUTES: usize = 20_000;
/// More bytes than those of a main table, of each family, that are read before it turns out to be large.
const STARTS_OF_DUMPS: u64 = 200_000;
/// As many connections, each of which has two sockets here.
const CONNECTIONS: usize = 4_000;

fn dr() -> String {
    let spec = "addresses: [192.168.220.100, 'fd00:220::100'], forwarding: DR, scheduler: {name: rr}, ports: [{port: 80}],
         backends: [{address: 192.168.220.132}, {address: 192.168.220.133}, {address: 'fd00:220::132'}]";
    virtual_service("web", spec)
}

/// Adds a device that counts the netlink messages of its namespace.
fn count_netlink(host: &Host) -> Result<()> {
    host.run(&["ip", "link", "add", "nlmon0", "type", "nlmon"])?;
    host.run(&["ip", "link", "set", "nlmon0", "up"])?;
    Ok(())
}

/// The bytes of all netlink messages of a host's namespace so far.
fn netlink_bytes(host: &Host) -> Result<u64> {
    let devices = host.run(&["cat", "/proc/net/dev"])?;
    let mut lines = devices.lines().map(str::trim);
    let line = lines.find_map(|line| line.strip_prefix("nlmon0:"));
    let received = line.and_then(|line| line.split_whitespace().next());
    Ok(received.context("no nlmon0")?.parse()?)
}

/// The bytes that go through netlink while a new agent reads everything.
fn bytes_of_a_plan(agent: &Agent) -> Result<u64> {
    let before = netlink_bytes(agent.host())?;
    ensure!(agent.plan()?.is_empty(), "the plan has steps");
    Ok(netlink_bytes(agent.host())? - before)
}

/// Adds or deletes the routes of a full table of each family.
fn change_routes(host: &Host, verb: &str) -> Result<()> {
    for family in ["-4", "-6"] {
        let route = |index: usize| match family {
            "-4" => format!("10.{}.{}.0/24 via 192.168.220.1", index / 256, index % 256),
            _ => format!("2001:db8:{index:x}::/48 via fd00:220::1"),
        };
        let commands = (0..ROUTES).map(|index| format!("route {verb} {}\n", route(index)));
        let file = std::env::temp_dir().join(format!("routes-{}", std::process::id()));
        fs::write(&file, commands.collect::<String>())?;
        let path = file.to_str().context("the path is not UTF-8")?;
        host.run(&["ip", family, "-batch", path])?;
    }
    Ok(())
}

#[test]
fn a_large_foreign_routing_table_is_not_read() -> Result<()> {
    let site = Site::lay_out(scenery::DR, 80)?;
    site.converge(&dr())?;
    for name in ["director", "rs1"] {
        let agent = site.agent(name)?;
        count_netlink(agent.host())?;
        let alone = bytes_of_a_plan(agent)?;
        change_routes(agent.host(), "add")?;

        let beside = bytes_of_a_plan(agent)?;

        ensure!(
            beside < alone + STARTS_OF_DUMPS,
            "{name}: {alone} bytes alone, {beside} bytes beside {ROUTES} routes of each family"
        );
    }
    Ok(())
}

fn passes(running: &Running) -> usize {
    running.log().matches("the network changed").count()
}

/// The number of passes after changes of the network, up to that for a new policy rule: its notice follows all earlier ones.
fn passes_until_a_rule(running: &Running, host: &Host, priority: &str) -> Result<usize> {
    let mark = running.mark();
    host.run(&["ip", "rule", "add", "priority", priority, "lookup", "1001"])?;
    running.await_log(mark, "the network changed change=Rules")?;
    Ok(passes(running))
}

#[test]
fn changes_of_foreign_routes_cause_no_pass_unless_they_cover_an_address_of_a_service() -> Result<()>
{
    let site = Site::lay_out(scenery::DR, 80)?;
    site.write(&dr())?;
    let director = site.agent("director")?.clone().with("LVS_LOG", "debug");
    let running = director.start()?;
    let host = director.host();
    running.await_log(0, "ready")?;
    let before = passes_until_a_rule(&running, host, "1001")?;

    change_routes(host, "add")?;
    change_routes(host, "del")?;

    let after = passes_until_a_rule(&running, host, "1002")?;
    // On a busy machine, notifications are lost; then the agent must read again.
    let lost = running
        .log()
        .matches("the network changed change=Lost")
        .count();
    ensure!(after <= before + 1 + lost, "{}", running.log());
    // A more specific route takes a real server off the director's network.
    let mark = running.mark();
    let hop = ["192.168.220.132/32", "via", "192.168.220.1"];
    host.run(&[&["ip", "route", "add"], hop.as_slice()].concat())?;
    running.await_log(
        mark,
        "not on any network of this machine at the moment: real server 192.168.220.132",
    )?;
    host.run(&[&["ip", "route", "del"], hop.as_slice()].concat())?;
    running.await_log(mark, "all is well")
}

#[test]
fn a_change_of_our_nft_table_causes_a_pass_and_those_of_others_cause_none() -> Result<()> {
    let spec = "addresses: [192.168.220.100], forwarding: NAT, nat: {returnPath: Masquerade}, scheduler: {name: rr},
         ports: [{port: 80}], backends: [{address: 192.168.220.132}, {address: 192.168.220.133}]";
    let site = Site::lay_out(scenery::DR, 80)?;
    site.write(&virtual_service("web", spec))?;
    let director = site.agent("director")?.clone().with("LVS_LOG", "debug");
    let running = director.start()?;
    let host = director.host();
    // From its first pass with masquerading on, the agent watches nftables, and reads once more.
    running.await_log(0, "the network changed change=Lost")?;
    running.await_log(0, "ready")?;
    let before = passes_until_a_rule(&running, host, "1001")?;

    let tables = (0..200).map(|index| format!("add table bridge foreign{index};"));
    host.run(&["nft", &tables.collect::<String>()])?;
    let mark = running.mark();
    host.run(&["nft", "add table bridge lvs-operator"])?;

    running.await_log(mark, "the network changed change=Masquerade")?;
    ensure!(passes(&running) == before + 1, "{}", running.log());
    Ok(())
}

/// Opens connections in the present network namespace.
fn connect(count: usize) -> Result<Vec<(TcpStream, TcpStream)>> {
    let listener = TcpListener::bind("127.0.0.1:4000")?;
    let server: SocketAddr = listener.local_addr()?;
    let mut connections = Vec::with_capacity(count);
    for _ in 0..count {
        let client = TcpStream::connect(server)?;
        connections.push((client, listener.accept()?.0));
    }
    Ok(connections)
}

/// The bytes that a process has read so far, netlink aside.
fn bytes_read(running: &Running) -> Result<u64> {
    let io = fs::read_to_string(format!("/proc/{}/io", running.id()))?;
    let mut lines = io.lines();
    let read = lines.find_map(|line| line.strip_prefix("rchar: "));
    Ok(read.context("no rchar")?.parse()?)
}

#[test]
fn the_sockets_of_other_programs_are_not_read() -> Result<()> {
    let site = Site::lay_out(scenery::DR, 8080)?;
    site.write(&dr())?;
    let rs1 = site.agent("rs1")?;
    let host = rs1.host();
    count_netlink(host)?;
    let running = rs1.start()?;
    let bytes_of_a_pass = || -> Result<u64> {
        let before = bytes_read(&running)? + netlink_bytes(host)?;
        let mark = running.mark();
        host.run(&["ip", "addr", "del", "192.168.220.100/32", "dev", "lo"])?;
        running.await_log(mark, "programmed")?;
        Ok(bytes_read(&running)? + netlink_bytes(host)? - before)
    };
    bytes_of_a_pass()?;
    let alone = bytes_of_a_pass()?;
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, 20_000, 20_000)?;
    let _connections = host.in_namespace(|| connect(CONNECTIONS))??;

    let beside = bytes_of_a_pass()?;

    ensure!(
        beside < alone + alone / 10,
        "{alone} bytes alone, {beside} bytes beside {CONNECTIONS} connections"
    );
    ensure!(
        running
            .log()
            .contains("nothing listens on TCP 192.168.220.100:80"),
        "{}",
        running.log()
    );
    Ok(())
}

/// Routes of many kinds; a small table with them answers for many addresses.
const KINDS_OF_ROUTES: &str = "
addr add 10.2.0.1/24 dev eth1
link add down0 type dummy
link set down0 up
route add default via 192.168.220.1 metric 200
route add default via 192.168.220.2 metric 100
route add 10.3.0.0/16 via 192.168.220.1
route add 10.3.4.0/24 dev eth1
route add 10.3.4.5/32 via 10.2.0.9
route add blackhole 10.4.0.0/16
route add 10.4.1.0/24 via 192.168.220.1
route add unreachable 10.5.0.0/16
route add local 10.6.0.0/24 dev eth1
route add 10.7.0.0/24 via 192.168.220.3 metric 7
-6 route add default via fd00:220::1 metric 5
-6 route add 2001:db8:3::/48 via fd00:220::2
-6 route add unreachable 2001:db8:3:4::/64
";
/// The routes that a small table does not answer for, each with its own case.
const UNUSABLE: [&str; 4] = [
    "route add 10.8.0.0/16 nexthop via 192.168.220.1 nexthop via 192.168.220.2",
    "route add 10.9.0.0/16 tos 0x10 via 192.168.220.1",
    "rule add to 10.3.0.0/16 lookup 99",
    "link set eth1 carrier off",
];

/// Addresses in and beside the destinations of these routes.
fn addresses() -> BTreeSet<IpAddr> {
    let v4 = (0..11_u8).flat_map(|second| {
        let ends = [0, 1, 5, 9, 255];
        let thirds = [0, 1, 4, 255];
        let both = thirds
            .into_iter()
            .flat_map(move |third| ends.map(|end| (third, end)));
        both.map(move |(third, end)| IpAddr::from([10, second, third, end]))
    });
    let v6 = (0..80_u16).map(|number| {
        let [third, fourth] = [number % 8, number / 8];
        IpAddr::from([0x2001, 0xdb8, third, fourth, 0, 0, 0, 1])
    });
    let own = [
        "192.168.220.131",
        "192.168.220.255",
        "127.0.0.1",
        "224.0.0.1",
        "fd00:220::1",
        "::1",
    ];
    let own = own.iter().filter_map(|address| address.parse().ok());
    v4.chain(v6).chain(own).collect()
}

#[test]
fn the_routes_to_many_addresses_are_those_that_the_kernel_chooses_for_each() -> Result<()> {
    let site = Site::lay_out(scenery::DR, 80)?;
    let host = site.agent("director")?.host();
    for command in KINDS_OF_ROUTES
        .lines()
        .chain(UNUSABLE)
        .filter(|line| !line.is_empty())
    {
        let words: Vec<&str> = std::iter::once("ip").chain(command.split(' ')).collect();
        let is_optional = command.contains("carrier");
        if let Err(error) = host.run(&words)
            && !is_optional
        {
            return Err(error);
        }
        let (at_once, each) = host.in_namespace(|| routes_to(&addresses()))??;
        for (address, route) in &each {
            ensure!(
                at_once.get(address) == Some(route),
                "after `{command}`, {address}: {:?}, and alone {route:?}",
                at_once.get(address)
            );
        }
        ensure!(each.len() > 300 && at_once.len() == each.len());
    }
    Ok(())
}

#[test]
fn the_gateways_of_a_small_main_table_are_known_and_those_of_a_large_one_do_no_harm() -> Result<()>
{
    let site = Site::lay_out(scenery::DR, 80)?;
    let host = site.agent("director")?.host();
    for route in [
        "10.20.0.0/16 via 192.168.220.7",
        "10.21.0.0/16 nexthop via 192.168.220.8 nexthop via 192.168.220.9",
        "blackhole 10.22.0.0/16",
        "10.23.0.0/16 via 192.168.220.10 table 99",
        "2001:db8:ffff::/48 via fd00:220::7",
    ] {
        let words: Vec<&str> = route.split(' ').collect();
        host.run(&[&["ip", "route", "add"], words.as_slice()].concat())?;
    }
    let found = host.in_namespace(gateways)??;
    for gateway in [
        "192.168.220.7",
        "192.168.220.8",
        "192.168.220.9",
        "fd00:220::7",
    ] {
        ensure!(found.contains(&gateway.parse()?), "{gateway}: {found:?}");
    }
    ensure!(!found.contains(&"192.168.220.10".parse()?), "{found:?}");

    change_routes(host, "add")?;

    ensure!(host.in_namespace(gateways)??.is_empty());
    Ok(())
}

/// The gateways of the present network namespace.
fn gateways() -> Result<BTreeSet<IpAddr>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut kernel = lvs_kernel::Kernel::connect()?;
        Ok(kernel.observe_network(&Tables::All).await?.gateways)
    })
}

/// The routes to addresses, asked for at once and one by one.
fn routes_to(addresses: &BTreeSet<IpAddr>) -> Result<(RouteAnswers, RouteAnswers)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut kernel = lvs_kernel::Kernel::connect()?;
        kernel.observe_network(&Tables::All).await?;
        let at_once = kernel.routes_to(addresses).await?;
        let mut each = RouteAnswers::new();
        for address in addresses {
            each.extend(kernel.routes_to(&[*address].into()).await?);
        }
        Ok((at_once, each))
    })
}

/// Takes the lock of iptables as another program does. It is free again once the file is dropped.
fn lock_iptables() -> Result<File> {
    let path = "/run/xtables.lock";
    let file = File::options().create(true).append(true).open(path)?;
    file.lock().context("the lock of iptables is not free")?;
    Ok(file)
}

fn masqueraded(ports: &[u16]) -> String {
    let ports: Vec<String> = ports
        .iter()
        .map(|port| format!("{{port: {port}}}"))
        .collect();
    let spec = format!(
        "addresses: [192.168.220.100, 'fd00:220::100'], forwarding: NAT, nat: {{returnPath: Masquerade}}, ports: [{}],
         backends: [{{address: 192.168.220.132}}, {{address: 192.168.220.133}}, {{address: 'fd00:220::132'}}]",
        ports.join(", ")
    );
    virtual_service("web", &spec)
}

/// The rules that masquerade this port, of both families.
fn rules_of(director: &Host, port: u16) -> Result<usize> {
    let match_ = format!("--ctorigdstport {port} -j MASQUERADE");
    Ok(Dump::of(director)?.lines_with(&match_).len())
}

#[test]
fn a_lock_of_iptables_that_another_program_holds_delays_a_change_and_removes_nothing() -> Result<()>
{
    let mut site = Site::lay_out(scenery::DR, 80)?;
    for port in [81, 82] {
        site.respond(port)?;
    }
    let before = site.dumps()?;
    site.write(&masqueraded(&[80]))?;
    let running = site.agent("director")?.start()?;
    let director = site.host("director")?;
    if director
        .run(&["nft", "list", "table", "inet", "lvs-operator"])
        .is_ok()
    {
        println!("this kernel needs no iptables");
        return Ok(());
    }
    let is_there = |port| Ok(rules_of(director, port)? == 2);
    ensure!(is_there(80)?, "{}", running.log());
    let near = Client::on(site.host("near")?);

    // Shorter than the agent waits for the lock.
    let lock = lock_iptables()?;
    site.write(&masqueraded(&[80, 81]))?;
    sleep(Duration::from_secs(2));
    ensure!(!is_there(81)?, "iptables did not need the lock");
    drop(lock);
    running.await_that("the rules of port 81", || is_there(81))?;
    ensure!(!running.log().contains("xtables.lock"), "{}", running.log());
    near.fetch("192.168.220.100:81")?;

    // Longer than that: other steps are done, and this one later.
    let lock = lock_iptables()?;
    let (mark, programmed) = (running.mark(), Dump::of(director)?);
    site.write(&masqueraded(&[80, 81, 82]))?;
    running.await_log(mark, "xtables.lock")?;
    let table = director.run(&["ipvsadm", "-Ln"])?;
    ensure!(table.contains("192.168.220.100:82"), "{table}");
    let difference = programmed
        .portable()
        .difference(&Dump::of(director)?.portable());
    let mut lost = difference.iter().filter(|line| line.starts_with('-'));
    ensure!(lost.next().is_none(), "{}", difference.join("\n"));
    near.fetch("192.168.220.100:81")?;
    drop(lock);
    running.await_that("the rules of port 82", || is_there(82))?;
    near.fetch("192.168.220.100:82")?;
    let jumps = Dump::of(director)?
        .lines_with("POSTROUTING -j LVS-OPERATOR")
        .len();
    ensure!(jumps == 2, "{jumps} rules jump to the chains");
    running.stop()?;
    site.clean_up(&before)
}
