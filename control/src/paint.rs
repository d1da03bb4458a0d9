//! What is written to the terminal; the only place that prints.

use std::io::Write;

/// Writes to standard output. A reader that has gone (`| head`) ends the process quietly, as tools do.
pub(crate) fn say(text: &str) {
    if writeln!(anstream::stdout(), "{text}").is_err() {
        std::process::exit(0);
    }
}

/// Writes to standard error.
pub(crate) fn complain(text: &str) {
    // There is nowhere left to say that this failed.
    let _ = writeln!(anstream::stderr(), "{text}");
}
