//! Nothing names the machine of the person who wrote it.

use std::path::Path;

use super::Finding;
use super::sources::Sources;

/// The person of all examples has a home folder, and no machine.
const EXAMPLE_PERSON: &str = "ada";

/// Where people's own folders are. Written in halves, so that this file does not find itself.
const PERSONAL: &[&str] = &[
    concat!("/ho", "me/"),
    concat!("/Us", "ers/"),
    concat!("/ro", "ot/"),
];

pub(super) fn check(sources: &Sources, root: &Path) -> Vec<Finding> {
    let checkout = root.to_string_lossy();
    // A checkout at the top of the disk has a name that means something else, too.
    let own = (root.components().count() > 2).then_some(checkout.as_ref());
    let mut findings = Vec::new();
    for source in sources.all() {
        for (index, line) in source.text.lines().enumerate() {
            let names = |path: &str| {
                let mut rests = line
                    .match_indices(path)
                    .map(|(at, _)| &line[at + path.len()..]);
                rests.any(|rest| !rest.starts_with(EXAMPLE_PERSON))
            };
            for path in PERSONAL
                .iter()
                .copied()
                .chain(own)
                .filter(|path| names(path))
            {
                let message = format!(
                    "names a path of one machine ({path}…): take it from the caller or a temporary folder"
                );
                findings.push(Finding::new(&source.path, index + 1, message));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::{Path, check};
    use crate::tidy::sources::Sources;

    #[test]
    fn paths_of_one_machine_are_found() {
        let bad = [
            concat!("see /ho", "me/bob/grid"),
            concat!("cd /Us", "ers/bob"),
            "cargo run in /srv/code/grid now",
        ];
        for text in bad {
            assert_eq!(
                check(&Sources::of(&[("a.md", text)]), Path::new("/srv/code/grid")).len(),
                1,
                "{text}"
            );
        }
        assert_eq!(
            check(
                &Sources::of(&[("a.md", "see /tmp/grid")]),
                Path::new("/tmp")
            ),
            []
        );
    }
}
