//! An error and what caused it, in one line: for logs and for the message with which a process ends.

use std::error::Error;

/// `what: why: why that`.
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
