//! The rules of time zones: the machine's own, which its distribution keeps up to date, else those that came with
//! this build. So a machine without them, as minimal containers are, runs schedules all the same.

use jiff::tz::{TimeZone, TimeZoneDatabase};

use crate::protocol::schedule::ZoneName;

/// The rules of a zone.
///
/// # Errors
/// If neither the machine nor this build has them, which a [`ZoneName`] makes impossible unless the machine's are
/// damaged as well.
pub fn load(name: &ZoneName) -> Result<TimeZone, jiff::Error> {
    // The machine's database may be there and lack this one zone.
    TimeZone::get(name.as_str()).or_else(|_| TimeZoneDatabase::bundled().get(name.as_str()))
}

/// The zone of this machine: `$TZ`, else /etc/localtime, else UTC.
#[must_use]
pub fn host() -> TimeZone {
    TimeZone::try_system().unwrap_or(TimeZone::UTC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_zone_that_a_manifest_may_name_is_there() {
        for name in TimeZoneDatabase::bundled().available() {
            let name: ZoneName = name.as_str().parse().unwrap();
            assert!(load(&name).is_ok(), "{name}");
        }
    }
}
