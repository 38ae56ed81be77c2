//! Counts the TCP connections that go on when the active director loses its power and one of four real servers is replaced at the same
//! moment, or all of them one after the other, with second chances, with `mh` alone, and with keepalived and its sync daemon.

use std::collections::BTreeMap;
use std::mem::swap;
use std::time::Duration;

use anyhow::{Context, Result};
use lab::{DIRECTORS, Fleet, FleetSet, FleetSetting, Keepalived, wait_until};

mod keeper;
mod kinds;
mod rolling;
mod table;

use keeper::Keeper;
use kinds::{Kept, Opened};
use table::ConnectionRow;

/// The sets of real servers, by turns: rs5 replaces rs4, or rs4 replaces rs5. The replaced machine goes on running.
const SETS: [FleetSet; 2] = [[0, 1, 2, 3], [0, 1, 2, 4]];

/// How long a takeover and a recovery may take.
const TIMEOUT: Duration = Duration::from_secs(90);

/// What is measured.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ConnectionOptions {
    /// How often a director loses its power, for each row.
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// How many connections are open each time.
    #[arg(long, default_value_t = 1000)]
    connections: usize,
    /// The programs to measure; all by default.
    #[arg(long, value_enum)]
    keeper: Vec<Keeper>,
    /// Replaces all real servers, one after the other, and changes the director with each step; by DR over IPv4, once.
    #[arg(long)]
    rolling: bool,
}

/// Measures and prints the table.
pub(crate) fn run(options: &ConnectionOptions) -> Result<()> {
    lab::require_ipvs()?;
    if options.rolling {
        return run_rolling(options);
    }
    let mut rows = Vec::new();
    for keeper in super::failover::or_all(&options.keeper) {
        for (forwarding, vip) in [
            ("DR", "10.0.0.100"),
            ("DR", "fd00::100"),
            ("TUN", "10.0.0.100"),
            ("TUN", "fd00::100"),
        ] {
            let mut kept = Kept::default();
            let mut bench = ConnectionBench::start(keeper, keeper.settings(vip, forwarding))?;
            for number in 1..=options.rounds {
                let round = bench.round(options.connections);
                let round = round.with_context(|| {
                    format!("{keeper}, {forwarding}, VIP {vip}, number {number}")
                })?;
                eprintln!("bench: {keeper}, {forwarding}, VIP {vip}, number {number}: {round}");
                kept.add(&round);
            }
            rows.push(ConnectionRow {
                keeper,
                forwarding,
                family: if vip.contains(':') { "IPv6" } else { "IPv4" },
                kept,
            });
        }
    }
    print!("{}", table::print(&rows));
    Ok(())
}

/// Measures rolling changes.
fn run_rolling(options: &ConnectionOptions) -> Result<()> {
    for keeper in super::failover::or_all(&options.keeper) {
        let mut bench = ConnectionBench::start(keeper, keeper.settings("10.0.0.100", "DR"))?;
        println!("{keeper}: {}", bench.roll(options.connections)?);
    }
    Ok(())
}

/// The machines, with one program on the directors.
struct ConnectionBench {
    keeper: Keeper,
    fleet: Fleet,
    keepalived: BTreeMap<&'static str, Keepalived>,
    active: &'static str,
    standby: &'static str,
    /// The set in force.
    set: FleetSet,
    next_set: FleetSet,
}

impl ConnectionBench {
    fn start(keeper: Keeper, [director, server]: [FleetSetting; 2]) -> Result<Self> {
        let [set, next_set] = SETS;
        let [active, standby] = DIRECTORS;
        let mut bench = Self {
            keeper,
            fleet: Fleet::lay_out(director, server, set)?,
            keepalived: BTreeMap::new(),
            active,
            standby,
            set,
            next_set,
        };
        for name in DIRECTORS {
            // The address comes back with the link.
            let keep = ["sysctl", "-qw", "net.ipv6.conf.all.keep_addr_on_down=1"];
            bench.fleet.show(name, &keep)?;
            bench.start_program(name)?;
            bench.await_active()?;
        }
        Ok(bench)
    }

    /// Lets the active director lose its power once, while the set changes.
    fn round(&mut self, connections: usize) -> Result<Kept> {
        let opened = Opened::open(&self.fleet, connections)?;
        swap(&mut self.set, &mut self.next_set);
        self.replace_at_failover(self.set)?;
        let kept = opened.finish();
        self.restore()?;
        Ok(kept)
    }

    /// Ends what runs on the active director, and separates it from the network.
    fn cut_power(&mut self) -> Result<()> {
        let down = ["ip", "link", "set", "eth0", "down"];
        self.fleet.show(self.active, &down)?;
        match self.keeper {
            Keeper::SecondChance | Keeper::Hash => self.fleet.kill_director(self.active),
            Keeper::Keepalived => {
                let running = self.keepalived.remove(self.active);
                running.context("keepalived does not run")?.kill()
            }
        }
    }

    /// Lets the real servers read the change. On machines of their own, they have done what follows before a director programs it; here,
    /// they share one processor, so the directors read it only then.
    fn tell_servers(&self) -> Result<()> {
        self.fleet.write_to_servers(self.set)?;
        match self.keeper {
            Keeper::SecondChance => self.fleet.await_second_chances(self.set, true),
            Keeper::Hash | Keeper::Keepalived => Ok(()),
        }
    }

    fn change_set(&self) -> Result<()> {
        self.fleet.write_to_directors(self.set)?;
        match self.keepalived.get(self.active) {
            Some(running) => running.reload(&self.keepalived_configuration(self.active)),
            None => Ok(()),
        }
    }

    fn await_active(&self) -> Result<()> {
        wait_until("a director to have the VIP", TIMEOUT, || {
            let has_vip = self.fleet.has_vip(self.active)?;
            Ok(has_vip.then_some(()))
        })
    }

    /// Starts the other director again, and waits until nothing of the last change counts any more.
    fn restore(&mut self) -> Result<()> {
        self.restart_failed()?;
        if self.keeper == Keeper::SecondChance {
            self.fleet.await_second_chances(self.set, false)?;
        }
        self.fleet.client()?.fetch(self.fleet.address()?)?;
        Ok(())
    }

    /// Gives the other director its power again, without what its kernel knew.
    fn restart_failed(&mut self) -> Result<()> {
        let vip = format!("{}/{}", self.fleet.setting.vip, self.prefix());
        let forget =
            format!("ipvsadm -C; ip addr del {vip} dev eth0 2>/dev/null; ip link set eth0 up");
        self.fleet.show(self.standby, &["sh", "-c", &forget])?;
        self.start_program(self.standby)
    }

    fn start_program(&mut self, name: &'static str) -> Result<()> {
        match self.keeper {
            Keeper::SecondChance | Keeper::Hash => {
                self.fleet.start_director(name)?;
                let running = self.fleet.director(name)?;
                running.await_log(0, "standby: started")
            }
            Keeper::Keepalived => {
                let host = self.fleet.lab.host(name)?;
                let running = Keepalived::start(host, &self.keepalived_configuration(name))?;
                running.await_that("the table", || self.fleet.has_table(name, self.set))?;
                self.keepalived.insert(name, running);
                Ok(())
            }
        }
    }

    fn prefix(&self) -> u8 {
        if self.fleet.setting.vip.contains(':') {
            128
        } else {
            32
        }
    }

    /// The same settings as the agent's; the first address of an IPv6 advertisement is a link-local one.
    fn keepalived_configuration(&self, name: &str) -> String {
        let setting = self.fleet.setting;
        let (vip, prefix) = (setting.vip, self.prefix());
        let link_local = match prefix {
            128 => "fe80::200:5eff:fe00:233/64 dev eth0\n    ",
            _ => "",
        };
        let servers = self
            .set
            .map(|index| {
                format!(
                    "  real_server {} 80 {{ weight 1 }}\n",
                    setting.server(index)
                )
            })
            .concat();
        format!(
            "\
global_defs {{
  router_id {name}
  vrrp_version 3
  lvs_sync_daemon eth0 edge id 7
}}
vrrp_instance edge {{
  state BACKUP
  nopreempt
  interface eth0
  virtual_router_id 51
  priority 100
  advert_int 0.1
  virtual_ipaddress {{
    {link_local}{vip}/{prefix} dev eth0
  }}
}}
virtual_server {vip} 80 {{
  lvs_sched rr
  lvs_method {method}
  protocol TCP
{servers}}}
",
            method = setting.forwarding,
        )
    }
}
