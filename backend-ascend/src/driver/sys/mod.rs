//! Declarations of CANN's libraries, generated from `bindings/` by `tools/ascend-bindings`: one struct per library, its
//! functions loaded when the struct is made.
#![allow(
    clippy::all,
    clippy::undocumented_unsafe_blocks,
    dead_code,
    missing_debug_implementations,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    unreachable_pub,
    unsafe_op_in_unsafe_fn,
    reason = "generated"
)]

pub(super) mod acl_later;
pub(super) mod acl_rt;
pub(super) mod capture;
pub(super) mod hccl;
pub(super) mod nnopbase;
pub(super) mod opapi;
pub(super) mod types;
