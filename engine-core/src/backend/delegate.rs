//! Forwarding to another backend, written once: what wrappers are made of.

/// Forwards groups of [`Backend`](crate::backend::Backend)'s items to the backend in a field, so that a wrapper writes
/// only what it changes. It stands inside the `impl`:
///
/// ```text
/// delegate_backend!(field: Type; types, device, uncaptured, prepare, ops);
/// ```
///
/// | group | items |
/// | --- | --- |
/// | `types` | every associated type but `Graph`; the other groups rest on it |
/// | `device` | `capabilities`, `rank`, `finds_top_logits`, and memory: `stream`, `alloc`, `write`, `read`, `synchronize` |
/// | `capture` | `Graph`, `captures`, `capture`, `replay` |
/// | `uncaptured` | the same for a wrapper that must see every op: its steps are not captured |
/// | `prepare` | every `prepare_*`, `latent_cache`, `queries` |
/// | `ops` | every op, the derived ones too: the inner backend keeps its fusions |
///
/// A wrapper chooses one of `capture` and `uncaptured`. Recorded ops run again without going through it, so `capture` is
/// for those that look at no op and change none.
///
/// * `except [a, b]` after a group leaves these methods to the `impl`. Who changes an op also takes the derived ops that
///   are made of it, as `add_rms_norm` is of `add` and `rms_norm`, or they go past the change.
/// * `ops through method` calls `self.method(name, stream, out, run)` for each op, `run` being the inner op as a closure
///   over its inputs, `FnOnce(&Type, &mut Stream, &mut out) -> Result<(), StepError>`, generic over the element of `out`.
///   Two ops do not come to a tensor and stay with the `impl`: `mla_prolog` and `moe_gate`.
///
/// A backend that counts the tokens it embeds:
///
/// ```
/// use std::sync::atomic::{AtomicUsize, Ordering};
///
/// use engine_core::backend::{ActTensor, Backend, StepError, Tensor, delegate_backend};
///
/// struct Counting<B> {
///     inner: B,
///     num_tokens: AtomicUsize,
/// }
///
/// impl<B: Backend> Backend for Counting<B> {
///     delegate_backend!(inner: B; types, device, uncaptured, prepare, ops except [embed]);
///
///     fn embed(
///         &self,
///         stream: &mut B::Stream,
///         table: &B::Embedding,
///         tokens: &Tensor<B::Buffer, u32>,
///         out: &mut ActTensor<B>,
///     ) -> Result<(), StepError> {
///         self.num_tokens.fetch_add(tokens.rows(), Ordering::Relaxed);
///         self.inner.embed(stream, table, tokens, out)
///     }
/// }
/// ```
#[macro_export]
macro_rules! delegate_backend {
    (
        $field:tt: $inner:ty;
        $($group:ident $(through $method:ident)? $(except [$($kept:ident),+ $(,)?])?),+ $(,)?
    ) => {
        $($crate::delegate_backend_group! { $group [$field, $inner] [$($method)?] [$($($kept)+)?] })+
    };
}

/// The groups of [`delegate_backend`]: a table of the trait's methods, row by row turned into forwards.
#[doc(hidden)]
#[macro_export]
macro_rules! delegate_backend_group {
    (types [$field:tt, $inner:ty] [] []) => {
        type Act = <$inner as $crate::backend::Backend>::Act;
        type Buffer = <$inner as $crate::backend::Backend>::Buffer;
        type Stream = <$inner as $crate::backend::Backend>::Stream;
        type Embedding = <$inner as $crate::backend::Backend>::Embedding;
        type Norm = <$inner as $crate::backend::Backend>::Norm;
        type Linear = <$inner as $crate::backend::Backend>::Linear;
        type Ffn = <$inner as $crate::backend::Backend>::Ffn;
        type Mla = <$inner as $crate::backend::Backend>::Mla;
        type Gate = <$inner as $crate::backend::Backend>::Gate;
        type Experts = <$inner as $crate::backend::Backend>::Experts;
        type Queries = <$inner as $crate::backend::Backend>::Queries;
        type LatentCache = <$inner as $crate::backend::Backend>::LatentCache;
    };
    (device $to:tt [] $kept:tt) => {
        $crate::delegate_backend_group! { @methods $to $kept
            capabilities() -> &$crate::backend::Capabilities;
            rank() -> &$crate::backend::Rank;
            finds_top_logits() -> bool;
            stream() -> Result<Self::Stream, $crate::backend::StepError>;
            alloc(num_bytes: usize) -> Result<Self::Buffer, $crate::backend::StepError>;
            write(
                stream: &mut Self::Stream,
                buffer: &mut Self::Buffer,
                offset: usize,
                data: &[u8]
            ) -> Result<(), $crate::backend::StepError>;
            read(
                stream: &mut Self::Stream,
                buffer: &Self::Buffer,
                offset: usize,
                data: &mut [u8]
            ) -> Result<(), $crate::backend::StepError>;
            synchronize(stream: &mut Self::Stream) -> Result<(), $crate::backend::StepError>;
        }
    };
    (capture [$field:tt, $inner:ty] [] []) => {
        type Graph = <$inner as $crate::backend::Backend>::Graph;

        fn captures(&self) -> bool {
            <$inner as $crate::backend::Backend>::captures(&self.$field)
        }

        fn capture(
            &self,
            stream: &mut Self::Stream,
            run: &mut dyn FnMut(&mut Self::Stream) -> Result<(), $crate::backend::StepError>,
        ) -> Result<Option<Self::Graph>, $crate::backend::StepError> {
            <$inner as $crate::backend::Backend>::capture(&self.$field, stream, run)
        }

        fn prepare_replay(
            &self,
            stream: &mut Self::Stream,
            graph: &Self::Graph,
            layout: &$crate::backend::StepLayout,
        ) -> Result<(), $crate::backend::StepError> {
            <$inner as $crate::backend::Backend>::prepare_replay(&self.$field, stream, graph, layout)
        }

        fn replay(
            &self,
            stream: &mut Self::Stream,
            graph: &Self::Graph,
        ) -> Result<$crate::backend::Replayed, $crate::backend::StepError> {
            <$inner as $crate::backend::Backend>::replay(&self.$field, stream, graph)
        }
    };
    (uncaptured $to:tt [] []) => {
        type Graph = std::convert::Infallible;

        fn replay(
            &self,
            _: &mut Self::Stream,
            graph: &std::convert::Infallible,
        ) -> Result<$crate::backend::Replayed, $crate::backend::StepError> {
            match *graph {}
        }
    };
    (prepare $to:tt [] $kept:tt) => {
        $crate::delegate_backend_group! { @methods $to $kept
            prepare_embedding(
                table: $crate::quant::HostWeight
            ) -> Result<Self::Embedding, $crate::backend::PrepareError>;
            prepare_norm(weight: &[f32], eps: f32) -> Result<Self::Norm, $crate::backend::PrepareError>;
            prepare_linear(weight: $crate::quant::HostWeight) -> Result<Self::Linear, $crate::backend::PrepareError>;
            prepare_ffn(weights: $crate::backend::FfnWeights) -> Result<Self::Ffn, $crate::backend::PrepareError>;
            prepare_mla(
                spec: &$crate::backend::MlaSpec,
                weights: $crate::backend::MlaWeights
            ) -> Result<Self::Mla, $crate::backend::PrepareError>;
            prepare_gate(
                spec: &$crate::backend::GateSpec,
                weights: $crate::backend::GateWeights
            ) -> Result<Self::Gate, $crate::backend::PrepareError>;
            prepare_experts(
                weights: $crate::backend::ExpertsWeights
            ) -> Result<Self::Experts, $crate::backend::PrepareError>;
            latent_cache(spec: &$crate::backend::CacheSpec) -> Result<Self::LatentCache, $crate::backend::PrepareError>;
            queries(
                spec: &$crate::backend::MlaSpec,
                max_num_tokens: usize
            ) -> Result<Self::Queries, $crate::backend::PrepareError>;
        }
    };
    (ops $to:tt [] $kept:tt) => {
        $crate::delegate_backend_group! { @tensor_ops $to [] $kept }
        $crate::delegate_backend_group! { @unless mla_prolog $kept @mla_prolog $to }
        $crate::delegate_backend_group! { @methods $to $kept
            moe_gate(
                stream: &mut Self::Stream,
                gate: &Self::Gate,
                x: &$crate::backend::ActTensor<Self>,
                routing: &mut $crate::backend::Routing<Self::Buffer>
            ) -> Result<(), $crate::backend::StepError>;
        }
    };
    (ops $to:tt [$through:ident] $kept:tt) => {
        $crate::delegate_backend_group! { @tensor_ops $to [$through] $kept }
    };
    // Inputs, and the tensor that is written.
    (@tensor_ops $to:tt $through:tt $kept:tt) => {
        $crate::delegate_backend_group! { @ops $to $through $kept
            embed(
                table: &Self::Embedding,
                tokens: &$crate::backend::Tensor<Self::Buffer, u32>
            ) -> $crate::backend::ActTensor<Self>;
            rms_norm(norm: &Self::Norm, x: &$crate::backend::ActTensor<Self>) -> $crate::backend::ActTensor<Self>;
            add(x: &$crate::backend::ActTensor<Self>) -> $crate::backend::ActTensor<Self>;
            concat(
                left: &$crate::backend::ActTensor<Self>,
                right: &$crate::backend::ActTensor<Self>
            ) -> $crate::backend::ActTensor<Self>;
            gather_rows(
                x: &$crate::backend::ActTensor<Self>,
                rows: &$crate::backend::Tensor<Self::Buffer, u32>
            ) -> $crate::backend::ActTensor<Self>;
            linear(weight: &Self::Linear, x: &$crate::backend::ActTensor<Self>) -> $crate::backend::ActTensor<Self>;
            logits(
                head: &Self::Linear,
                x: &$crate::backend::ActTensor<Self>
            ) -> $crate::backend::Tensor<Self::Buffer, f32>;
            argmax(
                logits: &$crate::backend::Tensor<Self::Buffer, f32>,
                num_ids: usize
            ) -> $crate::backend::Tensor<Self::Buffer, u32>;
            top_logits(
                logits: &$crate::backend::Tensor<Self::Buffer, f32>,
                inverse_temperatures: &$crate::backend::Tensor<Self::Buffer, f32>,
                num_ids: usize
            ) -> $crate::backend::Tensor<Self::Buffer, u32>;
            ffn(weights: &Self::Ffn, x: &$crate::backend::ActTensor<Self>) -> $crate::backend::ActTensor<Self>;
            mla_attention(
                mla: &Self::Mla,
                step: $crate::backend::LayerStep<'_, Self::Buffer>,
                queries: &Self::Queries,
                cache: &Self::LatentCache
            ) -> $crate::backend::ActTensor<Self>;
            moe_experts(
                experts: &Self::Experts,
                x: &$crate::backend::ActTensor<Self>,
                routing: &$crate::backend::Routing<Self::Buffer>
            ) -> $crate::backend::ActTensor<Self>;
            all_reduce() -> $crate::backend::ActTensor<Self>;
            add_rms_norm(
                norm: &Self::Norm,
                delta: &$crate::backend::ActTensor<Self>,
                residual: &mut $crate::backend::ActTensor<Self>
            ) -> $crate::backend::ActTensor<Self>;
        }
    };

    (@methods $to:tt $kept:tt $($name:ident($($arg:ident: $type:ty),*) -> $result:ty;)+) => {
        $($crate::delegate_backend_group! { @unless $name $kept @method $to $name($($arg: $type),*) -> $result })+
    };
    (@method [$field:tt, $inner:ty] $name:ident($($arg:ident: $type:ty),*) -> $result:ty) => {
        fn $name(&self, $($arg: $type),*) -> $result {
            <$inner as $crate::backend::Backend>::$name(&self.$field, $($arg),*)
        }
    };
    (@ops $to:tt $through:tt $kept:tt $($name:ident($($arg:ident: $type:ty),*) -> $out:ty;)+) => {
        $($crate::delegate_backend_group! { @unless $name $kept @op $to $through $name($($arg: $type),*) -> $out })+
    };
    (@op $to:tt [] $name:ident($($arg:ident: $type:ty),*) -> $out:ty) => {
        $crate::delegate_backend_group! {
            @method $to $name(stream: &mut Self::Stream, $($arg: $type,)* out: &mut $out)
                -> Result<(), $crate::backend::StepError>
        }
    };
    (@op [$field:tt, $inner:ty] [$through:ident] $name:ident($($arg:ident: $type:ty),*) -> $out:ty) => {
        fn $name(
            &self,
            stream: &mut Self::Stream,
            $($arg: $type,)*
            out: &mut $out,
        ) -> Result<(), $crate::backend::StepError> {
            self.$through(stringify!($name), stream, out, |inner, stream, out| {
                <$inner as $crate::backend::Backend>::$name(inner, stream, $($arg,)* out)
            })
        }
    };
    (@mla_prolog [$field:tt, $inner:ty]) => {
        fn mla_prolog(
            &self,
            stream: &mut Self::Stream,
            mla: &Self::Mla,
            step: $crate::backend::LayerStep<'_, Self::Buffer>,
            io: $crate::backend::MlaPrologIo<'_, Self>,
        ) -> Result<(), $crate::backend::StepError> {
            <$inner as $crate::backend::Backend>::mla_prolog(&self.$field, stream, mla, step, io.for_backend())
        }
    };

    // Nothing for a method that the `impl` keeps. A macro can compare names only with names that it knows.
    (@unless $name:ident [] $($item:tt)+) => { $crate::delegate_backend_group! { $($item)+ } };
    (@unless capabilities [capabilities $($more:ident)*] $($item:tt)+) => {};
    (@unless rank [rank $($more:ident)*] $($item:tt)+) => {};
    (@unless stream [stream $($more:ident)*] $($item:tt)+) => {};
    (@unless alloc [alloc $($more:ident)*] $($item:tt)+) => {};
    (@unless write [write $($more:ident)*] $($item:tt)+) => {};
    (@unless read [read $($more:ident)*] $($item:tt)+) => {};
    (@unless synchronize [synchronize $($more:ident)*] $($item:tt)+) => {};
    (@unless prepare_embedding [prepare_embedding $($more:ident)*] $($item:tt)+) => {};
    (@unless prepare_norm [prepare_norm $($more:ident)*] $($item:tt)+) => {};
    (@unless prepare_linear [prepare_linear $($more:ident)*] $($item:tt)+) => {};
    (@unless prepare_ffn [prepare_ffn $($more:ident)*] $($item:tt)+) => {};
    (@unless prepare_mla [prepare_mla $($more:ident)*] $($item:tt)+) => {};
    (@unless prepare_gate [prepare_gate $($more:ident)*] $($item:tt)+) => {};
    (@unless prepare_experts [prepare_experts $($more:ident)*] $($item:tt)+) => {};
    (@unless latent_cache [latent_cache $($more:ident)*] $($item:tt)+) => {};
    (@unless queries [queries $($more:ident)*] $($item:tt)+) => {};
    (@unless embed [embed $($more:ident)*] $($item:tt)+) => {};
    (@unless rms_norm [rms_norm $($more:ident)*] $($item:tt)+) => {};
    (@unless add [add $($more:ident)*] $($item:tt)+) => {};
    (@unless concat [concat $($more:ident)*] $($item:tt)+) => {};
    (@unless gather_rows [gather_rows $($more:ident)*] $($item:tt)+) => {};
    (@unless linear [linear $($more:ident)*] $($item:tt)+) => {};
    (@unless logits [logits $($more:ident)*] $($item:tt)+) => {};
    (@unless argmax [argmax $($more:ident)*] $($item:tt)+) => {};
    (@unless finds_top_logits [finds_top_logits $($more:ident)*] $($item:tt)+) => {};
    (@unless top_logits [top_logits $($more:ident)*] $($item:tt)+) => {};
    (@unless ffn [ffn $($more:ident)*] $($item:tt)+) => {};
    (@unless mla_prolog [mla_prolog $($more:ident)*] $($item:tt)+) => {};
    (@unless mla_attention [mla_attention $($more:ident)*] $($item:tt)+) => {};
    (@unless moe_gate [moe_gate $($more:ident)*] $($item:tt)+) => {};
    (@unless moe_experts [moe_experts $($more:ident)*] $($item:tt)+) => {};
    (@unless all_reduce [all_reduce $($more:ident)*] $($item:tt)+) => {};
    (@unless add_rms_norm [add_rms_norm $($more:ident)*] $($item:tt)+) => {};
    (@unless $name:ident [$other:ident $($more:ident)*] $($item:tt)+) => {
        $crate::delegate_backend_group! { @unless $name [$($more)*] $($item)+ }
    };
}

pub use delegate_backend;
