//! A worker thread's state: everything that a request needs, none of it shared with another thread but the
//! configuration, which is read whole and never changed.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::sync::watch;

use crate::authorize::{Authorization, Principal, Resolutions, ResolvedPrincipal};
use crate::balance::{Balancer, Dialer, Tasks};
use crate::mesh::listener::{Role, Timeouts};
use crate::mesh::{Listener, Live, Snapshot};
use crate::telemetry::Worker as Telemetry;
use crate::tls::{MeshTls, Standings};

pub struct Worker {
    live: Arc<Live>,
    pub dialer: Rc<Dialer>,
    /// How many share the limits of a cluster.
    workers: u32,
    view: RefCell<Option<Rc<View>>>,
    pub rng: RefCell<SmallRng>,
    own_id: RefCell<Option<Arc<str>>>,
    resolutions: RefCell<Resolutions>,
}

/// One configuration, and what this worker keeps for it.
pub struct View {
    pub snapshot: Arc<Snapshot>,
    listeners: HashMap<Arc<str>, Arc<Listener>>,
    balancers: HashMap<Arc<str>, Rc<Balancer>>,
}

impl Worker {
    pub fn new(live: Arc<Live>, tls: MeshTls, telemetry: Telemetry, workers: u32) -> Rc<Self> {
        Rc::new(Self {
            live,
            dialer: Rc::new(Dialer {
                tls,
                telemetry,
                tasks: Tasks::default(),
                standings: Standings::default(),
            }),
            workers,
            view: RefCell::default(),
            rng: RefCell::new(SmallRng::from_os_rng()),
            own_id: RefCell::default(),
            resolutions: RefCell::default(),
        })
    }

    pub fn telemetry(&self) -> &Telemetry {
        &self.dialer.telemetry
    }

    pub fn tls(&self) -> &MeshTls {
        &self.dialer.tls
    }

    /// Our SPIFFE ID; it does not change in a process's life.
    pub fn own_id(&self) -> Option<Arc<str>> {
        let mut known = self.own_id.borrow_mut();
        if known.is_none() {
            *known = self.tls().own_id();
        }
        known.clone()
    }

    /// The configuration in force: one for a whole request.
    pub fn view(&self) -> Option<Rc<View>> {
        let live = self.live.load();
        let snapshot = live.as_ref()?;
        let mut view = self.view.borrow_mut();
        match &*view {
            Some(view) if Arc::ptr_eq(&view.snapshot, snapshot) => Some(Rc::clone(view)),
            previous => {
                let next = Rc::new(self.adopt(snapshot, previous.as_deref()));
                *view = Some(Rc::clone(&next));
                Some(next)
            }
        }
    }

    /// The rules that concern a principal, for its connection.
    pub fn resolve(
        &self,
        authorization: &Arc<Authorization>,
        principal: &Principal,
    ) -> Rc<ResolvedPrincipal> {
        let mut resolutions = self.resolutions.borrow_mut();
        resolutions.resolve(authorization, principal)
    }

    /// Let go of the rules of a configuration that is no more.
    fn forget_rules(&self, snapshot: &Snapshot) {
        let mut resolutions = self.resolutions.borrow_mut();
        let is_kept = |listener: &Arc<Listener>| match &listener.role {
            Role::Inbound(door) => resolutions.is_of(&door.authorization),
            Role::Outbound(_) => false,
        };
        if !snapshot.listeners.iter().any(is_kept) {
            resolutions.forget();
        }
    }

    fn adopt(&self, snapshot: &Arc<Snapshot>, previous: Option<&View>) -> View {
        self.forget_rules(snapshot);
        let balancers = snapshot.clusters.iter().map(|(name, cluster)| {
            let known = previous.and_then(|previous| previous.balancers.get(name));
            let balancer = match known {
                Some(known) if Arc::ptr_eq(known.cluster(), cluster) => Rc::clone(known),
                known => Rc::new(Balancer::new(
                    cluster,
                    known.map(|known| &**known),
                    &self.dialer,
                    self.workers,
                )),
            };
            (Arc::clone(name), balancer)
        });
        View {
            balancers: balancers.collect(),
            listeners: snapshot
                .listeners
                .iter()
                .map(|one| (Arc::clone(&one.name), Arc::clone(one)))
                .collect(),
            snapshot: Arc::clone(snapshot),
        }
    }

    /// Of a listener, for a connection that begins.
    pub fn timeouts(&self, listener: &str) -> Timeouts {
        let view = self.view();
        let listener = view.as_ref().and_then(|view| view.listener(listener));
        listener
            .map(|listener| listener.timeouts.clone())
            .unwrap_or_default()
    }

    /// End the connections of peers that are trusted no longer.
    pub fn review_peers(&self) {
        self.dialer.standings.review(self.tls());
        self.sweep();
    }

    /// Be told of each new configuration.
    pub fn configurations(&self) -> watch::Receiver<Option<Arc<Snapshot>>> {
        self.live.subscribe()
    }

    /// Follow the configuration without a request, and close connections that rest too long.
    pub fn sweep(&self) {
        if let Some(view) = self.view() {
            view.balancers
                .values()
                .for_each(|balancer| balancer.sweep());
        }
    }
}

impl View {
    pub fn listener(&self, name: &str) -> Option<&Arc<Listener>> {
        self.listeners.get(name)
    }

    pub fn balancer(&self, cluster: &str) -> Option<&Rc<Balancer>> {
        self.balancers.get(cluster)
    }
}
