//! What each field of the schema asks of the one table, as the addresses do in `routes`.

use grid_core::access::Action;

use crate::rest::access::Asks;

/// Every field of the three roots, and the other things that sockets carry.
pub(crate) const FIELDS: [(&str, Asks); 15] = {
    use Asks::{Named, SignedIn};
    [
        ("Mutation.addSSHPublicKey", SignedIn),
        ("Mutation.createCloudCredential", Named(Action::Create)),
        ("Mutation.deleteSSHPublicKey", SignedIn),
        ("Mutation.updateCloudCredential", SignedIn),
        ("Query.getBuildLogs", Named(Action::ReadLogs)),
        ("Query.getExperimentDetails", Named(Action::SeeRun)),
        ("Query.getExperimentId", Named(Action::SeeRun)),
        ("Query.getExperimentLogs", Named(Action::ReadLogs)),
        ("Query.getInteractiveNodes", SignedIn),
        ("Query.getPublicSSHKeys", SignedIn),
        ("Query.getUser", SignedIn),
        ("Query.getUserCredentials", SignedIn),
        ("Query.getUserTeams", SignedIn),
        ("Subscription.getLiveBuildLogs", Named(Action::ReadLogs)),
        (
            "Subscription.getLiveExperimentLogs",
            Named(Action::ReadLogs),
        ),
    ]
};

/// The log of the cluster, which is a socket of its own.
const CLUSTER_LOG: (&str, Asks) = ("GET /v1/core/clusters/{cluster}/logs", Asks::Operator);

/// The fields as Markdown, behind the table of addresses.
pub(crate) fn table() -> String {
    let mut text = String::from(
        "\n## What each field of the original client's GraphQL asks\n\n\
         | field or socket | asks for | about |\n| --- | --- | --- |\n",
    );
    for (field, asks) in FIELDS.into_iter().chain([CLUSTER_LOG]) {
        let (what, about) = asks.words();
        text.push_str(&format!("| `{field}` | {what} | {about} |\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compat::grid::graphql::SCHEMA;

    #[test]
    fn every_field_says_what_it_asks() {
        let sdl = SCHEMA.sdl();
        let mut fields = Vec::new();
        for root in ["Mutation", "Query", "Subscription"] {
            let begin = format!("type {root} {{\n");
            let (_, rest) = sdl.split_once(&begin).expect("a root");
            let (body, _) = rest.split_once("\n}").expect("its end");
            // Descriptions stand in quotes, deeper or not: a field begins with a letter.
            for line in body.lines().map(str::trim) {
                let name: String = line
                    .chars()
                    .take_while(char::is_ascii_alphanumeric)
                    .collect();
                let is_field = line[name.len()..].starts_with(['(', ':']);
                if is_field && !name.is_empty() {
                    fields.push(format!("{root}.{name}"));
                }
            }
        }
        fields.sort();
        let known: Vec<&str> = FIELDS.iter().map(|(field, _)| *field).collect();
        assert_eq!(fields, known, "give each new field a row, in order");
    }
}
