//! Checksums of the pieces of a file, so that every part that is read can be checked without hashing the whole (ADR 14).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use crc_fast::{CrcAlgorithm, crc32_iscsi};

use crate::oci::{Algorithm, Digest, Mismatch, Verified, Verifier};

/// How many bytes one checksum stands for; the last piece of a file may be shorter.
pub const PIECE_BYTES: usize = 64 * 1024;
/// How many bytes of a file are read at once where all of it is hashed.
pub const READ_BYTES: usize = 1024 * 1024;
/// The bytes of one checksum.
const SUM_BYTES: usize = size_of::<u32>();

/// The CRC-32C of each piece of a file, or of some that follow each other. Made from bytes that hashed right and from
/// nothing else. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sums {
    /// Which piece of the file the first one is.
    first: u64,
    pieces: Arc<[u32]>,
}

impl Sums {
    /// The checksums of a file of `size` bytes as they were kept; none if there are more or fewer than it has pieces.
    pub fn from_bytes(bytes: &[u8], size: u64) -> Option<Self> {
        let (sums, rest) = bytes.as_chunks::<SUM_BYTES>();
        let are_all = rest.is_empty() && sums.len() as u64 == size.div_ceil(PIECE_BYTES as u64);
        are_all.then(|| Self { first: 0, pieces: sums.iter().map(|sum| u32::from_le_bytes(*sum)).collect() })
    }

    /// As they are kept: four bytes for a piece, the lowest one first.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.pieces.iter().flat_map(|sum| sum.to_le_bytes()).collect()
    }

    /// The one of the piece that has the byte at `offset`, taken from those of a file that still grows.
    pub(super) fn one_of(pieces: &[u32], offset: u64) -> Option<Self> {
        let first = offset / PIECE_BYTES as u64;
        let sum = *pieces.get(usize::try_from(first).ok()?)?;
        Some(Self { first, pieces: Arc::new([sum]) })
    }

    /// Whether `bytes` are what was hashed at `start`, which is where a piece begins. Whatever follows the last checksum is
    /// wrong.
    pub(super) fn hold(&self, start: u64, bytes: &[u8]) -> bool {
        let Some(skip) = (start / PIECE_BYTES as u64).checked_sub(self.first) else { return false };
        let expected = self.pieces.iter().skip(usize::try_from(skip).unwrap_or(usize::MAX));
        let pieces = bytes.chunks(PIECE_BYTES);
        expected.len() >= pieces.len() && pieces.zip(expected).all(|(piece, sum)| crc32_iscsi(piece) == *sum)
    }

    /// Whether a file holds just the pieces that were hashed. Blocks for as long as it takes to read it.
    pub fn hold_file(&self, file: &File) -> io::Result<bool> {
        let (mut start, mut holds) = (0, true);
        read_all(file, |bytes| {
            holds = holds && self.hold(start, bytes);
            start += bytes.len() as u64;
            holds
        })?;
        Ok(holds && start.div_ceil(PIECE_BYTES as u64) == self.pieces.len() as u64)
    }
}

/// What hashed right, with its checksums.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// The proof.
    pub verified: Verified,
    /// The checksums of what was hashed.
    pub sums: Sums,
}

/// Hashes a stream as [`Verifier`] does, and takes the checksum of each piece on the way. The only way to new [`Sums`].
#[derive(Debug, Clone)]
pub struct Prover {
    verifier: Verifier,
    pieces: Vec<u32>,
    /// The piece that is not whole yet, and how many bytes of it there are.
    open: crc_fast::Digest,
    opened: usize,
}

impl Prover {
    /// Begins with nothing hashed.
    pub fn new(algorithm: Algorithm) -> Self {
        let open = crc_fast::Digest::new(CrcAlgorithm::Crc32Iscsi);
        Self { verifier: Verifier::new(algorithm), pieces: Vec::new(), open, opened: 0 }
    }

    /// Hashes a whole file. Blocks for as long as it takes to read it.
    pub fn of_file(file: &File, algorithm: Algorithm) -> io::Result<Self> {
        let mut prover = Self::new(algorithm);
        read_all(file, |bytes| {
            prover.update(bytes);
            true
        })?;
        Ok(prover)
    }

    /// Which algorithm it runs.
    pub const fn algorithm(&self) -> Algorithm {
        self.verifier.algorithm()
    }

    /// How many bytes were hashed so far.
    pub const fn size(&self) -> u64 {
        self.verifier.size()
    }

    /// The checksums of the pieces that are whole.
    pub fn pieces(&self) -> &[u32] {
        &self.pieces
    }

    /// Hashes the next bytes: piece by piece, while each is in the processor's cache.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (part, rest) = bytes.split_at(bytes.len().min(PIECE_BYTES - self.opened));
            self.verifier.update(part);
            if part.len() == PIECE_BYTES {
                self.pieces.push(crc32_iscsi(part));
            } else {
                self.open.update(part);
                self.opened += part.len();
                if self.opened == PIECE_BYTES {
                    self.close_piece();
                }
            }
            bytes = rest;
        }
    }

    /// The proof and the checksums, if what was hashed is `expected`.
    pub fn prove(mut self, expected: &Digest) -> Result<Proven, Mismatch> {
        if self.opened > 0 {
            self.close_piece();
        }
        let verified = self.verifier.verify(expected)?;
        Ok(Proven { verified, sums: Sums { first: 0, pieces: self.pieces.into() } })
    }

    fn close_piece(&mut self) {
        // A CRC-32 is in the lower half.
        self.pieces.push(u32::try_from(self.open.finalize_reset()).unwrap_or_default());
        self.opened = 0;
    }
}

/// Where the piece ends that has the byte at `offset`, were the file long enough.
pub const fn piece_end(offset: u64) -> u64 {
    (offset / PIECE_BYTES as u64 + 1) * PIECE_BYTES as u64
}

/// Hands a file's bytes on, in blocks of whole pieces but for the last, until `take` says that it is enough.
fn read_all(file: &File, mut take: impl FnMut(&[u8]) -> bool) -> io::Result<()> {
    let mut buffer = vec![0; READ_BYTES];
    let mut offset = 0;
    loop {
        let filled = read_full(file, &mut buffer, offset)?;
        offset += filled as u64;
        if filled == 0 || !take(&buffer[..filled]) || filled < READ_BYTES {
            return Ok(());
        }
    }
}

/// Fills the buffer, or reads to the file's end. Blocks.
pub fn read_full(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    fn proven(bytes: &[u8]) -> Proven {
        let mut prover = Prover::new(Algorithm::Sha256);
        prover.update(bytes);
        prover.prove(&Digest::sha256(bytes)).unwrap()
    }

    fn some_bytes(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at % 251) as u8).collect()
    }

    #[test]
    fn a_sum_is_the_crc_32c_of_its_piece() {
        // The check value of the catalogue of CRCs.
        assert_eq!(proven(b"123456789").sums.to_bytes(), 0xe306_9283_u32.to_le_bytes());
        assert_eq!(proven(b"").sums.to_bytes(), [0; 0]);
        let bytes = some_bytes(2 * PIECE_BYTES + 1);
        let expected: Vec<u8> = bytes.chunks(PIECE_BYTES).flat_map(|piece| crc32_iscsi(piece).to_le_bytes()).collect();
        assert_eq!(proven(&bytes).sums.to_bytes(), expected);
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_processor_itself_takes_the_sums() {
        if is_x86_feature_detected!("pclmulqdq") && is_x86_feature_detected!("sse4.1") {
            let used = crc_fast::get_calculator_target(CrcAlgorithm::Crc32Iscsi);
            assert!(used.contains("pclmulqdq"), "{used}");
        }
    }

    #[test]
    fn what_hashed_wrong_has_no_sums() {
        let mut prover = Prover::new(Algorithm::Sha256);
        prover.update(b"wrong");
        assert!(prover.prove(&Digest::sha256(b"right")).is_err());
    }

    #[test]
    fn as_many_sums_as_pieces_are_sums_and_no_others() {
        let sums = proven(&some_bytes(PIECE_BYTES + 1)).sums;
        let bytes = sums.to_bytes();
        assert_eq!(Sums::from_bytes(&bytes, PIECE_BYTES as u64 + 1), Some(sums));
        for size in [0, 1, PIECE_BYTES as u64, 2 * PIECE_BYTES as u64 + 1] {
            assert_eq!(Sums::from_bytes(&bytes, size), None, "{size}");
        }
        assert_eq!(Sums::from_bytes(&bytes[..7], PIECE_BYTES as u64 + 1), None);
    }

    #[test]
    fn a_file_that_is_longer_shorter_or_changed_does_not_hold() {
        let bytes = some_bytes(3 * PIECE_BYTES + 7);
        let sums = proven(&bytes).sums;
        let holds = |bytes: &[u8]| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(bytes).unwrap();
            sums.hold_file(&file).unwrap()
        };
        assert!(holds(&bytes));
        let mut changed = bytes.clone();
        changed[3 * PIECE_BYTES] ^= 1;
        assert!(!holds(&changed));
        assert!(!holds(&bytes[..3 * PIECE_BYTES]));
        assert!(!holds(&[bytes.as_slice(), &[0; PIECE_BYTES]].concat()));
    }

    proptest! {
        #[test]
        fn how_the_bytes_are_cut_does_not_matter(cuts in prop::collection::vec(0usize..100_000, 0..8)) {
            let bytes = some_bytes(cuts.iter().sum());
            let mut prover = Prover::new(Algorithm::Sha512);
            let mut rest = bytes.as_slice();
            for cut in cuts {
                let (part, after) = rest.split_at(cut);
                prover.update(part);
                rest = after;
            }
            let cut = prover.prove(&Algorithm::Sha512.digest(&bytes)).unwrap();
            prop_assert_eq!(cut.verified.size(), bytes.len() as u64);
            prop_assert_eq!(cut.sums, proven(&bytes).sums);
        }
    }
}
