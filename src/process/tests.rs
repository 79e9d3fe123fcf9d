//! The channel between a keeper and its child, with real children: this very test program, run once more.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use smallvec::{SmallVec, smallvec};

use super::keeper::pause_after;
use super::*;
use crate::error::{Error, ErrorKind};
use crate::tensor::{AnswerRow, Column, DType, Rows, Shape, Spares, Texts};

const GRACE: Duration = Duration::from_secs(20);

/// What the child of a test does with the batches that it is given; it ends when the test ends it.
#[test]
#[ignore = "the other side of the tests below"]
fn child() {
    let mut link = Link::inherited().unwrap();
    let memory = link.take_memory().unwrap();
    let hello = link.receive().unwrap().unwrap();
    end_with_parent(&link).unwrap();
    match hello.as_slice() {
        b"fails" => {
            let verdict = Verdict::Failed {
                class: "ConfigError".to_owned(),
                message: "no such model".to_owned(),
                traceback: "line 1".to_owned(),
            };
            return link.send(&postcard::to_stdvec(&verdict).unwrap()).unwrap();
        }
        b"dies at once" => std::process::exit(3),
        _ => link.send(&postcard::to_stdvec(&Verdict::Ready).unwrap()).unwrap(),
    }
    let spares = Spares::new(1 << 20);
    while let Some(message) = link.receive().unwrap() {
        let question: Question = postcard::from_bytes(&message).unwrap();
        let rows = question_rows(&question, &memory, &spares).unwrap();
        match hello.as_slice() {
            b"exits" => std::process::exit(7),
            b"babbles" => link.send(b"\xff\xff\xff").unwrap(),
            b"hangs" => std::thread::sleep(Duration::from_hours(1)),
            b"leaves a child behind" => {
                // It inherits nothing of the socket's name, but the descriptor itself as its input.
                let stdin = std::process::Stdio::from(link.descriptor().unwrap());
                std::process::Command::new("sleep").arg("30").stdin(stdin).spawn().unwrap();
                std::process::abort();
            }
            _ => {
                let columns = Arc::new(rows.into_columns().into_vec());
                let answers: Vec<_> = (0..question.rows)
                    .map(|row| match row {
                        1 => Err(Error::new(ErrorKind::Item, "not this one")),
                        _ => Ok(AnswerRow::new(Arc::clone(&columns), row)),
                    })
                    .collect();
                let answer = Answer::write(&answers, &memory).unwrap();
                link.send(&postcard::to_stdvec(&answer).unwrap()).unwrap();
            }
        }
    }
}

fn launch(does: &str) -> Arc<Launch> {
    Arc::new(Launch {
        program: std::env::current_exe().unwrap().into(),
        arguments: ["process::tests::child", "--exact", "--ignored", "--quiet"].map(Into::into).into(),
        hello: does.as_bytes().to_vec(),
        name: "model 'x'".to_owned(),
        runs_again: true,
    })
}

fn keeper(does: &str) -> (Keeper, Arc<AtomicUsize>) {
    let restarts = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&restarts);
    let keeper = Keeper::new(launch(does), move || {
        counted.fetch_add(1, Ordering::Relaxed);
    })
    .unwrap();
    (keeper, restarts)
}

fn some_rows(spares: &Arc<Spares>, count: u8) -> Rows {
    let mut memory = spares.memory();
    let mut texts = Texts::default();
    for row in 0..count {
        memory.extend(&[row, row + 1]);
        texts.push("ß".repeat(usize::from(row)).as_bytes());
    }
    let numbers = Column::Numbers { dtype: DType::UInt8, shape: smallvec![2], row_bytes: 2, memory };
    Rows::from_columns(smallvec![numbers, Column::Texts { shape: Shape::new(), texts }])
}

fn ask(child: &mut Child, memory: &SharedMemory, rows: &Rows, count: usize) -> Result<Vec<u8>, Broken> {
    let question = Question::write(count, rows.columns(), memory).unwrap();
    child.say(&postcard::to_stdvec(&question).unwrap())?;
    let message = child.hear()?.ok_or(Broken::Child)?;
    let answer: Answer = postcard::from_bytes(&message).map_err(|_| Broken::Child)?;
    let rows = answer_columns(&answer, count, memory, &Spares::new(0))?;
    Ok(rows
        .iter()
        .map(|row| match row {
            Ok(AnswerRow { columns, row, .. }) => match columns.as_slice() {
                [Column::Numbers { memory, .. }, Column::Texts { texts, .. }] => {
                    assert_eq!(texts.get(*row).unwrap(), "ß".repeat(*row).as_bytes());
                    memory.as_slice()[row * 2 + 1]
                }
                other => panic!("{other:?}"),
            },
            Err(error) => {
                assert_eq!((error.kind(), error.message()), (ErrorKind::Item, "not this one"));
                255
            }
        })
        .collect())
}

#[test]
fn a_batch_goes_to_the_child_and_its_answer_comes_back() {
    let (mut keeper, restarts) = keeper("answers");
    keeper.start().unwrap();
    let rows = some_rows(&Spares::new(0), 4);
    for _ in 0..3 {
        let answer = keeper.run(|child, memory| ask(child, memory, &rows, 4)).unwrap();
        assert_eq!(answer, [1, 255, 3, 4]);
    }
    let number = keeper.reins().process_number().unwrap();
    keeper.end(GRACE);
    assert!(!std::path::Path::new(&format!("/proc/{number}")).exists());
    assert_eq!(restarts.load(Ordering::Relaxed), 0);
}

/// What becomes of a batch that is not answered, and how often it was asked for.
fn refused(keeper: &mut Keeper) -> (Error, usize) {
    let rows = some_rows(&Spares::new(0), 2);
    let mut asked = 0;
    let answered = keeper.run(|child, memory| {
        asked += 1;
        ask(child, memory, &rows, 2)
    });
    (answered.unwrap_err(), asked)
}

#[test]
fn a_batch_that_kills_two_children_fails_by_name_and_the_place_is_filled_again() {
    let (mut keeper, restarts) = keeper("exits");
    let (error, asked) = refused(&mut keeper);
    assert_eq!(error.kind(), ErrorKind::Model);
    assert!(error.message().contains("model 'x' exited with status 7"), "{error}");
    assert_eq!((asked, restarts.load(Ordering::Relaxed)), (2, 1));
    assert!(keeper.keep_alive(|| true));
    keeper.end(GRACE);
}

#[test]
fn a_batch_that_may_not_run_twice_fails_with_the_first_child() {
    let once = Launch { runs_again: false, ..Launch::clone(&launch("exits")) };
    let mut keeper = Keeper::new(Arc::new(once), || {}).unwrap();
    let (error, asked) = refused(&mut keeper);
    assert_eq!((error.kind(), asked), (ErrorKind::Model, 1));
    assert!(
        error.message().ends_with("exited with status 7 while it ran this batch, which may not run twice")
    );
    assert!(keeper.keep_alive(|| true), "the place is filled again");
    keeper.end(GRACE);
}

#[test]
fn a_child_that_speaks_nonsense_is_replaced() {
    let (mut keeper, _) = keeper("babbles");
    let rows = some_rows(&Spares::new(0), 2);
    let error = keeper.run(|child, memory| ask(child, memory, &rows, 2)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Model);
}

#[test]
fn a_death_is_seen_though_others_hold_the_childs_socket() {
    let (mut keeper, _) = keeper("leaves a child behind");
    let rows = some_rows(&Spares::new(0), 2);
    let error = keeper.run(|child, memory| ask(child, memory, &rows, 2)).unwrap_err();
    assert!(error.message().contains("signal 6 (SIGABRT)"), "{error}");
}

#[test]
fn a_child_that_hangs_is_killed_from_another_thread_and_none_takes_its_place() {
    let (mut keeper, restarts) = keeper("hangs");
    keeper.start().unwrap();
    let reins = Arc::clone(keeper.reins());
    let killer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        reins.kill();
    });
    let rows = some_rows(&Spares::new(0), 2);
    let error = keeper.run(|child, memory| ask(child, memory, &rows, 2)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert!(!keeper.keep_alive(|| true));
    assert_eq!(restarts.load(Ordering::Relaxed), 0);
    killer.join().unwrap();
}

#[test]
fn a_child_that_dies_while_it_waits_is_replaced_without_a_word() {
    let (mut keeper, restarts) = keeper("answers");
    keeper.start().unwrap();
    let number = keeper.reins().process_number().unwrap();
    let number = rustix::process::Pid::from_raw(i32::try_from(number).unwrap()).unwrap();
    rustix::process::kill_process(number, rustix::process::Signal::KILL).unwrap();
    let rows = some_rows(&Spares::new(0), 1);
    assert_eq!(keeper.run(|child, memory| ask(child, memory, &rows, 1)).unwrap(), [1]);
    assert_eq!(restarts.load(Ordering::Relaxed), 1);
    keeper.end(GRACE);
}

#[test]
fn a_child_says_why_it_cannot_run_batches() {
    let error = keeper("fails").0.start().unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::Config, "no such model"));
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "line 1");
    let error = keeper("dies at once").0.start().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LoadFailed);
    assert!(error.message().contains("exited with status 3 before it was ready"), "{error}");
}

#[test]
fn pauses_grow_to_a_limit() {
    let pauses: Vec<_> = (1..=7).map(|deaths| pause_after(deaths).as_millis()).collect();
    assert_eq!(pauses, [100, 400, 1600, 6400, 25600, 30000, 30000]);
    assert_eq!(pause_after(usize::MAX), Duration::from_secs(30));
}

#[test]
fn memory_grows_and_gives_back_what_a_large_batch_took() {
    let memory = SharedMemory::new().unwrap();
    assert!(memory.is_empty());
    memory.write(10, b"abc").unwrap();
    memory.shrink().unwrap();
    assert_eq!(memory.len().unwrap(), 13);
    memory.write(65 << 20, b"d").unwrap();
    memory.shrink().unwrap();
    assert!(memory.is_empty());
    assert!(memory.read(0, &mut [0]).is_err());
}

#[test]
fn messages_go_through_whole_and_end_with_the_other_side() {
    let (mut ours, theirs) = Link::pair().unwrap();
    let mut theirs = Link::new(theirs.into());
    let memory = SharedMemory::new().unwrap();
    memory.write(0, b"seen").unwrap();
    ours.give(&memory).unwrap();
    let long = vec![7; 3 << 20];
    let reader = std::thread::spawn(move || {
        let memory = theirs.take_memory().unwrap();
        let mut bytes = [0; 4];
        memory.read(0, &mut bytes).unwrap();
        assert_eq!(&bytes, b"seen");
        (theirs.receive().unwrap(), theirs.receive().unwrap(), theirs.receive().unwrap())
    });
    ours.send(&long).unwrap();
    ours.send(b"").unwrap();
    let began = Instant::now();
    ours.end();
    assert_eq!(reader.join().unwrap(), (Some(long), Some(Vec::new()), None));
    assert!(began.elapsed() < GRACE);
}

#[test]
fn an_answer_that_contradicts_itself_is_refused() {
    let memory = SharedMemory::new().unwrap();
    memory.write(0, &[0; 64]).unwrap();
    let numbers = |length, at| ColumnNote::Numbers { dtype: 5, shape: vec![4], at, length };
    let texts = |count| ColumnNote::Texts { shape: vec![], at: 0, length: 8, count };
    let of = |note: ColumnNote| Answer {
        parts: vec![vec![note]],
        rows: vec![RowNote::Row { part: 0, row: 0 }, RowNote::Row { part: 0, row: 1 }],
        ..Answer::default()
    };
    let read = |answer: &Answer| answer_columns(answer, 2, &memory, &Spares::new(0)).map(drop);
    read(&of(numbers(8, 0))).unwrap();
    let long = ColumnNote::Numbers { dtype: 5, shape: vec![usize::MAX, 3], at: 0, length: 8 };
    let strange = ColumnNote::Numbers { dtype: 99, shape: vec![4], at: 0, length: 8 };
    for note in [numbers(9, 0), numbers(8, 60), numbers(8, u64::MAX), long, strange, texts(1), texts(2)] {
        assert!(read(&of(note.clone())).is_err(), "{note:?}");
    }
    let nowhere = Answer { rows: vec![RowNote::Row { part: 1, row: 0 }; 2], ..of(numbers(8, 0)) };
    let short = Answer { rows: vec![RowNote::Row { part: 0, row: 0 }], ..of(numbers(8, 0)) };
    assert!(read(&nowhere).is_err() && read(&short).is_err());
    let objects: SmallVec<[Column; 1]> = smallvec![Column::Objects(vec![1])];
    assert!(Question::write(1, &objects, &memory).is_err());
}
