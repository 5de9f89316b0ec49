//! What the host tells a kernel beside its buffers: for each `Params` in WGSL the same struct in Rust, and the table that
//! ties the two.

use bytemuck::{Pod, Zeroable};

use crate::kernels::Kernel;

/// Name and WGSL type of a field; every one is 4 bytes.
pub(crate) type Field = (&'static str, &'static str);

/// Defines the structs, with their fields as data, so that a test can hold them against the kernels' own.
macro_rules! params {
    ($($(#[$meta:meta])* pub(crate) struct $name:ident { $($field:ident: $ty:ident,)+ })+) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, Default, Pod, Zeroable)]
        #[repr(C)]
        pub(crate) struct $name {
            $(pub(crate) $field: $ty,)+
        }

        impl $name {
            const FIELDS: &'static [Field] = &[$((stringify!($field), stringify!($ty)),)+];
        }

        const _: () = assert!(size_of::<$name>() == 4 * $name::FIELDS.len());
    )+};
}

params! {
    /// `Params` of `kernels/argmax.wgsl`.
    pub(crate) struct ArgmaxParams {
        cols: u32,
        num_ids: u32,
    }

    /// `Params` of `kernels/elementwise.wgsl`.
    pub(crate) struct ElementwiseParams {
        num_rows: u32,
        cols: u32,
        left_cols: u32,
    }

    /// `Params` of `kernels/embed.wgsl`.
    pub(crate) struct EmbedParams {
        num_tokens: u32,
        cols: u32,
        first_row: u32,
        num_rows: u32,
        w_row: u32,
        scale_row: u32,
        scale_group: u32,
    }

    /// `Params` of `kernels/norm.wgsl`.
    pub(crate) struct NormParams {
        cols: u32,
        eps: f32,
    }

    /// `Params` of `kernels/matmul.wgsl`.
    pub(crate) struct MatmulParams {
        m: u32,
        n: u32,
        k: u32,
        x_row: u32,
        x_head: u32,
        y_row: u32,
        y_head: u32,
        y_first: u32,
        w_row: u32,
        w_head: u32,
        w_first: u32,
        matrix_rows: u32,
        matrix_scales: u32,
        scale_row: u32,
        scale_group: u32,
        first_expert: u32,
        num_experts: u32,
        top_k: u32,
    }

    /// `Params` of `kernels/latent_write.wgsl`.
    pub(crate) struct LatentWriteParams {
        kv_lora_rank: u32,
        rope_dim: u32,
        eps: f32,
    }

    /// `Params` of `kernels/query_rope.wgsl`.
    pub(crate) struct QueryRopeParams {
        num_tokens: u32,
        num_heads: u32,
        nope_dim: u32,
        rope_dim: u32,
        kv_lora_rank: u32,
    }

    /// `Params` of `kernels/absorb.wgsl`.
    pub(crate) struct AbsorbParams {
        num_tokens: u32,
        num_heads: u32,
        nope_dim: u32,
        q_row: u32,
        q_head: u32,
        kv_lora_rank: u32,
        latent_width: u32,
        w_head: u32,
        w_row: u32,
        scale_row: u32,
        scale_group: u32,
    }

    /// `Params` of `kernels/attention.wgsl`.
    pub(crate) struct AttentionParams {
        num_heads: u32,
        num_rows: u32,
        latent_width: u32,
        kv_lora_rank: u32,
        block_size: u32,
        max_blocks: u32,
        num_splits: u32,
        softmax_scale: f32,
        first_tile: u32,
    }

    /// `Params` of `kernels/merge.wgsl`.
    pub(crate) struct MergeParams {
        num_rows: u32,
        cols: u32,
        num_splits: u32,
    }

    /// `Params` of `kernels/route.wgsl`.
    pub(crate) struct RouteParams {
        num_groups: u32,
        top_groups: u32,
        norm_topk_prob: u32,
        scaling_factor: f32,
    }

    /// `Params` of `kernels/expert_sort.wgsl`.
    pub(crate) struct SortParams {
        num_pairs: u32,
        tile_rows: u32,
    }

    /// `Params` of `kernels/combine.wgsl`.
    pub(crate) struct CombineParams {
        num_rows: u32,
        cols: u32,
        top_k: u32,
    }
}

impl Kernel {
    /// Fields of the kernel's `Params`.
    pub(crate) fn params(&self) -> &'static [Field] {
        match self {
            Kernel::Add | Kernel::Concat | Kernel::GatherRows => ElementwiseParams::FIELDS,
            Kernel::Argmax => ArgmaxParams::FIELDS,
            Kernel::Embed { .. } => EmbedParams::FIELDS,
            Kernel::Norm { .. } => NormParams::FIELDS,
            Kernel::Matmul(_) => MatmulParams::FIELDS,
            Kernel::LatentWrite => LatentWriteParams::FIELDS,
            Kernel::QueryRope => QueryRopeParams::FIELDS,
            Kernel::Absorb { .. } => AbsorbParams::FIELDS,
            Kernel::Attention { .. } => AttentionParams::FIELDS,
            Kernel::Merge => MergeParams::FIELDS,
            Kernel::Route { .. } => RouteParams::FIELDS,
            Kernel::ExpertSort { .. } => SortParams::FIELDS,
            Kernel::Combine { .. } => CombineParams::FIELDS,
        }
    }
}
