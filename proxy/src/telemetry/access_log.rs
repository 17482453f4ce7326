//! The access log: one JSON line for each request, at both ends (`docs/seams.md`).
//!
//! A worker formats a line and puts it into its own bounded queue; a thread of its own writes. If the disk or the pipe
//! is slower than the requests, lines are dropped and counted: a log never holds a request up. The writer looks at
//! the queues by the clock, so that no request pays for waking it. serde escapes whatever a request carries (D9).

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use http::{Method, Version};
use serde::{Serialize, Serializer};

use super::timestamp::Timestamp;
use super::{Counter, RequestId, Trace};
use crate::codes::{Code, Hop};

const FLUSH_EVERY: Duration = Duration::from_millis(50);
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
/// Of each worker's queue.
const MAX_QUEUED_LINES: usize = 8_192;
const MAX_QUEUED_BYTES: usize = 8 << 20;
const MAX_USER_AGENT: usize = 256;

/// Where the access log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTarget {
    Stdout,
    /// Appended to.
    File(PathBuf),
    Off,
}

/// One finished request. Texts are borrowed: the line is formatted before `finish` returns.
#[derive(Debug, Clone)]
pub struct Record<'a> {
    pub hop: Hop,
    /// When the head had been read.
    pub started: SystemTime,
    pub duration: Duration,
    pub request_id: &'a RequestId,
    pub trace: &'a Trace,
    /// The caller: a SPIFFE ID where there is one. Also a label of the metrics, so never from a request's text.
    pub source: &'a str,
    /// The service, from configuration; `unknown` where no configuration names it. Also a label.
    pub destination: &'a str,
    pub route: Option<&'a str>,
    pub cluster: Option<&'a str>,
    pub upstream: Option<SocketAddr>,
    pub method: &'a Method,
    pub host: &'a str,
    /// The canonical path: what was authorized and sent on.
    pub path: &'a str,
    pub protocol: Version,
    /// 0 where the caller went away before an answer.
    pub status: u16,
    /// From the trailers; none where it was not gRPC.
    pub grpc_status: Option<u16>,
    /// Where the mesh answered by itself.
    pub code: Option<Code>,
    /// `file:line` of the deciding rule; inbound only.
    pub rule: Option<&'a str>,
    pub commit: Option<&'a str>,
    pub attempts: u32,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub user_agent: Option<&'a [u8]>,
}

/// The line as it is written: the field names of `docs/seams.md`.
#[derive(Serialize)]
struct Line<'a> {
    time: Timestamp,
    direction: &'static str,
    node: &'a str,
    request_id: &'a str,
    #[serde(serialize_with = "trace_id")]
    trace_id: u128,
    /// This hop's span: the parent of whatever it called.
    span_id: SpanId,
    parent_id: Option<SpanId>,
    source: &'a str,
    destination: &'a str,
    route: Option<&'a str>,
    cluster: Option<&'a str>,
    upstream: Option<SocketAddr>,
    method: &'a str,
    host: &'a str,
    path: &'a str,
    protocol: &'static str,
    status: u16,
    grpc_status: Option<u16>,
    code: Option<&'static str>,
    rule: Option<&'a str>,
    commit: Option<&'a str>,
    attempts: u32,
    duration_us: u64,
    bytes_in: u64,
    bytes_out: u64,
    user_agent: Option<std::borrow::Cow<'a, str>>,
}

impl<'a> Line<'a> {
    fn new(record: &Record<'a>, node: &'a str) -> Self {
        Self {
            time: Timestamp(record.started),
            direction: record.hop.as_str(),
            node,
            request_id: record.request_id.as_str(),
            trace_id: record.trace.trace_id,
            span_id: SpanId(record.trace.span_id),
            parent_id: record.trace.parent_id.map(SpanId),
            source: record.source,
            destination: record.destination,
            route: record.route,
            cluster: record.cluster,
            upstream: record.upstream,
            method: record.method.as_str(),
            host: record.host,
            path: record.path,
            protocol: protocol(record.protocol),
            status: record.status,
            grpc_status: record.grpc_status,
            code: record.code.map(Code::as_str),
            rule: record.rule,
            commit: record.commit,
            attempts: record.attempts,
            duration_us: u64::try_from(record.duration.as_micros()).unwrap_or(u64::MAX),
            bytes_in: record.bytes_in,
            bytes_out: record.bytes_out,
            user_agent: record
                .user_agent
                .map(|agent| String::from_utf8_lossy(agent.get(..MAX_USER_AGENT).unwrap_or(agent))),
        }
    }
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    }
}

fn trace_id<S: Serializer>(id: &u128, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{id:032x}"))
}

/// One hop in a trace, in the spelling of `traceparent`.
struct SpanId(u64);

impl Serialize for SpanId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:016x}", self.0))
    }
}

/// One worker's end of the log.
#[derive(Debug)]
pub struct LogQueue {
    node: Arc<str>,
    lines: SyncSender<Vec<u8>>,
    queued_bytes: Arc<AtomicUsize>,
    dropped: Arc<Counter>,
}

impl LogQueue {
    pub fn write(&self, record: &Record<'_>) {
        let mut line = Vec::with_capacity(768);
        if serde_json::to_writer(&mut line, &Line::new(record, &self.node)).is_err() {
            return self.dropped.one();
        }
        line.push(b'\n');
        let length = line.len();
        let queued = self.queued_bytes.fetch_add(length, Ordering::Relaxed);
        if queued > MAX_QUEUED_BYTES || self.lines.try_send(line).is_err() {
            self.queued_bytes.fetch_sub(length, Ordering::Relaxed);
            self.dropped.one();
        }
    }
}

type Queues = Arc<Mutex<Vec<(Receiver<Vec<u8>>, Arc<AtomicUsize>)>>>;

/// The thread that writes, and what it shares with the workers.
#[derive(Debug)]
pub struct LogWriter {
    node: Arc<str>,
    dropped: Arc<Counter>,
    queues: Queues,
    /// Asks the thread to write now, and to say when it has. None where the log is off.
    flush: Option<mpsc::Sender<mpsc::Sender<()>>>,
}

impl LogWriter {
    /// Fails where the file cannot be opened or no thread be had.
    pub fn start(node: &str, target: &LogTarget) -> io::Result<Self> {
        let output: Option<Box<dyn Write + Send>> = match target {
            LogTarget::Off => None,
            LogTarget::Stdout => Some(Box::new(io::stdout())),
            LogTarget::File(path) => Some(Box::new(append_to(path)?)),
        };
        let (dropped, queues) = (Arc::<Counter>::default(), Queues::default());
        let flush = match output {
            None => None,
            Some(output) => {
                let (flush, asked) = mpsc::channel();
                let (dropped, queues) = (Arc::clone(&dropped), Arc::clone(&queues));
                thread::Builder::new()
                    .name("access-log".into())
                    .spawn(move || write_until_closed(output, &queues, &asked, &dropped))?;
                Some(flush)
            }
        };
        Ok(Self {
            node: node.into(),
            dropped,
            queues,
            flush,
        })
    }

    /// None where the log is off.
    pub fn queue(&self) -> Option<LogQueue> {
        self.flush.as_ref()?;
        let (lines, received) = mpsc::sync_channel(MAX_QUEUED_LINES);
        let queued_bytes = Arc::<AtomicUsize>::default();
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.push((received, Arc::clone(&queued_bytes)));
        let (node, dropped) = (Arc::clone(&self.node), Arc::clone(&self.dropped));
        Some(LogQueue {
            node,
            lines,
            queued_bytes,
            dropped,
        })
    }

    pub fn flush(&self) {
        let Some(flush) = &self.flush else { return };
        let (done, written) = mpsc::channel();
        if flush.send(done).is_ok() {
            // A pipe that nobody reads must not hold up the end of the process.
            let _ = written.recv_timeout(FLUSH_TIMEOUT);
        }
    }

    pub fn dropped(&self) -> u64 {
        self.dropped.get()
    }
}

fn append_to(path: &PathBuf) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

fn write_until_closed(
    mut output: Box<dyn Write + Send>,
    queues: &Queues,
    asked: &Receiver<mpsc::Sender<()>>,
    dropped: &Counter,
) {
    let mut batch = Vec::new();
    loop {
        let waiter = asked.recv_timeout(FLUSH_EVERY);
        let lines = take(queues, &mut batch);
        if output
            .write_all(&batch)
            .and_then(|()| output.flush())
            .is_err()
        {
            dropped.add(lines);
        }
        batch.clear();
        batch.shrink_to(64 << 10);
        match waiter {
            Ok(done) => drop(done.send(())),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Move what is queued into `batch`; says how many lines.
fn take(queues: &Queues, batch: &mut Vec<u8>) -> u64 {
    let queues = queues.lock().unwrap_or_else(PoisonError::into_inner);
    let mut count = 0;
    for (lines, queued_bytes) in queues.iter() {
        // At most one queue's length, so that a fast worker cannot keep the others from being written.
        for line in lines.try_iter().take(MAX_QUEUED_LINES) {
            queued_bytes.fetch_sub(line.len(), Ordering::Relaxed);
            batch.extend_from_slice(&line);
            count += 1;
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::codes::Reason;
    use http::{HeaderMap, HeaderValue};

    fn line(record: &Record<'_>) -> String {
        serde_json::to_string(&Line::new(record, "catalog-1")).unwrap()
    }

    fn with_record(check: impl FnOnce(Record<'_>)) {
        let headers: HeaderMap = [
            ("x-request-id", "0f8fad5b-d9cb-469f-a165-70867728950e"),
            (
                "traceparent",
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            ),
        ]
        .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
        .into_iter()
        .collect();
        check(Record {
            hop: Hop::Inbound,
            started: UNIX_EPOCH + Duration::from_micros(1_795_449_600_000_042),
            duration: Duration::from_micros(1_234),
            request_id: &RequestId::keep_or_make(&headers),
            trace: &Trace::keep_or_start(&headers),
            source: "spiffe://bookstore.example/ns/bookstore/sa/web",
            destination: "bookstore/catalog",
            route: None,
            cluster: Some("application"),
            upstream: Some("127.0.0.1:8080".parse().unwrap()),
            method: &Method::GET,
            host: "catalog.bookstore",
            path: "/books/7",
            protocol: Version::HTTP_2,
            status: 403,
            grpc_status: None,
            code: Some(Code::inbound(Reason::Denied)),
            rule: Some("authz/catalog.csv:3"),
            commit: Some("3f2c9a1"),
            attempts: 1,
            bytes_in: 0,
            bytes_out: 95,
            user_agent: Some(b"curl/8"),
        });
    }

    #[test]
    fn a_line_is_as_the_seams_say() {
        with_record(|record| {
            let traced = format!(
                r#""trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","span_id":"{:016x}","parent_id":"00f067aa0ba902b7","#,
                record.trace.span_id
            );
            let head = concat!(
                r#"{"time":"2026-11-23T16:00:00.000042Z","direction":"inbound","node":"catalog-1","#,
                r#""request_id":"0f8fad5b-d9cb-469f-a165-70867728950e","#,
            );
            let rest = concat!(
                r#""source":"spiffe://bookstore.example/ns/bookstore/sa/web","#,
                r#""destination":"bookstore/catalog","route":null,"cluster":"application","#,
                r#""upstream":"127.0.0.1:8080","method":"GET","host":"catalog.bookstore","#,
                r#""path":"/books/7","protocol":"HTTP/2","status":403,"grpc_status":null,"#,
                r#""code":"inbound/denied","rule":"authz/catalog.csv:3","commit":"3f2c9a1","#,
                r#""attempts":1,"duration_us":1234,"bytes_in":0,"bytes_out":95,"user_agent":"curl/8"}"#,
            );
            assert_eq!(line(&record), format!("{head}{traced}{rest}"));
        });
    }

    #[test]
    fn what_a_request_carries_cannot_break_out_of_its_line() {
        with_record(|record| {
            let agent = b"x\",\"rule\":\"forged\"\r\n{\"fake\":1}\x1b[31m\xff\x00";
            let text = line(&Record {
                user_agent: Some(agent),
                path: "/a\n\u{1b}]",
                ..record
            });
            assert!(!text.contains(|c: char| c.is_control()), "{text}");
            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(value["rule"], "authz/catalog.csv:3");
            assert_eq!(value["path"], "/a\n\u{1b}]");
        });
    }

    #[test]
    fn a_long_user_agent_is_cut() {
        with_record(|record| {
            let agent = vec![b'x'; 60_000];
            assert!(
                line(&Record {
                    user_agent: Some(&agent),
                    ..record
                })
                .len()
                    < 1_024
            );
        });
    }

    #[test]
    fn lines_reach_the_file_by_the_time_flush_returns() {
        let path =
            std::env::temp_dir().join(format!("garrison-log-{}", RequestId::random().as_str()));
        let writer = LogWriter::start("catalog-1", &LogTarget::File(path.clone())).unwrap();
        let queue = writer.queue().unwrap();
        with_record(|record| (0..3).for_each(|_| queue.write(&record)));
        writer.flush();
        let written = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(written.lines().count(), 3);
        assert!(written.ends_with("\"}\n"));
        assert_eq!(writer.dropped(), 0);
    }

    #[test]
    fn a_writer_that_is_stuck_drops_lines_and_delays_nobody() {
        let (lines, _never_read) = mpsc::sync_channel(2);
        let dropped = Arc::<Counter>::default();
        let queued_bytes = Arc::default();
        let queue = LogQueue {
            node: "n".into(),
            lines,
            queued_bytes,
            dropped: Arc::clone(&dropped),
        };
        with_record(|record| (0..5).for_each(|_| queue.write(&record)));
        assert_eq!(dropped.get(), 3);
    }

    #[test]
    fn no_queue_holds_more_than_its_bytes() {
        let (lines, received) = mpsc::sync_channel(MAX_QUEUED_LINES);
        let dropped = Arc::<Counter>::default();
        let queued_bytes = Arc::new(AtomicUsize::new(MAX_QUEUED_BYTES + 1));
        let queue = LogQueue {
            node: "n".into(),
            lines,
            queued_bytes,
            dropped: Arc::clone(&dropped),
        };
        with_record(|record| queue.write(&record));
        assert_eq!((dropped.get(), received.try_iter().count()), (1, 0));
    }

    #[test]
    fn a_log_that_is_off_takes_no_lines() {
        let writer = LogWriter::start("n", &LogTarget::Off).unwrap();
        assert!(writer.queue().is_none());
        writer.flush();
    }
}
