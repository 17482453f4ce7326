//! A second evaluator, for tests: it walks the protobuf as it came, for every rule, with no index, no sharing and no
//! knowledge of patterns; and the generators of rules and requests on which both must agree.

#![allow(deprecated)] // fields are named here to refuse them

use std::cell::RefCell;
use std::collections::HashMap;

use envoy_types::pb::envoy::config::rbac::v3::permission::{Rule as Permits, Set as Permissions};
use envoy_types::pb::envoy::config::rbac::v3::principal::{
    Authenticated, Identifier, Set as Principals,
};
use envoy_types::pb::envoy::config::rbac::v3::rbac::Action;
use envoy_types::pb::envoy::config::rbac::v3::{
    Permission, Policy, Principal as PrincipalProto, Rbac,
};
use envoy_types::pb::envoy::config::route::v3::HeaderMatcher;
use envoy_types::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use envoy_types::pb::envoy::r#type::matcher::v3::{
    PathMatcher, RegexMatcher, StringMatcher, path_matcher,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::prelude::*;

use super::{Decision, Principal};
use crate::http::canonical::CanonicalRequest;

pub fn decide(
    deny: &Rbac,
    allow: &Rbac,
    principal: &Principal,
    request: &CanonicalRequest,
) -> Decision {
    let deny = Filter {
        rules: deny,
        principal,
        request,
        any_value: true,
    };
    if let Some(rule) = deny.first_match() {
        return Decision {
            allowed: false,
            rule: Some(rule.into()),
        };
    }
    let rule = Filter {
        rules: allow,
        any_value: false,
        ..deny
    }
    .first_match();
    Decision {
        allowed: rule.is_some(),
        rule: rule.map(Into::into),
    }
}

struct Filter<'a> {
    rules: &'a Rbac,
    principal: &'a Principal,
    request: &'a CanonicalRequest,
    any_value: bool,
}

impl<'a> Filter<'a> {
    /// Generated names have line numbers of equal length, so that their text sorts them.
    fn first_match(&self) -> Option<&'a str> {
        let any = self.any_value;
        let matches = |policy: &Policy| {
            policy
                .permissions
                .iter()
                .any(|permission| self.permits(permission, any))
                && policy
                    .principals
                    .iter()
                    .any(|principal| self.is(principal, any))
        };
        let matching = self
            .rules
            .policies
            .iter()
            .filter(|(_, policy)| matches(policy));
        matching.map(|(name, _)| name.as_str()).min()
    }

    fn permits(&self, permission: &Permission, any: bool) -> bool {
        match permission.rule.as_ref().unwrap() {
            Permits::AndRules(set) => set.rules.iter().all(|rule| self.permits(rule, any)),
            Permits::OrRules(set) => set.rules.iter().any(|rule| self.permits(rule, any)),
            Permits::NotRule(rule) => !self.permits(rule, !any),
            Permits::Any(any) => *any,
            Permits::Header(header) => self.has_header(header, any),
            Permits::UrlPath(path) => self.has_path(path),
            other => panic!("never generated: {other:?}"),
        }
    }

    fn is(&self, principal: &PrincipalProto, any: bool) -> bool {
        match principal.identifier.as_ref().unwrap() {
            Identifier::AndIds(set) => set.ids.iter().all(|id| self.is(id, any)),
            Identifier::OrIds(set) => set.ids.iter().any(|id| self.is(id, any)),
            Identifier::NotId(id) => !self.is(id, !any),
            Identifier::Any(any) => *any,
            Identifier::Header(header) => self.has_header(header, any),
            Identifier::UrlPath(path) => self.has_path(path),
            Identifier::Authenticated(Authenticated { principal_name }) => match self.principal {
                Principal::Unauthenticated => false,
                Principal::Spiffe(id) => principal_name
                    .as_ref()
                    .is_none_or(|name| is_match(name, id)),
            },
            other => panic!("never generated: {other:?}"),
        }
    }

    fn has_path(&self, path: &PathMatcher) -> bool {
        let path_matcher::Rule::Path(text) = path.rule.as_ref().unwrap();
        is_match(text, &self.request.path)
    }

    fn has_header(&self, header: &HeaderMatcher, any: bool) -> bool {
        let values = self.values(&header.name);
        match header.header_match_specifier.as_ref().unwrap() {
            HeaderMatchSpecifier::PresentMatch(present) => {
                let is_present = !values.is_empty();
                (*present == is_present) ^ header.invert_match
            }
            HeaderMatchSpecifier::StringMatch(text) => {
                let mut results = values
                    .iter()
                    .map(|v| is_match(text, v) ^ header.invert_match);
                match values.len() {
                    0 => false,
                    _ if any => results.any(|result| result),
                    _ => results.all(|result| result),
                }
            }
            other => panic!("never generated: {other:?}"),
        }
    }

    /// Each value, and where they are several also all of them together.
    fn values(&self, name: &str) -> Vec<String> {
        let request = self.request;
        match name {
            ":method" => vec![request.method.to_string()],
            ":path" => {
                let query = request.query.as_ref().map(|query| format!("?{query}"));
                vec![format!("{}{}", request.path, query.unwrap_or_default())]
            }
            ":authority" | "host" => {
                let port = request.port.map(|port| format!(":{port}"));
                vec![format!("{}{}", request.host, port.unwrap_or_default())]
            }
            name => {
                let values = request.headers.get_all(name).iter();
                let mut values: Vec<String> = values
                    .map(|value| value.to_str().unwrap().to_owned())
                    .collect();
                if values.len() > 1 {
                    values.push(values.join(","));
                }
                values
            }
        }
    }
}

fn is_match(matcher: &StringMatcher, text: &str) -> bool {
    match matcher.match_pattern.as_ref().unwrap() {
        MatchPattern::Exact(exact) => text == exact,
        MatchPattern::Prefix(prefix) => text.starts_with(prefix),
        MatchPattern::Suffix(suffix) => text.ends_with(suffix),
        MatchPattern::Contains(part) => text.contains(part),
        MatchPattern::SafeRegex(regex) => is_whole_match(&regex.regex, text),
        MatchPattern::Custom(_) => panic!("never generated"),
    }
}

/// Compiling is what takes the tests' time.
fn is_whole_match(pattern: &str, text: &str) -> bool {
    thread_local! {
        static KNOWN: RefCell<HashMap<String, regex::Regex>> = RefCell::default();
    }
    KNOWN.with_borrow_mut(|known| {
        let compile = || regex::Regex::new(&format!("^(?:{pattern})$")).unwrap();
        known
            .entry(pattern.to_owned())
            .or_insert_with(compile)
            .is_match(text)
    })
}

// -- Generators: few words, so that rules and requests meet -------------------------------------

pub fn text(pattern: MatchPattern) -> StringMatcher {
    StringMatcher {
        ignore_case: false,
        match_pattern: Some(pattern),
    }
}

pub fn regex(regex: &str) -> MatchPattern {
    MatchPattern::SafeRegex(RegexMatcher {
        regex: regex.into(),
        engine_type: None,
    })
}

pub fn url_path(pattern: MatchPattern) -> PathMatcher {
    PathMatcher {
        rule: Some(path_matcher::Rule::Path(text(pattern))),
    }
}

pub fn header(name: &str, value: HeaderMatchSpecifier) -> HeaderMatcher {
    HeaderMatcher {
        name: name.into(),
        invert_match: false,
        treat_missing_header_as_empty: false,
        header_match_specifier: Some(value),
    }
}

pub fn permission(rule: Permits) -> Permission {
    Permission { rule: Some(rule) }
}

pub fn principal(identifier: Identifier) -> PrincipalProto {
    PrincipalProto {
        identifier: Some(identifier),
    }
}

pub fn policy(permissions: Vec<Permission>, principals: Vec<PrincipalProto>) -> Policy {
    Policy {
        permissions,
        principals,
        condition: None,
        checked_condition: None,
        cel_config: None,
    }
}

pub fn rbac(action: Action, policies: impl IntoIterator<Item = (String, Policy)>) -> Rbac {
    let policies = policies.into_iter().collect();
    Rbac {
        action: action as i32,
        policies,
        audit_logging_options: None,
    }
}

fn path_text() -> impl Strategy<Value = String> {
    prop_oneof![
        9 => "(/(a|b|ab|c\\.d|)){1,4}",
        1 => Just("/".to_owned()),
    ]
}

/// What a policy compiler writes, and what nobody would.
fn path_regex() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => Just("/a"), 3 => Just("/b"), 2 => Just("/"), 2 => Just("a"),
        4 => Just("/[^/]+"), 2 => Just("[^/]+"), 2 => Just("/[^/]*"), 2 => Just(".*"),
        1 => Just("/.*"), 1 => Just(".+"), 1 => Just("."), 1 => Just("/c.d"), 1 => Just("/c\\.d"),
        1 => Just("^"), 1 => Just("$"), 1 => Just("(a|b)"), 1 => Just("(/a|/b)"), 1 => Just("b?"),
        1 => Just("(/a)*"), 1 => Just("[ab]"), 1 => Just("[^a]"), 1 => Just("(?i:A)"), 1 => Just("\\b"),
        1 => Just("[^/]{1,2}"), 1 => Just("(?:[^/]+)"), 1 => Just("(/[^/]+)"), 1 => Just("[^/a]*"),
    ];
    let sequence = prop::collection::vec(piece, 1..5).prop_map(|pieces| pieces.concat());
    prop_oneof![
        6 => sequence.clone(),
        1 => (sequence.clone(), sequence.clone()).prop_map(|(one, other)| format!("{one}|{other}")),
        1 => (sequence.clone(), sequence).prop_map(|(one, other)| format!("/({one}|{other})/a")),
    ]
}

fn path_match() -> impl Strategy<Value = MatchPattern> {
    prop_oneof![
        3 => path_text().prop_map(MatchPattern::Exact),
        3 => path_text().prop_map(MatchPattern::Prefix),
        1 => "[ab/]{1,2}".prop_map(MatchPattern::Suffix),
        1 => "[ab/]{1,2}".prop_map(MatchPattern::Contains),
        6 => path_regex().prop_map(|pattern| regex(&pattern)),
    ]
}

fn value_match() -> impl Strategy<Value = MatchPattern> {
    prop_oneof![
        4 => "(1|2|12|1,2)".prop_map(MatchPattern::Exact),
        1 => "[12]".prop_map(MatchPattern::Prefix),
        1 => "[12]".prop_map(MatchPattern::Suffix),
        1 => "[12,]".prop_map(MatchPattern::Contains),
        1 => prop_oneof![Just("1|2"), Just("[12]+"), Just(".*,.*"), Just("1.*")]
            .prop_map(regex),
    ]
}

fn header_match() -> impl Strategy<Value = HeaderMatcher> {
    let method = prop_oneof![
        8 => prop_oneof![Just("GET"), Just("POST"), Just("get"), Just("PURGE"), Just("no method")]
            .prop_map(|method| MatchPattern::Exact(method.into())),
        1 => prop_oneof![Just("GET|POST"), Just("P.*")].prop_map(regex),
    ];
    let value = |pattern| HeaderMatchSpecifier::StringMatch(text(pattern));
    let tests = prop_oneof![
        8 => method.prop_map(move |method| header(":method", value(method))),
        1 => path_match().prop_map(move |path| header(":path", value(path))),
        1 => prop_oneof![Just("h"), Just("h:1")].prop_map(move |host| {
            header(":authority", value(MatchPattern::Exact(host.into())))
        }),
        4 => ("x-[ab]", value_match()).prop_map(move |(name, text)| header(&name, value(text))),
        1 => ("x-[ab]", any::<bool>()).prop_map(|(name, present)| {
            header(&name, HeaderMatchSpecifier::PresentMatch(present))
        }),
    ];
    (tests, prop::bool::weighted(0.15)).prop_map(|(test, invert_match)| HeaderMatcher {
        invert_match,
        ..test
    })
}

fn a_permission() -> impl Strategy<Value = Permission> {
    let leaf = prop_oneof![
        1 => Just(Permits::Any(true)),
        4 => header_match().prop_map(Permits::Header),
        6 => path_match().prop_map(|pattern| Permits::UrlPath(url_path(pattern))),
    ]
    .prop_map(permission);
    leaf.prop_recursive(3, 12, 4, |inner| {
        let several = prop::collection::vec(inner.clone(), 1..4);
        prop_oneof![
            4 => several.clone().prop_map(|rules| Permits::AndRules(Permissions { rules })),
            3 => several.prop_map(|rules| Permits::OrRules(Permissions { rules })),
            2 => inner.prop_map(|rule| Permits::NotRule(Box::new(rule))),
        ]
        .prop_map(permission)
    })
}

const ID: &str = "spiffe://td/ns/[ab]/sa/[ab]";

fn a_principal() -> impl Strategy<Value = PrincipalProto> {
    let name = prop_oneof![
        6 => ID.prop_map(MatchPattern::Exact),
        2 => "spiffe://td/ns/[ab]/".prop_map(MatchPattern::Prefix),
        1 => "[ab]".prop_map(MatchPattern::Suffix),
        1 => Just("spiffe://td/ns/[^/]+/sa/a").prop_map(regex),
    ];
    let leaf = prop_oneof![
        2 => Just(Identifier::Any(true)),
        1 => Just(Identifier::Authenticated(Authenticated { principal_name: None })),
        8 => name.prop_map(|name| {
            Identifier::Authenticated(Authenticated { principal_name: Some(text(name)) })
        }),
        1 => header_match().prop_map(Identifier::Header),
        1 => path_match().prop_map(|pattern| Identifier::UrlPath(url_path(pattern))),
    ]
    .prop_map(principal);
    leaf.prop_recursive(3, 8, 3, |inner| {
        let several = prop::collection::vec(inner.clone(), 1..4);
        prop_oneof![
            2 => several.clone().prop_map(|ids| Identifier::AndIds(Principals { ids })),
            4 => several.prop_map(|ids| Identifier::OrIds(Principals { ids })),
            1 => inner.prop_map(|id| Identifier::NotId(Box::new(id))),
        ]
        .prop_map(principal)
    })
}

pub fn a_filter(action: Action, most: usize) -> impl Strategy<Value = Rbac> {
    let one_policy = (
        prop::collection::vec(a_permission(), 1..3),
        prop::collection::vec(a_principal(), 1..3),
    )
        .prop_map(|(permissions, principals)| policy(permissions, principals));
    prop::collection::vec(one_policy, 0..most).prop_map(move |policies| {
        let named = policies.into_iter().enumerate();
        rbac(
            action,
            named.map(|(line, policy)| (format!("authz/x.csv:{}", 100 + line), policy)),
        )
    })
}

pub fn an_asker() -> impl Strategy<Value = Principal> {
    prop_oneof![
        1 => Just(Principal::Unauthenticated),
        9 => ID.prop_map(|id| Principal::Spiffe(id.into())),
    ]
}

pub fn a_request() -> impl Strategy<Value = CanonicalRequest> {
    let method =
        prop_oneof![4 => Just("GET"), 3 => Just("POST"), 1 => Just("get"), 1 => Just("PURGE")];
    let headers = prop::collection::vec(("x-[ab]", "(1|2|12|1,2|3)"), 0..4);
    let query = prop::option::of("(q=1|/a|)");
    (
        method,
        prop::option::of(Just(1)),
        path_text(),
        query,
        headers,
    )
        .prop_map(|(method, port, path, query, headers)| CanonicalRequest {
            method: Method::from_bytes(method.as_bytes()).unwrap(),
            host: "h".into(),
            port,
            path: path.into(),
            query: query.map(Into::into),
            headers: headers
                .into_iter()
                .map(|(name, value)| {
                    (
                        name.parse::<HeaderName>().unwrap(),
                        HeaderValue::from_str(&value).unwrap(),
                    )
                })
                .collect::<HeaderMap>(),
        })
}
