//! The language of values: one text in, what it stands for out.
//!
//! ```text
//! value  := list | range | choice | sample | scalar
//! list   := '[' [ item { ',' item } [ ',' ] ] ']'
//! item   := quoted | bare | list            -- one level of nesting, flattened
//! range  := 'range' '(' whole [ ',' whole [ ',' whole ] ] ')'
//! choice := 'choice' '(' ( list | range ) ',' count ')'
//! sample := NAME '(' { number ',' } count ')'   -- NAME of a distribution
//! quoted := "'" … "'" | '"' … '"'               -- \\ \' \" \n \t \r; other \x stay
//! scalar := anything else
//! ```
//!
//! What starts as a list, a range or a distribution must be one to its end: a
//! typing error there is an error, never a single odd experiment.  One pair of
//! quotes around a whole value makes it a scalar, and is taken off.

use super::distribution::{Distribution, Number};
use super::error::Problem;
use super::expression::{ARGUMENT_VALUES_MAX, Choices, Expression, Range, quoted, shortened};

impl Expression {
    /// Reads the text of one value.
    pub(super) fn parse(text: &str) -> Result<Self, Problem> {
        let mut cursor = Cursor::new(text);
        cursor.skip_space();
        let expression = match cursor.peek() {
            Some('[') => Self::List(cursor.list(0)?),
            Some(c) if c.is_ascii_lowercase() => match cursor.call_name() {
                Some(name) => cursor.call(name)?,
                None => return Ok(Self::Scalar(text.to_owned())),
            },
            _ => return Ok(Self::Scalar(unquoted(text))),
        };
        cursor.skip_space();
        match cursor.peek() {
            None => Ok(expression),
            Some(_) => Err(cursor.problem("there is more text after the closing bracket")),
        }
    }
}

/// `text` without the one pair of quotes around all of it, if there is one.
fn unquoted(text: &str) -> String {
    let mut cursor = Cursor::new(text);
    if let Some('\'' | '"') = cursor.peek()
        && let Ok(inner) = cursor.quoted()
        && cursor.peek().is_none()
    {
        return inner;
    }
    text.to_owned()
}

/// Reads a value from left to right.
struct Cursor<'a> {
    text: &'a str,
    /// In bytes, always at a character.
    offset: usize,
}

impl<'a> Cursor<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, offset: 0 }
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.offset..).unwrap_or("")
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.offset += c.len_utf8();
        Some(c)
    }

    fn take(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.offset += wanted.len_utf8();
        }
        found
    }

    fn skip_space(&mut self) {
        let rest = self.rest();
        self.offset += rest.len() - rest.trim_start().len();
    }

    /// The place in the value for people, in characters from 1.
    fn position(&self, offset: usize) -> usize {
        self.text
            .get(..offset)
            .map_or(0, |before| before.chars().count())
            + 1
    }

    fn problem(&self, message: impl Into<String>) -> Problem {
        self.problem_at(self.offset, message)
    }

    fn problem_at(&self, offset: usize, message: impl Into<String>) -> Problem {
        Problem::new(message)
            .at(self.position(offset))
            .with_hint(literal_hint(self.text))
    }

    /// After the opening bracket was seen; `depth` lists are open around this one.
    fn list(&mut self, depth: usize) -> Result<Vec<String>, Problem> {
        let opened = self.offset;
        self.take('[');
        let mut items = Vec::new();
        loop {
            self.skip_space();
            match self.peek() {
                None => {
                    return Err(self.problem_at(opened, "the list is not closed: `]` is missing"));
                }
                Some(']') => {
                    self.take(']');
                    return Ok(items);
                }
                Some(',') => return Err(self.problem("a value is missing before the comma")),
                Some('[') if depth > 0 => {
                    return Err(self.problem("lists in lists in lists are not possible"));
                }
                Some('[') => items.append(&mut self.list(depth + 1)?),
                Some('\'' | '"') => items.push(self.quoted()?),
                Some(_) => items.push(self.bare()?),
            }
            if items.len() as u64 > ARGUMENT_VALUES_MAX {
                return Err(self.problem(format!(
                    "the list has more than {ARGUMENT_VALUES_MAX} values"
                )));
            }
            self.skip_space();
            match self.peek() {
                Some(',') => {
                    self.take(',');
                }
                Some(']') | None => {}
                Some(_) => return Err(self.problem("a comma or `]` is missing")),
            }
        }
    }

    fn quoted(&mut self) -> Result<String, Problem> {
        let opened = self.offset;
        let quote = self.next();
        let mut out = String::new();
        while let Some(c) = self.next() {
            if Some(c) == quote {
                return Ok(out);
            }
            if c != '\\' {
                out.push(c);
                continue;
            }
            match self.next() {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some('r') => out.push('\r'),
                Some(c @ ('\\' | '\'' | '"')) => out.push(c),
                Some(other) => out.extend(['\\', other]),
                None => out.push('\\'),
            }
        }
        Err(self.problem_at(opened, "the quote is not closed"))
    }

    /// An item without quotes, up to the comma or bracket that ends it.
    /// Brackets inside it are kept together: `(1, 2)` and `{"a": [1, 2]}` are one item.
    fn bare(&mut self) -> Result<String, Problem> {
        let start = self.offset;
        let mut open = Vec::new();
        while let Some(c) = self.peek() {
            match c {
                ',' | ']' if open.is_empty() => break,
                '(' => open.push(')'),
                '[' => open.push(']'),
                '{' => open.push('}'),
                ')' | ']' | '}' if open.last() == Some(&c) => {
                    open.pop();
                }
                '\'' | '"' if !open.is_empty() => {
                    self.quoted()?;
                    continue;
                }
                _ => {}
            }
            self.next();
        }
        if let Some(missing) = open.pop() {
            return Err(self.problem_at(start, format!("`{missing}` is missing in this item")));
        }
        let item = self.text.get(start..self.offset).unwrap_or("");
        Ok(item.trim_end().to_owned())
    }

    /// The name of a call, if this is one of ours; the cursor is then after `(`.
    fn call_name(&mut self) -> Option<&'a str> {
        let rest = self.rest();
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_')?;
        let (name, after) = rest.split_at(end);
        let inside = after.trim_start().strip_prefix('(')?;
        let known = matches!(name, "range" | "choice") || Distribution::named(name).is_some();
        // `f` is also what everybody calls a function: `f(x)` is left alone.
        let number_follows = || {
            inside
                .trim_start()
                .starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c))
        };
        if !known || (name == "f" && !number_follows()) {
            return None;
        }
        self.offset = self.text.len() - inside.len();
        Some(name)
    }

    fn call(&mut self, name: &str) -> Result<Expression, Problem> {
        let opened = self.offset - 1;
        if name == "range" {
            return Ok(Expression::Range(self.range(opened)?));
        }
        match Distribution::named(name) {
            Some(distribution) => self.sample(opened, distribution),
            None => self.choice(opened),
        }
    }

    fn range(&mut self, opened: usize) -> Result<Range, Problem> {
        let numbers = self.numbers(opened)?;
        let mut wholes = [0_i64; 3];
        for (slot, &(number, offset)) in wholes.iter_mut().zip(&numbers) {
            let Number::Whole(whole) = number else {
                let message = format!("range takes whole numbers, and {number} is not one");
                let hint = "write the values as a list, or use uniform(low, high, count)";
                return Err(self.problem_at(offset, message).with_hint(hint));
            };
            *slot = whole;
        }
        let range = match (numbers.len(), wholes) {
            (1, [stop, ..]) => Range {
                start: 0,
                stop,
                step: 1,
            },
            (2, [start, stop, _]) => Range {
                start,
                stop,
                step: 1,
            },
            (3, [start, stop, step]) => Range { start, stop, step },
            (count, _) => {
                let message =
                    format!("range takes 1 to 3 numbers (start, stop, step), {count} are given");
                return Err(self.problem_at(opened, message));
            }
        };
        if range.step == 0 {
            let offset = numbers.last().map_or(opened, |&(_, offset)| offset);
            return Err(self.problem_at(offset, "the step of a range cannot be 0"));
        }
        Ok(range)
    }

    fn sample(
        &mut self,
        opened: usize,
        distribution: &'static Distribution,
    ) -> Result<Expression, Problem> {
        let mut numbers = self.numbers(opened)?;
        let (wanted, given) = (distribution.parameters.len() + 1, numbers.len());
        let signature = distribution.signature();
        let wrong_count = || {
            let plural = if wanted == 1 { "" } else { "s" };
            format!("{signature} takes {wanted} number{plural}, {given} given")
        };
        if given != wanted {
            let hint = format!("write {signature}; the last number is how many values to draw");
            return Err(self.problem_at(opened, wrong_count()).with_hint(hint));
        }
        let Some((count, offset)) = numbers.pop() else {
            return Err(self.problem_at(opened, wrong_count()));
        };
        let count = self.count(count, offset, &signature)?;
        let parameters: Vec<Number> = numbers.iter().map(|&(number, _)| number).collect();
        for (_, offset) in &mut numbers {
            *offset = self.position(*offset);
        }
        distribution
            .check(&numbers)
            .map_err(|problem| problem.with_hint(literal_hint(self.text)))?;
        Ok(Expression::Sample {
            distribution,
            parameters,
            count,
        })
    }

    fn choice(&mut self, opened: usize) -> Result<Expression, Problem> {
        const FORM: &str = "choice takes a list and how many values to draw: choice([a, b], 5)";
        self.skip_space();
        let start = self.offset;
        let from = if self.peek() == Some('[') {
            Choices::List(self.list(0)?)
        } else if self.call_name() == Some("range") {
            Choices::Range(self.range(start)?)
        } else {
            return Err(self.problem_at(start, FORM));
        };
        self.skip_space();
        if !self.take(',') {
            return Err(self.problem(FORM));
        }
        let numbers = self.numbers(opened)?;
        let [(count, offset)] = numbers[..] else {
            return Err(self.problem_at(opened, FORM));
        };
        let count = self.count(count, offset, "choice([…], count)")?;
        if from.len() == 0 && count > 0 {
            return Err(self.problem_at(start, "there is nothing to choose from"));
        }
        Ok(Expression::Choice { from, count })
    }

    fn count(&self, count: Number, offset: usize, signature: &str) -> Result<u64, Problem> {
        match count {
            Number::Whole(whole) if whole >= 0 => Ok(whole.unsigned_abs()),
            _ => {
                let message = format!(
                    "the last number of {signature} is how many values to draw; {count} is not a count"
                );
                Err(self.problem_at(offset, message))
            }
        }
    }

    /// The numbers of a call up to its closing bracket, each with its offset.
    fn numbers(&mut self, opened: usize) -> Result<Vec<(Number, usize)>, Problem> {
        /// No call takes more; further ones need not be kept to be counted wrong.
        const NUMBERS_MAX: usize = 16;
        let mut numbers = Vec::new();
        self.skip_space();
        if self.take(')') {
            return Ok(numbers);
        }
        loop {
            self.skip_space();
            let start = self.offset;
            let rest = self.rest();
            let Some(end) = rest.find([',', ')']) else {
                return Err(self.problem_at(opened, "the bracket is not closed: `)` is missing"));
            };
            let text = rest[..end].trim_end();
            if text.is_empty() {
                return Err(self.problem("a number is missing"));
            }
            let Some(number) = Number::parse(text) else {
                return Err(
                    self.problem_at(start, format!("`{}` is not a number", shortened(text)))
                );
            };
            if numbers.len() == NUMBERS_MAX {
                return Err(self.problem_at(start, "too many numbers"));
            }
            numbers.push((number, start));
            self.offset += end;
            if self.next() == Some(')') {
                return Ok(numbers);
            }
        }
    }
}

fn literal_hint(text: &str) -> String {
    /// Longer values are not repeated in a hint.
    const REPEATED_MAX: usize = 60;
    let how = "or run with --strategy none to pass every argument as it is";
    if text.len() > REPEATED_MAX {
        return format!(
            "to pass it to the script as it is, put it in quotes within quotes (\"'…'\"), {how}"
        );
    }
    format!(
        "to pass it to the script as it is, put it in quotes within quotes (\"{}\"), {how}",
        quoted(text)
    )
}
