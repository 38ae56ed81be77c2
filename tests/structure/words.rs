//! Counts words that the style asks to avoid.

/// The words, in lower case.
pub(crate) const WORDS: [&str; 6] = ["told", "said", "nobody", "who", "whoever", "mourn"];

/// How often each of [`WORDS`] occurs.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts([usize; WORDS.len()]);

impl Counts {
    /// Counts the whole words of a text, in upper and lower case.
    pub(crate) fn add(&mut self, text: &str) {
        for word in text.split(|it: char| !it.is_alphanumeric() && it != '_') {
            for (listed, count) in WORDS.iter().zip(&mut self.0) {
                *count += usize::from(listed.eq_ignore_ascii_case(word));
            }
        }
    }

    /// Adds other counts.
    pub(crate) fn add_all(&mut self, other: &Self) {
        for (count, more) in self.0.iter_mut().zip(other.0) {
            *count += more;
        }
    }

    /// Returns the counts in the order of [`WORDS`].
    pub(crate) fn values(&self) -> Vec<usize> {
        self.0.to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_words_count_in_upper_and_lower_case() {
        let mut counts = Counts::default();
        counts.add("Who is told what he's Told; the whole of it, who_else, foretold, said-so");
        assert_eq!(counts.values(), [2, 1, 0, 1, 0, 0]);
    }
}
