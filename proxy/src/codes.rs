//! Every answer that the mesh makes itself, under a stable code: `inbound/denied`, `outbound/no-route`.
//!
//! A code is where (the hop) and why (the reason). What an operator should know of it, cause and remedy, is in
//! `garrison/proxy/codes.toml`; a test below holds that file and this table equal. The body says the code and the
//! request's id and no more: details stay in this hop's access log.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Response, StatusCode};

/// Which end of a call speaks: the caller's proxy or the callee's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hop {
    Inbound,
    Outbound,
}

impl Hop {
    pub const ALL: [Self; 2] = [Self::Inbound, Self::Outbound];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

/// A gRPC status that the mesh gives (<https://grpc.io/docs/guides/status-codes/>).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrpcStatus {
    Cancelled = 1,
    DeadlineExceeded = 4,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
}

/// Makes [`Reason`] from one table: variant, name, HTTP status, gRPC status.
macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident $name:literal $status:literal $grpc:ident;)*) => {
        /// Why the mesh answered by itself.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[$doc])* $variant,)* }

        impl Reason {
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The part of the code after the hop; what `garrison-proxy canonicalize` prints.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            const fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)* }
            }

            pub const fn grpc_status(self) -> GrpcStatus {
                match self { $(Self::$variant => GrpcStatus::$grpc,)* }
            }
        }

        impl Code {
            pub const fn as_str(self) -> &'static str {
                match (self.hop, self.reason) {
                    $((Hop::Inbound, Reason::$variant) => concat!("inbound/", $name),)*
                    $((Hop::Outbound, Reason::$variant) => concat!("outbound/", $name),)*
                }
            }
        }
    };
}

/// A reason at a hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code {
    pub hop: Hop,
    pub reason: Reason,
}

reasons! {
    /// What came first is in another protocol: it is logged and not answered in this one.
    NotHttp "not-http" 400 Internal;
    /// The request target is none of the forms that this listener takes.
    BadTarget "bad-target" 400 Internal;
    /// The path has no one meaning: an escape, a backslash, a NUL, bytes that are not ASCII.
    BadPath "bad-path" 400 Internal;
    BadQuery "bad-query" 400 Internal;
    BadHost "bad-host" 400 Internal;
    BadHeader "bad-header" 400 Internal;
    /// Lengths or encodings of the body contradict each other (RFC 9112 §6.3).
    BadFraming "bad-framing" 400 Internal;
    BadBody "bad-body" 400 Internal;
    MethodNotAllowed "method-not-allowed" 405 Unimplemented;
    UpgradeNotAllowed "upgrade-not-allowed" 400 Unimplemented;
    PathTooLong "path-too-long" 414 Internal;
    HeadersTooLarge "headers-too-large" 431 ResourceExhausted;
    /// The caller did not send what it announced in time.
    RequestTimeout "request-timeout" 408 DeadlineExceeded;
    /// Identity, bundle or configuration is not there yet.
    NotReady "not-ready" 503 Unavailable;
    Draining "draining" 503 Unavailable;
    Overloaded "overloaded" 503 ResourceExhausted;
    Internal "internal" 500 Internal;
    /// The caller went away; it is logged, and nobody is left to read it (nginx's 499).
    Cancelled "cancelled" 499 Cancelled;
    NoRoute "no-route" 404 Unimplemented;
    /// The route answers by itself, with its own status.
    DirectResponse "direct-response" 500 Unavailable;
    UnknownService "unknown-service" 404 Unimplemented;
    NoHealthyEndpoint "no-healthy-endpoint" 503 Unavailable;
    ConnectFailed "connect-failed" 503 Unavailable;
    /// The server proved an identity, which is none of the service's.
    PeerIdentity "peer-identity" 502 Unavailable;
    TlsFailed "tls-failed" 502 Unavailable;
    IdentityExpired "identity-expired" 503 Unavailable;
    Timeout "timeout" 504 DeadlineExceeded;
    Overflow "overflow" 503 ResourceExhausted;
    /// The connection broke after the request was sent.
    Reset "reset" 502 Unavailable;
    BadResponse "bad-response" 502 Internal;
    Denied "denied" 403 PermissionDenied;
    NoPolicy "no-policy" 403 PermissionDenied;
    ApplicationUnreachable "application-unreachable" 503 Unavailable;
}

impl Code {
    pub const fn inbound(reason: Reason) -> Self {
        Self {
            hop: Hop::Inbound,
            reason,
        }
    }

    pub const fn outbound(reason: Reason) -> Self {
        Self {
            hop: Hop::Outbound,
            reason,
        }
    }

    pub fn status(self) -> StatusCode {
        StatusCode::from_u16(self.reason.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

pub static X_GARRISON_CODE: HeaderName = HeaderName::from_static("x-garrison-code");
pub static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
static GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Who is to be answered: in which form, and under which id.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    pub request_id: &'a str,
    /// By [`is_grpc`] of the request's headers.
    pub grpc: bool,
}

/// Is this a gRPC call (`application/grpc`, `application/grpc+proto`, not `application/grpc-web`)?
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(CONTENT_TYPE) else {
        return false;
    };
    match kind.as_bytes().strip_prefix(b"application/grpc") {
        Some(rest) => matches!(rest.first(), None | Some(b'+' | b';')),
        None => false,
    }
}

/// The answer of the mesh itself; the body is whole, so that the caller wraps it as its codec needs.
pub fn respond(code: Code, asker: Asker<'_>) -> Response<Bytes> {
    respond_with(code.status(), code, asker)
}

/// As [`respond`] with a status of the configuration's choice (`direct_response`).
pub fn respond_with(status: StatusCode, code: Code, asker: Asker<'_>) -> Response<Bytes> {
    let mut response = if asker.grpc {
        trailers_only(code)
    } else {
        json(status, code, asker)
    };
    let headers = response.headers_mut();
    headers.insert(&X_GARRISON_CODE, HeaderValue::from_static(code.as_str()));
    if let Ok(id) = HeaderValue::from_str(asker.request_id) {
        headers.insert(&X_REQUEST_ID, id);
    }
    response
}

/// gRPC over HTTP/2, "Trailers-Only": status 200, and everything in the one header block.
fn trailers_only(code: Code) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(
        &GRPC_STATUS,
        HeaderValue::from(code.reason.grpc_status() as u16),
    );
    headers.insert(&GRPC_MESSAGE, HeaderValue::from_static(code.as_str()));
    response
}

fn json(status: StatusCode, code: Code, asker: Asker<'_>) -> Response<Bytes> {
    let body = serde_json::json!({
        "code": code.as_str(),
        "hop": code.hop.as_str(),
        "request_id": asker.request_id,
    });
    let mut response = Response::new(Bytes::from(body.to_string()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Explained {
        hops: BTreeSet<String>,
        status: u16,
        grpc: u16,
        cause: String,
        remedy: String,
    }

    fn explained() -> BTreeMap<String, Explained> {
        toml::from_str(include_str!("../garrison/proxy/codes.toml")).unwrap()
    }

    #[test]
    fn the_table_and_its_explanations_are_equal() {
        let explained = explained();
        let names: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(names, explained.keys().map(String::as_str).collect());
        for reason in Reason::ALL {
            let entry = &explained[reason.as_str()];
            assert_eq!(entry.status, reason.status(), "{}", reason.as_str());
            assert_eq!(
                entry.grpc,
                reason.grpc_status() as u16,
                "{}",
                reason.as_str()
            );
            assert!(
                entry
                    .hops
                    .iter()
                    .all(|hop| hop == "inbound" || hop == "outbound")
            );
            assert!(!entry.hops.is_empty() && !entry.cause.is_empty() && !entry.remedy.is_empty());
        }
    }

    #[test]
    fn a_code_is_its_hop_and_its_reason() {
        for hop in Hop::ALL {
            for &reason in Reason::ALL {
                let code = Code { hop, reason };
                assert_eq!(
                    code.as_str(),
                    format!("{}/{}", hop.as_str(), reason.as_str())
                );
                assert_eq!(code.status().as_u16(), reason.status());
            }
        }
    }

    #[test]
    fn an_answer_says_code_hop_and_request_id_and_no_more() {
        let asker = Asker {
            request_id: "r-1",
            grpc: false,
        };
        let response = respond(Code::inbound(Reason::Denied), asker);
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
        assert_eq!(response.headers()["x-garrison-code"], "inbound/denied");
        assert_eq!(response.headers()["x-request-id"], "r-1");
        let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
        let expected =
            serde_json::json!({"code": "inbound/denied", "hop": "inbound", "request_id": "r-1"});
        assert_eq!(body, expected);
    }

    #[test]
    fn a_grpc_caller_gets_trailers_only() {
        let asker = Asker {
            request_id: "r-1",
            grpc: true,
        };
        let response = respond(Code::outbound(Reason::Timeout), asker);
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["grpc-status"], "4");
        assert_eq!(response.headers()["grpc-message"], "outbound/timeout");
        assert_eq!(response.headers()["x-garrison-code"], "outbound/timeout");
        assert!(response.body().is_empty());
    }

    #[test]
    fn grpc_is_known_by_its_content_type() {
        let call = |kind: &'static str| {
            is_grpc(&HeaderMap::from_iter([(
                CONTENT_TYPE,
                HeaderValue::from_static(kind),
            )]))
        };
        assert!(call("application/grpc") && call("application/grpc+proto"));
        assert!(call("application/grpc; charset=utf-8"));
        assert!(!call("application/grpc-web") && !call("application/json"));
        assert!(!is_grpc(&HeaderMap::new()));
    }

    #[test]
    fn an_id_that_is_no_header_value_is_left_out() {
        let response = respond(
            Code::inbound(Reason::Denied),
            Asker {
                request_id: "a\nb",
                grpc: false,
            },
        );
        assert!(!response.headers().contains_key("x-request-id"));
    }
}
