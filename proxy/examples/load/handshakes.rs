//! Full mutual TLS handshakes, one connection after another.
//!
//! In TLS 1.3 a client is done before its certificate was looked at, so each connection is kept until the server has closed
//! it in answer to ours: a refusal would have come as an alert in the meantime. Not every server says `close_notify` then.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use clap::Args;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::Fault;
use crate::answers::Tally;
use crate::connect::{Dialer, Tls};

const CLOSED_WITHIN: Duration = Duration::from_secs(10);

#[derive(Args)]
pub struct Options {
    #[arg(long)]
    target: SocketAddr,
    #[arg(long)]
    connections: usize,
    #[arg(long)]
    seconds: f64,
    #[command(flatten)]
    tls: Tls,
}

pub async fn run(options: Options) -> Result<(), Fault> {
    let dialer = options.tls.connector(b"http/1.1")?;
    let dialer = dialer.ok_or("--identity is needed")?;
    let started = Instant::now();
    let until = started + Duration::from_secs_f64(options.seconds);
    let mut callers = JoinSet::new();
    for _ in 0..options.connections {
        let dialer = dialer.clone();
        callers.spawn_local(async move { caller(&dialer, options.target, until).await });
    }
    let (mut tally, mut groups) = (Tally::default(), BTreeSet::new());
    while let Some(done) = callers.join_next().await {
        let (counted, seen) = done?;
        tally.add(counted);
        groups.extend(seen);
    }
    tally.print(started, &groups);
    Ok(())
}

async fn caller(dialer: &Dialer, target: SocketAddr, until: Instant) -> (Tally, BTreeSet<String>) {
    let (mut tally, mut groups) = (Tally::default(), BTreeSet::new());
    while Instant::now() < until {
        let began = Instant::now();
        match tokio::time::timeout(CLOSED_WITHIN, shake(dialer, target)).await {
            Ok(Ok(group)) => {
                tally.right(began.elapsed());
                groups.insert(group);
            }
            Ok(Err(why)) => tally.wrong(why.to_string()),
            Err(_) => tally.wrong("not closed in time".into()),
        }
    }
    (tally, groups)
}

async fn shake(dialer: &Dialer, target: SocketAddr) -> Result<String, Fault> {
    let mut stream = dialer.dial(target).await?;
    let group = stream.get_ref().1.negotiated_key_exchange_group();
    let group = group.map_or_else(|| "none".into(), |group| format!("{:?}", group.name()));
    stream.shutdown().await?;
    match stream.read_to_end(&mut Vec::new()).await {
        Err(error) if error.kind() != ErrorKind::UnexpectedEof => Err(error.into()),
        _ => Ok(group),
    }
}
