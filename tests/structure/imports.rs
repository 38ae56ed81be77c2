//! Finds which modules name items of other modules of their crate.
//!
//! - An edge leads from the module that names an item to the module that declares it. Re-exports on the way do not count.
//! - A `use`, a path in code, and a path in the arguments of a macro or an attribute name an item. Links in documentation do not.
//! - `mod child;` is not an edge, nor is `pub use child::X`; using `X` in the parent's own code is.
//! - A path to a module alone is not an edge; a longer path through it is.
//! - Items and modules that exist in tests only are left out.

use std::collections::{BTreeMap, BTreeSet};

use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};
use syn::{Attribute, ImplItem, Item, ItemUse, Pat};

use crate::attribute;
use crate::scope::{self, Named, Scopes};
use crate::tokens::{self, TokenPath};
use crate::tree::{ModuleId, Tree};
use crate::use_tree;

/// The place of an edge.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Site {
    /// The line of the first path that makes the edge.
    pub(crate) line: usize,
    /// That path.
    pub(crate) path: String,
}

/// The edges by the modules that they lead from and to.
pub(crate) type Edges = BTreeMap<ModuleId, BTreeMap<ModuleId, Site>>;

/// Returns the edges between the modules of a tree.
pub(crate) fn edges(tree: &Tree) -> Edges {
    let scopes = Scopes::read(tree);
    tree.shipped()
        .map(|(id, module)| {
            let mut reader = EdgeReader::new(tree, &scopes, id);
            for item in module.items {
                reader.visit_item(item);
            }
            (id, reader.edges)
        })
        .collect()
}

struct EdgeReader<'a> {
    tree: &'a Tree<'a>,
    scopes: &'a Scopes<'a>,
    module: ModuleId,
    edges: BTreeMap<ModuleId, Site>,
    /// The names that the functions around this place bind by patterns, outermost first.
    locals: Vec<BTreeSet<String>>,
}

impl<'a> EdgeReader<'a> {
    const fn new(tree: &'a Tree<'a>, scopes: &'a Scopes<'a>, module: ModuleId) -> Self {
        Self {
            tree,
            scopes,
            module,
            edges: BTreeMap::new(),
            locals: Vec::new(),
        }
    }

    fn import(&mut self, path: &[String], line: usize, is_glob: bool, is_reexport: bool) {
        for named in self.scopes.resolve(self.module, path) {
            match named {
                Named::Module(to) if is_glob => self.add(to, path, line, is_reexport),
                Named::Module(_) => {}
                Named::ItemOf(to) => self.add(to, path, line, is_reexport),
            }
        }
    }

    fn path(&mut self, path: &[String], line: usize) {
        if matches!(path, [name] if self.is_local(name)) {
            return;
        }
        for named in self.scopes.resolve(self.module, path) {
            if let Named::ItemOf(to) = named {
                self.add(to, path, line, false);
            }
        }
    }

    fn add(&mut self, to: ModuleId, path: &[String], line: usize, is_reexport: bool) {
        if to == self.module || (is_reexport && self.tree.is_inside(to, self.module)) {
            return;
        }
        let site = Site {
            line,
            path: path.join("::"),
        };
        let first = self.edges.entry(to).or_insert_with(|| site.clone());
        if site.line < first.line {
            *first = site;
        }
    }

    fn is_local(&self, name: &str) -> bool {
        ["self", "Self"].contains(&name) || self.locals.iter().any(|names| names.contains(name))
    }

    fn tokens(&mut self, tokens: &proc_macro2::TokenStream) {
        for TokenPath { names, line } in tokens::paths(tokens.clone()) {
            self.path(&names, line);
        }
    }

    /// Visits a function; in it, a local variable hides an item of the same name.
    fn function(&mut self, locals: BTreeSet<String>, visit: impl FnOnce(&mut Self)) {
        self.locals.push(locals);
        visit(self);
        self.locals.pop();
    }
}

impl<'a> Visit<'a> for EdgeReader<'_> {
    fn visit_item(&mut self, item: &'a Item) {
        if !attribute::is_test_only(attribute::of_item(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item(&mut self, item: &'a ImplItem) {
        if !attribute::is_test_only(attribute::of_impl_item(item)) {
            visit::visit_impl_item(self, item);
        }
    }

    /// A module is read by a reader of its own.
    fn visit_item_mod(&mut self, _: &'a syn::ItemMod) {}

    fn visit_item_use(&mut self, item: &'a ItemUse) {
        if item.leading_colon.is_some() {
            return;
        }
        let is_reexport = scope::is_reexport(&item.vis);
        for import in use_tree::flatten(&item.tree) {
            let is_glob = import.binding == use_tree::Binding::All;
            self.import(&import.path, import.line, is_glob, is_reexport);
        }
    }

    fn visit_item_fn(&mut self, item: &'a syn::ItemFn) {
        let locals = bound_in(|finder| finder.visit_item_fn(item));
        self.function(locals, |reader| visit::visit_item_fn(reader, item));
    }

    fn visit_impl_item_fn(&mut self, item: &'a syn::ImplItemFn) {
        let locals = bound_in(|finder| finder.visit_impl_item_fn(item));
        self.function(locals, |reader| visit::visit_impl_item_fn(reader, item));
    }

    fn visit_trait_item_fn(&mut self, item: &'a syn::TraitItemFn) {
        let locals = bound_in(|finder| finder.visit_trait_item_fn(item));
        self.function(locals, |reader| visit::visit_trait_item_fn(reader, item));
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        if path.leading_colon.is_none() {
            self.path(&names_of(path), path.span().start().line);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'a syn::Macro) {
        visit::visit_macro(self, call);
        self.tokens(&call.tokens);
    }

    fn visit_attribute(&mut self, attribute: &'a Attribute) {
        if attribute.path().is_ident("doc") {
            return;
        }
        match &attribute.meta {
            syn::Meta::Path(_) => {}
            syn::Meta::List(list) => {
                self.tokens(&list.tokens);
                self.quoted_paths(&list.tokens);
            }
            syn::Meta::NameValue(pair) => self.visit_expr(&pair.value),
        }
    }

    /// `pub(in path)` names no item.
    fn visit_visibility(&mut self, _: &'a syn::Visibility) {}
}

impl EdgeReader<'_> {
    /// Reads paths in string literals, such as `#[serde(with = "crate::wire::seconds")]`, where a module stands for its functions.
    fn quoted_paths(&mut self, tokens: &proc_macro2::TokenStream) {
        for token in tokens.clone() {
            let proc_macro2::TokenTree::Literal(literal) = token else {
                continue;
            };
            let line = literal.span().start().line;
            if let syn::Lit::Str(text) = syn::Lit::new(literal)
                && let Ok(path) = text.parse::<syn::Path>()
                && path.segments.len() > 1
            {
                self.import(&names_of(&path), line, true, false);
            }
        }
    }
}

fn names_of(path: &syn::Path) -> Vec<String> {
    let segments = path.segments.iter();
    segments.map(|segment| segment.ident.to_string()).collect()
}

/// Returns the names that patterns bind in what `visit` visits.
fn bound_in(visit: impl FnOnce(&mut Bound)) -> BTreeSet<String> {
    let mut bound = Bound::default();
    visit(&mut bound);
    bound.names
}

#[derive(Default)]
struct Bound {
    names: BTreeSet<String>,
}

impl<'a> Visit<'a> for Bound {
    fn visit_pat(&mut self, pattern: &'a Pat) {
        if let Pat::Ident(name) = pattern {
            let name = name.ident.to_string();
            // A name in upper case is a constant or a variant, which binds nothing.
            if name.starts_with(|first: char| !first.is_uppercase()) {
                self.names.insert(name);
            }
        }
        visit::visit_pat(self, pattern);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::samples::{mk_files, mk_tree};

    fn found(sources: &[(&str, &str)]) -> Vec<String> {
        let files = mk_files(sources);
        let tree = mk_tree(&files);
        let mut found = Vec::new();
        for (from, edges) in edges(&tree) {
            for (to, site) in edges {
                let path = |id: ModuleId| tree.modules[id].path.as_str();
                found.push(format!("{} -> {} at {}", path(from), path(to), site.line));
            }
        }
        found
    }

    fn found_in(source: &str) -> Vec<String> {
        found(&[("src/lib.rs", source)])
    }

    #[test]
    fn imports_and_paths_are_edges_and_declarations_are_none() {
        assert_eq!(
            found_in(
                "mod a { pub struct A; pub struct B; }
                 mod b { use crate::a::A; }
                 mod c { fn c() { super::a::B; } }
                 mod d { mod e {} }"
            ),
            ["crate::b -> crate::a at 2", "crate::c -> crate::a at 3"]
        );
    }

    #[test]
    fn a_reexport_is_followed_and_is_no_edge_of_its_own() {
        assert_eq!(
            found_in(
                "pub use a::A;
                 mod a { pub struct A; }
                 mod b { use crate::A; }"
            ),
            ["crate::b -> crate::a at 3"]
        );
    }

    #[test]
    fn a_parent_that_uses_its_reexport_has_an_edge() {
        assert_eq!(
            found_in(
                "pub use a::A;
                 mod a { pub struct A; }
                 fn b(_: A) {}"
            ),
            ["crate -> crate::a at 3"]
        );
    }

    #[test]
    fn a_child_that_uses_an_item_of_its_parent_has_an_edge() {
        assert_eq!(
            found_in("struct P; mod a { use super::P; }"),
            ["crate::a -> crate at 1"]
        );
    }

    #[test]
    fn an_import_of_a_parent_is_not_an_item_of_the_parent() {
        assert_eq!(
            found_in(
                "use anyhow::Result;
                 mod a { pub struct A; }
                 mod b { use crate::a::A; mod c { use super::A; use crate::Result; } }"
            ),
            ["crate::b -> crate::a at 3", "crate::b::c -> crate::a at 3"]
        );
    }

    #[test]
    fn a_module_that_is_imported_is_an_edge_where_its_items_are_used() {
        assert_eq!(
            found_in(
                "mod a { pub fn f() {} }
                 mod b { use crate::a;
                 fn g() { a::f() } }"
            ),
            ["crate::b -> crate::a at 3"]
        );
    }

    #[test]
    fn a_local_variable_hides_an_item() {
        assert_eq!(
            found_in(
                "pub use a::plan;
                 mod a { pub fn plan() {} }
                 fn b(plan: u8) { print!(\"{}\", plan); plan; }"
            ),
            Vec::<String>::new()
        );
    }

    #[test]
    fn arguments_of_macros_and_attributes_are_read() {
        assert_eq!(
            found_in(
                "mod a { pub const A: u8 = 1; }
                 mod b { pub fn with() {} }
                 mod c { fn c() { println!(\"{}\", crate::a::A); } }
                 mod d { struct D { #[serde(with = \"crate::b\")] d: u8 } }"
            ),
            ["crate::c -> crate::a at 3", "crate::d -> crate::b at 4"]
        );
    }

    #[test]
    fn documentation_and_tests_are_left_out() {
        assert_eq!(
            found_in(
                "mod a { pub struct A; }
                 mod b {
                     //! See [`crate::a::A`].
                     #[cfg(test)] use crate::a::A;
                     #[cfg(test)] mod tests { use crate::a::A; }
                     #[test] fn c() { crate::a::A; }
                 }"
            ),
            Vec::<String>::new()
        );
    }

    #[test]
    fn files_are_modules() {
        assert_eq!(
            found(&[
                ("src/lib.rs", "mod a; mod b;"),
                ("src/a.rs", "\nuse crate::b::B;"),
                ("src/b.rs", "pub struct B;"),
            ]),
            ["crate::a -> crate::b at 2"]
        );
    }
}
