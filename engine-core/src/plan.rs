//! plan
/// err
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {}
