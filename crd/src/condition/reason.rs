//! The reasons of conditions.

use super::words::words;

words! {
    /// The reason of a condition, in one word for programs.
    pub enum Reason {
        /// The object can be served.
        Accepted,
        /// Everything that the object names is there.
        ResolvedRefs,
        /// All of it is in the kernel of each director. A message is a warning.
        Programmed,
        /// At least one real server takes new connections.
        BackendsHealthy,
        /// Everything is done. A message is a warning.
        Ready,
        /// The spec cannot be served; the message names each field and what it must be. Directors keep the last version that
        /// could be served.
        Invalid,
        /// Another object has the VIP, the port or the mark, or a VIP is the address of a real server or of another machine.
        /// On a DirectorBinding: another program has the IPVS service or the device. On a DirectorGroup: another group has the ids of some of
        /// its virtual routers, or they end at 255.
        Conflict,
        /// The virtual service has a firewall mark, and one of the several directors of the group is a real server that DR or TUN reaches.
        /// One directs the virtual service: packets could go round between several.
        SingleDirector,
        /// The virtual service has too many real servers for machines to know those before a change. When real servers and the active
        /// director change, connections are kept as far as the hash alone leads them to the same real server.
        TooManyRealServers,
        /// The real servers have changed again within `keepSeconds`, and some of those from before the first change have gone. Connections
        /// from before it can be lost if the active director changes.
        ChangedAgain,
        /// The group has several directors, and none of them reports that it holds the VIPs.
        NoActiveDirector,
        /// Several directors report that they hold the same VIPs: their VRRP advertisements do not reach each other.
        SeveralActive,
        /// The VIPs are held, but something is wrong between the directors, such as another router with their id; the message says what.
        RouterProblem,
        /// Everything is done, but the directors have different IPVS tables for it, so that connections can be lost when another one
        /// takes the VIPs over; the message names two of them.
        DirectorsDiffer,
        /// The machine that directs is not in the group while its Node is missing, or new and without its labels. It goes on as
        /// long as its agent is alive.
        LostDirector,
        /// Pods can be real servers with `forwarding: NAT` only.
        PodsNeedNat,
        /// Pods can be real servers with `returnPath: Masquerade` only.
        PodsNeedMasquerade,
        /// The AddressPools that serve the namespace and the group have no free address.
        NoFreeAddress,
        /// No AddressPool serves the namespace and the group, or the named one does not.
        NoAddressPool,
        /// A VIP is in no AddressPool that serves the namespace and the group. One that was granted before stays.
        OutsidePools,
        /// An AddressPool has addresses of another one.
        Overlap,
        /// The group does not let the namespace have the mark, or list the address as a real server.
        NotPermitted,
        /// The DirectorGroup does not exist. Directors keep what they have.
        DirectorGroupNotFound,
        /// The group has no node.
        NoDirector,
        /// The Service does not exist.
        ServiceNotFound,
        /// The Service is of type ExternalName, which has no endpoints.
        ExternalName,
        /// The Service does not have one of the ports; the message names those that it has.
        PortNotFound,
        /// A director has not yet reported that it has this generation.
        Pending,
        /// A step failed on a machine, or IPVS is missing there; the message names the step and the cause.
        ProgrammingFailed,
        /// Another machine answers for a VIP, so it is not added; everything else is in the kernel. If that is an earlier director
        /// of the service, it lets go of the VIP now.
        VipInUse,
        /// Part of it is done. For example, a real server cannot be reached in its forwarding mode.
        Incomplete,
        /// The agent refuses the object, or another one that it depends on; the message names field and reason. The last good
        /// version stays in force.
        Rejected,
        /// The agent could not read the kernel. Bindings keep what was reported last.
        KernelUnreadable,
        /// No real server takes new connections.
        NoRealServer,
        /// The agent of a director has not renewed its Lease for 40 s, so what it reported last is no longer known to be true. The
        /// director may still forward.
        DirectorUnreachable,
        /// The same on an LvsNode, for any machine.
        AgentUnreachable,
        /// No agent has reported from the machine yet. On a virtual service that needs an address: from no director of its group; the
        /// address is allocated once one has.
        NotReported,
        /// The API server refuses to store what the controller writes, for example because of a quota or a webhook; the message
        /// names the object and the cause. It is tried again.
        WriteRefused,
    }
}
