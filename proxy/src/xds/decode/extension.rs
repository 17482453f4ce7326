//! Extension configurations: authorization rules, and the marker that ends a commit.

use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig;
use envoy_types::pb::envoy::config::rbac::v3::Rbac as Rules;
use envoy_types::pb::envoy::config::rbac::v3::rbac::Action;
use envoy_types::pb::envoy::extensions::filters::http::rbac::v3::Rbac;
use envoy_types::pb::google::protobuf as wkt;

use super::{Fault, fixed, non_empty, open, required, take};

/// The name of the commit marker (`docs/seams.md`).
pub const MARKER: &str = "garrison.commit";

#[derive(Debug)]
pub enum Extension {
    Rules(Arc<str>, Box<Rules>),
    Marker(Arc<str>),
}

pub fn extension(config: TypedExtensionConfig) -> Result<Extension, Fault> {
    take!(config, "TypedExtensionConfig" => TypedExtensionConfig { name, typed_config } unsupported {});
    let config = required(typed_config, "TypedExtensionConfig.typed_config")?;
    if name == MARKER {
        return commit(open(&config)?).map(Extension::Marker);
    }
    let name: Arc<str> = non_empty(name, "TypedExtensionConfig.name")?.into();
    // Which of the two it is decides what it does: a deny that allows must never pass.
    let action = match name.rsplit_once('/') {
        Some((_, "deny")) => Action::Deny,
        Some((_, "allow")) => Action::Allow,
        _ => {
            let reason = format!("{name:?} ends neither in /deny nor in /allow");
            return Err(Fault::invalid("TypedExtensionConfig.name", reason));
        }
    };
    take!(open(&config)?, "RBAC" => Rbac { rules } unsupported {
        rules_stat_prefix, matcher, shadow_rules, shadow_matcher, shadow_rules_stat_prefix, track_per_rule_stats
    });
    // In Envoy, absent rules are no rules at all: everything would pass.
    let rules = required(rules, "RBAC.rules")?;
    fixed(&rules.action, &(action as i32), "RBAC.rules.action")?;
    Ok(Extension::Rules(name, Box::new(rules)))
}

fn commit(marker: wkt::Struct) -> Result<Arc<str>, Fault> {
    use wkt::value::Kind::StringValue;
    let wkt::Struct { fields } = marker;
    let mut fields = fields.into_iter();
    match (fields.next(), fields.next()) {
        (
            Some((
                name,
                wkt::Value {
                    kind: Some(StringValue(commit)),
                },
            )),
            None,
        ) if name == "commit"
            && commit.len() == 40
            && commit.bytes().all(|byte| byte.is_ascii_hexdigit()) =>
        {
            Ok(commit.into())
        }
        _ => Err(Fault::invalid(
            "Struct.fields",
            "must be one, commit, of 40 hexadecimal digits",
        )),
    }
}
