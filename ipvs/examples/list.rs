//! Prints the IPVS table of the present network namespace, as `ipvsadm -Ln` does.

use std::error::Error;

use ipvs_netlink::{
    Destination, Forwarding, Granularity, Handle, SchedulerFlags, Service, ServiceTable,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut handle = Handle::connect().await?;
    let info = handle.info().await?;
    println!(
        "IP Virtual Server version {} (size={})",
        info.version, info.connection_table_size
    );
    println!("Prot LocalAddress:Port Scheduler Flags");
    println!("  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn");
    let mut tables = handle.tables().await?;
    while let Some(ServiceTable {
        service,
        destinations,
    }) = tables.next().await?
    {
        println!("{}", service_line(service));
        for destination in destinations {
            println!("{}", destination_line(destination));
        }
    }
    Ok(())
}

fn service_line(service: &Service) -> String {
    let config = service.config;
    let mut line = format!("{} {}", service.key, config.scheduler);
    for (flag, name) in [
        (SchedulerFlags::SCHED_1, "flag-1"),
        (SchedulerFlags::SCHED_2, "flag-2"),
        (SchedulerFlags::SCHED_3, "flag-3"),
    ] {
        if config.flags.contains(flag) {
            line += &format!(" {name}");
        }
    }
    if let Some(persistence) = config.persistence {
        line += &format!(" persistent {}", persistence.timeout_seconds);
        match persistence.granularity {
            Granularity::Prefix(length) if length == service.key.family().bits() => {}
            Granularity::Prefix(length) => line += &format!(" mask /{length}"),
            Granularity::Netmask(mask) => line += &format!(" mask {mask}"),
        }
        if let Some(engine) = persistence.engine {
            line += &format!(" pe {engine}");
        }
    }
    if config.one_packet {
        line += " ops";
    }
    line
}

fn destination_line(destination: &Destination) -> String {
    let Destination {
        key,
        config,
        stats: _,
        connections,
    } = destination;
    let forwarding = match config.forwarding {
        Forwarding::Masquerade => "Masq",
        Forwarding::Route => "Route",
        Forwarding::Tunnel(_) => "Tunnel",
        Forwarding::Local => "Local",
        Forwarding::Bypass => "Bypass",
        Forwarding::Other(_) => "?",
    };
    format!(
        "  -> {:<28} {forwarding:<7} {:<6} {:<10} {}",
        key.to_string(),
        config.weight,
        connections.active,
        connections.inactive
    )
}
