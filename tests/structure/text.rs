//! Reads Rust source as text: which lines hold code, and what the comments and the string literals contain.

/// The lines and the prose of one file.
#[derive(Debug, Default)]
pub(crate) struct Text {
    /// For each line whether it holds code: anything but white space and comments.
    code: Vec<bool>,
    /// The comments and string literals, in order.
    pub(crate) prose: Vec<Prose>,
}

/// A comment or a string literal with its delimiters.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Prose {
    /// The line on which it begins, from 1.
    pub(crate) line: usize,
    /// The source of it.
    pub(crate) text: String,
}

impl Text {
    /// Reads a file.
    pub(crate) fn read(source: &str) -> Self {
        let mut text = Self {
            code: vec![false; source.lines().count()],
            prose: Vec::new(),
        };
        let (mut rest, mut line, mut before) = (source, 1, ' ');
        while !rest.is_empty() {
            let (kind, length) = next(rest, before);
            let (piece, after) = rest.split_at(length);
            text.add(kind, piece, line);
            line += piece.matches('\n').count();
            before = piece.chars().next_back().unwrap_or(before);
            rest = after;
        }
        text
    }

    fn add(&mut self, kind: Kind, piece: &str, line: usize) {
        if kind != Kind::Comment {
            let lines = self.code.iter_mut().skip(line - 1);
            for (code, content) in lines.zip(piece.split('\n')) {
                *code |= !content.trim().is_empty();
            }
        }
        if kind != Kind::Code {
            self.prose.push(Prose {
                line,
                text: piece.to_owned(),
            });
        }
    }

    /// Returns the numbers of the lines that hold code, from 1.
    pub(crate) fn code_lines(&self) -> impl Iterator<Item = usize> {
        let lines = self.code.iter().enumerate();
        lines.filter(|(_, code)| **code).map(|(index, _)| index + 1)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Code,
    Comment,
    Literal,
}

/// Returns what `rest` begins with, and its length, never 0. `before` is the character in front of it.
fn next(rest: &str, before: char) -> (Kind, usize) {
    if rest.starts_with("//") {
        return (Kind::Comment, rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return (Kind::Comment, block_comment(rest));
    }
    let in_word = before.is_alphanumeric() || before == '_';
    if !in_word && let Some(length) = raw_string(rest) {
        return (Kind::Literal, length);
    }
    if rest.starts_with('"') {
        return (Kind::Literal, string(rest));
    }
    let first = rest.chars().next().map_or(1, char::len_utf8);
    (Kind::Code, char_literal(rest).unwrap_or(first))
}

/// Returns the length of a block comment; one in it counts its own end.
fn block_comment(rest: &str) -> usize {
    let mut depth = 0_usize;
    let mut skip = false;
    for (index, pair) in rest.as_bytes().windows(2).enumerate() {
        if skip {
            skip = false;
            continue;
        }
        skip = true;
        match pair {
            b"/*" => depth += 1,
            b"*/" if depth == 1 => return index + 2,
            b"*/" => depth -= 1,
            _ => skip = false,
        }
    }
    rest.len()
}

/// Returns the length of a raw string literal, of bytes and of C too.
fn raw_string(rest: &str) -> Option<usize> {
    let opened = ["r", "br", "cr"]
        .iter()
        .find_map(|prefix| rest.strip_prefix(prefix))?;
    let hashes = opened.len() - opened.trim_start_matches('#').len();
    let content = opened.get(hashes..)?.strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let content_length = content
        .find(&end)
        .map_or(content.len(), |index| index + end.len());
    Some(rest.len() - content.len() + content_length)
}

fn string(rest: &str) -> usize {
    let mut escaped = false;
    for (index, byte) in rest.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return index + 1,
            _ => {}
        }
    }
    rest.len()
}

/// Returns the length of a character literal; a lifetime is none.
fn char_literal(rest: &str) -> Option<usize> {
    let content = rest.strip_prefix('\'')?;
    let (skipped, after) = match content.strip_prefix('\\') {
        Some(escape) => (2, escape),
        None => (1, content),
    };
    let first = after.chars().next()?.len_utf8();
    let tail = after.get(first..)?;
    let end = if skipped == 2 {
        tail.find('\'')?
    } else {
        tail.starts_with('\'').then_some(0)?
    };
    Some(skipped + first + end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prose(source: &str) -> Vec<String> {
        Text::read(source)
            .prose
            .into_iter()
            .map(|prose| prose.text)
            .collect()
    }

    #[test]
    fn comments_and_blank_lines_are_no_code() {
        let source = "//! Doc.\n\nfn a() { // why\n    /* one\n    two */ b();\n}\n";
        let lines: Vec<usize> = Text::read(source).code_lines().collect();
        assert_eq!(lines, [3, 5, 6]);
    }

    #[test]
    fn a_string_over_several_lines_is_code_except_its_blank_lines() {
        let lines: Vec<usize> = Text::read("let a = \"one\n\n// two\";\n")
            .code_lines()
            .collect();
        assert_eq!(lines, [1, 3]);
    }

    #[test]
    fn the_prose_is_the_comments_and_the_string_literals() {
        assert_eq!(prose("a(\"x // y\"); // z"), ["\"x // y\"", "// z"]);
        assert_eq!(
            prose(r##"r#"a"b"# br"c" "d\"e""##),
            [r##"r#"a"b"#"##, "br\"c\"", r#""d\"e""#]
        );
        assert_eq!(prose("/* a /* b */ c */ d"), ["/* a /* b */ c */"]);
    }

    #[test]
    fn characters_lifetimes_and_raw_names_open_no_string() {
        assert_eq!(
            prose(r#"'"' '\'' '\u{22}' &'a str "x" r#fn for"y""#),
            ["\"x\"", "\"y\""]
        );
    }
}
