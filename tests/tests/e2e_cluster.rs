//! The operator in a cluster of three nodes, installed by its chart, with real servers outside of the cluster.
//!
//! The tests share one cluster, one after the other, in any order. Each first makes sure that the release and the virtual
//! services exist. Each node is the director of one forwarding mode; this machine is the client.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::{Client, Cluster, SERVICES, Service, ask_both, wait_until};
use serde_json::{Value, json};

#[path = "e2e/traffic.rs"]
mod traffic;

use traffic::{Tally, Traffic};

/// How long the operator may take for one change.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(90);

/// How long a client waits if no answer is expected.
const NO_ANSWER_TIMEOUT: Duration = Duration::from_millis(500);

/// How long a request may take unless the machine itself stalls. TCP retransmits a lost packet after 1 s and 3 s.
const LONGEST: Duration = Duration::from_secs(5);

/// How many connections stay open while directors and real servers change.
const OPEN_CONNECTIONS: usize = 40;

#[test]
fn all_pods_of_the_chart_become_ready_and_its_test_passes() -> Result<()> {
    with_release(|site| {
        let cluster = &site.cluster;
        cluster.test_release()?;
        let ready = cluster.kubectl(&[
            "get",
            "daemonset/lvs-operator-agent",
            "deployment/lvs-operator-controller",
            "--namespace=lvs-system",
            "-o",
            "jsonpath={.items[0].status.numberReady} {.items[1].status.readyReplicas}",
        ])?;
        ensure!(ready == "3 2", "agents and controllers ready: {ready}");
        await_answer(
            cluster,
            "every agent to report its machine",
            &[
                "get",
                "lvsnodes.lvs-operator.io",
                "-o",
                "jsonpath={range .items[*]}{.metadata.name}={.status.conditions[?(@.type=='Ready')].status} {end}",
            ],
            "node1=True node2=True node3=True rs1=True rs2=True ",
        )
    })
}

#[test]
fn each_mode_carries_requests_to_real_servers_outside_of_the_cluster() -> Result<()> {
    with_services(|site| {
        for service in &SERVICES {
            site.expect_both(service)
                .with_context(|| format!("service {}", service.name))?;
        }
        Ok(())
    })
}

#[test]
fn an_upgrade_fails_no_request() -> Result<()> {
    with_services(|site| {
        let before = site.agents()?;
        let tag = site.cluster.release()?.context("there is no release")?;
        under_traffic(site, |site| site.cluster.upgrade(tag.other()))?;
        let release = site.cluster.release()?;
        ensure!(release == Some(tag.other()), "the release is {release:?}");
        let stayed: Vec<&String> = before.keys().collect();
        let after = site.agents()?;
        ensure!(
            after.len() == 3 && stayed.iter().all(|agent| !after.contains_key(*agent)),
            "agents before: {before:?}, and after: {after:?}"
        );
        Ok(())
    })
}

#[test]
fn a_deleted_agent_fails_no_request() -> Result<()> {
    with_services(|site| {
        under_traffic(site, |site| {
            for agent in site.agents()?.keys() {
                let pod = format!("pod/{agent}");
                site.cluster
                    .kubectl(&["delete", &pod, "--namespace=lvs-system"])?;
                site.cluster.await_rollout()?;
            }
            Ok(())
        })
    })
}

#[test]
fn two_more_directors_join_a_group_and_leave_it_without_a_failed_request() -> Result<()> {
    with_services(|site| {
        under_traffic(site, |site| {
            // The first director is not the first by name in every group. node1 directs NAT alone and so tracks connections, which it would
            // not beside DR or TUN.
            for nodes in [
                &["node1", "node2"][..],
                &["node1", "node2", "node3"],
                &["node1"],
                &["node3", "node2"],
                &["node3"],
                &["node2", "node3"],
                &["node2"],
            ] {
                site.set_directors(nodes[0], nodes)?;
            }
            Ok(())
        })
    })
}

#[test]
fn nodes_that_are_registered_anew_fail_no_request() -> Result<()> {
    with_services(|site| {
        let nodes = ["node1", "node2", "node3"];
        under_traffic(site, |site| {
            for node in nodes {
                site.cluster.kubectl(&["delete", "node", node])?;
                // A kubelet registers its Node when it starts.
                site.cluster.node_mut(node)?.run("pkill -x kubelet")?;
                site.cluster.await_nodes()?;
                // Without the label, the Node gets no agent. Its pod ends first, so that none ends during a later test.
                wait_until("the agent's pod to end", CHANGE_TIMEOUT, || {
                    let agents = site.agents()?;
                    Ok((!agents.values().any(|other| other == node)).then_some(()))
                })?;
                let label = ["label", "node", node, "lvs-operator.io/agent=true"];
                site.cluster.kubectl(&label)?;
                site.cluster.await_rollout()?;
                await_answer(
                    &site.cluster,
                    "the machine to be reported again",
                    &[
                        "get",
                        "lvsnodes.lvs-operator.io",
                        node,
                        "-o",
                        "jsonpath={.status.conditions[?(@.type=='Ready')].status}",
                    ],
                    "True",
                )?;
            }
            Ok(())
        })
    })
}

#[test]
fn a_node_that_was_rebooted_serves_again() -> Result<()> {
    with_services(|site| {
        let service = SERVICES.iter().find(|service| service.name == "dr");
        let service = service.context("there is no service dr")?;
        let boot_id = "cat /proc/sys/kernel/random/boot_id";
        let node = site.cluster.node_mut(service.director)?;
        let before = node.run(boot_id)?;
        node.run("sync")?;
        node.cut_power();
        ensure!(
            Client::here()
                .timeout(NO_ANSWER_TIMEOUT)
                .fetch(service.vip(&site.cluster))
                .is_err(),
            "a node without power still answers"
        );
        let node = site.cluster.node_mut(service.director)?;
        node.switch_on()?;
        node.await_boot()?;
        ensure!(node.run(boot_id)? != before, "the node did not reboot");
        site.await_answers(service)?;
        site.cluster.await_nodes()?;
        site.cluster.await_rollout()?;
        site.expect_both(service)
    })
}

/// The new director has no connection table, and the hash leads to the real server that is left.
#[test]
fn open_connections_survive_when_a_director_loses_power_and_a_real_server_leaves() -> Result<()> {
    with_services(|site| {
        let service = SERVICES.iter().find(|service| service.name == "dr");
        let service = service.context("there is no service dr")?;
        let (active, standby) = (service.director, "node3");
        site.set_directors(active, &[active, standby])?;
        site.await_active(service, active)?;
        let client = Client::here().timeout(LONGEST);
        let mut connections = Vec::new();
        for _ in 0..OPEN_CONNECTIONS {
            let mut connection = client.connect(service.vip(&site.cluster))?;
            let server = connection.ask()?.server;
            connections.push((connection, server));
        }
        let has = |name: &str| connections.iter().any(|(_, server)| server == name);
        ensure!(
            has("rs1") && has("rs2"),
            "one real server has all connections"
        );

        let node = site.cluster.node_mut(active)?;
        node.run("sync")?;
        node.cut_power();
        let both = site.replace_backends(service, |both| both.iter().take(1).cloned().collect())?;
        site.await_active(service, standby)?;
        site.await_bindings(service, standby)?;
        for (connection, server) in &mut connections {
            let answer = connection.ask().with_context(|| format!("to {server}"))?;
            ensure!(answer.server == *server, "{server} had it, now {answer}");
        }

        let node = site.cluster.node_mut(active)?;
        node.switch_on()?;
        node.await_boot()?;
        site.cluster.await_nodes()?;
        site.cluster.await_rollout()?;
        site.await_standing(active, active, "Standby")?;
        site.replace_backends(service, |_| both.clone())?;
        site.set_directors(active, &[active])?;
        site.await_active(service, active)?;
        site.expect_both(service)
    })
}

#[test]
fn a_cordoned_director_hands_its_vips_over_without_a_failed_request() -> Result<()> {
    with_services(|site| {
        let service = SERVICES.iter().find(|service| service.name == "dr");
        let service = service.context("there is no service dr")?;
        let (active, standby) = (service.director, "node3");
        site.set_directors(active, &[active, standby])?;
        site.await_active(service, active)?;
        under_traffic(site, |site| {
            for (cordoned, next) in [(active, standby), (standby, active)] {
                site.cluster.kubectl(&["cordon", cordoned])?;
                site.await_active(service, next)?;
                site.cluster.kubectl(&["uncordon", cordoned])?;
            }
            Ok(())
        })?;
        site.set_directors(active, &[active])?;
        site.await_active(service, active)
    })
}

#[test]
fn another_director_takes_over_from_one_that_loses_power() -> Result<()> {
    with_services(|site| {
        let service = SERVICES.iter().find(|service| service.name == "dr");
        let service = service.context("there is no service dr")?;
        let (active, standby) = (service.director, "node3");
        ensure!(active != standby, "{standby} directs the service already");
        site.set_directors(active, &[active, standby])?;
        site.await_active(service, active)?;
        let node = site.cluster.node_mut(active)?;
        node.run("sync")?;
        node.cut_power();
        site.await_answers(service)?;
        site.await_active(service, standby)?;
        let node = site.cluster.node_mut(active)?;
        node.switch_on()?;
        node.await_boot()?;
        site.cluster.await_nodes()?;
        site.cluster.await_rollout()?;
        // It comes back as the standby, and takes over once the other has left the group.
        site.await_standing(active, active, "Standby")?;
        site.await_active(service, standby)?;
        site.expect_both(service)?;
        site.set_directors(active, &[active])?;
        site.await_active(service, active)?;
        site.expect_both(service)
    })
}

#[test]
fn uninstalling_leaves_every_kernel_as_it_was() -> Result<()> {
    with_services(|site| {
        let serving = site.cluster.states()?;
        for service in &SERVICES {
            let director = serving.get(service.director);
            let (vip, _) = service.vip(&site.cluster);
            let vip = vip.to_string();
            let named = director.is_some_and(|state| state.iter().any(|line| line.contains(&vip)));
            ensure!(named, "{} does not have {vip}", service.director);
        }
        let of_all = ["--all", "--all-namespaces", "--timeout=60s"];
        let delete = ["delete", "virtualservices.lvs-operator.io"];
        site.cluster
            .kubectl(&[delete.as_slice(), &of_all].concat())?;
        await_answer(
            &site.cluster,
            "the last DirectorBinding to go",
            &[
                "get",
                "directorbindings.lvs-operator.io",
                "--all-namespaces",
                "-o",
                "name",
            ],
            "",
        )?;
        site.await_former_state()?;
        site.cluster.uninstall()?;
        site.await_former_state()
    })
}

/// The cluster, and the state of its kernels before anything was installed.
struct Site {
    cluster: Cluster,
    before: BTreeMap<String, Vec<String>>,
}

static SITE: Mutex<Option<Site>> = Mutex::new(None);

/// Runs a test on the cluster with the release installed. An error includes the report of the cluster.
fn with_release(test: impl FnOnce(&mut Site) -> Result<()>) -> Result<()> {
    let mut site = SITE.lock().unwrap_or_else(PoisonError::into_inner);
    let site = match &mut *site {
        Some(site) => site,
        none => none.insert(Site::start()?),
    };
    let began = Instant::now();
    let done = site.ensure_release().and_then(|()| test(site));
    let took = format!("{:.0} s", began.elapsed().as_secs_f64());
    site.cluster.say(&format!("the test took {took}"));
    if done.is_err() {
        eprintln!("{}", site.cluster.report());
    }
    done
}

/// Like [`with_release`], with the virtual services; both real servers of each answer.
fn with_services(test: impl FnOnce(&mut Site) -> Result<()>) -> Result<()> {
    with_release(|site| {
        site.ensure_services()?;
        test(site)
    })
}

impl Site {
    fn start() -> Result<Self> {
        let cluster = Cluster::start()?;
        let before = cluster.states()?;
        Ok(Self { cluster, before })
    }

    fn ensure_release(&self) -> Result<()> {
        if self.cluster.release()?.is_none() {
            self.cluster.say("installing the chart");
            self.cluster.install()?;
            self.cluster.say("the chart's pods are ready");
        }
        Ok(())
    }

    fn ensure_services(&self) -> Result<()> {
        for service in &SERVICES {
            let manifest = service.manifest(&self.cluster)?;
            self.cluster.control_plane().apply(&manifest)?;
        }
        let ready = format!("--timeout={}s", CHANGE_TIMEOUT.as_secs());
        let all = "virtualservices.lvs-operator.io";
        self.cluster
            .kubectl(&["wait", "--for=condition=Ready", &ready, all, "--all"])?;
        await_answer(
            &self.cluster,
            "all real servers to take connections",
            &[
                "get",
                all,
                "-o",
                "jsonpath={.items[*].status.realServersColumn}",
            ],
            "2/2 2/2 2/2 2/2",
        )?;
        SERVICES
            .iter()
            .try_for_each(|service| self.await_answers(service))
    }

    /// Sets the nodes of the group of a director, and waits until the status of the group is about them.
    fn set_directors(&self, group: &str, nodes: &[&str]) -> Result<()> {
        let patch = json!({"spec": {"nodes": {"names": nodes}}}).to_string();
        let kind = "directorgroups.lvs-operator.io";
        let merge = ["patch", kind, group, "--type=merge", "--patch", &patch];
        self.cluster.kubectl(&merge)?;
        let mut sorted = nodes.to_vec();
        sorted.sort_unstable();
        let status = "jsonpath={.status.directors} {.status.conditions[?(@.type=='Ready')].reason}";
        await_answer(
            &self.cluster,
            "the status of the group",
            &["get", kind, group, "-o", status],
            &format!("{} Ready", sorted.join(",")),
        )?;
        let [only] = nodes else {
            return Ok(());
        };
        // Once it is alone, its VIPs outlive its agent again.
        let failover = format!("jsonpath={{.spec.groups[?(@.name=='{group}')].failover}}");
        let question = ["get", "lvsnodes.lvs-operator.io", only, "-o", &failover];
        await_answer(&self.cluster, "the others to leave", &question, "")
    }

    /// Replaces the backends of a virtual service. Returns those from before.
    fn replace_backends(
        &self,
        service: &Service,
        replace: impl Fn(&[Value]) -> Vec<Value>,
    ) -> Result<Vec<Value>> {
        let (kind, name) = ("virtualservices.lvs-operator.io", service.name);
        let backends = "jsonpath={.spec.backends}";
        let before = self.cluster.kubectl(&["get", kind, name, "-o", backends])?;
        let before: Vec<Value> = serde_json::from_str(&before)?;
        let patch = json!({"spec": {"backends": replace(&before)}}).to_string();
        let merge = ["patch", kind, name, "--type=merge", "--patch", &patch];
        self.cluster.kubectl(&merge)?;
        Ok(before)
    }

    /// Waits until a director and all real servers of a virtual service have done what their bindings say.
    fn await_bindings(&self, service: &Service, director: &str) -> Result<()> {
        let name = service.name;
        for (condition, binding) in [
            (
                "Ready",
                format!("realserverbindings.lvs-operator.io/{name}.rs1"),
            ),
            (
                "Ready",
                format!("realserverbindings.lvs-operator.io/{name}.rs2"),
            ),
            (
                "Programmed",
                format!("directorbindings.lvs-operator.io/{name}.{director}"),
            ),
        ] {
            let condition = format!("--for=condition={condition}");
            let timeout = format!("--timeout={}s", CHANGE_TIMEOUT.as_secs());
            self.cluster
                .kubectl(&["wait", &condition, &timeout, &binding])?;
        }
        Ok(())
    }

    /// Waits until the agent of a director reports this standing in the group of another.
    fn await_standing(&self, director: &str, group: &str, state: &str) -> Result<()> {
        let standing = format!("jsonpath={{.status.standings[?(@.group=='{group}')].state}}");
        let question = ["get", "lvsnodes.lvs-operator.io", director, "-o", &standing];
        await_answer(
            &self.cluster,
            "the standing of a director",
            &question,
            state,
        )
    }

    /// Waits until a virtual service is Ready with this director as the active one.
    fn await_active(&self, service: &Service, director: &str) -> Result<()> {
        let status =
            "jsonpath={.status.activeDirector} {.status.conditions[?(@.type=='Ready')].status}";
        await_answer(
            &self.cluster,
            "the active director",
            &[
                "get",
                "virtualservices.lvs-operator.io",
                service.name,
                "-o",
                status,
            ],
            &format!("{director} True"),
        )
    }

    /// The agents' pods, each with its node.
    fn agents(&self) -> Result<BTreeMap<String, String>> {
        let output = self.cluster.kubectl(&[
            "get",
            "pods",
            "--namespace=lvs-system",
            "--selector=app.kubernetes.io/component=agent",
            "-o",
            "jsonpath={range .items[*]}{.metadata.name} {.spec.nodeName}{'\\n'}{end}",
        ])?;
        let pods = output.lines().filter_map(|line| line.split_once(' '));
        Ok(pods
            .map(|(pod, node)| (pod.to_owned(), node.to_owned()))
            .collect())
    }

    /// Waits until a service answers.
    fn await_answers(&self, service: &Service) -> Result<()> {
        let client = Client::here().timeout(NO_ANSWER_TIMEOUT);
        let what = format!("an answer from service {}", service.name);
        wait_until(&what, CHANGE_TIMEOUT * 2, || {
            Ok(client.fetch(service.vip(&self.cluster)).ok().map(drop))
        })
    }

    /// Checks over TCP and UDP that both real servers answer, and which source address they see.
    fn expect_both(&self, service: &Service) -> Result<()> {
        let vip = service.vip(&self.cluster).into();
        let mut answers = ask_both(&Client::here(), vip)?;
        // A busy machine may lose a datagram, which is not retransmitted.
        let client = Client::here().udp().timeout(NO_ANSWER_TIMEOUT);
        answers.extend(wait_until("answers over UDP", CHANGE_TIMEOUT, || {
            Ok(ask_both(&client, vip).ok())
        })?);
        let own = self.cluster.bridge().address(1);
        for answer in answers {
            ensure!(
                (answer.peer.ip() == own) == service.shows_client
                    && answer.local.port() == service.target,
                "{answer}"
            );
        }
        Ok(())
    }

    /// Waits until all kernels have their state from before the installation.
    fn await_former_state(&self) -> Result<()> {
        let mut different = String::new();
        let same = wait_until("every kernel to be as it was", CHANGE_TIMEOUT, || {
            let now = self.cluster.states()?;
            different = differences(&self.before, &now);
            Ok(different.is_empty().then_some(()))
        });
        same.map_err(|error| error.context(different))
    }
}

fn differences(
    before: &BTreeMap<String, Vec<String>>,
    now: &BTreeMap<String, Vec<String>>,
) -> String {
    let mut text = String::new();
    for (machine, before) in before {
        let nothing = Vec::new();
        let now = now.get(machine).unwrap_or(&nothing);
        for line in before.iter().filter(|line| !now.contains(line)) {
            text += &format!("{machine} has lost {line}\n");
        }
        for line in now.iter().filter(|line| !before.contains(line)) {
            text += &format!("{machine} has gained {line}\n");
        }
    }
    text
}

fn await_answer(cluster: &Cluster, what: &str, question: &[&str], answer: &str) -> Result<()> {
    let mut last = String::new();
    let found = wait_until(what, CHANGE_TIMEOUT, || {
        last = cluster.kubectl(question)?;
        Ok((last == answer).then_some(()))
    });
    found.with_context(|| format!("it was `{last}`, not `{answer}`"))
}

/// Runs `work` while clients send requests to every service, over new connections and over one that stays open. No request
/// may fail. None may take much longer than the slowest request of one more client, which bypasses the directors: a busy
/// machine delays both.
fn under_traffic(site: &mut Site, work: impl FnOnce(&mut Site) -> Result<()>) -> Result<()> {
    let past = Traffic::start("past the directors", site.cluster.real_server())?;
    let clients: Vec<Traffic> = SERVICES
        .iter()
        .map(|service| Traffic::start(service.name, service.vip(&site.cluster)))
        .collect::<Result<_>>()?;
    let done = work(site);
    let tallies: Vec<Tally> = clients
        .into_iter()
        .map(Traffic::stop)
        .collect::<Result<_>>()?;
    let past = past.stop()?;
    done?;
    site.cluster.say(&past.to_string());
    ensure!(past.failed == 0, "a real server did not answer: {past}");
    let limit = LONGEST + past.slowest * 2;
    for tally in &tallies {
        site.cluster.say(&tally.to_string());
        ensure!(tally.requests > 0, "there was no traffic: {tally}");
    }
    let failed: Vec<String> = tallies
        .iter()
        .filter(|tally| tally.failed > 0 || tally.slowest > limit)
        .map(ToString::to_string)
        .collect();
    ensure!(
        failed.is_empty(),
        "requests failed, or took more than {limit:?}: {}",
        failed.join("\n")
    );
    Ok(())
}
