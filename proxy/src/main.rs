//! The executable: parse the command line, run the proxy or one of its offline checks. Exit status 0 is success, 1 a
//! check's "no", 2 a mistake in what was given.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use garrison_proxy::authorize::decide;
use garrison_proxy::causes::with_causes;
use garrison_proxy::config::{Config, listing};
use garrison_proxy::http::canonicalize;
use garrison_proxy::proxy;
use garrison_proxy::validate::{self, ValidateError};

/// The garrison sidecar: mutual TLS, authorization and routing from xDS.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run beside a service until SIGTERM, then let requests in flight end.
    Run {
        /// The configuration, a TOML file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Write a JSON line for each setting of a configuration: its value, and whether the file says so.
    Settings {
        /// The configuration, a TOML file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Check a serialized `DiscoveryResponse` on stdin; write a JSON line for each resource that is refused.
    Validate {
        /// Check many, each after a line with its length in bytes; write a JSON line for each.
        #[arg(long)]
        many: bool,
    },
    /// Answer JSON lines of rules and requests with the decisions of the request path.
    Decide,
    /// Answer JSON lines of request heads with their canonical form.
    Canonicalize,
}

fn main() -> ExitCode {
    let outcome: Result<ExitCode, Box<dyn Error>> = match CommandLine::parse().command {
        Command::Run { config } => run(&config).map(|()| ExitCode::SUCCESS),
        Command::Settings { config } => {
            listing::run(&config, io::stdout().lock()).map(|()| ExitCode::SUCCESS)
        }
        Command::Validate { many } => validate(many).map_err(Into::into),
        Command::Decide => decide::run(io::stdin().lock(), io::stdout().lock())
            .map(|()| ExitCode::SUCCESS)
            .map_err(Into::into),
        Command::Canonicalize => canonicalize::run(io::stdin().lock(), io::stdout().lock())
            .map(|()| ExitCode::SUCCESS)
            .map_err(Into::into),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("garrison-proxy: {}", with_causes(&*error));
        ExitCode::from(2)
    })
}

fn validate(many: bool) -> Result<ExitCode, ValidateError> {
    let (input, output) = (io::stdin().lock(), io::stdout().lock());
    let all_good = if many {
        validate::run_many(input, output)?
    } else {
        validate::run(input, output)?
    };
    Ok(ExitCode::from(u8::from(!all_good)))
}

fn run(config: &Path) -> Result<(), Box<dyn Error>> {
    let config = Config::read(config)?;
    // Logs are JSON on stderr; the access log is JSON on stdout.
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_writer(io::stderr)
        .init();
    proxy::run(&config)?;
    Ok(())
}
