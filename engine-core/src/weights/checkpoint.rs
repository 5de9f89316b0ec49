//! Opening a checkpoint directory and reading typed weights out of it.

/// An opened checkpoint directory.
#[derive(Debug)]
pub struct Checkpoint {}
