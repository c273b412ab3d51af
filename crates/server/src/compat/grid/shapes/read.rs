//! Reading generously: null is nothing, text may be a number and a number text.

use std::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};

/// Null like what was left out.
pub(in crate::compat::grid) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A whole number, or text that is one; nothing for null and empty text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::compat::grid) struct Number(pub(in crate::compat::grid) Option<i64>);

impl Number {
    /// The number, if there is one above zero: the client sends zero for "not said".
    pub(in crate::compat::grid) fn positive<T: TryFrom<i64>>(
        self,
        what: &str,
    ) -> Result<Option<T>, String> {
        match self.0 {
            None | Some(0) => Ok(None),
            Some(number) => match T::try_from(number) {
                Ok(fits) if number > 0 => Ok(Some(fits)),
                _ => Err(format!("{what} cannot be {number}")),
            },
        }
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberVisitor)
    }
}

struct NumberVisitor;

impl Visitor<'_> for NumberVisitor {
    type Value = Number;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number, or text that is one")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Number, E> {
        Ok(Number(Some(number)))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Number, E> {
        let number = i64::try_from(number).map_err(|_| E::custom("the number is too large"))?;
        Ok(Number(Some(number)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Number, E> {
        match text.trim() {
            "" => Ok(Number(None)),
            text => match text.parse() {
                Ok(number) => Ok(Number(Some(number))),
                Err(_) => Err(E::custom(format!("'{text}' is not a whole number"))),
            },
        }
    }

    fn visit_unit<E: Error>(self) -> Result<Number, E> {
        Ok(Number(None))
    }
}

/// Text, or what can be written as text: programs hand on what a YAML file held.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::compat::grid) struct Text(pub(in crate::compat::grid) String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

struct TextVisitor;

impl Visitor<'_> for TextVisitor {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Text, E> {
        Ok(Text(text.to_owned()))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Text, E> {
        Ok(Text(number.to_string()))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Text, E> {
        Ok(Text(number.to_string()))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Text, E> {
        Ok(Text(number.to_string()))
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<Text, E> {
        // As the language of the client writes it.
        Ok(Text(if flag { "True" } else { "False" }.to_owned()))
    }

    fn visit_unit<E: Error>(self) -> Result<Text, E> {
        Ok(Text::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_from_text_and_from_numbers() {
        let read = |json: &str| serde_json::from_str::<Number>(json).map(|number| number.0);
        for (json, expected) in [
            ("7", Some(7)),
            ("\"7\"", Some(7)),
            ("\" 7 \"", Some(7)),
            ("-1", Some(-1)),
            ("null", None),
            ("\"\"", None),
        ] {
            assert_eq!(read(json).expect(json), expected, "{json}");
        }
        for json in ["1.5", "\"x\"", "[]", "true", "18446744073709551615"] {
            assert!(read(json).is_err(), "{json}");
        }
        assert_eq!(Number(Some(0)).positive::<u32>("cpu"), Ok(None));
        assert_eq!(Number(Some(4)).positive::<u32>("cpu"), Ok(Some(4)));
        assert!(Number(Some(-1)).positive::<u32>("cpu").is_err());
        assert!(Number(Some(1 << 40)).positive::<u32>("cpu").is_err());
    }
}
