//! backend
/// err
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StepError {}
impl StepError {
    /// x
    pub fn is_fatal(&self) -> bool { false }
}
/// err
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unsupported {}
