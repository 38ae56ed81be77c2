//! Rule: a file of a library or program has at most 500 lines of code before its tests. Clippy counts those of functions.

use crate::finding::Finding;
use crate::source::SourceFile;
use crate::tree::Tree;

/// The most lines of code of a file, without its tests.
const FILE_LINES: usize = 500;
/// The lines of code that a file has as a rule.
const USUAL_FILE_LINES: usize = 300;

/// Returns a finding for each file of a library or program that is too long.
pub(crate) fn check(files: &[SourceFile], trees: &[Tree]) -> Vec<Finding> {
    shipped(files, trees).filter_map(check_length).collect()
}

/// Returns how many files of libraries and programs are longer than usual.
pub(crate) fn summary(files: &[SourceFile], trees: &[Tree]) -> String {
    let long = shipped(files, trees)
        .filter(|file| file.lines_of_code() > USUAL_FILE_LINES)
        .count();
    format!("{long} files have more than {USUAL_FILE_LINES} lines of code without tests")
}

fn shipped<'a>(files: &'a [SourceFile], trees: &'a [Tree]) -> impl Iterator<Item = &'a SourceFile> {
    let is_shipped = |file: &&SourceFile| trees.iter().any(|tree| tree.ships(file));
    files.iter().filter(is_shipped)
}

fn check_length(file: &SourceFile) -> Option<Finding> {
    let lines = file.lines_of_code();
    (lines > FILE_LINES).then(|| Finding {
        file: file.path.clone(),
        line: 1,
        message: format!(
            "the file has {lines} lines of code without tests, at most {FILE_LINES} are allowed; divide the module"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mk_file(source: &str) -> SourceFile {
        SourceFile::parse("a.rs".to_owned(), source.to_owned()).unwrap()
    }

    #[test]
    fn a_long_file_is_reported_and_its_tests_do_not_count() {
        let code = "fn b() {}\n".repeat(500);
        let tests = format!("#[cfg(test)]\nmod tests {{\n{code}}}\n");
        assert_eq!(check_length(&mk_file(&format!("{code}{tests}"))), None);
        assert!(check_length(&mk_file(&format!("{code}fn c() {{}}\n{tests}"))).is_some());
    }

    #[test]
    fn blank_lines_and_comments_do_not_count() {
        let source = "//! Doc.\n\n/// Doc.\nfn a() { // why\n    /* one\n    two */ b();\n    c(\"one\ntwo\");\n}\n";
        assert_eq!(mk_file(source).lines_of_code(), 5);
    }
}
