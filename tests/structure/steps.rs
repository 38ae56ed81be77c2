//! Finds the `match` expressions that take the enum `Step` apart.

use std::collections::BTreeSet;

use syn::visit::{self, Visit};
use syn::{ExprMatch, Ident, ItemImpl, Type};

use crate::source::SourceFile;

/// The least number of variants by which a `match` counts as one over the whole enum.
const LEAST_VARIANTS: usize = 5;

/// A `match` over `Step`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct StepMatch {
    /// The line of the `match`.
    pub(crate) line: usize,
    /// How many different variants its patterns name.
    pub(crate) variants: usize,
}

/// Returns the matches over `Step`, except those in tests.
pub(crate) fn matches(file: &SourceFile) -> Vec<StepMatch> {
    let mut reader = MatchReader::default();
    reader.visit_file(&file.syntax);
    let mut matches = reader.matches;
    matches.retain(|found| !file.is_test_line(found.line));
    matches
}

#[derive(Default)]
struct MatchReader {
    /// Whether the code is in an `impl` of `Step`, where `Self` is `Step`.
    in_step: bool,
    matches: Vec<StepMatch>,
}

impl<'a> Visit<'a> for MatchReader {
    fn visit_item_impl(&mut self, item: &'a ItemImpl) {
        let outer = self.in_step;
        self.in_step = is_step(&item.self_ty);
        visit::visit_item_impl(self, item);
        self.in_step = outer;
    }

    fn visit_expr_match(&mut self, expression: &'a ExprMatch) {
        let mut variants = Variants {
            in_step: self.in_step,
            names: BTreeSet::new(),
        };
        for arm in &expression.arms {
            variants.visit_pat(&arm.pat);
        }
        if variants.names.len() >= LEAST_VARIANTS {
            self.matches.push(StepMatch {
                line: expression.match_token.span.start().line,
                variants: variants.names.len(),
            });
        }
        visit::visit_expr_match(self, expression);
    }
}

fn is_step(of: &Type) -> bool {
    matches!(of, Type::Path(path) if path.path.segments.last().is_some_and(|last| last.ident == "Step"))
}

struct Variants<'a> {
    in_step: bool,
    names: BTreeSet<&'a Ident>,
}

impl<'a> Visit<'a> for Variants<'a> {
    fn visit_path(&mut self, path: &'a syn::Path) {
        let mut backwards = path.segments.iter().rev();
        if let (Some(variant), Some(owner)) = (backwards.next(), backwards.next())
            && (owner.ident == "Step" || (self.in_step && owner.ident == "Self"))
        {
            self.names.insert(&variant.ident);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the number of variants of the only match.
    fn found(source: &str) -> Option<usize> {
        let file = SourceFile::parse("a.rs".to_owned(), source.to_owned()).unwrap();
        matches(&file).first().map(|found| found.variants)
    }

    #[test]
    fn a_match_over_five_variants_counts() {
        let arms = "crate::Step::A => 1, Step::B(_) | Step::C { .. } => 2, Step::D => 3";
        assert_eq!(
            found(&format!("fn a() {{ match b {{ {arms}, Step::E => 4 }} }}")),
            Some(5)
        );
        assert_eq!(
            found(&format!("fn a() {{ match b {{ {arms}, Step::A => 4 }} }}")),
            None
        );
    }

    #[test]
    fn self_is_step_in_an_impl_of_step_only() {
        let body =
            "fn a(&self) { match self { Self::A | Self::B | Self::C | Self::D | Self::E => 1 } }";
        assert_eq!(
            found(&format!("impl fmt::Display for Step {{ {body} }}")),
            Some(5)
        );
        assert_eq!(found(&format!("impl Plan {{ {body} }}")), None);
        assert_eq!(found(&format!("#[cfg(test)] impl Step {{ {body} }}")), None);
    }
}
