//! Transcodes documents of plain YAML to JSON, which is parsed many times faster.
//!
//! `None` means "not plain": the YAML parser then reads the document. With these rules, the JSON always has the meaning
//! of the YAML:
//!
//! 1. The text is printable ASCII and line feeds. A first line `---` is skipped, as are blank lines and comments.
//! 2. A line is `key: value`, `key:`, or one of these or a scalar behind `- `. Indentation decides which open mapping or
//!    list it continues: the one of exactly its column; deeper ones end. A list may stand at its key's column.
//! 3. A key without a value takes the block that the next line opens, or else is null.
//! 4. A flow mapping or list stands on one line; there is no comma behind its last entry.
//! 5. A quoted scalar has neither escapes nor the other quote, and is a string. A plain scalar is of letters, digits and
//!    `._/:-` and starts with a letter or digit; [`Plain::resolve`] has its types.
//! 6. Only the keys in [`Shape::of`] hold a mapping or a list. The types would also read a struct from a JSON array and
//!    a variant from a JSON object, which YAML's reader refuses or may refuse: such text must not get to them.
//! 7. Blocks and flows nest at most [`DEPTH`] deep.
//!
//! On both paths the types refuse a repeated field.

/// More than the API needs.
const DEPTH: usize = 12;

/// Returns the document as JSON; `None` if it is not plain.
pub(super) fn to_json(text: &str) -> Option<String> {
    if !text.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\n')) {
        return None;
    }
    let mut plain = Plain {
        json: String::with_capacity(text.len()),
        blocks: Vec::with_capacity(DEPTH),
    };
    let mut lines = text.split('\n').peekable();
    lines.next_if(|line| line.strip_prefix("---").is_some_and(is_over));
    let mut waiting = Some(Shape::Mapping);
    for line in lines {
        let rest = line.trim_start_matches(' ');
        if !rest.is_empty() && !rest.starts_with('#') {
            waiting = plain.line(line.len() - rest.len(), rest, waiting)?;
        }
    }
    if waiting.is_some() {
        plain.json.push_str("null");
    }
    while !plain.blocks.is_empty() {
        plain.close();
    }
    Some(plain.json)
}

/// A document while it is transcoded.
struct Plain {
    json: String,
    blocks: Vec<Block>,
}

/// What may stand under a key besides a scalar.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Scalar,
    Mapping,
    Scalars,
    Mappings,
}

/// An open block mapping or list.
struct Block {
    column: usize,
    /// What the entries of a list are; `None` in a mapping.
    items: Option<Shape>,
}

impl Shape {
    fn of(key: &str) -> Self {
        match key {
            "metadata" | "labels" | "annotations" | "spec" | "tunnel" | "nat" | "scheduler"
            | "persistence" | "service" | "nodes" | "timeouts" | "failover" | "connectionSync" => {
                Self::Mapping
            }
            "addresses" | "ipFamilies" | "gateways" | "flags" | "names" | "standby" => {
                Self::Scalars
            }
            "ports" | "backends" | "priorities" | "unicast" => Self::Mappings,
            _ => Self::Scalar,
        }
    }

    /// Returns the shape of a list's entries.
    const fn items(self) -> Option<Self> {
        match self {
            Self::Scalars => Some(Self::Scalar),
            Self::Mappings => Some(Self::Mapping),
            Self::Scalar | Self::Mapping => None,
        }
    }
}

impl Plain {
    /// Reads a line by rules 2 and 3. `waiting` is the shape allowed under a key that has no value yet; the result is the
    /// same for the next line.
    fn line(&mut self, column: usize, text: &str, waiting: Option<Shape>) -> Option<Option<Shape>> {
        let item = text.strip_prefix("- ");
        let opened = match waiting {
            Some(shape) => self.begin(column, shape, item.is_some())?,
            None => false,
        };
        if !opened {
            self.go_back_to(column, item.is_some())?;
        }
        let Some(item) = item else {
            return self.entry(text);
        };
        self.separate();
        let shape = self.blocks.last()?.items?;
        let item_text = item.trim_start_matches(' ');
        if shape == Shape::Mapping && !item_text.starts_with('{') {
            self.open(column + text.len() - item_text.len(), None)?;
            return self.entry(item_text);
        }
        let rest = self.value(item_text, shape, 0)?;
        is_over(rest).then_some(None)
    }

    /// Opens the block under a key that has no value yet, and returns true. Returns false if the line opens no block: the
    /// value is null.
    fn begin(&mut self, column: usize, shape: Shape, is_item: bool) -> Option<bool> {
        let Some(parent) = self.blocks.last().map(|block| block.column) else {
            // The root: one mapping that is not indented.
            (column == 0 && !is_item).then_some(())?;
            self.open(column, None)?;
            return Some(true);
        };
        if is_item && column >= parent {
            self.open(column, Some(shape.items()?))?;
            return Some(true);
        }
        if column > parent {
            (shape == Shape::Mapping).then_some(())?;
            self.open(column, None)?;
            return Some(true);
        }
        self.json.push_str("null");
        Some(false)
    }

    fn open(&mut self, column: usize, items: Option<Shape>) -> Option<()> {
        (self.blocks.len() < DEPTH).then_some(())?;
        self.json.push(if items.is_some() { '[' } else { '{' });
        self.blocks.push(Block { column, items });
        Some(())
    }

    fn close(&mut self) {
        if let Some(block) = self.blocks.pop() {
            self.json
                .push(if block.items.is_some() { ']' } else { '}' });
        }
    }

    /// Closes the blocks that the line does not continue.
    fn go_back_to(&mut self, column: usize, is_item: bool) -> Option<()> {
        loop {
            let top = self.blocks.last()?;
            if top.column < column {
                return None;
            }
            if top.column == column && top.items.is_some() == is_item {
                return Some(());
            }
            if top.column == column && is_item {
                return None;
            }
            self.close();
        }
    }

    /// Reads `key: value` or `key:`.
    fn entry(&mut self, text: &str) -> Option<Option<Shape>> {
        let (shape, rest) = self.key(text)?;
        let value = rest.trim_start_matches(' ');
        if is_over(rest) {
            return Some(Some(shape));
        }
        let rest = self.value(value, shape, 0)?;
        is_over(rest).then_some(None)
    }

    /// Reads a key and its colon, which must be followed by white space or the end of the line. Returns the rest of the
    /// line.
    fn key<'a>(&mut self, text: &'a str) -> Option<(Shape, &'a str)> {
        let (key, rest) = match quoted(text) {
            Some(found) => found?,
            None => {
                let end = text.find(|byte| !is_word(byte) || byte == ':')?;
                let (key, rest) = text.split_at_checked(end)?;
                let is_text = key.starts_with(|c: char| c.is_ascii_alphabetic());
                (is_text && !is_reserved(key)).then_some((key, rest))?
            }
        };
        // YAML bounds a key to 1024 characters.
        (key.len() <= 256).then_some(())?;
        let rest = rest.strip_prefix(':')?;
        (rest.is_empty() || rest.starts_with(' ')).then_some(())?;
        self.separate();
        self.string(key);
        self.json.push(':');
        Some((Shape::of(key), rest))
    }

    /// Reads a value that ends on this line. Returns the rest of the line.
    fn value<'a>(&mut self, text: &'a str, shape: Shape, depth: usize) -> Option<&'a str> {
        (depth < DEPTH).then_some(())?;
        if let Some(inner) = text.strip_prefix('{') {
            (shape == Shape::Mapping).then_some(())?;
            return self.flow(inner, ('{', '}'), |plain, entry| {
                let (shape, rest) = plain.key(entry)?;
                plain.value(rest.trim_start_matches(' '), shape, depth + 1)
            });
        }
        if let Some(inner) = text.strip_prefix('[') {
            let items = shape.items()?;
            return self.flow(inner, ('[', ']'), |plain, item| {
                plain.separate();
                plain.value(item, items, depth + 1)
            });
        }
        if let Some(found) = quoted(text) {
            let (string, rest) = found?;
            self.string(string);
            return Some(rest);
        }
        self.resolve(text)
    }

    /// Reads a flow mapping or list by rule 4, after its opening bracket.
    fn flow<'a>(
        &mut self,
        text: &'a str,
        (open, close): (char, char),
        entry: impl Fn(&mut Self, &'a str) -> Option<&'a str>,
    ) -> Option<&'a str> {
        self.json.push(open);
        let mut rest = text.trim_start_matches(' ');
        if !rest.starts_with(close) {
            rest = entry(self, rest)?.trim_start_matches(' ');
            while let Some(next) = rest.strip_prefix(',') {
                rest = entry(self, next.trim_start_matches(' '))?.trim_start_matches(' ');
            }
        }
        self.json.push(close);
        rest.strip_prefix(close)
    }

    /// Reads a plain scalar:
    ///
    /// - `~` and `null` are null, `true` and `false` themselves, `0` and up to 18 digits without a leading zero integers;
    /// - what starts with a letter is a string, unless some version of YAML reads it as something else;
    /// - what starts with a digit is a string when it is written as an IP address: digits with three dots, or
    ///   hexadecimal digits with `::`;
    /// - everything else is not plain.
    fn resolve<'a>(&mut self, text: &'a str) -> Option<&'a str> {
        if let Some(rest) = text.strip_prefix('~') {
            self.json.push_str("null");
            return Some(rest);
        }
        let end = text.find(|c| !is_word(c)).unwrap_or(text.len());
        let (word, rest) = text.split_at_checked(end)?;
        (!word.ends_with(':')).then_some(())?;
        let first = *word.as_bytes().first()?;
        if first.is_ascii_alphabetic() {
            match word {
                "null" | "true" | "false" => self.json.push_str(word),
                word if is_reserved(word) => return None,
                word => self.string(word),
            }
        } else if word.bytes().all(|byte| byte.is_ascii_digit()) {
            ((first != b'0' || word.len() == 1) && word.len() <= 18).then_some(())?;
            self.json.push_str(word);
        } else {
            (first.is_ascii_digit() && is_address(word)).then_some(())?;
            self.string(word);
        }
        Some(rest)
    }

    fn string(&mut self, text: &str) {
        self.json.push('"');
        self.json.push_str(text);
        self.json.push('"');
    }

    fn separate(&mut self) {
        if !matches!(self.json.as_bytes().last(), Some(b'{' | b'[')) {
            self.json.push(',');
        }
    }
}

/// Returns a quoted scalar and the rest of the line; `Some(None)` if it is not plain.
fn quoted(text: &str) -> Option<Option<(&str, &str)>> {
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let inner = text.strip_prefix(quote)?;
    let found = inner.split_once(quote);
    Some(found.filter(|(string, rest)| !string.contains(['"', '\\']) && !rest.starts_with(quote)))
}

/// Returns whether the rest of a line is empty: only white space, or a comment after white space.
fn is_over(rest: &str) -> bool {
    let text = rest.trim_start_matches(' ');
    text.is_empty() || (text.len() < rest.len() && text.starts_with('#'))
}

const fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '/' | ':' | '-')
}

/// Returns whether some version of YAML reads a word as null, a boolean or a number.
fn is_reserved(word: &str) -> bool {
    const WORDS: [&str; 12] = [
        "y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf", "infinity",
    ];
    word.len() <= 8 && WORDS.iter().any(|known| known.eq_ignore_ascii_case(word))
}

fn is_address(word: &str) -> bool {
    let v4 = word
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.')
        && word.bytes().filter(|byte| *byte == b'.').count() == 3;
    v4 || (word.contains("::")
        && word
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit() || byte == b':'))
}
