//! What one worker has resolved already: a principal that connects again finds its rules, and no worker waits for another.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use super::{Authorization, Principal, ResolvedPrincipal};

/// So many principals' slices are kept for their next connection.
const MAX_PRINCIPALS: usize = 4_096;
/// ... but not more rules in all of them.
const MAX_RULES: usize = 4_000_000;

/// Principals and their rules, of one [`Authorization`]: a sidecar is the door of one service.
#[derive(Debug, Default)]
pub struct Resolutions {
    of: Option<Arc<Authorization>>,
    known: HashMap<Principal, Rc<ResolvedPrincipal>>,
    rules: usize,
}

impl Resolutions {
    pub fn resolve(
        &mut self,
        authorization: &Arc<Authorization>,
        principal: &Principal,
    ) -> Rc<ResolvedPrincipal> {
        if !self.is_of(authorization) {
            self.forget();
            self.of = Some(Arc::clone(authorization));
        }
        if let Some(known) = self.known.get(principal) {
            return Rc::clone(known);
        }
        let resolved = Rc::new(authorization.resolve(principal));
        if self.known.len() >= MAX_PRINCIPALS || self.rules > MAX_RULES {
            self.known.clear();
            self.rules = 0;
        }
        self.rules += resolved.own_rules();
        self.known.insert(principal.clone(), Rc::clone(&resolved));
        resolved
    }

    pub fn is_of(&self, authorization: &Arc<Authorization>) -> bool {
        let of = self.of.as_ref();
        of.is_some_and(|of| Arc::ptr_eq(of, authorization))
    }

    pub fn forget(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::rbac::v3::rbac::Action;

    use super::super::reference::rbac;
    use super::*;

    fn authorization() -> Arc<Authorization> {
        let none = |action| rbac(action, []);
        let compiled = Authorization::compile(&none(Action::Deny), &none(Action::Allow));
        Arc::new(compiled.unwrap())
    }

    fn principal(number: usize) -> Principal {
        Principal::Spiffe(format!("spiffe://td/ns/a/sa/{number}").into())
    }

    #[test]
    fn a_principal_is_resolved_once_for_each_authorization() {
        let (mut resolutions, one, other) =
            (Resolutions::default(), authorization(), authorization());
        let first = resolutions.resolve(&one, &principal(1));
        assert!(Rc::ptr_eq(
            &first,
            &resolutions.resolve(&one, &principal(1))
        ));
        let changed = resolutions.resolve(&other, &principal(1));
        assert!(Arc::ptr_eq(&changed.rules, &other.rules));
        assert!(!resolutions.is_of(&one));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let (mut resolutions, one) = (Resolutions::default(), authorization());
        for number in 0..=MAX_PRINCIPALS {
            resolutions.resolve(&one, &principal(number));
        }
        assert_eq!(resolutions.known.len(), 1);
    }
}
