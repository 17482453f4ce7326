//! The load of `make bench` (`tests/bench`): what stands before, behind and around the sidecars that are measured.
//!
//! Each subcommand prints JSON lines. Every answer is compared with what it must be: `wrong` counts those that were not, and
//! a run with any is void.

#![allow(clippy::print_stdout)]

mod answers;
mod closed;
mod connect;
mod decisions;
mod fleet;
mod grpc;
mod handshakes;
mod held;
mod paced;
mod upstream;

use std::error::Error;

use clap::{Parser, Subcommand};

/// What ends a run as a whole; answers that are wrong are counted instead.
type Fault = Box<dyn Error + Send + Sync>;

#[derive(Parser)]
#[command(about)]
enum Command {
    /// Be the application: HTTP/1.1 and HTTP/2 answers of `/…/SIZE`, gRPC messages echoed.
    Upstream(upstream::Options),
    #[command(flatten)]
    Load(Load),
}

#[derive(Subcommand)]
enum Load {
    /// Ask over HTTP/1.1, each connection again as soon as it was answered.
    Closed(closed::Options),
    /// Ask over HTTP/1.1 at a fixed rate, whether or not answers come.
    Paced(paced::Options),
    /// Ask gRPC unary, each stream again as soon as it was answered.
    Grpc(grpc::Options),
    /// Make full mutual TLS handshakes.
    Handshakes(handshakes::Options),
    /// Open many mutual TLS connections, ask once on each, and keep them until stdin ends.
    Held(held::Options),
    /// Be many sidecars of one policy server, until stdin ends.
    Fleet(fleet::Options),
    /// Time decisions of rules that were compiled by the policy server's code.
    Decisions(decisions::Options),
}

fn main() -> Result<(), Fault> {
    match Command::parse() {
        Command::Load(Load::Paced(options)) => paced::run(&options),
        Command::Load(Load::Decisions(options)) => decisions::run(&options),
        other => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            tokio::task::LocalSet::new().block_on(&runtime, on_loop(other))
        }
    }
}

async fn on_loop(command: Command) -> Result<(), Fault> {
    match command {
        Command::Upstream(options) => upstream::run(options).await,
        Command::Load(Load::Closed(options)) => closed::run(options).await,
        Command::Load(Load::Grpc(options)) => grpc::run(options).await,
        Command::Load(Load::Handshakes(options)) => handshakes::run(options).await,
        Command::Load(Load::Held(options)) => held::run(options).await,
        Command::Load(Load::Fleet(options)) => fleet::run(options).await,
        Command::Load(Load::Paced(_) | Load::Decisions(_)) => Ok(()), // these have no loop
    }
}
