//! Writing checkpoints: conversion between precisions.

pub(crate) mod config_json;
mod error;
pub(crate) mod shards;
pub(crate) mod staging;
pub(crate) mod stored;

pub use error::ConvertError;

/// How far the writing of a checkpoint has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress<'a> {
    /// Bytes of tensors written so far.
    pub done_bytes: u64,
    /// Bytes of all tensors of the output.
    pub total_bytes: u64,
    /// The tensor just written, whole or in part.
    pub tensor: &'a str,
}
