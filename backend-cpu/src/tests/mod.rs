//! Every op on every instruction set of this machine, against the reference and against itself.

#![allow(clippy::unwrap_used)]

mod attention;
mod invariance;
mod linear;
mod moe;
mod world;
