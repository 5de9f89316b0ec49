//! What can be wrong with a checkpoint.

/// err
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {}
