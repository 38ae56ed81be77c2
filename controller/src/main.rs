//! x
mod cluster;
fn main() {}
