//! Benchmarks of gkd; see the files beside this one.
