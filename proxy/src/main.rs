//! The executable: parse the command line, run the proxy or one of its offline checks.

fn main() {}
