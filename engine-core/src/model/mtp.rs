//! The multi-token-prediction module (spec section 5).
//!
//! Slot i takes the main model's hidden state of position i **after** the final norm and the embedding of token i+1,
//! and predicts token i+2: `eh_proj [enorm(embed(t_{i+1})), hnorm(h_i)]`, a decoder layer with its own latent cache,
//! the shared head's norm, the head.

use super::layer::Layer;
use super::observe::{Observer, Point, Value};
use super::{Model, Workspace};
use crate::backend::{Backend, LayerStep, StepError, StepMeta};

/// A prepared MTP module. Embedding and head are the main model's.
pub struct Mtp<B: Backend> {
    pub(super) embedding_norm: B::Norm,
    pub(super) hidden_norm: B::Norm,
    pub(super) joining: B::Linear,
    pub(super) layer: Layer<B>,
    pub(super) head_norm: B::Norm,
}

impl<B: Backend> std::fmt::Debug for Mtp<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mtp").finish_non_exhaustive()
    }
}

impl<B: Backend> Mtp<B> {
    /// Runs the module on the step that [`Model::forward`] just ran. `workspace.tokens` holds, for each row, the token
    /// that follows it; `workspace.x` still holds the hidden states. Afterwards `workspace.x` holds the module's hidden
    /// states after the shared head's norm, ready for [`Model::logits`].
    ///
    /// # Errors
    /// [`StepError`] from the backend.
    pub fn forward(
        &self,
        backend: &B,
        stream: &mut B::Stream,
        run: MtpStep<'_, B>,
        observer: Observer<'_, B>,
    ) -> Result<(), StepError> {
        let MtpStep { model, meta, workspace: ws } = run;
        let layer = model.config.num_hidden_layers;
        ws.pair.set_rows(meta.host().num_tokens());
        backend.embed(stream, &model.embedding, &ws.tokens, &mut ws.residual)?;
        backend.rms_norm(stream, &self.embedding_norm, &ws.residual, &mut ws.delta)?;
        backend.rms_norm(stream, &self.hidden_norm, &ws.x, &mut ws.residual)?;
        backend.concat(stream, &ws.delta, &ws.residual, &mut ws.pair)?;
        backend.linear(stream, &self.joining, &ws.pair, &mut ws.residual)?;
        observer.see(backend, stream, Point::MtpInput, Value::Hidden(&ws.residual))?;
        backend.rms_norm(stream, &self.layer.input_norm, &ws.residual, &mut ws.x)?;
        self.layer.forward(backend, stream, LayerStep { layer, meta }, ws, &self.head_norm, observer)?;
        observer.see(backend, stream, Point::MtpNorm, Value::Hidden(&ws.x))
    }
}

/// What [`Mtp::forward`] works on.
pub struct MtpStep<'a, B: Backend> {
    /// The main model.
    pub model: &'a Model<B>,
    /// The step it just ran.
    pub meta: &'a StepMeta<B::Buffer>,
    /// Its workspace.
    pub workspace: &'a mut Workspace<B>,
}

impl<B: Backend> std::fmt::Debug for MtpStep<'_, B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MtpStep").finish_non_exhaustive()
    }
}
