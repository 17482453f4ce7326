//! What both ends of a call do with a request once they know where it goes.

use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderMap, Method, Version};
use rand::Rng;

use crate::codes::{Hop, Reason};
use crate::exchange::{Beginning, Exchange};
use crate::forward::{Forwarding, deadline};
use crate::http::body::Body;
use crate::http::canonical::CanonicalRequest;
use crate::http::service::Answer;
use crate::http::target::Target;
use crate::http::upstream::Received;
use crate::http::{Head, Refusal};
use crate::mesh::matching::{NoRoute, pick_weighted, total_weight};
use crate::mesh::route::{Action, Forward, RouteTable};
use crate::worker::{View, Worker};

/// What is known of a caller before its request is read.
pub struct Caller {
    pub hop: Hop,
    pub source: Arc<str>,
}

impl Caller {
    /// Begin with a request, if it has a canonical form and there is a configuration for it.
    pub fn begin(
        &self,
        worker: &Worker,
        head: Head,
    ) -> Result<(Box<Exchange>, Rc<View>), Box<Answer>> {
        let protocol = head.version;
        let (method, target) = (head.method.clone(), head.target.clone());
        let view = worker.view();
        let begin = |request| {
            let snapshot = view.as_ref().map(|view| Arc::clone(&view.snapshot));
            let beginning = Beginning {
                hop: self.hop,
                source: Arc::clone(&self.source),
                protocol,
                snapshot,
            };
            Exchange::begin(worker.telemetry(), beginning, request)
        };
        match (CanonicalRequest::of(head), &view) {
            (Err(refusal), _) => Err(Box::new(refuse(
                begin(unreadable(method, &target)),
                refusal,
            ))),
            (Ok(request), None) => Err(Box::new(begin(request).refuse(Reason::NotReady))),
            (Ok(request), Some(view)) => Ok((begin(request), Rc::clone(view))),
        }
    }

    /// Answer what was no request at all.
    pub fn refuse(&self, worker: &Worker, refusal: Refusal) -> Answer {
        let request = unreadable(Method::default(), &Target::Line(bytes::Bytes::new()));
        let beginning = Beginning {
            hop: self.hop,
            source: Arc::clone(&self.source),
            protocol: Version::HTTP_11,
            snapshot: worker.view().map(|view| Arc::clone(&view.snapshot)),
        };
        refuse(
            Exchange::begin(worker.telemetry(), beginning, request),
            refusal,
        )
    }
}

fn refuse(exchange: Box<Exchange>, refusal: Refusal) -> Answer {
    tracing::debug!(
        request_id = exchange.request_id.as_str(),
        detail = refusal.detail,
        "request refused"
    );
    exchange.refuse(refusal.reason)
}

/// What the log can say of a request that has no canonical form: its target as it came, and no more is made of it.
fn unreadable(method: Method, target: &Target) -> CanonicalRequest {
    let raw = match target {
        Target::Line(line) => line,
        Target::Pseudo { path, .. } => path,
    };
    CanonicalRequest {
        method,
        host: Box::default(),
        port: None,
        path: String::from_utf8_lossy(raw).into(),
        query: None,
        headers: HeaderMap::new(),
    }
}

/// Route a request and send it on; the answer is given to `finish` before the caller gets it.
pub async fn send_on(
    worker: &Worker,
    view: &View,
    routes: &RouteTable,
    mut exchange: Box<Exchange>,
    body: Body,
    finish: impl FnOnce(&mut HeaderMap),
) -> Answer {
    let route = match routes.find(&exchange.request) {
        Ok(route) => Arc::clone(route),
        Err(NoRoute::UnknownHost) if exchange.hop() == Hop::Outbound => {
            return exchange.refuse(Reason::UnknownService);
        }
        Err(NoRoute::UnknownHost | NoRoute::NoMatch) => return exchange.refuse(Reason::NoRoute),
    };
    exchange.route = Some(Arc::clone(&route));
    let forward = match &route.action {
        Action::Forward(forward) => forward,
        Action::Respond { status, body } => return exchange.direct(*status, body),
    };
    match forward_to(worker, view, forward, &mut exchange, body).await {
        Ok(Received {
            status,
            mut headers,
            body,
        }) => {
            finish(&mut headers);
            exchange.answer(status, headers, body)
        }
        Err(reason) => exchange.refuse(reason),
    }
}

async fn forward_to(
    worker: &Worker,
    view: &View,
    forward: &Forward,
    exchange: &mut Exchange,
    body: Body,
) -> Result<Received, Reason> {
    let balancer = pick_cluster(worker, forward)
        .and_then(|name| view.balancer(name))
        .ok_or(Reason::NoHealthyEndpoint)?;
    let cluster = balancer.cluster();
    exchange.cluster = Some(Arc::clone(&cluster.name));
    exchange
        .destination
        .get_or_insert_with(|| Arc::clone(&cluster.service));
    let began = exchange.began();
    let headers = &mut exchange.request.headers;
    let deadline =
        deadline::of(headers, forward.timeout, began).map_err(|refusal| refusal.reason)?;
    headers.insert(
        &crate::codes::X_REQUEST_ID,
        exchange.request_id.as_header().clone(),
    );
    exchange.trace.stamp(headers);
    let forwarding = Forwarding {
        hop: exchange.hop(),
        balancer,
        retry: forward.retry.as_ref(),
        deadline,
        downstream: exchange.protocol(),
        rng: &worker.rng,
    };
    forwarding.send(exchange, body).await
}

fn pick_cluster<'a>(worker: &Worker, forward: &'a Forward) -> Option<&'a str> {
    if let [only] = &*forward.clusters {
        return Some(&only.name);
    }
    let draw = worker
        .rng
        .borrow_mut()
        .random_range(0..total_weight(&forward.clusters).max(1));
    pick_weighted(&forward.clusters, draw).map(|cluster| &*cluster.name)
}
