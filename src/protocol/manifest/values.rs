//! One reader for each kind of value that a key can have.
//!
//! Each takes a TOML value and returns what it means, or everything that is wrong with it.

use std::collections::{BTreeMap, BTreeSet};

use globset::GlobBuilder;
use toml::Spanned;
use toml::de::DeValue;

use super::report::quote;
use super::size::parse_size;
use super::{Heartbeat, Restart};
use crate::protocol::name::{Kind, Name};
use crate::protocol::time::parse_duration;

/// The most elements of a list or of a table.
pub(crate) const ELEMENTS_MAX: usize = 256;
/// The longest glob, in bytes: their cost grows with their length.
const GLOB_LEN_MAX: usize = 256;
/// The longest name of a variable, in bytes.
const VARIABLE_LEN_MAX: usize = 128;
/// The longest description, in characters: it is one line of a table.
const ABOUT_CHARS_MAX: usize = 200;
/// What begins the names that nightcrew itself sets in every agent's environment.
pub(crate) const OWN_VARIABLES: &str = "NIGHTCREW_";

/// A TOML value and where it stands.
pub(crate) type Value<'t> = Spanned<DeValue<'t>>;

/// One thing that is wrong with a value.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    /// The byte offset of what is wrong.
    pub(crate) at: usize,
    /// What is wrong with it: the rest of a sentence that the key begins.
    pub(crate) message: String,
    /// What to do about it.
    pub(crate) remedy: String,
}

/// What was read, or all that is wrong with it.
pub(crate) type Reading<T> = Result<T, Vec<Wrong>>;

pub(super) fn wrong<T>(at: &Value<'_>, message: impl Into<String>, remedy: impl Into<String>) -> Reading<T> {
    Err(vec![Wrong { at: at.span().start, message: message.into(), remedy: remedy.into() }])
}

/// The value is of another type than `expected`; `example` is how a right one is written.
fn mistyped<T>(value: &Value<'_>, expected: &str, example: &str) -> Reading<T> {
    let found = match value.get_ref() {
        DeValue::String(_) => "text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    wrong(value, format!("expected {expected}, found {found}"), format!("write it like {example}"))
}

/// Text without NUL bytes, which neither a path nor an argument nor a variable can hold.
pub(super) fn plain<'v>(value: &'v Value<'_>, expected: &str, example: &str) -> Reading<&'v str> {
    match value.get_ref().as_str() {
        Some(text) if text.contains('\0') => wrong(value, "holds a NUL character", "remove it"),
        Some(text) => Ok(text),
        None => mistyped(value, expected, example),
    }
}

/// `true` or `false`.
pub(crate) fn flag(value: &Value<'_>) -> Reading<bool> {
    value.get_ref().as_bool().map_or_else(|| mistyped(value, "true or false", "true"), Ok)
}

/// A whole number from 1 to `max`.
pub(crate) fn count(value: &Value<'_>, max: u32) -> Reading<u32> {
    number(value, 1, max)
}

/// A whole number from `min` to `max`.
pub(crate) fn number(value: &Value<'_>, min: u32, max: u32) -> Reading<u32> {
    let Some(number) = value.get_ref().as_integer() else {
        return mistyped(value, "a number", "4");
    };
    let out_of_range = || format!("{} is out of range", quote(number.as_str()));
    match u32::from_str_radix(number.as_str(), number.radix()) {
        Ok(number) if (min..=max).contains(&number) => Ok(number),
        _ => wrong(value, out_of_range(), format!("use {min} to {max}")),
    }
}

/// Exit codes that are no success, at least one.
pub(crate) fn exit_codes(value: &Value<'_>) -> Reading<Vec<i32>> {
    let example = "[1, 111]";
    let all = list(value, example, |value| number(value, 1, 255))?;
    if all.is_empty() {
        return wrong(value, "names no exit code", format!("write it like {example}, or remove the key"));
    }
    Ok(all.into_iter().filter_map(|code| i32::try_from(code).ok()).collect())
}

/// One name: of an agent, a kind of task, a gate.
pub(crate) fn name(value: &Value<'_>, expected: &str, example: &str) -> Reading<Name> {
    let text = plain(value, expected, example)?;
    text.parse::<Name>().or_else(|_| {
        let message = format!("{} cannot name {expected}", quote(text));
        wrong(value, message, "use 1 to 64 of A-Z a-z 0-9 _ -")
    })
}

/// One line that describes an agent.
pub(crate) fn about(value: &Value<'_>) -> Reading<String> {
    let text = plain(value, "text", "\"Turns topics into articles\"")?;
    if text.chars().any(char::is_control) || text.chars().count() > ABOUT_CHARS_MAX {
        return wrong(
            value,
            "is not one line of text",
            format!("use at most {ABOUT_CHARS_MAX} characters, and none that controls a terminal"),
        );
    }
    Ok(text.into())
}

/// A path: relative to the crew's directory, or absolute.
pub(crate) fn path(value: &Value<'_>) -> Reading<String> {
    match plain(value, "a path", "\"apps/writer\"")? {
        "" => wrong(value, "is empty", "name a path relative to the crew's directory, or remove the key"),
        path => Ok(path.into()),
    }
}

/// Directories joined by `:`, as in `$PATH`.
pub(crate) fn search_path(value: &Value<'_>) -> Reading<String> {
    match plain(value, "directories", "\"/usr/local/bin:/usr/bin:/bin\"")? {
        "" => wrong(value, "is empty", "name the directories that hold programs, joined by `:`"),
        path => Ok(path.into()),
    }
}

/// A length of time above zero, in milliseconds.
pub(crate) fn duration(value: &Value<'_>) -> Reading<u64> {
    let text = plain(value, "a length of time", "\"90s\", \"5m\" or \"1h30m\"")?;
    match parse_duration(text) {
        Ok(0) => wrong(value, format!("{} is no time at all", quote(text)), "use at least \"1ms\""),
        Ok(ms) => Ok(ms),
        Err(_) => wrong(
            value,
            format!("{} is not a length of time", quote(text)),
            "write it like \"90s\", \"5m\", \"1h30m\" or \"2d\"",
        ),
    }
}

/// Lengths of time above zero, in milliseconds: one, or a list of them.
pub(crate) fn durations(value: &Value<'_>) -> Reading<Vec<u64>> {
    let example = "[\"1s\", \"4s\", \"16s\"]";
    match value.get_ref() {
        DeValue::Array(all) if all.is_empty() => {
            wrong(value, "names no length of time", format!("write it like {example}, or remove the key"))
        }
        DeValue::Array(_) => list(value, example, duration),
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Table(_) => duration(value).map(|ms| vec![ms]),
    }
}

/// An amount of memory, in bytes.
pub(crate) fn size(value: &Value<'_>) -> Reading<u64> {
    let text = plain(value, "an amount of memory", "\"300M\" or \"1.5G\"")?;
    parse_size(text).or_else(|why| {
        wrong(value, format!("{} {why}", quote(text)), "write it like \"300M\" or \"1.5G\" (powers of 1024)")
    })
}

/// A length of time, or `off`.
pub(crate) fn heartbeat(value: &Value<'_>) -> Reading<Heartbeat> {
    if value.get_ref().as_str() == Some("off") {
        return Ok(Heartbeat::Off);
    }
    duration(value).map(Heartbeat::Every)
}

/// When a service that ended is started again.
pub(crate) fn restart(value: &Value<'_>) -> Reading<Restart> {
    let all = [Restart::OnFailure, Restart::Always, Restart::Never];
    let text = plain(value, "text", "\"on-failure\"")?;
    all.into_iter().find(|restart| restart.as_str() == text).map_or_else(
        || {
            let remedy = "use \"on-failure\", \"always\" or \"never\"";
            wrong(value, format!("{} is not a way to restart", quote(text)), remedy)
        },
        Ok,
    )
}

/// The number of a signal, from its name with or without `SIG`.
pub(crate) fn signal(value: &Value<'_>) -> Reading<i32> {
    let text = plain(value, "the name of a signal", "\"TERM\"")?;
    // The numbers are those of Linux on the machines that this runs on (all but MIPS, SPARC, Alpha).
    match text.strip_prefix("SIG").unwrap_or(text) {
        "HUP" => Ok(1),
        "INT" => Ok(2),
        "QUIT" => Ok(3),
        "USR1" => Ok(10),
        "USR2" => Ok(12),
        "TERM" => Ok(15),
        _ => wrong(
            value,
            format!("{} is not a signal to stop by", quote(text)),
            "use \"TERM\", \"INT\", \"QUIT\", \"HUP\", \"USR1\" or \"USR2\"",
        ),
    }
}

/// A list, each element read by `read`.
pub(super) fn list<T>(
    value: &Value<'_>,
    example: &str,
    read: impl Fn(&Value<'_>) -> Reading<T>,
) -> Reading<Vec<T>> {
    let DeValue::Array(elements) = value.get_ref() else {
        return mistyped(value, "a list", example);
    };
    if elements.len() > ELEMENTS_MAX {
        let message = format!("{} elements are too many", elements.len());
        return wrong(value, message, format!("use at most {ELEMENTS_MAX}"));
    }
    let (mut all, mut errors) = (Vec::with_capacity(elements.len()), Vec::new());
    for element in elements {
        match read(element) {
            Ok(element) => all.push(element),
            Err(wrongs) => errors.extend(wrongs),
        }
    }
    if errors.is_empty() { Ok(all) } else { Err(errors) }
}

/// Arguments for a program.
pub(crate) fn arguments(value: &Value<'_>) -> Reading<Vec<String>> {
    let example = "[\"--fast\", \"x\"]";
    list(value, example, |value| plain(value, "text", example).map(str::to_owned))
}

/// A program and its arguments.
pub(crate) fn command(value: &Value<'_>) -> Reading<Vec<String>> {
    let example = "[\"node\", \"index.js\"]";
    let all = list(value, example, |value| plain(value, "text", example).map(str::to_owned))?;
    match all.first().map(String::as_str) {
        None | Some("") => wrong(value, "names no program", format!("write it like {example}")),
        Some(_) => Ok(all),
    }
}

/// Kinds of tasks, each once and at least one.
pub(crate) fn kinds(value: &Value<'_>) -> Reading<Vec<Kind>> {
    let example = "[\"generate\"]";
    let all = list(value, example, |value| name(value, "a kind of task", example))?;
    let mut seen = BTreeSet::new();
    if let Some(twice) = all.iter().find(|kind| !seen.insert(*kind)) {
        return wrong(value, format!("{:?} is named twice", twice.as_str()), "name it once");
    }
    if all.is_empty() {
        return wrong(value, "names no kind of task", format!("write it like {example}, or remove the key"));
    }
    Ok(all)
}

/// Globs for files below the crew's directory. A `*` does not match a `/`; `**` does.
pub(crate) fn globs(value: &Value<'_>) -> Reading<Vec<String>> {
    let example = "[\"lib/**/*.py\"]";
    list(value, example, |value| {
        let text = plain(value, "a glob", example)?;
        let refuse = |why: &str| {
            wrong(
                value,
                format!("{} {why}", quote(text)),
                format!("write it like {example}, relative to the crew"),
            )
        };
        if text.len() > GLOB_LEN_MAX {
            return refuse("is too long for a glob");
        }
        // An empty segment would be a leading, trailing or doubled slash.
        if text.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return refuse("does not stay below the crew's directory in plain segments");
        }
        match GlobBuilder::new(text).literal_separator(true).build() {
            Ok(_) => Ok(text.into()),
            Err(error) => refuse(&format!("is not a glob: {}", error.kind())),
        }
    })
}

/// True for what can name a variable of an environment.
pub(crate) fn is_variable(name: &str) -> bool {
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    first && name.len() <= VARIABLE_LEN_MAX && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Why an agent cannot choose this variable, and what to do; `None` if it can.
fn variable_refused(name: &str) -> Option<(String, &'static str)> {
    if name.starts_with(OWN_VARIABLES) {
        let message = format!("{} is nightcrew's own to set", quote(name));
        return Some((message, "choose a name that does not begin with NIGHTCREW_"));
    }
    let message = || format!("{} cannot name a variable", quote(name));
    (!is_variable(name)).then(|| (message(), "use up to 128 letters, digits and _, and no digit first"))
}

/// Names of variables.
pub(crate) fn variables(value: &Value<'_>) -> Reading<Vec<String>> {
    let example = "[\"OPENAI_API_KEY\"]";
    list(value, example, |value| {
        let name = plain(value, "the name of a variable", example)?;
        match variable_refused(name) {
            Some((message, remedy)) => wrong(value, message, remedy),
            None => Ok(name.into()),
        }
    })
}

/// Variables and their values.
pub(crate) fn environment(value: &Value<'_>) -> Reading<BTreeMap<String, String>> {
    let example = "{ LOG_LEVEL = \"info\" }";
    let DeValue::Table(table) = value.get_ref() else {
        return mistyped(value, "a table", example);
    };
    if table.len() > ELEMENTS_MAX {
        let message = format!("{} variables are too many", table.len());
        return wrong(value, message, format!("use at most {ELEMENTS_MAX}, or an env_file"));
    }
    let (mut all, mut errors) = (BTreeMap::new(), Vec::new());
    for (name, value) in table {
        if let Some((message, remedy)) = variable_refused(name.get_ref()) {
            errors.push(Wrong { at: name.span().start, message, remedy: remedy.into() });
            continue;
        }
        // The value may be a secret and is not quoted; its name says which one is meant.
        match plain(value, "text", &format!("{} = \"5\", in quotes", name.get_ref())) {
            Ok(text) => {
                all.insert(name.get_ref().to_string(), text.to_owned());
            }
            Err(wrongs) => {
                let named = |wrong: &Wrong| format!("{}: {}", name.get_ref(), wrong.message);
                errors.extend(wrongs.into_iter().map(|wrong| Wrong { message: named(&wrong), ..wrong }));
            }
        }
    }
    if errors.is_empty() { Ok(all) } else { Err(errors) }
}
