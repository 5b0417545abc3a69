//! Many tasks in one call.

use super::*;
use crate::app::client::batch::{LINES_MAX, Ordered, Settled, parse};

fn parsed(lines: &str) -> Vec<Ordered> {
    parse(lines.as_bytes(), &Wishes::default(), NOW).unwrap()
}

fn refusal(lines: &str) -> (usize, String) {
    let crew = Crew::new();
    let told = parse(lines.as_bytes(), &Wishes::default(), NOW)
        .and_then(|ordered| crew.operator().submit_all(ordered, None, NOW));
    assert!(crew.store.list(&crew.layout.new_tasks(), 10).unwrap().is_empty(), "nothing is submitted");
    match told {
        Err(ClientError::Line { line, error }) => (line, error.to_string()),
        other => panic!("{other:?}"),
    }
}

fn standings(settled: &[Settled]) -> Vec<Option<Standing>> {
    settled.iter().map(|settled| settled.duplicate_of).collect()
}

#[test]
fn each_line_is_a_task_and_duplicates_are_told_apart() {
    let crew = Crew::new();
    let known = crew.ready_task("a", 1);
    let lines = "{\"kind\":\"write\",\"key\":\"a\"}\n\
                 {\"kind\":\"write\",\"payload\":{\"n\": 1}}\n\
                 \n\
                 {\"kind\":\"write\",\"payload\":{\"n\": 1}}\n\
                 {\"kind\":\"edit\",\"id\":\"chosen\",\"priority\":7,\"group\":\"g\",\"delay\":\"10m\"}\n\
                 {\"kind\":\"edit\",\"new\":true}\n\
                 {\"kind\":\"edit\",\"new\":true}";
    let settled = crew.operator().submit_all(parsed(lines), None, NOW).unwrap();
    let duplicates = [Some(Standing::Ready), None, Some(Standing::New), None, None, None];
    assert_eq!(standings(&settled), duplicates);
    assert_eq!(settled[0].task, known);
    assert_eq!(settled[1].task, crate::protocol::task::id_from_payload(&name("write"), b"{\"n\": 1}"));
    let chosen: TaskRecord = crew.read(&crew.layout.new_task(&name("chosen")));
    assert_eq!((chosen.wishes.priority, chosen.wishes.not_before), (7, Some(Wall(NOW.0 + 600_000))));
    assert_eq!(chosen.payload.get(), "null");
    assert_eq!(crew.store.list(&crew.layout.new_tasks(), 10).unwrap().len(), 4);
    assert!(crew.store.list(&crew.layout.tmp_of_operator(), 10).unwrap().is_empty());
    let again = crew.operator().submit_all(parsed(lines), None, NOW).unwrap();
    assert_eq!(again.iter().filter(|settled| settled.duplicate_of.is_none()).count(), 2, "the new ones");
}

#[test]
fn one_bad_line_refuses_all_and_is_named_with_what_is_wrong() {
    let good = "{\"kind\":\"k\",\"payload\":1}\n";
    let (line, why) = refusal(&format!("{good}\n{{\"kind\":\"k\",\"nedes\":[]}}\n"));
    assert!(line == 3 && why.contains("nedes") && why.contains("needs"), "{line}: {why}");
    let (line, why) = refusal(&format!("{good}{{\"kind\":\"k\",\"payload\":nope}}\n"));
    assert!(line == 2 && why.starts_with("column 2"), "{line}: {why}");
    assert!(!why.contains("line 1"), "{why}");
    assert!(refusal("{\"kind\":\"a/b\"}").1.contains("is not a name"));
    assert!(refusal("{\"kind\":\"k\",\"key\":\"x\",\"id\":\"y\"}").1.contains("exclude each other"));
    assert!(refusal("{\"kind\":\"k\",\"delay\":\"2026-11-20T03:00:00Z\"}").1.contains("length of time"));
    assert!(refusal("{\"kind\":\"k\",\"needs\":[\"unknown\"]}").1.contains("no such task"));
    assert!(refusal("{\"kind\":\"k\",\"expires\":\"2020-01-01T00:00:00Z\"}").1.contains("past"));
    let deep = "[".repeat(200) + &"]".repeat(200);
    assert!(refusal(&format!("{{\"kind\":\"k\",\"payload\":{deep}}}")).1.contains("recursion"));
    let large = format!("{{\"kind\":\"k\",\"payload\":\"{}\"}}", "x".repeat(1024 * 1024));
    assert!(refusal(&format!("{good}{large}")).1.contains("1048576 are allowed"));
}

#[test]
fn needs_within_a_batch_may_come_in_any_order_and_lead_nowhere_back() {
    let crew = Crew::new();
    let lines = "{\"kind\":\"k\",\"id\":\"last\",\"needs\":[\"middle\",\"first\"]}\n\
                 {\"kind\":\"k\",\"id\":\"middle\",\"needs\":[\"first\"]}\n\
                 {\"kind\":\"k\",\"id\":\"first\"}\n";
    let settled = crew.operator().submit_all(parsed(lines), None, NOW).unwrap();
    assert_eq!(standings(&settled), [None, None, None]);
    let (_, why) = refusal(
        "{\"kind\":\"k\",\"id\":\"z\",\"needs\":[\"a\"]}\n\
         {\"kind\":\"k\",\"id\":\"a\",\"needs\":[\"b\"]}\n\
         {\"kind\":\"k\",\"id\":\"b\",\"needs\":[\"c\"]}\n\
         {\"kind\":\"k\",\"id\":\"c\",\"needs\":[\"a\"]}\n",
    );
    assert!(why.contains("(a needs b needs c needs a)"), "{why}");
    assert!(refusal("{\"kind\":\"k\",\"id\":\"a\",\"needs\":[\"a\"]}").1.contains("itself"));
}

#[test]
fn what_the_lines_do_not_say_is_as_the_call_says() {
    let otherwise = Wishes { priority: 3, group: Some(name("import")), ..Wishes::default() };
    let lines = "{\"kind\":\"k\"}\n{\"kind\":\"k\",\"priority\":0,\"group\":\"own\"}";
    let ordered = parse(lines.as_bytes(), &otherwise, NOW).unwrap();
    let told: Vec<_> =
        ordered.iter().map(|it| (it.order.wishes.priority, it.order.wishes.group.clone())).collect();
    assert_eq!(told, [(3, Some(name("import"))), (0, Some(name("own")))]);
}

#[test]
fn a_batch_within_a_task_is_bound_to_it() {
    let crew = Crew::new();
    crew.ready_task("a", 5);
    let mut client = crew.run("writer", "R1");
    claim(&mut client).unwrap();
    let held = client.within(None).unwrap().unwrap();
    let lines = "{\"kind\":\"k\",\"id\":\"one\"}\n{\"kind\":\"k\",\"id\":\"two\",\"needs\":[\"one\"]}\n";
    let settled = client.submit_all(parsed(lines), Some(&held), NOW).unwrap();
    assert_eq!(standings(&settled), [None, None]);
    assert!(crew.has(&crew.layout.bound(&name("writer"), &held.bound(&name("two")))));
    assert!(crew.store.list(&crew.layout.new_tasks(), 10).unwrap().is_empty());
    let again = client.submit_all(parsed(lines), Some(&held), NOW).unwrap();
    assert_eq!(standings(&again), [Some(Standing::Bound); 2]);
}

#[test]
fn a_batch_has_a_bounded_number_of_lines() {
    let lines = "{\"kind\":\"k\"}\n".repeat(LINES_MAX);
    assert_eq!(parsed(&lines).len(), LINES_MAX);
    let error = parse((lines + "{\"kind\":\"k\"}").as_bytes(), &Wishes::default(), NOW).unwrap_err();
    assert!(error.to_string().contains("several calls"), "{error}");
}
