//! A fresh network namespace, and objects to put into its tables.

use std::{net::IpAddr, process::Command};

use ipvs_netlink::{
    DestinationConfig, DestinationKey, Forwarding, Handle, KernelErrorKind, Name, Protocol,
    Request, RequestError, ServiceConfig, ServiceKey,
};
use nix::sched::{CloneFlags, unshare};

/// Runs a test in a new network namespace in which `lo` is up.
///
/// The namespace is the thread's, and the runtime stays on the thread.
pub(crate) fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce(Handle) -> F) {
    enter_namespace();
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(async { test(Handle::connect().await.unwrap()).await });
}

pub(crate) fn enter_namespace() {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    ip(&["link", "set", "lo", "up"]);
}

pub(crate) fn ip(arguments: &[&str]) {
    let status = Command::new("ip").args(arguments).status().unwrap();
    assert!(status.success(), "ip {arguments:?}: {status}");
}

/// Executes requests that must all succeed.
pub(crate) async fn apply(handle: &mut Handle, requests: &[Request]) {
    let failures = handle.execute(requests).await.unwrap();
    assert_eq!(failures, [], "{requests:?}");
}

/// Executes a request that must be refused and returns how.
pub(crate) async fn refused(handle: &mut Handle, request: Request) -> KernelErrorKind {
    let failures = handle.execute(&[request]).await.unwrap();
    let [failure] = failures.as_slice() else {
        panic!("{request}: not refused")
    };
    let RequestError::Refused(error) = &failure.error else {
        panic!("{request}: {failure:?}")
    };
    assert_eq!(error.command(), request.command());
    error.kind()
}

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub(crate) fn tcp(address: &str, port: u16) -> ServiceKey {
    ServiceKey::Address {
        protocol: Protocol::Tcp,
        address: address.parse().unwrap(),
        port,
    }
}

pub(crate) fn scheduled_by(scheduler: &str) -> ServiceConfig {
    ServiceConfig::new(name(scheduler))
}

pub(crate) fn create_service(key: ServiceKey) -> Request {
    Request::CreateService {
        key,
        config: scheduled_by("rr"),
    }
}

pub(crate) fn real_server(address: &str, port: u16) -> DestinationKey {
    DestinationKey {
        address: address.parse().unwrap(),
        port,
    }
}

pub(crate) fn weighing(weight: u32, forwarding: Forwarding) -> DestinationConfig {
    DestinationConfig {
        forwarding,
        weight,
        upper_threshold: 0,
        lower_threshold: 0,
    }
}

/// The key of the `number`th of many services.
pub(crate) fn numbered_service(number: u32) -> ServiceKey {
    let address = IpAddr::from((0x0a00_0000 + number).to_be_bytes());
    ServiceKey::Address {
        protocol: Protocol::Tcp,
        address,
        port: 80,
    }
}

/// The key of the `number`th of many destinations.
pub(crate) fn numbered_destination(number: u32) -> DestinationKey {
    let address = IpAddr::from((0xc0a8_0001 + number).to_be_bytes());
    DestinationKey {
        address,
        port: 8080,
    }
}

/// Requests that create this many services with this many destinations each.
pub(crate) fn table(services: u32, destinations: u32) -> Vec<Request> {
    let mut requests = Vec::new();
    for service in (0..services).map(numbered_service) {
        requests.push(create_service(service));
        requests.extend((0..destinations).map(|number| Request::CreateDestination {
            service,
            key: numbered_destination(number),
            config: weighing(1, Forwarding::Masquerade),
        }));
    }
    requests
}
