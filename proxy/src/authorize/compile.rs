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
        Ok(match self.text(text)? {
            Text::Regex(regex) if regex.exact => Expression::Segments(regex.paths.clone()),
            text => Expression::Path(text),
        })
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
        let value = match header_match_specifier
            .as_ref()
            .ok_or(malformed(field, "is required"))?
        {
            HeaderMatchSpecifier::StringMatch(text) => ValueTest::Text(self.text(text)?),
            HeaderMatchSpecifier::PresentMatch(present) => ValueTest::Present(*present),
            HeaderMatchSpecifier::ExactMatch(_) => {
                return Err(unsupported("HeaderMatcher.exact_match"));
            }
            HeaderMatchSpecifier::SafeRegexMatch(_) => {
                return Err(unsupported("HeaderMatcher.safe_regex_match"));
            }
            HeaderMatchSpecifier::RangeMatch(_) => {
                return Err(unsupported("HeaderMatcher.range_match"));
            }
            HeaderMatchSpecifier::PrefixMatch(_) => {
                return Err(unsupported("HeaderMatcher.prefix_match"));
            }
            HeaderMatchSpecifier::SuffixMatch(_) => {
                return Err(unsupported("HeaderMatcher.suffix_match"));
            }
            HeaderMatchSpecifier::ContainsMatch(_) => {
                return Err(unsupported("HeaderMatcher.contains_match"));
            }
        };
        let test = HeaderTest {
            name: header_name(name)?,
            value,
            invert: *invert_match,
        };
        Ok(only_method(&test).map_or_else(|| Expression::Header(test.into()), Expression::Method))
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

fn whole_regex(pattern: &str) -> Result<WholeRegex, String> {
    if pattern.is_empty() || pattern.len() > MAX_REGEX_CHARACTERS {
        return Err(format!("must have 1 to {MAX_REGEX_CHARACTERS} characters"));
    }
    // Parsed by itself first: `a)|(b` must not close the group below.
    let parsed = ParserBuilder::new()
        .utf8(false)
        .nest_limit(MAX_REGEX_NESTING)
        .build()
        .parse(pattern)
        .map_err(|error| format!("{pattern:?} is not a supported expression: {error}"))?;
    let regex = RegexBuilder::new(&format!(r"\A(?:{pattern})\z"))
        .nest_limit(MAX_REGEX_NESTING + 2)
        .size_limit(MAX_REGEX_BYTES)
        .dfa_size_limit(MAX_REGEX_BYTES)
        .build()
        .map_err(|error| format!("{pattern:?} is not a supported expression: {error}"))?;
    let (paths, exact) = PathPattern::of_regex(&parsed);
    Ok(WholeRegex {
        regex,
        paths,
        exact,
    })
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
