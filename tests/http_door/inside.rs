//! Requests from within the process: the door's limits and queues, over no wire.

use std::time::Duration;

use penstock::error::{ErrorKind, Result};
use penstock::pipeline::RequestTerms;
use penstock::serve::{Deadline, HttpSettings, Said, Steps};
use penstock::tensor::{Rows, Specs};
use penstock::wire::openai::{Form, Generation};

use crate::harness::{Talking, until};

fn asked(more: &str) -> Generation {
    let body = format!(r#"{{"model":"talk","prompt":"hello"{more}}}"#);
    Generation::parse(body.as_bytes(), Form::Completion).unwrap()
}

fn begin(talking: &Talking, more: &str, deadline: Option<Deadline>) -> Result<Steps> {
    let _runtime = penstock::runtime::handle().unwrap().enter();
    let model = talking.inside.find("talk", None).unwrap();
    talking.inside.step_text(&model, (RequestTerms::default(), deadline), &asked(more))
}

fn next(steps: &mut Steps) -> Result<Option<String>> {
    let said = penstock::runtime::handle().unwrap().block_on(steps.next())?;
    Ok(said.map(|said| match said {
        Said::Text(text) => String::from_utf8(text.to_vec()).unwrap(),
        Said::Row(_) => panic!("a model of text says text"),
    }))
}

#[test]
fn text_comes_as_it_is_said_and_ends_where_it_is_to() {
    let talking = Talking::open();
    let mut steps = begin(&talking, r#","stop":"stop""#, None).unwrap();
    let talk = talking.take(1);
    for step in 0..50 {
        talk.say(&step.to_string());
        assert_eq!(next(&mut steps).unwrap(), Some(step.to_string()));
    }
    assert_eq!(steps.end(), None);
    talk.say("before stop after");
    assert_eq!(next(&mut steps).unwrap().as_deref(), Some("before "));
    assert_eq!(next(&mut steps).unwrap(), None);
    assert_eq!(steps.end().unwrap().reason.as_deref(), Some("stop"));
    assert_eq!((talk.left(), talking.inside.in_flight()), (1, 0), "the generation ends with it");
}

#[test]
fn as_a_whole_it_comes_when_the_last_is_there() {
    let talking = Talking::with(HttpSettings { streaming: false, ..HttpSettings::default() });
    let mut steps = begin(&talking, "", None).unwrap();
    let talk = talking.take(1);
    talk.say_all(&["a", "b"]);
    let runtime = penstock::runtime::handle().unwrap();
    let early =
        runtime.block_on(async { tokio::time::timeout(Duration::from_millis(50), steps.next()).await });
    assert!(early.is_err(), "it is not over");
    talk.say_at_last("c");
    let said: Vec<_> = (0..4).map(|_| next(&mut steps).unwrap()).collect();
    assert_eq!(said, [Some("a".to_owned()), Some("b".to_owned()), Some("c".to_owned()), None]);
}

#[test]
fn a_failure_is_said_once_and_nothing_comes_after_it() {
    let talking = Talking::open();
    let mut steps = begin(&talking, "", None).unwrap();
    talking.take(1).fail("no more");
    assert_eq!(next(&mut steps).unwrap_err().message(), "no more");
    assert_eq!(next(&mut steps).unwrap(), None);
    assert_eq!((steps.end(), talking.counted("failed_total")), (None, 1));
}

#[test]
fn letting_go_of_it_stops_the_model_and_frees_its_place() {
    let talking = Talking::with(HttpSettings { max_in_flight: 1, ..HttpSettings::default() });
    let steps = begin(&talking, "", None).unwrap();
    let talk = talking.take(1);
    let refused = begin(&talking, "", None).err().unwrap();
    assert_eq!((refused.kind(), talking.inside.in_flight()), (ErrorKind::Overloaded, 1));
    drop(steps);
    until("the model hears of it", || talk.left() == 1);
    assert!(begin(&talking, "", None).is_ok());
}

#[test]
fn a_deadline_is_kept_where_nobody_answers() {
    let talking = Talking::open();
    let deadline = Deadline::after(Duration::from_millis(40), "timeout");
    let mut steps = begin(&talking, "", deadline).unwrap();
    let talk = talking.take(1);
    assert_eq!(next(&mut steps).unwrap_err().kind(), ErrorKind::DeadlineExceeded);
    until("the model hears of it", || talk.left() == 1);
    let past = Deadline::after(Duration::ZERO, "timeout");
    assert_eq!(begin(&talking, "", past).err().unwrap().kind(), ErrorKind::DeadlineExceeded);
}

#[test]
fn a_model_of_text_gives_no_tensors() {
    let talking = Talking::open();
    let model = talking.inside.find("talk", None).unwrap();
    let rows = || (Specs::new(), Rows::new(&[], model.spares()));
    let terms = (RequestTerms::default(), None);
    let refused = talking.inside.step_rows(&model, terms, rows(), 1).err().unwrap();
    assert!(refused.message().contains("give it a prompt"), "{refused}");
    let asked = talking.inside.infer_rows(model.clone(), (RequestTerms::default(), None), rows(), 1);
    let refused = penstock::runtime::handle().unwrap().block_on(asked).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Item);
    assert_eq!(talking.inside.find("no", None).err().unwrap().kind(), ErrorKind::ModelNotFound);
}
