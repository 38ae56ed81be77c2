//! Parses ipvsadm command lines, so that tests can compare the text of a step with the step.

use std::{
    collections::VecDeque,
    net::{Ipv4Addr, SocketAddr},
    str::FromStr,
};

use lvs_model::{
    Destination, DestinationKey, Family, Forwarding, IpvsStep, Persistence, Protocol, Scheduler,
    SchedulerName, ServiceConfig, ServiceKey, Timeouts, Tunnel, TunnelChecksum, TunnelKind,
};

/// Parses one command line into its step.
pub(crate) fn parse(line: &str) -> Result<IpvsStep, String> {
    let mut words: VecDeque<&str> = line.split_whitespace().collect();
    if words.pop_front() != Some("ipvsadm") {
        return Err(format!("not an ipvsadm line: {line}"));
    }
    let verb = words.pop_front().ok_or("no verb")?;
    if verb == "--set" {
        return Ok(IpvsStep::SetTimeouts {
            timeouts: Timeouts {
                tcp_seconds: value(&mut words)?,
                tcp_fin_seconds: value(&mut words)?,
                udp_seconds: value(&mut words)?,
            },
            previous: None,
        });
    }
    let arguments = Arguments::read(words)?;
    let service = arguments.service()?;
    match verb {
        "-A" => Ok(IpvsStep::AddService {
            key: service,
            config: Box::new(arguments.config(service.family())?),
        }),
        "-E" => Ok(IpvsStep::EditService {
            key: service,
            config: Box::new(arguments.config(service.family())?),
        }),
        "-D" => Ok(IpvsStep::RemoveService(service)),
        "-a" => Ok(IpvsStep::AddDestination {
            service,
            key: arguments.destination_key()?,
            destination: arguments.destination()?,
        }),
        "-e" => Ok(IpvsStep::EditDestination {
            service,
            key: arguments.destination_key()?,
            destination: arguments.destination()?,
        }),
        "-d" => Ok(IpvsStep::RemoveDestination {
            service,
            key: arguments.destination_key()?,
        }),
        other => Err(format!("unknown verb {other}")),
    }
}

/// The options of a command line, each at most once.
#[derive(Default)]
struct Arguments<'a> {
    address: Option<(Protocol, SocketAddr)>,
    mark: Option<&'a str>,
    six: bool,
    scheduler: Option<&'a str>,
    flags: Option<&'a str>,
    persistence: Option<&'a str>,
    mask: Option<&'a str>,
    engine: Option<&'a str>,
    one_packet: bool,
    real_server: Option<SocketAddr>,
    method: Option<char>,
    tunnel_kind: Option<&'a str>,
    tunnel_port: Option<u16>,
    checksum: TunnelChecksum,
    weight: Option<u32>,
    upper: u32,
    lower: u32,
}

impl<'a> Arguments<'a> {
    fn read(mut words: VecDeque<&'a str>) -> Result<Self, String> {
        let mut found = Self::default();
        while let Some(option) = words.pop_front() {
            let words = &mut words;
            match option {
                "-t" => found.address = Some((Protocol::Tcp, value(words)?)),
                "-u" => found.address = Some((Protocol::Udp, value(words)?)),
                "--sctp-service" => found.address = Some((Protocol::Sctp, value(words)?)),
                "-f" => found.mark = words.pop_front(),
                "-6" => found.six = true,
                "-s" => found.scheduler = words.pop_front(),
                "-b" => found.flags = words.pop_front(),
                "-p" => found.persistence = words.pop_front(),
                "-M" => found.mask = words.pop_front(),
                "--pe" => found.engine = words.pop_front(),
                "-o" => found.one_packet = true,
                "-r" => found.real_server = Some(value(words)?),
                "-m" | "-g" | "-i" => found.method = option.chars().nth(1),
                "--tun-type" => found.tunnel_kind = words.pop_front(),
                "--tun-port" => found.tunnel_port = Some(value(words)?),
                "--tun-nocsum" => found.checksum = TunnelChecksum::None,
                "--tun-csum" => found.checksum = TunnelChecksum::Outer,
                "--tun-remcsum" => found.checksum = TunnelChecksum::Remote,
                "-w" => found.weight = Some(value(words)?),
                "-x" => found.upper = value(words)?,
                "-y" => found.lower = value(words)?,
                other => return Err(format!("unknown option {other}")),
            }
        }
        Ok(found)
    }

    fn service(&self) -> Result<ServiceKey, String> {
        match (self.address, self.mark) {
            (Some((protocol, socket)), None) => Ok(ServiceKey::Address {
                address: socket.ip(),
                protocol,
                port: socket.port(),
            }),
            (None, Some(mark)) => Ok(ServiceKey::Fwmark {
                mark: mark.parse().map_err(|_| format!("bad mark {mark}"))?,
                family: if self.six { Family::V6 } else { Family::V4 },
            }),
            (Some(_), Some(_)) | (None, None) => {
                Err("needs exactly one of -t, -u, --sctp-service and -f".to_owned())
            }
        }
    }

    fn config(&self, family: Family) -> Result<ServiceConfig, String> {
        let name = self.scheduler.ok_or("no -s")?;
        name.parse::<SchedulerName>()
            .map_err(|()| format!("unknown scheduler {name}"))?;
        let flags = self.flags.unwrap_or_default();
        let flags = flags.split(',').filter(|flag| !flag.is_empty());
        Ok(ServiceConfig {
            scheduler: Scheduler {
                name: name.to_owned().into(),
                flags: flags
                    .map(|flag| flag_bit(name, flag))
                    .try_fold(0, |all, bit| Ok::<_, String>(all | bit?))?,
            },
            persistence: self.persistence(family)?,
            one_packet: self.one_packet,
        })
    }

    fn persistence(&self, family: Family) -> Result<Option<Persistence>, String> {
        let Some(timeout) = self.persistence else {
            return match (self.mask, self.engine) {
                (None, None) => Ok(None),
                _ => Err("-M or --pe without -p".to_owned()),
            };
        };
        let prefix_length = match (self.mask, family) {
            (None, family) => family.host_prefix(),
            (Some(mask), Family::V6) => mask.parse().map_err(|_| format!("bad prefix {mask}"))?,
            (Some(mask), Family::V4) => {
                let mask: Ipv4Addr = mask.parse().map_err(|_| format!("bad netmask {mask}"))?;
                ipnet::ipv4_mask_to_prefix(mask).map_err(|error| error.to_string())?
            }
        };
        Ok(Some(Persistence {
            timeout_seconds: timeout.parse().map_err(|_| format!("bad -p {timeout}"))?,
            prefix_length,
            engine: self.engine.map(str::to_owned),
        }))
    }

    fn destination_key(&self) -> Result<DestinationKey, String> {
        let socket = self.real_server.ok_or("no -r")?;
        Ok(DestinationKey {
            address: socket.ip(),
            port: socket.port(),
        })
    }

    fn destination(&self) -> Result<Destination, String> {
        let kind = match (self.tunnel_kind, self.tunnel_port) {
            (None, None) => TunnelKind::Ipip,
            (Some("gue"), Some(port)) => TunnelKind::Gue { port },
            (Some("gre"), None) => TunnelKind::Gre,
            other => return Err(format!("bad tunnel {other:?}")),
        };
        let tunnel = Tunnel {
            kind,
            checksum: self.checksum,
        };
        let forwarding = match self.method {
            Some('m') => Forwarding::Nat,
            Some('i') => Forwarding::Tun(tunnel),
            Some('g') => Forwarding::Dr,
            other => return Err(format!("no forwarding method: {other:?}")),
        };
        Ok(Destination {
            forwarding,
            weight: self.weight.ok_or("no -w")?,
            upper_threshold: self.upper,
            lower_threshold: self.lower,
        })
    }
}

fn flag_bit(scheduler: &str, flag: &str) -> Result<u8, String> {
    match flag {
        "flag-1" => Ok(1),
        "flag-2" => Ok(2),
        "flag-3" => Ok(4),
        _ if flag == format!("{scheduler}-fallback") => Ok(1),
        _ if flag == format!("{scheduler}-port") => Ok(2),
        _ => Err(format!("unknown flag {flag} of {scheduler}")),
    }
}

fn value<T: FromStr>(words: &mut VecDeque<&str>) -> Result<T, String> {
    let word = words.pop_front().ok_or("a value is missing")?;
    word.parse().map_err(|_| format!("bad value {word}"))
}
