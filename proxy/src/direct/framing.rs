//! Where a body ends (RFC 9112 sections 6 and 7): a length, chunks, or the end of the connection. Bodies are followed, not
//! changed: what is counted off here is passed on as it came, chunk framing and trailers included.

/// Most digits of a chunk's size: 2^60 bytes are more than any body, and what is larger is meant to overflow somebody.
const SIZE_DIGITS_MAX: u8 = 15;
/// Bytes of a chunk's extensions, and of all trailer fields together: extensions are not used by anybody, and a checksum or a
/// status fits.
const EXTENSION_BYTES_MAX: u32 = 1_024;
const TRAILER_BYTES_MAX: u32 = 8 * 1_024;

/// A body that is being passed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Body {
    /// So many bytes are still to come; none is an empty body too.
    Length(u64),
    /// Chunks.
    Chunked(Chunks),
    /// Everything until the connection is closed; only responses have it.
    ToEnd,
}

/// The bytes do not follow the framing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

impl Body {
    /// A body of chunks that begins now.
    pub(crate) const fn chunked() -> Self {
        Self::Chunked(Chunks { at: At::Size { digits: 0 }, left: 0 })
    }

    /// Whether nothing more belongs to it.
    pub(crate) fn is_over(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunks) => chunks.at == At::Over,
            Self::ToEnd => false,
        }
    }

    /// How many of these bytes, which come next, belong to it.
    ///
    /// # Errors
    /// If they are no chunks.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        match self {
            Self::Length(left) => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= taken as u64;
                Ok(taken)
            }
            Self::Chunked(chunks) => chunks.take(bytes),
            Self::ToEnd => Ok(bytes.len()),
        }
    }

    /// How many bytes that come next are nothing but data of it, as far as is known.
    pub(crate) const fn run(&self) -> u64 {
        match self {
            Self::Length(left) => *left,
            Self::Chunked(Chunks { at: At::Data, left }) => *left,
            Self::Chunked(_) | Self::ToEnd => 0,
        }
    }

    /// So many of these were passed on.
    pub(crate) fn skip(&mut self, count: u64) {
        match self {
            Self::Length(left) => *left -= count,
            Self::Chunked(chunks) => {
                chunks.left -= count;
                if chunks.left == 0 {
                    chunks.at = At::DataEnd;
                }
            }
            Self::ToEnd => {}
        }
    }
}

/// Chunked coding (RFC 9112 section 7.1), followed byte by byte but for data. Lines end in CR LF and nothing else, and a size is
/// hexadecimal digits and nothing else: where two readers may differ, the answer is no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chunks {
    at: At,
    /// Bytes of data that are left in the chunk; while its size is read, the size so far; in extensions and trailers, how many
    /// bytes of them there were.
    left: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// In the size of a chunk.
    Size { digits: u8 },
    /// In the extensions after a size.
    Extension { size: u64 },
    /// The CR after a size was read.
    SizeEnd { size: u64 },
    /// In the data.
    Data,
    /// After the data.
    DataEnd,
    /// After the CR that follows the data.
    DataEndLine,
    /// At the begin of a trailer field, or of the end.
    TrailerStart { bytes: u32 },
    /// In a trailer field: in its name, or after the colon.
    Trailer { bytes: u32, in_name: bool },
    /// The CR after a trailer field was read.
    TrailerEnd { bytes: u32 },
    /// The CR of the last line was read.
    LastLine,
    /// All of it was read.
    Over,
}

impl Chunks {
    fn take(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        let mut taken = 0;
        while let Some(rest) = bytes.get(taken..).filter(|rest| !rest.is_empty()) {
            match self.at {
                At::Over => break,
                At::Data => {
                    let data = usize::try_from(self.left).unwrap_or(usize::MAX).min(rest.len());
                    self.left -= data as u64;
                    taken += data;
                    if self.left == 0 {
                        self.at = At::DataEnd;
                    }
                }
                at => {
                    self.at = self.step(at, rest[0])?;
                    taken += 1;
                }
            }
        }
        Ok(taken)
    }

    fn step(&mut self, at: At, byte: u8) -> Result<At, Malformed> {
        Ok(match (at, byte) {
            (At::Size { digits }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') if digits < SIZE_DIGITS_MAX => {
                let digit = char::from(byte).to_digit(16).ok_or(Malformed)?;
                self.left = self.left * 16 + u64::from(digit);
                At::Size { digits: digits + 1 }
            }
            (At::Size { digits: 1.. }, b'\r') => At::SizeEnd { size: std::mem::take(&mut self.left) },
            (At::Size { digits: 1.. }, b';') => At::Extension { size: std::mem::take(&mut self.left) },
            (At::Extension { size }, b'\r') => At::SizeEnd { size },
            (At::Extension { size }, byte) if is_text(byte) && self.left < u64::from(EXTENSION_BYTES_MAX) => {
                self.left += 1;
                At::Extension { size }
            }
            (At::SizeEnd { size: 0 }, b'\n') => At::TrailerStart { bytes: 0 },
            (At::SizeEnd { size }, b'\n') => {
                self.left = size;
                At::Data
            }
            (At::DataEnd, b'\r') => At::DataEndLine,
            (At::DataEndLine, b'\n') => At::Size { digits: 0 },
            (At::TrailerStart { .. }, b'\r') => At::LastLine,
            (At::TrailerStart { bytes }, byte) if is_token(byte) && bytes < TRAILER_BYTES_MAX => {
                At::Trailer { bytes: bytes + 1, in_name: true }
            }
            (At::Trailer { bytes, in_name: true }, b':') => At::Trailer { bytes: bytes + 1, in_name: false },
            (At::Trailer { bytes, in_name: true }, byte) if is_token(byte) && bytes < TRAILER_BYTES_MAX => {
                At::Trailer { bytes: bytes + 1, in_name: true }
            }
            (At::Trailer { bytes, in_name: false }, b'\r') => At::TrailerEnd { bytes },
            (At::Trailer { bytes, in_name: false }, byte) if is_text(byte) && bytes < TRAILER_BYTES_MAX => {
                At::Trailer { bytes: bytes + 1, in_name: false }
            }
            (At::TrailerEnd { bytes }, b'\n') => At::TrailerStart { bytes },
            (At::LastLine, b'\n') => At::Over,
            _ => return Err(Malformed),
        })
    }
}

/// What a field value may be made of (RFC 9110 section 5.5).
pub(crate) const fn is_text(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}

/// What a token is made of (RFC 9110 section 5.6.2).
pub(crate) const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many bytes of `bytes` are a body of chunks, and whether it is over then; however they are split.
    fn taken(bytes: &[u8]) -> Result<(usize, bool), Malformed> {
        let at_once = {
            let mut body = Body::chunked();
            body.take(bytes).map(|taken| (taken, body.is_over()))
        };
        for first in 0..=bytes.len() {
            let mut body = Body::chunked();
            let in_two = body.take(&bytes[..first]).and_then(|head| {
                let tail = if head == first { body.take(&bytes[first..])? } else { 0 };
                Ok((head + tail, body.is_over()))
            });
            assert_eq!(in_two, at_once, "{} split at {first}", bytes.escape_ascii());
        }
        at_once
    }

    #[test]
    fn chunks_are_followed_to_their_end_and_not_beyond() {
        for (bytes, left) in [
            ("0\r\n\r\n", 0),
            ("2\r\nhi\r\n0\r\n\r\nGET /", 5),
            ("00A\r\n0123456789\r\n0\r\n\r\n", 0),
            ("2;a=b;c=\"d e\"\r\nhi\r\n0;x\r\n\r\n", 0),
            ("0\r\nx-sum: 1\r\nserver-timing: a;b\r\n\r\n\r\n", 2),
        ] {
            assert_eq!(taken(bytes.as_bytes()), Ok((bytes.len() - left, true)), "{bytes:?}");
        }
        for bytes in ["", "2", "2\r", "2\r\nh", "2\r\nhi\r\n", "0\r\n", "0\r\nx: y\r\n", "0\r\nx: y\r\n\r"] {
            assert_eq!(taken(bytes.as_bytes()), Ok((bytes.len(), false)), "{bytes:?}");
        }
    }

    #[test]
    fn what_two_readers_may_read_in_two_ways_is_refused() {
        let long = format!("2;{}\r\nhi\r\n", "x".repeat(EXTENSION_BYTES_MAX as usize + 1));
        let trailers = format!("0\r\nx: {}\r\n\r\n", "x".repeat(TRAILER_BYTES_MAX as usize));
        for bytes in [
            "\r\n",
            ";\r\n",
            "g\r\n",
            "+2\r\nhi",
            "-2\r\nhi",
            "0x2\r\nhi",
            " 2\r\nhi",
            "2 \r\nhi",
            "2\nhi",
            "2\r\rhi",
            "2\r\nhi\n0\r\n",
            "2\r\nhi0\r\n",
            "2\r\nhix\r\n",
            "2;a\nb\r\nhi",
            "2;\0\r\nhi",
            "0\r\n x: y\r\n",
            "0\r\nx y: z\r\n",
            "0\r\n: z\r\n",
            "0\r\nx\r\n\r\n",
            "0\r\nx: y\n\r\n",
            "0\r\n\n",
            "1000000000000000\r\n",
            "fffffffffffffffff\r\n",
            &long,
            &trailers,
        ] {
            assert_eq!(taken(bytes.as_bytes()), Err(Malformed), "{bytes:?}");
        }
    }

    #[test]
    fn data_that_went_another_way_is_left_out() {
        let whole: &[u8] = b"a\r\n0123456789\r\n3\r\nabc\r\n0\r\n\r\n";
        let (head, data) = ("a\r\n".len(), 10);
        let mut body = Body::chunked();
        assert_eq!((body.run(), body.take(&whole[..head]), body.run()), (0, Ok(head), 10));
        body.skip(4);
        assert_eq!(body.run(), 6);
        body.skip(6);
        let rest = &whole[head + data..];
        assert_eq!((body.run(), body.take(rest), body.is_over()), (0, Ok(rest.len()), true));
        let mut body = Body::Length(7);
        body.skip(body.run());
        assert!(body.is_over() && Body::ToEnd.run() == 0);
    }

    #[test]
    fn trailers_are_bounded_in_all_and_not_each() {
        let fields = "x:\r\n".repeat(TRAILER_BYTES_MAX as usize);
        assert_eq!(Body::chunked().take(format!("0\r\n{fields}\r\n").as_bytes()), Err(Malformed));
    }

    #[test]
    fn a_length_is_counted_off() {
        let mut body = Body::Length(5);
        assert_eq!((body.take(b"abc"), body.is_over()), (Ok(3), false));
        assert_eq!((body.take(b"defg"), body.is_over()), (Ok(2), true));
        assert_eq!(body.take(b"x"), Ok(0));
        assert!(Body::Length(0).is_over() && !Body::ToEnd.is_over());
    }
}
