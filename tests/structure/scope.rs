//! The names of each module, and the modules in which the items behind a path are declared.

use std::collections::{BTreeMap, BTreeSet};

use syn::visit::{self, Visit};
use syn::{Item, ItemUse, Visibility};

use crate::attribute;
use crate::tree::{ModuleId, Tree};
use crate::use_tree::{self, Binding};

/// What a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Named {
    /// A module.
    Module(ModuleId),
    /// An item that this module declares.
    ItemOf(ModuleId),
}

/// The names of every module of a tree.
pub(crate) struct Scopes<'a> {
    tree: &'a Tree<'a>,
    scopes: Vec<Scope>,
}

#[derive(Default)]
struct Scope {
    children: BTreeMap<String, ModuleId>,
    items: BTreeSet<String>,
    imports: Vec<(String, Vec<String>)>,
    globs: Vec<Vec<String>>,
}

/// The imports that are being resolved, so that a circular import ends.
type Pending = BTreeSet<(ModuleId, String)>;

impl<'a> Scopes<'a> {
    /// Reads the declarations and imports of every module.
    pub(crate) fn read(tree: &'a Tree<'a>) -> Self {
        let mut scopes: Vec<Scope> = tree
            .modules
            .iter()
            .map(|module| Scope::read(module.items))
            .collect();
        for (id, module) in tree.modules.iter().enumerate() {
            if let Some(scope) = module.parent.and_then(|parent| scopes.get_mut(parent)) {
                scope.children.insert(module.name.clone(), id);
            }
        }
        Self { tree, scopes }
    }

    /// Returns what a path names in a module; nothing for items of other crates.
    ///
    /// - `crate`, `self` and `super` begin at a module; another name must be in the scope of this module.
    /// - An import is followed to the module that declares the item, through every re-export.
    /// - A name behind that of an item (a variant, an associated item) names the item.
    /// - A name that is not found in a module is taken for an item that a macro declares there.
    pub(crate) fn resolve(&self, from: ModuleId, path: &[String]) -> BTreeSet<Named> {
        self.follow(from, path, &mut Pending::new())
    }

    fn follow(&self, from: ModuleId, path: &[String], pending: &mut Pending) -> BTreeSet<Named> {
        let Some((start, names)) = self.begin(from, path) else {
            return BTreeSet::new();
        };
        let mut found = BTreeSet::from([Named::Module(start)]);
        let is_relative = names.len() == path.len();
        for (index, name) in names.iter().enumerate() {
            let must_show = is_relative && index == 0;
            found = self.step(&found, name, must_show, pending);
        }
        found
    }

    /// Returns the module that a path begins at, and the names behind it.
    fn begin<'p>(&self, from: ModuleId, path: &'p [String]) -> Option<(ModuleId, &'p [String])> {
        let mut start = from;
        let mut names = path;
        while let Some((first, rest)) = names.split_first() {
            start = match first.as_str() {
                "crate" => 0,
                "self" => start,
                "super" => self.tree.parent(start)?,
                _ => break,
            };
            names = rest;
        }
        Some((start, names))
    }

    fn step(
        &self,
        found: &BTreeSet<Named>,
        name: &str,
        must_show: bool,
        pending: &mut Pending,
    ) -> BTreeSet<Named> {
        let modules: Vec<ModuleId> = found
            .iter()
            .filter_map(|named| match named {
                Named::Module(id) => Some(*id),
                Named::ItemOf(_) => None,
            })
            .collect();
        if modules.is_empty() {
            return found.clone();
        }
        let mut next = BTreeSet::new();
        for module in modules {
            let shown = self.look_up(module, name, pending);
            if shown.is_empty() && !must_show && !self.imports(module, name) {
                next.insert(Named::ItemOf(module));
            }
            next.extend(shown);
        }
        next
    }

    fn look_up(&self, module: ModuleId, name: &str, pending: &mut Pending) -> BTreeSet<Named> {
        let mut found = BTreeSet::new();
        let Some(scope) = self.scopes.get(module) else {
            return found;
        };
        found.extend(scope.children.get(name).map(|child| Named::Module(*child)));
        if scope.items.contains(name) {
            found.insert(Named::ItemOf(module));
        }
        let key = (module, name.to_owned());
        if !pending.insert(key.clone()) {
            return found;
        }
        for (_, path) in scope.imports.iter().filter(|(bound, _)| bound == name) {
            found.extend(self.follow(module, path, pending));
        }
        if found.is_empty() {
            found = self.look_up_in_globs(module, name, pending);
        }
        pending.remove(&key);
        found
    }

    /// Returns whether a module imports a name, perhaps from another crate.
    fn imports(&self, module: ModuleId, name: &str) -> bool {
        let scope = self.scopes.get(module);
        scope.is_some_and(|scope| scope.imports.iter().any(|(bound, _)| bound == name))
    }

    fn look_up_in_globs(
        &self,
        module: ModuleId,
        name: &str,
        pending: &mut Pending,
    ) -> BTreeSet<Named> {
        let globs = self.scopes.get(module).map(|scope| scope.globs.as_slice());
        let mut found = BTreeSet::new();
        for path in globs.unwrap_or_default() {
            for named in self.follow(module, path, pending) {
                if let Named::Module(target) = named {
                    found.extend(self.look_up(target, name, pending));
                }
            }
        }
        found
    }
}

impl Scope {
    fn read(items: &[Item]) -> Self {
        let mut scope = Self::default();
        for item in items {
            scope.items.extend(declared_name(item));
            scope.visit_item(item);
        }
        scope
    }
}

impl<'a> Visit<'a> for Scope {
    fn visit_item_use(&mut self, item: &'a ItemUse) {
        if item.leading_colon.is_some() {
            return;
        }
        for import in use_tree::flatten(&item.tree) {
            match import.binding {
                Binding::Name(name) => self.imports.push((name, import.path)),
                Binding::All => self.globs.push(import.path),
                Binding::Nameless => {}
            }
        }
    }

    /// An inline module has a scope of its own.
    fn visit_item_mod(&mut self, _: &'a syn::ItemMod) {}

    fn visit_item(&mut self, item: &'a Item) {
        if !attribute::is_test_only(attribute::of_item(item)) {
            visit::visit_item(self, item);
        }
    }
}

/// Returns the name that an item declares; modules and imports are left out.
fn declared_name(item: &Item) -> Option<String> {
    let name = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::TraitAlias(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        Item::ExternCrate(_)
        | Item::ForeignMod(_)
        | Item::Impl(_)
        | Item::Mod(_)
        | Item::Use(_)
        | Item::Verbatim(_) => return None,
        _ => return None,
    };
    Some(name.to_string())
}

/// Returns whether an import is visible outside of its module.
pub(crate) const fn is_reexport(visibility: &Visibility) -> bool {
    !matches!(visibility, Visibility::Inherited)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::samples::{mk_files, mk_tree};

    /// Returns the paths of the modules in which the items behind a path are declared, and the modules that it names.
    fn resolved(sources: &[(&str, &str)], from: &str, path: &str) -> Vec<String> {
        let files = mk_files(sources);
        let tree = mk_tree(&files);
        let from = tree.modules.iter().position(|it| it.path == from).unwrap();
        let path: Vec<String> = path.split("::").map(str::to_owned).collect();
        let name = |id: ModuleId| tree.modules[id].path.clone();
        Scopes::read(&tree)
            .resolve(from, &path)
            .into_iter()
            .map(|named| match named {
                Named::Module(id) => format!("module {}", name(id)),
                Named::ItemOf(id) => format!("item of {}", name(id)),
            })
            .collect()
    }

    const CRATE: &[(&str, &str)] = &[(
        "src/lib.rs",
        "mod a { mod deep { pub struct D; } pub use deep::D; pub use self::deep::D as E; pub fn a() {} made!(Made); }
         mod b { use super::a; pub use crate::c::*; }
         mod c { pub enum C { One } }
         pub use a::{D, a};
         use serde::Serialize;",
    )];

    #[test]
    fn a_reexport_leads_to_the_module_that_declares_the_item() {
        for (from, path) in [
            ("crate", "D"),
            ("crate::b", "crate::D"),
            ("crate::b", "super::D"),
            ("crate::b", "a::E"),
            ("crate::b", "a::D::new"),
        ] {
            assert_eq!(
                resolved(CRATE, from, path),
                ["item of crate::a::deep"],
                "{path}"
            );
        }
    }

    #[test]
    fn a_glob_and_a_variant_lead_to_the_enum() {
        assert_eq!(
            resolved(CRATE, "crate::a", "super::b::C::One"),
            ["item of crate::c"]
        );
    }

    #[test]
    fn one_name_may_be_a_module_and_an_item() {
        assert_eq!(
            resolved(CRATE, "crate::c", "crate::a"),
            ["module crate::a", "item of crate::a"]
        );
        assert_eq!(
            resolved(CRATE, "crate::c", "crate::a::a"),
            ["item of crate::a"]
        );
    }

    #[test]
    fn an_item_that_a_macro_declares_belongs_to_the_named_module() {
        assert_eq!(
            resolved(CRATE, "crate::c", "crate::a::Made"),
            ["item of crate::a"]
        );
    }

    #[test]
    fn names_of_other_crates_resolve_to_nothing() {
        for path in [
            "Serialize",
            "crate::Serialize",
            "serde::Serialize",
            "Vec::new",
            "u32",
        ] {
            assert_eq!(
                resolved(CRATE, "crate", path),
                Vec::<String>::new(),
                "{path}"
            );
        }
    }
}
