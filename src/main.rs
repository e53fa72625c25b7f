//! The dockgate program.
#![forbid(unsafe_code)]

fn main() {}
