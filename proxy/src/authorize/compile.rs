//! From `envoy.config.rbac.v3.RBAC` to expressions. What is set and not understood is refused by name; nothing is ignored.

#![allow(deprecated)] // fields are named here to refuse them

use std::collections::HashMap;
use std::sync::Arc;

use envoy_types::pb::envoy::config::rbac::v3 as rbac;
use envoy_types::pb::envoy::config::route::v3::HeaderMatcher;
use envoy_types::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher;
use http::{HeaderName, Method};
use prost::Message;
use rbac::permission::Rule as Permits;
use rbac::principal::Identifier;
use regex::bytes::RegexBuilder;
use regex_syntax::ParserBuilder;
use regex_syntax::hir::Hir;
use thiserror::Error;

use super::expression::{Expression, HeaderTest, Name, Text, ValueTest, WholeRegex};
use super::path_pattern::PathPattern;

/// Bounds of a regular expression, which is linear in what it reads, but not free.
const MAX_REGEX_CHARACTERS: usize = 4_096;
const MAX_REGEX_NESTING: u32 = 50;
const MAX_REGEX_BYTES: usize = 1 << 20;

/// A rule says something that this proxy does not do.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{}{field}: {reason}", rule.as_ref().map(|rule| format!("rule {rule:?}: ")).unwrap_or_default())]
pub struct Unsupported {
    /// The policy's name; none where it is the filter itself.
    pub rule: Option<String>,
    /// `Message.field`
    pub field: &'static str,
    pub reason: String,
}

fn unsupported(field: &'static str) -> Unsupported {
    Unsupported {
        rule: None,
        field,
        reason: "is not supported".into(),
    }
}

fn malformed(field: &'static str, reason: impl Into<String>) -> Unsupported {
    Unsupported {
        rule: None,
        field,
        reason: reason.into(),
    }
}

/// A policy: it matches where one of its principals and one of its permissions does.
#[derive(Debug)]
pub struct Rule {
    pub name: Arc<str>,
    pub principals: Arc<Expression>,
    /// Whether it is one of the principals depends on the request, too.
    pub principals_ask_request: bool,
    pub permissions: Expression,
}

/// All rules of a filter, in the order in which they are reported: by file, then line.
pub fn rules(filter: &rbac::Rbac, expected: rbac::rbac::Action) -> Result<Vec<Rule>, Unsupported> {
    let rbac::Rbac {
        action,
        policies,
        audit_logging_options,
    } = filter;
    if *action != expected as i32 {
        let reason = format!("expected {} in this filter", expected.as_str_name());
        return Err(malformed("RBAC.action", reason));
    }
    if audit_logging_options.is_some() {
        return Err(unsupported("RBAC.audit_logging_options"));
    }
    let mut compiler = Compiler::default();
    let mut rules = Vec::with_capacity(policies.len());
    for (name, policy) in policies {
        let rule = compiler.policy(name, policy);
        rules.push(rule.map_err(|error| Unsupported {
            rule: Some(name.clone()),
            ..error
        })?);
    }
    rules.sort_by(|one, other| place(&one.name).cmp(&place(&other.name)));
    Ok(rules)
}

/// `file:line` as it is sorted: line 9 before line 10. Other names by their text.
fn place(name: &str) -> (&str, u64, &str) {
    let place = name
        .rsplit_once(':')
        .and_then(|(file, line)| Some((file, line.parse().ok()?)));
    let (file, line) = place.unwrap_or((name, 0));
    (file, line, name)
}

#[derive(Default)]
struct Compiler {
    /// Many rules have the same regular expression, and each is dear.
    regexes: HashMap<String, Arc<WholeRegex>>,
    /// Many rules have the same principals; the same object says so. By their serialized form.
    principals: HashMap<Vec<Vec<u8>>, Arc<Expression>>,
}

impl Compiler {
    fn policy(&mut self, name: &str, policy: &rbac::Policy) -> Result<Rule, Unsupported> {
        let rbac::Policy {
            permissions,
            principals,
            condition,
            checked_condition,
            cel_config,
        } = policy;
        if condition.is_some() {
            return Err(unsupported("Policy.condition"));
        }
        if checked_condition.is_some() {
            return Err(unsupported("Policy.checked_condition"));
        }
        if cel_config.is_some() {
            return Err(unsupported("Policy.cel_config"));
        }
        let key: Vec<_> = principals.iter().map(Message::encode_to_vec).collect();
        let principals = if let Some(known) = self.principals.get(&key) {
            Arc::clone(known)
        } else {
            let parts = self.each(principals, "Policy.principals", Self::principal)?;
            Arc::clone(self.principals.entry(key).or_insert(Arc::new(some(parts))))
        };
        let permissions = self.each(permissions, "Policy.permissions", Self::permission)?;
        Ok(Rule {
            name: name.into(),
            principals_ask_request: principals.asks_request(),
            principals,
            permissions: some(permissions),
        })
    }

    /// Each of a list that must not be empty.
    fn each<T>(
        &mut self,
        parts: &[T],
        field: &'static str,
        compile: impl Fn(&mut Self, &T) -> Result<Expression, Unsupported>,
    ) -> Result<Vec<Expression>, Unsupported> {
        if parts.is_empty() {
            return Err(malformed(field, "must not be empty"));
        }
        let mut parts: Vec<_> = parts
            .iter()
            .map(|part| compile(self, part))
            .collect::<Result<_, _>>()?;
        parts.sort_by_key(Expression::cost);
        Ok(parts)
    }

    fn permission(&mut self, permission: &rbac::Permission) -> Result<Expression, Unsupported> {
        let rbac::Permission { rule } = permission;
        match rule
            .as_ref()
            .ok_or(malformed("Permission.rule", "is required"))?
        {
            Permits::AndRules(rbac::permission::Set { rules }) => self
                .each(rules, "Permission.Set.rules", Self::permission)
                .map(all),
            Permits::OrRules(rbac::permission::Set { rules }) => self
                .each(rules, "Permission.Set.rules", Self::permission)
                .map(some),
            Permits::Any(any) => always(*any, "Permission.any"),
            Permits::Header(header) => self.header(header),
            Permits::UrlPath(path) => self.url_path(path),
            Permits::NotRule(rule) => self.permission(rule).map(not),
            Permits::DestinationIp(_) => Err(unsupported("Permission.destination_ip")),
            Permits::DestinationPort(_) => Err(unsupported("Permission.destination_port")),
            Permits::DestinationPortRange(_) => {
                Err(unsupported("Permission.destination_port_range"))
            }
            Permits::Metadata(_) => Err(unsupported("Permission.metadata")),
            Permits::RequestedServerName(_) => Err(unsupported("Permission.requested_server_name")),
            Permits::Matcher(_) => Err(unsupported("Permission.matcher")),
            Permits::UriTemplate(_) => Err(unsupported("Permission.uri_template")),
            Permits::SourcedMetadata(_) => Err(unsupported("Permission.sourced_metadata")),
        }
    }

    fn principal(&mut self, principal: &rbac::Principal) -> Result<Expression, Unsupported> {
        let rbac::Principal { identifier } = principal;
        match identifier
            .as_ref()
            .ok_or(malformed("Principal.identifier", "is required"))?
        {
            Identifier::AndIds(rbac::principal::Set { ids }) => self
                .each(ids, "Principal.Set.ids", Self::principal)
                .map(all),
            Identifier::OrIds(rbac::principal::Set { ids }) => self
                .each(ids, "Principal.Set.ids", Self::principal)
                .map(some),
            Identifier::Any(any) => always(*any, "Principal.any"),
            Identifier::Authenticated(rbac::principal::Authenticated { principal_name }) => {
                let name = principal_name
                    .as_ref()
                    .map(|name| self.text(name))
                    .transpose()?;
                Ok(Expression::Authenticated(name))
            }
            Identifier::Header(header) => self.header(header),
            Identifier::UrlPath(path) => self.url_path(path),
            Identifier::NotId(id) => self.principal(id).map(not),
            Identifier::SourceIp(_) => Err(unsupported("Principal.source_ip")),
            Identifier::DirectRemoteIp(_) => Err(unsupported("Principal.direct_remote_ip")),
            Identifier::RemoteIp(_) => Err(unsupported("Principal.remote_ip")),
            Identifier::Metadata(_) => Err(unsupported("Principal.metadata")),
            Identifier::FilterState(_) => Err(unsupported("Principal.filter_state")),
            Identifier::SourcedMetadata(_) => Err(unsupported("Principal.sourced_metadata")),
            Identifier::Custom(_) => Err(unsupported("Principal.custom")),
        }
    }

    fn url_path(&mut self, path: &matcher::PathMatcher) -> Result<Expression, Unsupported> {
        let matcher::PathMatcher { rule } = path;
        let matcher::path_matcher::Rule::Path(text) = rule
            .as_ref()
            .ok_or(malformed("PathMatcher.rule", "is required"))?;
        match segments(text) {
            Some(patterns) => Ok(Expression::Segments(patterns)),
            None => self.text(text).map(Expression::Path),
        }
    }

    fn header(&mut self, header: &HeaderMatcher) -> Result<Expression, Unsupported> {
        let HeaderMatcher {
            name,
            invert_match,
            treat_missing_header_as_empty,
            header_match_specifier,
        } = header;
        if *treat_missing_header_as_empty {
            return Err(unsupported("HeaderMatcher.treat_missing_header_as_empty"));
        }
        let field = "HeaderMatcher.header_match_specifier";
        let specifier = header_match_specifier
            .as_ref()
            .ok_or(malformed(field, "is required"))?;
        let test = HeaderTest {
            value: self.value(specifier)?,
            name: header_name(name)?,
            invert: *invert_match,
        };
        Ok(only_method(&test).map_or_else(|| Expression::Header(test.into()), Expression::Method))
    }

    fn value(&mut self, specifier: &HeaderMatchSpecifier) -> Result<ValueTest, Unsupported> {
        let field = match specifier {
            HeaderMatchSpecifier::StringMatch(text) => return self.text(text).map(ValueTest::Text),
            HeaderMatchSpecifier::PresentMatch(present) => return Ok(ValueTest::Present(*present)),
            HeaderMatchSpecifier::ExactMatch(_) => "HeaderMatcher.exact_match",
            HeaderMatchSpecifier::SafeRegexMatch(_) => "HeaderMatcher.safe_regex_match",
            HeaderMatchSpecifier::RangeMatch(_) => "HeaderMatcher.range_match",
            HeaderMatchSpecifier::PrefixMatch(_) => "HeaderMatcher.prefix_match",
            HeaderMatchSpecifier::SuffixMatch(_) => "HeaderMatcher.suffix_match",
            HeaderMatchSpecifier::ContainsMatch(_) => "HeaderMatcher.contains_match",
        };
        Err(unsupported(field))
    }

    fn text(&mut self, text: &matcher::StringMatcher) -> Result<Text, Unsupported> {
        use matcher::string_matcher::MatchPattern;
        let matcher::StringMatcher {
            ignore_case,
            match_pattern,
        } = text;
        if *ignore_case {
            return Err(unsupported("StringMatcher.ignore_case"));
        }
        // As Envoy: an empty one would match everything.
        let not_empty = |text: &String, field| match text.as_str() {
            "" => Err(malformed(field, "must not be empty")),
            text => Ok(text.into()),
        };
        let field = "StringMatcher.match_pattern";
        match match_pattern
            .as_ref()
            .ok_or(malformed(field, "is required"))?
        {
            MatchPattern::Exact(text) => Ok(Text::Exact(text.as_str().into())),
            MatchPattern::Prefix(text) => not_empty(text, "StringMatcher.prefix").map(Text::Prefix),
            MatchPattern::Suffix(text) => not_empty(text, "StringMatcher.suffix").map(Text::Suffix),
            MatchPattern::Contains(text) => {
                not_empty(text, "StringMatcher.contains").map(Text::Contains)
            }
            MatchPattern::SafeRegex(matcher::RegexMatcher { regex, engine_type }) => {
                engine(engine_type.as_ref())?;
                self.regex(regex).map(Text::Regex)
            }
            MatchPattern::Custom(_) => Err(unsupported("StringMatcher.custom")),
        }
    }

    fn regex(&mut self, pattern: &str) -> Result<Arc<WholeRegex>, Unsupported> {
        if let Some(known) = self.regexes.get(pattern) {
            return Ok(Arc::clone(known));
        }
        let regex = whole_regex(pattern).map_err(|why| malformed("RegexMatcher.regex", why))?;
        let regex = Arc::new(regex);
        self.regexes.insert(pattern.to_owned(), Arc::clone(&regex));
        Ok(regex)
    }
}

/// RE2 is what this is, and its limit of size is replaced by ours.
fn engine(engine: Option<&matcher::regex_matcher::EngineType>) -> Result<(), Unsupported> {
    match engine {
        None => Ok(()),
        Some(matcher::regex_matcher::EngineType::GoogleRe2(re2)) => {
            let matcher::regex_matcher::GoogleRe2 { max_program_size } = re2;
            match max_program_size {
                None => Ok(()),
                Some(_) => Err(unsupported("RegexMatcher.GoogleRE2.max_program_size")),
            }
        }
    }
}

/// The path's patterns, where a regular expression says nothing else. It is not compiled then: of most rules that is
/// most of the time and of the memory.
fn segments(path: &matcher::StringMatcher) -> Option<Box<[PathPattern]>> {
    use matcher::string_matcher::MatchPattern;
    match path {
        matcher::StringMatcher {
            ignore_case: false,
            match_pattern: Some(MatchPattern::SafeRegex(regex)),
        } if regex.engine_type.is_none() => {
            let (patterns, exact) = PathPattern::of_regex(&parse_regex(&regex.regex).ok()?);
            exact.then_some(patterns)
        }
        _ => None,
    }
}

fn parse_regex(pattern: &str) -> Result<Hir, String> {
    if pattern.is_empty() || pattern.len() > MAX_REGEX_CHARACTERS {
        return Err(format!("must have 1 to {MAX_REGEX_CHARACTERS} characters"));
    }
    let mut parser = ParserBuilder::new()
        .utf8(false)
        .nest_limit(MAX_REGEX_NESTING)
        .build();
    parser
        .parse(pattern)
        .map_err(|error| not_supported(pattern, &error))
}

fn not_supported(pattern: &str, error: &dyn std::error::Error) -> String {
    format!("{pattern:?} is not a supported expression: {error}")
}

fn whole_regex(pattern: &str) -> Result<WholeRegex, String> {
    // Parsed by itself first: `a)|(b` must not close the group below.
    let (paths, _) = PathPattern::of_regex(&parse_regex(pattern)?);
    // By bytes: a header's value need not be UTF-8, and a byte that no `.` matches would slip past a deny.
    let regex = RegexBuilder::new(&format!(r"\A(?:{pattern})\z"))
        .unicode(false)
        .nest_limit(MAX_REGEX_NESTING + 2)
        .size_limit(MAX_REGEX_BYTES)
        .dfa_size_limit(MAX_REGEX_BYTES)
        .build()
        .map_err(|error| not_supported(pattern, &error))?;
    Ok(WholeRegex { regex, paths })
}

fn header_name(name: &str) -> Result<Name, Unsupported> {
    match name {
        ":method" => Ok(Name::Method),
        ":path" => Ok(Name::PathAndQuery),
        ":authority" => Ok(Name::Authority),
        name => match HeaderName::from_bytes(name.as_bytes()) {
            Ok(host) if host == http::header::HOST => Ok(Name::Authority),
            Ok(field) => Ok(Name::Field(field)),
            Err(_) => Err(malformed(
                "HeaderMatcher.name",
                format!("{name:?} is no header's name"),
            )),
        },
    }
}

/// The method, where a test says that it is this one.
fn only_method(test: &HeaderTest) -> Option<Method> {
    match (&test.name, &test.value) {
        (Name::Method, ValueTest::Text(Text::Exact(method))) if !test.invert => {
            Method::from_bytes(method.as_bytes()).ok()
        }
        _ => None,
    }
}

fn always(any: bool, field: &'static str) -> Result<Expression, Unsupported> {
    if any {
        Ok(Expression::Always)
    } else {
        Err(malformed(field, "must be true"))
    }
}

fn not(part: Expression) -> Expression {
    Expression::Not(Box::new(part))
}

fn all(mut parts: Vec<Expression>) -> Expression {
    match (parts.pop(), parts.is_empty()) {
        (Some(only), true) => only,
        (last, _) => {
            parts.extend(last);
            Expression::All(parts.into())
        }
    }
}

fn some(mut parts: Vec<Expression>) -> Expression {
    match (parts.pop(), parts.is_empty()) {
        (Some(only), true) => only,
        (last, _) => {
            parts.extend(last);
            Expression::Some(parts.into())
        }
    }
}

#[cfg(test)]
#[allow(clippy::default_trait_access)] // whose default does not matter
mod tests {
    use envoy_types::pb::envoy::config::core::v3::{CidrRange, TypedExtensionConfig};
    use envoy_types::pb::google::protobuf::UInt32Value;
    use matcher::StringMatcher;
    use matcher::string_matcher::MatchPattern;
    use rbac::rbac::Action;

    use super::super::reference::{
        header, permission, policy, principal, rbac as filter, regex, text, url_path,
    };
    use super::*;

    fn with(permits: Permits, id: Identifier) -> Result<Vec<Rule>, Unsupported> {
        let policy = policy(vec![permission(permits)], vec![principal(id)]);
        rules(
            &filter(Action::Allow, [("authz/x.csv:7".to_owned(), policy)]),
            Action::Allow,
        )
    }

    fn permits(permits: Permits) -> Result<Vec<Rule>, Unsupported> {
        with(permits, Identifier::Any(true))
    }

    fn is(id: Identifier) -> Result<Vec<Rule>, Unsupported> {
        with(Permits::Any(true), id)
    }

    fn on(path: StringMatcher) -> Permits {
        let rule = Some(matcher::path_matcher::Rule::Path(path));
        Permits::UrlPath(matcher::PathMatcher { rule })
    }

    fn exact() -> StringMatcher {
        text(MatchPattern::Exact("/x".into()))
    }

    #[test]
    fn a_byte_that_is_no_text_does_not_slip_past_an_expression() {
        let evil = whole_regex("(?:evil).*").unwrap();
        assert!(evil.regex.is_match(b"evil"));
        assert!(evil.regex.is_match(b"evil\xff"));
        assert!(!evil.regex.is_match(b"an \xff evil"));
    }

    #[test]
    fn every_supported_field_compiles() {
        let value = HeaderMatchSpecifier::StringMatch(exact());
        let permissions = vec![permission(Permits::Any(true)), permission(on(exact()))];
        let rules = permissions.clone();
        assert!(permits(Permits::AndRules(rbac::permission::Set { rules })).is_ok());
        let rules = permissions.clone();
        assert!(permits(Permits::OrRules(rbac::permission::Set { rules })).is_ok());
        assert!(permits(Permits::NotRule(Box::new(permission(Permits::Any(true))))).is_ok());
        for name in [":method", ":path", ":authority", "host", "x-a", "X-A"] {
            assert!(
                permits(Permits::Header(header(name, value.clone()))).is_ok(),
                "{name}"
            );
        }
        let ids = vec![principal(Identifier::Any(true))];
        assert!(
            is(Identifier::AndIds(rbac::principal::Set {
                ids: ids.clone()
            }))
            .is_ok()
        );
        assert!(is(Identifier::OrIds(rbac::principal::Set { ids })).is_ok());
        assert!(
            is(Identifier::NotId(Box::new(principal(Identifier::Any(
                true
            )))))
            .is_ok()
        );
        assert!(is(Identifier::Header(header("x-a", value))).is_ok());
        let path = url_path(MatchPattern::Exact("/".into()));
        assert!(is(Identifier::UrlPath(path)).is_ok());
        for principal_name in [None, Some(exact())] {
            let authenticated = rbac::principal::Authenticated { principal_name };
            assert!(is(Identifier::Authenticated(authenticated)).is_ok());
        }
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a flat table of Envoy's permissions")]
    fn every_permission_that_is_not_supported_is_named() {
        let extension = TypedExtensionConfig::default();
        let cases = [
            (
                Permits::DestinationIp(CidrRange::default()),
                "Permission.destination_ip",
            ),
            (Permits::DestinationPort(80), "Permission.destination_port"),
            (
                Permits::DestinationPortRange(Default::default()),
                "Permission.destination_port_range",
            ),
            (Permits::Metadata(Default::default()), "Permission.metadata"),
            (
                Permits::RequestedServerName(exact()),
                "Permission.requested_server_name",
            ),
            (Permits::Matcher(extension.clone()), "Permission.matcher"),
            (Permits::UriTemplate(extension), "Permission.uri_template"),
            (
                Permits::SourcedMetadata(Default::default()),
                "Permission.sourced_metadata",
            ),
            (Permits::Any(false), "Permission.any"),
            (
                Permits::AndRules(Default::default()),
                "Permission.Set.rules",
            ),
            (Permits::OrRules(Default::default()), "Permission.Set.rules"),
            (Permits::NotRule(Box::default()), "Permission.rule"),
            (Permits::UrlPath(Default::default()), "PathMatcher.rule"),
        ];
        for (rule, field) in cases {
            let error = permits(rule).unwrap_err();
            assert_eq!(
                (error.rule.as_deref(), error.field),
                (Some("authz/x.csv:7"), field)
            );
            assert!(
                error
                    .to_string()
                    .starts_with(&format!("rule \"authz/x.csv:7\": {field}: "))
            );
        }
    }

    #[test]
    fn every_principal_that_is_not_supported_is_named() {
        let cases = [
            (
                Identifier::SourceIp(CidrRange::default()),
                "Principal.source_ip",
            ),
            (
                Identifier::DirectRemoteIp(CidrRange::default()),
                "Principal.direct_remote_ip",
            ),
            (
                Identifier::RemoteIp(CidrRange::default()),
                "Principal.remote_ip",
            ),
            (
                Identifier::Metadata(Default::default()),
                "Principal.metadata",
            ),
            (
                Identifier::FilterState(Default::default()),
                "Principal.filter_state",
            ),
            (
                Identifier::SourcedMetadata(Default::default()),
                "Principal.sourced_metadata",
            ),
            (
                Identifier::Custom(TypedExtensionConfig::default()),
                "Principal.custom",
            ),
            (Identifier::Any(false), "Principal.any"),
            (Identifier::AndIds(Default::default()), "Principal.Set.ids"),
            (Identifier::OrIds(Default::default()), "Principal.Set.ids"),
            (Identifier::NotId(Box::default()), "Principal.identifier"),
        ];
        for (id, field) in cases {
            assert_eq!(is(id).unwrap_err().field, field);
        }
    }

    #[test]
    fn every_header_test_that_is_not_supported_is_named() {
        use HeaderMatchSpecifier as By;
        let cases = [
            (By::ExactMatch("x".into()), "HeaderMatcher.exact_match"),
            (
                By::SafeRegexMatch(Default::default()),
                "HeaderMatcher.safe_regex_match",
            ),
            (
                By::RangeMatch(Default::default()),
                "HeaderMatcher.range_match",
            ),
            (By::PrefixMatch("x".into()), "HeaderMatcher.prefix_match"),
            (By::SuffixMatch("x".into()), "HeaderMatcher.suffix_match"),
            (
                By::ContainsMatch("x".into()),
                "HeaderMatcher.contains_match",
            ),
        ];
        for (by, field) in cases {
            assert_eq!(
                permits(Permits::Header(header("x-a", by)))
                    .unwrap_err()
                    .field,
                field
            );
        }
        let present = header("x-a", By::PresentMatch(true));
        let empty = HeaderMatcher {
            treat_missing_header_as_empty: true,
            ..present.clone()
        };
        let error = permits(Permits::Header(empty)).unwrap_err();
        assert_eq!(error.field, "HeaderMatcher.treat_missing_header_as_empty");
        let nothing = HeaderMatcher {
            header_match_specifier: None,
            ..present
        };
        let error = permits(Permits::Header(nothing)).unwrap_err();
        assert_eq!(error.field, "HeaderMatcher.header_match_specifier");
    }

    #[test]
    fn a_header_test_whose_name_no_header_has_is_refused() {
        for name in ["", ":scheme", ":status", "a b", "x\n"] {
            let error = permits(Permits::Header(header(
                name,
                HeaderMatchSpecifier::PresentMatch(true),
            )))
            .unwrap_err();
            assert_eq!(error.field, "HeaderMatcher.name");
        }
    }

    #[test]
    #[expect(
        clippy::too_many_lines,
        reason = "a flat table of Envoy's string matchers"
    )]
    fn every_text_that_is_not_supported_is_named() {
        let limited = matcher::RegexMatcher {
            regex: "a".into(),
            engine_type: Some(matcher::regex_matcher::EngineType::GoogleRe2(
                matcher::regex_matcher::GoogleRe2 {
                    max_program_size: Some(UInt32Value { value: 9 }),
                },
            )),
        };
        let cases = [
            (
                StringMatcher {
                    ignore_case: true,
                    ..exact()
                },
                "StringMatcher.ignore_case",
            ),
            (StringMatcher::default(), "StringMatcher.match_pattern"),
            (
                text(MatchPattern::Custom(Default::default())),
                "StringMatcher.custom",
            ),
            (
                text(MatchPattern::Prefix(String::new())),
                "StringMatcher.prefix",
            ),
            (
                text(MatchPattern::Suffix(String::new())),
                "StringMatcher.suffix",
            ),
            (
                text(MatchPattern::Contains(String::new())),
                "StringMatcher.contains",
            ),
            (
                text(MatchPattern::SafeRegex(limited)),
                "RegexMatcher.GoogleRE2.max_program_size",
            ),
        ];
        for (path, field) in cases {
            assert_eq!(permits(on(path)).unwrap_err().field, field);
        }
    }

    #[test]
    fn an_expression_that_is_not_bounded_or_not_one_is_refused() {
        let long = "a".repeat(MAX_REGEX_CHARACTERS + 1);
        let deep = format!("{}a{}", "(".repeat(60), ")".repeat(60));
        for pattern in [
            "",
            "a)|(b",
            "(?=a)",
            r"(a)\1",
            "a{1000}{1000}{1000}",
            &long,
            &deep,
        ] {
            let error = permits(on(text(regex(pattern)))).unwrap_err();
            assert_eq!(error.field, "RegexMatcher.regex", "{pattern}");
        }
        assert!(permits(on(text(regex("(a|b){1,9}/[^/]+")))).is_ok());
    }

    #[test]
    fn the_filter_itself_is_checked() {
        let policy = policy(vec![permission(Permits::Any(true))], vec![]);
        let named = [("authz/x.csv:7".to_owned(), policy.clone())];
        let refused = |filter: &rbac::Rbac| rules(filter, Action::Allow).unwrap_err().field;
        assert_eq!(refused(&filter(Action::Allow, named)), "Policy.principals");
        assert_eq!(refused(&filter(Action::Deny, [])), "RBAC.action");
        assert_eq!(refused(&filter(Action::Log, [])), "RBAC.action");
        let audited = rbac::Rbac {
            audit_logging_options: Some(Default::default()),
            ..filter(Action::Allow, [])
        };
        assert_eq!(refused(&audited), "RBAC.audit_logging_options");
        let cases = [
            (
                rbac::Policy {
                    condition: Some(Default::default()),
                    ..policy.clone()
                },
                "Policy.condition",
            ),
            (
                rbac::Policy {
                    checked_condition: Some(Default::default()),
                    ..policy.clone()
                },
                "Policy.checked_condition",
            ),
            (
                rbac::Policy {
                    cel_config: Some(Default::default()),
                    ..policy
                },
                "Policy.cel_config",
            ),
        ];
        for (policy, field) in cases {
            assert_eq!(
                refused(&filter(Action::Allow, [("x".to_owned(), policy)])),
                field
            );
        }
    }

    #[test]
    fn rules_are_in_the_order_of_file_and_line() {
        let any = policy(
            vec![permission(Permits::Any(true))],
            vec![principal(Identifier::Any(true))],
        );
        let unordered = ["b.csv:1", "a.csv:10", "a.csv:9", "named", "a.csv:x"];
        let rules_of = unordered.map(|name| (name.to_owned(), any.clone()));
        let compiled = rules(&filter(Action::Allow, rules_of), Action::Allow).unwrap();
        let names: Vec<_> = compiled.iter().map(|rule| &*rule.name).collect();
        assert_eq!(
            names,
            ["a.csv:9", "a.csv:10", "a.csv:x", "b.csv:1", "named"]
        );
    }
}
