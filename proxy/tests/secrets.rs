//! What must never be told: a private key or a token, in no log at any level, no metric, no dump. A program of its own:
//! it hears everything that the process says.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)] // a test may

mod support;

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use garrison_proxy::admin::Admin;
use garrison_proxy::identity::{Credentials, maintain};
use garrison_proxy::tls::MeshTls;
use rcgen::CertificateSigningRequestParams;
use support::application::{Application, ok};
use support::control_plane::{Asked, CA_ID, Files, Server, control, within};
use support::pair::{Shape, Sidecar, free_address};
use support::raw::Raw;
use support::{Authority, CATALOG, TRUST_DOMAIN, WEB, leaf_params};
use tokio::net::TcpListener;
use tracing::Level;

const TOKEN: &str = "eyJhbGciOiJub25lIn0.dGhpcy1pcy1hLXNlY3JldA.c2lnbmF0dXJl";

/// All that is logged.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<u8>>>);

impl Write for Heard {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Listen, at the most talkative level.
fn hear() -> Heard {
    let heard = Heard::default();
    let writer = Heard(Arc::clone(&heard.0));
    tracing_subscriber::fmt()
        .with_max_level(Level::TRACE)
        .with_writer(move || writer.clone())
        .init();
    heard
}

/// The ways in which bytes are written by mistake: as a list, as hexadecimal, as base64 at any offset.
fn spellings(secret: &[u8]) -> Vec<String> {
    let list = format!("{secret:?}");
    let hex = secret.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    });
    let base64 = (0..3).map(|skip| {
        let whole = &secret[skip..skip + (secret.len() - skip) / 3 * 3];
        STANDARD.encode(whole)
    });
    let list = list.trim_matches(['[', ']']).to_owned();
    base64.chain([hex.to_uppercase(), hex, list]).collect()
}

/// The 32 bytes that are the private key in a PKCS #8 of P-256 (RFC 5915 §3).
fn scalar(pkcs8: &[u8]) -> Vec<u8> {
    let mark = [0x02, 0x01, 0x01, 0x04, 0x20];
    let at = pkcs8.windows(5).position(|five| five == mark).unwrap();
    pkcs8[at + 5..at + 37].to_vec()
}

fn has_none_of(told: &str, secrets: &[String]) {
    for secret in secrets {
        assert!(!told.contains(secret), "{secret} was told");
    }
}

async fn page(admin: SocketAddr, path: &'static str) -> String {
    let asked = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(admin).unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        page
    });
    asked.await.unwrap()
}

/// The upkeep of an identity: a token goes out, a key is made.
async fn be_certified(credentials: &Arc<Credentials>, authority: Arc<Authority>) {
    let files = Files::new(&authority.root_pem());
    std::fs::write(files.folder.join("token"), TOKEN).unwrap();
    let signer = Arc::clone(&authority);
    let answer = move |asked: Asked| {
        assert!(asked.authorization.ends_with(TOKEN), "the token was used");
        let mut csr = CertificateSigningRequestParams::from_pem(&asked.csr).unwrap();
        csr.params = leaf_params(WEB);
        let leaf = csr.signed_by(&signer.issuing).unwrap();
        Ok(vec![leaf.pem(), signer.issuing.pem(), signer.root.pem()])
    };
    let ca = Server::certificate_authority(&authority, CA_ID, Arc::new(answer)).await;
    let (bundles, _conversations) = Server::discovery(&authority, CA_ID).await;
    let control = control(Arc::clone(credentials), &files.folder);
    let settings = files.ca(ca.address, bundles.address);
    let mut renewals = credentials.renewals();
    tokio::select! {
        never = Box::pin(maintain(control, &settings)) => match never {},
        certified = within(renewals.wait_for(Option::is_some)) => drop(certified.unwrap()),
    }
}

#[tokio::test]
#[expect(
    clippy::too_many_lines,
    reason = "one story: each step starts where the last one ended"
)]
async fn no_key_and_no_token_is_ever_told() {
    let heard = hear();
    let authority = Arc::new(Authority::new(TRUST_DOMAIN));
    let credentials = Arc::new(Credentials::none(authority.trust_domain.clone()));
    be_certified(&credentials, Arc::clone(&authority)).await;

    // From here on a key that we know.
    let leaf = authority.sign(&leaf_params(WEB));
    let key = scalar(&leaf.key.serialize_der());
    let now = SystemTime::now();
    credentials.set_svid(Arc::new(leaf.svid(
        WEB,
        now,
        now + Duration::from_secs(3600),
    )));
    credentials.set_bundles(Arc::new(authority.bundles()));
    let application = Application::start(|_| ok("fine"));
    let (shape, outbound, inbound) = (Shape::default(), free_address(), free_address());
    let at_server = shape.callee(inbound, application.address);
    let _to = Sidecar::start(&authority, CATALOG, at_server);
    let tls = MeshTls::new(Arc::clone(&credentials), Duration::from_secs(86_400));
    let from = Sidecar::with(&tls, shape.caller(outbound, &[inbound]));
    assert_eq!(Raw::connect(outbound).get("/").status, 200);

    let admin = Arc::new(Admin {
        node: "web-1".to_owned(),
        telemetry: Arc::clone(&from.telemetry),
        live: Arc::clone(&from.live),
        credentials,
        doors: from.doors.clone(),
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let pages = async {
        let pages = [
            page(address, "/config").await,
            page(address, "/metrics").await,
        ];
        pages.concat()
    };
    let pages = tokio::select! {
        () = admin.serve(listener) => panic!("it serves until it is dropped"),
        pages = pages => pages,
    };
    assert!(pages.contains(WEB), "the dump is of this identity");

    let mut secrets = spellings(&key);
    secrets.extend([TOKEN.to_owned(), "PRIVATE KEY".to_owned()]);
    assert!(
        format!("{key:?}").contains(&secrets[5]),
        "it would be found"
    );
    let log = String::from_utf8_lossy(&heard.0.lock().unwrap()).into_owned();
    assert!(
        log.contains("TRACE") && log.contains("DEBUG"),
        "all is heard"
    );
    let access_log = from.logged(1)[0].to_string();
    has_none_of(&log, &secrets);
    has_none_of(&pages, &secrets);
    has_none_of(&access_log, &secrets);
}
