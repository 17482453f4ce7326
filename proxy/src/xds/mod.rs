//! The configuration from the policy server: xDS messages decoded strictly, staged as they arrive, swapped in whole.

mod assembly;
pub mod decode;
pub(crate) mod delta;
pub mod resource;
pub mod staging;
mod stream;

pub use stream::PolicyClient;
