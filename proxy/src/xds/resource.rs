//! One resource of one of the five types that are subscribed to, decoded.

use std::fmt;
use std::sync::Arc;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig;
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::config::listener::v3::Listener;
use envoy_types::pb::envoy::config::rbac::v3::Rbac;
use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use envoy_types::pb::google::protobuf::Any;
use prost::Name;

use super::decode::extension::{Extension, extension};
use super::decode::{Fault, cluster, endpoint, listener, open, route};
use crate::mesh::{Endpoint, RouteTable};

/// The types, in the order in which they are sent for a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Cluster,
    Endpoints,
    Listener,
    Routes,
    Extension,
}

#[derive(Debug)]
pub enum Resource {
    Cluster(cluster::Template),
    Endpoints(Box<[Endpoint]>),
    Listener(listener::Template),
    Routes(Arc<RouteTable>),
    /// Authorization rules, not yet compiled: deny and allow are compiled together.
    Rules(Box<Rbac>),
    /// The commit that ends with it.
    Marker(Arc<str>),
}

/// A resource that is not taken, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub type_url: String,
    /// Empty where not even the name could be read.
    pub name: String,
    pub fault: Fault,
}

impl Kind {
    pub const ALL: [Self; 5] = [
        Self::Cluster,
        Self::Endpoints,
        Self::Listener,
        Self::Routes,
        Self::Extension,
    ];

    pub fn type_url(self) -> String {
        match self {
            Self::Cluster => Cluster::type_url(),
            Self::Endpoints => ClusterLoadAssignment::type_url(),
            Self::Listener => Listener::type_url(),
            Self::Routes => RouteConfiguration::type_url(),
            Self::Extension => TypedExtensionConfig::type_url(),
        }
    }

    pub fn of_type_url(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.type_url() == url)
    }
}

impl Refused {
    pub fn new(kind: Kind, name: impl Into<String>, fault: Fault) -> Self {
        Self {
            type_url: kind.type_url(),
            name: name.into(),
            fault,
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let message = self.type_url.rsplit('.').next().unwrap_or_default();
        write!(formatter, "{message} {:?}: {}", self.name, self.fault)
    }
}

impl Resource {
    /// Decode and check one resource by itself; the name is its own.
    #[expect(clippy::too_many_lines, reason = "a flat match over the kinds")]
    pub fn decode(kind: Kind, any: &Any) -> Result<(String, Self), Refused> {
        let nameless = |fault| Refused::new(kind, "", fault);
        match kind {
            Kind::Cluster => {
                let message: Cluster = open(any).map_err(nameless)?;
                named(
                    kind,
                    message.name.clone(),
                    cluster::template(message).map(Self::Cluster),
                )
            }
            Kind::Endpoints => {
                let message: ClusterLoadAssignment = open(any).map_err(nameless)?;
                let name = message.cluster_name.clone();
                let endpoints = endpoint::assignment(message).map(|(_, endpoints)| endpoints);
                named(kind, name, endpoints.map(Self::Endpoints))
            }
            Kind::Listener => {
                let message: Listener = open(any).map_err(nameless)?;
                named(
                    kind,
                    message.name.clone(),
                    listener::template(message).map(Self::Listener),
                )
            }
            Kind::Routes => {
                let message: RouteConfiguration = open(any).map_err(nameless)?;
                let name = message.name.clone();
                named(
                    kind,
                    name,
                    route::table(message).map(|table| Self::Routes(Arc::new(table))),
                )
            }
            Kind::Extension => {
                let message: TypedExtensionConfig = open(any).map_err(nameless)?;
                let name = message.name.clone();
                let decoded = extension(message).map(|extension| match extension {
                    Extension::Rules(_, rules) => Self::Rules(rules),
                    Extension::Marker(commit) => Self::Marker(commit),
                });
                named(kind, name, decoded)
            }
        }
    }
}

fn named(
    kind: Kind,
    name: String,
    resource: Result<Resource, Fault>,
) -> Result<(String, Resource), Refused> {
    match resource {
        Ok(resource) => Ok((name, resource)),
        Err(fault) => Err(Refused::new(kind, name, fault)),
    }
}
