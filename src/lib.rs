//! gkd
