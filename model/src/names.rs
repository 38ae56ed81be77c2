//! Names as types: what holds one was checked when it was made.

use std::{cmp::Ordering, fmt, net::IpAddr, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

/// A name that its kind does not allow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be {rule}, not '{value}'")]
pub struct InvalidName {
    value: String,
    rule: &'static str,
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $rule:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(value: &str) -> Result<Self, InvalidName> {
                let check: fn(&str) -> bool = $check;
                if check(value) {
                    Ok(Self(value.into()))
                } else {
                    Err(InvalidName { value: value.to_owned(), rule: $rule })
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;

            fn try_from(value: String) -> Result<Self, InvalidName> {
                value.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.as_str().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// The name of a machine: its Kubernetes node name, or its host name. DNS-1123 subdomain, 1 to 253 characters.
    NodeName,
    "a host name in lower case",
    is_dns_subdomain
);
name!(
    /// The name of a DirectorGroup. DNS-1123 subdomain, 1 to 253 characters.
    GroupName,
    "a lower-case DNS name",
    is_dns_subdomain
);
name!(
    /// The name of an AddressPool. DNS-1123 subdomain, 1 to 253 characters.
    PoolName,
    "a lower-case DNS name",
    is_dns_subdomain
);
name!(
    /// The name of a network interface: 1 to 15 bytes, no slash and no white space (`dev_valid_name`, net/core/dev.c).
    InterfaceName,
    "an interface name of 1 to 15 characters",
    is_interface_name
);

impl InterfaceName {
    /// The name of our tunnel device of a kind with a local address: `lvs-`, the kind, and a hash of the address, so that it
    /// does not depend on what other devices there are.
    pub(crate) fn of_tunnel(kind: &str, local: Option<IpAddr>) -> Self {
        let hash = match local {
            Some(IpAddr::V4(v4)) => fnv(&v4.octets()),
            Some(IpAddr::V6(v6)) => fnv(&v6.octets()),
            None => 0,
        };
        Self(format!("lvs-{kind}-{:06x}", hash & 0xff_ffff).into())
    }

    /// The loopback interface.
    #[must_use]
    pub fn loopback() -> Self {
        Self("lo".into())
    }

    /// Returns whether it is the loopback interface.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        &*self.0 == "lo"
    }

    /// Returns whether it is a name that we give to tunnel devices.
    #[must_use]
    pub fn is_of_tunnel(&self) -> bool {
        self.0.starts_with("lvs-")
    }
}

/// The 32-bit FNV-1a hash, folded so that its low bits depend on all of it.
fn fnv(bytes: &[u8]) -> u32 {
    let hash = bytes.iter().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    });
    hash ^ (hash >> 24)
}

/// Namespace and name of a Kubernetes object. In files without a namespace it is `default`. Ordered by namespace first.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ObjectName {
    /// `namespace/name`: neither part holds a slash.
    path: Arc<str>,
    /// Where the slash is. Names are compared so often that finding it each time counts.
    slash: u8,
}

impl ObjectName {
    /// Makes a name of both parts.
    ///
    /// # Errors
    /// When the namespace is no DNS-1123 label or the name no DNS-1123 subdomain.
    pub fn new(namespace: &str, name: &str) -> Result<Self, InvalidName> {
        if !is_dns_label(namespace) {
            return Err(InvalidName {
                value: namespace.to_owned(),
                rule: "a lower-case DNS label",
            });
        }
        if !is_dns_subdomain(name) {
            return Err(InvalidName {
                value: name.to_owned(),
                rule: "a lower-case DNS name",
            });
        }
        let path = [namespace, "/", name].concat().into();
        // A label has at most 63 characters.
        let slash = u8::try_from(namespace.len()).unwrap_or_default();
        Ok(Self { path, slash })
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.parts().0
    }

    /// The name within its namespace.
    #[must_use]
    pub fn name(&self) -> &str {
        self.parts().1
    }

    fn parts(&self) -> (&str, &str) {
        let (namespace, name) = self.path.split_at(usize::from(self.slash));
        (namespace, name.get(1..).unwrap_or_default())
    }
}

impl Ord for ObjectName {
    fn cmp(&self, other: &Self) -> Ordering {
        self.parts().cmp(&other.parts())
    }
}

impl PartialOrd for ObjectName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)
    }
}

impl TryFrom<String> for ObjectName {
    type Error = InvalidName;

    fn try_from(value: String) -> Result<Self, InvalidName> {
        let (namespace, name) = value.split_once('/').unwrap_or(("default", &value));
        Self::new(namespace, name)
    }
}

impl From<ObjectName> for String {
    fn from(name: ObjectName) -> Self {
        name.to_string()
    }
}

fn is_dns_subdomain(value: &str) -> bool {
    value.len() <= 253 && value.split('.').all(is_dns_label)
}

fn is_dns_label(value: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=63).contains(&value.len())
        && value.chars().all(inner)
        && !value.starts_with('-')
        && !value.ends_with('-')
}

fn is_interface_name(value: &str) -> bool {
    (1..=15).contains(&value.len())
        && value != "."
        && value != ".."
        && !value.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_name_has_at_most_fifteen_characters() {
        assert!("a23456789012345".parse::<InterfaceName>().is_ok());
        let error = "a234567890123456".parse::<InterfaceName>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "must be an interface name of 1 to 15 characters, not 'a234567890123456'"
        );
        assert!("eth0/1".parse::<InterfaceName>().is_err());
    }

    #[test]
    fn an_object_name_is_written_with_its_namespace() {
        let name = ObjectName::new("shop", "web").unwrap();
        assert_eq!(name.to_string(), "shop/web");
        assert_eq!(
            ObjectName::try_from("web".to_owned()).unwrap().namespace(),
            "default"
        );
        assert!(ObjectName::new("Shop", "web").is_err());
    }

    #[test]
    fn object_names_are_ordered_by_namespace_first() {
        let name = |namespace, name| ObjectName::new(namespace, name).unwrap();
        assert!(name("a", "z") < name("a-b", "a"));
        assert!(name("a", "y") < name("a", "z"));
    }
}
