//! The lab's Kubernetes controllers and scheduler.

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
fn the_controllers_create_pods_and_slices_and_the_scheduler_looks_for_a_node() -> Result<()> {
    let control_plane = start_with_controllers()?;
    control_plane.apply(SHOP)?;
    let reasons = r#"jsonpath={.items[*].status.conditions[?(@.type=="PodScheduled")].reason}"#;
    await_answer(
        &control_plane,
        &["get", "pods", "--selector=app=shop", "-o", reasons],
        "Unschedulable",
    )?;
    let of_shop = "--selector=kubernetes.io/service-name=shop-front";
    let families = "jsonpath={.items[*].addressType}";
    await_answer(
        &control_plane,
        &["get", "endpointslices", of_shop, "-o", families],
        "IPv4",
    )
}

#[test]
fn the_controllers_work_on_after_an_outage_of_the_api_server() -> Result<()> {
    let mut control_plane = start_with_controllers()?;
    control_plane.stop_api_server()?;
    control_plane.start_api_server()?;
    control_plane.apply(SHOP)?;
    let names = "jsonpath={.items[*].spec.containers[*].name}";
    await_answer(&control_plane, &["get", "pods", "-o", names], "till")?;
    control_plane.check()
}

fn start_with_controllers() -> Result<ControlPlane> {
    let mut control_plane = ControlPlane::start_as(&ControlPlaneSpec {
        programs: ProgramSet::Cluster,
        ..ControlPlaneSpec::default()
    })?;
    control_plane.start_controller_manager()?;
    control_plane.start_scheduler()?;
    Ok(control_plane)
}

fn await_answer(control_plane: &ControlPlane, question: &[&str], answer: &str) -> Result<()> {
    wait_until(&format!("`{answer}`"), Duration::from_secs(60), || {
        Ok((control_plane.kubectl(question)? == answer).then_some(()))
    })
}
