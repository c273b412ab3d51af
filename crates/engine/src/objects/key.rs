//! Keys, taken apart.

use grid_core::name::ExperimentName;

/// The folder of datastores.
pub(super) const DATASTORES: &str = "datastores/";

/// The folder of artifacts.
pub(super) const ARTIFACTS: &str = "artifacts/";

/// What stands for the version that is being made.
pub(super) const NEXT: &str = "next";

/// What a key names.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Key<'a> {
    /// A file of a version.
    File {
        user: &'a str,
        datastore: &'a str,
        version: u32,
        path: &'a str,
    },
    /// A file of the version that is being made.
    Staged {
        user: &'a str,
        datastore: &'a str,
        path: &'a str,
    },
    /// A file that an experiment left behind.
    Artifact {
        user: &'a str,
        run: &'a str,
        experiment: u32,
        path: &'a str,
    },
}

impl<'a> Key<'a> {
    /// Takes a key apart; `None` where nothing can be under it.
    pub(super) fn parse(key: &'a str) -> Option<Self> {
        // Databases do not take it, and no name has it.
        if key.contains('\0') {
            return None;
        }
        let mut parts = key.splitn(5, '/');
        let kind = parts.next()?;
        let (user, thing, one) = (parts.next()?, parts.next()?, parts.next()?);
        let path = parts.next().filter(|path| !path.is_empty())?;
        match kind {
            "datastores" if one == NEXT => Some(Self::Staged {
                user,
                datastore: thing,
                path,
            }),
            "datastores" => Some(Self::File {
                user,
                datastore: thing,
                version: number(one)?,
                path,
            }),
            "artifacts" => {
                let name = ExperimentName::parse(one).ok()?;
                (name.run().as_str() == thing && name.to_string() == one).then_some(
                    Self::Artifact {
                        user,
                        run: thing,
                        experiment: name.index(),
                        path,
                    },
                )
            }
            _ => None,
        }
    }
}

/// A number as it is written in keys: each in one way only.
fn number(text: &str) -> Option<u32> {
    let number: u32 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_names_one_thing() {
        let file = Key::File {
            user: "ada",
            datastore: "cats",
            version: 3,
            path: "a/b.txt",
        };
        assert_eq!(Key::parse("datastores/ada/cats/3/a/b.txt"), Some(file));
        let staged = Key::Staged {
            user: "ada",
            datastore: "cats",
            path: ".commit",
        };
        assert_eq!(Key::parse("datastores/ada/cats/next/.commit"), Some(staged));
        let artifact = Key::Artifact {
            user: "ada@example.org",
            run: "bert-1",
            experiment: 0,
            path: "model.pt",
        };
        let key = "artifacts/ada@example.org/bert-1/bert-1-exp0/model.pt";
        assert_eq!(Key::parse(key), Some(artifact));
        for none in [
            "",
            "/",
            "x",
            "datastores/",
            "datastores/ada/cats/3",
            "datastores/ada/cats/3/",
            "datastores/ada/cats/03/a",
            "datastores/ada/cats/+3/a",
            "datastores/ada/cats/x/a",
            "artifacts/ada/bert-1/other-exp0/a",
            "artifacts/ada/bert-1/bert-1-exp00/a",
            "models/ada/x/1/a",
        ] {
            assert_eq!(Key::parse(none), None, "{none}");
        }
    }
}
