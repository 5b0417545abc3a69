//! When an agent that is a job runs: by the clock, by events, and how often at the most.
//!
//! `on_memory` and `after` are reserved ([`super::keys::RESERVED`]): nothing acts on them yet.

use super::report::{ManifestError, quote};
use super::section::{Section, decode, read};
use super::values::{Reading, Value, duration, globs, list, name, plain, wrong};
use crate::protocol::name::AgentName;
use crate::protocol::schedule::{Civil, Cron, Entry, Refusal, ZoneName};
use crate::protocol::time::parse_duration;

/// The most expressions in one `schedule`.
const SCHEDULES_MAX: usize = 32;
/// The longest `jitter`: a day.
const JITTER_MS_MAX: u64 = 86_400_000;
/// How far back slots are caught up, where nothing else is declared: a day.
pub const CATCH_UP_WINDOW_MS_DEFAULT: u64 = 86_400_000;
/// How far back slots may be caught up at all: 366 days.
const CATCH_UP_WINDOW_MS_MAX: u64 = 366 * 86_400_000;
/// How many times its pause a `debounce` may take in all, where no `max_wait` is declared.
const MAX_WAIT_FACTOR: u64 = 10;
/// The most starts that a `throttle` counts.
const THROTTLE_COUNT_MAX: u32 = 1_000;

/// The keys each of which makes an agent a job.
pub(super) const KINDS: [&str; 6] = ["schedule", "every", "at", "watch", "on_memory", "after"];

/// What becomes of slots that were missed while nobody was there to fire them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CatchUp {
    /// Nothing.
    None,
    /// The last of them is fired, unless another is due anyway.
    #[default]
    Last,
    /// Each is fired.
    All,
}

/// What becomes of a slot that comes while the run before it is still going on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overlap {
    /// It is passed over, and that is recorded.
    #[default]
    Skip,
    /// It runs afterwards.
    Queue,
    /// It runs beside it.
    Parallel,
    /// It takes its place: the run before it is stopped.
    Replace,
}

/// `throttle`: so many starts in any span of this length, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Throttle {
    /// How many, at least 1.
    pub count: u32,
    /// The length of the span, above 0.
    pub per_ms: u64,
}

/// What starts the runs of a job, all defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Triggers {
    /// `schedule`, `every` and `at`: together, if there are several.
    pub clock: Vec<Entry>,
    /// `timezone`
    pub timezone: Option<ZoneName>,
    /// `jitter`, in milliseconds.
    pub jitter_ms: u64,
    /// `catch_up`
    pub catch_up: CatchUp,
    /// `catch_up_window`, in milliseconds.
    pub catch_up_window_ms: u64,
    /// `overlap`
    pub overlap: Overlap,
    /// `watch`: globs of files, relative to the crew.
    pub watch: Vec<String>,
    /// `on_memory`: globs of keys.
    pub on_memory: Vec<String>,
    /// `after`: the agents after whose good ends it runs.
    pub after: Vec<AgentName>,
    /// `debounce`, in milliseconds.
    pub debounce_ms: Option<u64>,
    /// `max_wait`, in milliseconds; ten times `debounce`, unless declared.
    pub max_wait_ms: Option<u64>,
    /// `throttle`
    pub throttle: Option<Throttle>,
}

impl Default for Triggers {
    fn default() -> Self {
        Self {
            clock: Vec::new(),
            timezone: None,
            jitter_ms: 0,
            catch_up: CatchUp::default(),
            catch_up_window_ms: CATCH_UP_WINDOW_MS_DEFAULT,
            overlap: Overlap::default(),
            watch: Vec::new(),
            on_memory: Vec::new(),
            after: Vec::new(),
            debounce_ms: None,
            max_wait_ms: None,
            throttle: None,
        }
    }
}

impl Triggers {
    /// True if anything starts it.
    #[must_use]
    pub fn are_any(&self) -> bool {
        !(self.clock.is_empty()
            && self.watch.is_empty()
            && self.on_memory.is_empty()
            && self.after.is_empty())
    }
}

/// The triggers that a declaration has, `file` being what errors call it. Keys that are none are not looked at.
///
/// # Errors
/// All that is wrong, at most [`super::ERRORS_MAX`], by line.
pub fn triggers_from_toml(file: &str, bytes: impl AsRef<[u8]>) -> Result<Triggers, Vec<ManifestError>> {
    let text = decode(file, bytes.as_ref())?;
    read(file, text, 1, triggers)
}

pub(super) fn triggers(section: &mut Section<'_, '_>) -> Triggers {
    check_combination(section);
    let debounce_ms = section.get("debounce", duration);
    let max_wait_ms = section.get("max_wait", duration);
    if let (Some(pause), Some(most)) = (debounce_ms, max_wait_ms)
        && most < pause
    {
        section.refuse("max_wait", "is shorter than `debounce`", "make it at least as long");
    }
    let mut clock = section.get("schedule", schedules).unwrap_or_default();
    clock.extend(section.get("every", every));
    clock.extend(section.get("at", at));
    Triggers {
        clock,
        timezone: section.get("timezone", timezone),
        jitter_ms: section.get("jitter", |value| at_most(value, JITTER_MS_MAX, "1d")).unwrap_or_default(),
        catch_up: section.get("catch_up", |value| one_of(value, &CATCH_UPS)).unwrap_or_default(),
        catch_up_window_ms: section
            .get("catch_up_window", |value| at_most(value, CATCH_UP_WINDOW_MS_MAX, "366d"))
            .unwrap_or(CATCH_UP_WINDOW_MS_DEFAULT),
        overlap: section.get("overlap", |value| one_of(value, &OVERLAPS)).unwrap_or_default(),
        watch: section.get("watch", |value| some(value, globs(value)?)).unwrap_or_default(),
        on_memory: section.get("on_memory", |value| some(value, key_globs(value)?)).unwrap_or_default(),
        after: section.get("after", |value| some(value, agents(value)?)).unwrap_or_default(),
        debounce_ms,
        max_wait_ms: max_wait_ms.or(debounce_ms.map(|pause| pause.saturating_mul(MAX_WAIT_FACTOR))),
        throttle: section.get("throttle", throttle),
    }
}

/// Refuses a key that would do nothing beside the others: what is declared is meant.
fn check_combination(section: &mut Section<'_, '_>) {
    let clock = ["schedule", "every", "at"].iter().any(|key| section.has(key));
    let events = ["watch", "on_memory", "after"].iter().any(|key| section.has(key));
    let mut without = |keys: &[&str], there: bool, message: &str, remedy: &str| {
        for key in keys.iter().filter(|_| !there) {
            section.refuse(key, message, remedy);
        }
    };
    without(
        &["timezone", "jitter", "catch_up", "catch_up_window", "overlap"],
        clock,
        "there is no clock that it is about",
        "remove it, or set a `schedule`",
    );
    let remedy = "remove it, or set what it waits for by `watch`, `on_memory` or `after`";
    without(&["debounce"], events, "no events come here", remedy);
    let debounce = section.has("debounce");
    let mut without = |key, there: bool, message: &str, remedy: &str| {
        if !there {
            section.refuse(key, message, remedy);
        }
    };
    without("max_wait", debounce, "there is no `debounce` that it bounds", "remove it, or set `debounce`");
    without(
        "throttle",
        clock || events,
        "nothing starts this agent again and again",
        "remove it, or set a `schedule` or a `watch`",
    );
}

const CATCH_UPS: [(&str, CatchUp); 3] =
    [("none", CatchUp::None), ("last", CatchUp::Last), ("all", CatchUp::All)];
const OVERLAPS: [(&str, Overlap); 4] = [
    ("skip", Overlap::Skip),
    ("queue", Overlap::Queue),
    ("parallel", Overlap::Parallel),
    ("replace", Overlap::Replace),
];

fn one_of<T: Copy>(value: &Value<'_>, all: &[(&str, T)]) -> Reading<T> {
    let words: Vec<String> = all.iter().map(|(word, _)| format!("{word:?}")).collect();
    let words = words.join(", ");
    let text = plain(value, "text", &words)?;
    match all.iter().find(|(word, _)| *word == text) {
        Some((_, meant)) => Ok(*meant),
        None => wrong(value, format!("{} is none of its values", quote(text)), format!("use one of {words}")),
    }
}

fn some<T>(value: &Value<'_>, all: Vec<T>) -> Reading<Vec<T>> {
    if all.is_empty() { wrong(value, "names nothing", "name something, or remove the key") } else { Ok(all) }
}

fn at_most(value: &Value<'_>, max_ms: u64, max: &str) -> Reading<u64> {
    match duration(value)? {
        ms if ms > max_ms => wrong(value, "is too long", format!("use at most {max:?}")),
        ms => Ok(ms),
    }
}

/// What a text is refused for, quoted with it.
fn refused<T>(value: &Value<'_>, text: &str, refusal: Refusal) -> Reading<T> {
    wrong(value, format!("{} {}", quote(text), refusal.message), refusal.remedy)
}

fn schedules(value: &Value<'_>) -> Reading<Vec<Entry>> {
    if !value.get_ref().is_array() {
        return schedule(value).map(|entry| vec![entry]);
    }
    let all = some(value, list(value, "[\"0 4 * * *\"]", schedule)?)?;
    if all.len() > SCHEDULES_MAX {
        return wrong(value, format!("{} are too many", all.len()), format!("use at most {SCHEDULES_MAX}"));
    }
    Ok(all)
}

fn schedule(value: &Value<'_>) -> Reading<Entry> {
    let text = plain(value, "a schedule", "\"0 4 * * *\"")?;
    match Cron::parse(text) {
        Ok(cron) => Ok(Entry::Cron(Box::new(cron))),
        Err(refusal) => refused(value, text, refusal),
    }
}

fn every(value: &Value<'_>) -> Reading<Entry> {
    match duration(value)? {
        ms if ms % 1000 == 0 => Ok(Entry::Every(ms / 1000)),
        _ => wrong(value, "is not a number of whole seconds", "use \"1s\" or a multiple of it"),
    }
}

fn at(value: &Value<'_>) -> Reading<Entry> {
    let text = plain(value, "a time", "\"2026-12-01T09:00\", in quotes")?;
    Civil::parse(text).map(Entry::At).or_else(|refusal| refused(value, text, refusal))
}

pub(crate) fn timezone(value: &Value<'_>) -> Reading<ZoneName> {
    let text = plain(value, "a time zone", "\"Europe/Berlin\"")?;
    text.parse().or_else(|refusal| refused(value, text, refusal))
}

fn agents(value: &Value<'_>) -> Reading<Vec<AgentName>> {
    list(value, "[\"research\"]", |value| name(value, "an agent", "\"research\""))
}

/// Globs of memory keys: up to 8 segments, where `*` stands for anything within one, and `**` for any of them.
fn key_globs(value: &Value<'_>) -> Reading<Vec<String>> {
    let example = "[\"topics/*\"]";
    list(value, example, |value| {
        let text = plain(value, "a glob", example)?;
        let segment = |part: &str| {
            (1..=64).contains(&part.len())
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'*' | b'?'))
        };
        if text.split('/').all(segment) && text.split('/').count() <= 8 {
            return Ok(text.to_owned());
        }
        let message = format!("{} matches no key of the memory", quote(text));
        wrong(
            value,
            message,
            format!("write it like {example}: 1 to 8 names joined by `/`, with * and ? in them"),
        )
    })
}

fn throttle(value: &Value<'_>) -> Reading<Throttle> {
    let example = "\"1/10m\"";
    let text = plain(value, "a rate", example)?;
    let parts = text.split_once('/').and_then(|(count, span)| {
        let count = count.trim().parse::<u32>().ok()?;
        let per_ms = parse_duration(span.trim()).ok()?;
        Some(Throttle { count, per_ms })
    });
    match parts {
        Some(throttle) if (1..=THROTTLE_COUNT_MAX).contains(&throttle.count) && throttle.per_ms > 0 => {
            Ok(throttle)
        }
        Some(_) => wrong(
            value,
            format!("{} is out of range", quote(text)),
            format!("use 1 to {THROTTLE_COUNT_MAX} starts in at least \"1ms\""),
        ),
        None => wrong(
            value,
            format!("{} is not a rate", quote(text)),
            format!("write it like {example}: starts, and in how long"),
        ),
    }
}

#[cfg(test)]
mod tests;
