//! Limits how much one event writes to the log.

/// The most lines that one event writes. The rest is counted.
pub(crate) const MOST_LINES: usize = 50;

/// Logs each of the items, as a line, up to a limit; then how many were left out.
pub(crate) fn log_limited<T>(items: &[T], log: impl Fn(&T), log_rest: impl FnOnce(usize)) {
    items.iter().take(MOST_LINES).for_each(log);
    let more = items.len().saturating_sub(MOST_LINES);
    if more > 0 {
        log_rest(more);
    }
}
