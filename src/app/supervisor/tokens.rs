//! Where fencing tokens go on: behind all that may have been given out, also where the counter is lost.

use std::path::Path;

use crate::edge::log::LogError;
use crate::edge::store::{ReadError, Store};
use crate::machine::TOKEN_BLOCK;
use crate::protocol::layout::{Layout, RECORD_EXT, Shelf};
use crate::protocol::ledger::{Entry, Fact};
use crate::protocol::record::{self, RECORD_LEN_MAX, RecordError, SMALL_LEN_MAX};
use crate::protocol::task::TaskRecord;
use crate::protocol::tokens::Tokens;

use super::inbox::LISTED_MAX;

/// How much of the ledger's end is searched for tokens where the counter is lost. They rise with time.
const SEARCHED_LEN_MAX: u64 = 64 * 1024 * 1024;

/// Where tokens go on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Floor {
    /// The highest token that may have been given out; 0 in a new crew.
    pub(super) token: u64,
    /// What was wrong with the counter, if anything was.
    pub(super) damage: Option<String>,
}

/// Finds the floor; `ledger` gives so much of the ledger's end.
///
/// The counter is not needed to be safe: every token that anybody could act on is in the ledger or in a record, and
/// those given out but never made durable are of the block that was begun last. So a counter that is damaged
/// or gone costs a block of numbers. A counter of a later nightcrew is not judged.
///
/// # Errors
/// If the floor cannot be told: to go on would be to give tokens out again.
pub(super) fn floor<S: Store>(
    store: &S,
    layout: &Layout,
    ledger: impl FnOnce(u64) -> Result<Vec<(u64, String)>, LogError>,
) -> Result<Floor, String> {
    let path = layout.tokens();
    let damage = match store.read(&path, SMALL_LEN_MAX) {
        Ok(blob) => match Tokens::decode(&blob.bytes) {
            Ok(tokens) => return Ok(Floor { token: tokens.reserved, damage: None }),
            Err(error @ RecordError::Newer(_)) => return Err(format!("{}: {error}", path.display())),
            Err(error @ (RecordError::Incomplete(_) | RecordError::Malformed(_))) => error.to_string(),
        },
        Err(ReadError::Io(error)) => return Err(format!("{}: {error}", path.display())),
        Err(
            error @ (ReadError::Missing
            | ReadError::NotRegular(_)
            | ReadError::TooLarge { .. }
            | ReadError::Foreign(_)),
        ) => error.to_string(),
    };
    let entries = ledger(SEARCHED_LEN_MAX).map_err(|error| error.to_string())?;
    let told =
        entries.iter().filter_map(|(_, line)| token_in(&serde_json::from_str::<Entry>(line).ok()?.fact));
    let Some(highest) = told.max().max(in_records(store, layout)?) else {
        // The ledger's first line is its header: this is all of it, and no token was ever given out.
        if entries.first().is_none_or(|(seq, _)| *seq <= 2) {
            return Ok(Floor { token: 0, damage: None });
        }
        let remedy = "write {\"v\":1,\"reserved\":N} there, where no token was ever above N, and start again";
        return Err(format!("{}: {damage}, and no other file tells of tokens; {remedy}", path.display()));
    };
    let token = highest.saturating_add(TOKEN_BLOCK);
    let text = format!("{}: {damage}; fencing tokens go on behind {token}", path.display());
    Ok(Floor { token, damage: Some(text) })
}

/// The highest token that a fact tells of.
fn token_in(fact: &Fact) -> Option<u64> {
    match fact {
        Fact::Submitted { token, .. }
        | Fact::Replayed { token, .. }
        | Fact::Claimed { token, .. }
        | Fact::GivenUp { token, .. }
        | Fact::Judged { token, .. }
        | Fact::Outcome { token, .. } => Some(*token),
        Fact::Vacated { token, next_token, .. } => Some(*token.max(next_token)),
        Fact::SupervisorStarted { .. }
        | Fact::SupervisorStopped { .. }
        | Fact::SupervisorPaused { .. }
        | Fact::Control { .. }
        | Fact::Started { .. }
        | Fact::StartFailed { .. }
        | Fact::Exited { .. }
        | Fact::RemnantsKilled { .. }
        | Fact::Killed { .. }
        | Fact::Unkillable { .. }
        | Fact::Isolated { .. }
        | Fact::Reinstated { .. }
        | Fact::Failing { .. }
        | Fact::Refused { .. }
        | Fact::Accepted { .. }
        | Fact::Removed { .. }
        | Fact::SlotSkipped { .. }
        | Fact::SlotsMissed { .. }
        | Fact::Duplicate { .. }
        | Fact::Rejected { .. }
        // It bears whatever somebody wrote.
        | Fact::OutcomeRefused { .. }
        | Fact::Updated { .. }
        | Fact::UpdateRejected { .. }
        | Fact::UpdateGap { .. }
        | Fact::Alert { .. } => None,
    }
}

/// The highest token that a record of ours bears.
fn in_records<S: Store>(store: &S, layout: &Layout) -> Result<Option<u64>, String> {
    let mut highest = None;
    for dir in Shelf::ALL.map(|shelf| layout.shelf(shelf)).into_iter().chain([layout.tasks()]) {
        let entries = store.list(&dir, LISTED_MAX).map_err(|error| format!("{}: {error}", dir.display()))?;
        let records = entries.iter().filter(|entry| {
            entry.is_file
                && Path::new(&entry.file_name).extension().is_some_and(|ending| ending == RECORD_EXT)
        });
        highest = highest.max(records.filter_map(|entry| token_of(store, &dir.join(&entry.file_name))).max());
    }
    Ok(highest)
}

fn token_of<S: Store>(store: &S, path: &Path) -> Option<u64> {
    let blob = store.read(path, RECORD_LEN_MAX * 2).ok()?;
    Some(record::decode::<TaskRecord>(&blob.bytes).ok()?.token)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::files::FsStore;
    use crate::protocol::time::Wall;

    #[test]
    fn a_counter_that_is_damaged_or_gone_is_made_up_for_from_what_it_was_derived_of() {
        let dir = tempfile::tempdir().unwrap();
        let (store, layout) = (FsStore::for_crew(dir.path()).unwrap(), Layout::new(dir.path()));
        store.create_dir(&layout.tasks()).unwrap();
        let fact = Fact::Vacated {
            task: "t".parse().unwrap(),
            token: 41,
            next_token: 42,
            agent: "a".parse().unwrap(),
            why: String::new(),
        };
        let line = serde_json::to_string(&Entry { at: Wall(0), fact }).unwrap();
        let find = |entries: &[(u64, String)]| floor(&store, &layout, |_| Ok(entries.to_vec()));
        assert_eq!(find(&[]), Ok(Floor { token: 0, damage: None }), "a new crew");
        let put = |bytes: &[u8]| {
            store.unlink(&layout.tokens()).unwrap();
            store.write_new(&layout.tokens(), bytes, false).unwrap();
        };
        put(&record::encode(&Tokens::reserved(1000)));
        assert_eq!(find(&[]), Ok(Floor { token: 1000, damage: None }));
        put(b"{\"v\":1,\"reserved\":1,\"crc\":\"00000000\"}\n");
        let found = find(&[(900, line.clone())]).unwrap();
        assert_eq!(found.token, 42 + TOKEN_BLOCK);
        assert!(found.damage.unwrap().contains("tokens"));
        assert!(find(&[(900, "{}".into())]).unwrap_err().contains("reserved"), "it cannot be told");
        put(b"{\"v\":2}\n");
        assert!(find(&[(900, line.clone())]).unwrap_err().contains("upgrade"), "a later nightcrew's");

        store.unlink(&layout.tokens()).unwrap();
        let record =
            r#"{"v":1,"id":"t","token":77,"nonce":"n","kind":"k","at":"2026-11-20T03:00:00Z","payload":1}"#;
        store.write_new(&layout.tasks().join("t.json"), record.as_bytes(), false).unwrap();
        assert_eq!(find(&[(900, line)]).unwrap().token, 77 + TOKEN_BLOCK);
    }
}
