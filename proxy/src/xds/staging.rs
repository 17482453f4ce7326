//! What the policy server has sent so far, and when it becomes what is enforced: at a commit's marker, as a whole
//! (`docs/seams.md`). The marker comes again after anything else that was sent, such as endpoints. No I/O: a response goes in, what to enforce or why
//! it is refused comes out.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound;
use std::sync::Arc;

use envoy_types::pb::google::protobuf::Any;

use super::assembly::Assembler;
use super::decode::Fault;
use super::decode::extension::MARKER;
use super::resource::{Kind, Refused, Resource};
use crate::mesh::Snapshot;

/// Far above any mesh's scope for one client; a bound on what a policy server can make us hold.
const MAX_RESOURCES: usize = 100_000;

/// One response of one type, taken out of its envelope.
#[derive(Debug)]
pub struct Incoming {
    pub kind: Kind,
    /// `system_version_info`: the commit that it belongs to.
    pub commit: String,
    pub resources: Vec<Versioned>,
    pub removed: Vec<String>,
}

#[derive(Debug)]
pub struct Versioned {
    pub name: String,
    pub version: String,
    pub payload: Option<Any>,
}

/// Why a response is refused, in one text that is bounded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected(pub String);

/// The resources that are held, by type and name, each with its version.
#[derive(Debug, Clone, Default)]
pub(super) struct Held(BTreeMap<Key, (Arc<str>, Arc<Resource>)>);

type Key = (Kind, Arc<str>);

#[derive(Debug, Default)]
pub struct Staging {
    held: Held,
    assembler: Assembler,
    /// Refused resources and the commit they came with: its marker is refused too, unless they came again and were good.
    poison: HashMap<(Kind, String), String>,
}

impl Held {
    pub fn get(&self, kind: Kind, name: &str) -> Option<&Arc<Resource>> {
        self.0
            .get(&(kind, Arc::from(name)))
            .map(|(_, resource)| resource)
    }

    /// By name.
    pub fn of(&self, kind: Kind) -> impl Iterator<Item = (&Arc<str>, &Arc<Resource>)> {
        let first = Bound::Included((kind, Arc::from("")));
        self.0
            .range((first, Bound::Unbounded))
            .take_while(move |((of, _), _)| *of == kind)
            .map(|((_, name), (_, resource))| (name, resource))
    }

    fn insert(&mut self, kind: Kind, name: &str, version: &str, resource: Resource) {
        let key = (kind, Arc::from(name));
        // Versions are hashes of content: what did not change keeps its identity.
        if self
            .0
            .get(&key)
            .is_some_and(|(held, _)| !version.is_empty() && **held == *version)
        {
            return;
        }
        self.0.insert(key, (version.into(), Arc::new(resource)));
    }
}

impl Staging {
    /// What is held of a type: `initial_resource_versions` of a new stream.
    pub fn versions(&self, kind: Kind) -> HashMap<String, String> {
        let held = self.held.0.iter().filter(|((of, _), _)| *of == kind);
        held.map(|((_, name), (version, _))| (name.to_string(), version.to_string()))
            .collect()
    }

    /// Take a response whole, or refuse it whole and stay as before. With a commit's marker comes the configuration that is
    /// to be enforced before the response is acknowledged.
    pub fn receive(&mut self, incoming: Incoming) -> Result<Option<Arc<Snapshot>>, Rejected> {
        let before = self.held.clone();
        self.stage(incoming).map_err(|refused| {
            self.held = before;
            Rejected(summary(&refused))
        })
    }

    fn stage(&mut self, incoming: Incoming) -> Result<Option<Arc<Snapshot>>, Vec<Refused>> {
        let Incoming {
            kind,
            commit,
            resources,
            removed,
        } = incoming;
        let marker = self.decode_all(kind, &commit, resources)?;
        for name in removed {
            self.held.0.remove(&(kind, Arc::from(name.as_str())));
            self.poison.remove(&(kind, name));
        }
        if self.held.0.len() > MAX_RESOURCES {
            let fault = Fault::Unresolved(format!("over {MAX_RESOURCES} resources are held"));
            return Err(vec![Refused::new(kind, "", fault)]);
        }
        match marker {
            Some(marker) => {
                self.refuse_if_poisoned(&marker)?;
                self.assembler
                    .assemble(&marker, &self.held)
                    .map(|whole| Some(Arc::new(whole)))
            }
            None => Ok(None),
        }
    }

    /// Decode every resource before any is taken, so that the answer names all that is wrong.
    fn decode_all(
        &mut self,
        kind: Kind,
        commit: &str,
        resources: Vec<Versioned>,
    ) -> Result<Option<Arc<str>>, Vec<Refused>> {
        let mut decoded = Vec::with_capacity(resources.len());
        let mut refused = Vec::new();
        for Versioned {
            name,
            version,
            payload,
        } in resources
        {
            match decode(kind, &name, payload.as_ref()) {
                Ok(resource) => decoded.push((name, version, resource)),
                Err(fault) => {
                    self.poison.insert((kind, name.clone()), commit.to_owned());
                    refused.push(Refused::new(kind, name, fault));
                }
            }
        }
        if !refused.is_empty() {
            return Err(refused);
        }
        let mut marker = None;
        for (name, version, resource) in decoded {
            if let Resource::Marker(commit) = &resource {
                marker = Some(Arc::clone(commit));
            }
            self.held.insert(kind, &name, &version, resource);
            self.poison.remove(&(kind, name));
        }
        Ok(marker)
    }

    fn refuse_if_poisoned(&mut self, marker: &Arc<str>) -> Result<(), Vec<Refused>> {
        // Of commits that were given up for this one nothing can be said any more.
        self.poison.retain(|_, commit| **commit == **marker);
        let refused: Vec<_> = self
            .poison
            .keys()
            .map(|(kind, name)| {
                let fault = Fault::Unresolved(format!("was refused, and so is commit {marker}"));
                Refused::new(*kind, name, fault)
            })
            .collect();
        if refused.is_empty() {
            Ok(())
        } else {
            Err(refused)
        }
    }
}

/// Everything that keeps these resources, all of one client's, from being enforced as a whole.
pub fn check_whole(resources: &[Any]) -> Vec<Refused> {
    let mut held = Held::default();
    let mut refused = Vec::new();
    let mut marker = None;
    for any in resources {
        match alone(any) {
            Ok((kind, name, _)) if held.get(kind, &name).is_some() => {
                let fault = Fault::Unresolved("is given twice".to_owned());
                refused.push(Refused::new(kind, name, fault));
            }
            Ok((kind, name, resource)) => {
                if let Resource::Marker(commit) = &resource {
                    marker = Some(Arc::clone(commit));
                }
                held.insert(kind, &name, "", resource);
            }
            Err(fault) => refused.push(fault),
        }
    }
    let Some(marker) = marker else {
        let fault =
            Fault::Unresolved("is not there, and without it nothing is enforced".to_owned());
        refused.push(Refused::new(Kind::Extension, MARKER, fault));
        return refused;
    };
    // What was refused is missing, and would be complained of again wherever something refers to it.
    if refused.is_empty() {
        refused = Assembler::default()
            .assemble(&marker, &held)
            .err()
            .unwrap_or_default();
    }
    refused
}

fn alone(any: &Any) -> Result<(Kind, String, Resource), Refused> {
    let kind = Kind::of_type_url(&any.type_url).ok_or_else(|| Refused {
        type_url: any.type_url.clone(),
        name: String::new(),
        fault: Fault::Type(any.type_url.clone()),
    })?;
    let (name, resource) = Resource::decode(kind, any)?;
    Ok((kind, name, resource))
}

fn decode(kind: Kind, name: &str, payload: Option<&Any>) -> Result<Resource, Fault> {
    let payload = payload.ok_or_else(|| Fault::invalid("Resource.resource", "is required"))?;
    let (own, resource) = Resource::decode(kind, payload).map_err(|refused| refused.fault)?;
    if own != name {
        return Err(Fault::invalid(
            "Resource.name",
            format!("is {name:?}, but the resource is {own:?}"),
        ));
    }
    Ok(resource)
}

/// The first few, so that an answer stays small.
fn summary(refused: &[Refused]) -> String {
    const MOST: usize = 5;
    const MAX_CHARS: usize = 500;
    let mut seen = HashSet::new();
    let mut lines: Vec<String> = refused
        .iter()
        .map(ToString::to_string)
        .filter(|line| seen.insert(line.clone()))
        .take(MOST)
        .map(|line| line.chars().take(MAX_CHARS).collect())
        .collect();
    if refused.len() > MOST {
        lines.push(format!("and {} more", refused.len() - MOST));
    }
    lines.join("; ")
}
