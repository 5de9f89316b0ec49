//! Looking at intermediate values: for tests and debugging, free when unused.

use std::cell::RefCell;

use crate::backend::{ActTensor, Backend, Routing, StepError};

/// Where in the graph a value was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Point {
    /// After the embedding.
    Embedding,
    /// Input of attention: after the layer's first norm.
    InputNorm(usize),
    /// After `o_proj`, before it is added.
    AttentionOutput(usize),
    /// The router's choice.
    Routing(usize),
    /// After the FFN or the experts, before it is added.
    FfnOutput(usize),
    /// The residual stream after the layer.
    LayerOutput(usize),
    /// After the model's final norm.
    FinalNorm,
    /// MTP: after `eh_proj`.
    MtpInput,
    /// MTP: after the shared head's norm.
    MtpNorm,
}

/// A value at a [`Point`].
pub enum Value<'a, B: Backend> {
    /// `[T, H]`.
    Hidden(&'a ActTensor<B>),
    /// Expert ids and weights.
    Routing(&'a Routing<B::Buffer>),
}

impl<B: Backend> std::fmt::Debug for Value<'_, B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Value::Hidden(_) => "Hidden",
            Value::Routing(_) => "Routing",
        })
    }
}

type Callback<'a, B> = dyn FnMut(&B, &mut <B as Backend>::Stream, Point, Value<'_, B>) -> Result<(), StepError> + 'a;

/// An optional callback that sees the graph's intermediate values and may read them back.
pub struct Observer<'a, B: Backend> {
    callback: Option<&'a RefCell<&'a mut Callback<'a, B>>>,
}

impl<B: Backend> Clone for Observer<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B: Backend> Copy for Observer<'_, B> {}

impl<B: Backend> std::fmt::Debug for Observer<'_, B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Observer").field("watching", &self.callback.is_some()).finish()
    }
}

impl<'a, B: Backend> Observer<'a, B> {
    /// Sees nothing.
    pub fn none() -> Self {
        Self { callback: None }
    }

    /// Calls `callback` at every [`Point`].
    pub fn new(callback: &'a RefCell<&'a mut Callback<'a, B>>) -> Self {
        Self { callback: Some(callback) }
    }

    pub(super) fn see(
        self,
        backend: &B,
        stream: &mut B::Stream,
        point: Point,
        value: Value<'_, B>,
    ) -> Result<(), StepError> {
        match self.callback {
            None => Ok(()),
            Some(callback) => (callback.borrow_mut())(backend, stream, point, value),
        }
    }
}
