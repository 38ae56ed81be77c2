//! The modules of one library or program, found by its `mod` declarations.

use anyhow::{Context, Result};
use syn::{Item, ItemMod};

use crate::attribute;
use crate::source::SourceFile;
use crate::targets::Target;

/// The position of a module in its tree; 0 is the root.
pub(crate) type ModuleId = usize;

/// The module tree of one library or program.
pub(crate) struct Tree<'a> {
    /// The library or program.
    pub(crate) target: Target,
    /// The modules, each after its parent.
    pub(crate) modules: Vec<Module<'a>>,
}

/// A module: a file, or a `mod name { … }` in one.
pub(crate) struct Module<'a> {
    /// The path from the root, such as `crate::route::link`.
    pub(crate) path: String,
    /// The last name of the path.
    pub(crate) name: String,
    /// The module that declares it; `None` for the root.
    pub(crate) parent: Option<ModuleId>,
    /// The file that it stands in.
    pub(crate) file: &'a SourceFile,
    /// What it declares.
    pub(crate) items: &'a [Item],
    /// Whether it exists in tests only.
    pub(crate) is_test: bool,
    /// The folder of the files of its children.
    folder: String,
}

impl<'a> Tree<'a> {
    /// Follows the `mod` declarations from the root file of a target.
    ///
    /// # Errors
    ///
    /// When a declared module has no file.
    pub(crate) fn grow(target: Target, files: &'a [SourceFile]) -> Result<Self> {
        let file = find(files, &target.root_file)
            .with_context(|| format!("there is no file {}", target.root_file))?;
        let root = Module {
            path: "crate".to_owned(),
            name: "crate".to_owned(),
            parent: None,
            file,
            items: &file.syntax.items,
            is_test: false,
            folder: folder_of(&file.path).to_owned(),
        };
        let mut modules = vec![root];
        let mut next = 0;
        while let Some(parent) = modules.get(next) {
            let children = parent.children(next, files)?;
            modules.extend(children);
            next += 1;
        }
        Ok(Self { target, modules })
    }

    /// Returns the modules that exist outside of tests.
    pub(crate) fn shipped(&self) -> impl Iterator<Item = (ModuleId, &Module<'a>)> {
        let modules = self.modules.iter().enumerate();
        modules.filter(|(_, module)| !module.is_test)
    }

    /// Returns whether a module of this file exists outside of tests.
    pub(crate) fn ships(&self, file: &SourceFile) -> bool {
        self.shipped()
            .any(|(_, module)| module.file.path == file.path)
    }

    /// Returns whether a module is inside of another, at any depth.
    pub(crate) fn is_inside(&self, module: ModuleId, ancestor: ModuleId) -> bool {
        let mut parent = self.parent(module);
        while let Some(id) = parent {
            if id == ancestor {
                return true;
            }
            parent = self.parent(id);
        }
        false
    }

    /// Returns the module that declares a module.
    pub(crate) fn parent(&self, module: ModuleId) -> Option<ModuleId> {
        self.modules.get(module).and_then(|module| module.parent)
    }
}

impl<'a> Module<'a> {
    fn children(&self, id: ModuleId, files: &'a [SourceFile]) -> Result<Vec<Self>> {
        let mut children = Vec::new();
        for item in self.items {
            if let Item::Mod(declaration) = item {
                children.push(self.child(id, declaration, files)?);
            }
        }
        Ok(children)
    }

    fn child(
        &self,
        id: ModuleId,
        declaration: &'a ItemMod,
        files: &'a [SourceFile],
    ) -> Result<Self> {
        let name = declaration.ident.to_string();
        let inline = declaration.content.as_ref();
        let (file, items, folder) = if let Some((_, items)) = inline {
            let folder = join(&self.folder, &name);
            (self.file, items.as_slice(), folder)
        } else {
            let file = self.file_of(&name, declaration, files)?;
            let items = file.syntax.items.as_slice();
            (file, items, folder_of(&file.path).to_owned())
        };
        Ok(Self {
            path: format!("{}::{name}", self.path),
            is_test: self.is_test || name == "tests" || attribute::is_test_only(&declaration.attrs),
            name,
            parent: Some(id),
            file,
            items,
            folder,
        })
    }

    fn file_of(
        &self,
        name: &str,
        declaration: &ItemMod,
        files: &'a [SourceFile],
    ) -> Result<&'a SourceFile> {
        let candidates = match attribute::path_of(&declaration.attrs) {
            Some(path) => vec![join(parent_folder(&self.file.path), &path)],
            None => vec![
                join(&self.folder, &format!("{name}.rs")),
                join(&self.folder, &format!("{name}/mod.rs")),
            ],
        };
        candidates
            .iter()
            .find_map(|path| find(files, path))
            .with_context(|| {
                let line = declaration.ident.span().start().line;
                let tried = candidates.join(" or ");
                format!(
                    "{}:{line}: `mod {name}` needs the file {tried}",
                    self.file.path
                )
            })
    }
}

fn find<'a>(files: &'a [SourceFile], path: &str) -> Option<&'a SourceFile> {
    files.iter().find(|file| file.path == path)
}

/// Returns the folder in which the children of a file's module have their files.
fn folder_of(path: &str) -> &str {
    let folder = parent_folder(path);
    let name = path.rsplit('/').next().unwrap_or(path);
    if ["mod.rs", "lib.rs", "main.rs"].contains(&name) {
        folder
    } else {
        path.strip_suffix(".rs").unwrap_or(path)
    }
}

fn parent_folder(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// Joins a relative path to a folder and resolves its `..`.
fn join(folder: &str, path: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "." | "" => {}
            ".." => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    parts.join("/")
}

/// Builds trees from sources in memory, for the tests of the rules.
#[cfg(test)]
pub(crate) mod samples {
    use super::*;

    /// Parses files from their paths and sources.
    pub(crate) fn mk_files(sources: &[(&str, &str)]) -> Vec<SourceFile> {
        sources
            .iter()
            .map(|(path, source)| {
                SourceFile::parse((*path).to_owned(), (*source).to_owned()).unwrap()
            })
            .collect()
    }

    /// Builds the tree of the crate with the root `src/lib.rs`.
    pub(crate) fn mk_tree(files: &[SourceFile]) -> Tree<'_> {
        let target = Target {
            name: "sample".to_owned(),
            folder: String::new(),
            root_file: "src/lib.rs".to_owned(),
        };
        Tree::grow(target, files).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::samples::{mk_files, mk_tree};
    use super::*;

    #[test]
    fn modules_are_found_beside_below_inline_and_by_path() {
        let files = mk_files(&[
            (
                "src/lib.rs",
                "mod a; mod b; #[path = \"../other/d.rs\"] mod d;",
            ),
            ("src/a.rs", "mod c; mod inline { mod deep; }"),
            ("src/a/c.rs", ""),
            ("src/a/inline/deep.rs", ""),
            ("src/b/mod.rs", "mod e;"),
            ("src/b/e.rs", ""),
            ("other/d.rs", ""),
        ]);
        let tree = mk_tree(&files);
        let found: Vec<(&str, &str)> = tree
            .modules
            .iter()
            .map(|module| (module.path.as_str(), module.file.path.as_str()))
            .collect();
        assert_eq!(
            found,
            [
                ("crate", "src/lib.rs"),
                ("crate::a", "src/a.rs"),
                ("crate::b", "src/b/mod.rs"),
                ("crate::d", "other/d.rs"),
                ("crate::a::c", "src/a/c.rs"),
                ("crate::a::inline", "src/a.rs"),
                ("crate::b::e", "src/b/e.rs"),
                ("crate::a::inline::deep", "src/a/inline/deep.rs"),
            ]
        );
        assert!(tree.is_inside(7, 1));
        assert!(!tree.is_inside(1, 7));
    }

    #[test]
    fn a_module_without_a_file_is_an_error() {
        let files = mk_files(&[("src/lib.rs", "mod gone;")]);
        let target = mk_tree(&mk_files(&[("src/lib.rs", "")])).target;
        let error = Tree::grow(target, &files).err().unwrap();
        assert_eq!(
            error.to_string(),
            "src/lib.rs:1: `mod gone` needs the file src/gone.rs or src/gone/mod.rs"
        );
    }

    #[test]
    fn the_modules_inside_a_test_module_are_tests_too() {
        let files = mk_files(&[("src/lib.rs", "#[cfg(test)] mod x { mod y {} } mod z {}")]);
        let tree = mk_tree(&files);
        let shipped: Vec<&str> = tree
            .shipped()
            .map(|(_, module)| module.path.as_str())
            .collect();
        assert_eq!(shipped, ["crate", "crate::z"]);
    }
}
