//! `bathysphere devices`

use bathysphere::{CacheFormat, Capabilities, Device, DeviceInfo, DeviceStatus};

use crate::args::DevicesArgs;
use crate::error::CliError;
use crate::output;

pub(crate) fn run(args: &DevicesArgs) -> Result<(), CliError> {
    let devices = Device::available();
    if args.json {
        return output::json(&devices);
    }
    let texts: Vec<String> = devices.iter().map(describe).collect();
    output::line(texts.join("\n\n"))
}

fn describe(info: &DeviceInfo) -> String {
    match &info.status {
        DeviceStatus::Available(capabilities) => available(&info.name, capabilities),
        DeviceStatus::Unavailable { reason } => format!("{}: not available: {reason}", info.name),
    }
}

fn available(name: &str, capabilities: &Capabilities) -> String {
    let formats: Vec<String> = capabilities.weight_formats.iter().map(ToString::to_string).collect();
    let mut lines = vec![
        format!("{name}: {}", capabilities.device),
        format!("  weights      {} ({})", formats.join(", "), capabilities.quantised_inputs),
        format!("  activations  {:?}", capabilities.activation),
    ];
    if capabilities.cache_formats != [CacheFormat::Native] {
        let formats: Vec<String> = capabilities.cache_formats.iter().map(ToString::to_string).collect();
        lines.push(format!("  cache        {}", formats.join(", ")));
    }
    if let Some(memory_bytes) = capabilities.memory_bytes {
        lines.push(format!("  memory       {}", output::bytes(memory_bytes)));
    }
    if let Some(max_cache_layer_bytes) = capabilities.max_cache_layer_bytes {
        lines.push(format!("  cache        at most {} a layer", output::bytes(max_cache_layer_bytes)));
    }
    for note in &capabilities.notes {
        lines.push(format!("  note         {note}"));
    }
    lines.join("\n")
}
