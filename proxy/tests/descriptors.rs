//! When no file descriptor is left. A program of its own: the limit is the whole process's, and the test holds all.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)] // a test may

mod support;

use std::fs::File;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};
use support::application::{Application, ok};
use support::pair::{Pair, Shape, until};
use support::raw::Raw;

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap()
}

fn limit_descriptors(count: u64) {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let current = Some(count);
    setrlimit(Resource::Nofile, Rlimit { current, maximum }).unwrap();
}

/// Taken out: the pause after a failed accept (it spins), or going on after it (it ends).
#[test]
fn attack_d5_accepting_waits_for_a_descriptor() {
    let application = Application::start(|_| ok("fine"));
    let pair = Pair::start(Shape::default(), application.address);
    let mut before = Raw::connect(pair.outbound);
    assert_eq!(before.get("/").status, 200);
    // A socket of our own that is not connected yet, and then nobody gets a descriptor more.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    limit_descriptors(256);
    let held: Vec<_> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    assert!(held.len() > 10);
    socket.connect(&pair.outbound.into()).unwrap();
    let (began, used) = (Instant::now(), cpu_time());
    std::thread::sleep(Duration::from_secs(1));
    let (wall, cpu) = (began.elapsed(), cpu_time().saturating_sub(used));
    assert!(cpu < wall / 4, "{cpu:?} of {wall:?}: it spins");
    assert_eq!(before.get("/").status, 200, "what was open goes on");
    drop(held);
    let mut waiting = Raw(socket.into());
    waiting
        .0
        .set_read_timeout(Some(Duration::from_secs(8)))
        .unwrap();
    assert_eq!(waiting.get("/").status, 200, "it was not lost");
    until("another is taken", || {
        Raw::connect(pair.outbound).get("/").status == 200
    });
}
