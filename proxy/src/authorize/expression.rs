//! What a rule says of a request: a tree of tests, and its value.

use std::cell::OnceCell;
use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method};
use regex::bytes::Regex;

use super::path_pattern::PathPattern;
use super::principal::Principal;
use crate::http::canonical::CanonicalRequest;

#[derive(Debug)]
pub enum Expression {
    Always,
    All(Box<[Self]>),
    Some(Box<[Self]>),
    Not(Box<Self>),
    /// Is the caller authenticated, and its SPIFFE ID so?
    Authenticated(Option<Text>),
    /// The path without query, as text.
    Path(Text),
    /// The path without query, by its segments: one of these.
    Segments(Box<[PathPattern]>),
    Method(Method),
    Header(Box<HeaderTest>),
}

/// A test of a text: all of `envoy.type.matcher.v3.StringMatcher` but `ignore_case`.
#[derive(Debug)]
pub enum Text {
    Exact(Box<str>),
    Prefix(Box<str>),
    Suffix(Box<str>),
    Contains(Box<str>),
    /// Of the whole text; shared by all rules with this pattern.
    Regex(Arc<WholeRegex>),
}

#[derive(Debug)]
pub struct WholeRegex {
    pub regex: Regex,
    /// What a path must look like for it to match: for the index.
    pub paths: Box<[PathPattern]>,
}

#[derive(Debug)]
pub struct HeaderTest {
    pub name: Name,
    pub value: ValueTest,
    pub invert: bool,
}

#[derive(Debug)]
pub enum Name {
    /// `:method`
    Method,
    /// `:path`, with the query.
    PathAndQuery,
    /// `:authority`, as Envoy also calls `host`.
    Authority,
    Field(HeaderName),
}

#[derive(Debug)]
pub enum ValueTest {
    Present(bool),
    Text(Text),
}

/// What is meant where a header has several values. A negation turns one into the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Values {
    /// One that matches is enough: for rules that deny.
    Any,
    /// Each must match: for rules that allow.
    All,
}

impl Values {
    fn negated(self) -> Self {
        match self {
            Self::Any => Self::All,
            Self::All => Self::Any,
        }
    }

    fn hold<T>(self, values: impl Iterator<Item = T>, test: impl Fn(T) -> bool) -> bool {
        let mut values = values;
        match self {
            Self::Any => values.any(test),
            Self::All => values.all(test),
        }
    }
}

/// A request as expressions see it.
pub struct Request<'a> {
    pub principal: &'a Principal,
    pub canonical: &'a CanonicalRequest,
    path_and_query: OnceCell<String>,
    authority: OnceCell<String>,
}

impl<'a> Request<'a> {
    pub fn new(principal: &'a Principal, canonical: &'a CanonicalRequest) -> Self {
        let (path_and_query, authority) = (OnceCell::new(), OnceCell::new());
        Self {
            principal,
            canonical,
            path_and_query,
            authority,
        }
    }

    fn path_and_query(&self) -> &str {
        let Some(query) = &self.canonical.query else {
            return &self.canonical.path;
        };
        self.path_and_query
            .get_or_init(|| format!("{}?{query}", self.canonical.path))
    }

    fn authority(&self) -> &str {
        let Some(port) = self.canonical.port else {
            return &self.canonical.host;
        };
        self.authority
            .get_or_init(|| format!("{}:{port}", self.canonical.host))
    }
}

impl Expression {
    pub fn holds(&self, request: &Request<'_>, values: Values) -> bool {
        match self {
            Self::Always => true,
            Self::All(parts) => parts.iter().all(|part| part.holds(request, values)),
            Self::Some(parts) => parts.iter().any(|part| part.holds(request, values)),
            Self::Not(part) => !part.holds(request, values.negated()),
            Self::Authenticated(name) => is_named(name.as_ref(), request.principal),
            Self::Path(text) => text.matches(request.canonical.path.as_bytes()),
            Self::Segments(patterns) => patterns
                .iter()
                .any(|pattern| pattern.matches(&request.canonical.path)),
            Self::Method(method) => request.canonical.method == *method,
            Self::Header(test) => test.holds(request, values),
        }
    }

    /// The value where the principal alone decides it.
    pub fn known(&self, principal: &Principal) -> Option<bool> {
        match self {
            Self::Always => Some(true),
            Self::All(parts) => all_known(parts.iter().map(|part| part.known(principal))),
            Self::Some(parts) => {
                let negated = parts
                    .iter()
                    .map(|part| part.known(principal).map(|value| !value));
                all_known(negated).map(|value| !value)
            }
            Self::Not(part) => part.known(principal).map(|value| !value),
            Self::Authenticated(name) => Some(is_named(name.as_ref(), principal)),
            Self::Path(_) | Self::Segments(_) | Self::Method(_) | Self::Header(_) => None,
        }
    }

    /// Does it depend on more than the principal?
    pub fn asks_request(&self) -> bool {
        match self {
            Self::Always | Self::Authenticated(_) => false,
            Self::All(parts) | Self::Some(parts) => parts.iter().any(Self::asks_request),
            Self::Not(part) => part.asks_request(),
            Self::Path(_) | Self::Segments(_) | Self::Method(_) | Self::Header(_) => true,
        }
    }

    /// How dear the evaluation is: cheap parts are tried first.
    pub fn cost(&self) -> usize {
        match self {
            Self::Always => 0,
            Self::Method(_) => 1,
            Self::Authenticated(None) => 2,
            Self::Segments(_) => 6,
            Self::Authenticated(Some(text)) | Self::Path(text) => 2 + text.cost(),
            Self::Header(test) => match &test.value {
                ValueTest::Present(_) => 10,
                ValueTest::Text(value) => 10 + value.cost(),
            },
            Self::Not(part) => part.cost(),
            Self::All(parts) | Self::Some(parts) => parts.iter().map(Self::cost).sum(),
        }
    }
}

/// The conjunction of values of which some are not known.
fn all_known(values: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    let mut conjunction = Some(true);
    for value in values {
        match value {
            Some(true) => {}
            Some(false) => return Some(false),
            None => conjunction = None,
        }
    }
    conjunction
}

fn is_named(name: Option<&Text>, principal: &Principal) -> bool {
    match (principal.id(), name) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(id), Some(name)) => name.matches(id.as_bytes()),
    }
}

impl Text {
    pub fn matches(&self, text: &[u8]) -> bool {
        match self {
            Self::Exact(exact) => text == exact.as_bytes(),
            Self::Prefix(prefix) => text.starts_with(prefix.as_bytes()),
            Self::Suffix(suffix) => text.ends_with(suffix.as_bytes()),
            Self::Contains(part) => contains(text, part.as_bytes()),
            Self::Regex(whole) => whole.regex.is_match(text),
        }
    }

    fn cost(&self) -> usize {
        match self {
            Self::Exact(_) | Self::Prefix(_) | Self::Suffix(_) => 1,
            Self::Contains(_) => 10,
            Self::Regex(_) => 50,
        }
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    part.is_empty() || text.windows(part.len()).any(|window| window == part)
}

impl HeaderTest {
    fn holds(&self, request: &Request<'_>, values: Values) -> bool {
        match &self.name {
            Name::Method => self.holds_of(request.canonical.method.as_str()),
            Name::PathAndQuery => self.holds_of(request.path_and_query()),
            Name::Authority => self.holds_of(request.authority()),
            Name::Field(name) => self.holds_of_field(request, name, values),
        }
    }

    fn holds_of(&self, only_value: &str) -> bool {
        match &self.value {
            ValueTest::Present(present) => *present != self.invert,
            ValueTest::Text(text) => text.matches(only_value.as_bytes()) != self.invert,
        }
    }

    /// As Envoy, an inverted test of a value fails where the header is missing.
    fn holds_of_field(&self, request: &Request<'_>, name: &HeaderName, values: Values) -> bool {
        let fields = request.canonical.headers.get_all(name);
        let mut found = fields.iter();
        let text = match &self.value {
            ValueTest::Present(present) => {
                return (found.next().is_some() == *present) != self.invert;
            }
            ValueTest::Text(text) => text,
        };
        let fits = |value: &[u8]| text.matches(value) != self.invert;
        match (found.next(), found.next()) {
            (None, _) => false,
            (Some(only), None) => fits(only.as_bytes()),
            (Some(_), Some(_)) => {
                let joined = joined(fields.iter());
                let each = fields.iter().map(HeaderValue::as_bytes);
                values.hold(each.chain([joined.as_slice()]), fits)
            }
        }
    }
}

/// As an application, or Envoy, may see several lines of a field (RFC 9110 §5.3).
fn joined<'a>(values: impl Iterator<Item = &'a HeaderValue>) -> Vec<u8> {
    values
        .map(HeaderValue::as_bytes)
        .collect::<Vec<_>>()
        .join(&b',')
}
