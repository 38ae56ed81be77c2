//! Runs a future on a thread of its own, which goes on while every other thread is busy or blocked.

use std::{io, thread};

use tokio::runtime::Builder;

/// Runs a future on a thread of its own until it ends, or the program does. The receiver gets the future's result, and an
/// error if the future panicked.
///
/// # Errors
/// When the thread or its runtime cannot be started.
pub fn spawn<T: Send + 'static>(
    name: &str,
    future: impl Future<Output = T> + Send + 'static,
) -> io::Result<tokio::sync::oneshot::Receiver<T>> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let (done, result) = tokio::sync::oneshot::channel();
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || drop(done.send(runtime.block_on(future))))?;
    Ok(result)
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use super::*;

    #[tokio::test]
    async fn the_future_progresses_while_the_callers_thread_is_blocked() {
        let (ticks, received) = mpsc::channel();
        let result = spawn("ticks", async move {
            for tick in 0..3 {
                tokio::time::sleep(Duration::from_millis(1)).await;
                ticks.send(tick).unwrap();
            }
            "done"
        });
        // This blocks the only thread of the test's runtime.
        assert_eq!(received.iter().collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(result.unwrap().await, Ok("done"));
    }
}
