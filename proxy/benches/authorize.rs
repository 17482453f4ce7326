//! What a decision costs, by the number of rules: `cargo bench --bench authorize`.
//!
//! Rules are of the shape that the default model compiles to. "one" has all rules for one principal, "many" has them spread
//! over 200 principals of which each rule names two. Half of the requests are allowed.

#![allow(clippy::print_stdout)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::rbac::v3 as rbac;
use envoy_types::pb::envoy::config::route::v3::HeaderMatcher;
use envoy_types::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use envoy_types::pb::envoy::r#type::matcher::v3::{
    PathMatcher, RegexMatcher, StringMatcher, path_matcher,
};
use garrison_proxy::authorize::{Authorization, Principal};
use garrison_proxy::http::canonical::CanonicalRequest;
use http::{HeaderMap, Method};
use rbac::permission::{Rule, Set};
use rbac::principal::{Authenticated, Identifier};

const PRINCIPALS: usize = 200;
/// Of a thousand requests each.
const ROUNDS: u32 = 500;

fn main() {
    println!(
        "{:>8} {:>5} {:>12} {:>12} {:>12}",
        "rules", "for", "compile", "resolve", "decide"
    );
    for rules in [10, 100, 1_000, 10_000, 100_000] {
        for principals in [1, PRINCIPALS] {
            let (compile, resolve, decide) = measure(rules, principals);
            let who = if principals == 1 { "one" } else { "many" };
            println!("{rules:>8} {who:>5} {compile:>12.1?} {resolve:>12.1?} {decide:>12.1?}");
        }
    }
}

fn measure(rules: usize, principals: usize) -> (Duration, Duration, Duration) {
    let policies = (0..rules).map(|line| (format!("authz/x.csv:{line}"), policy(line, principals)));
    let allow = filter(rbac::rbac::Action::Allow, policies.collect());
    let deny = filter(
        rbac::rbac::Action::Deny,
        [("authz/d.csv:1".into(), policy(7, 1))].into(),
    );
    let (authorization, compile) = timed(|| Authorization::compile(&deny, &allow));
    let Ok(authorization) = authorization else {
        return Default::default();
    };
    let (resolved, resolve) = timed(|| authorization.resolve(&Principal::Spiffe(id(0).into())));
    let requests: Vec<_> = (0..1_000)
        .map(|number| request(number * rules / 1_000))
        .collect();
    let ((), decide) = timed(|| {
        for _ in 0..ROUNDS {
            for request in &requests {
                black_box(resolved.decide(black_box(request)));
            }
        }
    });
    let decide = Duration::from_secs_f64(decide.as_secs_f64() / f64::from(ROUNDS) / 1_000.0);
    (compile, resolve, decide)
}

/// With the time on the processor, which other processes do not change much.
fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = on_processor();
    let result = work();
    (result, on_processor().saturating_sub(start))
}

/// The first number of Linux' `schedstat` is nanoseconds.
fn on_processor() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let first = stat
        .split(' ')
        .next()
        .and_then(|number| number.parse().ok());
    Duration::from_nanos(first.unwrap_or_default())
}

fn id(number: usize) -> String {
    format!(
        "spiffe://bench.example/ns/team-{}/sa/service-{number}",
        number % 7
    )
}

fn text(pattern: MatchPattern) -> StringMatcher {
    StringMatcher {
        ignore_case: false,
        match_pattern: Some(pattern),
    }
}

fn filter(
    action: rbac::rbac::Action,
    policies: std::collections::HashMap<String, rbac::Policy>,
) -> rbac::Rbac {
    rbac::Rbac {
        action: action as i32,
        policies,
        audit_logging_options: None,
    }
}

/// Of four lines one is an exact path, one a prefix, two have a variable segment.
fn policy(line: usize, principals: usize) -> rbac::Policy {
    let regex = |regex| {
        MatchPattern::SafeRegex(RegexMatcher {
            regex,
            engine_type: None,
        })
    };
    let pattern = match line % 4 {
        0 => MatchPattern::Exact(format!("/api/v1/collection-{line}/items")),
        1 => MatchPattern::Prefix(format!("/api/v1/collection-{line}/")),
        2 => regex(format!("/api/v1/collection-{line}/[^/]+")),
        _ => regex(format!("/api/[^/]+/collection-{line}/.*")),
    };
    let path = PathMatcher {
        rule: Some(path_matcher::Rule::Path(text(pattern))),
    };
    let method = |method: &str| HeaderMatcher {
        name: ":method".into(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(text(
            MatchPattern::Exact(method.into()),
        ))),
        ..HeaderMatcher::default()
    };
    let permission = |rule| rbac::Permission { rule: Some(rule) };
    let methods = ["GET", "HEAD"].map(|name| permission(Rule::Header(method(name))));
    let methods = permission(Rule::OrRules(Set {
        rules: methods.into(),
    }));
    let both = vec![methods, permission(Rule::UrlPath(path))];
    let ids = [line, line + 1].map(|number| rbac::Principal {
        identifier: Some(Identifier::Authenticated(Authenticated {
            principal_name: Some(text(MatchPattern::Exact(id(number % principals)))),
        })),
    });
    rbac::Policy {
        permissions: vec![permission(Rule::AndRules(Set { rules: both }))],
        principals: ids.into(),
        ..rbac::Policy::default()
    }
}

fn request(line: usize) -> CanonicalRequest {
    let method = if line.is_multiple_of(2) {
        Method::GET
    } else {
        Method::DELETE
    };
    CanonicalRequest {
        method,
        host: "orders.shop".into(),
        port: None,
        path: Arc::<str>::from(format!("/api/v1/collection-{line}/items"))
            .as_ref()
            .into(),
        query: None,
        headers: HeaderMap::new(),
    }
}
