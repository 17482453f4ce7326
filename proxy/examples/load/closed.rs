//! Closed loop over HTTP/1.1: each connection asks again as soon as it was answered.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::Args;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::Fault;
use crate::answers::{Question, Tally};
use crate::connect::{Aim, tcp};

const ANSWER_WITHIN: Duration = Duration::from_secs(10);

#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    aim: Aim,
    #[arg(long)]
    seconds: f64,
}

pub async fn run(options: Options) -> Result<(), Fault> {
    let question = Rc::new(Question::new(&options.aim.host, &options.aim.path)?);
    let started = Instant::now();
    let until = started + Duration::from_secs_f64(options.seconds);
    let mut callers = JoinSet::new();
    for _ in 0..options.aim.connections {
        let question = Rc::clone(&question);
        callers.spawn_local(async move { caller(&question, options.aim.target, until).await });
    }
    let mut tally = Tally::default();
    while let Some(done) = callers.join_next().await {
        tally.add(done?);
    }
    tally.print(started, &());
    Ok(())
}

async fn caller(question: &Question, target: SocketAddr, until: Instant) -> Tally {
    let mut tally = Tally::default();
    let mut stream = match tcp(target).await {
        Ok(stream) => stream,
        Err(error) => {
            tally.wrong(error.to_string());
            return tally;
        }
    };
    let mut buffer = question.buffer();
    while Instant::now() < until {
        let asked = Instant::now();
        let answer = ask(&mut stream, question, &mut buffer);
        match tokio::time::timeout(ANSWER_WITHIN, answer).await {
            Ok(Ok(())) => tally.right(asked.elapsed()),
            Ok(Err(why)) => {
                tally.wrong(why);
                return tally;
            }
            Err(_) => {
                tally.wrong("no answer in time".into());
                return tally;
            }
        }
    }
    tally
}

/// One request and its whole answer.
pub async fn ask(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    question: &Question,
    buffer: &mut [u8],
) -> Result<(), String> {
    let sent = stream.write_all(&question.bytes).await;
    sent.map_err(|error| error.to_string())?;
    let mut filled = 0;
    loop {
        let room = buffer.get_mut(filled..).unwrap_or_default();
        let read = stream.read(room).await;
        match read.map_err(|error| error.to_string())? {
            0 => return Err("the connection ended before the answer".into()),
            read => filled += read,
        }
        if question.is_answered_by(buffer.get(..filled).unwrap_or_default())? {
            return Ok(());
        }
    }
}
