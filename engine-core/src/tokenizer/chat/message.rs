//! Chat messages, as clients of OpenAI's API write them.

use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize};

/// Who says a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions; OpenAI's newer name `developer` is read as this.
    #[serde(alias = "developer")]
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// The result of a tool call.
    Tool,
}

/// One message of a conversation. Reads and writes the JSON of OpenAI's chat API; unknown fields are ignored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChatMessage {
    /// Who says it.
    pub role: Role,
    /// The text; `None` where an assistant message is tool calls alone. Reads a string, null, or a list of text parts
    /// (joined by newlines). Always written, as null if need be: templates ask whether it `is none`.
    #[serde(default, deserialize_with = "read_content")]
    pub content: Option<String>,
    /// Reasoning kept apart from the text, for the templates that use it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// Tool calls of an assistant message: `[{"type": "function", "function": {"name", "arguments"}}, …]`, handed to
    /// the template as it is. The DeepSeek templates want `arguments` to be a string.
    #[serde(default, skip_serializing_if = "is_no_call")]
    pub tool_calls: Option<serde_json::Value>,
    /// The call a tool message answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// Name of the participant or tool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl ChatMessage {
    /// A message that is text alone.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self {
            role,
            content: Some(content.into()),
            reasoning_content: None,
            tool_calls: None,
            tool_call_id: None,
            name: None,
        }
    }

    /// Instructions.
    pub fn system(content: impl Into<String>) -> Self {
        Self::new(Role::System, content)
    }

    /// What the person says.
    pub fn user(content: impl Into<String>) -> Self {
        Self::new(Role::User, content)
    }

    /// What the model said.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self::new(Role::Assistant, content)
    }

    /// What a tool returned.
    pub fn tool(content: impl Into<String>) -> Self {
        Self::new(Role::Tool, content)
    }
}

/// Clients write "no calls" as absent, null or an empty list; templates know the first only.
fn is_no_call(calls: &Option<serde_json::Value>) -> bool {
    calls.as_ref().is_none_or(|calls| calls.is_null() || calls.as_array().is_some_and(Vec::is_empty))
}

fn read_content<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "content must be a string, null or a list of parts with a type")]
    enum Content {
        Text(String),
        Parts(Vec<Part>),
    }
    #[derive(Deserialize)]
    struct Part {
        r#type: String,
        text: Option<String>,
    }
    match Option::<Content>::deserialize(deserializer)? {
        None => Ok(None),
        Some(Content::Text(text)) => Ok(Some(text)),
        Some(Content::Parts(parts)) => {
            let texts: Result<Vec<String>, D::Error> = parts
                .into_iter()
                .map(|part| match (part.r#type.as_str(), part.text) {
                    ("text", Some(text)) => Ok(text),
                    (other, _) => {
                        let message =
                            format!("content part of type {other:?}: only parts of type \"text\" are accepted");
                        Err(de::Error::custom(message))
                    }
                })
                .collect();
            Ok(Some(texts?.join("\n")))
        }
    }
}
