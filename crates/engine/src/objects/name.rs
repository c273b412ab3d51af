//! Names of teams as names of buckets.

/// Fewest and most characters of the name of a bucket, as S3 has it.
const LEN_MIN: usize = 3;
const LEN_MAX: usize = 63;

/// What names begin with that are made: no team has such a name as its own bucket.
const MADE: &str = "team--";

/// Characters of a team's name that a made name keeps.
const KEPT_MAX: usize = 46;

/// Digits of the hash that tells made names apart.  More: names do not fit; fewer: two teams
/// of one person may come to one name.
const DIGITS: usize = 10;

/// What a team is known by as a bucket: its name, or one that is made of it.
pub fn of_team(team: &str) -> String {
    if is_legal(team) {
        return team.to_owned();
    }
    let mut kept = String::with_capacity(KEPT_MAX);
    for c in team.chars().take(KEPT_MAX) {
        let good = c.is_ascii_lowercase() || c.is_ascii_digit();
        kept.push(if good { c } else { '-' });
    }
    let hash = blake3::hash(team.as_bytes()).to_hex();
    format!("{MADE}{kept}-{}", &hash[..DIGITS])
}

fn is_legal(name: &str) -> bool {
    let is_end = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let is_address = name.parse::<std::net::Ipv4Addr>().is_ok();
    (LEN_MIN..=LEN_MAX).contains(&name.len())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.')
        && is_end(name.chars().next())
        && is_end(name.chars().last())
        && !["..", ".-", "-."].iter().any(|pair| name.contains(pair))
        && ![MADE, "xn--", "sthree-", "amzn-s3-demo-"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
        && !["-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3"]
            .iter()
            .any(|suffix| name.ends_with(suffix))
        && !is_address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_one_of_a_bucket_stays() {
        for name in ["vision-lab", "ada", "a.b", "123"] {
            assert_eq!(of_team(name), name);
        }
    }

    #[test]
    fn any_other_is_made_into_one() {
        let long = format!("{}@example.org", "a".repeat(242));
        for name in [
            "ml",
            "a_b",
            "ada@example.org",
            "1.2.3.4",
            "team--a-0123456789",
            "a..b",
            "a.-b",
            &long,
        ] {
            let made = of_team(name);
            assert!(made.starts_with(MADE), "{made}");
            assert!((LEN_MIN..=LEN_MAX).contains(&made.len()), "{made}");
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(made.chars().all(plain), "{made}");
        }
        assert_ne!(of_team("a_b"), of_team("a@b"));
    }
}
