//! Amounts of memory as they stand in manifests: `300M`, `1.5G`.

/// Reads an amount of memory such as `300M` or `1.5G` into bytes; K, M, G and T are powers of 1024.
///
/// A unit is asked for, because a bare number would be bytes and is hardly ever meant so. `KiB` and
/// so on are accepted; `MB` is not, because half of its readers take it for 10^6.
///
/// # Errors
/// A sentence fragment saying what is wrong.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift: u32 = match unit.trim_start() {
        "K" | "k" | "KiB" => 10,
        "M" | "m" | "MiB" => 20,
        "G" | "g" | "GiB" => 30,
        "T" | "t" | "TiB" => 40,
        "" => return Err("has no unit".into()),
        _ => return Err("is not an amount of memory".into()),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    // Nine digits after the point are finer than a byte of a gigabyte, and keep the sum in range.
    if whole.is_empty() || fraction.is_empty() || fraction.len() > 9 || fraction.contains('.') {
        return Err("is not an amount of memory".into());
    }
    let too_large = || String::from("is more than any machine has");
    let whole: u64 = whole.parse().map_err(|_| too_large())?;
    let scale = 10_u128.pow(u32::try_from(fraction.len()).unwrap_or(9));
    let fraction: u64 = fraction.parse().map_err(|_| too_large())?;
    let bytes = (u128::from(whole) << shift) + (u128::from(fraction) << shift) / scale;
    match u64::try_from(bytes) {
        Ok(0) => Err("is nothing at all".into()),
        Ok(bytes) if i64::try_from(bytes).is_ok() => Ok(bytes),
        _ => Err(too_large()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_of_memory_are_powers_of_1024() {
        for (text, bytes) in [
            ("300M", 300 << 20),
            ("1.5G", 3 << 29),
            ("512k", 512 << 10),
            ("0.25 GiB", 1 << 28),
            ("2T", 2 << 40),
            ("1.000000001K", 1024),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in [
            "",
            "M",
            ".5M",
            "5.M",
            "1.2.3M",
            "300",
            "300MB",
            "-1M",
            "1e3M",
            "0M",
            "0.0K",
            "9999999999T",
            "99999999999999999999M",
            "1.0000000000M",
            "1 M M",
            "٣M",
        ] {
            assert!(parse_size(bad).is_err(), "{bad:?}");
        }
    }
}
