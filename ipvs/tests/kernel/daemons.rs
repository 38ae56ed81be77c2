//! Connection-sync daemons.

use ipvs_netlink::{Daemon, DaemonState, KernelErrorKind, Request};

use super::namespace::{apply, in_namespace, ip, name, refused};

#[test]
#[ignore = "needs a kernel with IPVS and CAP_NET_ADMIN"]
fn both_daemons_are_started_read_back_and_stopped() {
    in_namespace(async |mut handle| {
        add_interface();
        let mut master = Daemon::new(DaemonState::Master, name("sync0"), 9);
        master.max_length = Some(1400);
        master.group = Some("224.0.0.90".parse().unwrap());
        master.port = Some(8850);
        master.ttl = Some(2);
        let backup = Daemon::new(DaemonState::Backup, name("sync0"), 0);
        apply(
            &mut handle,
            &[Request::StartDaemon(master), Request::StartDaemon(backup)],
        )
        .await;

        let found = handle.daemons().await.unwrap();
        assert_eq!(found[0], master);
        assert_eq!((found[1].state, found[1].sync_id), (DaemonState::Backup, 0));
        assert_eq!((found[1].port, found[1].ttl), (Some(8848), Some(1)));
        assert_eq!(found[1].group, Some("224.0.0.81".parse().unwrap()));

        let stop = [DaemonState::Master, DaemonState::Backup].map(Request::StopDaemon);
        apply(&mut handle, &stop).await;
        assert_eq!(handle.daemons().await.unwrap(), []);
    });
}

#[test]
#[ignore = "needs a kernel with IPVS and CAP_NET_ADMIN"]
fn a_daemon_may_use_an_ipv6_group() {
    in_namespace(async |mut handle| {
        add_interface();
        let mut master = Daemon::new(DaemonState::Master, name("sync0"), 1);
        master.group = Some("ff02::90".parse().unwrap());
        apply(&mut handle, &[Request::StartDaemon(master)]).await;

        assert_eq!(handle.daemons().await.unwrap()[0].group, master.group);

        apply(&mut handle, &[Request::StopDaemon(DaemonState::Master)]).await;
    });
}

#[test]
#[ignore = "needs a kernel with IPVS and CAP_NET_ADMIN"]
fn refused_daemons_have_a_reason() {
    in_namespace(async |mut handle| {
        add_interface();
        let master =
            |interface| Request::StartDaemon(Daemon::new(DaemonState::Master, name(interface), 1));
        let stop = Request::StopDaemon(DaemonState::Master);
        assert_eq!(
            refused(&mut handle, stop).await,
            KernelErrorKind::DaemonNotFound
        );
        assert_eq!(
            refused(&mut handle, master("no0")).await,
            KernelErrorKind::InterfaceNotFound
        );

        apply(&mut handle, &[master("sync0")]).await;
        assert_eq!(
            refused(&mut handle, master("sync0")).await,
            KernelErrorKind::DaemonExists
        );

        apply(&mut handle, &[stop]).await;
    });
}

fn add_interface() {
    ip(&["link", "add", "sync0", "type", "dummy"]);
    ip(&["address", "add", "198.51.100.1/24", "dev", "sync0"]);
    ip(&["link", "set", "sync0", "up"]);
    ip(&[
        "address",
        "add",
        "2001:db8:1::1/64",
        "dev",
        "sync0",
        "nodad",
    ]);
}
