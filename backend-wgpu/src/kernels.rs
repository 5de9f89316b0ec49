//! Every kernel there is, as data: its sources, its template variables and its bindings.
//!
//! The files in `kernels/` are WGSL with template directives; a kernel is the concatenation of a few of them, rendered.
//! Variants come from variables, never from copies.

use engine_core::quant::WeightFormat;
use minijinja::{Environment, Value, context};

use crate::options::MatmulStyle;

/// What the adapter decides about all kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Tuning {
    /// How matrix products are cut.
    pub(crate) matmul: MatmulStyle,
    /// Use subgroup operations in reductions.
    pub(crate) subgroups: bool,
    /// Lanes that load once for all of them; 0 for none. All subgroups have this size.
    pub(crate) share: u32,
}

impl Tuning {
    /// Lanes of a workgroup whose lanes own their outputs.
    pub(crate) fn plain_lanes(self) -> u32 {
        if self.share > 0 { self.share } else { 64 }
    }
}

/// How a matrix product finds the rows of its input and output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum RowSource {
    /// Row after row.
    Dense,
    /// Tiles of (token, choice) pairs grouped by expert; inputs are the tokens' rows.
    Gather,
    /// The same tiles; inputs lie in grouped order.
    Sorted,
}

/// How a matrix product is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Cut {
    /// A lane owns whole outputs.
    Lanes,
    /// Lanes along the inputs.
    Gemv,
    /// Tiles in workgroup memory.
    Tile,
}

/// Where a weight's scale applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Scaling {
    /// There is none.
    None,
    /// The same for a whole row.
    Row,
    /// The same for any aligned 32 inputs.
    Block,
    /// The same for any aligned 4 inputs.
    Quad,
}

/// A variant of the matrix product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct MatmulKernel {
    pub(crate) cut: Cut,
    /// Rows of x per workgroup.
    pub(crate) rows: u32,
    pub(crate) format: WeightFormat,
    pub(crate) scaling: Scaling,
    /// Inputs are read four at a time.
    pub(crate) vectorised: bool,
    pub(crate) source: RowSource,
    /// Two matrices, joined as `silu(gate) * up`.
    pub(crate) gated: bool,
}

impl MatmulKernel {
    /// Outputs of one workgroup.
    pub(crate) fn columns(&self, tuning: Tuning) -> u32 {
        match self.cut {
            Cut::Lanes => self.lanes(tuning) * self.outputs_per_lane(),
            Cut::Gemv => self.outputs_per_lane(),
            Cut::Tile => 64,
        }
    }

    fn lanes(&self, tuning: Tuning) -> u32 {
        match self.cut {
            Cut::Lanes => tuning.plain_lanes(),
            Cut::Gemv => 64,
            Cut::Tile => 256,
        }
    }

    /// As many sums as registers hold: gate and up each need their own.
    fn outputs_per_lane(&self) -> u32 {
        let outputs = match self.cut {
            Cut::Lanes => 4,
            Cut::Gemv => 2,
            Cut::Tile => 4,
        };
        if self.gated && self.cut != Cut::Tile { outputs / 2 } else { outputs }
    }
}

/// A kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kernel {
    Add,
    Concat,
    GatherRows,
    Argmax,
    Embed { format: WeightFormat },
    Norm { residual: bool },
    Matmul(MatmulKernel),
    LatentWrite,
    QueryRope,
    Absorb { format: WeightFormat, rows: u32 },
    Attention { rows: u32, quads: u32, vectorised: bool, split: bool },
    Merge,
    Route { experts: u32, groups: u32, top_k: u32, softmax: bool },
    ExpertSort { experts: u32 },
    Combine { shared: bool },
}

/// Lanes of the kernels that walk over a row.
const ROW_LANES: u32 = 128;
/// Lanes, and positions per tile, of attention.
pub(crate) const ATTENTION_LANES: u32 = 64;

impl Kernel {
    /// Files that make up the source, in order.
    fn sources(&self) -> &'static [&'static str] {
        const WEIGHTS: &str = include_str!("kernels/weights.wgsl");
        const MATMUL: &str = include_str!("kernels/matmul.wgsl");
        const REDUCE: &str = include_str!("kernels/reduce.wgsl");
        const ELEMENTWISE: &str = include_str!("kernels/elementwise.wgsl");
        match self {
            Kernel::Add | Kernel::Concat | Kernel::GatherRows => &[ELEMENTWISE],
            Kernel::Argmax => &[include_str!("kernels/argmax.wgsl")],
            Kernel::Embed { .. } => &[WEIGHTS, include_str!("kernels/embed.wgsl")],
            Kernel::Norm { .. } => &[REDUCE, include_str!("kernels/norm.wgsl")],
            Kernel::Matmul(MatmulKernel { cut: Cut::Lanes, .. }) => {
                &[WEIGHTS, MATMUL, include_str!("kernels/lanes.wgsl")]
            }
            Kernel::Matmul(MatmulKernel { cut: Cut::Gemv, .. }) => {
                &[WEIGHTS, MATMUL, REDUCE, include_str!("kernels/gemv.wgsl")]
            }
            Kernel::Matmul(MatmulKernel { cut: Cut::Tile, .. }) => {
                &[WEIGHTS, MATMUL, include_str!("kernels/tile.wgsl")]
            }
            Kernel::LatentWrite => &[REDUCE, include_str!("kernels/latent_write.wgsl")],
            Kernel::QueryRope => &[include_str!("kernels/query_rope.wgsl")],
            Kernel::Absorb { .. } => &[WEIGHTS, include_str!("kernels/absorb.wgsl")],
            Kernel::Attention { .. } => &[include_str!("kernels/attention.wgsl")],
            Kernel::Merge => &[include_str!("kernels/merge.wgsl")],
            Kernel::Route { .. } => &[REDUCE, include_str!("kernels/route.wgsl")],
            Kernel::ExpertSort { .. } => &[include_str!("kernels/expert_sort.wgsl")],
            Kernel::Combine { .. } => &[include_str!("kernels/combine.wgsl")],
        }
    }

    /// One letter per storage binding: `r` read, `w` read and written. The parameters follow as a uniform.
    pub(crate) fn bindings(&self) -> &'static str {
        match self {
            Kernel::Add | Kernel::Argmax => "rw",
            Kernel::Concat | Kernel::GatherRows | Kernel::Norm { residual: false } | Kernel::Merge => "rrw",
            Kernel::Embed { .. } | Kernel::QueryRope | Kernel::Absorb { .. } => "rrrw",
            Kernel::Norm { residual: true } | Kernel::Route { .. } => "rrww",
            Kernel::Matmul(MatmulKernel { source: RowSource::Dense, .. }) => "rrrw",
            Kernel::Matmul(_) => "rrrrrw",
            Kernel::LatentWrite => "rrrrrw",
            Kernel::Attention { split: false, .. } => "rrrrrrw",
            Kernel::Attention { split: true, .. } => "rrrrrrww",
            Kernel::ExpertSort { .. } => "rwww",
            Kernel::Combine { shared: false } => "rrrw",
            Kernel::Combine { shared: true } => "rrrrw",
        }
    }

    /// Variables of the templates.
    fn variables(&self, tuning: Tuning) -> Value {
        let Tuning { subgroups, share, matmul: _ } = tuning;
        match *self {
            Kernel::Add => context! { OP => "add" },
            Kernel::Concat => context! { OP => "concat" },
            Kernel::GatherRows => context! { OP => "gather_rows" },
            Kernel::Embed { format } => context! { FORMAT => format.to_string(), CHUNK => chunk(format) },
            Kernel::Norm { residual } => {
                context! { LANES => ROW_LANES, SUBGROUPS => subgroups, RESIDUAL => residual }
            }
            Kernel::LatentWrite => context! { LANES => ROW_LANES, SUBGROUPS => subgroups },
            Kernel::Matmul(kernel) => context! {
                FORMAT => kernel.format.to_string(),
                CHUNK => chunk(kernel.format),
                LANES => kernel.lanes(tuning),
                SHARE => share,
                STEP => 32,
                SUBGROUPS => subgroups,
                RM => kernel.rows,
                RN => kernel.outputs_per_lane(),
                VEC => kernel.vectorised,
                GATED => kernel.gated,
                ROWS => match kernel.source {
                    RowSource::Dense => "dense",
                    RowSource::Gather => "gather",
                    RowSource::Sorted => "sorted",
                },
                SCALED => match kernel.scaling {
                    Scaling::None => "none",
                    Scaling::Row => "row",
                    Scaling::Block => "block",
                    Scaling::Quad => "quad",
                },
            },
            Kernel::Absorb { format, rows } => context! {
                FORMAT => format.to_string(),
                CHUNK => chunk(format),
                LANES => tuning.plain_lanes(),
                SHARE => share,
                RM => rows,
            },
            Kernel::Attention { rows, quads, vectorised, split } => context! {
                LANES => ATTENTION_LANES,
                SHARE => share,
                RM => rows,
                QUADS => quads,
                VEC => vectorised,
                SPLIT => split,
            },
            Kernel::Route { experts, groups, top_k, softmax } => context! {
                LANES => 64,
                SUBGROUPS => subgroups,
                EXPERTS => experts,
                GROUPS => groups,
                TOP_K => top_k,
                SOFTMAX => softmax,
            },
            Kernel::ExpertSort { experts } => context! { EXPERTS => experts },
            Kernel::Combine { shared } => context! { SHARED => shared },
            Kernel::Argmax | Kernel::QueryRope | Kernel::Merge => context! {},
        }
    }

    /// The WGSL text.
    ///
    /// # Errors
    /// A mistake in a template.
    pub(crate) fn wgsl(&self, tuning: Tuning) -> Result<String, minijinja::Error> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(minijinja::UndefinedBehavior::Strict);
        environment.render_str(&self.sources().concat(), self.variables(tuning))
    }
}

/// Weights in a vec4<u32>.
pub(crate) fn chunk(format: WeightFormat) -> u32 {
    match format {
        WeightFormat::F32 => 4,
        WeightFormat::Bf16 => 8,
        WeightFormat::Fp8Block | WeightFormat::Int8Channel => 16,
        WeightFormat::Int4Group => 32,
    }
}
