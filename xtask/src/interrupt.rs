//! Ctrl-C, and the polite signals of whoever started this tool.
//!
//! Nothing is torn down inside a signal handler: it only sets a flag. Whoever waits looks at
//! the flag and returns an error, and the destructors on the way out stop what was started.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

static REQUESTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From here on the signals that ask to end set the flag instead of ending the process.
pub(crate) fn install() -> Result<()> {
    let flag = REQUESTED.get_or_init(Arc::default);
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(flag))
            .with_context(|| format!("catching signal {signal}"))?;
    }
    Ok(())
}

/// Whether somebody asked this tool to end.
pub(crate) fn requested() -> bool {
    REQUESTED
        .get()
        .is_some_and(|flag| flag.load(Ordering::SeqCst))
}
