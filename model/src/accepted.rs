//! What was accepted before, and stays although a new object would refuse it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::ObjectName;

/// The VIPs with which virtual services were accepted.
pub type AcceptedVips = BTreeMap<ObjectName, BTreeSet<IpAddr>>;
