//! What is asked over HTTP/1.1, what must come back, and the tally of what did.

use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::json;

/// Of a head: a sidecar adds a handful of short headers.
const MAX_HEADERS: usize = 64;

/// One request, and the body that it must be answered with.
pub struct Question {
    pub bytes: Vec<u8>,
    body: Vec<u8>,
}

impl Question {
    /// The last segment of `path` is the size of the answer.
    pub fn new(host: &str, path: &str) -> Result<Self, String> {
        let size = size_of(path).ok_or_else(|| format!("{path} does not end with a size"))?;
        let bytes = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: load\r\n\r\n");
        Ok(Self {
            bytes: bytes.into_bytes(),
            body: pattern(size),
        })
    }

    /// Is this the whole right answer? `Ok(false)`: there is more to come.
    pub fn is_answered_by(&self, received: &[u8]) -> Result<bool, String> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        let parsed = response
            .parse(received)
            .map_err(|error| error.to_string())?;
        let httparse::Status::Complete(head) = parsed else {
            return Ok(false);
        };
        if response.code != Some(200) {
            let shown = String::from_utf8_lossy(received.get(..300).unwrap_or(received));
            return Err(format!("not 200: {shown}"));
        }
        let length = response
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case("content-length"))
            .and_then(|header| {
                std::str::from_utf8(header.value)
                    .ok()?
                    .parse::<usize>()
                    .ok()
            });
        if length != Some(self.body.len()) {
            return Err(format!("content-length {length:?}"));
        }
        let body = received.get(head..).unwrap_or_default();
        if body.len() < self.body.len() {
            return Ok(false);
        }
        if body == self.body {
            Ok(true)
        } else {
            Err("another body".into())
        }
    }

    /// Bytes to read at a time: an answer, with room for its head.
    pub fn buffer(&self) -> Vec<u8> {
        vec![0; self.body.len() + 8192]
    }
}

pub fn size_of(path: &str) -> Option<usize> {
    path.rsplit('/').next()?.parse().ok()
}

/// No byte repeats at a power of two, so that a piece left out, doubled or moved shows.
pub fn pattern(size: usize) -> Vec<u8> {
    (0..=250_u8).cycle().take(size).collect()
}

/// What became of a run.
#[derive(Default)]
pub struct Tally {
    right: Vec<Duration>,
    wrong: u64,
    first_wrong: Option<String>,
}

impl Tally {
    pub fn right(&mut self, took: Duration) {
        self.right.push(took);
    }

    pub fn wrong(&mut self, why: String) {
        self.wrong += 1;
        self.first_wrong.get_or_insert(why);
    }

    pub fn add(&mut self, other: Self) {
        self.right.extend(other.right);
        self.wrong += other.wrong;
        if let Some(why) = other.first_wrong {
            self.first_wrong.get_or_insert(why);
        }
    }

    pub fn print(mut self, started: Instant, more: &impl Serialize) {
        self.right.sort_unstable();
        let line = json!({
            "right": self.right.len(),
            "wrong": self.wrong,
            "first_wrong": self.first_wrong,
            "seconds": started.elapsed().as_secs_f64(),
            "p50_us": microseconds(&self.right, 0.50),
            "p99_us": microseconds(&self.right, 0.99),
            "more": more,
        });
        println!("{line}");
    }
}

#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]
fn microseconds(sorted: &[Duration], quantile: f64) -> Option<f64> {
    let index = (sorted.len() as f64 * quantile) as usize;
    sorted.get(index).map(|took| took.as_secs_f64() * 1e6)
}
