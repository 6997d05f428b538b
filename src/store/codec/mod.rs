//! Keys and values as bytes, as the tables in [`super`] give them: [`keys`], rows and [`events`].
//! Nothing else builds or takes apart a key.
//!
//! # Laws
//!
//! 1. A value is a version byte, then its fields in Bitcoin's consensus encoding. What is read back
//!    is what was written, or [`Malformed`]; no bytes make this code panic.
//! 2. Bytes that are left over behind a value are refused too.
//! 3. A type that has a file of its own in the store (starts, consumers) has its codec there.

pub mod events;
pub mod keys;
mod rows;

use bitcoin::consensus::encode::{self, Decodable, Encodable, VarInt};

/// Version of every value so far.
const VERSION: u8 = 1;

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

    pub fn option<T>(&mut self, field: Option<&T>, put: impl FnOnce(&mut Self, &T)) -> &mut Self {
        self.tag(u8::from(field.is_some()));
        if let Some(field) = field {
            put(self, field);
        }
        self
    }

    pub fn list<T>(&mut self, items: &[T], mut put: impl FnMut(&mut Self, &T)) -> &mut Self {
        self.put(&VarInt(items.len() as u64));
        for item in items {
            put(self, item);
        }
        self
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

    pub fn option<T>(
        &mut self,
        get: impl FnOnce(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Option<T>, Malformed> {
        match self.tag()? {
            0 => Ok(None),
            1 => get(self).map(Some),
            tag => Err(Malformed(format!(
                "{tag} is neither absent (0) nor present (1)"
            ))),
        }
    }

    /// Takes no memory for more items than there are bytes left.
    pub fn list<T>(
        &mut self,
        mut get: impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let VarInt(count) = self.get()?;
        if count > self.0.len() as u64 {
            return Err(Malformed(format!(
                "a list of {count} items in {} bytes",
                self.0.len()
            )));
        }
        (0..count).map(|_| get(self)).collect()
    }

    pub fn part<T: StoredValue>(&mut self) -> Result<T, Malformed> {
        T::decode(self)
    }
}

/// Something that is stored as a value, or as part of one.
pub trait StoredValue: Sized {
    fn encode(&self, out: &mut Out);
    fn decode(input: &mut In<'_>) -> Result<Self, Malformed>;

    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Out(vec![VERSION]);
        self.encode(&mut out);
        out.0
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        let (version, body) = bytes
            .split_first()
            .ok_or_else(|| Malformed("the value is empty".to_owned()))?;
        if *version != VERSION {
            return Err(Malformed(format!(
                "the value has version {version}, this satwatch reads version {VERSION}"
            )));
        }
        let mut input = In(body);
        let value = Self::decode(&mut input)?;
        match input.0.len() {
            0 => Ok(value),
            left => Err(Malformed(format!("{left} bytes follow the value"))),
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

plain_value!(u8, u32, u64, bool, String);

/// Types that are their fields, one behind the other.
macro_rules! value_of_fields {
    ($type:ty: $($field:ident),+) => {
        impl StoredValue for $type {
            fn encode(&self, out: &mut Out) {
                $(out.part(&self.$field);)+
            }

            fn decode(input: &mut In<'_>) -> Result<Self, Malformed> {
                Ok(Self { $($field: input.part()?),+ })
            }
        }
    };
}

pub(super) use value_of_fields;

impl<T: StoredValue> StoredValue for Option<T> {
    fn encode(&self, out: &mut Out) {
        out.option(self.as_ref(), |out, value| _ = out.part(value));
    }

    fn decode(input: &mut In<'_>) -> Result<Self, Malformed> {
        input.option(In::part)
    }
}

impl<T: StoredValue> StoredValue for Vec<T> {
    fn encode(&self, out: &mut Out) {
        out.list(self, |out, value| _ = out.part(value));
    }

    fn decode(input: &mut In<'_>) -> Result<Self, Malformed> {
        input.list(In::part)
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
    use bitcoin::Txid;

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
        assert!(In(&out.0).list(In::get::<Txid>).is_err());
    }
}
