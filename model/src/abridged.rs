//! Lists in messages: as much as fits, and how many more there are.

/// Joins texts. If the line would be longer than `longest` bytes, the last ones are left out and counted: `a, b and 12 more`. A
/// first text that is too long by itself is cut.
#[must_use]
pub fn abridged<T: AsRef<str>>(texts: &[T], separator: &str, longest: usize) -> String {
    const LONGEST_COUNT: usize = " and 18446744073709551615 more".len();
    let mut line = String::new();
    let mut end = 0;
    let mut shown = 0;
    for text in texts {
        if !line.is_empty() {
            line.push_str(separator);
        }
        line.push_str(text.as_ref());
        if line.len() + LONGEST_COUNT <= longest {
            end = line.len();
            shown += 1;
        } else if line.len() > longest {
            break;
        }
    }
    if line.len() <= longest {
        return line;
    }
    if shown == 0 {
        shown = 1;
        let room = longest.saturating_sub(LONGEST_COUNT + "...".len());
        line.truncate(line.floor_char_boundary(room));
        line.push_str("...");
    } else {
        line.truncate(end);
    }
    match texts.len().saturating_sub(shown) {
        0 => line,
        more => format!("{line} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_counted() {
        assert_eq!(abridged::<&str>(&[], ", ", 9), "");
        assert_eq!(abridged(&["a", "b"], ", ", 4), "a, b");
        let names: Vec<String> = (0..5000)
            .map(|number| format!("node-{number:04}"))
            .collect();
        let line = abridged(&names, ",", 64);
        assert_eq!(line, "node-0000,node-0001,node-0002 and 4997 more");
        for longest in 40..400 {
            assert!(abridged(&names, "; ", longest).len() <= longest);
        }
    }

    #[test]
    fn a_text_that_is_too_long_by_itself_is_cut_at_a_character() {
        let long = "ä".repeat(100);
        let line = abridged(&[long.as_str(), "b", "c"], "; ", 60);
        assert!(
            line.starts_with("ää") && line.ends_with("... and 2 more"),
            "{line}"
        );
        assert!(abridged(&[long], "; ", 60).ends_with("ä..."));
    }
}
