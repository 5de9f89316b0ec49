use engine_core::config::AttentionConfig;
use engine_core::quant::WeightFormat;
use engine_core::reference::{Numerics, ReferenceBackend};

use super::world::{Attention, FORMATS, Part, Random, assert_close, cpu};
use crate::{MlaForm, SimdLevel};

pub(super) const FORMS: [MlaForm; 2] = [MlaForm::Absorbed, MlaForm::NonAbsorbed];

/// Dimensions that are no whole number of chunks, and V ≠ P.
pub(super) const RAGGED: AttentionConfig = AttentionConfig {
    num_attention_heads: 6,
    q_lora_rank: Some(40),
    kv_lora_rank: 72,
    qk_nope_head_dim: 24,
    qk_rope_head_dim: 8,
    v_head_dim: 40,
};

/// A direct query projection and whole chunks.
pub(super) const WHOLE: AttentionConfig = AttentionConfig {
    num_attention_heads: 4,
    q_lora_rank: None,
    kv_lora_rank: 128,
    qk_nope_head_dim: 64,
    qk_rope_head_dim: 32,
    v_head_dim: 64,
};

pub(super) const HIDDEN: usize = 100;

/// A step of a long prefill, a decode and a short chunk, in blocks that are not in order.
fn mixed_steps(attention: &mut Attention<'_, impl SmallBackend>, x: &[Vec<f32>]) -> Vec<f32> {
    let blocks: [Vec<u32>; 3] = [(0..12).rev().collect(), (12..24).collect(), vec![30, 25, 27, 26, 28, 29]];
    let part = |seq: usize, positions| Part { x: &x[seq], positions, blocks: &blocks[seq] };
    let mut out = attention.step(&[part(0, 0..1), part(1, 0..70), part(2, 0..3)]);
    out.extend(attention.step(&[part(0, 1..150), part(1, 70..71), part(2, 3..40)]));
    out.extend(attention.step(&[part(0, 150..151), part(1, 71..72), part(2, 40..42)]));
    out
}

/// Backends on f32 in host memory.
trait SmallBackend: engine_core::backend::Backend<Act = f32, Buffer = engine_core::backend::HostBuffer> {}
impl<B: engine_core::backend::Backend<Act = f32, Buffer = engine_core::backend::HostBuffer>> SmallBackend for B {}

#[test]
fn both_forms_agree_with_the_reference() {
    let reference = ReferenceBackend::new(Numerics::default());
    for (seed, dims) in [RAGGED, WHOLE].into_iter().enumerate() {
        for format in FORMATS {
            let mut random = Random::new(seed as u64 + 10);
            let (spec, weights) = random.mla(format, dims, HIDDEN);
            let x: Vec<Vec<f32>> = [151, 72, 42].map(|len| random.values(len * HIDDEN)).into();
            let expected = mixed_steps(&mut Attention::new(&reference, &spec, &weights, 32), &x);
            for level in SimdLevel::available() {
                for form in FORMS {
                    let backend = cpu(level, form);
                    let found = mixed_steps(&mut Attention::new(&backend, &spec, &weights, 32), &x);
                    assert_close(&found, &expected, 1e-5, &format!("{level} {format} {form:?} {dims:?}"));
                }
            }
        }
    }
}

#[test]
fn a_long_context_runs_in_tiles() {
    let reference = ReferenceBackend::new(Numerics::default());
    let mut random = Random::new(20);
    let (spec, weights) = random.mla(WeightFormat::Bf16, WHOLE, HIDDEN);
    let x = random.values(512 * HIDDEN);
    let blocks: Vec<u32> = (0..32).collect();
    let steps = [0..400, 400..511, 511..512];
    let run = |attention: &mut Attention<'_, ReferenceBackend>| -> Vec<f32> {
        let parts = steps.clone().map(|positions| attention.step(&[Part { x: &x, positions, blocks: &blocks }]));
        parts.concat()
    };
    let expected = run(&mut Attention::new(&reference, &spec, &weights, 32));
    for form in FORMS {
        let backend = cpu(SimdLevel::detect(), form);
        let mut attention = Attention::new(&backend, &spec, &weights, 32);
        let parts = steps.clone().map(|positions| attention.step(&[Part { x: &x, positions, blocks: &blocks }]));
        assert_close(&parts.concat(), &expected, 1e-5, &format!("{form:?}"));
    }
}
