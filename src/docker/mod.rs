//! Floor 0: the words of the old world: Docker's clients before 1.6 and the v1 registry protocol.

mod bodies;
mod client;
mod image_id;
mod token;

pub use bodies::{BodyError, IMAGES_LISTED_MAX, ImageJson, answered_images, listed_images, tagged_image};
pub use client::{Client, Generation, LegacyClients, Version};
pub use image_id::{ImageId, ImageIdError};
pub use token::{TokenAccess, TokenFields, TokenFieldsError};
