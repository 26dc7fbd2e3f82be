//! Sizes as people write them.

/// Reads `512M`, `20G`, `4KiB` or a plain number of bytes; units are of 1024.
pub(crate) fn bytes_of(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no size: 512M, 20G, or a number of bytes");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text[digits.len()..].trim_end_matches("iB").trim_end_matches('B');
    let shift = match unit {
        "" => 0,
        "K" | "k" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err(wrong()),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number.checked_mul(1 << shift).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::bytes_of;

    #[test]
    fn a_size_is_a_number_with_a_unit_of_1024() {
        for (text, bytes) in
            [("7", 7), ("4K", 4096), ("4KiB", 4096), ("1G", 1 << 30), ("2MB", 2 << 20)]
        {
            assert_eq!(bytes_of(text), Ok(bytes), "{text}");
        }
        for bad in ["", "M", "-1", "1.5G", "1X", "99999999999T"] {
            assert!(bytes_of(bad).unwrap_err().contains("512M"), "{bad}");
        }
    }
}
