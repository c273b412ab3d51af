//! Times as the original client writes and reads them.

use async_graphql::{InputValueError, InputValueResult, Scalar, ScalarType, Value};
use grid_core::time::Timestamp;

/// A point in time in RFC 3339.
#[derive(Debug, Clone, Copy)]
pub(super) struct DateTime(pub(super) Timestamp);

/// With six digits and an offset in numbers: the `fromisoformat` of Python before 3.11
/// reads no other number of digits that fits, and no `Z`.
pub(super) fn text(at: Timestamp) -> String {
    let text = at.to_string();
    match text.strip_suffix('Z') {
        Some(milliseconds) => format!("{milliseconds}000+00:00"),
        None => text,
    }
}

#[Scalar(name = "DateTime")]
impl ScalarType for DateTime {
    fn parse(value: Value) -> InputValueResult<Self> {
        let Value::String(text) = &value else {
            return Err(InputValueError::expected_type(value));
        };
        let at = Timestamp::parse(text);
        at.map(Self)
            .ok_or_else(|| InputValueError::custom(format!("'{text}' is not a time in RFC 3339")))
    }

    fn to_value(&self) -> Value {
        Value::String(text(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_six_digits_and_an_offset() {
        let at = Timestamp::from_millis(1_795_326_630_123);
        assert_eq!(text(at), "2026-11-22T05:50:30.123000+00:00");
        assert_eq!(Timestamp::parse(&text(at)), Some(at));
    }
}
