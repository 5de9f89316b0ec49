//! Every kernel that a model may ask for.

use engine_core::quant::WeightFormat;

use crate::kernels::{ATTENTION_LANES, Kernel, MatmulKernel, RowSource, Scaling, Tuning};
use crate::matmul::cuts;
use crate::options::MatmulStyle;

/// Every combination that an adapter and its user can bring about: sharing loads needs subgroups.
pub(super) fn tunings() -> Vec<Tuning> {
    let with_subgroups = [(false, 0), (true, 0), (true, 8)];
    [MatmulStyle::Tiles, MatmulStyle::Lanes]
        .into_iter()
        .flat_map(|matmul| with_subgroups.map(|(subgroups, share)| Tuning { matmul, subgroups, share }))
        .collect()
}

const FORMATS: [WeightFormat; 5] =
    [WeightFormat::F32, WeightFormat::Bf16, WeightFormat::Fp8Block, WeightFormat::Int8Channel, WeightFormat::Int4Group];

/// Where scales of a format may apply; INT4 has two ways, by the size of its groups.
fn scalings(format: WeightFormat) -> &'static [Scaling] {
    match format {
        WeightFormat::F32 | WeightFormat::Bf16 => &[Scaling::None],
        WeightFormat::Fp8Block => &[Scaling::Block],
        WeightFormat::Int8Channel => &[Scaling::Row],
        WeightFormat::Int4Group => &[Scaling::Block, Scaling::Quad],
    }
}

/// `(experts, groups, top_k, softmax)`.
const ROUTERS: [(u32, u32, u32, bool); 10] = [
    // DeepSeek-V3, Kimi-K2, Moonlight, GLM-4.7-Flash.
    (256, 8, 8, false),
    (384, 1, 8, false),
    (64, 1, 6, false),
    (64, 1, 4, false),
    // DeepSeek-V2 and V2-Lite.
    (160, 8, 6, true),
    (64, 1, 6, true),
    // One expert; odd numbers; the most there may be, all chosen, each a group.
    (1, 1, 1, false),
    (21, 7, 5, true),
    (1024, 1024, 1024, false),
    (1024, 4, 16, true),
];

/// `(kv_lora_rank, rope_dim)`: that of all known models, small and odd ones.
const LATENTS: [(u32, u32); 6] = [(512, 64), (256, 64), (16, 16), (37, 6), (768, 2), (1024, 128)];

/// Whether inputs can be read four at a time; the number of columns decides.
const VECTORISED: [bool; 2] = [true, false];

pub(super) fn kernels(tuning: Tuning) -> Vec<Kernel> {
    let mut kernels = vec![
        Kernel::Add,
        Kernel::Concat,
        Kernel::GatherRows,
        Kernel::Argmax,
        Kernel::LatentWrite,
        Kernel::QueryRope,
        Kernel::Merge,
    ];
    for flag in [false, true] {
        kernels.extend([Kernel::Norm { residual: flag }, Kernel::Combine { shared: flag }]);
    }
    for format in FORMATS {
        kernels.push(Kernel::Embed { format });
        kernels.extend([1, 8].map(|rows| Kernel::Absorb { format, rows }));
    }
    kernels.extend(matmuls(tuning).into_iter().map(Kernel::Matmul));
    kernels.extend(attentions());
    for (experts, groups, top_k, softmax) in ROUTERS {
        kernels.extend([Kernel::Route { experts, groups, top_k, softmax }, Kernel::ExpertSort { experts }]);
    }
    kernels
}

fn matmuls(tuning: Tuning) -> Vec<MatmulKernel> {
    let products =
        [(RowSource::Dense, false), (RowSource::Dense, true), (RowSource::Gather, true), (RowSource::Sorted, false)];
    let mut kernels = Vec::new();
    for (cut, rows) in cuts(tuning.matmul) {
        for format in FORMATS {
            for &scaling in scalings(format) {
                for vectorised in VECTORISED {
                    kernels.extend(products.map(|(source, gated)| MatmulKernel {
                        cut,
                        rows,
                        format,
                        scaling,
                        vectorised,
                        source,
                        gated,
                    }));
                }
            }
        }
    }
    kernels
}

fn attentions() -> Vec<Kernel> {
    let mut kernels = Vec::new();
    for (rank, rope_dim) in LATENTS {
        for rows in [4, 8, 16] {
            kernels.extend([false, true].map(|split| Kernel::Attention {
                rows,
                quads: rank.div_ceil(4 * ATTENTION_LANES),
                vectorised: (rank + rope_dim).is_multiple_of(4),
                split,
            }));
        }
    }
    kernels
}

/// What kind of kernel it is. A new kind does not compile until it has a name here, and [`KINDS`] counts it then.
pub(super) fn kind(kernel: &Kernel) -> &'static str {
    match kernel {
        Kernel::Add => "add",
        Kernel::Concat => "concat",
        Kernel::GatherRows => "gather_rows",
        Kernel::Argmax => "argmax",
        Kernel::Embed { .. } => "embed",
        Kernel::Norm { .. } => "norm",
        Kernel::Matmul(_) => "matmul",
        Kernel::LatentWrite => "latent_write",
        Kernel::QueryRope => "query_rope",
        Kernel::Absorb { .. } => "absorb",
        Kernel::Attention { .. } => "attention",
        Kernel::Merge => "merge",
        Kernel::Route { .. } => "route",
        Kernel::ExpertSort { .. } => "expert_sort",
        Kernel::Combine { .. } => "combine",
    }
}

/// How many kinds there are.
pub(super) const KINDS: usize = 15;
