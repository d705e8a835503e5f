//! The phases as a tree: each phase hangs below the one whose checkpoint it started from.

use crate::PhaseReport;

/// A phase (by its place in the report) and the phases that started from it.
pub(crate) struct Node {
    pub(crate) phase: usize,
    pub(crate) children: Vec<Node>,
}

/// The roots of the tree. A phase whose parent is missing, or that is its own ancestor, is a root:
/// a report that was edited by hand must still show every phase exactly once.
pub(crate) fn tree(phases: &[PhaseReport]) -> Vec<Node> {
    let parent = |place: usize| {
        let name = phases[place].parent.as_ref()?;
        // A phase starts from an earlier one, so only those can be parents, which also rules out
        // cycles.
        phases[..place].iter().position(|phase| phase.name == *name)
    };
    below(None, &(0..phases.len()).map(parent).collect::<Vec<_>>())
}

fn below(of: Option<usize>, parents: &[Option<usize>]) -> Vec<Node> {
    let children = parents.iter().enumerate().filter(|(_, parent)| **parent == of);
    children.map(|(phase, _)| Node { phase, children: below(Some(phase), parents) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phase(name: &str, parent: Option<&str>) -> PhaseReport {
        PhaseReport { name: name.into(), parent: parent.map(Into::into), ..PhaseReport::default() }
    }

    fn shape(nodes: &[Node], phases: &[PhaseReport]) -> String {
        let one =
            |node: &Node| format!("{}({})", phases[node.phase].name, shape(&node.children, phases));
        nodes.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn branches() {
        let phases = [
            phase("a", None),
            phase("b", Some("a")),
            phase("c", Some("b")),
            phase("d", Some("b")),
            phase("e", Some("c")),
        ];
        assert_eq!(shape(&tree(&phases), &phases), "a(b(c(e()) d()))");
    }

    #[test]
    fn every_phase_once_even_with_cycles_and_strangers() {
        let phases = [
            phase("a", Some("b")),
            phase("b", Some("a")),
            phase("c", Some("gone")),
            phase("d", Some("d")),
        ];
        assert_eq!(shape(&tree(&phases), &phases), "a(b()) c() d()");
    }
}
