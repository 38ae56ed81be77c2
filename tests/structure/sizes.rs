//! Rule: functions have at most 60 lines, files at most 500 before their tests.

use std::ops::Range;

use syn::Attribute;
use syn::visit::{self, Visit};

use crate::attribute;
use crate::finding::Finding;
use crate::source::SourceFile;
use crate::tree::Tree;

/// The most lines of a function's body.
pub(crate) const FUNCTION_LINES: usize = 60;
/// The most lines of code of a file, without its tests.
const FILE_LINES: usize = 500;
/// The lines of code that a file has as a rule.
pub(crate) const USUAL_FILE_LINES: usize = 300;

/// A function and its size.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    /// The name.
    pub(crate) name: String,
    /// The line of the name.
    pub(crate) line: usize,
    /// The lines of code of the body.
    pub(crate) lines: usize,
    /// Whether the lint of Clippy for it is silenced.
    may_be_long: bool,
}

/// Returns a finding for each function that is too long, in tests too, and for each file of a library or program that is.
///
/// A function with `#[expect(clippy::too_many_lines, reason = "…")]` may be longer.
pub(crate) fn check(files: &[SourceFile], trees: &[Tree]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files {
        findings.extend(check_functions(file));
        if trees.iter().any(|tree| tree.ships(file)) {
            findings.extend(check_length(file));
        }
    }
    findings
}

fn check_functions(file: &SourceFile) -> Vec<Finding> {
    let functions = functions(file).into_iter();
    let long = functions.filter(|it| it.lines > FUNCTION_LINES && !it.may_be_long);
    long.map(|function| Finding {
        file: file.path.clone(),
        line: function.line,
        message: format!(
            "the function `{}` has {} lines, at most {FUNCTION_LINES} are allowed; move a part of it into a function of its own",
            function.name, function.lines
        ),
    })
    .collect()
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

/// Returns how many files of libraries and programs are longer than usual.
pub(crate) fn summary(files: &[SourceFile], trees: &[Tree]) -> String {
    let long = files
        .iter()
        .filter(|file| trees.iter().any(|tree| tree.ships(file)))
        .filter(|file| file.lines_of_code() > USUAL_FILE_LINES)
        .count();
    format!("{long} files have more than {USUAL_FILE_LINES} lines of code without tests")
}

/// Returns the functions of a file that have a body.
pub(crate) fn functions(file: &SourceFile) -> Vec<Function> {
    let mut reader = FunctionReader {
        file,
        functions: Vec::new(),
    };
    reader.visit_file(&file.syntax);
    reader.functions
}

struct FunctionReader<'a> {
    file: &'a SourceFile,
    functions: Vec<Function>,
}

impl FunctionReader<'_> {
    fn add(&mut self, attributes: &[Attribute], signature: &syn::Signature, body: &syn::Block) {
        let braces = body.brace_token.span;
        let is_async = signature.asyncness.is_some() && !attribute::starts_a_runtime(attributes);
        let range = if is_async {
            braces.open().byte_range().start..braces.close().byte_range().end
        } else {
            braces.open().byte_range().end..braces.close().byte_range().start
        };
        self.functions.push(Function {
            name: signature.ident.to_string(),
            line: signature.ident.span().start().line,
            lines: lines_of_code(self.text(range)),
            may_be_long: attribute::is_silenced(attributes, "too_many_lines"),
        });
    }

    fn text(&self, range: Range<usize>) -> &str {
        self.file.source.get(range).unwrap_or_default()
    }
}

impl<'a> Visit<'a> for FunctionReader<'_> {
    fn visit_item_fn(&mut self, item: &'a syn::ItemFn) {
        self.add(&item.attrs, &item.sig, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'a syn::ImplItemFn) {
        self.add(&item.attrs, &item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'a syn::TraitItemFn) {
        if let Some(body) = &item.default {
            self.add(&item.attrs, &item.sig, body);
        }
        visit::visit_trait_item_fn(self, item);
    }
}

/// Counts lines as `clippy::too_many_lines` does: it takes `//` and `/*` for comments in string literals too.
fn lines_of_code(body: &str) -> usize {
    let mut in_comment = false;
    body.lines()
        .filter(|line| holds_code(line, &mut in_comment))
        .count()
}

fn holds_code(line: &str, in_comment: &mut bool) -> bool {
    let mut line = line.trim_start();
    let mut code = false;
    while !line.is_empty() {
        if *in_comment {
            let Some((_, after)) = line.split_once("*/") else {
                break;
            };
            *in_comment = false;
            line = after.trim_start();
            continue;
        }
        let block = line.find("/*").unwrap_or(line.len());
        let rest_of_line = line.find("//").unwrap_or(line.len());
        code |= block > 0 && rest_of_line > 0;
        if block >= rest_of_line {
            break;
        }
        *in_comment = true;
        line = line.get(block + 2..).unwrap_or_default();
    }
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mk_file(source: &str) -> SourceFile {
        SourceFile::parse("a.rs".to_owned(), source.to_owned()).unwrap()
    }

    fn sizes(source: &str) -> Vec<(String, usize)> {
        functions(&mk_file(source))
            .into_iter()
            .map(|function| (function.name, function.lines))
            .collect()
    }

    #[test]
    fn blank_lines_and_comments_do_not_count() {
        let source = "fn a() {\n    b(); // why\n\n    // why\n    /* why\n    why */ c();\n    /* why */\n}\n";
        assert_eq!(sizes(source), [("a".to_owned(), 2)]);
    }

    #[test]
    fn the_braces_of_an_async_function_count_as_they_do_for_clippy() {
        assert_eq!(
            sizes("async fn a() {\n    b();\n}\n#[tokio::test] async fn c() {\n    d();\n}\n"),
            [("a".to_owned(), 3), ("c".to_owned(), 1)]
        );
    }

    #[test]
    fn methods_and_functions_in_functions_are_counted() {
        let source = "impl A {\n fn a() {\n  fn b() {\n   c();\n  }\n }\n}\ntrait B { fn d(); fn e() { f() } }";
        assert_eq!(
            sizes(source),
            [
                ("a".to_owned(), 3),
                ("b".to_owned(), 1),
                ("e".to_owned(), 1)
            ]
        );
    }

    #[test]
    fn a_long_function_is_reported_unless_it_says_why() {
        let body = "    b();\n".repeat(61);
        let source = format!("fn a() {{\n{body}}}\n");
        let found: Vec<String> = check_functions(&mk_file(&source))
            .iter()
            .map(Finding::to_string)
            .collect();
        assert_eq!(
            found,
            [
                "a.rs:1: the function `a` has 61 lines, at most 60 are allowed; move a part of it into a function of its own"
            ]
        );
        let reason = "#[expect(clippy::too_many_lines, reason = \"a table\")]";
        let source = format!("{reason}\n{source}");
        assert_eq!(check_functions(&mk_file(&source)), []);
    }

    #[test]
    fn a_long_file_is_reported_and_its_tests_do_not_count() {
        let code = "fn b() {}\n".repeat(500);
        let tests = format!("#[cfg(test)]\nmod tests {{\n{code}}}\n");
        assert_eq!(check_length(&mk_file(&format!("{code}{tests}"))), None);
        assert!(check_length(&mk_file(&format!("{code}fn c() {{}}\n{tests}"))).is_some());
    }
}
