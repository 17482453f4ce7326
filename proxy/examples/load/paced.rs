//! Open loop over HTTP/1.1: requests are due at a fixed rate, and their time counts from when they were due.
//!
//! So an answer that is late makes those behind it late too, as it would be for people (no coordinated omission). A thread a
//! connection: the kernel's timer wakes a thread within some 60 us, an event loop's would within 1 ms.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;

use crate::Fault;
use crate::answers::{Question, Tally};
use crate::connect::Aim;

const ANSWER_WITHIN: Duration = Duration::from_secs(10);

#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    aim: Aim,
    #[arg(long)]
    seconds: f64,
    /// Requests a second, of all connections together.
    #[arg(long)]
    rate: f64,
}

pub fn run(options: &Options) -> Result<(), Fault> {
    let question = Question::new(&options.aim.host, &options.aim.path)?;
    let next = AtomicU32::new(0);
    let started = Instant::now();
    let mut tally = Tally::default();
    thread::scope(|scope| {
        let callers: Vec<_> = (0..options.aim.connections)
            .map(|_| scope.spawn(|| caller(options, &question, &next, started)))
            .collect();
        for caller in callers {
            match caller.join() {
                Ok(done) => tally.add(done),
                Err(_) => tally.wrong("a caller panicked".into()),
            }
        }
    });
    tally.print(started, &());
    Ok(())
}

fn caller(options: &Options, question: &Question, next: &AtomicU32, started: Instant) -> Tally {
    let mut tally = Tally::default();
    if let Err(why) = keep_asking(options, question, next, started, &mut tally) {
        tally.wrong(why.to_string());
    }
    tally
}

fn keep_asking(
    options: &Options,
    question: &Question,
    next: &AtomicU32,
    started: Instant,
    tally: &mut Tally,
) -> Result<(), Fault> {
    let mut stream = TcpStream::connect(options.aim.target)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    let mut buffer = question.buffer();
    loop {
        let turn = next.fetch_add(1, Ordering::Relaxed);
        let after = f64::from(turn) / options.rate;
        if after >= options.seconds {
            return Ok(());
        }
        let due = started + Duration::from_secs_f64(after);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        ask(&mut stream, question, &mut buffer)?;
        tally.right(due.elapsed());
    }
}

fn ask(stream: &mut TcpStream, question: &Question, buffer: &mut [u8]) -> Result<(), Fault> {
    stream.write_all(&question.bytes)?;
    let mut filled = 0;
    loop {
        match stream.read(buffer.get_mut(filled..).unwrap_or_default())? {
            0 => return Err("the connection ended before the answer".into()),
            read => filled += read,
        }
        if question.is_answered_by(buffer.get(..filled).unwrap_or_default())? {
            return Ok(());
        }
    }
}
