//! The callee's end: mutual TLS from the mesh, authorized request by request, to the application beside.
//!
//! The caller's rules are looked up anew when the configuration has changed, so that a revocation binds connections that
//! are open. Default deny: what no rule allows is not forwarded.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::authorize::{Authorization, Principal, ResolvedPrincipal};
use crate::codes::{Hop, Reason};
use crate::door::{Caller, send_on};
use crate::http::body::Body;
use crate::http::canonical::CanonicalRequest;
use crate::http::headers::{XFCC, client_cert};
use crate::http::service::{Answer, Service};
use crate::http::{Head, Refusal};
use crate::mesh::listener::{Inbound as Door, Role};
use crate::worker::Worker;

/// The service on a connection of a peer.
pub struct Inbound {
    worker: Rc<Worker>,
    listener: Arc<str>,
    caller: Caller,
    principal: Principal,
    /// The caller's rules, and what they were found in.
    resolved: RefCell<Option<(Arc<Authorization>, Rc<ResolvedPrincipal>)>>,
    forwarded: Option<HeaderValue>,
}

impl Inbound {
    /// `peer` is the SPIFFE ID that the handshake proved.
    pub fn new(worker: Rc<Worker>, listener: Arc<str>, peer: Arc<str>) -> Self {
        let own = worker.own_id().unwrap_or_default();
        Self {
            forwarded: client_cert(&own, Some(&peer)),
            principal: Principal::Spiffe(Arc::clone(&peer)),
            caller: Caller {
                hop: Hop::Inbound,
                source: peer,
            },
            resolved: RefCell::default(),
            worker,
            listener,
        }
    }

    /// Why it is denied, if it is, and the name of the rule that decided.
    fn authorize(
        &self,
        door: &Door,
        request: &CanonicalRequest,
    ) -> (Option<Reason>, Option<Arc<str>>) {
        let mut resolved = self.resolved.borrow_mut();
        let rules = match &*resolved {
            Some((of, rules)) if Arc::ptr_eq(of, &door.authorization) => Rc::clone(rules),
            Some(_) | None => {
                let rules = self.worker.resolve(&door.authorization, &self.principal);
                *resolved = Some((Arc::clone(&door.authorization), Rc::clone(&rules)));
                rules
            }
        };
        let decision = rules.decide(request);
        if decision.allowed {
            return (None, decision.rule);
        }
        let reason = if door.authorization.is_empty() {
            Reason::NoPolicy
        } else {
            Reason::Denied
        };
        (Some(reason), decision.rule)
    }
}

impl Service for Inbound {
    async fn call(&self, head: Head, body: Body) -> Answer {
        let (mut exchange, view) = match self.caller.begin(&self.worker, head) {
            Ok(begun) => begun,
            Err(answer) => return *answer,
        };
        let Some(Role::Inbound(door)) =
            view.listener(&self.listener).map(|listener| &listener.role)
        else {
            return exchange.refuse(Reason::Draining);
        };
        exchange.destination = Some(Arc::clone(&door.destination));
        let (denied, rule) = self.authorize(door, &exchange.request);
        exchange.rule = rule;
        if let Some(reason) = denied {
            return exchange.refuse(reason);
        }
        let Some(forwarded) = &self.forwarded else {
            return exchange.refuse(Reason::Internal);
        };
        exchange.request.headers.insert(&XFCC, forwarded.clone());
        send_on(
            &self.worker,
            &view,
            &door.routes,
            exchange,
            body,
            remove_our_codes,
        )
        .await
    }

    fn refuse(&self, refusal: Refusal) -> Answer {
        self.caller.refuse(&self.worker, refusal)
    }
}

/// `x-garrison-*` in an answer is the mesh's word: an application cannot speak it.
fn remove_our_codes(headers: &mut HeaderMap) {
    let is_ours = |name: &&HeaderName| name.as_str().starts_with("x-garrison-");
    let ours: Vec<HeaderName> = headers.keys().filter(is_ours).cloned().collect();
    for name in ours {
        headers.remove(name);
    }
}
