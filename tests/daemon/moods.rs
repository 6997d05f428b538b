//! A node that does not answer as it should.
