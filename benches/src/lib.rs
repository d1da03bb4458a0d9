//! Measurements of Serin. What a request costs in pure code is in `benches/hot_path.rs`: `cargo bench -p serin-benches`.
//!
//! Wall-clock figures of one machine compare changes on that machine and nothing else.
