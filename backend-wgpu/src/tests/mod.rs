//! Kernels as text: what they are made of, and that every API's compiler gets something valid. No adapter is needed.

#![allow(clippy::unwrap_used)]

mod catalogue;
mod contract;
mod translation;
