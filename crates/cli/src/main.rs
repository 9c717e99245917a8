//! limosa
fn main() {}
