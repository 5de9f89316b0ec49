#![allow(clippy::unwrap_used)]

use super::*;
use crate::backend::{StepLimits, StepMeta};

#[test]
fn ops_are_recorded_in_call_order_with_the_live_shape() {
    let backend = NoopBackend::new();
    let calls = backend.calls();
    let mut out = Act::alloc(&backend, 8, 3).unwrap();
    let x = Act::alloc(&backend, 8, 3).unwrap();
    out.set_rows(5);
    backend.linear(&mut (), &NoopWeight, &x, &mut out).unwrap();
    backend.add(&mut (), &x, &mut out).unwrap();
    assert_eq!(
        *calls.lock().unwrap(),
        [OpCall { op: "linear", layer: None, rows: 5, cols: 3 }, OpCall { op: "add", layer: None, rows: 5, cols: 3 }]
    );
}

#[test]
fn derived_ops_appear_as_the_ops_they_are_made_of() {
    let backend = NoopBackend::new();
    let mut tensors = [0; 3].map(|_| Act::alloc(&backend, 2, 4).unwrap());
    let [delta, residual, out] = &mut tensors;
    backend.add_rms_norm(&mut (), &NoopWeight, delta, residual, out).unwrap();
    let names: Vec<_> = backend.calls().lock().unwrap().iter().map(|call| call.op).collect();
    assert_eq!(names, ["add", "rms_norm"]);
}

#[test]
fn mla_ops_record_their_layer() {
    let backend = NoopBackend::new();
    let limits = StepLimits { max_num_batched_tokens: 4, max_num_seqs: 1, max_model_len: 8, block_size: 4 };
    let meta = StepMeta::alloc(&backend, &limits).unwrap();
    let x = Act::alloc(&backend, 4, 6).unwrap();
    let io = MlaPrologIo { x: &x, cache: &mut (), queries: &mut () };
    backend.mla_prolog(&mut (), &NoopWeight, LayerStep { layer: 7, meta: &meta }, io).unwrap();
    assert_eq!(*backend.calls().lock().unwrap(), [OpCall { op: "mla_prolog", layer: Some(7), rows: 4, cols: 6 }]);
}

#[test]
fn memory_reads_as_zeros() {
    let backend = NoopBackend::new();
    let tensor = Tensor::from_slice(&backend, &mut (), 2, &[1.0f32, 2.0]).unwrap();
    let mut values = vec![9.0];
    tensor.read(&backend, &mut (), &mut values).unwrap();
    assert_eq!(values, [0.0, 0.0]);
}
