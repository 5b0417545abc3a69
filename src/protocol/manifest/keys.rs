//! Which keys there are, which are yet to come, and which one was meant.

/// The keys that nightcrew.toml may set for every agent, and a manifest for its own.
pub(crate) const COMMON: [&str; 14] = [
    "restart",
    "env_file",
    "heartbeat",
    "silence",
    "isolation_grace",
    "timeout",
    "stop_grace",
    "stop_signal",
    "max_rss",
    "retries",
    "backoff",
    "unique_for",
    "env",
    "pass_env",
];

/// The keys that only an agent's own manifest may set.
pub(crate) const OWN: [&str; 25] = [
    "about",
    "enabled",
    "handles",
    "concurrency",
    "command",
    "workdir",
    "reload_on",
    "args",
    "retry_on",
    "no_retry_on",
    "gate",
    "then",
    "fallback",
    "schedule",
    "every",
    "at",
    "timezone",
    "jitter",
    "catch_up",
    "catch_up_window",
    "overlap",
    "throttle",
    "watch",
    "debounce",
    "max_wait",
];

/// The keys of a manifest that later versions will have.
pub(crate) const RESERVED: [&str; 14] = [
    "on_memory",
    "after",
    "cpu",
    "nice",
    "user",
    "sandbox",
    "breaker",
    "output_limit",
    "outputs",
    "budget",
    "cost_per_run",
    "needs",
    "depends",
    "stall",
];

/// The key of `candidates` that is spelled most like `key`, if any is at all alike.
///
/// Capitals and hyphens are not counted as differences: `Max-RSS` means `max_rss`.
pub(crate) fn nearest<'k>(key: &str, candidates: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    // A longer key than any there is resembles none, and comparing costs its length.
    if key.len() > 64 {
        return None;
    }
    let plain = key.to_lowercase().replace('-', "_");
    let resembles = |known: &str, distance: usize| {
        let prefix =
            plain.len().min(known.len()) >= 3 && (known.starts_with(&plain) || plain.starts_with(known));
        prefix || distance <= (known.len() / 3).clamp(1, 3)
    };
    candidates
        .map(|known| (strsim::damerau_levenshtein(&plain, known), known))
        .filter(|(distance, known)| resembles(known, *distance))
        .min()
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meant(key: &str) -> Option<&'static str> {
        nearest(key, COMMON.into_iter().chain(OWN).chain(RESERVED))
    }

    #[test]
    fn the_nearest_key_is_named_where_one_is_near() {
        for (wrong, right) in [
            ("max_rs", "max_rss"),
            ("Max-RSS", "max_rss"),
            ("hadnles", "handles"),
            ("handle", "handles"),
            ("stop-signal", "stop_signal"),
            ("shedule", "schedule"),
            ("timeouts", "timeout"),
            ("environment", "env"),
            ("conc", "concurrency"),
            ("passenv", "pass_env"),
        ] {
            assert_eq!(meant(wrong), Some(right), "{wrong}");
        }
        for wrong in ["", "x", "favourite_colour", &"timeout".repeat(20)] {
            assert_eq!(meant(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn no_key_is_listed_twice() {
        let mut all: Vec<_> = COMMON.into_iter().chain(OWN).chain(RESERVED).collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
