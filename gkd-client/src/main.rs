//! gkd-client
fn main() {}
