//! The examples are applied to an API server.

use std::{fs, path::Path};

use anyhow::Result;
use lab::Operator;
use serde_json::{Value, json};

#[test]
fn every_example_is_accepted_and_the_one_for_a_cluster_gets_a_vip_of_its_pool() -> Result<()> {
    let operator = Operator::install(&["lvs1"])?;
    let _controller = operator.lead("one")?;
    for namespace in ["shop", "infra"] {
        operator.namespace(namespace)?;
    }
    operator.admin.apply(&json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "shop", "name": "web"},
        "spec": {"ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
    }))?;
    operator.admin.apply(&json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"namespace": "shop", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4", "ports": [{"name": "http", "port": 8080}],
        "endpoints": [{"addresses": ["10.244.0.7"], "targetRef": {"kind": "Pod"}}],
    }))?;

    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut taken = 0;
    for folder in [folder.clone(), folder.join("cluster")] {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_file() {
                operator.control_plane.apply(&fs::read_to_string(&path)?)?;
                taken += 1;
            }
        }
    }
    assert_eq!(taken, 5);

    operator.admin.await_that(
        "DirectorBinding",
        "shop/web.lvs1",
        "its endpoint",
        |object| {
            let text = |path: &str| object.pointer(path).and_then(Value::as_str);
            // Other examples name the pool's first address.
            text("/spec/addresses/0") == Some("192.168.220.101")
                && text("/spec/realServers/0/address") == Some("10.244.0.7")
                && object.pointer("/spec/realServers/0/ports/0") == Some(&json!(8080))
        },
    )?;
    Ok(())
}
