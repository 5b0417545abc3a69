//! `tasks/tokens`: how far fencing tokens are reserved.

use serde::{Deserialize, Serialize};

use super::record::{self, RecordError, VERSION};

/// The crew-wide counter. A token above `reserved` was never given out; one up to it may have been.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokens {
    /// The version of the format.
    pub v: u32,
    /// The highest token that may have been given out.
    pub reserved: u64,
    /// The CRC-32 of `reserved` in decimal digits: a digit that a disk altered would have tokens given out again.
    /// Absent where a person wrote the file, or an earlier nightcrew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crc: Option<String>,
}

impl Tokens {
    /// The counter at this number.
    #[must_use]
    pub fn reserved(reserved: u64) -> Self {
        Self { v: VERSION, reserved, crc: Some(crc_of(reserved)) }
    }

    /// Reads the counter.
    ///
    /// # Errors
    /// [`RecordError`]; a number that is not the one which was written is malformed.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let tokens: Self = record::decode(bytes)?;
        match &tokens.crc {
            Some(crc) if *crc != crc_of(tokens.reserved) => {
                Err(RecordError::Malformed(format!("{} is not the number that was written", tokens.reserved)))
            }
            Some(_) | None => Ok(tokens),
        }
    }
}

fn crc_of(number: u64) -> String {
    format!("{:08x}", crc32fast::hash(number.to_string().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_flipped_bit_lowers_it() {
        let written = record::encode(&Tokens::reserved(12_345));
        assert_eq!(Tokens::decode(&written).map(|tokens| tokens.reserved), Ok(12_345));
        for bit in 0..written.len() * 8 {
            let mut bytes = written.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Ok(tokens) = Tokens::decode(&bytes) {
                assert_eq!(tokens.reserved, 12_345, "{}", String::from_utf8_lossy(&bytes));
            }
        }
        let by_hand = br#"{"v":1,"reserved":7}"#;
        assert_eq!(Tokens::decode(by_hand).map(|tokens| tokens.reserved), Ok(7));
    }
}
