//! `garrison-proxy decide`: decisions for generated rules and requests, for tests that compare them with others'.
//!
//! Reads JSON lines (`docs/seams.md`). `{"deny": BASE64, "allow": BASE64}` sets the rules, serialized
//! `envoy.config.rbac.v3.RBAC` each; `{"principal", "method", "path", "query", "host", "headers"}` is a request, answered with
//! `{"allowed", "rule"}`. Answers are written out when no further line has arrived yet, so that one can also ask line by
//! line.

use std::borrow::Cow;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::sync::Arc;

use base64::prelude::{BASE64_STANDARD, Engine};
use envoy_types::pb::envoy::config::rbac::v3::Rbac;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use prost::Message;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Authorization, Principal, Unsupported};
use crate::http::canonical::CanonicalRequest;

const MAX_LINE_BYTES: u64 = 64 << 20;

#[derive(Debug, Error)]
pub enum DecideError {
    #[error("cannot read or write")]
    Io(#[from] io::Error),
    #[error("line {line}")]
    Line { line: usize, source: LineError },
}

#[derive(Debug, Error)]
pub enum LineError {
    #[error("over {MAX_LINE_BYTES} bytes")]
    TooLong,
    #[error("expected rules or a request")]
    Json(#[from] serde_json::Error),
    #[error("a request before any rules")]
    NoRules,
    #[error("{filter}: expected base64 of a serialized envoy.config.rbac.v3.RBAC")]
    Rules { filter: &'static str },
    #[error("{filter}: has a field that this version of the API does not know")]
    UnknownField { filter: &'static str },
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    #[error("{0} is not one of HTTP")]
    Http(&'static str),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Filters<'a> {
    #[serde(borrow)]
    deny: Cow<'a, str>,
    #[serde(borrow)]
    allow: Cow<'a, str>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Question<'a> {
    #[serde(borrow)]
    principal: Option<Cow<'a, str>>,
    #[serde(borrow)]
    method: Cow<'a, str>,
    #[serde(borrow)]
    path: Cow<'a, str>,
    #[serde(borrow)]
    query: Option<Cow<'a, str>>,
    #[serde(borrow)]
    host: Cow<'a, str>,
    #[serde(borrow)]
    headers: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

#[derive(Serialize)]
struct Answer<'a> {
    allowed: bool,
    rule: Option<&'a str>,
}

/// Answer every request of `input` on `output`.
pub fn run(input: impl Read, mut output: impl Write) -> Result<(), DecideError> {
    let mut input = BufReader::with_capacity(1 << 16, input);
    let (mut line, mut answers) = (Vec::new(), Vec::new());
    let mut rules = None;
    for number in 1.. {
        line.clear();
        if (&mut input)
            .take(MAX_LINE_BYTES + 1)
            .read_until(b'\n', &mut line)?
            == 0
        {
            break;
        }
        let answered = answer(&line, &mut rules, &mut answers);
        answered.map_err(|source| DecideError::Line {
            line: number,
            source,
        })?;
        if input.buffer().is_empty() || answers.len() > 1 << 16 {
            output.write_all(&answers)?;
            output.flush()?;
            answers.clear();
        }
    }
    Ok(())
}

fn answer(
    line: &[u8],
    rules: &mut Option<Authorization>,
    answers: &mut Vec<u8>,
) -> Result<(), LineError> {
    if line.len() as u64 > MAX_LINE_BYTES {
        return Err(LineError::TooLong);
    }
    match serde_json::from_slice(line) {
        Ok(question) => {
            let rules = rules.as_ref().ok_or(LineError::NoRules)?;
            decide(rules, &question, answers)?;
        }
        Err(no_request) => {
            let Ok(Filters { deny, allow }) = serde_json::from_slice(line) else {
                return Err(no_request.into());
            };
            let (deny, allow) = (filter("deny", &deny)?, filter("allow", &allow)?);
            *rules = Some(Authorization::compile(&deny, &allow)?);
        }
    }
    Ok(())
}

fn decide(
    rules: &Authorization,
    question: &Question<'_>,
    answers: &mut Vec<u8>,
) -> Result<(), LineError> {
    let principal = match &question.principal {
        Some(id) => Principal::Spiffe(Arc::from(&**id)),
        None => Principal::Unauthenticated,
    };
    let decision = rules.resolve(&principal).decide(&request(question)?);
    let answer = Answer {
        allowed: decision.allowed,
        rule: decision.rule.as_deref(),
    };
    serde_json::to_writer(&mut *answers, &answer)?;
    answers.push(b'\n');
    Ok(())
}

fn filter(name: &'static str, base64: &str) -> Result<Rbac, LineError> {
    let bytes = BASE64_STANDARD
        .decode(base64)
        .map_err(|_| LineError::Rules { filter: name })?;
    let filter = Rbac::decode(&*bytes).map_err(|_| LineError::Rules { filter: name })?;
    // What prost does not know it drops without a word; then the length is not the same.
    if filter.encoded_len() != bytes.len() {
        return Err(LineError::UnknownField { filter: name });
    }
    Ok(filter)
}

fn request(question: &Question<'_>) -> Result<CanonicalRequest, LineError> {
    let mut headers = HeaderMap::with_capacity(question.headers.len());
    for (name, value) in &question.headers {
        let name = HeaderName::from_bytes(name.as_bytes());
        let value = HeaderValue::from_bytes(value.as_bytes());
        headers.append(
            name.map_err(|_| LineError::Http("a header's name"))?,
            value.map_err(|_| LineError::Http("a header's value"))?,
        );
    }
    Ok(CanonicalRequest {
        method: Method::from_bytes(question.method.as_bytes())
            .map_err(|_| LineError::Http("the method"))?,
        host: (&*question.host).into(),
        port: None,
        path: (&*question.path).into(),
        query: question.query.as_deref().map(Into::into),
        headers,
    })
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::rbac::v3::permission::Rule;
    use envoy_types::pb::envoy::config::rbac::v3::principal::Identifier;
    use envoy_types::pb::envoy::config::rbac::v3::rbac::Action;
    use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
    use serde_json::json;

    use super::super::reference::{permission, policy, principal, rbac, url_path};
    use super::*;

    fn rules() -> String {
        let on = |path: &str| {
            let path = Rule::UrlPath(url_path(MatchPattern::Prefix(path.into())));
            policy(
                vec![permission(path)],
                vec![principal(Identifier::Any(true))],
            )
        };
        let deny = rbac(Action::Deny, [("authz/x.csv:9".to_owned(), on("/admin"))]);
        let allow = rbac(Action::Allow, [("authz/x.csv:3".to_owned(), on("/"))]);
        let encode = |filter: Rbac| BASE64_STANDARD.encode(filter.encode_to_vec());
        json!({"deny": encode(deny), "allow": encode(allow)}).to_string()
    }

    fn ask(path: &str) -> String {
        let question = json!({"principal": null, "method": "GET", "path": path, "query": null,
            "host": "a.b", "headers": [["x-a", "1"], ["x-a", "ü"]]});
        question.to_string()
    }

    fn answers(lines: &[String]) -> Result<String, DecideError> {
        let mut output = Vec::new();
        run(lines.join("\n").as_bytes(), &mut output)?;
        Ok(String::from_utf8(output).unwrap())
    }

    fn fault(lines: &[String]) -> String {
        use std::error::Error;
        let error = answers(lines).unwrap_err();
        format!("{error}: {}", error.source().unwrap())
    }

    #[test]
    fn each_request_is_answered_by_the_rules_before_it() {
        let expected = concat!(
            r#"{"allowed":true,"rule":"authz/x.csv:3"}"#,
            "\n",
            r#"{"allowed":false,"rule":"authz/x.csv:9"}"#,
            "\n",
            r#"{"allowed":false,"rule":null}"#,
            "\n"
        );
        assert_eq!(
            answers(&[rules(), ask("/a"), ask("/admin/x"), ask("a b")]).unwrap(),
            expected
        );
    }

    #[test]
    fn unusable_lines_are_told_by_their_number() {
        assert_eq!(fault(&[ask("/")]), "line 1: a request before any rules");
        assert!(fault(&[rules(), "{}".into()]).starts_with("line 2: expected rules or a request"));
        let junk = json!({"deny": "!", "allow": ""}).to_string();
        assert!(fault(&[junk]).starts_with("line 1: deny: expected base64"));
        // The action of an empty message is ALLOW.
        let empty = json!({"deny": "", "allow": ""}).to_string();
        assert!(fault(&[empty]).starts_with("line 1: RBAC.action: expected DENY"));
        let method = ask("/").replace("GET", "G T");
        assert_eq!(
            fault(&[rules(), method]),
            "line 2: the method is not one of HTTP"
        );
    }

    #[test]
    fn a_field_of_a_later_version_is_refused() {
        // Field 15, a varint: not in RBAC.
        let mut bytes = Rbac {
            action: Action::Deny as i32,
            ..Rbac::default()
        }
        .encode_to_vec();
        bytes.extend([15 << 3, 1]);
        let line = json!({"deny": BASE64_STANDARD.encode(bytes), "allow": ""}).to_string();
        let fault = fault(&[line]);
        assert!(fault.starts_with("line 1: deny: has a field"), "{fault}");
    }
}
