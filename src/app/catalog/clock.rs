//! Schedules, with the rules of the zones that they are read in.

use crate::edge::zones;
use crate::machine::timetable::Timetable;
use crate::protocol::manifest::Manifest;
use crate::protocol::schedule::ZoneName;
use crate::protocol::time::Wall;

use super::Problem;

/// 2020-01-01T00:00Z: what fires, fires within 41 years of it.
const REFERENCE: Wall = Wall(1_577_836_800_000);

/// When an agent's schedule fires, if it has one; without a zone of its own, in the crew's or else the host's.
pub(super) fn timetable(manifest: &Manifest, crew: Option<&ZoneName>) -> Result<Option<Timetable>, Problem> {
    let triggers = &manifest.triggers;
    if triggers.clock.is_empty() {
        return Ok(None);
    }
    let zone = match triggers.timezone.as_ref().or(crew) {
        Some(name) => zones::load(name).map_err(|error| {
            let remedy = "install tzdata anew, or name another timezone";
            Problem::new(format!("the rules of {} cannot be read: {error}", name.as_str()), remedy)
        })?,
        None => zones::host(),
    };
    let table = Timetable::new(triggers.clock.clone(), zone);
    if table.next(REFERENCE).is_none() && table.last(REFERENCE).is_none() {
        let remedy = "set another `schedule`, or a `timezone` in which it comes";
        return Err(Problem::new("its schedule never fires in its time zone", remedy));
    }
    Ok(Some(table))
}
