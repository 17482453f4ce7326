//! The proxy's configuration file: TOML, read once at start. Every key is known or the file is refused, each value is
//! parsed into the type that is used, and paths are relative to the file (`docs/seams.md`).

pub mod listing;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

use crate::identity::spiffe_id::TrustDomain;
use crate::telemetry::LogTarget;

/// All that a proxy is told by its own operator; the rest comes from the policy server.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The trust domain of this proxy's own identity, of the CA's and of the policy server's.
    pub trust_domain: TrustDomain,
    /// Threads on the request path; default: one a core.
    #[serde(default = "one_per_core")]
    pub workers: NonZeroUsize,
    /// How long requests in flight may take to end after SIGTERM.
    #[serde(
        default = "twenty_seconds",
        rename = "drain_seconds",
        deserialize_with = "seconds",
        serialize_with = "as_seconds"
    )]
    pub drain: Duration,
    /// `stdout` (the default), `off`, or a file to append to.
    #[serde(
        default = "to_stdout",
        deserialize_with = "log_target",
        serialize_with = "as_written"
    )]
    pub access_log: LogTarget,
    pub node: Node,
    pub ca: Ca,
    pub policy: Policy,
    pub inbound: Option<Inbound>,
    pub outbound: Option<Outbound>,
    pub admin: Admin,
}

/// Names this instance in status and logs; proves nothing.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    pub id: String,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Ca {
    /// Where `CreateCertificate` is served.
    pub address: SocketAddr,
    /// Where trust bundles are streamed.
    pub bundle_address: SocketAddr,
    /// PEM file of the roots that pin the CA until the first bundle arrived.
    pub roots: PathBuf,
    /// File of the bearer token, read afresh at each request.
    pub token: PathBuf,
    /// The life asked for; the CA may give less.
    #[serde(
        default = "six_hours",
        rename = "svid_seconds",
        deserialize_with = "seconds",
        serialize_with = "as_seconds"
    )]
    pub svid_lifetime: Duration,
    /// An SVID of a peer that lives longer than this is refused.
    #[serde(
        default = "twenty_five_hours",
        rename = "max_peer_svid_seconds",
        deserialize_with = "seconds",
        serialize_with = "as_seconds"
    )]
    pub max_peer_svid_lifetime: Duration,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    pub address: SocketAddr,
}

/// Where mutual TLS from the mesh is taken, and where it goes.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Inbound {
    pub listen: SocketAddr,
    /// The application beside the proxy.
    pub application: SocketAddr,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Outbound {
    pub listen: SocketAddr,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// Loopback only: it has no authentication.
    pub listen: SocketAddr,
}

/// Why a configuration file cannot be used. The text says what, where, and what would be right.
#[derive(Debug, Error)]
pub enum ConfigError {
    #[error("cannot read configuration {path}; name a readable file with --config", path = path.display())]
    Unreadable {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{path}:{line}: {message}", path = path.display())]
    Malformed {
        path: PathBuf,
        /// From 1.
        line: usize,
        message: String,
    },
    #[error("{path}: {field}: {message}", path = path.display())]
    Unusable {
        path: PathBuf,
        field: &'static str,
        message: &'static str,
    },
}

impl Config {
    /// Read and check a file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        Self::parse(&read_text(path)?, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let mut config: Self = toml::from_str(text).map_err(|error| ConfigError::Malformed {
            path: path.to_owned(),
            line: error.span().map_or(1, |span| line_of(text, span.start)),
            message: error.message().trim().replace('\n', "; "),
        })?;
        if let Some((field, message)) = config.fault() {
            return Err(ConfigError::Unusable {
                path: path.to_owned(),
                field,
                message,
            });
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        config.ca.roots = folder.join(&config.ca.roots);
        config.ca.token = folder.join(&config.ca.token);
        if let LogTarget::File(file) = &mut config.access_log {
            *file = folder.join(&*file);
        }
        Ok(config)
    }

    /// What no type above can say.
    fn fault(&self) -> Option<(&'static str, &'static str)> {
        if !self.admin.listen.ip().is_loopback() {
            return Some((
                "admin.listen",
                "must be a loopback address: it has no authentication",
            ));
        }
        if self.inbound.is_none() && self.outbound.is_none() {
            return Some((
                "inbound",
                "give [inbound] or [outbound] or both: there is nothing to do",
            ));
        }
        if self.node.id.is_empty() || self.node.id.len() > 256 {
            return Some(("node.id", "must have 1 to 256 bytes"));
        }
        if self.ca.svid_lifetime.is_zero() {
            return Some(("ca.svid_seconds", "must be more than 0"));
        }
        None
    }
}

fn read_text(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
        path: path.to_owned(),
        source,
    })
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes()
        .take(offset)
        .filter(|byte| *byte == b'\n')
        .count()
        + 1
}

fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    /// Ten years: more is a mistake, and would overflow arithmetic on instants.
    const MOST: u64 = 315_360_000;
    let value = u64::deserialize(deserializer)?;
    if value > MOST {
        return Err(de::Error::custom(format!(
            "{value} seconds is over the limit of {MOST}"
        )));
    }
    Ok(Duration::from_secs(value))
}

fn log_target<'de, D: Deserializer<'de>>(deserializer: D) -> Result<LogTarget, D::Error> {
    match String::deserialize(deserializer)?.as_str() {
        "" => Err(de::Error::custom("expected stdout, off or a file")),
        "stdout" => Ok(LogTarget::Stdout),
        "off" => Ok(LogTarget::Off),
        file => Ok(LogTarget::File(file.into())),
    }
}

// The same way back, for `listing`.

fn as_seconds<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(value.as_secs())
}

fn as_written<S: Serializer>(target: &LogTarget, serializer: S) -> Result<S::Ok, S::Error> {
    match target {
        LogTarget::Stdout => serializer.serialize_str("stdout"),
        LogTarget::Off => serializer.serialize_str("off"),
        LogTarget::File(file) => file.serialize(serializer),
    }
}

fn to_stdout() -> LogTarget {
    LogTarget::Stdout
}

fn one_per_core() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

fn twenty_seconds() -> Duration {
    Duration::from_secs(20)
}

fn six_hours() -> Duration {
    Duration::from_secs(6 * 3600)
}

/// The longest that a CA of garrison's gives, and room for its backdating.
fn twenty_five_hours() -> Duration {
    Duration::from_secs(25 * 3600)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"
trust_domain = "bookstore.example"
workers = 1
drain_seconds = 20

[node]
id = "catalog-1"

[ca]
address = "127.0.0.1:15012"
bundle_address = "127.0.0.1:15013"
roots = "roots.pem"
token = "/run/token"
svid_seconds = 21600

[policy]
address = "127.0.0.1:15010"

[inbound]
listen = "127.0.10.1:15006"
application = "127.0.10.1:8080"

[outbound]
listen = "127.0.10.1:15001"

[admin]
listen = "127.0.10.1:15000"
"#;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(text, Path::new("/etc/garrison/proxy.toml"))
    }

    fn refusal(from: &str, to: &str) -> String {
        assert!(WHOLE.contains(from));
        parse(&WHOLE.replace(from, to)).unwrap_err().to_string()
    }

    #[test]
    fn whole_file_is_read() {
        let config = parse(WHOLE).unwrap();
        assert_eq!(config.trust_domain.as_str(), "bookstore.example");
        assert_eq!(config.drain, Duration::from_secs(20));
        assert_eq!(config.ca.roots, Path::new("/etc/garrison/roots.pem"));
        assert_eq!(config.ca.token, Path::new("/run/token"));
        assert_eq!(
            config.ca.max_peer_svid_lifetime,
            Duration::from_secs(90_000)
        );
    }

    #[test]
    fn access_log_goes_where_it_is_said() {
        let target = |line: &str| {
            let text = WHOLE.replace("workers = 1", line);
            parse(&text).map(|config| config.access_log)
        };
        assert_eq!(target("workers = 1").unwrap(), LogTarget::Stdout);
        assert_eq!(target("access_log = \"off\"").unwrap(), LogTarget::Off);
        let file = LogTarget::File("/etc/garrison/access.log".into());
        assert_eq!(target("access_log = \"access.log\"").unwrap(), file);
        let refused = target("access_log = \"\"").unwrap_err().to_string();
        assert!(
            refused.contains(":3: expected stdout, off or a file"),
            "{refused}"
        );
    }

    #[test]
    fn unknown_key_is_named_with_its_line() {
        let text = refusal("workers = 1", "wrokers = 1");
        assert!(
            text.starts_with("/etc/garrison/proxy.toml:3: unknown field `wrokers`"),
            "{text}"
        );
    }

    #[test]
    fn wrong_values_are_refused() {
        assert!(refusal("127.0.0.1:15012", "ca.example").contains(":10: "));
        assert!(refusal("\"bookstore.example\"", "\"Bookstore\"").contains(":2: "));
        assert!(refusal("workers = 1", "workers = 0").contains(":3: "));
        assert!(refusal("= 21600", "= 99999999999").contains("over the limit"));
        assert!(refusal("= 21600", "= 0").contains("ca.svid_seconds"));
        assert!(refusal("127.0.10.1:15000", "10.0.0.1:15000").contains("admin.listen"));
    }

    #[test]
    fn proxy_with_nothing_to_do_is_refused() {
        let start = WHOLE.find("[inbound]").unwrap();
        let end = WHOLE.find("[admin]").unwrap();
        let mut text = WHOLE.to_owned();
        text.replace_range(start..end, "");
        assert!(
            parse(&text)
                .unwrap_err()
                .to_string()
                .contains("[inbound] or [outbound]")
        );
    }
}
