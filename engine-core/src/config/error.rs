//! What can be wrong with a configuration.

/// A configuration that cannot be run, with the key at fault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// PLACEHOLDER replaced below.
    #[error("config.json: {0}")]
    Invalid(String),
}
