//! Handshakes between two proxies over real sockets: who gets through, and who does not and why.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)] // a test may

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use garrison_proxy::identity::Credentials;
use garrison_proxy::identity::bundle::{Bundles, Roots};
use garrison_proxy::identity::spiffe_id::TrustDomain;
use garrison_proxy::identity::svid::Refusal;
use garrison_proxy::tls::{Alpn, HandshakeError, MeshTls, Peer};
use support::{Authority, CATALOG, TRUST_DOMAIN, WEB, leaf_params};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const DAY: Duration = Duration::from_secs(86_400);

fn names(names: &[&str]) -> Vec<Arc<str>> {
    names.iter().map(|name| Arc::from(*name)).collect()
}

fn tls(credentials: Arc<Credentials>) -> MeshTls {
    MeshTls::new(credentials, DAY)
}

async fn dial(
    client: &MeshTls,
    address: SocketAddr,
    expected: &[&str],
) -> Result<Peer, HandshakeError> {
    let stream = TcpStream::connect(address).await.unwrap();
    let mut secured = client.connect(stream, &names(expected)).await?;
    // In TLS 1.3 the client is done before the server has looked at its certificate.
    let mut byte = [0];
    secured
        .stream
        .write_all(b"x")
        .await
        .map_err(HandshakeError::Failed)?;
    secured
        .stream
        .read_exact(&mut byte)
        .await
        .map_err(HandshakeError::Failed)?;
    Ok(secured.peer)
}

/// Both ends' outcome; a byte each way proves that the connection is usable.
async fn meet(
    client: &MeshTls,
    server: &MeshTls,
    expected: &[&str],
    admitted: &[&str],
) -> (Result<Peer, HandshakeError>, Result<Peer, HandshakeError>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connect = dial(client, address, expected);
    let accept = async {
        let (stream, _) = listener.accept().await.unwrap();
        let mut secured = server.accept(stream, &names(admitted)).await?;
        let mut byte = [0];
        secured
            .stream
            .read_exact(&mut byte)
            .await
            .map_err(HandshakeError::Failed)?;
        secured
            .stream
            .write_all(&byte)
            .await
            .map_err(HandshakeError::Failed)?;
        secured
            .stream
            .flush()
            .await
            .map_err(HandshakeError::Failed)?;
        Ok(secured.peer)
    };
    tokio::join!(connect, accept)
}

fn refused<T: std::fmt::Debug>(outcome: Result<T, HandshakeError>) -> Refusal {
    match outcome {
        Err(HandshakeError::Refused(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn two_proxies_of_one_mesh_meet() {
    let authority = Authority::new(TRUST_DOMAIN);
    let (client, server) = (
        tls(authority.credentials(WEB)),
        tls(authority.credentials(CATALOG)),
    );
    let (at_client, at_server) = meet(&client, &server, &[CATALOG], &[TRUST_DOMAIN]).await;
    let (server, client) = (at_client.unwrap(), at_server.unwrap());
    assert_eq!((&*server.id, &*client.id), (CATALOG, WEB));
    assert_eq!(client.key_exchange, "x25519mlkem768");
    assert_eq!((server.alpn, client.alpn), (Alpn::H2, Alpn::H2));
    assert!(client.not_after > SystemTime::now());
}

#[tokio::test]
async fn attack_e17_server_of_another_service_is_refused() {
    let authority = Authority::new(TRUST_DOMAIN);
    let (client, server) = (
        tls(authority.credentials(WEB)),
        tls(authority.credentials(CATALOG)),
    );
    let expected = "spiffe://bookstore.example/ns/bookstore/sa/orders";
    let (at_client, at_server) = meet(&client, &server, &[expected], &[TRUST_DOMAIN]).await;
    assert_eq!(refused(at_client), Refusal::UnexpectedPeer(CATALOG.into()));
    assert!(at_server.is_err());
}

#[tokio::test]
async fn server_that_nobody_is_expected_of_is_refused() {
    let authority = Authority::new(TRUST_DOMAIN);
    let (client, server) = (
        tls(authority.credentials(WEB)),
        tls(authority.credentials(CATALOG)),
    );
    let (at_client, _) = meet(&client, &server, &[], &[TRUST_DOMAIN]).await;
    assert_eq!(refused(at_client), Refusal::UnexpectedPeer(CATALOG.into()));
}

#[tokio::test]
async fn client_of_a_trust_domain_that_is_not_admitted_is_refused() {
    let ours = Authority::new(TRUST_DOMAIN);
    let theirs = Authority::new("other.example");
    let client = theirs.credentials("spiffe://other.example/ns/a/sa/b");
    let server = ours.credentials(CATALOG);
    // Each trusts the other's root: it is admission that fails.
    let mut both = ours.bundles();
    let roots = theirs.bundles().get(&theirs.trust_domain).unwrap().clone();
    both.insert(theirs.trust_domain.clone(), roots);
    client.set_bundles(Arc::new(both.clone()));
    server.set_bundles(Arc::new(both));
    let (client, server) = (tls(client), tls(server));
    let (_, at_server) = meet(&client, &server, &[CATALOG], &[TRUST_DOMAIN]).await;
    assert_eq!(
        refused(at_server),
        Refusal::TrustDomain("other.example".into())
    );
    let (at_client, at_server) = meet(
        &client,
        &server,
        &[CATALOG],
        &[TRUST_DOMAIN, "other.example"],
    )
    .await;
    assert!(at_client.is_ok() && at_server.is_ok());
}

#[tokio::test]
async fn client_of_a_foreign_authority_is_refused() {
    let ours = Authority::new(TRUST_DOMAIN);
    let forged = Authority::new(TRUST_DOMAIN).credentials(WEB);
    forged.set_bundles(Arc::new(ours.bundles()));
    let (at_client, at_server) = meet(
        &tls(forged),
        &tls(ours.credentials(CATALOG)),
        &[CATALOG],
        &[TRUST_DOMAIN],
    )
    .await;
    assert!(matches!(refused(at_server), Refusal::Chain(_)));
    assert!(at_client.is_err());
}

#[tokio::test]
async fn peer_without_a_bundle_of_its_trust_domain_is_refused() {
    let authority = Authority::new(TRUST_DOMAIN);
    let server = authority.credentials(CATALOG);
    server.set_bundles(Arc::default());
    let (_, at_server) = meet(
        &tls(authority.credentials(WEB)),
        &tls(server),
        &[CATALOG],
        &[TRUST_DOMAIN],
    )
    .await;
    assert_eq!(refused(at_server), Refusal::NoBundle(TRUST_DOMAIN.into()));
}

#[tokio::test]
async fn attack_e9_svid_that_lives_too_long_is_refused() {
    let authority = Authority::new(TRUST_DOMAIN);
    let client = authority.credentials(WEB);
    client.set_svid(Arc::new(authority.svid(WEB, DAY * 365 * 100)));
    let (_, at_server) = meet(
        &tls(client),
        &tls(authority.credentials(CATALOG)),
        &[CATALOG],
        &[TRUST_DOMAIN],
    )
    .await;
    assert_eq!(refused(at_server), Refusal::LivesTooLong);
}

#[tokio::test]
async fn expired_client_is_refused_by_the_server_and_by_itself() {
    let authority = Authority::new(TRUST_DOMAIN);
    let now = SystemTime::now();
    let client = authority.credentials(WEB);
    let mut params = leaf_params(WEB);
    params.not_after = (now - Duration::from_secs(5)).into();
    // One that believes its SVID to be valid ...
    let lying = authority.sign(&params).svid(WEB, now - DAY, now + DAY);
    client.set_svid(Arc::new(lying));
    let server = tls(authority.credentials(CATALOG));
    let (_, at_server) = meet(
        &tls(Arc::clone(&client)),
        &server,
        &[CATALOG],
        &[TRUST_DOMAIN],
    )
    .await;
    assert_eq!(refused(at_server), Refusal::Expired);
    // ... and one that knows.
    let honest = authority
        .sign(&params)
        .svid(WEB, now - DAY, now - Duration::from_secs(5));
    client.set_svid(Arc::new(honest));
    let (at_client, _) = meet(&tls(client), &server, &[CATALOG], &[TRUST_DOMAIN]).await;
    assert!(matches!(at_client, Err(HandshakeError::IdentityExpired)));
}

#[tokio::test]
async fn proxy_without_identity_neither_accepts_nor_connects() {
    let authority = Authority::new(TRUST_DOMAIN);
    let nobody = tls(Arc::new(Credentials::none(
        TrustDomain::parse(TRUST_DOMAIN).unwrap(),
    )));
    let (at_client, at_server) = meet(&nobody, &nobody, &[CATALOG], &[TRUST_DOMAIN]).await;
    assert!(matches!(at_client, Err(HandshakeError::NoIdentity)));
    assert!(matches!(at_server, Err(HandshakeError::NoIdentity)));
    let server = tls(authority.credentials(CATALOG));
    assert!(
        meet(&nobody, &server, &[CATALOG], &[TRUST_DOMAIN])
            .await
            .1
            .is_err()
    );
}

#[tokio::test]
async fn attack_e18_peer_of_a_root_that_was_taken_away_is_distrusted() {
    let (old, new) = (Authority::new(TRUST_DOMAIN), Authority::new(TRUST_DOMAIN));
    let credentials = old.credentials(CATALOG);
    let server = tls(Arc::clone(&credentials));
    let client = tls(old.credentials(WEB));
    let (_, at_server) = meet(&client, &server, &[CATALOG], &[TRUST_DOMAIN]).await;
    let peer = at_server.unwrap();
    let is_trusted = || server.believes(&peer);
    assert!(is_trusted());
    // The rotation of a root: both, then only the new one.
    let both = old.root_pem() + &new.root_pem();
    let both = Roots::from_pem(both.as_bytes()).unwrap();
    credentials.set_bundles(Arc::new(Bundles::of(old.trust_domain.clone(), both)));
    assert!(is_trusted());
    credentials.set_bundles(Arc::new(new.bundles()));
    assert!(!is_trusted());
    // Back again, and then no bundle at all.
    credentials.set_bundles(Arc::new(old.bundles()));
    assert!(is_trusted());
    credentials.set_bundles(Arc::default());
    assert!(!is_trusted());
}

#[tokio::test]
async fn attack_e14_plaintext_on_a_tls_port_is_refused() {
    let authority = Authority::new(TRUST_DOMAIN);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    client
        .write_all(b"GET / HTTP/1.1\r\nhost: catalog\r\n\r\n")
        .await
        .unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let server = tls(authority.credentials(CATALOG));
    let outcome = server.accept(stream, &names(&[TRUST_DOMAIN])).await;
    assert!(matches!(outcome, Err(HandshakeError::Failed(_))));
}

#[tokio::test(start_paused = true)]
async fn attack_d3_handshake_that_does_not_end_is_given_up() {
    let authority = Authority::new(TRUST_DOMAIN);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let _client = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let server = tls(authority.credentials(CATALOG));
    let outcome = server.accept(stream, &names(&[TRUST_DOMAIN])).await;
    assert!(matches!(outcome, Err(HandshakeError::Timeout)));
}
