//! Finds out that a peer is gone although its connection looks open: a PING that is not answered.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep, sleep};

const PING_EVERY: Duration = Duration::from_secs(30);
const PONG_WITHIN: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub struct KeepAlive {
    ping: Option<PingPong>,
    alarm: Pin<Box<Sleep>>,
    is_waiting: bool,
}

impl KeepAlive {
    pub fn new(ping: Option<PingPong>) -> Self {
        Self {
            ping,
            alarm: Box::pin(sleep(PING_EVERY)),
            is_waiting: false,
        }
    }

    /// Ready once the peer is taken for dead.
    pub fn poll_dead(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(ping) = &mut self.ping else {
            return Poll::Pending;
        };
        loop {
            if self.is_waiting && ping.poll_pong(cx).is_ready() {
                self.is_waiting = false;
                self.alarm.as_mut().reset(Instant::now() + PING_EVERY);
            }
            ready!(self.alarm.as_mut().poll(cx));
            if self.is_waiting || ping.send_ping(Ping::opaque()).is_err() {
                return Poll::Ready(());
            }
            self.is_waiting = true;
            self.alarm.as_mut().reset(Instant::now() + PONG_WITHIN);
        }
    }
}
