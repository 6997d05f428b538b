//! How descriptors and the scripts in them are named.

use std::fmt;

/// Names a descriptor: a hash of its public normal form (`crate::descriptors`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DescriptorId(pub [u8; 32]);

impl DescriptorId {
    /// Its first 16 hex digits, which tell it apart in the log.
    pub fn short(&self) -> String {
        let digits = self.to_string();
        digits.chars().take(16).collect()
    }
}

impl fmt::Display for DescriptorId {
    /// 64 hex digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for DescriptorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Which of the two branches of a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Keychain {
    /// Addresses that are given to others.
    External,
    /// Change.
    Internal,
}

/// Where a script stands in a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Derivation {
    pub descriptor: DescriptorId,
    pub keychain: Keychain,
    pub index: u32,
}

/// Scripts that are watched beyond the window of a keychain, at least.
pub const LOOKAHEAD: u32 = 1000;
