//! One request and what became of it: filled on its way, told to telemetry once, at its end.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::{HeaderName, USER_AGENT};
use http::{HeaderMap, StatusCode, Version};
use tokio::time::Instant;

use crate::balance::InFlight;
use crate::codes::{self, Asker, Code, Hop, Reason};
use crate::http::body::{Body, BodyError, Frame};
use crate::http::canonical::CanonicalRequest;
use crate::http::service::Answer;
use crate::mesh::Snapshot;
use crate::mesh::route::Route;
use crate::telemetry::{Record, RequestId, Trace, Worker as Telemetry};

static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// What a destination is called that no configuration names.
const UNKNOWN: &str = "unknown";

/// How an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Complete,
    /// The caller went away.
    Gone,
    /// What the answer's body came from failed; the caller saw it break off.
    Broken(BodyError),
}

/// A request under way.
#[derive(Debug)]
pub struct Exchange {
    telemetry: Telemetry,
    hop: Hop,
    started: SystemTime,
    began: Instant,
    pub request_id: RequestId,
    pub trace: Trace,
    pub source: Arc<str>,
    pub destination: Option<Arc<str>>,
    pub route: Option<Arc<Route>>,
    pub cluster: Option<Arc<str>>,
    pub upstream: Option<SocketAddr>,
    /// The canonical request; of a refused one only what could be read.
    pub request: CanonicalRequest,
    protocol: Version,
    status: Option<StatusCode>,
    grpc_status: Option<u16>,
    code: Option<Code>,
    pub rule: Option<Arc<str>>,
    snapshot: Option<Arc<Snapshot>>,
    pub attempts: u32,
    pub bytes_in: Rc<Cell<u64>>,
    bytes_out: u64,
    is_grpc: bool,
    /// What the request occupies, until its end.
    pub in_flight: Option<InFlight>,
    is_told: bool,
}

/// What is known of a request when it begins.
pub struct Beginning {
    pub hop: Hop,
    pub source: Arc<str>,
    pub protocol: Version,
    pub snapshot: Option<Arc<Snapshot>>,
}

impl Exchange {
    pub fn begin(
        telemetry: &Telemetry,
        beginning: Beginning,
        request: CanonicalRequest,
    ) -> Box<Self> {
        Box::new(Self {
            telemetry: telemetry.clone(),
            hop: beginning.hop,
            started: SystemTime::now(),
            began: Instant::now(),
            request_id: RequestId::keep_or_make(&request.headers),
            trace: Trace::keep_or_start(&request.headers),
            source: beginning.source,
            destination: None,
            route: None,
            cluster: None,
            upstream: None,
            is_grpc: codes::is_grpc(&request.headers),
            request,
            protocol: beginning.protocol,
            status: None,
            grpc_status: None,
            code: None,
            rule: None,
            snapshot: beginning.snapshot,
            attempts: 0,
            bytes_in: Rc::default(),
            bytes_out: 0,
            in_flight: None,
            is_told: false,
        })
    }

    pub fn hop(&self) -> Hop {
        self.hop
    }

    pub fn protocol(&self) -> Version {
        self.protocol
    }

    pub fn began(&self) -> Instant {
        self.began
    }

    /// Answer by ourselves.
    pub fn refuse(self: Box<Self>, reason: Reason) -> Answer {
        self.respond(reason, None, None)
    }

    /// Answer as the route says.
    pub fn direct(self: Box<Self>, status: StatusCode, body: &str) -> Answer {
        let body = (!body.is_empty()).then(|| bytes::Bytes::copy_from_slice(body.as_bytes()));
        self.respond(Reason::DirectResponse, Some(status), body)
    }

    fn respond(
        mut self: Box<Self>,
        reason: Reason,
        status: Option<StatusCode>,
        text: Option<bytes::Bytes>,
    ) -> Answer {
        let code = Code {
            hop: self.hop,
            reason,
        };
        let asker = Asker {
            request_id: self.request_id.as_str(),
            grpc: self.is_grpc,
        };
        let response = codes::respond_with(status.unwrap_or(code.status()), code, asker);
        self.code = Some(code);
        let (parts, body) = response.into_parts();
        let mut headers = parts.headers;
        let body = match text {
            Some(text) if !self.is_grpc => {
                headers.remove(http::header::CONTENT_TYPE);
                text
            }
            _ => body,
        };
        self.answer(parts.status, headers, body.into())
    }

    /// Answer with these.
    pub fn answer(
        mut self: Box<Self>,
        status: StatusCode,
        headers: HeaderMap,
        body: Body,
    ) -> Answer {
        self.status = Some(status);
        self.read_grpc_status(&headers);
        Answer {
            status,
            headers,
            body,
            exchange: Some(self),
        }
    }

    /// A frame of the answer goes out.
    pub fn sent(&mut self, frame: &Frame) {
        match frame {
            Frame::Data(data) => self.bytes_out += data.len() as u64,
            Frame::Trailers(trailers) => self.read_grpc_status(trailers),
        }
    }

    fn read_grpc_status(&mut self, headers: &HeaderMap) {
        let value = self.is_grpc.then(|| headers.get(&GRPC_STATUS)).flatten();
        if let Some(value) = value {
            self.grpc_status = value.to_str().ok().and_then(|text| text.parse().ok());
        }
    }

    /// Say how the answer ended.
    pub fn end(mut self: Box<Self>, end: End) {
        match end {
            End::Complete => {}
            End::Gone => self.break_off(Reason::Cancelled),
            End::Broken(BodyError::Deadline | BodyError::Stalled) => {
                self.break_off(Reason::Timeout);
            }
            End::Broken(BodyError::Broken | BodyError::Malformed | BodyError::Reset) => {
                self.break_off(Reason::Reset);
            }
        }
        self.tell();
    }

    fn break_off(&mut self, reason: Reason) {
        self.code.get_or_insert(Code {
            hop: self.hop,
            reason,
        });
    }

    fn tell(&mut self) {
        self.is_told = true;
        let destination = self.destination.as_deref().unwrap_or(UNKNOWN);
        self.telemetry.finish(&Record {
            hop: self.hop,
            started: self.started,
            duration: Instant::now()
                .saturating_duration_since(self.began)
                .max(Duration::from_micros(1)),
            request_id: &self.request_id,
            trace: &self.trace,
            source: &self.source,
            destination,
            route: self.route.as_ref().map(|route| &*route.name),
            cluster: self.cluster.as_deref(),
            upstream: self.upstream,
            method: &self.request.method,
            host: &self.request.host,
            path: &self.request.path,
            protocol: self.protocol,
            status: self.status.map_or(0, |status| status.as_u16()),
            grpc_status: self.grpc_status,
            code: self.code,
            rule: self.rule.as_deref(),
            commit: self.snapshot.as_ref().map(|snapshot| &*snapshot.commit),
            attempts: self.attempts,
            bytes_in: self.bytes_in.get(),
            bytes_out: self.bytes_out,
            user_agent: self
                .request
                .headers
                .get(USER_AGENT)
                .map(http::HeaderValue::as_bytes),
        });
    }
}

impl Drop for Exchange {
    /// Dropped on its way: the caller went away, or its connection's task failed.
    fn drop(&mut self) {
        if !self.is_told {
            self.break_off(Reason::Cancelled);
            self.tell();
        }
    }
}
