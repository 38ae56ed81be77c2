//! Rule: modules of one crate do not import each other in a circle.

use std::fmt::Write as _;

use crate::finding::Finding;
use crate::graph::{self, Graph};
use crate::imports::{self, Edges};
use crate::tree::{ModuleId, Tree};

/// Returns a finding for each set of modules that reach each other by imports.
pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let edges = imports::edges(tree);
    let graph: Graph = edges
        .iter()
        .map(|(from, edges)| (*from, edges.keys().copied().collect()))
        .collect();
    graph::components(&graph)
        .into_iter()
        .filter_map(|component| {
            let names: Vec<&str> = component.iter().map(|id| name(tree, *id)).collect();
            let circle = graph::shortest_circle(&graph, &component);
            finding(tree, &edges, &names, &circle)
        })
        .collect()
}

fn finding(tree: &Tree, edges: &Edges, names: &[&str], circle: &[ModuleId]) -> Option<Finding> {
    let mut message = format!(
        "{} modules of {} import each other in a circle: {}; move what both sides need into a module of its own",
        names.len(),
        tree.target.name,
        names.join(", ")
    );
    let mut first = None;
    for pair in circle.windows(2) {
        let [from, to] = pair else { continue };
        let site = edges.get(from)?.get(to)?;
        let file = &tree.modules.get(*from)?.file.path;
        first.get_or_insert((file, site.line));
        let (from, to) = (name(tree, *from), name(tree, *to));
        let _ = write!(
            message,
            "\n    {from} -> {to}: {file}:{} names {}",
            site.line, site.path
        );
    }
    let (file, line) = first?;
    Some(Finding {
        file: file.clone(),
        line,
        message,
    })
}

/// Returns the path of a module without `crate::`.
fn name<'a>(tree: &'a Tree, module: ModuleId) -> &'a str {
    let path = tree.modules.get(module).map_or("", |module| &module.path);
    path.strip_prefix("crate::").unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::samples::{mk_files, mk_tree};

    #[test]
    fn a_circle_is_reported_with_the_line_of_each_edge() {
        let files = mk_files(&[
            ("src/lib.rs", "mod a; mod b; mod c;"),
            ("src/a.rs", "use crate::b::B;"),
            ("src/b.rs", "\nuse crate::a::A; use crate::c::C;"),
            ("src/c.rs", "use crate::a::A;"),
        ]);
        let found: Vec<String> = check(&mk_tree(&files))
            .iter()
            .map(Finding::to_string)
            .collect();
        assert_eq!(
            found,
            [
                "src/a.rs:1: 3 modules of sample import each other in a circle: a, b, c; \
              move what both sides need into a module of its own\n    \
              a -> b: src/a.rs:1 names crate::b::B\n    \
              b -> a: src/b.rs:2 names crate::a::A"
            ]
        );
    }

    #[test]
    fn modules_that_import_downwards_only_pass() {
        let files = mk_files(&[
            ("src/lib.rs", "mod a; mod b; pub use a::A;"),
            ("src/a.rs", "use crate::b::B;"),
            ("src/b.rs", "pub struct B;"),
        ]);
        assert_eq!(check(&mk_tree(&files)), []);
    }
}
