use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Outcome, bathysphere};

fn start(args: &[&str]) -> Child {
    let mut command = bathysphere();
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

fn interrupt(child: &Child) {
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
}

fn read_some(child: &mut Child) -> String {
    let mut bytes = [0; 64];
    let num_bytes = child.stdout.as_mut().unwrap().read(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes[..num_bytes]).into_owned()
}

const ENDLESS: [&str; 4] = ["--ignore-eos", "--max-tokens", "100000", "--device=reference"];

#[test]
fn an_interrupted_generation_keeps_its_text() {
    let mut child = start(&[&["generate", "--prompt", "What is a slice?"], &ENDLESS[..]].concat());
    let first = read_some(&mut child);
    assert!(!first.is_empty());
    let pressed = Instant::now();
    interrupt(&child);
    let outcome = Outcome::of(child.wait_with_output().unwrap());
    assert!(pressed.elapsed() < Duration::from_secs(5), "took {:?}", pressed.elapsed());
    assert_eq!((outcome.code, outcome.stderr.as_str()), (130, ""));
    assert!(outcome.stdout.ends_with('\n'), "{:?}", outcome.stdout);
}

#[test]
fn an_interrupted_answer_does_not_end_the_chat() {
    let mut child = start(&[&["chat"], &ENDLESS[..]].concat());
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"What is a slice?\n").unwrap();
    assert!(!read_some(&mut child).is_empty());
    interrupt(&child);
    stdin.write_all(b"/clear\n/help\n").unwrap();
    drop(stdin);
    let outcome = Outcome::of(child.wait_with_output().unwrap());
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert!(outcome.stderr.contains("(stopped)") && outcome.stderr.contains("/help"), "{}", outcome.stderr);
}

#[test]
fn a_second_press_at_an_idle_prompt_leaves() {
    let mut child = start(&["chat"]);
    let mut stdin = child.stdin.take().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut wait_for = |text: &str| assert!(stderr.any(|line| line.unwrap().contains(text)), "no {text}");
    // From its first answer on, Ctrl-C is the chat's.
    stdin.write_all(b"/help\n").unwrap();
    wait_for("/help is not a command");
    // Reading the next line forgets earlier presses: let it wait for one.
    std::thread::sleep(Duration::from_millis(500));
    interrupt(&child);
    wait_for("again or /exit");
    assert!(child.try_wait().unwrap().is_none(), "the first press ended the chat");
    interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    drop(stdin);
}
