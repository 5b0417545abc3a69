//! The names of time zones.

use std::fmt;
use std::str::FromStr;

use jiff::tz::TimeZoneDatabase;

use super::Refusal;

/// The longest text that is looked at for a name: there is none of half that length.
const ZONE_LEN_MAX: usize = 64;

/// The name of a time zone in IANA's database, spelled as it is there: `Europe/Berlin`.
///
/// A name counts if the database that nightcrew brings along has it, so that a manifest means the same on every
/// machine. The rules of the zone are then the machine's own where it has them, which are often newer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ZoneName(String);

impl ZoneName {
    /// As it is spelled in the database.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ZoneName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ZoneName {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let known = TimeZoneDatabase::bundled();
        let names = || known.available();
        if let Some(name) = names().find(|name| name.as_str().eq_ignore_ascii_case(text)) {
            return Ok(Self(name.as_str().to_owned()));
        }
        let short = text.len() <= ZONE_LEN_MAX;
        let city = || {
            let ends =
                |name: &str| name.rsplit('/').next().is_some_and(|city| city.eq_ignore_ascii_case(text));
            names().map(|name| name.as_str().to_owned()).find(|name| short && ends(name))
        };
        let alike = || {
            let distance = |name: &str| strsim::damerau_levenshtein(text, name);
            let near =
                names().filter(|_| short).map(|name| (distance(name.as_str()), name.as_str().to_owned()));
            near.min()
                .filter(|(distance, _)| *distance <= 3 && distance * 3 <= text.len())
                .map(|(_, name)| name)
        };
        let remedy = match city().or_else(alike) {
            Some(meant) => format!("did you mean {meant:?}?"),
            None => "use a name of IANA's database, like \"Europe/Berlin\" or \"UTC\"".into(),
        };
        Err(Refusal::new("is not a time zone", remedy))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_known_or_the_one_meant_is_told() {
        for (text, name) in
            [("Europe/Berlin", "Europe/Berlin"), ("utc", "UTC"), ("asia/kolkata", "Asia/Kolkata")]
        {
            assert_eq!(text.parse::<ZoneName>().unwrap().as_str(), name);
        }
        for (text, remedy) in [
            ("Berlin", "did you mean \"Europe/Berlin\"?"),
            ("Europe/Berln", "did you mean \"Europe/Berlin\"?"),
            ("America/New York", "did you mean \"America/New_York\"?"),
            ("nowhere/at/all", "use a name of IANA's database, like \"Europe/Berlin\" or \"UTC\""),
            ("../../etc/passwd", "use a name of IANA's database, like \"Europe/Berlin\" or \"UTC\""),
            ("", "use a name of IANA's database, like \"Europe/Berlin\" or \"UTC\""),
        ] {
            assert_eq!(text.parse::<ZoneName>().unwrap_err().remedy, remedy, "{text:?}");
        }
        assert!("x".repeat(60_000).parse::<ZoneName>().is_err());
    }
}
