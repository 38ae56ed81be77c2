//! Cuts a file into its YAML documents.
//!
//! The YAML parser does not do this, so that one invalid document does not make the rest of the file unreadable. A
//! line of `---`, alone or followed by white space, separates documents, even inside of quotes or a block scalar
//! (YAML 1.2, 9.1.2).

/// A document of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Document<'a> {
    /// The text, with its own separator in front.
    pub(super) text: &'a str,
    /// The number of the document, from 1. Empty documents do not count.
    pub(super) number: usize,
    /// The line of the file on which the text starts, from 1.
    pub(super) first_line: usize,
}

/// Returns the documents that are not empty, in order.
pub(super) fn documents(text: &str) -> Vec<Document<'_>> {
    let mut documents = Vec::new();
    let mut first_line = 1;
    for text in pieces(text) {
        if !is_blank(text) {
            documents.push(Document {
                text,
                number: documents.len() + 1,
                first_line,
            });
        }
        first_line += text.bytes().filter(|byte| *byte == b'\n').count();
    }
    documents
}

/// Cuts the text before each separator.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let cuts = text.match_indices("\n---").map(|(at, _)| at + 1);
    let cuts = cuts.filter(|at| is_separator(text.get(*at..).unwrap_or_default()));
    let mut start = 0;
    cuts.chain([text.len()]).map(move |end| {
        let piece = text.get(start..end).unwrap_or_default();
        start = end;
        piece
    })
}

fn is_separator(line: &str) -> bool {
    line.strip_prefix("---")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

fn is_blank(piece: &str) -> bool {
    let piece = piece.strip_prefix('\u{feff}').unwrap_or(piece);
    let piece = if is_separator(piece) {
        piece.trim_start_matches('-')
    } else {
        piece
    };
    piece
        .lines()
        .map(str::trim)
        .all(|line| line.is_empty() || line.starts_with('#') || line == "...")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_document_counts_in_lines_but_not_in_numbers() {
        let text = "---\n# none\n---\na: 1\n--- # two\nb: |\n  ---\n  c\n---\n\n---\r\nd: 1\n---";
        let found: Vec<_> = documents(text)
            .iter()
            .map(|d| (d.number, d.first_line, d.text.trim_end()))
            .collect();
        let expected = [
            (1, 3, "---\na: 1"),
            (2, 5, "--- # two\nb: |\n  ---\n  c"),
            (3, 11, "---\r\nd: 1"),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn four_dashes_separate_nothing() {
        assert_eq!(documents("a: 1\n----\nb: 2\n---c\n").len(), 1);
    }
}
