//! The users of agents may write the statuses of their own machine's objects, and nothing else.

#![expect(clippy::indexing_slicing, reason = "the helpers of a test may fail it")]

use std::time::Duration;

use anyhow::{Context, Result, bail};
use lab::{Objects, Operator, agent_lease, wait_until};
use serde_json::{Value, json};

/// Two nodes of the cluster; the name of the second is too long for a label.
const NODES: [&str; 2] = [
    "n1",
    "n2.a-name-that-is-longer-than-the-sixty-three-characters-of-a-label.example.net",
];
/// Two machines outside of the cluster.
const MACHINES: [&str; 2] = ["rs1", "rs2"];
const SPACE: &str = "shop";

#[test]
fn an_agents_token_writes_the_status_of_its_own_node_and_nothing_else() -> Result<()> {
    let operator = started()?;
    let [first, second] = NODES;
    let agents = [operator.agent(first)?, operator.agent(second)?];
    let whoami = operator.control_plane.kubectl_with(
        &operator
            .control_plane
            .directory()
            .join("lvs-operator-agent-n1.kubeconfig"),
        &["auth", "whoami", "-o", "jsonpath={.status.userInfo.extra}"],
    )?;
    assert!(
        whoami.contains(r#""authentication.kubernetes.io/node-name":["n1"]"#),
        "{whoami}"
    );

    for (agent, own) in agents.iter().zip(NODES) {
        let agent = &agent.objects;
        agent.apply_status("lvs-agent", &binding_status(own))?;
        agent.apply_status("lvs-agent", &served_status(own))?;
        agent.apply_status("lvs-agent", &node_status(own))?;
        for other in NODES.iter().chain(&MACHINES).filter(|other| **other != own) {
            let reason =
                format!("the agent of node '{own}' must not write an object of node '{other}'");
            refused(
                agent.apply_status("lvs-agent", &binding_status(other)),
                &reason,
            )?;
            refused(
                agent.apply_status("lvs-agent", &served_status(other)),
                &reason,
            )?;
            refused(
                agent.apply_status("lvs-agent", &node_status(other)),
                &reason,
            )?;
        }
        let mut claimed = binding_status(other_of(own));
        claimed["metadata"]["labels"] = json!({"lvs-operator.io/node": own});
        refused(
            agent.apply_status("lvs-agent", &claimed),
            "must not write an object of node",
        )?;
        spec_is_refused(agent, own)?;
    }
    // No agent may write an object whose label is wrong.
    let reason = "the label lvs-operator.io/node of the object must name 'n1'";
    let mut unlabelled = binding_status(first);
    unlabelled["metadata"]["name"] = "unlabelled".into();
    refused(
        agents[0].objects.apply_status("lvs-agent", &unlabelled),
        reason,
    )?;
    let mut mislabelled = binding_status(second);
    mislabelled["metadata"]["name"] = "mislabelled".into();
    let reason = "the label lvs-operator.io/node of the object must name 'n2.";
    refused(
        agents[1].objects.apply_status("lvs-agent", &mislabelled),
        reason,
    )?;

    more_rights(&operator)?;
    only_statuses_are_written(&agents[0].objects)
}

/// Checks that the admission policy restricts an agent even if RBAC gives it more rights.
fn only_statuses_are_written(agent: &Objects) -> Result<()> {
    let reason = "an agent must not write anything but a status";
    wait_until("the new rights", Duration::from_secs(20), || {
        let refusal = agent.delete("DirectorBinding", &format!("{SPACE}/web-n1"));
        let refusal = refusal.err().context("an agent could delete a binding")?;
        Ok(format!("{refusal:#}").contains(reason).then_some(()))
    })?;
    let change = json!({"spec": {"generation": 2}});
    refused(
        agent.merge("DirectorBinding", &format!("{SPACE}/web-n1"), &change),
        reason,
    )?;
    let made = agent.create(&binding("made", NODES[0], NODES[0]));
    refused(
        made,
        "an agent must not write anything but a status: CREATE of directorbindings",
    )
}

#[test]
fn a_machines_user_writes_the_status_of_its_own_machine_and_nothing_else() -> Result<()> {
    let operator = started()?;
    let [own, other] = MACHINES;
    let machine = operator.machine(own)?.objects;
    machine.apply_status("lvs-agent", &node_status(own))?;
    machine.apply_status("lvs-agent", &binding_status(own))?;
    machine.apply_status("lvs-agent", &served_status(own))?;
    for other in [other, NODES[0]] {
        refused(
            machine.apply_status("lvs-agent", &node_status(other)),
            "the status of an LvsNode is written by the node's agent, or by the user in `spec.identity`",
        )?;
        let reason = format!(
            "the status of a DirectorBinding is written by the agent of its node '{other}', or by a user that ends in ':{other}'"
        );
        refused(
            machine.apply_status("lvs-agent", &binding_status(other)),
            &reason,
        )?;
        let reason = reason.replace("DirectorBinding", "RealServerBinding");
        refused(
            machine.apply_status("lvs-agent", &served_status(other)),
            &reason,
        )?;
    }
    spec_is_refused(&machine, own)?;
    let change = json!({"spec": {"identity": "lvs:machine:rs1"}});
    refused(
        machine.merge("LvsNode", other, &change),
        "cannot patch resource",
    )?;

    // `spec.identity` of the LvsNode must name the user too.
    let change = json!({"spec": {"identity": "somebody-else"}});
    operator.admin.merge("LvsNode", own, &change)?;
    let reason = "the status of an LvsNode is written by the node's agent, or by the user in `spec.identity`";
    refused(machine.apply_status("lvs-agent", &node_status(own)), reason)
}

#[test]
fn the_controller_writes_no_spec_of_users_and_no_status_of_agents() -> Result<()> {
    let operator = started()?;
    let controller = operator.account("lvs-operator-controller")?;
    controller.apply(&binding("web-n1", NODES[0], NODES[0]))?;
    controller.apply(&served("web-n1", NODES[0]))?;
    let change = json!({"spec": {"directorGroup": "other"}});
    for (kind, name) in [("VirtualService", "shop/web"), ("DirectorGroup", "edge")] {
        refused(
            controller.merge(kind, name, &change),
            "cannot patch resource",
        )?;
        refused(controller.delete(kind, name), "cannot delete resource")?;
    }
    // What a silent agent has reported becomes unknown. That is all.
    for mut status in [
        binding_status(NODES[0]),
        served_status(NODES[0]),
        node_status(NODES[0]),
    ] {
        let reason = "the controller may only turn the status of an agent's condition to Unknown";
        refused(controller.apply_status("lvs-controller", &status), reason)?;
        status["status"] = json!({"conditions": [condition("True")]});
        refused(controller.apply_status("lvs-controller", &status), reason)?;
        status["status"] = json!({"conditions": [condition("Unknown")]});
        controller.apply_status("lvs-controller", &status)?;
    }
    refused(controller.list("Secret", ""), "cannot list resource")
}

#[test]
fn nobody_but_the_controller_writes_specs() -> Result<()> {
    let operator = started()?;
    let [node, _] = NODES;
    // An administrator of the cluster who is not among the masters, and so may not pass the policies.
    let api = "rbac.authorization.k8s.io";
    operator.admin.apply(&json!({
        "apiVersion": format!("{api}/v1"), "kind": "ClusterRoleBinding", "metadata": {"name": "owner"},
        "roleRef": {"apiGroup": api, "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "namespace": "lvs-system", "name": "default"}],
    }))?;
    operator.admin.apply(&json!({
        "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"namespace": "lvs-system", "name": "default"},
    }))?;
    let owner = operator.account("default")?;
    wait_until("the new rights", Duration::from_secs(20), || {
        Ok(owner.list("Secret", "").ok())
    })?;
    let name = format!("{SPACE}/web-{node}");
    let change = json!({"spec": {"addresses": ["192.0.2.9"]}});
    for (kind, object) in [
        ("DirectorBinding", binding("made", node, node)),
        ("RealServerBinding", served("made", node)),
    ] {
        let reason =
            format!("a {kind} is written by the controller, from a VirtualService: not by");
        refused(owner.create(&object), &reason)?;
        refused(owner.merge(kind, &name, &change), &reason)?;
        refused(owner.delete(kind, &name), &reason)?;
    }
    let reason =
        "`spec.groups` of an LvsNode is written by the controller, from the DirectorGroups";
    let groups = json!({"spec": {"groups": [{"name": "edge"}]}});
    refused(owner.merge("LvsNode", node, &groups), reason)?;
    let made = |spec: Value| {
        json!({"apiVersion": "lvs-operator.io/v1alpha1", "kind": "LvsNode",
            "metadata": {"name": "made"}, "spec": spec})
    };
    refused(owner.create(&made(groups["spec"].clone())), reason)?;
    owner.create(&made(json!({"identity": "lvs:machine:made"})))?;
    owner.merge("LvsNode", "made", &json!({"spec": {"identity": "another"}}))?;
    owner.delete("LvsNode", "made")
}

fn started() -> Result<Operator> {
    let operator = Operator::install(&MACHINES)?;
    operator.namespace(SPACE)?;
    for node in NODES {
        operator
            .admin
            .apply(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}}))?;
        operator.admin.apply(&json!({
            "apiVersion": "lvs-operator.io/v1alpha1", "kind": "LvsNode",
            "metadata": {"name": node}, "spec": {},
        }))?;
    }
    for machine in MACHINES {
        operator.admit(machine)?;
    }
    for name in NODES.iter().chain(&MACHINES) {
        let own = format!("web-{name}");
        let label = lvs_crd::node_label(name);
        operator.admin.apply(&binding(&own, name, &label))?;
        operator.admin.apply(&served(&own, name))?;
    }
    operator.admin.apply(&binding("unlabelled", NODES[0], ""))?;
    operator.admin.apply(&binding(
        "mislabelled",
        NODES[1],
        "n2.a-name-that-is-longer-than-the-si",
    ))?;
    // A policy takes effect some time after its creation.
    let unbound = operator.account("lvs-operator-agent")?;
    wait_until("the policy to take effect", Duration::from_secs(60), || {
        let result = unbound.apply_status("lvs-agent", &node_status(NODES[0]));
        let reason = "the token of an agent must be bound to a node";
        Ok(result
            .is_err_and(|error| format!("{error:#}").contains(reason))
            .then_some(()))
    })?;
    Ok(operator)
}

/// Checks what no agent may do, not even to its own machine's objects.
fn spec_is_refused(agent: &Objects, own: &str) -> Result<()> {
    let name = format!("{SPACE}/web-{own}");
    let change = json!({"spec": {"generation": 7}});
    refused(
        agent.merge("DirectorBinding", &name, &change),
        "cannot patch resource",
    )?;
    refused(
        agent.merge("LvsNode", own, &json!({"spec": {"groups": []}})),
        "cannot patch resource",
    )?;
    refused(
        agent.create(&binding("made", own, own)),
        "cannot create resource",
    )?;
    let made = json!({
        "apiVersion": "lvs-operator.io/v1alpha1", "kind": "LvsNode",
        "metadata": {"name": "made"}, "spec": {},
    });
    refused(agent.create(&made), "cannot create resource")?;
    refused(
        agent.delete("DirectorBinding", &name),
        "cannot delete resource",
    )?;
    refused(agent.delete("LvsNode", own), "cannot delete resource")?;
    refused(agent.list("VirtualService", ""), "cannot list resource")?;
    refused(agent.list("Secret", ""), "cannot list resource")?;
    refused(agent.list("EndpointSlice", ""), "cannot list resource")
}

fn refused<T>(result: Result<T>, reason: &str) -> Result<()> {
    let Err(error) = result else {
        bail!("accepted instead of: {reason}");
    };
    let error = format!("{error:#}");
    if !error.contains(reason) {
        bail!("refused for another reason than {reason}: {error}");
    }
    Ok(())
}

fn more_rights(operator: &Operator) -> Result<()> {
    let api = "rbac.authorization.k8s.io";
    let metadata = json!({"namespace": SPACE, "name": "more"});
    operator.admin.apply(&json!({
        "apiVersion": format!("{api}/v1"), "kind": "Role", "metadata": metadata,
        "rules": [{
            "apiGroups": ["lvs-operator.io"],
            "resources": ["directorbindings"],
            "verbs": ["create", "update", "patch", "delete"],
        }],
    }))?;
    operator.admin.apply(&json!({
        "apiVersion": format!("{api}/v1"), "kind": "RoleBinding", "metadata": metadata,
        "roleRef": {"apiGroup": api, "kind": "Role", "name": "more"},
        "subjects": [{"kind": "ServiceAccount", "namespace": "lvs-system", "name": "lvs-operator-agent"}],
    }))?;
    Ok(())
}

#[test]
fn an_agent_writes_its_own_lease_and_no_other() -> Result<()> {
    let operator = started()?;
    let _controller = operator.lead("one")?;
    let [first, second] = NODES;
    let [machine, other_machine] = MACHINES;
    let agents = [
        (operator.agent(first)?.objects, first),
        (operator.agent(second)?.objects, second),
        (operator.machine(machine)?.objects, machine),
    ];
    // The policy takes effect a moment after its creation.
    wait_until("the policy of Leases", Duration::from_secs(60), || {
        let taken = agents[0].0.apply(&agent_lease(machine));
        Ok(taken.is_err().then_some(()))
    })?;
    for (agent, own) in &agents {
        agent.apply(&agent_lease(own))?;
        for other in [first, second, machine, other_machine] {
            if other != *own {
                let reason = if MACHINES.contains(own) {
                    "the Lease of an agent is written by the agent of its node"
                } else {
                    "must not write the Lease of node"
                };
                refused(agent.apply(&agent_lease(other)), reason)?;
                // Its own Lease in the name of another.
                let mut lease = agent_lease(own);
                lease["spec"]["holderIdentity"] = json!(other);
                let reason = "an agent writes the Lease lvs-agent-NODE, held by its node";
                refused(agent.apply(&lease), reason)?;
            }
        }
        let mut leaders = agent_lease(own);
        leaders["metadata"]["name"] = json!("lvs-controller");
        let reason = if MACHINES.contains(own) {
            "the Lease 'lvs-controller' is written by controllers"
        } else {
            "an agent writes the Lease lvs-agent-NODE, held by its node"
        };
        refused(agent.apply(&leaders), reason)?;
        let lease = format!("lvs-system/lvs-agent-{}", lvs_crd::node_label(own));
        refused(agent.delete("Lease", &lease), "cannot delete resource")?;
        refused(agent.list("Lease", ""), "cannot list resource")?;
    }
    assert_eq!(operator.leader()?.as_deref(), Some("one"));
    Ok(())
}

fn condition(status: &str) -> Value {
    json!({
        "type": "Ready", "status": status, "reason": "AgentUnreachable", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    })
}

fn other_of(node: &str) -> &'static str {
    NODES[usize::from(node == NODES[0])]
}

fn binding(name: &str, node: &str, label: &str) -> Value {
    let mut metadata = json!({"namespace": SPACE, "name": name});
    if !label.is_empty() {
        metadata["labels"] = json!({"lvs-operator.io/node": label});
    }
    json!({
        "apiVersion": "lvs-operator.io/v1alpha1",
        "kind": "DirectorBinding",
        "metadata": metadata,
        "spec": {
            "node": node, "virtualService": "web", "generation": 1, "directorGroup": "edge",
            "addresses": ["192.0.2.1"], "ports": [{"port": 80}],
        },
    })
}

fn served(name: &str, node: &str) -> Value {
    let mut object = binding(name, node, &lvs_crd::node_label(node));
    object["kind"] = "RealServerBinding".into();
    object["spec"] = json!({
        "node": node, "virtualService": "web", "addresses": ["192.0.2.1"], "ports": [{"port": 80}],
        "realServers": [{"address": "192.0.2.2"}],
    });
    object
}

/// The status that an agent applies to the RealServerBinding of a node.
fn served_status(node: &str) -> Value {
    let mut object = binding_status(node);
    object["kind"] = "RealServerBinding".into();
    object
}

/// The status that an agent applies to the binding of a node.
fn binding_status(node: &str) -> Value {
    json!({
        "apiVersion": "lvs-operator.io/v1alpha1", "kind": "DirectorBinding",
        "metadata": {"namespace": SPACE, "name": format!("web-{node}")},
        "status": {"observedGeneration": 1},
    })
}

/// The status that an agent applies to the LvsNode of a node.
fn node_status(node: &str) -> Value {
    json!({
        "apiVersion": "lvs-operator.io/v1alpha1", "kind": "LvsNode",
        "metadata": {"name": node},
        "status": {"observedGeneration": 1},
    })
}
