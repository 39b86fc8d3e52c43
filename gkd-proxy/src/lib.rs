//! gkd-proxy
