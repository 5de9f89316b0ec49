use crate::support::{Scratch, run_with_input};

fn chat(flags: &[&str], input: &str) -> String {
    let args = ["chat", "--temperature", "0", "--max-tokens", "12"];
    run_with_input(&[&args[..], flags].concat(), input).success()
}

#[test]
fn a_conversation_remembers_until_it_is_cleared() {
    let once = chat(&[], "What is a slice?\n");
    assert!(once.len() > 10, "{once:?}");
    assert_eq!(chat(&[], "What is a slice?"), once, "without a newline at the end");
    let cleared = chat(&[], "What is a slice?\n\n/clear\nWhat is a slice?\n/exit\nWhat is a slice?\n");
    assert_eq!(cleared, format!("{once}{once}"));
    let remembered = chat(&[], "What is a slice?\nWhat is a slice?\n");
    assert!(remembered.starts_with(&once));
    assert_ne!(remembered, cleared);
    assert_ne!(chat(&["--system", "In the beginning"], "What is a slice?\n"), once);
}

#[test]
fn commands_that_do_not_exist_are_not_sent() {
    let outcome = run_with_input(&["chat"], "/help\n");
    assert_eq!((outcome.code, outcome.stdout.as_str()), (0, ""));
    assert!(outcome.stderr.contains("/help") && outcome.stderr.contains("/clear"), "{}", outcome.stderr);
}

#[test]
fn a_script_learns_of_a_message_that_is_too_long() {
    let outcome = run_with_input(&["chat", "--max-model-len", "16"], &format!("{}\n", "word ".repeat(40)));
    assert_eq!((outcome.code, outcome.stdout.as_str()), (1, ""));
    assert!(outcome.stderr.contains("the window holds 16"), "{}", outcome.stderr);
}

#[test]
fn a_model_without_a_template_cannot_chat() {
    let scratch = Scratch::new();
    let model = scratch.model(|name| name != "tokenizer_config.json");
    let outcome = run_with_input(&["chat", "--model", &model], "Hi\n");
    assert_eq!((outcome.code, outcome.stdout.as_str()), (1, ""));
    assert!(outcome.stderr.contains("no chat template"), "{}", outcome.stderr);
}
