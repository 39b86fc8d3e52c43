//! gkd-server
fn main() {}
