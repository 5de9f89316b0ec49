//! `bathysphere chat`

use std::io::{self, BufRead, IsTerminal};

use bathysphere::{ChatMessage, Engine, RequestError, SamplingParams};

use crate::args::ChatArgs;
use crate::error::CliError;
use crate::generation::{Ending, generate};
use crate::interrupt::Interrupt;
use crate::model;
use crate::output;
use crate::prompt;

pub(crate) fn run(args: &ChatArgs) -> Result<(), CliError> {
    let engine = model::load(model::builder(&args.model)?.max_num_seqs(1))?.engine;
    if !engine.has_chat_template() {
        let dir = engine.dir().display().to_string();
        return Err(bathysphere::Error::from(RequestError::NoChatTemplate { dir }).into());
    }
    let interrupt = Interrupt::install()?;
    let system: Vec<ChatMessage> = args.system.iter().map(ChatMessage::system).collect();
    let params = args.sampling.params();
    let mut conversation = Conversation { messages: system.clone(), engine, interrupt, params };
    let is_interactive = io::stdin().is_terminal();
    if is_interactive {
        output::note("/clear forgets the conversation, /exit leaves, Ctrl-C stops an answer.");
    }
    while let Some(line) = conversation.read_line(is_interactive)? {
        match line.trim() {
            "" => {}
            "/exit" => break,
            "/clear" => conversation.messages.clone_from(&system),
            command if command.starts_with('/') && !command.contains(char::is_whitespace) => {
                output::note(&format!("{command} is not a command: there are /clear and /exit"));
            }
            text => match conversation.say(text) {
                // A person can go on, with a shorter question or after /clear; a script cannot see that it should.
                Err(CliError::Engine(error)) if is_interactive && !error.is_fatal() => {
                    output::note(&format!("error: {error}; /clear makes room"));
                }
                result => result?,
            },
        }
    }
    Ok(())
}

struct Conversation {
    engine: Engine,
    interrupt: Interrupt,
    params: SamplingParams,
    messages: Vec<ChatMessage>,
}

impl Conversation {
    /// The next line; `None` at the end of input.
    fn read_line(&self, is_interactive: bool) -> Result<Option<String>, CliError> {
        self.interrupt.at_prompt();
        if is_interactive {
            output::prompt("> ");
        }
        let mut line = String::new();
        let num_bytes = io::stdin().lock().read_line(&mut line).map_err(CliError::Stream)?;
        Ok((num_bytes > 0).then_some(line))
    }

    /// Answers `text`. An error leaves the conversation as it was before.
    fn say(&mut self, text: &str) -> Result<(), CliError> {
        self.messages.push(ChatMessage::user(text));
        let answer = self.answer();
        match answer {
            Ok(answer) => {
                self.messages.push(ChatMessage::assistant(answer));
                Ok(())
            }
            Err(error) => {
                self.messages.pop();
                Err(error)
            }
        }
    }

    /// Shows the answer as it comes. What Ctrl-C leaves of it counts as the answer.
    fn answer(&self) -> Result<String, CliError> {
        let tokens = prompt::encode_chat(&self.engine, &self.messages)?;
        let show = |chunk: &bathysphere::Chunk| output::write(chunk.text.as_deref().unwrap_or_default());
        let outcome = generate(&self.engine, &self.interrupt, tokens, self.params.clone(), show)?;
        output::write("\n")?;
        if outcome.ending == Ending::Interrupted {
            output::note("(stopped)");
        } else if output::is_watched() {
            output::note(&outcome.summary());
        }
        Ok(outcome.text.unwrap_or_default())
    }
}
