//! The table of counts: one row for each crate, and the words in tests and documents.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::source::{self, SourceFile};
use crate::tree::Tree;
use crate::words::{self, WORDS};
use crate::{circles, sizes, steps, table, types};

/// The Markdown files outside of `docs` whose words are counted.
const DOCUMENTS: [&str; 4] = [
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
];

/// The counts of one crate, without its tests.
#[derive(Default)]
struct Counted {
    files: usize,
    lines: usize,
    long_files: usize,
    functions_over_40: usize,
    functions_over_60: usize,
    circles: usize,
    duplicate_types: usize,
    step_matches: usize,
    words: words::Counts,
}

/// Counts the workspace's source and documents, and returns the tables.
///
/// # Errors
///
/// When a document cannot be read.
pub(crate) fn count(root: &Path, files: &[SourceFile], trees: &[Tree]) -> Result<String> {
    let mut crates: BTreeMap<&str, Counted> = BTreeMap::new();
    for tree in trees {
        let counted = crates.entry(&tree.target.folder).or_default();
        counted.circles += circles::check(tree).len();
        counted.duplicate_types += types::check(tree).len();
    }
    let mut in_tests = words::Counts::default();
    let mut places = Vec::new();
    for file in files {
        let owner = trees.iter().find(|tree| tree.ships(file));
        if let Some(tree) = owner {
            let counted = crates.entry(&tree.target.folder).or_default();
            counted.add(file);
            places.extend(step_places(file));
        }
        in_tests.add_all(&words_of(file, |line| {
            owner.is_none() || file.is_test_line(line)
        }));
    }
    let in_documents = words_of_documents(root)?;
    Ok(format!(
        "Outside of tests:\n\n{}\nWords in comments and string literals, and in documents:\n\n{}\nMatches over Step:\n\n{}",
        table::set(&structure_rows(&crates)),
        table::set(&word_rows(&crates, &in_tests, &in_documents)),
        places.concat()
    ))
}

impl Counted {
    fn add(&mut self, file: &SourceFile) {
        let lines = file.lines_of_code();
        self.files += 1;
        self.lines += lines;
        self.long_files += usize::from(lines > sizes::USUAL_FILE_LINES);
        for function in sizes::functions(file) {
            if !file.is_test_line(function.line) {
                self.functions_over_40 += usize::from(function.lines > 40);
                self.functions_over_60 += usize::from(function.lines > sizes::FUNCTION_LINES);
            }
        }
        self.step_matches += steps::matches(file).len();
        self.words
            .add_all(&words_of(file, |line| !file.is_test_line(line)));
    }

    fn add_all(&mut self, other: &Self) {
        let Self {
            files,
            lines,
            long_files,
            functions_over_40,
            functions_over_60,
            circles,
            duplicate_types,
            step_matches,
            words,
        } = other;
        self.files += files;
        self.lines += lines;
        self.long_files += long_files;
        self.functions_over_40 += functions_over_40;
        self.functions_over_60 += functions_over_60;
        self.circles += circles;
        self.duplicate_types += duplicate_types;
        self.step_matches += step_matches;
        self.words.add_all(words);
    }
}

fn words_of(file: &SourceFile, counts: impl Fn(usize) -> bool) -> words::Counts {
    let mut words = words::Counts::default();
    for prose in &file.text.prose {
        if counts(prose.line) {
            words.add(&prose.text);
        }
    }
    words
}

fn words_of_documents(root: &Path) -> Result<words::Counts> {
    let mut words = words::Counts::default();
    for path in source::paths(root, "md")? {
        if DOCUMENTS.contains(&path.as_str()) || path.starts_with("docs/") {
            let text = fs::read_to_string(root.join(&path))
                .with_context(|| format!("could not read {path}"))?;
            words.add(&text);
        }
    }
    Ok(words)
}

fn step_places(file: &SourceFile) -> Vec<String> {
    let matches = steps::matches(file).into_iter();
    matches
        .map(|found| {
            format!(
                "{}:{}: {} variants\n",
                file.path, found.line, found.variants
            )
        })
        .collect()
}

fn structure_rows(crates: &BTreeMap<&str, Counted>) -> Vec<Vec<String>> {
    let heads = [
        "crate",
        "files",
        "lines",
        "files > 300",
        "functions > 40",
        "functions > 60",
        "circles",
        "types of one name",
        "matches over Step",
    ];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    let mut total = Counted::default();
    for (folder, counted) in crates {
        rows.push(structure_row(folder, counted));
        total.add_all(counted);
    }
    rows.push(structure_row("total", &total));
    rows
}

fn structure_row(name: &str, counted: &Counted) -> Vec<String> {
    let Counted {
        files,
        lines,
        long_files,
        functions_over_40,
        functions_over_60,
        circles,
        duplicate_types,
        step_matches,
        words: _,
    } = counted;
    row(
        name,
        &[
            *files,
            *lines,
            *long_files,
            *functions_over_40,
            *functions_over_60,
            *circles,
            *duplicate_types,
            *step_matches,
        ],
    )
}

fn word_rows(
    crates: &BTreeMap<&str, Counted>,
    in_tests: &words::Counts,
    in_documents: &words::Counts,
) -> Vec<Vec<String>> {
    let heads = ["place"].into_iter().chain(WORDS).chain(["sum"]);
    let mut rows = vec![heads.map(str::to_owned).collect()];
    let mut outside = words::Counts::default();
    for (folder, counted) in crates {
        rows.push(word_row(folder, &counted.words));
        outside.add_all(&counted.words);
    }
    rows.push(word_row("outside of tests", &outside));
    rows.push(word_row("in tests", in_tests));
    rows.push(word_row("in documents", in_documents));
    rows
}

fn word_row(name: &str, words: &words::Counts) -> Vec<String> {
    let mut values = words.values();
    values.push(values.iter().sum());
    row(name, &values)
}

fn row(name: &str, values: &[usize]) -> Vec<String> {
    let mut row = vec![name.to_owned()];
    row.extend(values.iter().map(usize::to_string));
    row
}
