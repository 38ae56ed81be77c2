//! Limits how much the log says about one event, and how often about one fault.

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

/// A fault that repeats, such as a read that fails at each retry: it is logged when it begins, when its text changes, and when
/// it is over.
#[derive(Debug, Default)]
pub(crate) struct OngoingFault(Option<String>);

impl OngoingFault {
    /// Returns whether the fault is new, and remembers it.
    pub(crate) fn begins(&mut self, text: &str) -> bool {
        let is_new = self.0.as_deref() != Some(text);
        if is_new {
            self.0 = Some(text.to_owned());
        }
        is_new
    }

    /// Returns whether there was a fault until now, and forgets it.
    pub(crate) fn ends(&mut self) -> bool {
        self.0.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_news_once_and_so_is_its_end() {
        let mut fault = OngoingFault::default();
        assert!(!fault.ends());
        assert_eq!(
            ["a", "a", "b"].map(|text| fault.begins(text)),
            [true, false, true]
        );
        assert_eq!([fault.ends(), fault.ends()], [true, false]);
        assert!(fault.begins("b"));
    }
}
