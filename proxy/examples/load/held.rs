//! Many mutual TLS connections that have each been used once, and stay open.

use std::io::Read;

use clap::Args;
use serde_json::json;

use crate::Fault;
use crate::answers::Question;
use crate::closed::ask;
use crate::connect::{Aim, Tls};

#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    aim: Aim,
    #[command(flatten)]
    tls: Tls,
}

pub async fn run(options: Options) -> Result<(), Fault> {
    let question = Question::new(&options.aim.host, &options.aim.path)?;
    let dialer = options.tls.connector(b"http/1.1")?;
    let dialer = dialer.ok_or("--identity is needed")?;
    let mut buffer = question.buffer();
    let mut held = Vec::new();
    for _ in 0..options.aim.connections {
        let mut stream = dialer.dial(options.aim.target).await?;
        ask(&mut stream, &question, &mut buffer).await?;
        held.push(stream);
    }
    println!("{}", json!({ "held": held.len() }));
    until_stdin_ends().await?;
    // Whoever closed one in the meantime has not held it: ask on each again.
    for stream in &mut held {
        ask(stream, &question, &mut buffer).await?;
    }
    println!("{}", json!({ "right": held.len() }));
    Ok(())
}

async fn until_stdin_ends() -> Result<(), Fault> {
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    Ok(())
}
