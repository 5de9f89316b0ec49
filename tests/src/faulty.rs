//! A backend with one fault in one op: shows that the suite and [`Checked`](engine_core::backend::Checked) find it.

use engine_core::backend::{
    ActTensor, Backend, Element, LayerStep, MlaPrologIo, Routing, StepError, Tensor, delegate_backend,
};

/// What goes wrong after the op has run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The last live element is wrong by more than its size.
    WrongElement,
    /// The last live element is NaN.
    NotANumber,
    /// The row after the last live one is written.
    GuardRow,
}

impl Fault {
    /// Every fault.
    pub const ALL: [Fault; 3] = [Fault::WrongElement, Fault::NotANumber, Fault::GuardRow];
}

/// `B` with a [`Fault`] in the op named.
#[derive(Debug, Clone)]
pub struct Faulty<B> {
    inner: B,
    op: &'static str,
    fault: Fault,
}

/// The ops that a fault can be put into.
pub const OPS: [&str; 15] = [
    "embed",
    "rms_norm",
    "add",
    "add_rms_norm",
    "concat",
    "gather_rows",
    "linear",
    "logits",
    "argmax",
    "top_logits",
    "ffn",
    "mla_prolog",
    "mla_attention",
    "moe_gate",
    "moe_experts",
];

impl<B: Backend> Faulty<B> {
    /// Puts `fault` into `op`, a name of the trait's methods.
    pub fn new(inner: B, op: &'static str, fault: Fault) -> Self {
        Self { inner, op, fault }
    }

    /// Spoils the output of `op` if it is the faulty one.
    fn spoil<E: Element>(
        &self,
        op: &str,
        stream: &mut B::Stream,
        out: &mut Tensor<B::Buffer, E>,
    ) -> Result<(), StepError> {
        if op != self.op {
            return Ok(());
        }
        let live = out.rows() * out.cols();
        let (at, value) = match self.fault {
            Fault::WrongElement => {
                let mut values = Vec::new();
                out.read(&self.inner, stream, &mut values)?;
                (live - 1, E::from_f32(2.0 * values[live - 1].to_f32() + 1.0))
            }
            Fault::NotANumber => (live - 1, E::from_f32(f32::NAN)),
            Fault::GuardRow => (live, E::from_f32(0.0)),
        };
        self.inner.write(stream, out.buffer_mut(), at * size_of::<E>(), bytemuck::bytes_of(&value))
    }

    /// Runs an op, then spoils what it wrote.
    fn spoiled<E: Element>(
        &self,
        op: &'static str,
        stream: &mut B::Stream,
        out: &mut Tensor<B::Buffer, E>,
        run: impl FnOnce(&B, &mut B::Stream, &mut Tensor<B::Buffer, E>) -> Result<(), StepError>,
    ) -> Result<(), StepError> {
        run(&self.inner, stream, out)?;
        self.spoil(op, stream, out)
    }
}

impl<B: Backend> Backend for Faulty<B> {
    delegate_backend!(inner: B; types, device, uncaptured, prepare, ops through spoiled);

    /// Its outputs are opaque: the fault goes into a copy of the input.
    fn mla_prolog(
        &self,
        stream: &mut B::Stream,
        mla: &B::Mla,
        step: LayerStep<'_, B::Buffer>,
        io: MlaPrologIo<'_, Self>,
    ) -> Result<(), StepError> {
        let mut values = Vec::new();
        io.x.read(&self.inner, stream, &mut values)?;
        // A row to spare, for the fault that writes past the end.
        let mut x = Tensor::alloc(&self.inner, io.x.rows() + 1, io.x.cols())?;
        x.write(&self.inner, stream, &values)?;
        self.spoil("mla_prolog", stream, &mut x)?;
        self.inner.mla_prolog(stream, mla, step, MlaPrologIo { x: &x, ..io.for_backend() })
    }

    fn moe_gate(
        &self,
        stream: &mut B::Stream,
        gate: &B::Gate,
        x: &ActTensor<B>,
        routing: &mut Routing<B::Buffer>,
    ) -> Result<(), StepError> {
        self.inner.moe_gate(stream, gate, x, routing)?;
        self.spoil("moe_gate", stream, &mut routing.weights)
    }
}
