//! What a configuration file comes to: each setting, its value, and whether the file says so or it is the default. It
//! is the same reading as the proxy's own (`Config::parse`); `garrison config check` prints it.

use std::error::Error;
use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use super::{Config, read_text};

/// One setting. Secrets are files here, named and never opened.
#[derive(Debug, Serialize, PartialEq, Eq)]
struct Setting {
    /// Its path, such as `ca.svid_seconds`.
    #[serde(rename = "setting")]
    name: String,
    value: Value,
    from: Origin,
}

#[derive(Debug, Clone, Copy, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Origin {
    File,
    Default,
}

/// Write a JSON line for each setting of the file at `path`.
pub fn run(path: &Path, mut out: impl Write) -> Result<(), Box<dyn Error>> {
    for setting in settings(&read_text(path)?, path)? {
        serde_json::to_writer(&mut out, &setting).map_err(io::Error::from)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

fn settings(text: &str, path: &Path) -> Result<Vec<Setting>, Box<dyn Error>> {
    let effective = serde_json::to_value(Config::parse(text, path)?)?;
    let given: toml::Table = toml::from_str(text)?;
    let mut found = Vec::new();
    collect("", effective, Some(&toml::Value::Table(given)), &mut found);
    Ok(found)
}

fn collect(name: &str, value: Value, given: Option<&toml::Value>, found: &mut Vec<Setting>) {
    let Value::Object(table) = value else {
        let from = given.map_or(Origin::Default, |_| Origin::File);
        return found.push(Setting {
            name: name.to_owned(),
            value,
            from,
        });
    };
    for (key, inner) in table {
        let dot = if name.is_empty() { "" } else { "." };
        let below = given.and_then(|given| given.get(&key));
        collect(&format!("{name}{dot}{key}"), inner, below, found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
trust_domain = "bookstore.example"
workers = 3
access_log = "access.log"
[node]
id = "catalog-1"
[ca]
address = "127.0.0.1:15012"
bundle_address = "127.0.0.1:15013"
roots = "roots.pem"
token = "/run/token"
[policy]
address = "127.0.0.1:15010"
[outbound]
listen = "127.0.10.1:15001"
[admin]
listen = "127.0.10.1:15000"
"#;

    fn listed(name: &str) -> (Value, Origin) {
        let all = settings(FILE, Path::new("/etc/garrison/proxy.toml")).unwrap();
        let mut found = all.into_iter().filter(|each| each.name == name);
        let setting = found.next().unwrap();
        assert_eq!(found.next(), None, "{name} is listed twice");
        (setting.value, setting.from)
    }

    #[test]
    fn what_the_file_says_is_told_as_it_is_used() {
        assert_eq!(listed("workers"), (3.into(), Origin::File));
        assert_eq!(listed("node.id"), ("catalog-1".into(), Origin::File));
        assert_eq!(
            listed("ca.roots"),
            ("/etc/garrison/roots.pem".into(), Origin::File)
        );
        assert_eq!(
            listed("access_log"),
            ("/etc/garrison/access.log".into(), Origin::File)
        );
        assert_eq!(
            listed("outbound.listen"),
            ("127.0.10.1:15001".into(), Origin::File)
        );
    }

    #[test]
    fn what_it_leaves_out_is_told_too() {
        assert_eq!(listed("drain_seconds"), (20.into(), Origin::Default));
        assert_eq!(listed("ca.svid_seconds"), (21_600.into(), Origin::Default));
        assert_eq!(listed("inbound"), (Value::Null, Origin::Default));
    }

    #[test]
    fn a_file_that_run_would_refuse_is_refused() {
        let wrong = FILE.replace("workers", "wrokers");
        let refusal = settings(&wrong, Path::new("proxy.toml")).unwrap_err();
        assert!(refusal.to_string().contains("`wrokers`"), "{refusal}");
    }
}
