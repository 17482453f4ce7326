//! W3C Trace Context (<https://www.w3.org/TR/trace-context/>): the trace of a request, kept or started.
//!
//! Each hop is a span of its own: it keeps the trace id and the flags, and passes on its own span id as the parent. A
//! `traceparent` that is not exactly right starts a new trace, and takes `tracestate` with it (§4.3).

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};
use rand::RngCore;

static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// §3.3.1.1: at most so many list members; §3.3.1.5: at least so many characters are propagated.
const MAX_STATE_MEMBERS: usize = 32;
const MAX_STATE_BYTES: usize = 512;

/// One hop's place in a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    pub trace_id: u128,
    /// This hop's own span.
    pub span_id: u64,
    /// The span that called; none where the trace starts here.
    pub parent_id: Option<u64>,
    pub flags: u8,
    state: Option<HeaderValue>,
}

impl Trace {
    /// Continue the trace that the headers name, or start one.
    pub fn keep_or_start(headers: &HeaderMap) -> Self {
        let Some(parent) = only(headers, &TRACEPARENT).and_then(Parent::parse) else {
            return Self::start();
        };
        Self {
            trace_id: parent.trace_id,
            span_id: random_id(),
            parent_id: Some(parent.span_id),
            flags: parent.flags,
            state: state(headers),
        }
    }

    fn start() -> Self {
        let trace_id = u128::from(random_id()) << 64 | u128::from(random_id());
        // Not sampled: whether to keep a trace is not the mesh's choice to make for others.
        Self {
            trace_id,
            span_id: random_id(),
            parent_id: None,
            flags: 0,
            state: None,
        }
    }

    /// Write this hop as the parent of whatever comes next.
    pub fn stamp(&self, headers: &mut HeaderMap) {
        let parent = format!(
            "00-{:032x}-{:016x}-{:02x}",
            self.trace_id, self.span_id, self.flags
        );
        if let Ok(parent) = HeaderValue::from_str(&parent) {
            headers.insert(&TRACEPARENT, parent);
        }
        match &self.state {
            Some(state) => headers.insert(&TRACESTATE, state.clone()),
            None => headers.remove(&TRACESTATE),
        };
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Parent {
    trace_id: u128,
    span_id: u64,
    flags: u8,
}

impl Parent {
    /// `version-traceid-parentid-flags`, lower-case hex (§3.2). A later version may be longer, after a dash.
    fn parse(text: &str) -> Option<Self> {
        let (known, rest) = text.split_at_checked(55)?;
        let mut parts = known.split('-');
        let version = hex(parts.next()?, 2)?;
        let trace_id = hex(parts.next()?, 32)?;
        let span_id = u64::try_from(hex(parts.next()?, 16)?).ok()?;
        let flags = u8::try_from(hex(parts.next()?, 2)?).ok()?;
        let ends_well = if version == 0 {
            rest.is_empty()
        } else {
            rest.is_empty() || rest.starts_with('-')
        };
        let valid = version != 0xff && ends_well && trace_id != 0 && span_id != 0;
        // Of the flags only `sampled` and `random` are known, and unknown ones are not passed on (§3.2.2.5).
        valid.then_some(Self {
            trace_id,
            span_id,
            flags: flags & 0b11,
        })
    }
}

fn hex(text: &str, length: usize) -> Option<u128> {
    let lower_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    (text.len() == length && text.bytes().all(lower_hex))
        .then(|| u128::from_str_radix(text, 16).ok())?
}

fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

/// All `tracestate` lines as one; none if one of them is malformed or they are too many (§3.3).
fn state(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut members: Vec<&str> = Vec::new();
    for line in headers.get_all(&TRACESTATE) {
        let line = line.to_str().ok()?;
        members.extend(
            line.split(',')
                .map(str::trim)
                .filter(|member| !member.is_empty()),
        );
    }
    let well_formed = members.iter().all(|member| is_member(member));
    let joined = members.join(",");
    let fits = members.len() <= MAX_STATE_MEMBERS && joined.len() <= MAX_STATE_BYTES;
    if members.is_empty() || !well_formed || !fits {
        return None;
    }
    HeaderValue::from_str(&joined).ok()
}

/// `key=value` (§3.3.1.3).
fn is_member(member: &str) -> bool {
    let Some((key, value)) = member.split_once('=') else {
        return false;
    };
    let in_key =
        |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/' | b'@');
    let in_value = |byte: u8| matches!(byte, 0x20..=0x7e) && byte != b',' && byte != b'=';
    let key_starts = matches!(key.as_bytes().first(), Some(b'a'..=b'z' | b'0'..=b'9'));
    key_starts
        && key.len() <= 256
        && key.bytes().all(in_key)
        && !value.is_empty()
        && value.len() <= 256
        && value.bytes().all(in_value)
}

fn random_id() -> u64 {
    // Zero means "none" in this format.
    rand::rng().next_u64().max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn headers(parents: &[&str], states: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for parent in parents {
            headers.append(&TRACEPARENT, HeaderValue::from_str(parent).unwrap());
        }
        for state in states {
            headers.append(&TRACESTATE, HeaderValue::from_str(state).unwrap());
        }
        headers
    }

    #[test]
    fn a_trace_is_kept_with_a_span_of_our_own() {
        let mut headers = headers(&[PARENT], &["congo=t61rcWkgMzE", "rojo=00f067aa0ba902b7"]);
        let trace = Trace::keep_or_start(&headers);
        assert_eq!(trace.trace_id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!(trace.parent_id, Some(0x00f0_67aa_0ba9_02b7));
        assert_ne!(Some(trace.span_id), trace.parent_id);
        trace.stamp(&mut headers);
        let expected = format!(
            "00-4bf92f3577b34da6a3ce929d0e0e4736-{:016x}-01",
            trace.span_id
        );
        assert_eq!(headers["traceparent"], expected.as_str());
        assert_eq!(
            headers["tracestate"],
            "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"
        );
        assert_eq!(headers.get_all("tracestate").iter().count(), 1);
    }

    #[test]
    fn a_later_version_is_read_by_its_known_part() {
        let later = PARENT.replacen("00", "cc", 1) + "-what-the-future-will-be-like";
        let trace = Trace::keep_or_start(&headers(&[&later], &[]));
        assert_eq!(trace.trace_id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
    }

    #[test]
    fn a_malformed_parent_starts_a_new_trace_without_state() {
        let bad = [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.x",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0g",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ];
        for parent in bad {
            let mut headers = headers(&[parent], &["congo=t61rcWkgMzE"]);
            let trace = Trace::keep_or_start(&headers);
            assert_eq!(trace.parent_id, None, "{parent}");
            trace.stamp(&mut headers);
            assert!(!headers.contains_key("tracestate"), "{parent}");
        }
        assert_eq!(
            Trace::keep_or_start(&headers(&[PARENT, PARENT], &[])).parent_id,
            None
        );
    }

    #[test]
    fn malformed_state_is_dropped_and_the_trace_kept() {
        let many = vec!["a=b"; 33].join(",");
        let long = format!("a={}", "x".repeat(257));
        for state in [
            "nonsense",
            "A=b",
            "a=",
            "=b",
            "a=b=c",
            many.as_str(),
            long.as_str(),
        ] {
            let trace = Trace::keep_or_start(&headers(&[PARENT], &[state]));
            assert!(trace.parent_id.is_some(), "{state}");
            assert_eq!(trace.state, None, "{state}");
        }
    }

    proptest! {
        #[test]
        fn what_is_stamped_is_kept_by_the_next_hop(parent in "[ -~]{0,60}", state in "[ -~]{0,80}") {
            let mut headers = headers(&[&parent], &[&state]);
            let trace = Trace::keep_or_start(&headers);
            trace.stamp(&mut headers);
            let next = Trace::keep_or_start(&headers);
            prop_assert_eq!(next.trace_id, trace.trace_id);
            prop_assert_eq!(next.parent_id, Some(trace.span_id));
            prop_assert_eq!(next.state, trace.state);
        }
    }
}
