//! Reads the few flags of this tool's commands.

use anyhow::{Context, Result, bail};

/// What stands after a command's name.
pub(crate) struct Args<'a>(Vec<&'a str>);

impl<'a> Args<'a> {
    pub(crate) fn new(words: &'a [String]) -> Self {
        Self(words.iter().map(String::as_str).collect())
    }

    /// Takes `--name` out and says whether it was there.
    pub(crate) fn flag(&mut self, name: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|word| *word != name);
        self.0.len() != before
    }

    /// Takes `--name VALUE` or `--name=VALUE` out.
    pub(crate) fn value(&mut self, name: &str) -> Result<Option<&'a str>> {
        let joined = |word: &&str| {
            word.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with('='))
        };
        if let Some(at) = self.0.iter().position(joined) {
            return Ok(self.0.remove(at).split_once('=').map(|(_, value)| value));
        }
        let Some(at) = self.0.iter().position(|word| *word == name) else {
            return Ok(None);
        };
        self.0.remove(at);
        if at == self.0.len() {
            bail!("{name} needs a value");
        }
        Ok(Some(self.0.remove(at)))
    }

    /// Takes `--name NUMBER` out.
    pub(crate) fn number(&mut self, name: &str) -> Result<Option<u64>> {
        let Some(text) = self.value(name)? else {
            return Ok(None);
        };
        let number = text
            .parse()
            .with_context(|| format!("{name} needs a whole number, not '{text}'"))?;
        Ok(Some(number))
    }

    /// Takes out what does not look like a flag, at most one word.
    pub(crate) fn word(&mut self) -> Option<&'a str> {
        let at = self.0.iter().position(|word| !word.starts_with('-'))?;
        Some(self.0.remove(at))
    }

    /// Everything that is left, for another program to read.
    pub(crate) fn rest(self) -> Vec<&'a str> {
        self.0
    }

    /// Refuses what nobody took.
    pub(crate) fn end(self) -> Result<()> {
        match self.0.first() {
            Some(word) => bail!("'{word}' is not known here; see: cargo xtask help"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Args;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn flags_values_and_words_are_taken_out() {
        let line = words("--quick --seed 7 --seeds=9 name");
        let mut args = Args::new(&line);
        assert!(args.flag("--quick") && !args.flag("--quick"));
        assert_eq!(args.number("--seed").unwrap(), Some(7));
        assert_eq!(args.number("--seeds").unwrap(), Some(9));
        assert_eq!(args.word(), Some("name"));
        assert!(args.end().is_ok());
    }

    #[test]
    fn what_is_wrong_is_refused() {
        let line = words("--seed x --unknown");
        let mut args = Args::new(&line);
        assert!(args.number("--seed").is_err());
        assert!(args.end().is_err());
        let line = words("--seed");
        assert!(Args::new(&line).number("--seed").is_err());
    }
}
