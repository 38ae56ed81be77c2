//! The watched objects, as the watches last showed them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use k8s_openapi::{
    api::{core::v1::Node, discovery::v1::EndpointSlice},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::core::PartialObjectMeta;
use lvs_crd::{
    AddressPool, DirectorBinding, DirectorGroup, LvsNode, RealServerBinding, VirtualService,
    convert::{KubeService, KubeServiceSpec, NamespaceLabels, UnreadableSlice},
};
use lvs_model::{NodeName, ObjectName, PoolName};
use lvs_runtime::guarded::Undecodable;

/// The label by which a slice names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// An object that was created or updated, or with `None` one that was deleted.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// A VirtualService.
    VirtualService(ObjectName, Option<Arc<VirtualService>>),
    /// A VirtualService that cannot be decoded and was not seen before.
    UnreadableService(ObjectName),
    /// A DirectorGroup.
    DirectorGroup(String, Option<Arc<DirectorGroup>>),
    /// An AddressPool.
    AddressPool(PoolName, Option<Arc<AddressPool>>),
    /// The labels of a Namespace.
    Namespace(String, Option<BTreeMap<String, String>>),
    /// A Service.
    Service(ObjectName, Option<Arc<KubeServiceSpec>>),
    /// An EndpointSlice.
    EndpointSlice(ObjectName, Option<Arc<EndpointSlice>>),
    /// An EndpointSlice that cannot be decoded.
    UnreadableSlice(ObjectName, Arc<Undecodable>),
    /// A Node: only its metadata.
    Node(NodeName, Option<Arc<PartialObjectMeta<Node>>>),
    /// Whether a Node is cordoned, after a change.
    Cordoned(NodeName, bool),
    /// An LvsNode.
    LvsNode(NodeName, Option<Arc<LvsNode>>),
    /// A DirectorBinding.
    DirectorBinding(ObjectName, Option<Arc<DirectorBinding>>),
    /// Whether a machine's agent is alive, after a change.
    Agent(NodeName, bool),
    /// Every agent that is alive has been seen.
    AgentsKnown,
    /// A RealServerBinding.
    RealServerBinding(ObjectName, Option<Arc<RealServerBinding>>),
}

/// The watched objects, as the watches last showed them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Objects {
    /// The VirtualServices, without those that are being deleted.
    pub services: BTreeMap<ObjectName, Arc<VirtualService>>,
    /// The VirtualServices that exist, could never be decoded, and so are not in `services`.
    pub unreadable: BTreeSet<ObjectName>,
    /// The DirectorGroups.
    pub groups: BTreeMap<String, Arc<DirectorGroup>>,
    /// The AddressPools.
    pub pools: BTreeMap<PoolName, Arc<AddressPool>>,
    /// The labels of the Namespaces.
    pub namespaces: NamespaceLabels,
    /// The metadata of the Nodes.
    pub nodes: BTreeMap<NodeName, Arc<PartialObjectMeta<Node>>>,
    /// The Nodes that are cordoned: no new pods are scheduled to them.
    pub cordoned: BTreeSet<NodeName>,
    /// The LvsNodes.
    pub lvs_nodes: BTreeMap<NodeName, Arc<LvsNode>>,
    /// The DirectorBindings.
    pub bindings: BTreeMap<ObjectName, Arc<DirectorBinding>>,
    /// The RealServerBindings.
    pub served: BTreeMap<ObjectName, Arc<RealServerBinding>>,
    kube_services: BTreeMap<ObjectName, Arc<KubeServiceSpec>>,
    /// The EndpointSlices, by their Service.
    slices: BTreeMap<ObjectName, BTreeMap<ObjectName, Arc<EndpointSlice>>>,
    service_of_slice: BTreeMap<ObjectName, ObjectName>,
    /// The EndpointSlices that cannot be decoded. The last version of each that was decoded once is among `slices`.
    unreadable_slices: BTreeMap<ObjectName, Arc<Undecodable>>,
    /// The addresses of the API server: the endpoints of the Service `default/kubernetes`.
    api_servers: BTreeSet<IpAddr>,
}

impl Objects {
    /// Stores or removes a Service.
    pub(crate) fn set_kube_service(
        &mut self,
        name: &ObjectName,
        service: Option<Arc<KubeServiceSpec>>,
    ) {
        match service {
            Some(service) => drop(self.kube_services.insert(name.clone(), service)),
            None => drop(self.kube_services.remove(name)),
        }
    }

    /// A Service with its slices, in order of their names.
    pub(crate) fn kube_service(&self, name: &ObjectName) -> KubeService<'_> {
        let unreadable = self.unreadable_slices.iter().filter_map(|(slice, object)| {
            let is_kept = self.service_of_slice.get(slice) == Some(name);
            let is_own = service_name(slice, &object.metadata).as_ref() == Some(name);
            (is_kept || is_own).then(|| UnreadableSlice {
                name: slice.name(),
                error: &object.error,
                is_kept,
            })
        });
        KubeService {
            spec: self.kube_services.get(name).map(Arc::as_ref),
            slices: self.slices(name).collect(),
            unreadable: unreadable.collect(),
        }
    }

    /// Stores a slice that cannot be decoded; its last version stays. Returns the Services that are concerned.
    pub(crate) fn set_unreadable_slice(
        &mut self,
        name: &ObjectName,
        object: Arc<Undecodable>,
    ) -> BTreeSet<ObjectName> {
        let now = service_name(name, &object.metadata);
        let kept = self.service_of_slice.get(name).cloned();
        let before = self.unreadable_slices.insert(name.clone(), object);
        let before = before.and_then(|before| service_name(name, &before.metadata));
        [before, now, kept].into_iter().flatten().collect()
    }

    /// Stores or removes a slice. Returns the Services that it belonged to before and belongs to afterwards.
    pub(crate) fn set_slice(
        &mut self,
        name: ObjectName,
        object: Option<Arc<EndpointSlice>>,
    ) -> BTreeSet<ObjectName> {
        let unreadable = self.unreadable_slices.remove(&name);
        let unreadable = unreadable.and_then(|object| service_name(&name, &object.metadata));
        let before = self.service_of_slice.remove(&name);
        if let Some(slices) = before
            .as_ref()
            .and_then(|service| self.slices.get_mut(service))
        {
            slices.remove(&name);
        }
        let now = object.as_ref();
        let now = now.and_then(|slice| service_name(&name, &slice.metadata));
        if let (Some(service), Some(slice)) = (now.clone(), object) {
            self.service_of_slice.insert(name.clone(), service.clone());
            self.slices.entry(service).or_default().insert(name, slice);
        }
        if let Some(service) = &before
            && self.slices.get(service).is_some_and(BTreeMap::is_empty)
        {
            self.slices.remove(service);
        }
        let concerned: BTreeSet<ObjectName> =
            [before, now, unreadable].into_iter().flatten().collect();
        let is_api = |service: &ObjectName| {
            service.namespace() == "default" && service.name() == "kubernetes"
        };
        if let Some(service) = concerned.iter().find(|service| is_api(service)) {
            let slices = self.slices(service).flat_map(|slice| &slice.endpoints);
            let addresses = slices.flat_map(|endpoint| &endpoint.addresses);
            self.api_servers = addresses
                .filter_map(|address| address.parse().ok())
                .collect();
        }
        concerned
    }

    /// Returns whether an address is the API server's.
    pub(crate) fn is_api_server(&self, address: IpAddr) -> bool {
        self.api_servers.contains(&address)
    }

    /// The slices of a Service, in order of their names.
    fn slices(&self, service: &ObjectName) -> impl Iterator<Item = &EndpointSlice> {
        self.slices
            .get(service)
            .into_iter()
            .flat_map(|slices| slices.values().map(Arc::as_ref))
    }
}

/// Returns the Service that a slice belongs to.
fn service_name(slice: &ObjectName, metadata: &ObjectMeta) -> Option<ObjectName> {
    let labels = metadata.labels.as_ref()?;
    ObjectName::new(slice.namespace(), labels.get(SERVICE_NAME)?).ok()
}
