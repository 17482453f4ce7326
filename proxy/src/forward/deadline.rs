//! Deadlines: the least of what the route allows and what the caller still has, handed on at every hop.
//!
//! The caller says it in `x-envoy-expected-rq-timeout-ms` or in `grpc-timeout`
//! (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>); a value that is neither is refused, because a
//! server behind could read it otherwise.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use tokio::time::Instant;

use crate::codes::Reason;
use crate::http::Refusal;
use crate::http::headers::{GRPC_TIMEOUT, X_EXPECTED_TIMEOUT};

/// Longer than this is no deadline (and more than a clock can add).
const MAX_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 3600);

/// When a request that began at `began` must be answered, if ever.
pub fn of(
    headers: &HeaderMap,
    route: Option<Duration>,
    began: Instant,
) -> Result<Option<Instant>, Refusal> {
    let expected = headers
        .get(&X_EXPECTED_TIMEOUT)
        .map(milliseconds)
        .transpose()?;
    let grpc = headers.get(&GRPC_TIMEOUT).map(grpc_timeout).transpose()?;
    let least = [route, expected, grpc].into_iter().flatten().min();
    Ok(least
        .filter(|timeout| *timeout < MAX_TIMEOUT)
        .map(|timeout| began + timeout))
}

/// Tell the next hop what is left.
pub fn hand_on(
    headers: &mut HeaderMap,
    deadline: Option<Instant>,
    per_try: Option<Duration>,
    now: Instant,
) {
    let left = deadline.map(|deadline| deadline.saturating_duration_since(now));
    let Some(left) = left.into_iter().chain(per_try).min() else {
        headers.remove(&X_EXPECTED_TIMEOUT);
        return;
    };
    let milliseconds = u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1);
    headers.insert(&X_EXPECTED_TIMEOUT, HeaderValue::from(milliseconds));
    if headers.contains_key(&GRPC_TIMEOUT) {
        // At most eight digits.
        let text = if milliseconds < 100_000_000 {
            format!("{milliseconds}m")
        } else {
            format!("{}S", milliseconds / 1000)
        };
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(&GRPC_TIMEOUT, value);
        }
    }
}

fn milliseconds(value: &HeaderValue) -> Result<Duration, Refusal> {
    const BAD: Refusal = Refusal::new(
        Reason::BadHeader,
        "x-envoy-expected-rq-timeout-ms is not a number",
    );
    number(value.as_bytes(), 19)
        .map(Duration::from_millis)
        .ok_or(BAD)
}

fn grpc_timeout(value: &HeaderValue) -> Result<Duration, Refusal> {
    const BAD: Refusal = Refusal::new(Reason::BadHeader, "grpc-timeout is malformed");
    let (unit, digits) = value.as_bytes().split_last().ok_or(BAD)?;
    let count = number(digits, 8).ok_or(BAD)?;
    match unit {
        b'H' => Ok(Duration::from_secs(count * 3600)),
        b'M' => Ok(Duration::from_secs(count * 60)),
        b'S' => Ok(Duration::from_secs(count)),
        b'm' => Ok(Duration::from_millis(count)),
        b'u' => Ok(Duration::from_micros(count)),
        b'n' => Ok(Duration::from_nanos(count)),
        _ => Err(BAD),
    }
}

fn number(digits: &[u8], most: usize) -> Option<u64> {
    if digits.is_empty() || digits.len() > most || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
            .collect()
    }

    fn left(
        pairs: &[(&'static str, &'static str)],
        route: Option<Duration>,
    ) -> Result<Option<Duration>, Reason> {
        let began = Instant::now();
        let deadline = of(&headers(pairs), route, began).map_err(|refusal| refusal.reason)?;
        Ok(deadline.map(|deadline| deadline - began))
    }

    #[test]
    fn the_least_counts() {
        let (second, ms) = (Duration::from_secs(1), Duration::from_millis);
        assert_eq!(left(&[], None), Ok(None));
        assert_eq!(left(&[], Some(second)), Ok(Some(second)));
        assert_eq!(
            left(&[("x-envoy-expected-rq-timeout-ms", "200")], Some(second)),
            Ok(Some(ms(200)))
        );
        assert_eq!(
            left(&[("grpc-timeout", "300m")], Some(second)),
            Ok(Some(ms(300)))
        );
        assert_eq!(
            left(&[("grpc-timeout", "2S")], Some(second)),
            Ok(Some(second))
        );
        assert_eq!(left(&[("grpc-timeout", "99999999H")], None), Ok(None));
        assert_eq!(
            left(&[("grpc-timeout", "5u")], None),
            Ok(Some(Duration::from_micros(5)))
        );
    }

    #[test]
    fn garbage_is_refused() {
        for value in [
            "",
            "1",
            "S",
            "1x",
            "-1S",
            "123456789S",
            "1 S",
            "1.5S",
            "+1S",
        ] {
            assert_eq!(
                left(&[("grpc-timeout", value)], None),
                Err(Reason::BadHeader),
                "{value}"
            );
        }
        for value in ["", "x", "-1", "1.5", "99999999999999999999"] {
            assert_eq!(
                left(&[("x-envoy-expected-rq-timeout-ms", value)], None),
                Err(Reason::BadHeader),
                "{value}"
            );
        }
    }

    #[test]
    fn what_is_left_is_handed_on() {
        let now = Instant::now();
        let mut map = headers(&[("grpc-timeout", "10S")]);
        hand_on(
            &mut map,
            Some(now + Duration::from_millis(700)),
            Some(Duration::from_millis(500)),
            now,
        );
        assert_eq!(
            (&map["x-envoy-expected-rq-timeout-ms"], &map["grpc-timeout"]),
            (
                &HeaderValue::from_static("500"),
                &HeaderValue::from_static("500m")
            )
        );
        let mut map = headers(&[("x-envoy-expected-rq-timeout-ms", "10")]);
        hand_on(&mut map, None, None, now);
        assert!(map.is_empty());
    }
}
