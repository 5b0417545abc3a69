use super::*;

fn read(text: &str) -> Triggers {
    triggers_from_toml("agents/a.toml", text).unwrap()
}

/// The one error that this text has, without the file's name.
fn error(text: &str) -> String {
    let errors = triggers_from_toml("agents/a.toml", text).unwrap_err();
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors[0].to_string().strip_prefix("agents/a.toml:").unwrap().to_owned()
}

fn cron(text: &str) -> Entry {
    Entry::Cron(Box::new(Cron::parse(text).unwrap()))
}

#[test]
fn a_job_may_say_all_this() {
    let all = read(
        "schedule = [\"0 4 * * *\", \"@weekly\"]\nevery = \"10m\"\nat = \"2026-12-01T09:00\"\n\
         timezone = \"europe/berlin\"\njitter = \"5m\"\ncatch_up = \"all\"\ncatch_up_window = \"6h\"\n\
         overlap = \"queue\"\nwatch = [\"inbox/*.md\"]\non_memory = [\"topics/*\", \"**\"]\nafter = [\"research\"]\n\
         debounce = \"90s\"\nmax_wait = \"5m\"\nthrottle = \"1/10m\"\n",
    );
    let nine = Civil(1_796_115_600);
    assert_eq!(all.clock, [cron("0 4 * * *"), cron("@weekly"), Entry::Every(600), Entry::At(nine)]);
    assert_eq!(all.timezone.as_ref().map(ZoneName::as_str), Some("Europe/Berlin"));
    assert_eq!((all.jitter_ms, all.catch_up, all.catch_up_window_ms), (300_000, CatchUp::All, 21_600_000));
    assert_eq!(
        (all.overlap, all.watch.len(), all.on_memory.len(), all.after.len()),
        (Overlap::Queue, 1, 2, 1)
    );
    assert_eq!((all.debounce_ms, all.max_wait_ms), (Some(90_000), Some(300_000)));
    assert_eq!(all.throttle, Some(Throttle { count: 1, per_ms: 600_000 }));
}

#[test]
fn without_a_word_there_are_defaults() {
    assert_eq!(read(""), Triggers { catch_up_window_ms: CATCH_UP_WINDOW_MS_DEFAULT, ..Triggers::default() });
    let one = read("schedule = \"0 4 * * *\"\nwatch = [\"a\"]\ndebounce = \"90s\"");
    assert_eq!(
        (one.clock.len(), one.jitter_ms, one.catch_up, one.overlap),
        (1, 0, CatchUp::Last, Overlap::Skip)
    );
    assert_eq!((one.catch_up_window_ms, one.max_wait_ms), (86_400_000, Some(900_000)));
}

#[test]
fn a_wrong_value_is_told_what_a_right_one_is() {
    for (text, expected) in [
        (
            "schedule = \"0 0 30 2 *\"",
            "1: schedule: \"0 0 30 2 *\" never comes; name a day that there is, like the last one of a month: \"0 0 L 2 *\"",
        ),
        ("schedule = 5", "1: schedule: expected a schedule, found a number; write it like \"0 4 * * *\""),
        ("schedule = []", "1: schedule: names nothing; name something, or remove the key"),
        (
            "\nschedule = [\n\"0 4 * * *\",\n\"@reboot\"]",
            "4: schedule: \"@reboot\" is not a time; use @hourly, @daily, @weekly, @monthly or @yearly, or fields like \"0 4 * * *\"",
        ),
        ("every = \"1500ms\"", "1: every: is not a number of whole seconds; use \"1s\" or a multiple of it"),
        ("every = \"0s\"", "1: every: \"0s\" is no time at all; use at least \"1ms\""),
        (
            "at = \"tomorrow\"",
            "1: at: \"tomorrow\" is not a date and a time of day; write it like \"2026-12-01T09:00\"; its zone is that of `timezone`",
        ),
        (
            "at = 2026-12-01T09:00:00",
            "1: at: expected a time, found a date; write it like \"2026-12-01T09:00\", in quotes",
        ),
        (
            "timezone = \"Berlin\"\nevery = \"1h\"",
            "1: timezone: \"Berlin\" is not a time zone; did you mean \"Europe/Berlin\"?",
        ),
        ("jitter = \"2d\"\nevery = \"1h\"", "1: jitter: is too long; use at most \"1d\""),
        (
            "catch_up = \"some\"\nevery = \"1h\"",
            "1: catch_up: \"some\" is none of its values; use one of \"none\", \"last\", \"all\"",
        ),
        (
            "overlap = true\nevery = \"1h\"",
            "1: overlap: expected text, found true or false; write it like \"skip\", \"queue\", \"parallel\", \"replace\"",
        ),
        (
            "throttle = \"10m\"\nevery = \"1h\"",
            "1: throttle: \"10m\" is not a rate; write it like \"1/10m\": starts, and in how long",
        ),
        (
            "throttle = \"0/10m\"\nevery = \"1h\"",
            "1: throttle: \"0/10m\" is out of range; use 1 to 1000 starts in at least \"1ms\"",
        ),
        (
            "on_memory = [\"a//b\"]",
            "1: on_memory: \"a//b\" matches no key of the memory; write it like [\"topics/*\"]: 1 to 8 names joined by `/`, with * and ? in them",
        ),
        (
            "watch = [\"/etc/*\"]",
            "1: watch: \"/etc/*\" does not stay below the crew's directory in plain segments; write it like [\"lib/**/*.py\"], relative to the crew",
        ),
        ("after = [\"a b\"]", "1: after: \"a b\" cannot name an agent; use 1 to 64 of A-Z a-z 0-9 _ -"),
        ("watch = []", "1: watch: names nothing; name something, or remove the key"),
    ] {
        assert_eq!(error(text), expected, "{text}");
    }
    for bad in [
        "2026-12-01",
        "2026-12-01T09:00Z",
        "2026-12-01T09:00+01:00",
        "2026-02-30T09:00",
        "2026-12-01T24:00",
        "2026-12-01 09:00",
        "2026-12-01T09:00:00.5",
    ] {
        assert!(error(&format!("at = {bad:?}")).starts_with("1: at: "), "{bad}");
    }
}

#[test]
fn a_key_that_would_do_nothing_is_refused() {
    for (text, expected) in [
        ("jitter = \"5m\"", "1: jitter: there is no clock that it is about; remove it, or set a `schedule`"),
        (
            "watch = [\"a\"]\noverlap = \"queue\"",
            "2: overlap: there is no clock that it is about; remove it, or set a `schedule`",
        ),
        (
            "every = \"1h\"\ndebounce = \"5m\"",
            "2: debounce: no events come here; remove it, or set what it waits for by `watch`, `on_memory` or `after`",
        ),
        (
            "watch = [\"a\"]\nmax_wait = \"5m\"",
            "2: max_wait: there is no `debounce` that it bounds; remove it, or set `debounce`",
        ),
        (
            "throttle = \"1/5m\"",
            "1: throttle: nothing starts this agent again and again; remove it, or set a `schedule` or a `watch`",
        ),
        (
            "watch = [\"a\"]\ndebounce = \"5m\"\nmax_wait = \"4m\"",
            "3: max_wait: is shorter than `debounce`; make it at least as long",
        ),
    ] {
        assert_eq!(error(text), expected, "{text}");
    }
}
