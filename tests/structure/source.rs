//! The source files of a workspace, each read and parsed once.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};
use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};
use syn::{ImplItem, Item};

use crate::attribute;

/// A parsed `.rs` file.
pub(crate) struct SourceFile {
    /// The path relative to the root of the workspace.
    pub(crate) path: String,
    /// The source.
    pub(crate) source: String,
    /// The lines that hold code: anything but white space and comments.
    code_lines: BTreeSet<usize>,
    /// The syntax tree of it.
    pub(crate) syntax: syn::File,
    /// The first and the last line of each item that exists in tests only.
    test_lines: Vec<(usize, usize)>,
}

impl SourceFile {
    /// Parses a file.
    ///
    /// # Errors
    ///
    /// When the source is not Rust.
    pub(crate) fn parse(path: String, source: String) -> Result<Self> {
        let syntax = syn::parse_file(&source).with_context(|| format!("could not parse {path}"))?;
        let mut finder = TestLines::default();
        finder.visit_file(&syntax);
        Ok(Self {
            code_lines: code_lines(&source)?,
            test_lines: finder.lines,
            path,
            source,
            syntax,
        })
    }

    /// Returns whether a line belongs to an item that exists in tests only.
    pub(crate) fn is_test_line(&self, line: usize) -> bool {
        self.test_lines
            .iter()
            .any(|(first, last)| (*first..=*last).contains(&line))
    }

    /// Returns how many lines hold code, without those that exist in tests only.
    pub(crate) fn lines_of_code(&self) -> usize {
        let lines = self.code_lines.iter();
        lines.filter(|line| !self.is_test_line(**line)).count()
    }
}

/// Returns the lines with a token of Rust, except doc comments.
fn code_lines(source: &str) -> Result<BTreeSet<usize>> {
    let mut lines = BTreeSet::new();
    let tokens: TokenStream = source.parse().map_err(|_| anyhow!("not Rust"))?;
    add_lines(tokens, &mut lines);
    Ok(lines)
}

fn add_lines(tokens: TokenStream, lines: &mut BTreeSet<usize>) {
    for token in tokens {
        match &token {
            // A doc comment is the tokens `#`, `!` perhaps, and `[doc = "…"]`, all with the span of the comment.
            TokenTree::Group(group) if is_doc(group) => {
                for line in group.span().start().line..=group.span().end().line {
                    lines.remove(&line);
                }
            }
            TokenTree::Group(group) => {
                lines.insert(group.span_open().start().line);
                add_lines(group.stream(), lines);
                lines.insert(group.span_close().end().line);
            }
            TokenTree::Ident(_) | TokenTree::Punct(_) | TokenTree::Literal(_) => {
                lines.extend(token.span().start().line..=token.span().end().line);
            }
        }
    }
}

fn is_doc(group: &Group) -> bool {
    let first = group.stream().into_iter().next();
    group.delimiter() == Delimiter::Bracket
        && matches!(first, Some(TokenTree::Ident(ident)) if ident == "doc")
}

#[derive(Default)]
struct TestLines {
    lines: Vec<(usize, usize)>,
}

impl TestLines {
    fn add(&mut self, span: proc_macro2::Span) {
        self.lines.push((span.start().line, span.end().line));
    }
}

impl<'a> Visit<'a> for TestLines {
    fn visit_item(&mut self, item: &'a Item) {
        if attribute::is_test_only(attribute::of_item(item)) {
            self.add(item.span());
        } else {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item(&mut self, item: &'a ImplItem) {
        if attribute::is_test_only(attribute::of_impl_item(item)) {
            self.add(item.span());
        } else {
            visit::visit_impl_item(self, item);
        }
    }
}

/// Reads every `.rs` file below a folder, except in hidden folders and build folders of Cargo, in the order of their paths.
///
/// # Errors
///
/// When a file cannot be read or parsed.
pub(crate) fn read_all(root: &Path) -> Result<Vec<SourceFile>> {
    paths(root, "rs")?
        .into_iter()
        .map(|path| {
            let source = fs::read_to_string(root.join(&path))
                .with_context(|| format!("could not read {path}"))?;
            SourceFile::parse(path, source)
        })
        .collect()
}

/// Returns the paths of the files below `root` that have the extension, relative to it and in order.
///
/// # Errors
///
/// When a folder cannot be read.
pub(crate) fn paths(root: &Path, extension: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    collect(root, "", extension, &mut found)?;
    found.sort();
    Ok(found)
}

fn collect(root: &Path, folder: &str, extension: &str, found: &mut Vec<String>) -> Result<()> {
    let listed = fs::read_dir(root.join(folder))
        .with_context(|| format!("could not list the folder `{folder}`"))?;
    for entry in listed {
        let entry = entry.with_context(|| format!("could not list the folder `{folder}`"))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if folder.is_empty() {
            name.clone()
        } else {
            format!("{folder}/{name}")
        };
        let kind = entry
            .file_type()
            .with_context(|| format!("could not read the type of {path}"))?;
        if kind.is_dir() && !is_skipped(&name) {
            collect(root, &path, extension, found)?;
        } else if kind.is_file()
            && Path::new(&name)
                .extension()
                .is_some_and(|it| it == extension)
        {
            found.push(path);
        }
    }
    Ok(())
}

/// Returns whether a folder is hidden or one that Cargo builds into.
fn is_skipped(folder: &str) -> bool {
    folder.starts_with('.') || folder == "target" || folder.starts_with("target-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_tests_do_not_count() {
        let source = "//! Doc.\nfn a() {}\n\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\n";
        let file = SourceFile::parse("a.rs".to_owned(), source.to_owned()).unwrap();
        assert_eq!(file.lines_of_code(), 1);
        assert!(file.is_test_line(6));
        assert!(!file.is_test_line(2));
    }
}
