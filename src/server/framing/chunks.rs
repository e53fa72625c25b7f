//! A chunked body, byte by byte but for its data (RFC 9112 §7.1).

use super::head::{is_control, is_token_byte};

/// Digits of the size of a chunk: as many as 64 bits have.
const SIZE_DIGITS_MAX: u8 = 16;

/// Follows a chunked body to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chunks {
    at: At,
    /// Bytes of extensions and trailers so far.
    extra_bytes: usize,
    count: u64,
}

/// What the next byte is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// A chunk's size, after so many digits.
    Size { size: u64, digits: u8 },
    /// Its extension, which means nothing to us.
    Extension { size: u64 },
    /// The LF after the size.
    SizeEnd { size: u64 },
    /// Its data, of which so many bytes are still to come.
    Data { left: u64 },
    /// The CR after the data.
    DataReturn,
    /// The LF after the data.
    DataEnd,
    /// The first byte of a trailer, or the last line's CR.
    Trailer,
    /// A trailer's name.
    TrailerName,
    /// A trailer's value.
    TrailerValue,
    /// The LF after a trailer.
    TrailerEnd,
    /// The last LF.
    End,
}

/// How far a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// It goes on.
    More,
    /// That was all.
    Complete,
    /// It cannot be followed any further.
    Malformed,
}

impl Default for Chunks {
    fn default() -> Self {
        Self { at: At::START, extra_bytes: 0, count: 0 }
    }
}

impl At {
    const START: Self = Self::Size { size: 0, digits: 0 };
}

impl Chunks {
    /// How many chunks with data were complete so far.
    pub(super) const fn count(&self) -> u64 {
        self.count
    }

    /// Looks at `bytes`: how many of them belong to the body and are good, and how far it is after them.
    pub(super) fn follow(&mut self, bytes: &[u8], extra_bytes_max: usize) -> (usize, Progress) {
        let mut good = 0;
        while let Some(byte) = bytes.get(good) {
            if let At::Data { left } = self.at {
                let rest = bytes.len() - good;
                let taken = usize::try_from(left).map_or(rest, |left| left.min(rest));
                good += taken;
                let left = left - taken as u64;
                self.count += u64::from(left == 0);
                self.at = if left == 0 { At::DataReturn } else { At::Data { left } };
                continue;
            }
            if matches!(self.at, At::Extension { .. } | At::TrailerName | At::TrailerValue) {
                self.extra_bytes += 1;
            }
            match self.at.after(*byte).filter(|_| self.extra_bytes <= extra_bytes_max) {
                None => return (good, Progress::Malformed),
                Some(_) if self.at == At::End => return (good + 1, Progress::Complete),
                Some(next) => self.at = next,
            }
            good += 1;
        }
        (good, Progress::More)
    }
}

impl At {
    /// What comes after `byte`; `None` if it may not stand here.
    fn after(self, byte: u8) -> Option<Self> {
        Some(match (self, byte) {
            (Self::Size { size, digits }, _) if byte.is_ascii_hexdigit() && digits < SIZE_DIGITS_MAX => {
                let digit = char::from(byte).to_digit(16)?;
                Self::Size { size: size << 4 | u64::from(digit), digits: digits + 1 }
            }
            (Self::Size { digits: 0, .. }, _) => return None,
            (Self::Size { size, .. }, b';') => Self::Extension { size },
            (Self::Size { size, .. } | Self::Extension { size }, b'\r') => Self::SizeEnd { size },
            (Self::Extension { size }, _) if !is_control(byte) => Self::Extension { size },
            (Self::SizeEnd { size: 0 }, b'\n') => Self::Trailer,
            (Self::SizeEnd { size }, b'\n') => Self::Data { left: size },
            (Self::DataReturn, b'\r') => Self::DataEnd,
            (Self::DataEnd, b'\n') => Self::START,
            (Self::Trailer, b'\r') => Self::End,
            (Self::Trailer | Self::TrailerName, _) if is_token_byte(byte) => Self::TrailerName,
            (Self::TrailerName, b':') => Self::TrailerValue,
            (Self::TrailerValue, b'\r') => Self::TrailerEnd,
            (Self::TrailerValue, _) if !is_control(byte) => Self::TrailerValue,
            (Self::TrailerEnd, b'\n') => Self::Trailer,
            (Self::End, b'\n') => Self::End,
            _ => return None,
        })
    }
}
