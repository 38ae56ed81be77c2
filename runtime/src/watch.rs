//! Pauses between the attempts of a watch that fails.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt, Stream, StreamExt};
use kube::runtime::watcher::{self, Event};
use tokio::time::{Sleep, sleep};

/// How long to wait after the first failure; each further wait is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// How long to wait at most. An API server that returns is noticed within this time.
const LONGEST_PAUSE: Duration = Duration::from_secs(16);

/// Waits after each failure of a watch before the next attempt: 1 s, doubling up to 16 s, less a random part of up to a half,
/// so that many clients do not return at once.
///
/// Only an object or a complete list counts as success. The library's own backoff also counts the start of a list, and so
/// would retry each second for as long as the API server is away.
pub fn with_pauses<K, S>(watch: S) -> Paused<S>
where
    S: Stream<Item = Result<Event<K>, watcher::Error>>,
{
    Paused {
        watch: Box::pin(watch),
        pause: Pause::default(),
        sleeping: None,
    }
}

/// A watch that pauses after failures.
pub struct Paused<S> {
    watch: Pin<Box<S>>,
    pause: Pause,
    sleeping: Option<Pin<Box<Sleep>>>,
}

impl<K, S> Stream for Paused<S>
where
    S: Stream<Item = Result<Event<K>, watcher::Error>>,
{
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<S::Item>> {
        if let Some(sleeping) = &mut self.sleeping {
            std::task::ready!(sleeping.poll_unpin(context));
            self.sleeping = None;
        }
        let event = std::task::ready!(self.watch.poll_next_unpin(context));
        match &event {
            Some(Err(_)) => {
                let pause = self.pause.next().mul_f64(1.0 - fastrand::f64() / 2.0);
                self.sleeping = Some(Box::pin(sleep(pause)));
            }
            Some(Ok(Event::Init)) | None => {}
            Some(Ok(
                Event::InitApply(_) | Event::InitDone | Event::Apply(_) | Event::Delete(_),
            )) => {
                self.pause = Pause::default();
            }
        }
        Poll::Ready(event)
    }
}

/// The pause after the next failure.
struct Pause(Duration);

impl Default for Pause {
    fn default() -> Self {
        Self(FIRST_PAUSE)
    }
}

impl Pause {
    fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(LONGEST_PAUSE);
        pause
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use k8s_openapi::api::core::v1::Node;
    use tokio::time::Instant;

    use super::*;

    fn failed() -> Result<Event<Node>, watcher::Error> {
        Err(watcher::Error::NoResourceVersion)
    }

    /// The seconds between the events of a watch.
    async fn pauses(events: Vec<Result<Event<Node>, watcher::Error>>) -> Vec<f64> {
        let mut watch = with_pauses(stream::iter(events));
        let mut last = Instant::now();
        let mut pauses = Vec::new();
        while watch.next().await.is_some() {
            pauses.push(last.elapsed().as_secs_f64());
            last = Instant::now();
        }
        pauses
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_that_fails_again_and_again_is_tried_ever_more_rarely() {
        let attempts = (0..8).flat_map(|_| [Ok(Event::Init), failed()]);
        let pauses = pauses(attempts.collect()).await;
        let before_lists: Vec<f64> = pauses.into_iter().step_by(2).skip(1).collect();
        for (pause, longest) in before_lists
            .iter()
            .zip([1.0, 2.0, 4.0, 8.0, 16.0, 16.0, 16.0])
        {
            // Timers have the precision of a millisecond.
            assert!(
                (longest / 2.0..=longest + 0.01).contains(pause),
                "{before_lists:?}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_success_ends_the_pauses() {
        let pauses = pauses(vec![
            failed(),
            failed(),
            failed(),
            Ok(Event::InitDone),
            failed(),
            Ok(Event::InitDone),
        ])
        .await;
        assert!(pauses[3] >= 2.0 && pauses[5] <= 1.01, "{pauses:?}");
    }
}
