//! Taking a tree apart, and saying what is wrong with it and where.

use std::collections::BTreeMap;

use grid_core::nearest::nearest;

use super::{Node, Value};
use crate::error::Problem;

/// The file that is read, for messages.
pub(super) struct File<'a> {
    pub(super) name: &'a str,
}

/// Keys and values of a mapping.
pub(super) type Fields<'n> = Vec<(&'n str, &'n Node)>;

impl File<'_> {
    /// What is wrong at a place.
    pub(super) fn wrong(&self, node: &Node, what: impl AsRef<str>) -> Problem {
        Problem::usage(format!("{} {}", self.at(node), what.as_ref()))
    }

    /// The fields of a mapping, which may have `allowed` keys only.
    pub(super) fn fields<'n>(
        &self,
        node: &'n Node,
        place: &str,
        allowed: &[&str],
    ) -> Result<Fields<'n>, Problem> {
        self.fields_and_old(node, place, allowed, &[])
    }

    /// The same, with keys of old files that are not advertised.
    pub(super) fn fields_and_old<'n>(
        &self,
        node: &'n Node,
        place: &str,
        allowed: &[&str],
        old: &[&str],
    ) -> Result<Fields<'n>, Problem> {
        let pairs = match &node.value {
            _ if node.is_null() => return Ok(Vec::new()),
            Value::Mapping(pairs) => pairs,
            _ => {
                let what = format!("{place} must hold `key: value` lines");
                return Err(self
                    .wrong(node, what)
                    .hint(format!("its keys are {}", allowed.join(", "))));
            }
        };
        let mut fields = Vec::with_capacity(pairs.len());
        for (key, value) in pairs {
            let Value::Scalar { text, .. } = &key.value else {
                return Err(self.wrong(key, format!("a key of {place} must be a word")));
            };
            if !allowed.contains(&text.as_str()) && !old.contains(&text.as_str()) {
                return Err(self.unknown(key, text, place, allowed));
            }
            fields.push((text.as_str(), value));
        }
        Ok(fields)
    }

    fn unknown(&self, node: &Node, key: &str, place: &str, allowed: &[&str]) -> Problem {
        let hint = match nearest(key, allowed) {
            Some(meant) => format!(
                "did you mean '{meant}'? Its keys are {}",
                allowed.join(", ")
            ),
            None => format!("its keys are {}", allowed.join(", ")),
        };
        self.wrong(node, format!("{place} has no key '{key}'"))
            .hint(hint)
    }

    /// A word, or nothing.
    pub(super) fn text(&self, node: &Node, key: &str) -> Result<Option<String>, Problem> {
        match &node.value {
            _ if node.is_null() => Ok(None),
            Value::Scalar { text, .. } => Ok(Some(text.clone())),
            _ => Err(self.wrong(node, format!("'{key}' must be a word"))),
        }
    }

    /// A whole number, or nothing.
    pub(super) fn number<N: TryFrom<u64>>(
        &self,
        node: &Node,
        key: &str,
    ) -> Result<Option<N>, Problem> {
        let Some(text) = self.text(node, key)? else {
            return Ok(None);
        };
        let number = text
            .replace('_', "")
            .parse::<u64>()
            .ok()
            .and_then(|n| N::try_from(n).ok());
        match number {
            Some(number) => Ok(Some(number)),
            None => Err(self.wrong(
                node,
                format!("'{key}' must be a whole number, not '{text}'"),
            )),
        }
    }

    /// `True` or `False`, or nothing.
    pub(super) fn boolean(&self, node: &Node, key: &str) -> Result<Option<bool>, Problem> {
        let Some(text) = self.text(node, key)? else {
            return Ok(None);
        };
        match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" => Ok(Some(true)),
            "false" | "no" | "off" => Ok(Some(false)),
            _ => Err(self.wrong(node, format!("'{key}' must be True or False, not '{text}'"))),
        }
    }

    /// One of several words, or nothing.
    pub(super) fn choice<T: Copy>(
        &self,
        node: &Node,
        key: &str,
        choices: &[(&str, T)],
    ) -> Result<Option<T>, Problem> {
        let Some(text) = self.text(node, key)? else {
            return Ok(None);
        };
        if let Some((_, value)) = choices.iter().find(|(name, _)| *name == text) {
            return Ok(Some(*value));
        }
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        let what = format!("'{key}' must be one of {}, not '{text}'", names.join(", "));
        Err(self.wrong(node, what))
    }

    /// Names and texts.
    pub(super) fn texts(
        &self,
        node: &Node,
        key: &str,
    ) -> Result<BTreeMap<String, String>, Problem> {
        let pairs = match &node.value {
            _ if node.is_null() => return Ok(BTreeMap::new()),
            Value::Mapping(pairs) => pairs,
            _ => return Err(self.wrong(node, format!("'{key}' must hold `NAME: value` lines"))),
        };
        let mut texts = BTreeMap::new();
        for (name, node) in pairs {
            let Value::Scalar { text: name, .. } = &name.value else {
                return Err(self.wrong(name, format!("a name in '{key}' must be a word")));
            };
            texts.insert(name.clone(), self.text(node, name)?.unwrap_or_default());
        }
        Ok(texts)
    }

    /// A list of commands; a single one may stand alone.
    pub(super) fn commands(&self, node: &Node, key: &str) -> Result<Vec<String>, Problem> {
        match &node.value {
            Value::Sequence(items) => {
                let items: Result<Vec<_>, _> =
                    items.iter().map(|item| self.text(item, key)).collect();
                Ok(items?.into_iter().flatten().collect())
            }
            _ => Ok(self.text(node, key)?.into_iter().collect()),
        }
    }

    /// The warning about a key that has another name now.
    pub(super) fn renamed(&self, node: &Node, key: &str, now: &str) -> String {
        format!("{} '{key}' is called '{now}' now", self.at(node))
    }

    /// The warning about a key of old files that does nothing.
    pub(super) fn without_effect(&self, node: &Node, key: &str) -> String {
        format!("{} '{key}' has no effect", self.at(node))
    }

    fn at(&self, node: &Node) -> String {
        format!("{}:{}:{}:", self.name, node.line, node.column)
    }
}
