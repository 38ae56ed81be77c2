//! Finds paths in tokens that are not parsed: the arguments of macros and attributes.

use proc_macro2::{Spacing, TokenStream, TokenTree};

/// A path among tokens.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TokenPath {
    /// The names of the path.
    pub(crate) names: Vec<String>,
    /// The line on which it begins.
    pub(crate) line: usize,
}

/// Returns the paths among the tokens, in order.
///
/// Left out are fields and methods (`.name`), names of fields and arguments (`name: …`, `name = …`), lifetimes and the variables
/// of macros (`$name`).
pub(crate) fn paths(tokens: TokenStream) -> Vec<TokenPath> {
    let mut reader = PathReader::default();
    reader.read(tokens);
    reader.paths
}

#[derive(Default)]
struct PathReader {
    paths: Vec<TokenPath>,
    /// The path that is being read.
    current: Option<TokenPath>,
    /// The punctuation since the last name or group.
    punctuation: String,
}

impl PathReader {
    fn read(&mut self, tokens: TokenStream) {
        for token in tokens {
            match token {
                TokenTree::Ident(name) => self.name(&name),
                TokenTree::Punct(mark) => {
                    self.punctuation.push(mark.as_char());
                    if mark.spacing() == Spacing::Alone {
                        self.punctuation.push(' ');
                    }
                }
                TokenTree::Literal(_) => self.finish(),
                TokenTree::Group(group) => {
                    self.finish();
                    self.read(group.stream());
                    self.finish();
                }
            }
        }
        self.finish();
    }

    fn name(&mut self, name: &proc_macro2::Ident) {
        let punctuation = self.punctuation.trim_end();
        if punctuation == "::"
            && let Some(path) = &mut self.current
        {
            path.names.push(name.to_string());
            self.punctuation.clear();
            return;
        }
        let is_part = [".", "'", "$", "::"]
            .iter()
            .any(|mark| punctuation.ends_with(mark))
            && !punctuation.ends_with("..");
        self.finish();
        if !is_part {
            self.current = Some(TokenPath {
                names: vec![name.to_string()],
                line: name.span().start().line,
            });
        }
    }

    fn finish(&mut self) {
        let names_a_value = [":", "="].contains(&self.punctuation.trim_end());
        if let Some(path) = self.current.take()
            && (path.names.len() > 1 || !names_a_value)
        {
            self.paths.push(path);
        }
        self.punctuation.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(source: &str) -> Vec<String> {
        paths(source.parse().unwrap())
            .into_iter()
            .map(|path| path.names.join("::"))
            .collect()
    }

    #[test]
    fn paths_are_found_at_every_depth() {
        assert_eq!(
            found("\"{}\", crate::a::B, vec![self::c(d)], x..y"),
            ["crate::a::B", "vec", "self::c", "d", "x", "y"]
        );
    }

    #[test]
    fn fields_names_of_arguments_lifetimes_and_variables_are_no_paths() {
        assert_eq!(
            found("A { b: c }, d = e, f.g.h(), &'i j, $k::l, m::<N>::o"),
            ["A", "c", "e", "f", "j", "m", "N"]
        );
    }
}
