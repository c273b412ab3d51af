//! Variable substitution in actions: the string operators of bash, for the variables
//! of the experiment.
//!
//! Actions are run by `sh`, which has some of the operators itself (`${p:-d}`,
//! `${p:=d}`, `${p=d}`) and is left to do those.  The others (`${p^^}`, `${p:1:2}`,
//! `${p/s/r}`, and those that some shells do by bytes instead of by letters: `${#p}`,
//! `${p#s}`, `${p%s}`) are worked out here.  The result is not pasted into the
//! command, where quotes and blanks in it would mean something: it becomes a variable
//! of its own, and the expression is replaced by that variable.  So the shell treats
//! it as it would have treated the expression.
//!
//! What cannot be worked out beforehand is left as it is: variables that only the
//! action itself sets, and operands with commands in them.

mod pattern;

use std::collections::BTreeMap;

use self::pattern::Pattern;

/// Most expressions of one action.  Higher: an absurd action makes an absurd
/// environment; lower: a long honest one is left to the shell.
const EXPRESSIONS_MAX: usize = 1_000;

/// How deep operands may hold expressions.
const DEPTH_MAX: usize = 10;

/// A command, and the variables that it refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Substituted {
    pub(crate) command: String,
    pub(crate) variables: Vec<(String, String)>,
}

/// Works out the expressions of a command.
pub(crate) fn substitute(command: &str, all: &BTreeMap<String, String>) -> Substituted {
    let mut done = Substituted {
        command: String::new(),
        variables: Vec::new(),
    };
    let mut rest = command;
    let mut in_single = false;
    let mut in_double = false;
    while let Some(next) = rest.chars().next() {
        let mut width = next.len_utf8();
        match next {
            '\\' if !in_single => {
                width += rest
                    .get(1..)
                    .and_then(|rest| rest.chars().next())
                    .map_or(0, char::len_utf8);
            }
            '\'' if !in_double => in_single = !in_single,
            '"' if !in_single => in_double = !in_double,
            '$' if !in_single && rest.starts_with("${") => {
                if let Some((value, taken)) = expression(rest, all, 0)
                    && done.variables.len() < EXPRESSIONS_MAX
                {
                    let name = fresh_name(all, done.variables.len());
                    done.command.push_str(&format!("${{{name}}}"));
                    done.variables.push((name, value));
                    rest = rest.get(taken..).unwrap_or_default();
                    continue;
                }
            }
            _ => {}
        }
        let (taken, after) = rest.split_at(width.min(rest.len()));
        done.command.push_str(taken);
        rest = after;
    }
    done
}

/// A name that nothing has: names of earlier actions are in `all` by then.
fn fresh_name(all: &BTreeMap<String, String>, number: usize) -> String {
    let begin = all
        .keys()
        .filter(|name| name.starts_with("GRID_SUBSTITUTED_"))
        .count();
    format!("GRID_SUBSTITUTED_{}", begin + number + 1)
}

/// The value of the expression that a text begins with, and its length; `None` for
/// what the shell does itself or what is not known.
fn expression(text: &str, all: &BTreeMap<String, String>, depth: usize) -> Option<(String, usize)> {
    let end = closing(text)?;
    let inner = text.get(2..end)?;
    if let Some(value) = inner.strip_prefix('#').and_then(|name| all.get(name)) {
        return Some((value.chars().count().to_string(), end + 1));
    }
    let name_len = inner
        .bytes()
        .take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
        .count();
    let (name, operator) = inner.split_at(name_len);
    if name.is_empty() || name.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    let value = all.get(name)?;
    Some((apply(value, operator, all, depth)?, end + 1))
}

fn apply(
    value: &str,
    operator: &str,
    all: &BTreeMap<String, String>,
    depth: usize,
) -> Option<String> {
    match operator {
        "^^" => return Some(value.chars().map(upper).collect()),
        ",," => return Some(value.chars().map(lower).collect()),
        "^" => return Some(first(value, upper)),
        "," => return Some(first(value, lower)),
        _ => {}
    }
    if let Some(range) = operator.strip_prefix(':') {
        // `:-`, `:=`, `:+` and `:?` are the shell's.
        return if range.starts_with(['-', '=', '+', '?']) {
            None
        } else {
            slice(value, range)
        };
    }
    if operator.starts_with(['#', '%']) {
        return trimmed(value, operator, all, depth);
    }
    let replace = operator.strip_prefix('/')?;
    let (mode, replace) = match replace.chars().next() {
        Some('/') => (Mode::All, replace.get(1..)?),
        Some('#') => (Mode::Front, replace.get(1..)?),
        Some('%') => (Mode::Back, replace.get(1..)?),
        _ => (Mode::First, replace),
    };
    let (pattern, by) = split_replacement(replace, mode);
    let pattern = Pattern::parse(&operand(pattern, all, depth)?);
    let by: String = operand(by, all, depth)?
        .into_iter()
        .map(|(c, _)| c)
        .collect();
    Some(replaced(value, &pattern, &by, mode))
}

/// `#s`, `##s`, `%s` and `%%s`: the value without what matches at an end of it.
fn trimmed(
    value: &str,
    operator: &str,
    all: &BTreeMap<String, String>,
    depth: usize,
) -> Option<String> {
    let is_front = operator.starts_with('#');
    let rest = operator.get(1..)?;
    let longest = rest.strip_prefix(if is_front { '#' } else { '%' });
    let pattern = Pattern::parse(&operand(longest.unwrap_or(rest), all, depth)?);
    let chars: Vec<char> = value.chars().collect();
    let kept = |length: usize| {
        if is_front {
            chars.split_at(length).1
        } else {
            chars.split_at(chars.len() - length).0
        }
    };
    let cut = |length: usize| {
        if is_front {
            chars.split_at(length).0
        } else {
            chars.split_at(chars.len() - length).1
        }
    };
    let is_match = |length: &usize| pattern.matches(cut(*length));
    let mut lengths = 0..=chars.len();
    let length = if longest.is_some() {
        lengths.rev().find(is_match)
    } else {
        lengths.find(is_match)
    };
    Some(kept(length.unwrap_or(0)).iter().collect())
}

fn first(value: &str, change: impl Fn(char) -> char) -> String {
    let mut chars = value.chars();
    match chars.next() {
        Some(first) => format!("{}{}", change(first), chars.as_str()),
        None => String::new(),
    }
}

/// A letter for a letter: what would become two stays as it is, as in bash.
fn upper(c: char) -> char {
    let mut all = c.to_uppercase();
    all.next().filter(|_| all.next().is_none()).unwrap_or(c)
}

fn lower(c: char) -> char {
    let mut all = c.to_lowercase();
    all.next().filter(|_| all.next().is_none()).unwrap_or(c)
}

/// `pos` or `pos:len`; negative ones count from the end.
fn slice(value: &str, range: &str) -> Option<String> {
    let (from, len) = match range.split_once(':') {
        Some((from, len)) => (number(from)?, Some(number(len)?)),
        None => (number(range)?, None),
    };
    let chars: Vec<char> = value.chars().collect();
    let count = i64::try_from(chars.len()).ok()?;
    let begin = if from < 0 { count + from } else { from };
    if begin < 0 || begin > count {
        return Some(String::new());
    }
    let end = match len {
        None => count,
        Some(len) if len < 0 => count + len,
        Some(len) => begin.saturating_add(len).min(count),
    };
    // Where the end is before the beginning, bash complains; the shell here will too.
    let (begin, end) = (usize::try_from(begin).ok()?, usize::try_from(end).ok()?);
    chars.get(begin..end).map(|part| part.iter().collect())
}

fn number(text: &str) -> Option<i64> {
    let text = text.trim();
    let text = text
        .strip_prefix('(')
        .and_then(|text| text.strip_suffix(')'))
        .unwrap_or(text)
        .trim();
    if text.is_empty() {
        Some(0)
    } else {
        text.parse().ok()
    }
}

/// Pattern and replacement, parted at the first `/` that is neither quoted nor escaped.
fn split_replacement(text: &str, mode: Mode) -> (&str, &str) {
    let mut quote = None;
    let mut chars = text.char_indices();
    // After two slashes, a third is what is looked for.
    let mut is_first = mode == Mode::All;
    while let Some((at, c)) = chars.next() {
        match (c, quote) {
            ('\\', None | Some('"')) => drop(chars.next()),
            ('\'' | '"', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            ('/', None) if !is_first => return (&text[..at], &text[at + 1..]),
            _ => {}
        }
        is_first = false;
    }
    (text, "")
}

/// An operand without its quotes, each character with whether it stands for itself;
/// `None` when it cannot be known beforehand.
fn operand(text: &str, all: &BTreeMap<String, String>, depth: usize) -> Option<Vec<(char, bool)>> {
    if depth > DEPTH_MAX {
        return None;
    }
    let mut out = Vec::new();
    let mut quote = None;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let mut taken = c.len_utf8();
        match (c, quote) {
            ('\\', None) => {
                let escaped = rest.get(1..)?.chars().next()?;
                out.push((escaped, true));
                taken += escaped.len_utf8();
            }
            ('\\', Some('"')) => {
                let escaped = rest.get(1..)?.chars().next()?;
                if !matches!(escaped, '$' | '`' | '"' | '\\') {
                    out.push(('\\', true));
                }
                out.push((escaped, true));
                taken += escaped.len_utf8();
            }
            ('\'' | '"', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            ('`', None | Some('"')) => return None,
            ('$', None | Some('"')) => {
                let (value, length) = variable(rest, all, depth)?;
                out.extend(value.chars().map(|c| (c, quote.is_some())));
                taken = length;
            }
            (c, quote) => out.push((c, quote.is_some())),
        }
        rest = rest.get(taken..)?;
    }
    quote.is_none().then_some(out)
}

/// The value of `$name` or `${…}` at the beginning of a text, and its length.
fn variable(text: &str, all: &BTreeMap<String, String>, depth: usize) -> Option<(String, usize)> {
    if text.starts_with("${") {
        let end = closing(text)?;
        let name = text.get(2..end)?;
        let known = all.get(name).map(|value| (value.clone(), end + 1));
        return known.or_else(|| expression(text, all, depth + 1));
    }
    let name = text.get(1..)?;
    let length = name
        .bytes()
        .take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
        .count();
    let name = name.get(..length)?;
    if name.is_empty() {
        return None;
    }
    Some((all.get(name)?.clone(), length + 1))
}

/// Where the brace is closed that a text begins with, after its `$`.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0;
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match (c, quote) {
            ('\\', None | Some('"')) => drop(chars.next()),
            ('\'' | '"', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            ('{', None) => depth += 1,
            ('}', None) => {
                depth -= 1;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    First,
    All,
    Front,
    Back,
}

fn replaced(value: &str, pattern: &Pattern, by: &str, mode: Mode) -> String {
    let chars: Vec<char> = value.chars().collect();
    if pattern.is_empty() {
        // Nothing to look for; at an end it is found all the same.
        return match mode {
            Mode::Front => format!("{by}{value}"),
            Mode::Back => format!("{value}{by}"),
            Mode::First | Mode::All => value.to_owned(),
        };
    }
    if mode == Mode::Back {
        let begin = (0..=chars.len()).find(|begin| pattern.matches(&chars[*begin..]));
        return match begin {
            Some(begin) => chars[..begin].iter().collect::<String>() + by,
            None => value.to_owned(),
        };
    }
    let mut out = String::new();
    let mut at = 0;
    while at <= chars.len() {
        // An empty match is only one in an empty value.
        let least = if chars.is_empty() { 0 } else { at + 1 };
        let longest = (least..=chars.len())
            .rev()
            .find(|end| pattern.matches(&chars[at..*end]));
        if let Some(end) = longest {
            out.push_str(by);
            at = end;
            if mode != Mode::All || chars.is_empty() {
                break;
            }
        } else {
            if mode == Mode::Front {
                break;
            }
            out.extend(chars.get(at));
            at += 1;
        }
    }
    out.extend(chars.get(at..).unwrap_or_default());
    out
}

#[cfg(test)]
mod tests;
