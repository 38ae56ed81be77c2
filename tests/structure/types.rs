//! Rule: a crate has one type of each name.

use std::collections::BTreeMap;

use syn::visit::{self, Visit};
use syn::{Ident, ImplItem, Item};

use crate::attribute;
use crate::finding::Finding;
use crate::tree::Tree;

/// Returns a finding for each name that several types of a crate have. Tests are left out.
pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let mut places: BTreeMap<String, Vec<(&str, usize)>> = BTreeMap::new();
    for (_, module) in tree.shipped() {
        for name in declared_in(module.items) {
            let place = (module.file.path.as_str(), name.span().start().line);
            places.entry(name.to_string()).or_default().push(place);
        }
    }
    places
        .iter()
        .filter_map(|(name, places)| finding(tree, name, places))
        .collect()
}

fn finding(tree: &Tree, name: &str, places: &[(&str, usize)]) -> Option<Finding> {
    let ((file, line), others) = places.split_first()?;
    if others.is_empty() {
        return None;
    }
    let others: Vec<String> = others
        .iter()
        .map(|(file, line)| format!("{file}:{line}"))
        .collect();
    Some(Finding {
        file: (*file).to_owned(),
        line: *line,
        message: format!(
            "{} types of {} are named `{name}`, also at {}; rename all but one",
            places.len(),
            tree.target.name,
            others.join(", ")
        ),
    })
}

/// Returns the names of the types that the items declare, in functions too.
fn declared_in(items: &[Item]) -> Vec<&Ident> {
    let mut reader = TypeReader { names: Vec::new() };
    for item in items {
        reader.visit_item(item);
    }
    reader.names
}

struct TypeReader<'a> {
    names: Vec<&'a Ident>,
}

impl<'a> Visit<'a> for TypeReader<'a> {
    fn visit_item(&mut self, item: &'a Item) {
        if !attribute::is_test_only(attribute::of_item(item)) {
            visit::visit_item(self, item);
        }
    }

    /// The tree has the items of a module.
    fn visit_item_mod(&mut self, _: &'a syn::ItemMod) {}

    fn visit_item_struct(&mut self, item: &'a syn::ItemStruct) {
        self.names.push(&item.ident);
    }

    fn visit_item_enum(&mut self, item: &'a syn::ItemEnum) {
        self.names.push(&item.ident);
    }

    fn visit_item_union(&mut self, item: &'a syn::ItemUnion) {
        self.names.push(&item.ident);
    }

    fn visit_item_type(&mut self, item: &'a syn::ItemType) {
        self.names.push(&item.ident);
    }

    fn visit_item_trait(&mut self, item: &'a syn::ItemTrait) {
        self.names.push(&item.ident);
        visit::visit_item_trait(self, item);
    }

    fn visit_impl_item(&mut self, item: &'a ImplItem) {
        if !attribute::is_test_only(attribute::of_impl_item(item)) {
            visit::visit_impl_item(self, item);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::samples::{mk_files, mk_tree};

    fn found(source: &str) -> Vec<String> {
        let files = mk_files(&[("src/lib.rs", source)]);
        let findings = check(&mk_tree(&files));
        findings.iter().map(Finding::to_string).collect()
    }

    #[test]
    fn types_of_one_name_are_reported_once() {
        assert_eq!(
            found("struct A;\nmod b { enum A {}\n fn c() { trait A {} } }"),
            [
                "src/lib.rs:1: 3 types of sample are named `A`, also at src/lib.rs:2, src/lib.rs:3; rename all but one"
            ]
        );
    }

    #[test]
    fn parameters_associated_types_and_tests_do_not_count() {
        let source = "struct A; struct Item<A>(A); impl Iterator for B { type Item = A; }
            trait C { type A; }
            #[cfg(test)] mod tests { struct A; } #[cfg(test)] struct Item;";
        assert_eq!(found(source), Vec::<String>::new());
    }
}
