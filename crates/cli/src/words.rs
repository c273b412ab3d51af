//! Command lines as a shell reads them.

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

#[cfg(test)]
mod tests {
    use super::joined;

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
