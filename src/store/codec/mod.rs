//! Keys and values as bytes, as the tables in [`super`] give them: [`keys`], rows and [`events`].
//! Nothing else builds or takes apart a key.
//!
//! # Laws
//!
//! 1. A value is a version byte, then its fields in Bitcoin's consensus encoding. What is read back
//!    is what was written, or [`Malformed`]; no bytes make this code panic.
//! 2. Bytes that are left over behind a value are refused too.
//! 3. What is written and what is read comes from one list of fields (the macros below), wherever
//!    the bytes are the fields.
//! 4. A type that has a file of its own in the store (starts, consumers) has its codec there.

pub mod events;
pub mod keys;
pub mod rows;

use std::sync::Arc;

use bitcoin::consensus::encode::{self, Decodable, Encodable, VarInt};
use bitcoin::{BlockHash, OutPoint, ScriptBuf, Transaction, Txid};

/// Bytes that are not what this release writes.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed(pub String);

impl From<encode::Error> for Malformed {
    fn from(error: encode::Error) -> Self {
        Self(error.to_string())
    }
}

/// A value under construction.
pub struct Out(Vec<u8>);

impl Out {
    pub fn put(&mut self, field: &impl Encodable) -> &mut Self {
        field
            .consensus_encode(&mut self.0)
            .expect("a vector takes every byte");
        self
    }

    pub fn tag(&mut self, tag: u8) -> &mut Self {
        self.put(&tag)
    }

    pub fn list(&mut self, items: &[impl StoredValue]) -> &mut Self {
        self.put(&VarInt(items.len() as u64));
        items.iter().for_each(|item| item.encode(self));
        self
    }

    /// A list at the end of a value, which is left out when it is empty: rows from before there was
    /// one have none.
    pub fn last(&mut self, items: &[impl StoredValue]) -> &mut Self {
        match items {
            [] => self,
            items => self.list(items),
        }
    }

    /// A row that is a field of another one, without a version of its own.
    pub fn part<T: StoredValue>(&mut self, part: &T) -> &mut Self {
        part.encode(self);
        self
    }
}

/// A value being read.
pub struct In<'a>(&'a [u8]);

impl In<'_> {
    pub fn get<T: Decodable>(&mut self) -> Result<T, Malformed> {
        Ok(T::consensus_decode_from_finite_reader(&mut self.0)?)
    }

    pub fn tag(&mut self) -> Result<u8, Malformed> {
        self.get()
    }

    /// The byte that comes next, if there is one.
    pub fn next(&self) -> Option<u8> {
        self.0.first().copied()
    }

    pub fn part<T: StoredValue>(&mut self) -> Result<T, Malformed> {
        T::decode(self)
    }

    fn end(&self) -> Result<(), Malformed> {
        match self.0.len() {
            0 => Ok(()),
            left => Err(Malformed(format!("{left} bytes follow the value"))),
        }
    }

    /// A list that is left out when it is empty.
    pub fn last<T: StoredValue>(&mut self) -> Result<Vec<T>, Malformed> {
        match self.0 {
            [] => Ok(Vec::new()),
            [0, ..] => Err(Malformed("an empty list at the end of a value".to_owned())),
            _ => self.part(),
        }
    }
}

/// Something that is stored as a value, or as part of one.
pub trait StoredValue: Sized {
    /// First byte of a value, behind which these fields follow. Others behind the same byte, in a
    /// later format, would be taken for these.
    const VERSION: u8 = 1;

    fn encode(&self, out: &mut Out);
    fn decode(input: &mut In<'_>) -> Result<Self, Malformed>;

    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Out(vec![Self::VERSION]);
        self.encode(&mut out);
        out.0
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        let (version, body) = bytes
            .split_first()
            .ok_or_else(|| Malformed("the value is empty".to_owned()))?;
        if *version != Self::VERSION {
            return Err(Malformed(format!(
                "the value has version {version}, this satwatch reads version {}",
                Self::VERSION
            )));
        }
        let mut input = In(body);
        let value = Self::decode(&mut input)?;
        input.end().map(|()| value)
    }
}

/// What only is there or not: an empty value is really empty.
impl StoredValue for () {
    fn encode(&self, _: &mut Out) {}

    fn decode(_: &mut In<'_>) -> Result<Self, Malformed> {
        Ok(())
    }

    fn to_bytes(&self) -> Vec<u8> {
        Vec::new()
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        match bytes.len() {
            0 => Ok(()),
            left => Err(Malformed(format!("{left} bytes where none belong"))),
        }
    }
}

/// Types that are their own consensus encoding.
macro_rules! plain_value {
    ($($type:ty),*) => {$(
        impl StoredValue for $type {
            fn encode(&self, out: &mut Out) {
                out.put(self);
            }

            fn decode(input: &mut In<'_>) -> Result<Self, Malformed> {
                input.get()
            }
        }
    )*};
}

plain_value!(u8, u32, u64, i64, [u8; 32], String);
plain_value!(ScriptBuf, Txid, BlockHash, OutPoint, Transaction);

/// Types that are their fields, one behind the other; behind a semicolon a list that is mostly
/// empty.
macro_rules! value_of_fields {
    ($type:ty: $($field:tt),+ $(; $list:ident)?) => {
        value_of_fields!($type, 1: $($field),+ $(; $list)?);
    };
    ($type:ty, $version:literal: $($field:tt),+ $(; $list:ident)?) => {
        impl StoredValue for $type {
            const VERSION: u8 = $version;

            fn encode(&self, out: &mut Out) {
                $(out.part(&self.$field);)+
                $(out.last(&self.$list);)?
            }

            fn decode(input: &mut In<'_>) -> Result<Self, Malformed> {
                Ok(Self { $($field: input.part()?,)+ $($list: input.last()?)? })
            }
        }
    };
}

/// Types that are one of several: a byte that says which, then its fields.
macro_rules! value_of_variants {
    ($type:ty, $what:literal: $(
        $tag:literal => $variant:ident $(($($part:ident),+))? $({ $($field:ident),+ })?
    ),+) => {
        impl StoredValue for $type {
            fn encode(&self, out: &mut Out) {
                match self {$(
                    Self::$variant $(($($part),+))? $({ $($field),+ })? => {
                        out.tag($tag) $($(.part($part))+)? $($(.part($field))+)?;
                    }
                )+}
            }

            fn decode(input: &mut In<'_>) -> Result<Self, Malformed> {
                Ok(match input.tag()? {
                    $($tag => {
                        $($(let $part = input.part()?;)+)?
                        $($(let $field = input.part()?;)+)?
                        Self::$variant $(($($part),+))? $({ $($field),+ })?
                    })+
                    tag => return Err(Malformed(format!("{} {tag} is unknown", $what))),
                })
            }
        }
    };
}

pub(super) use {value_of_fields, value_of_variants};

impl<T: StoredValue> StoredValue for Arc<T> {
    const VERSION: u8 = T::VERSION;

    fn encode(&self, out: &mut Out) {
        out.part(&**self);
    }

    fn decode(input: &mut In<'_>) -> Result<Self, Malformed> {
        input.part().map(Self::new)
    }
}

/// Other bytes than 0 and 1 are refused.
impl StoredValue for bool {
    fn encode(&self, out: &mut Out) {
        out.tag(u8::from(*self));
    }

    fn decode(input: &mut In<'_>) -> Result<Self, Malformed> {
        match input.tag()? {
            0 => Ok(false),
            1 => Ok(true),
            tag => Err(Malformed(format!("{tag} is neither no (0) nor yes (1)"))),
        }
    }
}

impl<T: StoredValue> StoredValue for Option<T> {
    fn encode(&self, out: &mut Out) {
        out.part(&self.is_some());
        self.iter().for_each(|value| value.encode(out));
    }

    fn decode(input: &mut In<'_>) -> Result<Self, Malformed> {
        let is_some = input.part::<bool>()?;
        is_some.then(|| input.part()).transpose()
    }
}

/// Takes no memory for more items than there are bytes left.
impl<T: StoredValue> StoredValue for Vec<T> {
    fn encode(&self, out: &mut Out) {
        out.list(self);
    }

    fn decode(input: &mut In<'_>) -> Result<Self, Malformed> {
        let VarInt(count) = input.get()?;
        let left = input.0.len();
        if count > left as u64 {
            return Err(Malformed(format!(
                "a list of {count} items in {left} bytes"
            )));
        }
        (0..count).map(|_| input.part()).collect()
    }
}

impl<A: StoredValue, B: StoredValue> StoredValue for (A, B) {
    fn encode(&self, out: &mut Out) {
        out.part(&self.0).part(&self.1);
    }

    fn decode(input: &mut In<'_>) -> Result<Self, Malformed> {
        Ok((input.part()?, input.part()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_is_refused_by_its_number() {
        let mut bytes = 7_u32.to_bytes();
        bytes[0] = 2;
        assert_eq!(
            u32::from_bytes(&bytes),
            Err(Malformed(
                "the value has version 2, this satwatch reads version 1".to_owned()
            ))
        );
    }

    #[test]
    fn a_list_longer_than_its_bytes_takes_no_memory() {
        let mut out = Out(Vec::new());
        out.put(&VarInt(u64::MAX));
        assert!(In(&out.0).part::<Vec<Txid>>().is_err());
    }
}
