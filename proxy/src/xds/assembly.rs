//! From the resources that are held to one snapshot in which every reference resolves. What did not change keeps its
//! identity (`Arc`), so that connection pools and compiled rules outlive the commits that leave them alone.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::decode::cluster::EndpointSource;
use super::decode::listener::{Door, End, Routes, Template};
use super::decode::{Fault, cluster};
use super::resource::{Kind, Refused, Resource};
use super::staging::Held;
use crate::authorize::Authorization;
use crate::mesh::listener::{Inbound, Outbound, Role};
use crate::mesh::route::Action;
use crate::mesh::{Cluster, Listener, RouteTable, Snapshot};

/// Builds snapshots, remembering what the last ones were built from.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    clusters: HashMap<Arc<str>, Built<Cluster>>,
    authorizations: HashMap<Arc<str>, Built<Authorization>>,
    listeners: HashMap<Arc<str>, BuiltListener>,
}

/// Something built from two resources; the second is absent where the first had all.
#[derive(Debug)]
struct Built<T> {
    from: (Arc<Resource>, Option<Arc<Resource>>),
    built: Arc<T>,
}

#[derive(Debug)]
struct BuiltListener {
    from: Arc<Resource>,
    routes: Arc<RouteTable>,
    authorization: Option<Arc<Authorization>>,
    built: Arc<Listener>,
}

impl Assembler {
    /// Build a snapshot, or say everything that keeps it from being whole.
    pub fn assemble(&mut self, commit: &Arc<str>, held: &Held) -> Result<Snapshot, Vec<Refused>> {
        let mut faults = Vec::new();
        let mut clusters = HashMap::new();
        let mut listeners = Vec::new();
        let mut taken = HashMap::new();
        for (name, resource) in held.of(Kind::Cluster) {
            if let Resource::Cluster(template) = &**resource {
                match self.cluster(resource, template, held) {
                    Ok(cluster) => drop(clusters.insert(Arc::clone(name), cluster)),
                    Err(fault) => faults.push(refused(Kind::Cluster, name, fault)),
                }
            }
        }
        for (name, resource) in held.of(Kind::Routes) {
            if let Resource::Routes(table) = &**resource
                && let Err(fault) = check_clusters(table, held)
            {
                faults.push(refused(Kind::Routes, name, fault));
            }
        }
        for (name, resource) in held.of(Kind::Listener) {
            if let Resource::Listener(template) = &**resource {
                let listener = claim(&mut taken, template)
                    .and_then(|()| self.listener(resource, template, held));
                match listener {
                    Ok(listener) => listeners.push(listener),
                    Err(fault) => faults.push(refused(Kind::Listener, name, fault)),
                }
            }
        }
        self.forget_all_but(held);
        if faults.is_empty() {
            let commit = Arc::clone(commit);
            return Ok(Snapshot {
                commit,
                listeners,
                clusters,
            });
        }
        Err(faults)
    }

    fn cluster(
        &mut self,
        resource: &Arc<Resource>,
        template: &cluster::Template,
        held: &Held,
    ) -> Result<Arc<Cluster>, Fault> {
        let (assignment, endpoints) = match &template.endpoints {
            EndpointSource::Static(endpoints) => (None, endpoints),
            EndpointSource::Discovered(name) => match held.get(Kind::Endpoints, name) {
                Some(assignment) => match &**assignment {
                    Resource::Endpoints(endpoints) => (Some(assignment), endpoints),
                    _ => return Err(unresolved("ClusterLoadAssignment", name)),
                },
                None => return Err(unresolved("ClusterLoadAssignment", name)),
            },
        };
        if let Some(known) = self.clusters.get(&template.name)
            && known.is_from(resource, assignment)
        {
            return Ok(Arc::clone(&known.built));
        }
        let built = Arc::new(template.with_endpoints(endpoints.clone()));
        self.clusters.insert(
            Arc::clone(&template.name),
            Built {
                from: (Arc::clone(resource), assignment.cloned()),
                built: Arc::clone(&built),
            },
        );
        Ok(built)
    }

    fn listener(
        &mut self,
        resource: &Arc<Resource>,
        template: &Template,
        held: &Held,
    ) -> Result<Arc<Listener>, Fault> {
        let routes = routes(template, held)?;
        let authorization = match &template.end {
            End::Outbound => None,
            End::Inbound(door) => Some(self.authorization(door, held)?),
        };
        if let Some(known) = self.listeners.get(&template.name)
            && known.is_from(resource, &routes, authorization.as_ref())
        {
            return Ok(Arc::clone(&known.built));
        }
        let role = match (&template.end, &authorization) {
            (End::Inbound(door), Some(authorization)) => Role::Inbound(Inbound {
                destination: Arc::clone(&door.destination),
                trust_domains: door.trust_domains.clone(),
                authorization: Arc::clone(authorization),
                routes: Arc::clone(&routes),
            }),
            (End::Outbound | End::Inbound(_), _) => Role::Outbound(Outbound {
                routes: Arc::clone(&routes),
            }),
        };
        let built = Arc::new(Listener {
            name: Arc::clone(&template.name),
            address: template.address,
            role,
            timeouts: template.timeouts.clone(),
        });
        self.listeners.insert(
            Arc::clone(&template.name),
            BuiltListener {
                from: Arc::clone(resource),
                routes,
                authorization,
                built: Arc::clone(&built),
            },
        );
        Ok(built)
    }

    fn authorization(&mut self, door: &Door, held: &Held) -> Result<Arc<Authorization>, Fault> {
        let (deny, denied) = rules(&door.deny, held)?;
        let (allow, allowed) = rules(&door.allow, held)?;
        if let Some(known) = self.authorizations.get(&door.destination)
            && known.is_from(deny, Some(allow))
        {
            return Ok(Arc::clone(&known.built));
        }
        let built = Authorization::compile(denied, allowed)
            .map_err(|unsupported| Fault::Unsupported(unsupported.to_string()))?;
        let built = Arc::new(built);
        self.authorizations.insert(
            Arc::clone(&door.destination),
            Built {
                from: (Arc::clone(deny), Some(Arc::clone(allow))),
                built: Arc::clone(&built),
            },
        );
        Ok(built)
    }

    /// What is no longer held is no longer remembered either.
    fn forget_all_but(&mut self, held: &Held) {
        self.clusters
            .retain(|name, _| held.get(Kind::Cluster, name).is_some());
        self.listeners
            .retain(|name, _| held.get(Kind::Listener, name).is_some());
        self.authorizations.retain(|_, known| {
            Arc::strong_count(&known.built) > 1 // some listener still has it
        });
    }
}

impl<T> Built<T> {
    fn is_from(&self, first: &Arc<Resource>, second: Option<&Arc<Resource>>) -> bool {
        Arc::ptr_eq(&self.from.0, first)
            && match (&self.from.1, second) {
                (Some(known), Some(second)) => Arc::ptr_eq(known, second),
                (None, None) => true,
                (Some(_), None) | (None, Some(_)) => false,
            }
    }
}

impl BuiltListener {
    fn is_from(
        &self,
        resource: &Arc<Resource>,
        routes: &Arc<RouteTable>,
        authorization: Option<&Arc<Authorization>>,
    ) -> bool {
        Arc::ptr_eq(&self.from, resource)
            && Arc::ptr_eq(&self.routes, routes)
            && match (&self.authorization, authorization) {
                (Some(known), Some(authorization)) => Arc::ptr_eq(known, authorization),
                (None, None) => true,
                (Some(_), None) | (None, Some(_)) => false,
            }
    }
}

fn refused(kind: Kind, name: &Arc<str>, fault: Fault) -> Refused {
    Refused::new(kind, &**name, fault)
}

fn unresolved(message: &str, name: &str) -> Fault {
    Fault::Unresolved(format!("there is no {message} {name:?}"))
}

fn routes(template: &Template, held: &Held) -> Result<Arc<RouteTable>, Fault> {
    match &template.routes {
        Routes::Inline(table) => {
            check_clusters(table, held)?;
            Ok(Arc::clone(table))
        }
        Routes::Discovered(name) => match held.get(Kind::Routes, name).map(|routes| &**routes) {
            Some(Resource::Routes(table)) => Ok(Arc::clone(table)),
            _ => Err(unresolved("RouteConfiguration", name)),
        },
    }
}

fn rules<'held>(
    name: &str,
    held: &'held Held,
) -> Result<
    (
        &'held Arc<Resource>,
        &'held envoy_types::pb::envoy::config::rbac::v3::Rbac,
    ),
    Fault,
> {
    if let Some(resource) = held.get(Kind::Extension, name)
        && let Resource::Rules(rules) = &**resource
    {
        return Ok((resource, rules));
    }
    Err(unresolved("TypedExtensionConfig", name))
}

fn check_clusters(table: &RouteTable, held: &Held) -> Result<(), Fault> {
    for route in table.virtual_hosts.iter().flat_map(|host| &host.routes) {
        if let Action::Forward(forward) = &route.action {
            for cluster in &forward.clusters {
                if held.get(Kind::Cluster, &cluster.name).is_none() {
                    let missing = format!(
                        "route {:?}: there is no Cluster {:?}",
                        route.name, cluster.name
                    );
                    return Err(Fault::Unresolved(missing));
                }
            }
        }
    }
    Ok(())
}

/// Two listeners cannot have one address.
fn claim<'held>(
    taken: &mut HashMap<SocketAddr, &'held Arc<str>>,
    template: &'held Template,
) -> Result<(), Fault> {
    match taken.insert(template.address, &template.name) {
        None => Ok(()),
        Some(other) => {
            let reason = format!("{} is also listener {other:?}'s", template.address);
            Err(Fault::invalid("Listener.address", reason))
        }
    }
}
