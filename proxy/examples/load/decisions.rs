//! What a decision costs, of rules that the policy server's code compiled from policy lines.
//!
//! Time is this thread's on the processor, which other processes do not change much.

use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use envoy_types::pb::envoy::config::rbac::v3::Rbac;
use garrison_proxy::authorize::{Authorization, Principal};
use garrison_proxy::http::canonical::CanonicalRequest;
use http::{HeaderMap, Method};
use prost::Message;
use serde::Deserialize;
use serde_json::json;

use crate::Fault;

#[derive(Args)]
pub struct Options {
    /// A serialized `envoy.config.rbac.v3.RBAC`.
    #[arg(long)]
    deny: PathBuf,
    #[arg(long)]
    allow: PathBuf,
    /// JSON lines of `{"method", "path"}`.
    #[arg(long)]
    requests: PathBuf,
    #[arg(long)]
    host: String,
    /// The SPIFFE ID that asks.
    #[arg(long)]
    principal: String,
    /// Seconds on the processor.
    #[arg(long)]
    seconds: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    method: String,
    path: String,
}

pub fn run(options: &Options) -> Result<(), Fault> {
    let before = on_processor()?;
    let rules = Authorization::compile(&rbac(&options.deny)?, &rbac(&options.allow)?)?;
    let compile = on_processor()?.saturating_sub(before);
    let requests = fs::read_to_string(&options.requests)?;
    let requests = requests
        .lines()
        .map(|line| request(line, &options.host))
        .collect::<Result<Vec<_>, _>>()?;
    let resolved = rules.resolve(&Principal::Spiffe(options.principal.as_str().into()));
    let verdicts: Vec<bool> = requests
        .iter()
        .map(|request| resolved.decide(request).allowed)
        .collect();
    let wanted = Duration::from_secs_f64(options.seconds);
    let (before, mut rounds) = (on_processor()?, 0_u32);
    let mut took = Duration::ZERO;
    while took < wanted {
        for request in &requests {
            black_box(resolved.decide(black_box(request)));
        }
        rounds += 1;
        took = on_processor()?.saturating_sub(before);
    }
    let decisions = f64::from(rounds) * f64::from(u32::try_from(requests.len())?);
    let line = json!({
        "compile_ms": compile.as_secs_f64() * 1e3,
        "us": took.as_secs_f64() * 1e6 / decisions,
        "decisions": decisions,
        "allowed": verdicts,
    });
    println!("{line}");
    Ok(())
}

fn rbac(file: &Path) -> Result<Rbac, Fault> {
    Ok(Rbac::decode(fs::read(file)?.as_slice())?)
}

fn request(line: &str, host: &str) -> Result<CanonicalRequest, Fault> {
    let line: Line = serde_json::from_str(line)?;
    Ok(CanonicalRequest {
        method: line.method.parse::<Method>()?,
        host: host.into(),
        port: None,
        path: Arc::<str>::from(line.path).as_ref().into(),
        query: None,
        headers: HeaderMap::new(),
    })
}

/// The first number of Linux' `schedstat` is nanoseconds.
fn on_processor() -> Result<Duration, Fault> {
    let stat = fs::read_to_string("/proc/thread-self/schedstat")?;
    let first = stat.split(' ').next().unwrap_or_default();
    Ok(Duration::from_nanos(first.parse()?))
}
