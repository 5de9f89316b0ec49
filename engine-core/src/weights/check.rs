//! A whole checkpoint against its configuration, by the headers alone.

use std::collections::HashSet;

use super::CheckpointError;
use super::checkpoint::Checkpoint;
use super::layout::{TensorKind, checkpoint_tensors, layer_prefix};
use crate::config::ModelConfig;

/// What [`Checkpoint::check`] found beyond "all there".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointReport {
    /// True when the MTP modules that the configuration names are in the files.
    pub has_mtp: bool,
    /// Tensors that no layer reads, sorted. Rotary frequency buffers, which old exports carry, are not listed.
    pub unknown: Vec<String>,
}

impl Checkpoint {
    /// Checks that every tensor `config` asks for is stored with the right shape and type, scales included, without
    /// touching a page of weights. Files may leave out the MTP modules, but not part of them.
    ///
    /// # Errors
    /// [`CheckpointError`] for the first tensor that is missing, of another shape or of another type.
    pub fn check(&self, config: &ModelConfig) -> Result<CheckpointReport, CheckpointError> {
        let has_mtp = self.has_mtp(config);
        let mut known = HashSet::new();
        for tensor in checkpoint_tensors(config, has_mtp) {
            match tensor.kind {
                TensorKind::Linear(_, shape) => {
                    let parts = self.linear_parts(tensor.prefix(), shape, config.quantization.as_ref())?;
                    known.extend(parts.names().map(str::to_owned));
                }
                TensorKind::Plain(shape) => {
                    self.plain_part(&tensor.name, &[shape.out_features, shape.in_features])?;
                    known.insert(tensor.name);
                }
                TensorKind::Vector(len) => {
                    self.plain_part(&tensor.name, &[len])?;
                    known.insert(tensor.name);
                }
            }
        }
        let is_unknown = |name: &&str| !known.contains(*name) && !name.ends_with("rotary_emb.inv_freq");
        Ok(CheckpointReport { has_mtp, unknown: self.names().filter(is_unknown).map(str::to_owned).collect() })
    }

    /// True when any tensor of an MTP module is stored.
    fn has_mtp(&self, config: &ModelConfig) -> bool {
        let first = config.num_hidden_layers;
        (first..first + config.num_nextn_predict_layers).any(|layer| {
            let prefix = layer_prefix(layer) + ".";
            self.first_at_or_after(&prefix).is_some_and(|name| name.starts_with(&prefix))
        })
    }
}
