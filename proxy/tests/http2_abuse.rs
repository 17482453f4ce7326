//! HTTP/2 as an attacker speaks it, frame by frame, at both listeners: the connection is closed or the stream reset
//! within bounds, memory does not grow, and other connections go on.
//!
//! The bounds are the constants of `http/h2/mod.rs`, which h2 enforces; each test says which it holds. Tests run one
//! at a time, since memory is the whole process's.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)] // a test may

mod support;

use std::io::{Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use garrison_proxy::mesh::Snapshot;
use garrison_proxy::mesh::cluster::UpstreamProtocol;
use garrison_proxy::mesh::listener::{Listener, Timeouts};
use garrison_proxy::tls::MeshTls;
use support::application::{Application, Reply, ok};
use support::frames::{self, *};
use support::pair::{Pair, Shape, Sidecar, free_address, until};
use support::raw::Raw;
use support::{Authority, CATALOG, TRUST_DOMAIN, WEB};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// More than any of these attacks may cost, and far less than what each would without its bound.
const MAX_GROWTH_KIB: i64 = 48 * 1024;
const BIG: usize = 1 << 20;

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

struct Mesh {
    pair: Pair,
    application: Application,
    /// A connection that was there before.
    bystander: Raw,
    _alone: MutexGuard<'static, ()>,
}

#[derive(Debug, Clone, Copy)]
enum End {
    Inbound,
    Outbound,
}

const ENDS: [End; 2] = [End::Inbound, End::Outbound];

fn mesh() -> Mesh {
    let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let application = Application::start(|request| match request.path() {
        "/bystander" => ok("fine"),
        _ => Reply::Bytes(big()),
    });
    let shape = Shape::default();
    let (outbound, inbound) = (free_address(), free_address());
    let authority = Authority::new(TRUST_DOMAIN);
    let at_server = impatient(shape.callee(inbound, application.address));
    let at_client = impatient(shape.caller(outbound, &[inbound]));
    let pair = Pair {
        callee: Sidecar::start(&authority, CATALOG, at_server),
        caller: Sidecar::start(&authority, WEB, at_client),
        shape,
        outbound,
        inbound,
        authority,
    };
    let mut bystander = Raw::connect(pair.outbound);
    assert_eq!(bystander.get("/bystander").text(), "fine");
    Mesh {
        pair,
        application,
        bystander,
        _alone: alone,
    }
}

fn big() -> Vec<u8> {
    let mut answer = format!("HTTP/1.1 200 X\r\ncontent-length: {BIG}\r\n\r\n").into_bytes();
    answer.resize(answer.len() + BIG, b'x');
    answer
}

/// With a time after which a stream that does not move is ended.
fn impatient(mut snapshot: Snapshot) -> Snapshot {
    let listeners = snapshot.listeners.into_iter();
    let impatient = |listener: Arc<Listener>| {
        let timeouts = Timeouts {
            stream_idle: Some(Duration::from_secs(1)),
            ..Timeouts::default()
        };
        let listener = Arc::into_inner(listener).unwrap();
        Arc::new(Listener {
            timeouts,
            ..listener
        })
    };
    snapshot.listeners = listeners.map(impatient).collect();
    snapshot
}

impl Mesh {
    /// A connection whose preface was sent.
    async fn connect(&self, end: End) -> Box<dyn frames::Bytes> {
        let mut connection: Box<dyn frames::Bytes> = match end {
            End::Outbound => Box::new(TcpStream::connect(self.pair.outbound).await.unwrap()),
            End::Inbound => {
                let credentials = self.pair.authority.credentials(WEB);
                let tls = MeshTls::new(credentials, Duration::from_secs(86_400));
                let stream = TcpStream::connect(self.pair.inbound).await.unwrap();
                let secured = tls.connect(stream, &[Arc::from(CATALOG)]).await.unwrap();
                Box::new(secured.stream)
            }
        };
        connection.write_all(PREFACE).await.unwrap();
        let settings = frame(SETTINGS, 0, 0, &[]);
        connection.write_all(&settings).await.unwrap();
        connection
    }

    /// Flood one listener; neither memory nor others suffer.
    async fn flooded(
        &mut self,
        end: End,
        rounds: usize,
        round: impl FnMut(usize) -> Vec<u8>,
    ) -> Outcome {
        let connection = self.connect(end).await;
        let before = Memory::now();
        let outcome = flood(connection, rounds, round).await;
        before.has_not_grown();
        self.others_go_on();
        outcome
    }

    fn others_go_on(&mut self) {
        assert_eq!(self.bystander.get("/bystander").text(), "fine");
        let mut new = Raw::connect(self.pair.outbound);
        assert_eq!(new.get("/bystander").text(), "fine");
    }
}

/// Resident memory of this process, which the sidecars are part of.
struct Memory(i64);

impl Memory {
    fn now() -> Self {
        // Begin a new peak (proc(5)).
        std::fs::write("/proc/self/clear_refs", "5").unwrap();
        Self(status("VmRSS:"))
    }

    fn has_not_grown(&self) {
        let growth = status("VmHWM:") - self.0;
        assert!(growth < MAX_GROWTH_KIB, "grew by {growth} KiB");
    }
}

fn status(name: &str) -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let words = line.unwrap().trim().trim_end_matches(" kB");
    words.parse().unwrap()
}

/// Taken out: `max_pending_accept_reset_streams`.
#[tokio::test]
async fn attack_c1_rapid_reset_ends_the_connection() {
    let mut mesh = mesh();
    for end in ENDS {
        let reset = 8_u32.to_be_bytes();
        let round = |round: usize| {
            let pair = |number| [get(number), frame(RST_STREAM, 0, stream(number), &reset)];
            let numbers = round * 100..(round + 1) * 100;
            numbers.flat_map(pair).flatten().collect()
        };
        let outcome = mesh.flooded(end, 500, round).await;
        assert_eq!(
            outcome.goaway,
            Some(ENHANCE_YOUR_CALM),
            "{end:?} {outcome:?}"
        );
        assert!(!outcome.survived);
    }
}

/// Taken out: `max_local_error_reset_streams`.
#[tokio::test]
async fn attack_c2_made_you_reset_ends_the_connection() {
    let mut mesh = mesh();
    for end in ENDS {
        // A window that overflows is an error of its stream (RFC 9113 §6.9.1).
        let most = 0x7fff_ffff_u32.to_be_bytes();
        let round = |number: usize| {
            let update = frame(WINDOW_UPDATE, 0, stream(number), &most);
            [post(number), update].concat()
        };
        let outcome = mesh.flooded(end, 5_000, round).await;
        assert_eq!(
            outcome.goaway,
            Some(ENHANCE_YOUR_CALM),
            "{end:?} {outcome:?}"
        );
        let resets = outcome.resets.values().sum::<usize>();
        assert!(resets <= 100, "{outcome:?}");
    }
}

/// Taken out: `max_header_list_size`, from which h2 derives how many frames a section may have.
#[tokio::test]
async fn attack_c3_continuation_flood_ends_the_connection() {
    let mut mesh = mesh();
    for (end, size) in ENDS.into_iter().flat_map(|end| [(end, 0), (end, 16_000)]) {
        let mut field = vec![0, 1, b'x', 127];
        field.extend(prefixed(size));
        field.resize(field.len() + size, b'v');
        let payload = if size == 0 { &[][..] } else { &field };
        let round = |number: usize| match number {
            0 => frame(HEADERS, END_STREAM, 1, &section(GET)),
            _ => frame(CONTINUATION, 0, 1, payload),
        };
        let outcome = mesh.flooded(end, 50_000, round).await;
        assert!(!outcome.survived, "{end:?} {outcome:?}");
        assert!(outcome.goaway.is_some(), "{end:?} {outcome:?}");
    }
}

/// A length of 127 and more, after its first byte (RFC 7541 §5.1).
fn prefixed(length: usize) -> Vec<u8> {
    let mut rest = length.saturating_sub(127);
    let mut bytes = Vec::new();
    while rest >= 128 {
        bytes.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    bytes.push(u8::try_from(rest).unwrap());
    bytes
}

/// Taken out: `max_header_list_size`, which bounds the section as it is once decoded; then the canonical form still refuses
/// so many fields, and only without both is it forwarded.
#[tokio::test]
async fn attack_c4_a_section_that_unpacks_to_megabytes_is_refused() {
    let mut mesh = mesh();
    for end in ENDS {
        let seen = mesh.application.seen().len();
        // One field of 3,900 bytes goes into the table, and is said 12,000 times by a byte each.
        let mut block = section(GET);
        block.extend([0x40, 1, b'x', 127]);
        block.extend(prefixed(3_900));
        block.extend([b'v'; 3_900]);
        block.extend([0xbe; 12_000]);
        let round = |number| frame(HEADERS, END_HEADERS | END_STREAM, stream(number), &block);
        let outcome = mesh.flooded(end, 50, round).await;
        assert!(
            !outcome.survived || outcome.answers == 50,
            "{end:?} {outcome:?}"
        );
        let new = mesh.application.seen();
        let bystanders = |request: &support::application::Request| request.path() == "/bystander";
        assert!(new[seen..].iter().all(bystanders), "it was forwarded");
    }
}

/// Taken out: h2's count of empty frames.
#[tokio::test]
async fn attack_c5_empty_data_frames_end_the_connection() {
    let mut mesh = mesh();
    for end in ENDS {
        let round = |number: usize| match number {
            0 => post(0),
            _ => frame(DATA, 0, 1, &[]).repeat(100),
        };
        let outcome = mesh.flooded(end, 5_000, round).await;
        assert_eq!(
            outcome.goaway,
            Some(ENHANCE_YOUR_CALM),
            "{end:?} {outcome:?}"
        );
    }
}

/// Nothing to take out: each is answered or ignored, one at a time, and nothing of them is kept.
#[tokio::test]
async fn attack_c6_settings_ping_and_priority_floods_cost_no_memory() {
    let mut mesh = mesh();
    let floods = [
        frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]),
        frame(PING, 0, 0, b"12345678"),
        frame(PRIORITY, 0, 7, &[0, 0, 0, 0, 16]),
    ];
    for (end, one) in ENDS
        .into_iter()
        .flat_map(|end| floods.each_ref().map(|one| (end, one)))
    {
        let many = one.repeat(100);
        mesh.flooded(end, 500, |_| many.clone()).await;
    }
}

/// Taken out: waiting for an answer to be written before the next frame is read (it is h2's).
#[tokio::test]
async fn attack_c6_who_reads_no_answers_fills_no_memory() {
    let mut mesh = mesh();
    let floods = [
        frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]),
        frame(PING, 0, 0, b"12345678"),
    ];
    for (end, one) in ENDS
        .into_iter()
        .flat_map(|end| floods.each_ref().map(|one| (end, one)))
    {
        let mut connection = mesh.connect(end).await;
        let before = Memory::now();
        let most = 20_000;
        let taken = flood_deaf(&mut connection, most, &one.repeat(1_000)).await;
        before.has_not_grown();
        assert!(taken < most, "{end:?}: all of it was taken");
        mesh.others_go_on();
    }
}

/// Taken out: the check of a window's size (it is h2's).
#[tokio::test]
async fn attack_c6_a_window_that_overflows_is_an_error() {
    let mut mesh = mesh();
    for end in ENDS {
        let most = 0x7fff_ffff_u32.to_be_bytes();
        let round = |_| frame(WINDOW_UPDATE, 0, 0, &most);
        let outcome = mesh.flooded(end, 2, round).await;
        assert_eq!(
            outcome.goaway,
            Some(FLOW_CONTROL_ERROR),
            "{end:?} {outcome:?}"
        );
        let round = |_| [post(0), frame(WINDOW_UPDATE, 0, 1, &most)].concat();
        let outcome = mesh.flooded(end, 1, round).await;
        assert_eq!(
            outcome.resets.get(&FLOW_CONTROL_ERROR),
            Some(&1),
            "{end:?} {outcome:?}"
        );
        assert!(outcome.survived, "the others of this connection go on");
    }
}

/// Taken out: the time of a stream that does not move (they rest for ever), or the bound of what is read ahead (100 MiB).
#[tokio::test]
async fn attack_c6_answers_that_nobody_reads_are_ended() {
    let mut mesh = mesh();
    for end in ENDS {
        let mut connection = mesh.connect(end).await;
        // SETTINGS_INITIAL_WINDOW_SIZE: nothing may be sent to us.
        let closed = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
        connection.write_all(&closed).await.unwrap();
        let before = Memory::now();
        let asked: Vec<u8> = (0..90).flat_map(get).collect();
        connection.write_all(&asked).await.unwrap();
        // They hold a request each until they are ended.
        let held = |sidecar: &Sidecar, cluster: &str| {
            let series = format!(r#"garrison_upstream_requests{{cluster="{cluster}"}} 0"#);
            !sidecar.metric(&series)
        };
        let (sidecar, cluster) = match end {
            End::Inbound => (&mesh.pair.callee, "application"),
            End::Outbound => (&mesh.pair.caller, support::pair::SERVICE),
        };
        until("they are under way", || held(sidecar, cluster));
        until("they are ended", || !held(sidecar, cluster));
        before.has_not_grown();
        mesh.others_go_on();
        drop(connection);
    }
}

/// Taken out: `max_concurrent_streams`.
#[tokio::test]
async fn attack_c8_streams_over_the_limit_are_refused() {
    let mut mesh = mesh();
    for end in ENDS {
        let outcome = mesh.flooded(end, 2_000, post).await;
        let refused = outcome.resets.get(&REFUSED_STREAM).copied();
        assert!(refused.unwrap_or_default() > 0, "{end:?} {outcome:?}");
    }
}

/// Taken out: giving up a connection on which no stream may be opened.
#[tokio::test]
async fn attack_c7_a_server_that_leaves_and_takes_no_streams_is_a_failed_request() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            // MAX_CONCURRENT_STREAMS is 0; and no stream was processed.
            let away = frame(GOAWAY, 0, 0, &[0; 8]);
            let none = frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 0]);
            let _ = stream.write_all(&[none, away].concat());
            std::thread::spawn(move || stream.read_to_end(&mut Vec::new()));
        }
    });
    let shape = Shape {
        application: UpstreamProtocol::Http2,
        timeout: Some(Duration::from_secs(2)),
        ..Shape::default()
    };
    let pair = Pair::start(shape, address);
    for _ in 0..3 {
        let answer = Raw::connect(pair.outbound).get("/");
        assert!(matches!(answer.status, 502..=504), "{answer:?}");
    }
}

/// Taken out: strict mutual TLS at the door of the mesh.
#[tokio::test]
async fn attack_c12_http2_in_plaintext_gets_nothing_from_the_mesh() {
    let mesh = mesh();
    let mut client = Raw::connect(mesh.pair.inbound);
    client.send(PREFACE).send(frame(SETTINGS, 0, 0, &[]));
    let mut answer = Vec::new();
    let _ = client.0.read_to_end(&mut answer);
    // At most a TLS alert.
    assert!(answer.len() < 9 || answer[0] == 21, "{answer:?}");
}
