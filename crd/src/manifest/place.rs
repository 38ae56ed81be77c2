//! Where a document is in a file.

use super::separator::Document;

/// The file that the rejections of its documents name.
pub(super) struct SourceFile<'a> {
    /// Its name.
    pub(super) origin: &'a str,
    /// Whether it holds several documents.
    pub(super) has_several: bool,
}

impl SourceFile<'_> {
    /// Returns the text that names a document of the file and one of its lines.
    pub(super) fn place(&self, document: &Document<'_>, line: Option<usize>) -> String {
        let mut place = self.origin.to_owned();
        if self.has_several {
            place.push_str(&format!(", document {}", document.number));
        }
        if let Some(line) = line {
            place.push_str(&format!(", line {}", document.first_line + line - 1));
        }
        place
    }
}
