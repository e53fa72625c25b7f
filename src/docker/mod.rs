//! Floor 0: the words of the old world: Docker's clients before 1.6 and the v1 registry protocol.

mod client;
mod image_id;

pub use client::{Client, Generation, Version};
pub use image_id::{ImageId, ImageIdError};
