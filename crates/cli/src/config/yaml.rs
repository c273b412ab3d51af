//! YAML as a tree in which every value knows its line and column.
//!
//! Scalars keep the text that was written: `1e-5` stays `1e-5`, because the script
//! gets it as it is.

use std::collections::HashMap;
use std::fmt;

use granit_parser::{Event, Parser, ScalarStyle, Span};

/// Values of one file.  Higher: aliases of aliases fill the memory.  Lower: long lists are refused.
const NODES_MAX: usize = 100_000;

/// Levels of nesting.  Higher: a crafted file exhausts the stack.  Lower: nothing real is that deep.
const DEPTH_MAX: usize = 64;

/// A value and where it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    /// From 1.
    pub(super) line: usize,
    /// From 1, in characters.
    pub(super) column: usize,
    /// What it is.
    pub(super) value: Value,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// Text; plain when it was written without quotes.
    Scalar {
        /// As written, without quotes.
        text: String,
        /// Without quotes: `null`, `true` and numbers mean what they say.
        is_plain: bool,
    },
    /// A list.
    Sequence(Vec<Node>),
    /// Keys and values in the order of the file.
    Mapping(Vec<(Node, Node)>),
}

impl Node {
    /// Whether it says that there is nothing.
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, is_plain: true }
            if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    fn size(&self) -> usize {
        1 + match &self.value {
            Value::Scalar { .. } => 0,
            Value::Sequence(items) => items.iter().map(Self::size).sum::<usize>(),
            Value::Mapping(pairs) => pairs
                .iter()
                .map(|(k, v)| k.size() + v.size())
                .sum::<usize>(),
        }
    }
}

/// Text that is not one YAML document, and where it stops being one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Error {
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) message: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Reads one document.  An empty file is an empty scalar.
pub(super) fn parse(text: &str) -> Result<Node, Error> {
    let mut builder = Builder::default();
    for next in Parser::new_from_str(text) {
        let (event, span) = next.map_err(|error| Error {
            line: error.marker().line().max(1),
            column: error.marker().col() + 1,
            message: reason(&error.to_string()),
        })?;
        builder.take(event, span)?;
    }
    Ok(builder.root.unwrap_or(Node {
        line: 1,
        column: 1,
        value: scalar("", true),
    }))
}

/// The parser adds the place to its message; ours stands in front.
fn reason(message: &str) -> String {
    let end = [" at byte ", " at char "]
        .iter()
        .filter_map(|mark| message.find(mark))
        .min();
    message[..end.unwrap_or(message.len())].to_owned()
}

#[derive(Default)]
struct Builder {
    root: Option<Node>,
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    n_nodes: usize,
}

/// A list or mapping whose end has not come.
struct Open {
    line: usize,
    column: usize,
    anchor: usize,
    is_mapping: bool,
    /// Of a mapping: key, value, key, value.
    items: Vec<Node>,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Error> {
        let (line, column) = (span.start.line().max(1), span.start.col() + 1);
        let error = |message: &str| {
            Err(Error {
                line,
                column,
                message: message.to_owned(),
            })
        };
        match event {
            Event::DocumentStart(..) if self.root.is_some() => {
                return error("a second document begins here; one file holds one");
            }
            Event::Scalar(text, style, anchor, _) => {
                let value = scalar(&text, style == ScalarStyle::Plain);
                self.add(
                    Node {
                        line,
                        column,
                        value,
                    },
                    anchor,
                    1,
                )?;
            }
            Event::SequenceStart(..) | Event::MappingStart(..) if self.open.len() >= DEPTH_MAX => {
                return error("the nesting is too deep");
            }
            Event::SequenceStart(_, anchor, _) => self.start(line, column, anchor, false),
            Event::MappingStart(_, anchor, _) => self.start(line, column, anchor, true),
            Event::SequenceEnd | Event::MappingEnd => self.end()?,
            Event::Alias(anchor) => match self.anchors.get(&anchor) {
                Some(node) => {
                    let size = node.size();
                    let value = if self.n_nodes + size > NODES_MAX {
                        scalar("", true)
                    } else {
                        node.value.clone()
                    };
                    self.add(
                        Node {
                            line,
                            column,
                            value,
                        },
                        0,
                        size,
                    )?;
                }
                None => return error("the alias refers to something that is not finished"),
            },
            _ => {}
        }
        Ok(())
    }

    fn start(&mut self, line: usize, column: usize, anchor: usize, is_mapping: bool) {
        self.open.push(Open {
            line,
            column,
            anchor,
            is_mapping,
            items: Vec::new(),
        });
    }

    fn end(&mut self) -> Result<(), Error> {
        let Some(Open {
            line,
            column,
            anchor,
            is_mapping,
            items,
        }) = self.open.pop()
        else {
            return Ok(());
        };
        let value = if is_mapping {
            let mut pairs: Vec<(Node, Node)> = Vec::new();
            let mut items = items.into_iter();
            while let (Some(key), Some(value)) = (items.next(), items.next()) {
                if pairs.iter().any(|(known, _)| known.value == key.value) {
                    let message = match &key.value {
                        Value::Scalar { text, .. } => format!("the key '{text}' is there twice"),
                        _ => "a key is there twice".to_owned(),
                    };
                    return Err(Error {
                        line: key.line,
                        column: key.column,
                        message,
                    });
                }
                pairs.push((key, value));
            }
            Value::Mapping(pairs)
        } else {
            Value::Sequence(items)
        };
        self.add(
            Node {
                line,
                column,
                value,
            },
            anchor,
            1,
        )
    }

    /// Adds a value that holds `size` values which were not counted yet.
    fn add(&mut self, node: Node, anchor: usize, size: usize) -> Result<(), Error> {
        self.n_nodes += size;
        if self.n_nodes > NODES_MAX {
            let message = format!("there are more than {NODES_MAX} values");
            return Err(Error {
                line: node.line,
                column: node.column,
                message,
            });
        }
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut() {
            Some(open) => open.items.push(node),
            None => self.root = Some(node),
        }
        Ok(())
    }
}

fn scalar(text: &str, is_plain: bool) -> Value {
    Value::Scalar {
        text: text.to_owned(),
        is_plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_know_where_they_are_and_keep_their_text() -> Result<(), Error> {
        let root = parse("a:\n  lr: 1e-5\n  'q': \"x: y\"\n")?;
        let Value::Mapping(top) = &root.value else {
            panic!("{root:?}")
        };
        let Value::Mapping(inner) = &top[0].1.value else {
            panic!("{root:?}")
        };
        let (key, value) = &inner[0];
        assert_eq!((key.line, key.column), (2, 3));
        assert_eq!((value.line, value.column), (2, 7));
        assert_eq!(value.value, scalar("1e-5", true));
        assert_eq!(inner[1].1.value, scalar("x: y", false));
        Ok(())
    }

    #[test]
    fn what_is_not_yaml_is_refused_with_its_place() {
        for (text, line) in [
            ("a: [1, 2\nb: 3\n", 2),
            ("a: 1\na: 2\n", 2),
            ("a: 1\n---\nb: 2\n", 2),
            ("a:\n\t- x\n", 2),
            ("x: *nobody\n", 1),
        ] {
            let error = parse(text).map_err(|error| error.line);
            assert_eq!(error.err(), Some(line), "{text:?}: {:?}", parse(text));
        }
    }

    #[test]
    fn aliases_of_aliases_end() {
        let mut text = "a: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for n in 1..12 {
            let list = vec![format!("*a{}", n - 1); 9].join(", ");
            text.push_str(&format!("b{n}: &a{n} [{list}]\n"));
        }
        assert!(parse(&text).is_err());
        assert!(parse(&"[".repeat(10_000)).is_err());
    }
}
