//! Hashing as bytes pass.

use std::fmt;

use sha2::{Digest as _, Sha256, Sha512};

use super::{Algorithm, Digest};

/// Hashes a stream and counts its bytes. The only way to a [`Verified`].
#[derive(Debug, Clone)]
pub struct Verifier {
    state: State,
    size: u64,
}

#[derive(Debug, Clone)]
enum State {
    Sha256(Sha256),
    Sha512(Sha512),
}

/// The proof that content with this digest and size was hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    digest: Digest,
    size: u64,
}

/// The content is not what its name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mismatch {
    /// What was asked for.
    pub expected: Digest,
    /// What the bytes hash to.
    pub actual: Digest,
    /// How many bytes there were.
    pub size: u64,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {} bytes received hash to {}, not to {}", self.size, self.actual, self.expected)
    }
}

impl std::error::Error for Mismatch {}

impl Verifier {
    /// Begins with nothing hashed.
    pub fn new(algorithm: Algorithm) -> Self {
        let state = match algorithm {
            Algorithm::Sha256 => State::Sha256(Sha256::new()),
            Algorithm::Sha512 => State::Sha512(Sha512::new()),
        };
        Self { state, size: 0 }
    }

    /// Which algorithm it runs.
    pub const fn algorithm(&self) -> Algorithm {
        match self.state {
            State::Sha256(_) => Algorithm::Sha256,
            State::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// How many bytes were hashed so far.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Hashes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.state {
            State::Sha256(state) => state.update(bytes),
            State::Sha512(state) => state.update(bytes),
        }
        self.size += bytes.len() as u64;
    }

    /// The proof, if what was hashed is `expected`.
    pub fn verify(self, expected: &Digest) -> Result<Verified, Mismatch> {
        let actual = match self.state {
            State::Sha256(state) => Digest::Sha256(state.finalize().into()),
            State::Sha512(state) => Digest::Sha512(state.finalize().into()),
        };
        if actual == *expected {
            Ok(Verified { digest: actual, size: self.size })
        } else {
            Err(Mismatch { expected: *expected, actual, size: self.size })
        }
    }
}

impl Verified {
    /// Hashes a whole body at once.
    pub fn check(bytes: &[u8], expected: &Digest) -> Result<Self, Mismatch> {
        let mut verifier = Verifier::new(expected.algorithm());
        verifier.update(bytes);
        verifier.verify(expected)
    }

    /// The content's name.
    pub const fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The content's size in bytes.
    pub const fn size(&self) -> u64 {
        self.size
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_wrong_byte_is_a_mismatch() {
        let expected = Digest::sha256(b"right");
        let error = Verified::check(b"wrong", &expected).unwrap_err();
        assert_eq!(error, Mismatch { expected, actual: Digest::sha256(b"wrong"), size: 5 });
    }

    proptest! {
        #[test]
        fn how_the_bytes_are_cut_does_not_matter(chunks: Vec<Vec<u8>>) {
            let whole = chunks.concat();
            for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
                let mut verifier = Verifier::new(algorithm);
                chunks.iter().for_each(|chunk| verifier.update(chunk));
                let verified = verifier.verify(&algorithm.digest(&whole)).unwrap();
                prop_assert_eq!(verified.size(), whole.len() as u64);
            }
        }
    }
}
