//! `structure`: checks how the source of a workspace is divided into crates, modules, types, functions and files.
//!
//! ```text
//! source files + cargo metadata  ->  one module tree per library and program  ->  findings
//! ```

mod attribute;
mod circles;
mod docs;
mod finding;
mod graph;
mod imports;
mod scope;
mod sizes;
mod source;
mod targets;
mod tiers;
mod tokens;
mod tree;
mod types;
mod use_tree;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, ValueEnum};

use crate::finding::Finding;
use crate::source::SourceFile;
use crate::targets::{Metadata, Package};
use crate::tree::Tree;

/// Checks the structure of a workspace.
#[derive(Parser)]
#[command(name = "structure", version, about)]
struct Cli {
    /// The folder of the workspace.
    #[arg(long, default_value = ".", value_name = "DIR")]
    root: PathBuf,
    /// The rules to check, separated by commas; all of them by default.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "RULES")]
    check: Vec<Rule>,
}

/// A rule that can be checked alone.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Rule {
    /// Modules of one crate do not import each other in a circle.
    Circles,
    /// A crate has one type of each name.
    Types,
    /// Every source file opens with `//!`.
    Docs,
    /// Files have at most 500 lines before their tests.
    Sizes,
    /// Tests that need more than plain `cargo test` gives are behind a feature.
    Tiers,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("structure: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(cli: &Cli) -> Result<ExitCode> {
    let files = source::read_all(&cli.root)?;
    let metadata = targets::read(&cli.root)?;
    let trees = grow_trees(&metadata, &files)?;
    let rules = if cli.check.is_empty() {
        Rule::value_variants()
    } else {
        &cli.check
    };
    Ok(report(rules, &metadata.packages, &files, &trees))
}

fn grow_trees<'a>(metadata: &Metadata, files: &'a [SourceFile]) -> Result<Vec<Tree<'a>>> {
    targets::targets(metadata)
        .into_iter()
        .map(|target| Tree::grow(target, files))
        .collect()
}

/// Prints what the rules find; the exit status is 1 when they find anything.
fn report(rules: &[Rule], packages: &[Package], files: &[SourceFile], trees: &[Tree]) -> ExitCode {
    let mut total = 0;
    for rule in rules {
        let findings = check(*rule, packages, files, trees);
        total += findings.len();
        for finding in &findings {
            println!("{finding}");
        }
        println!("structure: {}: {} findings", name(*rule), findings.len());
    }
    if rules.contains(&Rule::Sizes) {
        println!("structure: {}", sizes::summary(files, trees));
    }
    if total == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn check(rule: Rule, packages: &[Package], files: &[SourceFile], trees: &[Tree]) -> Vec<Finding> {
    match rule {
        Rule::Circles => trees.iter().flat_map(circles::check).collect(),
        Rule::Types => trees.iter().flat_map(types::check).collect(),
        Rule::Docs => files.iter().filter_map(docs::check).collect(),
        Rule::Sizes => sizes::check(files, trees),
        Rule::Tiers => packages.iter().flat_map(tiers::check).collect(),
    }
}

const fn name(rule: Rule) -> &'static str {
    match rule {
        Rule::Circles => "circles",
        Rule::Types => "types",
        Rule::Docs => "docs",
        Rule::Sizes => "sizes",
        Rule::Tiers => "tiers",
    }
}
