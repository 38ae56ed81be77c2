//! Flattens a `use` declaration into the single paths that it names.

use syn::UseTree;

/// One path that a `use` declaration names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Import {
    /// The names of the path; for `a::*` those in front of the star.
    pub(crate) path: Vec<String>,
    /// What it brings into scope.
    pub(crate) binding: Binding,
    /// The line of its last name.
    pub(crate) line: usize,
}

/// What an import brings into scope.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Binding {
    /// One name.
    Name(String),
    /// No name: `as _`.
    Nameless,
    /// Every name: `*`.
    All,
}

/// Flattens the tree of a `use` declaration.
pub(crate) fn flatten(tree: &UseTree) -> Vec<Import> {
    let mut imports = Vec::new();
    collect(tree, &mut Vec::new(), &mut imports);
    imports
}

fn collect(tree: &UseTree, path: &mut Vec<String>, imports: &mut Vec<Import>) {
    match tree {
        UseTree::Path(inner) => {
            path.push(inner.ident.to_string());
            collect(&inner.tree, path, imports);
            path.pop();
        }
        UseTree::Group(group) => {
            for inner in &group.items {
                collect(inner, path, imports);
            }
        }
        UseTree::Name(name) => {
            imports.push(import(path, &name.ident, None));
        }
        UseTree::Rename(rename) => {
            imports.push(import(path, &rename.ident, Some(rename.rename.to_string())));
        }
        UseTree::Glob(glob) => imports.push(Import {
            path: path.clone(),
            binding: Binding::All,
            line: glob.star_token.span.start().line,
        }),
    }
}

fn import(path: &[String], last: &syn::Ident, renamed: Option<String>) -> Import {
    let mut path = path.to_vec();
    if last != "self" || path.is_empty() {
        path.push(last.to_string());
    }
    let name = renamed.or_else(|| path.last().cloned()).unwrap_or_default();
    Import {
        path,
        binding: if name == "_" {
            Binding::Nameless
        } else {
            Binding::Name(name)
        },
        line: last.span().start().line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(source: &str) -> Vec<(String, Binding)> {
        let item: syn::ItemUse = syn::parse_str(source).unwrap();
        flatten(&item.tree)
            .into_iter()
            .map(|import| (import.path.join("::"), import.binding))
            .collect()
    }

    #[test]
    fn groups_globs_renames_and_self_are_flattened() {
        let name = |name: &str| Binding::Name(name.to_owned());
        assert_eq!(
            flat("use a::{self, b::{C, D as E, F as _}, g::*};"),
            [
                ("a".to_owned(), name("a")),
                ("a::b::C".to_owned(), name("C")),
                ("a::b::D".to_owned(), name("E")),
                ("a::b::F".to_owned(), Binding::Nameless),
                ("a::g".to_owned(), Binding::All),
            ]
        );
    }
}
