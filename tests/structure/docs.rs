//! Rule: every source file opens with `//!`.

use crate::finding::Finding;
use crate::source::SourceFile;

/// Returns a finding if a file does not start with its documentation.
pub(crate) fn check(file: &SourceFile) -> Option<Finding> {
    if file.source.starts_with("//! ") {
        return None;
    }
    Some(Finding {
        file: file.path.clone(),
        line: 1,
        message: "the file does not open with `//!`; say in one sentence what the module is for"
            .to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_file_that_opens_with_its_documentation_passes() {
        let check =
            |source: &str| check(&SourceFile::parse("a.rs".to_owned(), source.to_owned()).unwrap());
        assert_eq!(check("//! Adds.\nfn a() {}"), None);
        for source in ["", "// Adds.\n", "use a::B;\n", "/// Adds.\nfn a() {}"] {
            assert!(check(source).is_some(), "{source}");
        }
    }
}
