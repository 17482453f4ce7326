//! What the process asks of the kernel before it holds a key or takes a connection: descriptors as many as it may
//! have, and no copy of its memory on a disk.

use std::io;

use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit,
};

/// Set the limits of this process.
///
/// Private keys live in memory: a core dump, or another process of this user that attaches to this one, would have them.
/// The limit on core files alone does not hold where the kernel pipes them to a program (core(5)).
pub fn prepare() -> io::Result<()> {
    let nothing = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, nothing)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    // The soft limit is 1,024 for the sake of programs that use select(2).
    let most = getrlimit(Resource::Nofile).maximum;
    let descriptors = Rlimit {
        current: most,
        maximum: most,
    };
    setrlimit(Resource::Nofile, descriptors)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::dumpable_behavior;

    #[test]
    fn nothing_of_the_memory_is_dumped() {
        prepare().unwrap();
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
        assert_eq!(getrlimit(Resource::Core).maximum, Some(0));
    }
}
