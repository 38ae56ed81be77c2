//! Circles in a directed graph.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The nodes that each node leads to.
pub(crate) type Graph = BTreeMap<usize, BTreeSet<usize>>;

/// Returns the sets of more than one node in which each node reaches each other, in the order of their first nodes.
pub(crate) fn components(graph: &Graph) -> Vec<BTreeSet<usize>> {
    let reach: BTreeMap<usize, BTreeSet<usize>> = graph
        .keys()
        .map(|node| (*node, reachable(graph, *node)))
        .collect();
    let reaches = |from: usize, to: usize| reach.get(&from).is_some_and(|it| it.contains(&to));
    let mut components: Vec<BTreeSet<usize>> = Vec::new();
    for node in graph.keys().copied() {
        if components.iter().any(|component| component.contains(&node)) {
            continue;
        }
        let component: BTreeSet<usize> = graph
            .keys()
            .copied()
            .filter(|other| reaches(node, *other) && reaches(*other, node))
            .collect();
        if component.len() > 1 {
            components.push(component);
        }
    }
    components
}

fn reachable(graph: &Graph, start: usize) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    let mut waiting = vec![start];
    while let Some(node) = waiting.pop() {
        for next in successors(graph, node) {
            if found.insert(next) {
                waiting.push(next);
            }
        }
    }
    found
}

/// Returns a shortest circle through nodes of a component, beginning and ending with the same node.
pub(crate) fn shortest_circle(graph: &Graph, component: &BTreeSet<usize>) -> Vec<usize> {
    component
        .iter()
        .filter_map(|node| shortest_way_back(graph, *node))
        .min_by_key(Vec::len)
        .unwrap_or_default()
}

fn shortest_way_back(graph: &Graph, start: usize) -> Option<Vec<usize>> {
    let mut ways = VecDeque::from([vec![start]]);
    let mut seen = BTreeSet::new();
    while let Some(way) = ways.pop_front() {
        for next in successors(graph, *way.last()?) {
            let mut longer = way.clone();
            longer.push(next);
            if next == start {
                return Some(longer);
            }
            if seen.insert(next) {
                ways.push_back(longer);
            }
        }
    }
    None
}

fn successors(graph: &Graph, node: usize) -> impl Iterator<Item = usize> {
    graph.get(&node).into_iter().flatten().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mk_graph(edges: &[(usize, usize)]) -> Graph {
        let mut graph = Graph::new();
        for (from, to) in edges {
            graph.entry(*from).or_default().insert(*to);
            graph.entry(*to).or_default();
        }
        graph
    }

    #[test]
    fn a_graph_without_circles_has_no_components() {
        assert!(components(&mk_graph(&[(1, 2), (1, 3), (2, 4), (3, 4)])).is_empty());
    }

    #[test]
    fn a_component_is_found_once_with_its_shortest_circle() {
        let graph = mk_graph(&[
            (1, 2),
            (2, 3),
            (3, 1),
            (3, 4),
            (4, 3),
            (4, 5),
            (6, 7),
            (7, 6),
        ]);
        let found = components(&graph);
        assert_eq!(
            found,
            [BTreeSet::from([1, 2, 3, 4]), BTreeSet::from([6, 7])]
        );
        assert_eq!(shortest_circle(&graph, &found[0]), [3, 4, 3]);
    }
}
