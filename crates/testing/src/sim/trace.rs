//! The story in words, for the person who repeats a seed.

/// What has been written down; the hash is kept also when nothing is.
pub(super) struct Trace {
    pub(super) on: bool,
    pub(super) lines: Vec<String>,
    digest: u64,
}

impl Trace {
    pub(super) fn new(on: bool) -> Self {
        Self {
            on,
            lines: Vec::new(),
            digest: 0xcbf2_9ce4_8422_2325,
        }
    }

    /// Folds `value` into the hash of the story.
    pub(super) fn digest(&mut self, value: u64) {
        self.digest = (self.digest ^ value)
            .wrapping_mul(0x0000_0100_0000_01b3)
            .rotate_left(17);
    }

    pub(super) fn digested(&self) -> u64 {
        self.digest
    }
}

/// Writes a line of the story; the words are made only when somebody reads them.
macro_rules! say {
    ($world:expr, $($words:tt)*) => {
        if $world.trace.on {
            let at = $world.now;
            let line = format!("{:>4}.{:03} {}", at / 1000, at % 1000, format_args!($($words)*));
            $world.trace.lines.push(line);
        }
    };
}
pub(super) use say;
