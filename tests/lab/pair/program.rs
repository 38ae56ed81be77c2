//! The programs that make a pair of directors: the agent, and keepalived with the same settings.

use std::fmt;

use anyhow::Result;

use super::{DIRECTORS, Director, Pair};

/// The id of the virtual router.
const ROUTER: u8 = 51;

/// A program that holds a VIP on one of two directors and programs the IPVS table on both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Program {
    /// The agent that `LVS_AGENT` names.
    Agent,
    /// keepalived, as the distribution has it.
    Keepalived,
}

impl Program {
    /// Starts the program, and waits until it takes part and the table is complete.
    pub(crate) fn start(self, pair: &Pair, director: &Director) -> Result<()> {
        let (configuration, command, takes_part) = match self {
            Self::Agent => (
                agent_configuration(pair),
                format!(
                    "\"$LVS_AGENT\" run --config /run/lab/all.yaml --state-dir /run/lab/state --node-name {}",
                    director.name
                ),
                "standby:|active:",
            ),
            Self::Keepalived => (
                keepalived_configuration(pair, director),
                "keepalived --dont-fork --log-console --use-file /run/lab/all.yaml \
                 --vrrp_pid /run/lab/vrrp.pid --checkers_pid /run/lab/checkers.pid --pid /run/lab/parent.pid"
                    .to_owned(),
                "(BACKUP|MASTER) STATE",
            ),
        };
        director.run(&format!(
            "cat >/run/lab/all.yaml <<'END OF FILE'\n{configuration}\nEND OF FILE\n\
             {command} >/run/lab/log 2>&1 </dev/null & echo $! >/run/lab/main.pid\n\
             until grep -Eq '{takes_part}' /run/lab/log; do sleep 0.02; done\n\
             until [ $(grep -c Route /proc/net/ip_vs) = 4 ]; do sleep 0.02; done"
        ))?;
        Ok(())
    }

    /// Kills all its processes at once.
    pub(crate) fn kill(self, director: &Director) -> Result<()> {
        director.run("kill -9 $(cat /run/lab/*.pid | sort -u); rm /run/lab/*.pid")?;
        Ok(())
    }

    /// Puts the director on standby: the agent by its file, keepalived by a clean stop.
    pub(crate) fn hand_over(self, director: &Director) -> Result<()> {
        let script = match self {
            Self::Agent => format!(
                "sed 's/^  failover:/&\\n    standby: [{}]/' /run/lab/all.yaml >/run/lab/new && mv /run/lab/new /run/lab/all.yaml",
                director.name
            ),
            Self::Keepalived => "kill $(cat /run/lab/parent.pid)".to_owned(),
        };
        director.run(&script).map(drop)
    }

    /// Ends what [`Program::hand_over`] began.
    pub(crate) fn take_back(self, pair: &Pair, director: &Director) -> Result<()> {
        match self {
            Self::Agent => {
                let script = "sed '/standby:/d' /run/lab/all.yaml >/run/lab/new && mv /run/lab/new /run/lab/all.yaml";
                director.run(script).map(drop)
            }
            Self::Keepalived => self.start(pair, director),
        }
    }

    /// What the program has logged since its start.
    pub(crate) fn log(self, director: &Director) -> Result<String> {
        director.run("cat /run/lab/log")
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Agent => "lvs-agent",
            Self::Keepalived => "keepalived",
        })
    }
}

/// The file of the agent, the same on all directors.
pub(crate) fn agent_configuration(pair: &Pair) -> String {
    let [(first, _, higher), (second, _, lower)] = DIRECTORS;
    let [rs1, rs2] = pair.servers();
    let vip = pair.vip();
    format!(
        "\
apiVersion: lvs-operator.io/v1alpha1
kind: DirectorGroup
metadata: {{name: edge}}
spec:
  nodes: {{names: [{first}, {second}]}}
  failover:
    virtualRouterId: {ROUTER}
    advertisementMilliseconds: 100
    priorities: [{{node: {first}, priority: {higher}}}, {{node: {second}, priority: {lower}}}]
---
apiVersion: lvs-operator.io/v1alpha1
kind: VirtualService
metadata: {{name: web}}
spec:
  directorGroup: edge
  addresses: [{}]
  ports:
  - {{name: tcp, protocol: TCP, port: {port}}}
  - {{name: udp, protocol: UDP, port: {port}}}
  forwarding: DR
  scheduler: {{name: mh, flags: [Port]}}
  backends: [{{address: {rs1}}}, {{address: {rs2}}}]",
        vip.ip(),
        port = vip.port()
    )
}

fn keepalived_configuration(pair: &Pair, director: &Director) -> String {
    let vip = pair.vip();
    let (address, port) = (vip.ip(), vip.port());
    let servers = pair
        .servers()
        .map(|server| format!("  real_server {server} {port} {{ weight 1 }}\n"))
        .concat();
    let services = ["TCP", "UDP"].map(|protocol| {
        format!("virtual_server {address} {port} {{\n  lvs_sched mh\n  mh-port\n  lvs_method DR\n  protocol {protocol}\n{servers}}}\n")
    });
    format!(
        "\
global_defs {{
  router_id {}
  vrrp_version 3
}}
vrrp_instance edge {{
  state BACKUP
  nopreempt
  interface vec0
  virtual_router_id {ROUTER}
  priority {}
  advert_int 0.1
  virtual_ipaddress {{ {address}/32 dev vec0 }}
}}
{}",
        director.name,
        director.priority,
        services.concat()
    )
}
