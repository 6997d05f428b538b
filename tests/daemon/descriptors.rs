//! Descriptors beside a real node.

mod derivation;
mod derivation_oracle;
mod inside;
mod scans;
