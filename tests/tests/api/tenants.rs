//! The tenant kit: an account with the role `edit` in one namespace tries what it must not have. Nothing outside its namespace
//! changes, and each attempt gets its reason.

#![expect(clippy::indexing_slicing, reason = "the helpers of a test may fail it")]

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{Controller, Objects, Operator, condition_of, message_of, wait_until};
use serde_json::{Value, json};

use crate::editor;

/// What becomes of an attempt.
enum Answer {
    /// The API server refuses it, with this text.
    Refused(&'static str),
    /// The virtual service is stalled for this reason.
    Stalled(&'static str),
}
use Answer::{Refused, Stalled};

/// The pool of the tenant. Its status counts the tenant's own VIPs.
const OWN_POOL: &str = "shop";

#[test]
fn an_editor_of_one_namespace_changes_nothing_outside_of_it() -> Result<()> {
    let site = Site::lay_out()?;
    let before = site.outside()?;
    let virtual_services = virtual_services();
    let objects = objects();
    let others = others_objects();
    let count = virtual_services.len() + objects.len() + others.len() + 2;
    ensure!(count >= 30, "{count} attempts");
    for (what, changes, answer) in virtual_services {
        site.attempt(&service("shop", "tried", &changes), &answer)
            .with_context(|| what.to_owned())?;
        assert_eq!(site.outside()?, before, "{what}");
    }
    for (what, object) in objects {
        is_forbidden(site.tenant.apply(&object)).context(what)?;
        assert_eq!(site.outside()?, before, "{what}");
    }
    for (kind, name) in others {
        is_forbidden(site.tenant.delete(kind, name)).with_context(|| format!("{kind} {name}"))?;
        assert_eq!(site.outside()?, before, "deleting {kind} {name}");
    }
    site.try_own_status()?;
    assert_eq!(site.outside()?, before, "a status by hand");
    site.try_endpoint_slice()?;
    assert_eq!(site.outside()?, before, "a slice by hand");
    println!("{count} attempts, each refused with its reason");
    Ok(())
}

/// A cluster with the VIP of `blog/web` in service, and a tenant of the namespace `shop`.
struct Site {
    operator: Operator,
    tenant: Objects,
    _controller: Controller,
}

impl Site {
    fn lay_out() -> Result<Self> {
        let operator = Operator::install(&["lvs1", "rs1"])?;
        operator.admin.delete("AddressPool", "any")?;
        for machine in ["lvs1", "rs1"] {
            operator.admit(machine)?;
        }
        let controller = operator.lead("one")?;
        operator
            .machine("lvs1")?
            .describe(&["10.8.0.11/24", "10.9.1.11/24"], &[])?;
        operator.machine("rs1")?.describe(&["10.7.0.21/24"], &[])?;
        for namespace in ["shop", "blog"] {
            operator.namespace(namespace)?;
        }
        for object in [
            group(),
            pool("shop", "10.9.1.0/24"),
            pool("blog", "10.9.2.0/24"),
        ] {
            operator.admin.apply(&object)?;
        }
        let of_blog = json!({"addresses": ["10.9.2.1"], "backends": [{"address": "10.7.0.21"}]});
        operator.admin.apply(&service("blog", "web", &of_blog))?;
        operator
            .admin
            .await_that("DirectorBinding", "blog/web.lvs1", "made", |object| {
                !object.is_null()
            })?;
        operator.machine("lvs1")?.report_all()?;
        operator.machine("rs1")?.describe(&["10.7.0.21/24"], &[])?;
        operator
            .admin
            .await_that("VirtualService", "blog/web", "ready", |object| {
                condition_of(object, "Ready").as_deref() == Some("True Ready")
            })?;
        operator
            .admin
            .await_that("AddressPool", "blog", "its VIP counted", |pool| {
                pool.pointer("/status/ipv4/allocated") == Some(&json!(1))
            })?;
        let tenant = editor::create(&operator, "shop", "tenant")?;
        Ok(Self {
            operator,
            tenant,
            _controller: controller,
        })
    }

    /// Everything outside of the tenant's namespace.
    fn outside(&self) -> Result<Vec<Value>> {
        let mut all = Vec::new();
        for kind in [
            "VirtualService",
            "DirectorBinding",
            "RealServerBinding",
            "LvsNode",
            "DirectorGroup",
            "AddressPool",
        ] {
            let objects = self.operator.admin.list(kind, "")?;
            let others = objects
                .into_iter()
                .filter(|object| object.pointer("/metadata/namespace") != Some(&json!("shop")));
            let objects: Vec<Value> = others
                .map(|object| {
                    let name = object.pointer("/metadata/name");
                    let is_own = kind == "AddressPool" && name == Some(&json!(OWN_POOL));
                    let status = Some(&object["status"]).filter(|_| !is_own);
                    json!({
                        "kind": kind, "name": name, "uid": object.pointer("/metadata/uid"),
                        "spec": object["spec"], "status": status,
                    })
                })
                .collect();
            ensure!(!objects.is_empty(), "there is no {kind} to protect");
            all.extend(objects);
        }
        Ok(all)
    }

    fn attempt(&self, object: &Value, answer: &Answer) -> Result<()> {
        let applied = self.tenant.apply(object);
        match answer {
            Refused(text) => {
                let error = applied.err().context("not refused")?;
                let error = format!("{error:#}");
                ensure!(error.contains(text), "{error}");
            }
            Stalled(reason) => {
                applied?;
                let wanted = format!("True {reason}");
                let found =
                    self.tenant
                        .await_that("VirtualService", "shop/tried", &wanted, |object| {
                            condition_of(object, "Stalled").as_ref() == Some(&wanted)
                        })?;
                let message = message_of(&found, "Stalled").unwrap_or_default();
                ensure!(
                    message.contains("must") || message.contains("no "),
                    "{message}"
                );
                let bindings = self.operator.admin.list("DirectorBinding", "")?;
                let own = bindings.iter().filter(|binding| {
                    binding.pointer("/metadata/namespace") == Some(&json!("shop"))
                });
                ensure!(own.count() == 0, "it has a binding");
                self.tenant.delete("VirtualService", "shop/tried")?;
            }
        }
        Ok(())
    }

    /// The status of an own virtual service says that a VIP of another is granted to it.
    fn try_own_status(&self) -> Result<()> {
        let changes = json!({"forwarding": "NAT", "backends": []});
        let mut object = service("shop", "tried", &changes);
        self.tenant.apply(&object)?;
        object["status"] = json!({"addresses": ["10.9.2.1"]});
        let written = self.tenant.apply_status("tenant", &object);
        is_forbidden(written).context("the status of its own")?;
        self.tenant.delete("VirtualService", "shop/tried")?;
        self.await_unbound()
    }

    /// CVE-2021-25740: a slice that is written by hand names the machine of another tenant. The role may not write it; the role
    /// of a cluster that was made before Kubernetes 1.22 may.
    fn try_endpoint_slice(&self) -> Result<()> {
        self.tenant.apply(&json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "shop", "name": "web"},
            "spec": {"ports": [{"port": 80}]},
        }))?;
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"namespace": "shop", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4", "ports": [{"port": 80}],
            "endpoints": [{"addresses": ["10.7.0.21"]}, {"addresses": ["10.8.0.11"]}],
        });
        is_forbidden(self.tenant.apply(&slice)).context("a slice by hand")?;
        self.permit_slices()?;
        wait_until("the right to write slices", Duration::from_secs(20), || {
            Ok(self.tenant.apply(&slice).ok())
        })?;
        let changes = json!({"forwarding": "NAT", "backends": [{"service": {"name": "web"}}]});
        self.tenant.apply(&service("shop", "tried", &changes))?;
        let binding = self.operator.admin.await_that(
            "DirectorBinding",
            "shop/tried.lvs1",
            "made",
            |object| !object.is_null(),
        )?;
        let text = binding["spec"].to_string();
        ensure!(
            !text.contains("10.7.0.21") && !text.contains("10.8.0.11"),
            "{text}"
        );
        self.tenant.delete("VirtualService", "shop/tried")?;
        self.await_unbound()
    }

    /// Gives the tenant the right to write EndpointSlices.
    fn permit_slices(&self) -> Result<()> {
        let arguments = ["create", "role", "slices", "--namespace=shop"];
        let options = [
            "--verb=create,patch",
            "--resource=endpointslices.discovery.k8s.io",
        ];
        let control_plane = &self.operator.control_plane;
        control_plane.kubectl(&[&arguments[..], &options].concat())?;
        let arguments = ["create", "rolebinding", "slices", "--namespace=shop"];
        let options = ["--role=slices", "--serviceaccount=shop:tenant"];
        control_plane
            .kubectl(&[&arguments[..], &options].concat())
            .map(drop)
    }

    fn await_unbound(&self) -> Result<()> {
        wait_until("the binding to go", Duration::from_secs(20), || {
            let found = self
                .operator
                .admin
                .find("DirectorBinding", "shop/tried.lvs1")?;
            Ok(found.is_none().then_some(()))
        })
    }
}

/// Succeeds if the role does not permit a write. The admission policy, which refuses some of them too, says something else.
fn is_forbidden<T>(written: Result<T>) -> Result<()> {
    let error = written.err().context("not refused")?;
    let error = format!("{error:#}");
    let is_forbidden = error.contains("is forbidden: User") && error.contains(" cannot ");
    ensure!(is_forbidden, "{error}");
    Ok(())
}

/// An attempt: what it is, the fields of a virtual service of the namespace `shop`, and the answer.
type Attempt = (&'static str, Value, Answer);

fn virtual_services() -> Vec<Attempt> {
    let mut all = vips();
    all.extend(unusable_vips());
    all.extend(real_servers());
    all.extend(others());
    all
}

fn vip(address: &str) -> Value {
    json!({"addresses": [address]})
}

fn port(address: &str, port: u32) -> Value {
    json!({"addresses": [address], "ports": [{"port": port}]})
}

fn vips() -> Vec<Attempt> {
    [
        ("the VIP of another", vip("10.9.2.1")),
        ("the VIP of another, another port", port("10.9.2.1", 81)),
        ("a VIP of the pool of another", vip("10.9.2.7")),
        ("a VIP of no pool", vip("203.0.113.9")),
        ("the director's own address", vip("10.8.0.11")),
        ("its ssh", port("10.8.0.11", 22)),
        ("its kubelet", port("10.8.0.11", 10250)),
        ("its API server", port("10.8.0.11", 6443)),
        ("an own address in the pool", vip("10.9.1.11")),
        ("its ssh in the pool", port("10.9.1.11", 22)),
        ("a real server's address", vip("10.7.0.21")),
        ("a gateway", vip("10.8.0.1")),
        ("the address of a network in the pool", vip("10.9.1.0")),
        ("the broadcast address in the pool", vip("10.9.1.255")),
        ("the Service of the API server", vip("10.96.0.1")),
        ("the resolver", port("10.96.0.10", 53)),
        ("an IPv6 VIP of no pool", vip("2001:db8::1")),
    ]
    .map(|(what, changes)| (what, changes, Stalled("OutsidePools")))
    .into()
}

fn unusable_vips() -> Vec<Attempt> {
    [
        ("a loopback address", "127.0.0.1"),
        ("a multicast address", "224.0.0.18"),
        ("the metadata service", "169.254.169.254"),
        ("every address", "0.0.0.0"),
    ]
    .map(|(what, address)| (what, vip(address), Refused("unicast")))
    .into()
}

fn server(address: &str) -> Value {
    json!({"addresses": ["10.9.1.50"], "backends": [{"address": address}]})
}

fn real_servers() -> Vec<Attempt> {
    let not_permitted = || Stalled("NotPermitted");
    let mut of_no_group = server("10.9.2.1");
    of_no_group["directorGroup"] = json!("none");
    let service = json!({"addresses": ["10.9.1.50"], "forwarding": "NAT", "backends": [{"service": {"name": "blog/web"}}]});
    vec![
        (
            "the VIP of another as an endpoint",
            server("10.9.2.1"),
            not_permitted(),
        ),
        (
            "the same in a group that is not there",
            of_no_group,
            Stalled("Conflict"),
        ),
        (
            "the real server of another",
            server("10.7.0.21"),
            not_permitted(),
        ),
        (
            "the director as an endpoint",
            server("10.8.0.11"),
            not_permitted(),
        ),
        (
            "the resolver as an endpoint",
            server("10.96.0.10"),
            not_permitted(),
        ),
        (
            "the metadata service as an endpoint",
            server("169.254.169.254"),
            Refused("unicast"),
        ),
        (
            "the Service of another namespace",
            service,
            Stalled("Invalid"),
        ),
    ]
}

fn others() -> Vec<Attempt> {
    let mark = |mark: u32| json!({"addresses": [], "ports": [], "fwmark": mark});
    let many: Vec<Value> = (0..20_000)
        .map(|i| json!({"address": format!("10.6.{}.{}", i / 200, i % 200 + 1)}))
        .collect();
    let ports: Vec<Value> = (1..100).map(|port| json!({"port": port})).collect();
    let many = json!({"addresses": ["10.9.1.50"], "backends": many});
    let ports = json!({"addresses": ["10.9.1.50"], "ports": ports});
    let too_many = || Refused("must have at most");
    vec![
        ("a mark", mark(50), Stalled("NotPermitted")),
        ("the mark of another", mark(7), Stalled("NotPermitted")),
        (
            "the pool of another",
            json!({"addressPool": "blog"}),
            Stalled("NoAddressPool"),
        ),
        (
            "a family that no pool has",
            json!({"ipFamilies": ["IPv6"]}),
            Stalled("NoFreeAddress"),
        ),
        ("20,000 endpoints", many, too_many()),
        ("99 ports", ports, Refused("served by `fwmark`")),
        (
            "a port that is none",
            port("10.9.1.50", 70_000),
            Refused("spec.ports[0].port"),
        ),
    ]
}

/// Objects that an editor of `shop` may not write.
fn objects() -> Vec<(&'static str, Value)> {
    let object = |kind: &str, namespace: &str, name: &str, spec: Value| {
        let mut metadata = json!({"name": name});
        if !namespace.is_empty() {
            metadata["namespace"] = json!(namespace);
        }
        json!({"apiVersion": "lvs-operator.io/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec})
    };
    let global = |kind: &str, name: &str, spec: Value| object(kind, "", name, spec);
    let binding = |namespace: &str| {
        let spec = json!({"node": "lvs1", "virtualService": "web", "generation": 1});
        object("DirectorBinding", namespace, "web.lvs1", spec)
    };
    let served = |namespace: &str| {
        let spec = json!({"node": "rs1", "virtualService": "web"});
        object("RealServerBinding", namespace, "web.rs1", spec)
    };
    let pool = || json!({"addresses": ["10.9.2.0/24"]});
    let identity = || json!({"identity": editor::user("shop", "tenant")});
    let vip = json!({"addresses": ["10.9.2.9"]});
    vec![
        ("a binding of its own", binding("shop")),
        ("the binding of another", binding("blog")),
        ("a real server of its own", served("shop")),
        ("the real server of another", served("blog")),
        ("a machine", global("LvsNode", "mine", identity())),
        (
            "the machine of the director",
            global("LvsNode", "lvs1", identity()),
        ),
        ("a pool", global("AddressPool", "mine", pool())),
        ("its own pool", global("AddressPool", OWN_POOL, pool())),
        ("the pool of another", global("AddressPool", "blog", pool())),
        (
            "the group",
            global(
                "DirectorGroup",
                "edge",
                json!({"nodes": {"names": ["mine"]}}),
            ),
        ),
        (
            "a virtual service of another namespace",
            service("blog", "mine", &vip),
        ),
        (
            "the virtual service of another",
            service("blog", "web", &vip),
        ),
    ]
}

/// Objects that an editor of `shop` may not delete.
fn others_objects() -> [(&'static str, &'static str); 7] {
    [
        ("DirectorBinding", "blog/web.lvs1"),
        ("RealServerBinding", "blog/web.rs1"),
        ("VirtualService", "blog/web"),
        ("LvsNode", "lvs1"),
        ("AddressPool", OWN_POOL),
        ("AddressPool", "blog"),
        ("DirectorGroup", "edge"),
    ]
}

fn service(namespace: &str, name: &str, changes: &Value) -> Value {
    let mut spec = json!({"directorGroup": "edge", "ports": [{"port": 80}]});
    if let (Some(fields), Some(changes)) = (spec.as_object_mut(), changes.as_object()) {
        fields.extend(changes.clone());
    }
    json!({
        "apiVersion": "lvs-operator.io/v1alpha1", "kind": "VirtualService",
        "metadata": {"namespace": namespace, "name": name}, "spec": spec,
    })
}

fn group() -> Value {
    json!({
        "apiVersion": "lvs-operator.io/v1alpha1", "kind": "DirectorGroup",
        "metadata": {"name": "edge"},
        "spec": {
            "nodes": {"names": ["lvs1"]},
            "realServers": {"cidrs": ["10.7.0.0/24"], "namespaces": {"names": ["blog"]}},
            "fwmarks": [{"from": 1, "to": 9, "namespaces": {"names": ["blog"]}}],
        },
    })
}

fn pool(namespace: &str, addresses: &str) -> Value {
    json!({
        "apiVersion": "lvs-operator.io/v1alpha1", "kind": "AddressPool",
        "metadata": {"name": namespace},
        "spec": {"addresses": [addresses], "namespaces": {"names": [namespace]}},
    })
}
