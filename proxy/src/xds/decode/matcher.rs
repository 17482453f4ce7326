//! String and regular-expression matchers (`envoy.type.matcher.v3`).

use envoy_types::pb::envoy::r#type::matcher::v3 as pb;
use regex::{Regex, RegexBuilder};

use super::{Fault, required, take};
use crate::mesh::route::ValueMatch;

/// Bounds what one expression costs to compile and to hold.
const MAX_REGEX_BYTES: usize = 2048;
const MAX_PROGRAM_BYTES: usize = 1 << 20;

pub(super) fn value(matcher: pb::StringMatcher) -> Result<ValueMatch, Fault> {
    use pb::string_matcher::MatchPattern::{Contains, Custom, Exact, Prefix, SafeRegex, Suffix};
    take!(matcher, "StringMatcher" => pb::StringMatcher { match_pattern } unsupported { ignore_case });
    Ok(
        match required(match_pattern, "StringMatcher.match_pattern")? {
            Exact(text) => ValueMatch::Exact(text.into()),
            Prefix(text) => ValueMatch::Prefix(text.into()),
            Suffix(text) => ValueMatch::Suffix(text.into()),
            Contains(text) => ValueMatch::Contains(text.into()),
            SafeRegex(regex) => ValueMatch::Regex(whole_match(regex)?),
            Custom(_) => return Err(Fault::Unsupported("StringMatcher.custom".to_owned())),
        },
    )
}

/// An expression that matches a whole value, as Envoy's do.
pub(super) fn whole_match(matcher: pb::RegexMatcher) -> Result<Regex, Fault> {
    const FIELD: &str = "RegexMatcher.regex";
    take!(matcher, "RegexMatcher" => pb::RegexMatcher { regex, engine_type } unsupported {});
    if let Some(pb::regex_matcher::EngineType::GoogleRe2(engine)) = engine_type {
        take!(engine, "GoogleRE2" => pb::regex_matcher::GoogleRe2 {} unsupported { max_program_size });
    }
    if regex.is_empty() || regex.len() > MAX_REGEX_BYTES {
        return Err(Fault::invalid(
            FIELD,
            format!("must have 1 to {MAX_REGEX_BYTES} bytes"),
        ));
    }
    // By itself first: nothing in it may reach outside the group that anchors it.
    for pattern in [regex.clone(), format!(r"\A(?:{regex})\z")] {
        let built = RegexBuilder::new(&pattern)
            .size_limit(MAX_PROGRAM_BYTES)
            .build();
        match built {
            Ok(built) if pattern != regex => return Ok(built),
            Ok(_) => {}
            Err(error) => {
                let reason = error.to_string();
                let reason = reason.lines().last().unwrap_or("unusable").trim();
                return Err(Fault::invalid(FIELD, format!("{regex:?}: {reason}")));
            }
        }
    }
    Err(Fault::invalid(
        FIELD,
        format!("{regex:?} cannot be anchored"),
    ))
}
