//! Authorization: Envoy's RBAC rules of one destination, indexed, and the decision for a request.
//!
//! The deny filter is asked first, then the allow filter; what no rule allows is denied. The meaning is that of Envoy's
//! RBAC filter on the canonical request, stricter in one thing, so that whatever Envoy would deny is denied here too:
//! where a header has several values, a deny rule trips if any of them (or all, joined) matches, and an allow rule needs
//! each of them to match. A path that is not canonical is denied.
//!
//! A decision costs the same for ten lines as for 100,000: [`Authorization::resolve`] keeps, once per connection, the
//! rules whose principals fit; of these an index by path and method finds the few that can match; each of those is
//! then evaluated in full. So the index can only ever leave a rule out, never bend one, and the tests below hold it
//! against a second evaluator that has no index.

mod compile;
pub mod decide;
mod expression;
mod hashing;
mod index;
mod path_pattern;
mod principal;
#[cfg(test)]
mod reference;
mod resolutions;
mod rules;

use std::sync::Arc;

use envoy_types::pb::envoy::config::rbac::v3::Rbac;
use envoy_types::pb::envoy::config::rbac::v3::rbac::Action;

pub use compile::Unsupported;
pub use principal::Principal;
pub use resolutions::Resolutions;

use crate::http::canonical::CanonicalRequest;
use expression::{Request, Values};
use rules::{RuleBase, Slice};

/// The deny and the allow rules of one destination.
#[derive(Debug)]
pub struct Authorization {
    rules: Arc<Rules>,
}

#[derive(Debug)]
struct Rules {
    deny: RuleBase,
    allow: RuleBase,
}

/// The rules that concern one principal. It belongs to the [`Authorization`] that made it: after a change of rules, resolve
/// again.
#[derive(Debug)]
pub struct ResolvedPrincipal {
    principal: Principal,
    rules: Arc<Rules>,
    deny: Slice,
    allow: Slice,
}

/// What was decided, and by which rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    pub allowed: bool,
    /// The rule's name, `file:line`; none where no rule matched.
    pub rule: Option<Arc<str>>,
}

impl Authorization {
    /// Take the rules of both filters, or say which field of which rule is not supported.
    pub fn compile(deny: &Rbac, allow: &Rbac) -> Result<Self, Unsupported> {
        let deny = RuleBase::new(compile::rules(deny, Action::Deny)?);
        let allow = RuleBase::new(compile::rules(allow, Action::Allow)?);
        let rules = Arc::new(Rules { deny, allow });
        Ok(Self { rules })
    }

    /// Find the rules that concern a principal: once per connection, not per request ([`Resolutions`]).
    pub fn resolve(&self, principal: &Principal) -> ResolvedPrincipal {
        ResolvedPrincipal {
            principal: principal.clone(),
            rules: Arc::clone(&self.rules),
            deny: self.rules.deny.slice(principal),
            allow: self.rules.allow.slice(principal),
        }
    }

    /// Is there no rule at all, so that nothing can ever be allowed?
    pub fn is_empty(&self) -> bool {
        self.rules
            .deny
            .names()
            .chain(self.rules.allow.names())
            .next()
            .is_none()
    }

    /// The rules' names, deny and allow, in the order in which they are reported.
    pub fn rule_names(&self) -> (Vec<Arc<str>>, Vec<Arc<str>>) {
        (
            self.rules.deny.names().collect(),
            self.rules.allow.names().collect(),
        )
    }
}

impl ResolvedPrincipal {
    pub fn decide(&self, request: &CanonicalRequest) -> Decision {
        if !path_pattern::is_canonical(&request.path) {
            return Decision {
                allowed: false,
                rule: None,
            };
        }
        let request = Request::new(&self.principal, request);
        if let Some(rule) = self
            .rules
            .deny
            .first_match(&self.deny, &request, Values::Any)
        {
            return Decision {
                allowed: false,
                rule: Some(Arc::clone(rule)),
            };
        }
        let rule = self
            .rules
            .allow
            .first_match(&self.allow, &request, Values::All);
        Decision {
            allowed: rule.is_some(),
            rule: rule.map(Arc::clone),
        }
    }

    fn own_rules(&self) -> usize {
        self.deny.own_rules() + self.allow.own_rules()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use reference::{a_filter, a_request, an_asker};

    fn agree(
        deny: &Rbac,
        allow: &Rbac,
        askers: &[Principal],
        requests: &[CanonicalRequest],
    ) -> Result<(), TestCaseError> {
        let compiled = Authorization::compile(deny, allow).unwrap();
        for asker in askers {
            let resolved = compiled.resolve(asker);
            for request in requests {
                let expected = reference::decide(deny, allow, asker, request);
                prop_assert_eq!(
                    resolved.decide(request),
                    expected,
                    "{:?} {:?}",
                    asker,
                    request
                );
            }
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(
            std::env::var("GARRISON_AUTHORIZE_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(100)
        ))]

        #[test]
        fn the_index_decides_as_the_plain_evaluator(
            deny in a_filter(Action::Deny, 4),
            allow in a_filter(Action::Allow, 12),
            askers in prop::collection::vec(an_asker(), 3),
            requests in prop::collection::vec(a_request(), 12),
        ) {
            agree(&deny, &allow, &askers, &requests)?;
        }

        #[test]
        fn large_groups_decide_as_the_plain_evaluator(
            filter in a_filter(Action::Allow, 6),
            copies in 60_usize..70,
            requests in prop::collection::vec(a_request(), 3),
        ) {
            // The same policies under many names: groups with an index of their own.
            let copied = (0..copies).flat_map(|copy| {
                filter.policies.iter().map(move |(name, policy)| (format!("{name}{copy:02}"), policy.clone()))
            });
            let allow = reference::rbac(Action::Allow, copied);
            let deny = reference::rbac(Action::Deny, []);
            agree(&deny, &allow, &[Principal::Spiffe("spiffe://td/ns/a/sa/b".into())], &requests)?;
        }
    }
}
