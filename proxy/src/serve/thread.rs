//! One worker's thread: a single-threaded runtime, and the listeners on it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::admission::Capacity;
use super::listening::{Listening, Stop};
use crate::codes::Hop;
use crate::mesh::Live;
use crate::telemetry::Telemetry;
use crate::tls::MeshTls;
use crate::worker::Worker;

/// How often connections that rest too long are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub enum Command {
    Listen {
        name: Arc<str>,
        hop: Hop,
        capacity: Capacity,
        socket: TcpListener,
    },
    Close {
        name: Arc<str>,
        deadline: Instant,
    },
    /// `drained` is dropped when the last connection of that end is gone.
    Drain {
        hop: Hop,
        deadline: Instant,
        drained: mpsc::Sender<Infallible>,
    },
}

/// The control side's handle; the thread ends when it is dropped or joined.
#[derive(Debug)]
pub struct Thread {
    commands: mpsc::UnboundedSender<Command>,
    handle: JoinHandle<()>,
}

impl Thread {
    pub fn start(
        number: u32,
        workers: u32,
        live: Arc<Live>,
        tls: MeshTls,
        telemetry: Arc<Telemetry>,
    ) -> io::Result<Self> {
        let (commands, received) = mpsc::unbounded_channel();
        let runtime = Builder::new_current_thread();
        let run = move || {
            let mut runtime = runtime;
            match runtime.enable_all().build_local(LocalOptions::default()) {
                Ok(runtime) => runtime.block_on(async {
                    let worker = Worker::new(live, tls, telemetry.worker(), workers);
                    serve(worker, received).await;
                }),
                Err(error) => tracing::error!(%error, "worker has no runtime"),
            }
        };
        let handle = std::thread::Builder::new()
            .name(format!("worker-{number}"))
            .spawn(run)?;
        Ok(Self { commands, handle })
    }

    pub fn tell(&self, command: Command) {
        // A thread that is gone listens on nothing.
        let _ = self.commands.send(command);
    }

    pub fn join(self) {
        drop(self.commands);
        if self.handle.join().is_err() {
            tracing::error!("worker thread failed");
        }
    }
}

async fn serve(worker: Rc<Worker>, mut commands: mpsc::UnboundedReceiver<Command>) {
    let mut sweep = interval(SWEEP_EVERY);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut bundles, mut configurations) =
        (worker.tls().bundle_changes(), worker.configurations());
    let mut tasks = JoinSet::new();
    let stops = Stops::default();
    loop {
        tokio::select! {
            command = commands.recv() => match command {
                Some(command) => stops.obey(command, &worker, &mut tasks),
                None => return,
            },
            Ok(()) = bundles.changed() => worker.review_peers(),
            // Connections of what it has no more are closed now, not when the next request comes.
            Ok(()) = configurations.changed() => worker.sweep(),
            _ = sweep.tick() => worker.sweep(),
            Some(_) = tasks.join_next() => stops.forget_ended(),
        }
    }
}

async fn listen(listening: Listening, socket: TcpListener) {
    if let Err(error) = listening.run(socket).await {
        tracing::error!(%error, "listener failed");
    }
}

/// By which each listener of this worker is stopped.
#[derive(Default)]
struct Stops(RefCell<HashMap<Arc<str>, OneStop>>);

type OneStop = (Hop, watch::Sender<Stop>);

impl Stops {
    fn obey(&self, command: Command, worker: &Rc<Worker>, tasks: &mut JoinSet<()>) {
        let mut stops = self.0.borrow_mut();
        match command {
            Command::Listen {
                name,
                hop,
                capacity,
                socket,
            } => {
                let (stop, stopped) = watch::channel(Stop::default());
                let listening = Listening {
                    name: Arc::clone(&name),
                    hop,
                    capacity,
                    worker: Rc::clone(worker),
                    stop: stopped,
                };
                tasks.spawn_local(listen(listening, socket));
                stops.insert(name, (hop, stop));
            }
            Command::Close { name, deadline } => {
                if let Some((_, stop)) = stops.get(&name) {
                    stop.send_replace(Stop {
                        deadline: Some(deadline),
                        drained: None,
                    });
                }
            }
            Command::Drain {
                hop,
                deadline,
                drained,
            } => {
                for (_, stop) in stops.values().filter(|(of, _)| *of == hop) {
                    stop.send_replace(Stop {
                        deadline: Some(deadline),
                        drained: Some(drained.clone()),
                    });
                }
            }
        }
    }

    /// Listeners whose task has ended listen to no stop.
    fn forget_ended(&self) {
        self.0
            .borrow_mut()
            .retain(|_, (_, stop)| stop.receiver_count() > 0);
    }
}
