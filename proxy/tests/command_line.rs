//! The executable as an operator meets it: exit status, and one message that says what, where and what would be right.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)] // a test may

mod support;

use std::io::Write;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use envoy_types::pb::envoy::service::discovery::v3::DiscoveryResponse;
use envoy_types::util::pack_any;
use prost::Message;
use support::control_plane::Files;
use support::pair::until;
use support::resources::{cluster, whole};
use support::{Authority, TRUST_DOMAIN};

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_garrison-proxy"));
    command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn run(arguments: &[&str], input: &[u8]) -> Output {
    let mut child = command(arguments).spawn().unwrap();
    // It may end before it has read all.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// A mistake of whoever called: status 2, one line.
fn complaint(arguments: &[&str], input: &[u8]) -> String {
    let output = run(arguments, input);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let complaint = text(&output.stderr).trim_end();
    assert!(
        !complaint.contains('\n') && !complaint.contains("panicked"),
        "{complaint}"
    );
    complaint.to_owned()
}

struct Settings {
    files: Files,
    path: PathBuf,
}

impl Settings {
    fn new(admin: &str) -> Self {
        let files = Files::new(&Authority::new(TRUST_DOMAIN).root_pem());
        let path = files.folder.join("proxy.toml");
        let text = format!(
            r#"trust_domain = "bookstore.example"
workers = 1
[node]
id = "catalog-1"
[ca]
address = "127.0.0.1:1"
bundle_address = "127.0.0.1:1"
roots = "roots.pem"
token = "token"
[policy]
address = "127.0.0.1:1"
[outbound]
listen = "127.0.0.1:0"
[admin]
listen = "{admin}"
"#
        );
        std::fs::write(&path, text).unwrap();
        Self { files, path }
    }

    fn arguments(&self) -> [&str; 3] {
        ["run", "--config", self.path.to_str().unwrap()]
    }
}

#[test]
fn version_is_told() {
    let output = run(&["--version"], b"");
    assert!(output.status.success());
    assert_eq!(
        text(&output.stdout),
        format!("garrison-proxy {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn unknown_options_and_commands_are_status_2() {
    assert_eq!(run(&["--wrong"], b"").status.code(), Some(2));
    assert_eq!(run(&["wrong"], b"").status.code(), Some(2));
    assert_eq!(run(&[], b"").status.code(), Some(2));
    assert_eq!(run(&["run"], b"").status.code(), Some(2));
}

#[test]
fn unusable_configuration_is_one_message() {
    let missing = complaint(&["run", "--config", "/nonexistent/proxy.toml"], b"");
    assert!(missing.contains("/nonexistent/proxy.toml"), "{missing}");
    let settings = Settings::new("127.0.0.1:0");
    let wrong = std::fs::read_to_string(&settings.path)
        .unwrap()
        .replace("workers", "wrokers");
    std::fs::write(&settings.path, wrong).unwrap();
    let unknown = complaint(&settings.arguments(), b"");
    assert!(
        unknown.contains("proxy.toml:2: unknown field `wrokers`"),
        "{unknown}"
    );
}

#[test]
fn missing_or_empty_roots_and_a_missing_token_are_one_message() {
    let settings = Settings::new("127.0.0.1:0");
    let file = |name: &str| settings.files.folder.join(name);
    std::fs::remove_file(file("token")).unwrap();
    let message = complaint(&settings.arguments(), b"");
    assert!(message.contains("token: No such file"), "{message}");
    std::fs::create_dir(file("token")).unwrap();
    let message = complaint(&settings.arguments(), b"");
    assert!(message.contains("token: Is a directory"), "{message}");
    std::fs::write(file("roots.pem"), "").unwrap();
    let message = complaint(&settings.arguments(), b"");
    assert!(
        message.contains("roots.pem must have the CA's root certificates"),
        "{message}"
    );
    std::fs::remove_file(file("roots.pem")).unwrap();
    let message = complaint(&settings.arguments(), b"");
    assert!(message.contains("roots.pem: No such file"), "{message}");
}

#[test]
fn port_in_use_is_one_message() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let settings = Settings::new(&address);
    let complaint = complaint(&settings.arguments(), b"");
    assert!(
        complaint.contains("admin.listen") && complaint.contains(&address),
        "{complaint}"
    );
}

#[test]
fn port_of_requests_in_use_is_one_message() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let settings = Settings::new("127.0.0.1:0");
    let text = std::fs::read_to_string(&settings.path).unwrap();
    let outbound = "[outbound]\nlisten = \"127.0.0.1:0\"";
    let text = text.replace(outbound, &format!("[outbound]\nlisten = \"{address}\""));
    std::fs::write(&settings.path, text).unwrap();
    let output = run(&settings.arguments(), b"");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert!(
        complaint.contains(&format!(
            "outbound.listen = {address}; choose a free address"
        )),
        "{complaint}"
    );
}

#[test]
fn proxy_without_a_mesh_waits_and_ends_at_sigterm() {
    let settings = Settings::new("127.0.0.1:0");
    let mut child = command(&settings.arguments()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(700));
    assert!(child.try_wait().unwrap().is_none(), "it keeps trying");
    let id = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &id])
            .status()
            .unwrap()
            .success()
    );
    let started = Instant::now();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(started.elapsed() < Duration::from_secs(5));
    let log = text(&output.stderr);
    assert!(log.lines().all(|line| line.starts_with('{')), "{log}");
    assert!(
        log.contains("svid not renewed") && log.contains("Connection refused"),
        "{log}"
    );
    let token = std::fs::read_to_string(settings.files.folder.join("token")).unwrap();
    assert!(!log.contains(token.trim()), "a token is never logged");
}

/// Of a process: the soft and the hard limit by this name.
fn limits(process: u32, name: &str) -> (String, String) {
    let all = std::fs::read_to_string(format!("/proc/{process}/limits")).unwrap();
    let line = all
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .unwrap();
    let mut words = line.split_whitespace().map(str::to_owned);
    (words.next().unwrap(), words.next().unwrap())
}

#[test]
fn descriptors_are_as_many_as_may_be_and_memory_is_not_dumped() {
    let settings = Settings::new("127.0.0.1:0");
    let narrow = "ulimit -S -n 64; ulimit -S -c $(ulimit -H -c); exec \"$@\"";
    let child = Command::new("sh")
        .args(["-c", narrow, "sh", env!("CARGO_BIN_EXE_garrison-proxy")])
        .args(settings.arguments())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let child = Ended(child);
    until("memory is not dumped", || {
        limits(child.0.id(), "Max core file size") == ("0".to_owned(), "0".to_owned())
    });
    until("descriptors are raised", || {
        let (soft, hard) = limits(child.0.id(), "Max open files");
        soft == hard
    });
}

/// Ends with the test, also where that fails.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn validate_tells_what_is_refused() {
    let mut response = DiscoveryResponse {
        resources: whole(),
        ..DiscoveryResponse::default()
    };
    let output = run(&["validate"], &response.encode_to_vec());
    assert_eq!(
        (output.status.code(), text(&output.stdout)),
        (Some(0), ""),
        "{output:?}"
    );

    let mut bad = cluster("bookstore/orders");
    bad.ignore_health_on_host_removal = true;
    response.resources.push(pack_any(bad));
    let output = run(&["validate"], &response.encode_to_vec());
    assert_eq!(output.status.code(), Some(1));
    let line: serde_json::Value = serde_json::from_str(text(&output.stdout)).unwrap();
    let expected = serde_json::json!({
        "type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
        "name": "bookstore/orders",
        "error": "Cluster.ignore_health_on_host_removal is not supported",
    });
    assert_eq!(line, expected);
}

#[test]
fn validate_answers_many_clients_in_order() {
    let mut response = DiscoveryResponse {
        resources: whole(),
        ..DiscoveryResponse::default()
    };
    let good = response.encode_to_vec();
    response.resources.pop();
    let bad = response.encode_to_vec();
    let framed = |one: &Vec<u8>| [format!("{}\n", one.len()).into_bytes(), one.clone()].concat();
    let ask = |many: &[&Vec<u8>]| {
        let input: Vec<u8> = many.iter().flat_map(|one| framed(one)).collect();
        run(&["validate", "--many"], &input)
    };
    let output = ask(&[&good, &good]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let nothing = "{\"refused\":[]}\n";
    assert_eq!(text(&output.stdout), nothing.repeat(2));
    let output = ask(&[&good, &bad, &good]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let lines: Vec<_> = text(&output.stdout).lines().collect();
    assert_eq!(
        (lines.len(), lines[0], lines[2]),
        (3, nothing.trim(), nothing.trim())
    );
    assert!(lines[1].contains("garrison.commit"), "{lines:?}");
    assert_eq!(text(&ask(&[]).stdout), "");
}

#[test]
fn validate_of_many_bounds_and_checks_what_it_reads() {
    for (input, expected) in [
        (&b"x\n"[..], "client 1: before its resources must be a line"),
        (b"3", "client 1: before its resources must be a line"),
        (b"-1\n", "client 1: before its resources must be a line"),
        (
            b"12345678901234567890\n",
            "client 1: before its resources must be a line",
        ),
        (b"9999999999\n", "over 268435456 bytes"),
        (b"9\nabc", "client 1: standard input ends within"),
        (b"3\nabc", "client 1: no serialized"),
    ] {
        let message = complaint(&["validate", "--many"], input);
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn validate_of_something_else_is_status_2() {
    let message = complaint(&["validate"], b"{\"resources\": []}");
    assert!(message.contains("DiscoveryResponse"), "{message}");
}
