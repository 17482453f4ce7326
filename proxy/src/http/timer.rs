//! Alarms that cost nothing as long as nothing goes wrong.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// One alarm for a connection's whole life, moved only where it must: a deadline that moves on leaves it alone until it
/// goes off.
#[derive(Debug, Default)]
pub struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// Ready once `deadline` has passed.
    pub fn poll_until(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let alarm = self
            .0
            .get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if deadline < alarm.deadline() {
            alarm.as_mut().reset(deadline);
        }
        loop {
            ready!(alarm.as_mut().poll(cx));
            if alarm.deadline() >= deadline {
                return Poll::Ready(());
            }
            alarm.as_mut().reset(deadline);
        }
    }
}

/// When something last moved on a stream, in either direction.
#[derive(Debug, Clone)]
pub struct Activity(Rc<Cell<Instant>>);

impl Activity {
    fn new() -> Self {
        Self(Rc::new(Cell::new(Instant::now())))
    }

    pub fn touch(&self) {
        self.0.set(Instant::now());
    }
}

/// Watches over a stream; costs nothing where there is no limit.
#[derive(Debug)]
pub struct Watch {
    limit: Option<(Duration, Activity)>,
    timer: Timer,
}

impl Watch {
    pub fn new(limit: Option<Duration>) -> Self {
        Self {
            limit: limit.map(|limit| (limit, Activity::new())),
            timer: Timer::default(),
        }
    }

    pub fn activity(&self) -> Option<Activity> {
        self.limit.as_ref().map(|(_, activity)| activity.clone())
    }

    pub fn touch(&self) {
        if let Some((_, activity)) = &self.limit {
            activity.touch();
        }
    }

    /// Ready once nothing has moved for the limit.
    pub fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &self.limit {
            Some((limit, activity)) => self.timer.poll_until(cx, activity.0.get() + *limit),
            None => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn an_alarm_follows_its_deadline_both_ways() {
        let start = Instant::now();
        let mut timer = Timer::default();
        let poll_once = poll_fn(|cx| Poll::Ready(timer.poll_until(cx, start + 10 * S).is_ready()));
        assert!(!poll_once.await);
        poll_fn(|cx| timer.poll_until(cx, start + 2 * S)).await;
        assert_eq!(start.elapsed(), 2 * S);
        poll_fn(|cx| timer.poll_until(cx, start + 5 * S)).await;
        assert_eq!(start.elapsed(), 5 * S);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_is_idle_only_if_nothing_moves() {
        let start = Instant::now();
        let mut watch = Watch::new(Some(2 * S));
        let activity = watch.activity().unwrap();
        tokio::time::sleep(S).await;
        activity.touch();
        poll_fn(|cx| watch.poll_idle(cx)).await;
        assert_eq!(start.elapsed(), 3 * S);
        assert!(Watch::new(None).activity().is_none());
    }
}
