//! The workers: one thread and one runtime a core, each with listening sockets of its own.
//!
//! The kernel spreads connections over the sockets of an address (`SO_REUSEPORT`), and a connection stays with its worker:
//! nothing on the request path is shared or locked. One task on the control side follows the configuration, makes the
//! sockets and hands each worker its own, so that all of them listen or none.

mod admission;
mod connection;
mod listening;
mod sockets;
mod thread;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};

use crate::codes::Hop;
use crate::mesh::listener::Role;
use crate::mesh::{Listener, Live, Snapshot};
use crate::telemetry::Telemetry;
use crate::tls::MeshTls;
pub use admission::Capacity;
pub use sockets::check_free;
use thread::{Command, Thread};

/// An address that could not be bound is tried again, as whoever holds it may go.
const REBIND_AFTER: Duration = Duration::from_secs(1);
/// What outbound gets to finish if inbound took all of the time.
const LEAST_OUTBOUND_DRAIN: Duration = Duration::from_secs(1);

#[derive(Debug, Clone)]
pub struct Settings {
    pub workers: NonZeroUsize,
    /// How long requests in flight may take to end.
    pub drain: Duration,
    pub capacity: Capacity,
}

/// The threads of the request path.
#[derive(Debug)]
pub struct Workers {
    settings: Settings,
    live: Arc<Live>,
    telemetry: Arc<Telemetry>,
    threads: Vec<Thread>,
    open: BTreeMap<Arc<str>, (SocketAddr, Hop)>,
    state: Doors,
}

/// What is listened on, for `/ready` and `/config`.
#[derive(Debug, Clone, Default)]
pub struct Doors(Arc<Mutex<BTreeMap<Arc<str>, DoorState>>>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DoorState {
    Open(SocketAddr),
    /// Why it could not be bound.
    Refused(SocketAddr, String),
}

impl Doors {
    pub fn all(&self) -> BTreeMap<Arc<str>, DoorState> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Is there a listener, and are all of them open?
    pub fn are_open(&self) -> bool {
        let all = self.all();
        let is_open = |state: &DoorState| matches!(state, DoorState::Open(_));
        !all.is_empty() && all.values().all(is_open)
    }

    pub(crate) fn set(&self, name: &Arc<str>, state: DoorState) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(Arc::clone(name), state);
    }

    fn remove(&self, name: &str) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(name);
    }
}

impl Workers {
    /// Start the threads; they listen on nothing until there is a configuration.
    pub fn start(
        settings: Settings,
        live: Arc<Live>,
        tls: &MeshTls,
        telemetry: &Arc<Telemetry>,
    ) -> io::Result<Self> {
        let count = u32::try_from(settings.workers.get()).unwrap_or(u32::MAX);
        let thread = |number| {
            Thread::start(
                number,
                count,
                Arc::clone(&live),
                tls.clone(),
                Arc::clone(telemetry),
            )
        };
        let threads = (0..count).map(thread).collect::<io::Result<_>>()?;
        Ok(Self {
            settings,
            live,
            telemetry: Arc::clone(telemetry),
            threads,
            open: BTreeMap::new(),
            state: Doors::default(),
        })
    }

    pub fn doors(&self) -> Doors {
        self.state.clone()
    }

    /// Follow the configuration until `stop`, then let what is in flight end: inbound first, and outbound stays
    /// open until then, as what is in flight may call on.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        let mut snapshots = self.live.subscribe();
        tokio::select! {
            () = stop => {}
            () = self.follow(&mut snapshots) => {}
        }
        self.telemetry.control.set_draining();
        let deadline = Instant::now() + self.settings.drain;
        self.drain(Hop::Inbound, deadline).await;
        self.drain(
            Hop::Outbound,
            deadline.max(Instant::now() + LEAST_OUTBOUND_DRAIN),
        )
        .await;
        for thread in self.threads {
            thread.join();
        }
    }

    async fn follow(&mut self, snapshots: &mut watch::Receiver<Option<Arc<Snapshot>>>) {
        loop {
            let snapshot = snapshots.borrow_and_update().clone();
            let complete = match snapshot {
                Some(snapshot) => self.apply(&snapshot),
                None => true,
            };
            tokio::select! {
                changed = snapshots.changed() => if changed.is_err() { return },
                () = sleep(REBIND_AFTER), if !complete => {}
            }
        }
    }

    /// Close what is gone or moved, open what is new; `false` if something could not be opened.
    fn apply(&mut self, snapshot: &Snapshot) -> bool {
        let wanted: BTreeMap<_, _> = snapshot
            .listeners
            .iter()
            .map(|listener| (Arc::clone(&listener.name), &**listener))
            .collect();
        let is_wanted = |name: &Arc<str>, open: &(SocketAddr, Hop)| {
            wanted
                .get(name)
                .is_some_and(|listener| (listener.address, hop(listener)) == *open)
        };
        let gone: Vec<_> = self
            .open
            .iter()
            .filter(|(name, open)| !is_wanted(name, open))
            .map(|(name, _)| Arc::clone(name))
            .collect();
        for name in gone {
            self.open.remove(&name);
            self.state.remove(&name);
            let deadline = Instant::now() + self.settings.drain;
            self.threads.iter().for_each(|thread| {
                thread.tell(Command::Close {
                    name: Arc::clone(&name),
                    deadline,
                });
            });
        }
        let mut complete = true;
        for (name, listener) in wanted {
            if !self.open.contains_key(&name) {
                complete &= self.open(listener);
            }
        }
        complete
    }

    fn open(&mut self, listener: &Listener) -> bool {
        let (name, address) = (&listener.name, listener.address);
        match sockets::bind(address, self.threads.len()) {
            Ok(sockets) => {
                for (thread, socket) in self.threads.iter().zip(sockets) {
                    thread.tell(Command::Listen {
                        name: Arc::clone(name),
                        hop: hop(listener),
                        capacity: self.settings.capacity,
                        socket,
                    });
                }
                self.open.insert(Arc::clone(name), (address, hop(listener)));
                self.state.set(name, DoorState::Open(address));
                tracing::info!(listener = %name, %address, "listening");
                true
            }
            Err(error) => {
                let refused = DoorState::Refused(address, error.to_string());
                if self.state.all().get(name) != Some(&refused) {
                    tracing::error!(listener = %name, %address, %error, "cannot listen");
                }
                self.state.set(name, refused);
                false
            }
        }
    }

    /// Take nothing more at this end, and wait for what was taken.
    async fn drain(&mut self, hop: Hop, deadline: Instant) {
        let (drained, mut all) = mpsc::channel(1);
        for thread in &self.threads {
            thread.tell(Command::Drain {
                hop,
                deadline,
                drained: drained.clone(),
            });
        }
        drop(drained);
        // It closes when the last listener is done with it.
        let _ = all.recv().await;
    }
}

const fn hop(listener: &Listener) -> Hop {
    match listener.role {
        Role::Inbound(_) => Hop::Inbound,
        Role::Outbound(_) => Hop::Outbound,
    }
}
