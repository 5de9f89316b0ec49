//! The graph, written once: the only place that knows what a DeepSeek layer is.
//!
//! ```text
//! residual = embed(tokens)
//! x = norm(residual)
//! for each layer:   delta = o_proj(mla_attention(mla_prolog(x)));   x = norm(residual += delta)
//!                   delta = ffn(x)  or  experts(x, gate(x));        x = norm(residual += delta)
//! logits = head(x)                                   (the last norm is the model's final norm)
//! ```
//!
//! Residual additions and the following norm are one op, so that a backend may fuse them. The MTP module runs the same
//! layer over the hidden states of a step, see [`mtp`].

mod layer;
mod load;
pub mod mtp;
mod observe;
mod workspace;

pub(crate) use load::mla_spec;
pub use load::{LoadOptions, LoadProgress};
pub use observe::{Observer, Point, Value};
pub use workspace::Workspace;
pub(crate) use workspace::num_top_logits;

use std::collections::BTreeMap;

use crate::backend::{Backend, LayerStep, StepError, StepMeta};
use crate::config::ModelConfig;
use crate::quant::{WeightClass, WeightFormat};
use layer::Layer;
use mtp::Mtp;

/// A loaded model on one device.
pub struct Model<B: Backend> {
    config: ModelConfig,
    embedding: B::Embedding,
    layers: Vec<Layer<B>>,
    norm: B::Norm,
    head: B::Linear,
    mtp: Option<Mtp<B>>,
    formats: BTreeMap<WeightClass, WeightFormat>,
}

impl<B: Backend> std::fmt::Debug for Model<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model").field("config", &self.config).finish_non_exhaustive()
    }
}

impl<B: Backend> Model<B> {
    /// The checkpoint's architecture.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The format each class of weights was prepared in.
    pub fn formats(&self) -> &BTreeMap<WeightClass, WeightFormat> {
        &self.formats
    }

    /// True when the MTP module is loaded.
    pub fn has_mtp(&self) -> bool {
        self.mtp.is_some()
    }

    /// Runs every layer over the step's tokens (`workspace.tokens`). Afterwards `workspace.x` holds the hidden states
    /// after the final norm, `[T, H]`, and the latent cache the step's keys.
    ///
    /// # Errors
    /// [`StepError`] from the backend.
    pub fn forward(
        &self,
        backend: &B,
        stream: &mut B::Stream,
        meta: &StepMeta<B::Buffer>,
        workspace: &mut Workspace<B>,
        observer: Observer<'_, B>,
    ) -> Result<(), StepError> {
        let ws = workspace;
        ws.set_rows(meta.host().num_tokens());
        backend.embed(stream, &self.embedding, &ws.tokens, &mut ws.residual)?;
        observer.see(backend, stream, Point::Embedding, Value::Hidden(&ws.residual))?;
        let first = self.layers.first().map_or(&self.norm, |layer| &layer.input_norm);
        backend.rms_norm(stream, first, &ws.residual, &mut ws.x)?;
        for (index, layer) in self.layers.iter().enumerate() {
            let next_norm = self.layers.get(index + 1).map_or(&self.norm, |next| &next.input_norm);
            layer.forward(backend, stream, LayerStep { layer: index, meta }, ws, next_norm, observer)?;
        }
        observer.see(backend, stream, Point::FinalNorm, Value::Hidden(&ws.x))
    }

    /// Logits of the rows listed in `workspace.logit_rows`, into `workspace.logits` `[M, vocab]`.
    ///
    /// # Errors
    /// [`StepError`] from the backend.
    pub fn logits(&self, backend: &B, stream: &mut B::Stream, workspace: &mut Workspace<B>) -> Result<(), StepError> {
        let ws = workspace;
        ws.set_logit_rows(ws.logit_rows.rows());
        backend.gather_rows(stream, &ws.x, &ws.logit_rows, &mut ws.selected)?;
        backend.logits(stream, &self.head, &ws.selected, &mut ws.logits)
    }

    /// The id below `num_ids` of the highest logit of each row that [`Model::logits`] just computed, into
    /// `workspace.best_tokens` `[M, 1]`.
    ///
    /// # Errors
    /// [`StepError`] from the backend.
    pub fn best_tokens(
        &self,
        backend: &B,
        stream: &mut B::Stream,
        num_ids: usize,
        workspace: &mut Workspace<B>,
    ) -> Result<(), StepError> {
        backend.argmax(stream, &workspace.logits, num_ids, &mut workspace.best_tokens)
    }

    /// The highest logits among the ids below `num_ids` of each row that [`Model::logits`] just computed, with
    /// `workspace.inverse_temperatures`, into `workspace.top_logits` `[M, 2 K + 1]`.
    ///
    /// # Errors
    /// [`StepError`] from the backend.
    pub fn top_logits(
        &self,
        backend: &B,
        stream: &mut B::Stream,
        num_ids: usize,
        workspace: &mut Workspace<B>,
    ) -> Result<(), StepError> {
        let Workspace { logits, inverse_temperatures, top_logits, .. } = workspace;
        top_logits.set_rows(logits.rows());
        backend.top_logits(stream, logits, inverse_temperatures, num_ids, top_logits)
    }

    /// The MTP module, if loaded.
    pub fn mtp(&self) -> Option<&Mtp<B>> {
        self.mtp.as_ref()
    }
}
