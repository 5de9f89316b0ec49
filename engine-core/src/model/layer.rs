//! One decoder layer.

use super::observe::{Observer, Point, Value};
use super::workspace::Workspace;
use crate::backend::{ActTensor, Backend, LayerStep, MlaPrologIo, StepError};

/// A decoder layer's prepared weights.
pub(super) struct Layer<B: Backend> {
    pub(super) input_norm: B::Norm,
    pub(super) mla: B::Mla,
    pub(super) o_proj: B::Linear,
    pub(super) post_attention_norm: B::Norm,
    pub(super) feed_forward: FeedForward<B>,
}

/// What follows attention.
pub(super) enum FeedForward<B: Backend> {
    Dense(B::Ffn),
    Moe { gate: B::Gate, experts: B::Experts },
}

impl<B: Backend> Layer<B> {
    /// Runs the layer on `ws.x` (the residual after `input_norm`), updates `ws.residual`, and leaves the residual after
    /// `next_norm` in `ws.x`.
    pub(super) fn forward(
        &self,
        backend: &B,
        stream: &mut B::Stream,
        step: LayerStep<'_, B::Buffer>,
        ws: &mut Workspace<B>,
        next_norm: &B::Norm,
        observer: Observer<'_, B>,
    ) -> Result<(), StepError> {
        let layer = step.layer;
        observer.see(backend, stream, Point::InputNorm(layer), Value::Hidden(&ws.x))?;
        let io = MlaPrologIo { x: &ws.x, cache: &mut ws.cache, queries: &mut ws.queries };
        backend.mla_prolog(stream, &self.mla, step, io)?;
        backend.mla_attention(stream, &self.mla, step, &ws.queries, &ws.cache, &mut ws.heads)?;
        backend.linear(stream, &self.o_proj, &ws.heads, &mut ws.delta)?;
        add_up(backend, stream, &mut ws.delta)?;
        observer.see(backend, stream, Point::AttentionOutput(layer), Value::Hidden(&ws.delta))?;
        backend.add_rms_norm(stream, &self.post_attention_norm, &ws.delta, &mut ws.residual, &mut ws.x)?;
        match &self.feed_forward {
            FeedForward::Dense(ffn) => backend.ffn(stream, ffn, &ws.x, &mut ws.delta)?,
            FeedForward::Moe { gate, experts } => {
                backend.moe_gate(stream, gate, &ws.x, &mut ws.routing)?;
                observer.see(backend, stream, Point::Routing(layer), Value::Routing(&ws.routing))?;
                backend.moe_experts(stream, experts, &ws.x, &ws.routing, &mut ws.delta)?;
            }
        }
        add_up(backend, stream, &mut ws.delta)?;
        observer.see(backend, stream, Point::FfnOutput(layer), Value::Hidden(&ws.delta))?;
        backend.add_rms_norm(stream, next_norm, &ws.delta, &mut ws.residual, &mut ws.x)?;
        observer.see(backend, stream, Point::LayerOutput(layer), Value::Hidden(&ws.residual))
    }
}

/// What the ranks of a group have of a sum.
fn add_up<B: Backend>(backend: &B, stream: &mut B::Stream, delta: &mut ActTensor<B>) -> Result<(), StepError> {
    if backend.rank().world_size() > 1 { backend.all_reduce(stream, delta) } else { Ok(()) }
}
