//! Following a policy server over real TLS: what is acknowledged, what is refused, and what requests meet meanwhile.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)] // a test may
#![allow(clippy::wildcard_imports)]

mod support;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::rbac::v3::rbac::Action as Effect;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource,
};
use envoy_types::pb::google::protobuf::Any;
use envoy_types::util::pack_any;
use garrison_proxy::config::Policy;
use garrison_proxy::identity::Credentials;
use garrison_proxy::mesh::{Live, Snapshot};
use garrison_proxy::xds::PolicyClient;
use garrison_proxy::xds::resource::Kind;
use support::control_plane::{
    CA_ID, Conversation, Files, POLICY_SERVER_ID, Server, control, within,
};
use support::resources::*;
use support::{Authority, CATALOG, TRUST_DOMAIN};
use tokio::sync::mpsc;

const OTHER_COMMIT: &str = "b1ae188000000000000000000000000000000000";
const SERVICE: &str = "bookstore/catalog";

struct Proxy {
    files: Files,
    credentials: Arc<Credentials>,
    live: Arc<Live>,
}

impl Proxy {
    fn new(authority: &Authority) -> Self {
        Self {
            files: Files::new(""),
            credentials: authority.credentials(CATALOG),
            live: Arc::new(Live::empty()),
        }
    }

    async fn until<F: Future>(&self, server: &Server, done: F) -> F::Output {
        let control = control(Arc::clone(&self.credentials), &self.files.folder);
        let policy = Policy {
            address: server.address,
        };
        let client = PolicyClient::new(control, &policy, Arc::clone(&self.live));
        let done = Box::pin(within(done));
        tokio::select! {
            never = Box::pin(client.follow()) => match never {},
            output = done => output,
        }
    }

    fn enforced(&self) -> Option<Arc<Snapshot>> {
        self.live.load().clone()
    }

    fn commit(&self) -> Option<String> {
        self.enforced().map(|snapshot| snapshot.commit.to_string())
    }
}

/// Read the first requests of a stream: one for each type.
async fn opened(
    conversations: &mut mpsc::Receiver<Conversation>,
) -> (Conversation, Vec<DeltaDiscoveryRequest>) {
    let mut stream = within(conversations.recv()).await.unwrap();
    let mut first = Vec::new();
    for _ in Kind::ALL {
        first.push(stream.hear().await);
    }
    (stream, first)
}

fn named(name: &str, version: &str, payload: Any) -> Resource {
    Resource {
        name: name.to_owned(),
        version: version.to_owned(),
        resource: Some(payload),
        ..Resource::default()
    }
}

fn response(commit: &str, resources: Vec<Resource>) -> DeltaDiscoveryResponse {
    static NONCE: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let nonce = NONCE.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    DeltaDiscoveryResponse {
        system_version_info: commit.to_owned(),
        type_url: resources[0].resource.as_ref().unwrap().type_url.clone(),
        nonce: nonce.to_string(),
        resources,
        ..DeltaDiscoveryResponse::default()
    }
}

/// Send a response, and give the client's answer to it.
async fn send(stream: &mut Conversation, response: DeltaDiscoveryResponse) -> Result<(), String> {
    let (nonce, type_url) = (response.nonce.clone(), response.type_url.clone());
    stream.say(response).await;
    let answer = stream.hear().await;
    assert_eq!((answer.response_nonce, answer.type_url), (nonce, type_url));
    answer
        .error_detail
        .map_or(Ok(()), |detail| Err(detail.message))
}

/// The whole client as one commit, in the order of types; the marker by itself.
async fn send_commit(stream: &mut Conversation, commit: &str, ports: &[u32]) -> Result<(), String> {
    let catalog = named(SERVICE, "1", pack_any(cluster(SERVICE)));
    let application = named("application", "1", pack_any(application()));
    send(stream, response(commit, vec![catalog, application])).await?;
    let version = format!("{ports:?}");
    let assignment = named(SERVICE, &version, pack_any(endpoints(SERVICE, ports)));
    send(stream, response(commit, vec![assignment])).await?;
    let door = inbound(15006, inbound_manager(), downstream_tls());
    let doors = vec![
        named("inbound", "1", pack_any(door)),
        named(
            "outbound",
            "1",
            pack_any(listener("outbound", 15001, outbound_manager())),
        ),
    ];
    send(stream, response(commit, doors)).await?;
    let table = routes("outbound", &["catalog.bookstore"], SERVICE);
    send(
        stream,
        response(commit, vec![named("outbound", "1", pack_any(table))]),
    )
    .await?;
    let both = vec![
        named(DENY, "1", pack_any(rules(DENY, Effect::Deny))),
        named(ALLOW, "1", pack_any(rules(ALLOW, Effect::Allow))),
    ];
    send(stream, response(commit, both)).await?;
    send_marker(stream, commit).await
}

async fn send_marker(stream: &mut Conversation, commit: &str) -> Result<(), String> {
    let marker = named("garrison.commit", commit, pack_any(marker(commit)));
    send(stream, response(commit, vec![marker])).await
}

#[tokio::test]
async fn all_types_are_subscribed_to_and_the_node_named_once() {
    let authority = Authority::new(TRUST_DOMAIN);
    let (server, mut conversations) = Server::discovery(&authority, POLICY_SERVER_ID).await;
    let proxy = Proxy::new(&authority);
    let (_, first) = proxy.until(&server, opened(&mut conversations)).await;
    let urls: HashSet<_> = first
        .iter()
        .map(|request| request.type_url.clone())
        .collect();
    assert_eq!(urls, Kind::ALL.map(Kind::type_url).into());
    assert!(
        first
            .iter()
            .all(|request| request.resource_names_subscribe == ["*"])
    );
    assert!(
        first
            .iter()
            .all(|request| request.initial_resource_versions.is_empty())
    );
    let nodes: Vec<_> = first
        .iter()
        .filter_map(|request| request.node.clone())
        .collect();
    assert_eq!(
        nodes
            .iter()
            .map(|node| node.id.as_str())
            .collect::<Vec<_>>(),
        ["catalog-1"]
    );
}

#[tokio::test]
async fn commit_is_enforced_whole_at_its_marker() {
    let authority = Authority::new(TRUST_DOMAIN);
    let (server, mut conversations) = Server::discovery(&authority, POLICY_SERVER_ID).await;
    let proxy = Proxy::new(&authority);
    let follow = async {
        let (mut stream, _) = opened(&mut conversations).await;
        assert_eq!(send_commit(&mut stream, COMMIT, &[9001]).await, Ok(()));
        let first = proxy.enforced().unwrap();
        assert_eq!(&*first.commit, COMMIT);
        assert_eq!(first.clusters[SERVICE].endpoints.len(), 1);
        // The next one: nothing of it is met before its marker.
        let more = named(SERVICE, "2", pack_any(endpoints(SERVICE, &[9001, 9002])));
        assert_eq!(
            send(&mut stream, response(OTHER_COMMIT, vec![more])).await,
            Ok(())
        );
        assert!(Arc::ptr_eq(&proxy.enforced().unwrap(), &first));
        assert_eq!(send_marker(&mut stream, OTHER_COMMIT).await, Ok(()));
        let second = proxy.enforced().unwrap();
        assert_eq!(&*second.commit, OTHER_COMMIT);
        assert_eq!(second.clusters[SERVICE].endpoints.len(), 2);
        // What did not change is the same as before, not a copy.
        assert!(Arc::ptr_eq(
            &first.clusters["application"],
            &second.clusters["application"]
        ));
        assert!(!Arc::ptr_eq(
            &first.clusters[SERVICE],
            &second.clusters[SERVICE]
        ));
        for (before, after) in first.listeners.iter().zip(&second.listeners) {
            assert!(Arc::ptr_eq(before, after), "{}", before.name);
        }
    };
    proxy.until(&server, follow).await;
}

#[tokio::test]
#[expect(
    clippy::too_many_lines,
    reason = "one story: each step starts where the last one ended"
)]
async fn refused_resource_is_named_and_its_commit_is_not_enforced() {
    let authority = Authority::new(TRUST_DOMAIN);
    let (server, mut conversations) = Server::discovery(&authority, POLICY_SERVER_ID).await;
    let proxy = Proxy::new(&authority);
    let follow = async {
        let (mut stream, _) = opened(&mut conversations).await;
        assert_eq!(send_commit(&mut stream, COMMIT, &[9001]).await, Ok(()));
        let mut bad = cluster("bookstore/orders");
        bad.ignore_health_on_host_removal = true;
        let good = named(
            "bookstore/ratings",
            "1",
            pack_any(cluster("bookstore/ratings")),
        );
        let bad = named("bookstore/orders", "1", pack_any(bad));
        let refusal = send(&mut stream, response(OTHER_COMMIT, vec![bad, good.clone()]))
            .await
            .unwrap_err();
        assert!(refusal.contains("\"bookstore/orders\""), "{refusal}");
        assert!(
            refusal.contains("Cluster.ignore_health_on_host_removal is not supported"),
            "{refusal}"
        );
        // The good neighbour comes again by itself; the commit stays refused.
        assert_eq!(
            send(&mut stream, response(OTHER_COMMIT, vec![good])).await,
            Ok(())
        );
        let ratings = named(
            "bookstore/ratings",
            "1",
            pack_any(endpoints("bookstore/ratings", &[1])),
        );
        assert_eq!(
            send(&mut stream, response(OTHER_COMMIT, vec![ratings])).await,
            Ok(())
        );
        let refusal = send_marker(&mut stream, OTHER_COMMIT).await.unwrap_err();
        assert!(
            refusal.contains("\"bookstore/orders\": was refused"),
            "{refusal}"
        );
        assert_eq!(proxy.commit().as_deref(), Some(COMMIT));
        // A later commit without the mistake is enforced.
        let third = "0123456789012345678901234567890123456789";
        assert_eq!(send_marker(&mut stream, third).await, Ok(()));
        assert_eq!(proxy.commit().as_deref(), Some(third));
        assert!(
            proxy
                .enforced()
                .unwrap()
                .clusters
                .contains_key("bookstore/ratings")
        );
    };
    proxy.until(&server, follow).await;
}

#[tokio::test]
async fn refused_resource_that_is_mended_no_longer_stands_in_the_way() {
    let authority = Authority::new(TRUST_DOMAIN);
    let (server, mut conversations) = Server::discovery(&authority, POLICY_SERVER_ID).await;
    let proxy = Proxy::new(&authority);
    let follow = async {
        let (mut stream, _) = opened(&mut conversations).await;
        let mut bad = cluster(SERVICE);
        bad.lb_policy = 2;
        let bad = named(SERVICE, "0", pack_any(bad));
        assert!(
            send(&mut stream, response(COMMIT, vec![bad]))
                .await
                .is_err()
        );
        assert_eq!(send_commit(&mut stream, COMMIT, &[9001]).await, Ok(()));
        assert_eq!(proxy.commit().as_deref(), Some(COMMIT));
    };
    proxy.until(&server, follow).await;
}

#[tokio::test]
async fn commit_with_a_dangling_reference_is_refused_at_its_marker() {
    let authority = Authority::new(TRUST_DOMAIN);
    let (server, mut conversations) = Server::discovery(&authority, POLICY_SERVER_ID).await;
    let proxy = Proxy::new(&authority);
    let follow = async {
        let (mut stream, _) = opened(&mut conversations).await;
        assert_eq!(send_commit(&mut stream, COMMIT, &[9001]).await, Ok(()));
        let mut gone = response(
            OTHER_COMMIT,
            vec![named(SERVICE, "1", pack_any(cluster(SERVICE)))],
        );
        gone.resources.clear();
        gone.removed_resources = vec![SERVICE.to_owned()];
        assert_eq!(send(&mut stream, gone).await, Ok(()));
        let refusal = send_marker(&mut stream, OTHER_COMMIT).await.unwrap_err();
        assert!(
            refusal.contains("there is no Cluster \"bookstore/catalog\""),
            "{refusal}"
        );
        assert_eq!(proxy.commit().as_deref(), Some(COMMIT));
    };
    proxy.until(&server, follow).await;
}

#[tokio::test]
async fn envelopes_that_say_more_are_refused() {
    let authority = Authority::new(TRUST_DOMAIN);
    let (server, mut conversations) = Server::discovery(&authority, POLICY_SERVER_ID).await;
    let proxy = Proxy::new(&authority);
    let follow = async {
        let (mut stream, _) = opened(&mut conversations).await;
        let catalog = || named(SERVICE, "1", pack_any(cluster(SERVICE)));
        let mut other_name = catalog();
        other_name.name = "bookstore/orders".to_owned();
        let mut with_ttl = catalog();
        with_ttl.ttl = Some(envoy_types::pb::google::protobuf::Duration {
            seconds: 1,
            nanos: 0,
        });
        let mut empty = catalog();
        empty.resource = None;
        for (bad, reason) in [
            (other_name, "Resource.name"),
            (with_ttl, "has more than name, version and resource"),
            (empty, "Resource.resource: is required"),
        ] {
            let mut message = response(COMMIT, vec![catalog()]);
            message.resources = vec![bad];
            let refusal = send(&mut stream, message).await.unwrap_err();
            assert!(refusal.contains(reason), "{refusal}");
        }
        let mut unasked = response(COMMIT, vec![catalog()]);
        unasked.type_url =
            "type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration".to_owned();
        assert!(
            send(&mut stream, unasked)
                .await
                .unwrap_err()
                .contains("was not asked for")
        );
        assert!(proxy.enforced().is_none());
    };
    proxy.until(&server, follow).await;
}

#[tokio::test]
async fn next_stream_says_what_is_held_and_what_is_enforced_stays() {
    let authority = Authority::new(TRUST_DOMAIN);
    let (server, mut conversations) = Server::discovery(&authority, POLICY_SERVER_ID).await;
    let proxy = Proxy::new(&authority);
    let follow = async {
        let (mut stream, _) = opened(&mut conversations).await;
        assert_eq!(send_commit(&mut stream, COMMIT, &[9001]).await, Ok(()));
        drop(stream);
        let (_, first) = opened(&mut conversations).await;
        let held: usize = first
            .iter()
            .map(|request| request.initial_resource_versions.len())
            .sum();
        assert_eq!(held, 9);
        assert_eq!(proxy.commit().as_deref(), Some(COMMIT));
        // A renewed SVID is shown to the server at once.
        proxy
            .credentials
            .set_svid(Arc::new(authority.svid(CATALOG, Duration::from_secs(7200))));
        let (_, first) = opened(&mut conversations).await;
        assert!(
            first
                .iter()
                .any(|request| !request.initial_resource_versions.is_empty())
        );
    };
    proxy.until(&server, follow).await;
}

#[tokio::test]
async fn attack_e17_another_workload_is_no_policy_server() {
    let authority = Authority::new(TRUST_DOMAIN);
    let (server, mut conversations) = Server::discovery(&authority, CA_ID).await;
    let proxy = Proxy::new(&authority);
    let nothing = async {
        tokio::select! {
            _ = conversations.recv() => panic!("configuration from an impostor"),
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    };
    proxy.until(&server, nothing).await;
}

#[tokio::test]
async fn attack_e16_nothing_is_asked_for_before_there_is_a_bundle() {
    let authority = Authority::new(TRUST_DOMAIN);
    let (server, mut conversations) = Server::discovery(&authority, POLICY_SERVER_ID).await;
    let proxy = Proxy::new(&authority);
    let bundles = proxy.credentials.bundles();
    proxy.credentials.set_bundles(Arc::default());
    let follow = async {
        tokio::select! {
            _ = conversations.recv() => panic!("a stream without a bundle"),
            () = tokio::time::sleep(Duration::from_millis(500)) => {}
        }
        proxy.credentials.set_bundles(bundles);
        opened(&mut conversations).await;
    };
    proxy.until(&server, follow).await;
}
