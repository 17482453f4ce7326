//! `garrison-proxy canonicalize`: the canonical form of request heads, for tests that compare it with others'.
//!
//! Reads JSON lines `{"method", "target", "headers": [[k, v]]}` and answers each with `{"path", "query", "host",
//! "port"}` or `{"refused": CODE}` (`docs/seams.md`).

use std::io::{BufRead, Write};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};
use serde::Deserialize;
use thiserror::Error;

use super::canonical::CanonicalRequest;
use super::target::Target;
use super::{Head, Refusal, framing};
use crate::codes::Reason;

#[derive(Debug, Error)]
pub enum CanonicalizeError {
    #[error("cannot read or write")]
    Io(#[from] std::io::Error),
    #[error("line {line}: expected {{\"method\", \"target\", \"headers\": [[k, v]]}}")]
    Input {
        line: usize,
        #[source]
        source: serde_json::Error,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
}

/// Answer every line of `input` on `output`.
pub fn run(input: impl BufRead, mut output: impl Write) -> Result<(), CanonicalizeError> {
    for (index, line) in input.lines().enumerate() {
        let question = serde_json::from_str(&line?).map_err(|source| CanonicalizeError::Input {
            line: index + 1,
            source,
        })?;
        let answer = match canonical(question) {
            Ok(request) => serde_json::json!({
                "path": request.path,
                "query": request.query,
                "host": request.host,
                "port": request.port,
            }),
            Err(refusal) => serde_json::json!({"refused": refusal.reason.as_str()}),
        };
        writeln!(output, "{answer}")?;
    }
    Ok(())
}

fn canonical(question: Question) -> Result<CanonicalRequest, Refusal> {
    let method = Method::from_bytes(question.method.as_bytes())
        .map_err(|_| Refusal::new(Reason::MethodNotAllowed, "not a method"))?;
    let mut headers = HeaderMap::new();
    for (name, value) in question.headers {
        let bad = |detail| Refusal::new(Reason::BadHeader, detail);
        let name =
            HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad("not a header's name"))?;
        let value = HeaderValue::try_from(value).map_err(|_| bad("not a header's value"))?;
        headers.append(name, value);
    }
    framing::declared(&headers, Version::HTTP_11)?;
    let target = Target::Line(question.target.into());
    CanonicalRequest::of(Head {
        method,
        target,
        version: Version::HTTP_11,
        headers,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(line: &str) -> serde_json::Value {
        let mut output = Vec::new();
        run(line.as_bytes(), &mut output).unwrap();
        serde_json::from_slice(&output).unwrap()
    }

    #[test]
    fn each_line_is_answered() {
        let line =
            r#"{"method": "GET", "target": "/a/%2e%2e/b?q=1", "headers": [["Host", "A.b:80"]]}"#;
        let expected = serde_json::json!({"path": "/b", "query": "q=1", "host": "a.b", "port": 80});
        assert_eq!(answer(line), expected);
        let line = r#"{"method": "GET", "target": "/a%2Fb", "headers": [["Host", "a"]]}"#;
        assert_eq!(answer(line), serde_json::json!({"refused": "bad-path"}));
    }

    #[test]
    fn a_line_that_is_no_request_is_an_error_that_names_it() {
        let error = run(&b"{}\n"[..], Vec::new()).unwrap_err();
        assert!(error.to_string().starts_with("line 1"));
    }
}
