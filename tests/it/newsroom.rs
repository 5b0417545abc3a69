//! The example crew does its job.

use std::fs;
use std::path::Path;

use crate::crew::Crew;

#[test]
fn the_newsroom_makes_pages_of_what_is_dropped_in_and_ends_when_idle() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut crew = Crew::new();
    for entry in fs::read_dir(repository.join("agents")).expect("the example crew") {
        let path = entry.expect("an entry").path();
        let file = path.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
        crew.agent(&file, &fs::read_to_string(&path).expect("a text"));
    }
    fs::create_dir(crew.path("inbox")).expect("a directory");
    for document in ["README.md", "LICENSE-APACHE", "LICENSE-MIT"] {
        fs::copy(repository.join(document), crew.path("inbox").join(document)).expect("copied");
    }
    crew.start_with(&["--until-idle"]);
    let status = crew.supervisors_end();
    assert!(status.success(), "{status}\n{}", crew.told());
    let pages = fs::read_dir(crew.path("site")).map_or(0, Iterator::count);
    assert!(pages >= 4, "three pages and an index: {pages}\n{}", crew.told());
    assert!(crew.path("site/index.html").exists());
    crew.leaves_nothing();
}
