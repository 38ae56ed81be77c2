//! The examples, and the objects in the documents, are applied to an API server.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use lab::Operator;
use serde_json::{Value, json};

#[test]
fn every_example_is_accepted_and_the_one_for_a_cluster_gets_a_vip_of_its_pool() -> Result<()> {
    let operator = Operator::install(&["lvs1"])?;
    operator.admit("lvs1")?;
    operator
        .machine("lvs1")?
        .describe(&["192.168.220.11/24"], &[])?;
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
    assert_eq!(taken, 9);

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

/// A block of a document that is part of an object, or of a file with the values of the chart, has no `apiVersion`. Objects of
/// other groups are not the operator's to check.
#[test]
fn every_object_in_the_documents_is_accepted() -> Result<()> {
    let operator = Operator::install(&[])?;
    operator.namespace("shop")?;
    let file = operator.control_plane.directory().join("document.yaml");
    let path = file.to_str().context("a path that is no text")?;
    let mut objects = 0;
    for document in documents()? {
        for block in blocks(&fs::read_to_string(&document)?) {
            let own = block.split("\n---\n").filter(|object| {
                let mut lines = object.lines();
                lines.any(|line| line.starts_with("apiVersion: lvs-operator.io/"))
            });
            for object in own {
                fs::write(&file, object)?;
                let apply = ["apply", "--server-side", "--dry-run=server", "-f", path];
                let applied = operator.control_plane.kubectl(&apply);
                applied.with_context(|| format!("{}:\n{object}", document.display()))?;
                objects += 1;
            }
        }
    }
    println!("{objects} objects");
    ensure!(objects >= 9, "only {objects} objects were found");
    Ok(())
}

/// The README and everything in `docs`.
fn documents() -> Result<Vec<PathBuf>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut folders = vec![root.join("docs")];
    let mut found = vec![root.join("README.md")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    Ok(found)
}

/// The fenced blocks of a document, without the indentation of the list entries that they are in.
fn blocks(document: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        let Some(indent) = line.find("```") else {
            continue;
        };
        let end = |line: &&str| !line.trim_start().starts_with("```");
        let block = lines.by_ref().take_while(end);
        let block = block.map(|line| line.get(indent..).unwrap_or_default());
        blocks.push(block.collect::<Vec<_>>().join("\n"));
    }
    blocks
}
