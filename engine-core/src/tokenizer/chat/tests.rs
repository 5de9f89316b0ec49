//! Chat templates: DeepSeek's, written from spec section 8, and what surrounds them.
#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::*;

const TOKENS: [(&str, &str); 2] = [("bos_token", "<bos>"), ("eos_token", "<eos>")];

/// R1: as V3, the generation prompt opens the reasoning, the history drops it.
const R1: &str = "\
{%- set ns = namespace(system='') -%}
{%- for message in messages if message['role'] == 'system' -%}
    {%- set ns.system = ns.system + ('\\n\\n' if ns.system else '') + message['content'] -%}
{%- endfor -%}
{{ bos_token }}{{ ns.system }}
{%- for message in messages -%}
    {%- if message['role'] == 'user' -%}
        {{ '<｜User｜>' + message['content'] }}
    {%- elif message['role'] == 'assistant' and message['content'] is not none -%}
        {%- set content = message['content'] -%}
        {%- if '</think>' in content -%}{%- set content = content.split('</think>')[-1] -%}{%- endif -%}
        {{ '<｜Assistant｜>' + content + eos_token }}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<｜Assistant｜><think>\\n' }}{%- endif -%}";

/// V3.1: `thinking` chooses what follows the marker, earlier turns have `</think>` in front of the answer, tool calls
/// have no fence, and no marker follows a tool result.
const V3_1: &str = "\
{%- if not thinking is defined -%}{%- set thinking = false -%}{%- endif -%}
{%- set ns = namespace(after_user=false, after_tool=false) -%}
{{ bos_token }}
{%- for message in messages -%}
    {%- if message['role'] == 'system' -%}{{ message['content'] }}{%- endif -%}
    {%- if message['role'] == 'user' -%}
        {%- set ns.after_user = true -%}{%- set ns.after_tool = false -%}
        {{ '<｜User｜>' + message['content'] }}
    {%- endif -%}
    {%- if message['role'] == 'assistant' -%}
        {%- if ns.after_user -%}{{ '<｜Assistant｜></think>' }}{%- endif -%}
        {%- set ns.after_user = false -%}
        {%- set content = message['content'] if message['content'] is not none else '' -%}
        {%- if '</think>' in content -%}{%- set content = content.split('</think>', 1)[1] -%}{%- endif -%}
        {{ content }}
        {%- if message['tool_calls'] is defined and message['tool_calls'] is not none -%}
            {{ '<｜tool▁calls▁begin｜>' }}
            {%- for call in message['tool_calls'] -%}
                {{ '<｜tool▁call▁begin｜>' + call['function']['name'] + '<｜tool▁sep｜>' + call['function']['arguments']
                   + '<｜tool▁call▁end｜>' }}
            {%- endfor -%}
            {{ '<｜tool▁calls▁end｜>' }}
        {%- endif -%}
        {{ eos_token }}
    {%- endif -%}
    {%- if message['role'] == 'tool' -%}
        {%- set ns.after_user = false -%}{%- set ns.after_tool = true -%}
        {{ '<｜tool▁output▁begin｜>' + message['content'] + '<｜tool▁output▁end｜>' }}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt and ns.after_user and not ns.after_tool -%}
    {{ '<｜Assistant｜>' + ('<think>' if thinking else '</think>') }}
{%- endif -%}";

fn template(source: &str) -> ChatTemplate {
    ChatTemplate::from_source(source, &TOKENS).unwrap()
}

fn render(source: &str, messages: &[ChatMessage], options: &ChatOptions) -> String {
    template(source).render(messages, options).unwrap()
}

fn conversation() -> Vec<ChatMessage> {
    vec![
        ChatMessage::system("Be brief."),
        ChatMessage::user("1+1?"),
        ChatMessage::assistant("<think>\nadd them </think>2"),
        ChatMessage::user("2+2?"),
    ]
}

#[test]
fn r1_history_drops_the_reasoning() {
    assert_eq!(
        render(R1, &conversation(), &ChatOptions::default()),
        "<bos>Be brief.<｜User｜>1+1?<｜Assistant｜>2<eos><｜User｜>2+2?<｜Assistant｜><think>\n"
    );
}

#[test]
fn v3_1_thinking_chooses_what_the_generation_prompt_ends_with() {
    let history = "<bos>Be brief.<｜User｜>1+1?<｜Assistant｜></think>2<eos><｜User｜>2+2?";
    for (thinking, end) in [
        (None, "<｜Assistant｜></think>"),
        (Some(false), "<｜Assistant｜></think>"),
        (Some(true), "<｜Assistant｜><think>"),
    ] {
        let options = ChatOptions { thinking, ..ChatOptions::default() };
        assert_eq!(render(V3_1, &conversation(), &options), format!("{history}{end}"));
    }
    let mut options = ChatOptions { add_generation_prompt: false, ..ChatOptions::default() };
    assert_eq!(render(V3_1, &conversation(), &options), history);
    options.add_generation_prompt = true;
    options.extra.insert("thinking".into(), json!(true));
    assert_eq!(render(V3_1, &conversation(), &options), format!("{history}<｜Assistant｜><think>"));
}

#[test]
fn v3_1_tool_calls_have_no_fence_and_results_no_marker() {
    let messages: Vec<ChatMessage> = serde_json::from_value(json!([
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": null, "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "get", "arguments": "{\"at\": \"Bern\"}"}},
            {"id": "b", "type": "function", "function": {"name": "put", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "a", "content": "rain"},
    ]))
    .unwrap();
    assert_eq!(
        render(V3_1, &messages, &ChatOptions::default()),
        "<bos><｜User｜>weather?<｜Assistant｜></think><｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get<｜tool▁sep｜>\
         {\"at\": \"Bern\"}<｜tool▁call▁end｜><｜tool▁call▁begin｜>put<｜tool▁sep｜>{}<｜tool▁call▁end｜>\
         <｜tool▁calls▁end｜><eos><｜tool▁output▁begin｜>rain<｜tool▁output▁end｜>"
    );
}

#[test]
fn messages_are_read_as_openai_clients_write_them() {
    let read = |value| serde_json::from_value::<ChatMessage>(value);
    let parts = json!({"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]});
    assert_eq!(read(parts).unwrap(), ChatMessage::user("a\nb"));
    assert_eq!(read(json!({"role": "developer", "content": "x", "extra": 1})).unwrap(), ChatMessage::system("x"));
    let image = read(json!({"role": "user", "content": [{"type": "image_url", "image_url": {}}]})).unwrap_err();
    assert!(image.to_string().contains("image_url"), "{image}");
    assert!(read(json!({"role": "owl", "content": "x"})).unwrap_err().to_string().contains("owl"));
    assert!(read(json!({"role": "user", "content": 7})).unwrap_err().to_string().contains("content"));
    // Absent content is none for the template, and an empty list of calls is no call.
    let silent = read(json!({"role": "assistant", "tool_calls": []})).unwrap();
    let source = "{{ messages[0].content is none }} {{ messages[0].tool_calls is defined }}";
    assert_eq!(render(source, std::slice::from_ref(&silent), &ChatOptions::default()), "True False");
    assert_eq!(serde_json::to_value(silent).unwrap(), json!({"role": "assistant", "content": null}));
}

#[test]
fn tools_keep_the_order_of_their_keys() {
    let tools = json!([{"type": "function", "function": {"name": "z", "a": {"é": 1, "b": [true]}}}]);
    let options = ChatOptions { tools: Some(tools), ..ChatOptions::default() };
    assert_eq!(
        render("{% for tool in tools %}{{ tool | tojson }}{% endfor %}", &[], &options),
        r#"{"type": "function", "function": {"name": "z", "a": {"é": 1, "b": [true]}}}"#
    );
    assert_eq!(render("{{ tools is none }}", &[], &ChatOptions::default()), "True");
}

#[test]
fn text_of_messages_is_never_markup() {
    let sly = "{{ 1 + 1 }} {% raw %} <b>&amp;";
    assert_eq!(render("{{ messages[0].content }}", &[ChatMessage::user(sly)], &ChatOptions::default()), sly);
}

#[test]
fn refusals_and_failures_say_what_and_where() {
    let refusing = "{% if messages %}\n{{ raise_exception('no ' + messages[0].role) }}{% endif %}";
    let error = template(refusing).render(&[ChatMessage::user("x")], &ChatOptions::default()).unwrap_err();
    assert!(matches!(&error, TokenizerError::TemplateRefusal { message } if message == "no user"), "{error}");

    let failing = template("\n\n{{ messages[0].content.upper().nothing.more }}");
    let error = failing.render(&[ChatMessage::user("x")], &ChatOptions::default()).unwrap_err();
    assert!(matches!(&error, TokenizerError::TemplateRender { line: 3, .. }), "{error}");

    let error = ChatTemplate::from_source("a\n{% for x in %}", &TOKENS).unwrap_err();
    assert!(matches!(&error, TokenizerError::TemplateSyntax { line: 2, .. }), "{error}");
}

fn dir_with(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

#[test]
fn templates_are_found_where_checkpoints_keep_them() {
    let load = |files: &[(&str, &str)]| ChatTemplate::from_dir(dir_with(files).path());
    let render = |files: &[(&str, &str)], tools: bool| {
        let options = ChatOptions { tools: tools.then(|| json!([])), ..ChatOptions::default() };
        load(files).unwrap().unwrap().render(&[], &options).unwrap()
    };
    let string =
        r#"{"bos_token": {"content": "<s>"}, "eos_token": "</s>", "chat_template": "{{ bos_token + eos_token }}"}"#;
    assert_eq!(render(&[("tokenizer_config.json", string)], false), "<s></s>");
    let jinja = ("chat_template.jinja", "file {{ bos_token }}\n");
    assert_eq!(render(&[("tokenizer_config.json", string), jinja], false), "file <s>");
    let list = r#"{"chat_template": [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]}"#;
    assert_eq!(render(&[("tokenizer_config.json", list)], false), "D");
    assert_eq!(render(&[("tokenizer_config.json", list)], true), "T");
    assert!(load(&[("tokenizer_config.json", "{}")]).unwrap().is_none());
    let error = load(&[("tokenizer_config.json", r#"{"chat_template": [{"name": "x"}]}"#)]).unwrap_err();
    assert!(matches!(error, TokenizerError::Value { key: "chat_template", .. }), "{error}");
    let error = load(&[("chat_template.jinja", "{% if %}")]).unwrap_err();
    assert!(error.to_string().contains("chat_template.jinja:1"), "{error}");
}

#[test]
fn the_error_for_a_checkpoint_without_template_says_what_to_do() {
    assert!(TokenizerError::NoChatTemplate.to_string().contains("raw prompt"));
}
