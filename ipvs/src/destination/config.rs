//! The settings of a destination, and the attributes that carry them.

use crate::wire::DestinationAttribute;

const IP_VS_CONN_F_FWD_MASK: u32 = 0x0007;
const IP_VS_CONN_F_MASQ: u32 = 0;
const IP_VS_CONN_F_LOCALNODE: u32 = 1;
const IP_VS_CONN_F_TUNNEL: u32 = 2;
const IP_VS_CONN_F_DROUTE: u32 = 3;
const IP_VS_CONN_F_BYPASS: u32 = 4;

const IP_VS_CONN_F_TUNNEL_TYPE_IPIP: u8 = 0;
const IP_VS_CONN_F_TUNNEL_TYPE_GUE: u8 = 1;
const IP_VS_CONN_F_TUNNEL_TYPE_GRE: u8 = 2;

const IP_VS_TUNNEL_ENCAP_FLAG_NOCSUM: u16 = 0;
const IP_VS_TUNNEL_ENCAP_FLAG_CSUM: u16 = 1;
const IP_VS_TUNNEL_ENCAP_FLAG_REMCSUM: u16 = 2;

/// The settings of a destination. Settings that the kernel does not distinguish are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DestinationConfig {
    /// How packets reach the real server (`IPVS_DEST_ATTR_FWD_METHOD`, `_TUN_*`).
    pub forwarding: Forwarding,
    /// The share of connections; with 0 it gets no new ones and keeps those that it has
    /// (`IPVS_DEST_ATTR_WEIGHT`). More than 2^31 - 1 is refused.
    pub weight: u32,
    /// The number of connections at which it gets no new ones; 0 is no limit
    /// (`IPVS_DEST_ATTR_U_THRESH`).
    pub upper_threshold: u32,
    /// The number of connections below which it gets new ones again
    /// (`IPVS_DEST_ATTR_L_THRESH`). More than the upper threshold is refused.
    pub lower_threshold: u32,
}

/// How packets reach a real server (`IP_VS_CONN_F_FWD_MASK` of `IPVS_DEST_ATTR_FWD_METHOD`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Forwarding {
    /// Network address translation (`IP_VS_CONN_F_MASQ`, `ipvsadm -m`).
    Masquerade,
    /// Direct routing: the packet as it is, to the real server's link address
    /// (`IP_VS_CONN_F_DROUTE`, `ipvsadm -g`).
    Route,
    /// Inside a tunnel (`IP_VS_CONN_F_TUNNEL`, `ipvsadm -i`).
    Tunnel(Tunnel),
    /// To this machine (`IP_VS_CONN_F_LOCALNODE`). The kernel detects this by itself, so that it
    /// need not be set.
    Local,
    /// Past IPVS (`IP_VS_CONN_F_BYPASS`), which the kernel uses for itself.
    Bypass,
    /// A method without a name, 5 to 7, seen on destinations of other programs.
    Other(u8),
}

/// The tunnel to a real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tunnel {
    /// The encapsulation (`IPVS_DEST_ATTR_TUN_TYPE`, `_TUN_PORT`).
    pub kind: TunnelKind,
    /// The checksum of the outer header, for GUE and GRE (`IPVS_DEST_ATTR_TUN_FLAGS`).
    pub checksum: TunnelChecksum,
}

impl Tunnel {
    /// IP in IP, the tunnel of every kernel.
    pub const IPIP: Self = Self {
        kind: TunnelKind::Ipip,
        checksum: TunnelChecksum::None,
    };
}

/// The encapsulation of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TunnelKind {
    /// IP in IP (`IP_VS_CONN_F_TUNNEL_TYPE_IPIP`).
    Ipip,
    /// Generic UDP encapsulation, since Linux 5.2 (`IP_VS_CONN_F_TUNNEL_TYPE_GUE`).
    Gue {
        /// The UDP port on which the real server listens; 0 is refused.
        port: u16,
    },
    /// Generic routing encapsulation, since Linux 5.3 (`IP_VS_CONN_F_TUNNEL_TYPE_GRE`).
    Gre,
    /// A type without a name, seen on destinations of other programs.
    Other {
        /// The number of the type.
        number: u8,
        /// The port that the kernel reports with it.
        port: u16,
    },
}

/// The checksum of a tunnel's outer header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TunnelChecksum {
    /// None (`IP_VS_TUNNEL_ENCAP_FLAG_NOCSUM`).
    None,
    /// Computed (`IP_VS_TUNNEL_ENCAP_FLAG_CSUM`).
    Checksum,
    /// Remote checksum offload, GUE only (`IP_VS_TUNNEL_ENCAP_FLAG_REMCSUM`).
    Remote,
    /// Flags without a name, seen on destinations of other programs.
    Other(u16),
}

impl DestinationConfig {
    /// Yields the attributes of the settings.
    pub(crate) fn attributes(self) -> impl Iterator<Item = DestinationAttribute> {
        let Self {
            forwarding,
            weight,
            upper_threshold,
            lower_threshold,
        } = self;
        [
            DestinationAttribute::ForwardingMethod(forwarding.number()),
            DestinationAttribute::Weight(weight),
            DestinationAttribute::UpperThreshold(upper_threshold),
            DestinationAttribute::LowerThreshold(lower_threshold),
        ]
        .into_iter()
        .chain(forwarding.tunnel().into_iter().flat_map(Tunnel::attributes))
    }
}

impl Forwarding {
    fn number(self) -> u32 {
        match self {
            Self::Masquerade => IP_VS_CONN_F_MASQ,
            Self::Local => IP_VS_CONN_F_LOCALNODE,
            Self::Tunnel(_) => IP_VS_CONN_F_TUNNEL,
            Self::Route => IP_VS_CONN_F_DROUTE,
            Self::Bypass => IP_VS_CONN_F_BYPASS,
            Self::Other(number) => number.into(),
        }
    }

    fn tunnel(self) -> Option<Tunnel> {
        match self {
            Self::Tunnel(tunnel) => Some(tunnel),
            Self::Masquerade | Self::Local | Self::Route | Self::Bypass | Self::Other(_) => None,
        }
    }

    /// Reads the method; `tunnel` counts only when the method is a tunnel.
    pub(super) fn from_wire(flags: u32, tunnel: Tunnel) -> Self {
        match flags & IP_VS_CONN_F_FWD_MASK {
            IP_VS_CONN_F_MASQ => Self::Masquerade,
            IP_VS_CONN_F_LOCALNODE => Self::Local,
            IP_VS_CONN_F_TUNNEL => Self::Tunnel(tunnel),
            IP_VS_CONN_F_DROUTE => Self::Route,
            IP_VS_CONN_F_BYPASS => Self::Bypass,
            other => Self::Other(u8::try_from(other).unwrap_or(u8::MAX)),
        }
    }
}

impl Tunnel {
    fn attributes(self) -> impl Iterator<Item = DestinationAttribute> {
        let (number, port) = match self.kind {
            TunnelKind::Ipip => (IP_VS_CONN_F_TUNNEL_TYPE_IPIP, 0),
            TunnelKind::Gue { port } => (IP_VS_CONN_F_TUNNEL_TYPE_GUE, port),
            TunnelKind::Gre => (IP_VS_CONN_F_TUNNEL_TYPE_GRE, 0),
            TunnelKind::Other { number, port } => (number, port),
        };
        let flags = match self.checksum {
            TunnelChecksum::None => IP_VS_TUNNEL_ENCAP_FLAG_NOCSUM,
            TunnelChecksum::Checksum => IP_VS_TUNNEL_ENCAP_FLAG_CSUM,
            TunnelChecksum::Remote => IP_VS_TUNNEL_ENCAP_FLAG_REMCSUM,
            TunnelChecksum::Other(flags) => flags,
        };
        [
            DestinationAttribute::TunnelType(number),
            DestinationAttribute::TunnelPort(port),
            DestinationAttribute::TunnelFlags(flags),
        ]
        .into_iter()
    }

    pub(super) fn from_wire(number: u8, port: u16, flags: u16) -> Self {
        let kind = match number {
            IP_VS_CONN_F_TUNNEL_TYPE_IPIP => TunnelKind::Ipip,
            IP_VS_CONN_F_TUNNEL_TYPE_GUE => TunnelKind::Gue { port },
            IP_VS_CONN_F_TUNNEL_TYPE_GRE => TunnelKind::Gre,
            number => TunnelKind::Other { number, port },
        };
        let checksum = match flags {
            IP_VS_TUNNEL_ENCAP_FLAG_NOCSUM => TunnelChecksum::None,
            IP_VS_TUNNEL_ENCAP_FLAG_CSUM => TunnelChecksum::Checksum,
            IP_VS_TUNNEL_ENCAP_FLAG_REMCSUM => TunnelChecksum::Remote,
            flags => TunnelChecksum::Other(flags),
        };
        Self { kind, checksum }
    }
}
