//! Command lines as a shell reads them, and numbers of things as people say them.

/// Words as they are typed: quoted where a shell would read them otherwise.
pub(crate) fn joined(words: &[String]) -> String {
    words
        .iter()
        .map(|word| quoted(word))
        .collect::<Vec<_>>()
        .join(" ")
}

fn quoted(word: &str) -> String {
    let plain = !word.is_empty()
        && word
            .chars()
            .all(|c| c.is_alphanumeric() || "-_./=:,@%+".contains(c));
    if plain {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// `1 file`, `2 files`: for nouns whose plural ends in `s`.
pub(crate) fn counted(n: u64, noun: &str) -> String {
    match n {
        1 => format!("1 {noun}"),
        n => format!("{n} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::{counted, joined};

    #[test]
    fn one_is_one_and_everything_else_is_many() {
        let said = [0, 1, 2, 10].map(|n| counted(n, "file"));
        assert_eq!(said, ["0 files", "1 file", "2 files", "10 files"]);
    }

    #[test]
    fn words_are_quoted_where_a_shell_needs_it() {
        let words = [
            "train.py",
            "--lr",
            "[0.1, 0.01]",
            "",
            "it's",
            "--x=1e-5",
            "größe",
        ];
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        assert_eq!(
            joined(&words),
            r"train.py --lr '[0.1, 0.01]' '' 'it'\''s' --x=1e-5 größe"
        );
    }
}
