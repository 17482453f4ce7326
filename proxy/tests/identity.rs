//! Getting and keeping an identity from a CA over real TLS: what is believed, and what is not.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)] // a test may

mod support;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use envoy_types::pb::envoy::config::core::v3::DataSource;
use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, Secret,
};
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryResponse, Resource};
use envoy_types::util::pack_any;
use garrison_proxy::identity::spiffe_id::TrustDomain;
use garrison_proxy::identity::{Credentials, maintain};
use prost::Name;
use rcgen::CertificateSigningRequestParams;
use support::control_plane::{
    Asked, CA_ID, Conversation, Files, POLICY_SERVER_ID, Server, control, within,
};
use support::{Authority, CATALOG, TRUST_DOMAIN, WEB, leaf_params};
use tonic::{Code, Status};

/// Sign the CSR's key as `id`, for so many seconds.
fn certify(authority: &Authority, asked: &Asked, id: &str, seconds: i64) -> Vec<String> {
    let mut csr = CertificateSigningRequestParams::from_pem(&asked.csr).unwrap();
    let now = SystemTime::now();
    csr.params = leaf_params(id);
    csr.params.not_after = match u64::try_from(seconds) {
        Ok(seconds) => now + Duration::from_secs(seconds),
        Err(_) => now - Duration::from_secs(seconds.unsigned_abs()),
    }
    .into();
    let leaf = csr.signed_by(&authority.issuing).unwrap();
    vec![leaf.pem(), authority.issuing.pem(), authority.root.pem()]
}

struct Mesh {
    authority: Arc<Authority>,
    files: Files,
    credentials: Arc<Credentials>,
}

impl Mesh {
    fn new() -> Self {
        let authority = Arc::new(Authority::new(TRUST_DOMAIN));
        Self {
            files: Files::new(&authority.root_pem()),
            credentials: Arc::new(Credentials::none(TrustDomain::parse(TRUST_DOMAIN).unwrap())),
            authority,
        }
    }

    async fn ca(
        &self,
        answer: impl Fn(&Authority, Asked) -> Result<Vec<String>, Status> + Send + Sync + 'static,
    ) -> Server {
        let authority = Arc::clone(&self.authority);
        let answer = Arc::new(move |asked| answer(&authority, asked));
        Server::certificate_authority(&self.authority, CA_ID, answer).await
    }

    /// Run the identity's upkeep until `done`.
    async fn until<F: Future>(&self, ca: &Server, bundles: &Server, done: F) -> F::Output {
        let control = control(Arc::clone(&self.credentials), &self.files.folder);
        let ca = self.files.ca(ca.address, bundles.address);
        let upkeep = Box::pin(maintain(control, &ca));
        tokio::select! {
            never = upkeep => match never {},
            output = Box::pin(within(done)) => output,
        }
    }

    async fn svid(&self) {
        self.credentials
            .renewals()
            .wait_for(Option::is_some)
            .await
            .unwrap();
    }
}

/// A CA to which `attempts` are made, none of which leads to an SVID.
async fn refuses(answer: impl Fn(&Authority, &Asked) -> Vec<String> + Send + Sync + 'static) {
    let mesh = Mesh::new();
    let attempts = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&attempts);
    let ca = mesh
        .ca(move |authority, asked| {
            seen.fetch_add(1, Ordering::Relaxed);
            Ok(answer(authority, &asked))
        })
        .await;
    let (bundles, _conversations) = Server::discovery(&mesh.authority, CA_ID).await;
    let twice = async {
        while attempts.load(Ordering::Relaxed) < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    mesh.until(&ca, &bundles, twice).await;
    assert!(mesh.credentials.svid().is_none());
}

#[tokio::test]
async fn svid_is_had_for_a_token_and_a_csr() {
    let mesh = Mesh::new();
    let asked = Arc::new(Mutex::new(None));
    let seen = Arc::clone(&asked);
    let ca = mesh
        .ca(move |authority, asked| {
            *seen.lock().unwrap() = Some(asked.clone());
            Ok(certify(authority, &asked, CATALOG, 3600))
        })
        .await;
    let (bundles, _conversations) = Server::discovery(&mesh.authority, CA_ID).await;
    mesh.until(&ca, &bundles, mesh.svid()).await;
    let svid = mesh.credentials.valid_svid().unwrap();
    assert_eq!(svid.id.as_str(), CATALOG);
    assert_eq!(
        svid.certified_key.cert.len(),
        2,
        "leaf and issuer, not the root"
    );
    let asked = asked.lock().unwrap().clone().unwrap();
    assert_eq!(
        (asked.authorization.as_str(), asked.seconds),
        ("Bearer token-1", 3600)
    );
    let csr = CertificateSigningRequestParams::from_pem(&asked.csr).unwrap();
    assert!(
        csr.params.subject_alt_names.is_empty(),
        "who we are is the CA's to say"
    );
}

#[tokio::test]
async fn token_is_read_afresh_at_each_attempt() {
    let mesh = Mesh::new();
    let token = mesh.files.folder.join("token");
    let ca = mesh
        .ca(move |authority, asked| {
            if asked.authorization == "Bearer token-2" {
                return Ok(certify(authority, &asked, CATALOG, 3600));
            }
            std::fs::write(&token, "token-2").unwrap();
            Err(Status::new(Code::Unauthenticated, "the token is expired"))
        })
        .await;
    let (bundles, _conversations) = Server::discovery(&mesh.authority, CA_ID).await;
    mesh.until(&ca, &bundles, mesh.svid()).await;
}

#[tokio::test]
async fn attack_h9_certificate_for_another_key_is_refused() {
    refuses(|authority, _| {
        let leaf = authority.sign(&leaf_params(CATALOG));
        let pem = |der: &[u8]| {
            let body = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, der);
            format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
        };
        vec![
            pem(&leaf.chain[0]),
            authority.issuing.pem(),
            authority.root.pem(),
        ]
    })
    .await;
}

#[tokio::test]
async fn attack_h9_expired_certificate_is_refused() {
    refuses(|authority, asked| certify(authority, asked, CATALOG, -5)).await;
}

#[tokio::test]
async fn certificate_of_another_trust_domain_is_refused() {
    refuses(|authority, asked| certify(authority, asked, "spiffe://other.example/a", 3600)).await;
}

#[tokio::test]
async fn attack_h9_renewal_as_somebody_else_is_refused() {
    let mesh = Mesh::new();
    let ours = mesh.authority.svid(CATALOG, Duration::from_secs(3600));
    mesh.credentials.set_svid(Arc::new(ours));
    let attempts = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&attempts);
    let ca = mesh
        .ca(move |authority, asked| {
            seen.fetch_add(1, Ordering::Relaxed);
            Ok(certify(authority, &asked, WEB, 3600))
        })
        .await;
    let (bundles, _conversations) = Server::discovery(&mesh.authority, CA_ID).await;
    let asked = async {
        while attempts.load(Ordering::Relaxed) < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    mesh.until(&ca, &bundles, asked).await;
    assert_eq!(mesh.credentials.svid().unwrap().id.as_str(), CATALOG);
}

#[tokio::test]
async fn certificate_that_leads_to_no_root_of_ours_is_refused() {
    refuses(|_, asked| certify(&Authority::new(TRUST_DOMAIN), asked, CATALOG, 3600)).await;
}

#[tokio::test]
async fn answers_that_are_no_chain_are_refused() {
    refuses(|_, _| Vec::new()).await;
    refuses(|_, _| vec!["no PEM".to_owned()]).await;
    refuses(|_, _| {
        vec!["-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned()]
    })
    .await;
}

#[tokio::test]
async fn token_is_not_sent_to_an_impostor() {
    let mesh = Mesh::new();
    let asked = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&asked);
    let answer = Arc::new(move |_| {
        seen.fetch_add(1, Ordering::Relaxed);
        Err(Status::internal("thanks for the token"))
    });
    // Another workload of the mesh, and the CA of another mesh.
    let workload =
        Server::certificate_authority(&mesh.authority, POLICY_SERVER_ID, answer.clone()).await;
    let foreign = Server::certificate_authority(&Authority::new(TRUST_DOMAIN), CA_ID, answer).await;
    for impostor in [workload, foreign] {
        let (bundles, _conversations) = Server::discovery(&mesh.authority, CA_ID).await;
        mesh.until(
            &impostor,
            &bundles,
            tokio::time::sleep(Duration::from_secs(1)),
        )
        .await;
    }
    assert_eq!(asked.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn svid_is_renewed_before_and_also_after_it_expired() {
    let mesh = Mesh::new();
    let number = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&number);
    let ca = mesh
        .ca(
            move |authority, asked| match seen.fetch_add(1, Ordering::Relaxed) {
                0 | 1 => Ok(certify(authority, &asked, CATALOG, 3)),
                // Away for longer than a life.
                2..5 => Err(Status::unavailable("starting")),
                _ => Ok(certify(authority, &asked, CATALOG, 3600)),
            },
        )
        .await;
    let (bundles, _conversations) = Server::discovery(&mesh.authority, CA_ID).await;
    let mut renewals = mesh.credentials.renewals();
    let thrice = async {
        for _ in 0..3 {
            renewals.changed().await.unwrap();
        }
    };
    mesh.until(&ca, &bundles, thrice).await;
    assert!(number.load(Ordering::Relaxed) >= 6);
    assert!(mesh.credentials.valid_svid().is_some());
}

fn secret(name: &str, pem: &str) -> Resource {
    let trusted_ca = DataSource {
        specifier: Some(Specifier::InlineBytes(pem.as_bytes().to_vec())),
        watched_directory: None,
    };
    let context = CertificateValidationContext {
        trusted_ca: Some(trusted_ca),
        ..Default::default()
    };
    Resource {
        name: name.to_owned(),
        version: format!("v{}", pem.len()),
        resource: Some(pack_any(Secret {
            name: name.to_owned(),
            r#type: Some(Type::ValidationContext(context)),
        })),
        ..Resource::default()
    }
}

fn bundle(nonce: &str, resources: Vec<Resource>, removed: &[&str]) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse {
        type_url: Secret::type_url(),
        nonce: nonce.to_owned(),
        resources,
        removed_resources: removed.iter().map(ToString::to_string).collect(),
        ..DeltaDiscoveryResponse::default()
    }
}

async fn verdict(
    stream: &mut Conversation,
    response: DeltaDiscoveryResponse,
) -> Result<(), String> {
    let nonce = response.nonce.clone();
    stream.say(response).await;
    let answer = stream.hear().await;
    assert_eq!(answer.response_nonce, nonce);
    answer
        .error_detail
        .map_or(Ok(()), |detail| Err(detail.message))
}

#[tokio::test]
#[expect(
    clippy::too_many_lines,
    reason = "one story: each step starts where the last one ended"
)]
async fn bundles_are_followed_and_the_last_good_ones_kept() {
    let mesh = Mesh::new();
    let ca = mesh
        .ca(|authority, asked| Ok(certify(authority, &asked, CATALOG, 3600)))
        .await;
    let (server, mut conversations) = Server::discovery(&mesh.authority, CA_ID).await;
    let root = mesh.authority.root_pem();
    let (own, other) = ("spiffe://bookstore.example", "spiffe://other.example");
    let trusted = || mesh.credentials.bundles().trust_domains().join(" ");
    let follow = async {
        let mut stream = conversations.recv().await.unwrap();
        let first = stream.hear().await;
        assert_eq!(first.type_url, Secret::type_url());
        assert_eq!(first.resource_names_subscribe, ["*"]);
        assert_eq!(first.node.unwrap().id, "catalog-1");
        assert_eq!(
            verdict(&mut stream, bundle("1", vec![secret(own, &root)], &[])).await,
            Ok(())
        );
        assert_eq!(trusted(), "bookstore.example");
        let both = vec![secret(own, &(root.clone() + &root)), secret(other, &root)];
        assert_eq!(verdict(&mut stream, bundle("2", both, &[])).await, Ok(()));
        assert_eq!(trusted(), "bookstore.example other.example");
        // One bad bundle refuses the response whole.
        for (name, pem, reason) in [
            (own, "", "no PEM certificate"),
            (
                own,
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                "no usable CA",
            ),
            ("spiffe://Other", root.as_str(), "names no trust domain"),
            ("svid", root.as_str(), "names no trust domain"),
        ] {
            let bad = bundle(
                "3",
                vec![secret("spiffe://third.example", &root), secret(name, pem)],
                &[],
            );
            let refusal = verdict(&mut stream, bad).await.unwrap_err();
            assert!(refusal.contains(reason), "{refusal}");
        }
        assert_eq!(trusted(), "bookstore.example other.example");
        assert_eq!(
            verdict(&mut stream, bundle("4", Vec::new(), &[other])).await,
            Ok(())
        );
        assert_eq!(trusted(), "bookstore.example");
        let refusal = verdict(&mut stream, bundle("5", Vec::new(), &[own]))
            .await
            .unwrap_err();
        assert!(refusal.contains("cannot go"), "{refusal}");
        assert_eq!(trusted(), "bookstore.example");
        drop(stream);
        // The next stream says what is held.
        let mut stream = conversations.recv().await.unwrap();
        let held = stream.hear().await.initial_resource_versions;
        assert_eq!(held.keys().collect::<Vec<_>>(), [own]);
        assert_eq!(trusted(), "bookstore.example");
    };
    mesh.until(&ca, &server, follow).await;
}

#[tokio::test]
async fn bundle_stream_waits_for_an_svid() {
    let mesh = Mesh::new();
    let ca = mesh
        .ca(|_, _| Err(Status::permission_denied("no entry")))
        .await;
    let (server, mut conversations) = Server::discovery(&mesh.authority, CA_ID).await;
    let nothing = async {
        tokio::select! {
            _ = conversations.recv() => panic!("a stream without identity"),
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    };
    mesh.until(&ca, &server, nothing).await;
}
