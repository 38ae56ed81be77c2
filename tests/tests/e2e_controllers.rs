//! The controllers of Kubernetes beside the API server.

use std::time::Duration;

use anyhow::Result;
use lab::{ControlPlane, ControlPlaneSpec, ProgramSet, wait_until};

const SHOP: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop}
spec:
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec: {containers: [{name: till, image: none}]}
---
apiVersion: v1
kind: Service
metadata: {name: shop-front}
spec: {selector: {app: shop}, ports: [{port: 80, targetPort: 8080}]}
";

#[test]
fn the_controllers_make_pods_and_slices_and_the_scheduler_looks_for_a_node() -> Result<()> {
    let mut control_plane = ControlPlane::start_as(&ControlPlaneSpec {
        programs: ProgramSet::Cluster,
        ..ControlPlaneSpec::default()
    })?;
    control_plane.start_controller_manager()?;
    control_plane.start_scheduler()?;
    control_plane.apply(SHOP)?;
    let await_answer = |question: &[&str], answer: &str| {
        let question = [&["get", "-o"], question].concat();
        wait_until(&format!("`{answer}`"), Duration::from_secs(60), || {
            Ok((control_plane.kubectl(&question)? == answer).then_some(()))
        })
    };
    await_answer(
        &[
            r#"jsonpath={.items[*].status.conditions[?(@.type=="PodScheduled")].reason}"#,
            "pods",
            "--selector=app=shop",
        ],
        "Unschedulable",
    )?;
    await_answer(
        &[
            "jsonpath={.items[*].addressType}",
            "endpointslices",
            "--selector=kubernetes.io/service-name=shop-front",
        ],
        "IPv4",
    )
}
