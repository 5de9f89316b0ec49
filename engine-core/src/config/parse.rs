//! parse
use super::{ConfigError, ModelConfig};
use std::path::Path;
pub(super) fn from_dir(_dir: &Path) -> Result<ModelConfig, ConfigError> {
    Err(ConfigError::Invalid("not yet".into()))
}
pub(super) fn from_json(_text: &str) -> Result<ModelConfig, ConfigError> {
    Err(ConfigError::Invalid("not yet".into()))
}
