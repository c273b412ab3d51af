//! Patterns as shells have them.

/// A pattern of file names: `*`, `?`, `[…]`.
#[derive(Debug)]
pub(super) struct Pattern(Vec<Part>);

#[derive(Debug)]
enum Part {
    Literal(char),
    Any,
    Many,
    Class {
        items: Vec<(char, char)>,
        is_negated: bool,
    },
}

impl Pattern {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn parse(text: &[(char, bool)]) -> Self {
        let mut parts = Vec::new();
        let mut at = 0;
        while let Some((c, is_literal)) = text.get(at) {
            at += 1;
            parts.push(match (c, is_literal) {
                ('*', false) => Part::Many,
                ('?', false) => Part::Any,
                ('[', false) => match class(&text[at..]) {
                    Some((part, taken)) => {
                        at += taken;
                        part
                    }
                    None => Part::Literal('['),
                },
                (c, _) => Part::Literal(*c),
            });
        }
        Self(parts)
    }

    /// Whether all of `text` matches.
    pub(super) fn matches(&self, text: &[char]) -> bool {
        // The last `*` and where its match began: what is tried again when the rest fails.
        let (mut part, mut at, mut star) = (0, 0, None);
        while at < text.len() || part < self.0.len() {
            match (self.0.get(part), text.get(at)) {
                (Some(Part::Many), _) => {
                    star = Some((part, at));
                    part += 1;
                    continue;
                }
                (Some(one), Some(c)) if one.matches(*c) => {
                    part += 1;
                    at += 1;
                    continue;
                }
                _ => {}
            }
            match star {
                Some((star_part, star_at)) if star_at < text.len() => {
                    star = Some((star_part, star_at + 1));
                    part = star_part + 1;
                    at = star_at + 1;
                }
                _ => return false,
            }
        }
        true
    }
}

impl Part {
    fn matches(&self, c: char) -> bool {
        match self {
            Self::Literal(own) => *own == c,
            Self::Any | Self::Many => true,
            Self::Class { items, is_negated } => {
                items.iter().any(|(from, to)| (*from..=*to).contains(&c)) != *is_negated
            }
        }
    }
}

/// What follows a `[`, up to its `]`.
fn class(text: &[(char, bool)]) -> Option<(Part, usize)> {
    let is_negated = matches!(text.first(), Some(('!' | '^', false)));
    let begin = usize::from(is_negated);
    let length = text
        .iter()
        .skip(begin + 1)
        .position(|c| *c == (']', false))?
        + 1;
    let inside = text.get(begin..begin + length)?;
    let mut items = Vec::new();
    let mut at = 0;
    while let Some((from, _)) = inside.get(at) {
        match (inside.get(at + 1), inside.get(at + 2)) {
            (Some(('-', false)), Some((to, _))) => {
                items.push((*from, *to));
                at += 3;
            }
            _ => {
                items.push((*from, *from));
                at += 1;
            }
        }
    }
    Some((Part::Class { items, is_negated }, begin + length + 1))
}
