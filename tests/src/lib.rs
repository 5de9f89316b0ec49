//! Conformance.

/// golden
pub mod golden;
