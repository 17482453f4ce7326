//! The caller's end: plaintext from the application, into the mesh.
//!
//! One listener is a forward proxy for all services (absolute-form, or origin-form by `Host`), others are of a single
//! service; which one it is shows only in the listener's route table.

use std::rc::Rc;
use std::sync::Arc;

use crate::codes::{Hop, Reason};
use crate::door::{Caller, send_on};
use crate::http::body::Body;
use crate::http::headers::X_ATTEMPT_COUNT;
use crate::http::service::{Answer, Service};
use crate::http::{Head, Refusal};
use crate::mesh::listener::Role;
use crate::worker::Worker;

/// The service on a connection of the application.
pub struct Outbound {
    worker: Rc<Worker>,
    /// The listener's name: whose routes are those of the configuration that is in force when a request comes.
    listener: Arc<str>,
    caller: Caller,
}

impl Outbound {
    pub fn new(worker: Rc<Worker>, listener: Arc<str>) -> Self {
        let source = worker.own_id().unwrap_or_else(|| "unknown".into());
        Self {
            worker,
            listener,
            caller: Caller {
                hop: Hop::Outbound,
                source,
            },
        }
    }
}

impl Service for Outbound {
    async fn call(&self, head: Head, body: Body) -> Answer {
        let (mut exchange, view) = match self.caller.begin(&self.worker, head) {
            Ok(begun) => begun,
            Err(answer) => return *answer,
        };
        let Some(Role::Outbound(outbound)) =
            view.listener(&self.listener).map(|listener| &listener.role)
        else {
            return exchange.refuse(Reason::Draining);
        };
        exchange.request.headers.remove(&X_ATTEMPT_COUNT);
        send_on(
            &self.worker,
            &view,
            &outbound.routes,
            exchange,
            body,
            |_| {},
        )
        .await
    }

    fn refuse(&self, refusal: Refusal) -> Answer {
        self.caller.refuse(&self.worker, refusal)
    }
}
