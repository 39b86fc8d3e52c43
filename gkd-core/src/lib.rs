//! gkd-core
