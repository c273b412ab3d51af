//! Parameters of queries that hold several values, with commas between.

/// Statuses: `failed,stopped`.
pub(crate) mod statuses {
    use grid_core::workload::Status;
    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::Serializer;

    pub(crate) fn serialize<S: Serializer>(
        statuses: &[Status],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let words: Vec<&str> = statuses.iter().map(|status| status.as_str()).collect();
        serializer.serialize_str(&words.join(","))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<Status>, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.split(',').map(parse).collect()
    }

    fn parse<E: Error>(word: &str) -> Result<Status, E> {
        Status::parse(word).ok_or_else(|| {
            let known = Status::ALL.map(Status::as_str).join(", ");
            E::custom(format!("'{word}' is none of: {known}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use grid_core::workload::Status;

    use crate::run::RunsQuery;

    #[test]
    fn several_statuses_are_written_as_they_are_read() {
        let query = RunsQuery {
            state: vec![Status::Failed, Status::Stopped],
            ..RunsQuery::default()
        };
        let text = serde_json::to_string(&query).expect("JSON");
        assert_eq!(text, r#"{"state":"failed,stopped"}"#);
        assert_eq!(
            serde_json::from_str::<RunsQuery>(&text).expect("read"),
            query
        );
        let nothing = serde_json::to_string(&RunsQuery::default()).expect("JSON");
        assert_eq!(nothing, "{}");
        for wrong in ["failed;stopped", "", "failed,", "failing"] {
            let text = serde_json::json!({ "state": wrong }).to_string();
            assert!(serde_json::from_str::<RunsQuery>(&text).is_err(), "{wrong}");
        }
    }
}
