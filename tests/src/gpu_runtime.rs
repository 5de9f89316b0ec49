//! A GPU's memory, launches and recordings, below the ops: what [`GpuRuntime`] promises to the backend above it.

use engine_core::backend::{PrepareError, StepError};
use gpu_common::{Arg, GpuRuntime, LaunchShape};
use half::bf16;

/// Elements of the tensors that are added.
const LEN: usize = 300;

/// Runs every check.
///
/// # Errors
/// The first broken promise.
pub fn check<R: GpuRuntime>(runtime: &R) -> Result<Vec<&'static str>, String> {
    copies(runtime)?;
    recordings(runtime)?;
    refusals(runtime)?;
    exhaustion(runtime)?;
    Ok(vec!["copies", "recordings", "refusals", "exhaustion"])
}

fn failed(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn expect(ok: bool, what: &str) -> Result<(), String> {
    if ok { Ok(()) } else { Err(what.to_owned()) }
}

/// More bytes than any staging memory, from odd offsets; the source may be reused at once.
fn copies<R: GpuRuntime>(runtime: &R) -> Result<(), String> {
    let mut stream = runtime.stream().map_err(failed)?;
    let buffer = runtime.alloc(5 << 20, "copies").map_err(failed)?;
    expect(runtime.address(&buffer).is_multiple_of(256), "memory is aligned to 256 bytes")?;
    let bytes: Vec<u8> = (0..(3 << 20) + 17).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut source = bytes.clone();
    runtime.upload(&mut stream, &buffer, 1001, &source).map_err(failed)?;
    source.fill(0);
    let mut back = vec![0; bytes.len() - 5];
    runtime.download(&mut stream, &buffer, 1006, &mut back).map_err(failed)?;
    expect(back == bytes[5..], "what was uploaded comes back")?;
    runtime.download(&mut stream, &buffer, 0, &mut []).map_err(failed)?;
    runtime.upload(&mut stream, &buffer, 5 << 20, &[]).map_err(failed)
}

/// Recorded launches run when they are replayed, as often as they are.
fn recordings<R: GpuRuntime>(runtime: &R) -> Result<(), String> {
    let mut stream = runtime.stream().map_err(failed)?;
    let add = runtime.kernel("elementwise", "add").map_err(failed)?;
    let [x, sum] = [1.5, 2.0].map(|value| filled(runtime, &mut stream, value));
    let (x, sum) = (x?, sum?);
    let args = [Arg::Ptr(runtime.address(&x)), Arg::Ptr(runtime.address(&sum)), Arg::U32(LEN as u32)];
    let shape = LaunchShape::linear(2, 128);

    runtime.launch(&mut stream, &add, shape, &args).map_err(failed)?;
    expect_all(runtime, &mut stream, &sum, 3.5)?;
    expect(runtime.end_capture(&mut stream).map_err(failed)?.is_none(), "nothing is being recorded")?;
    if !runtime.captures() {
        return Ok(());
    }
    runtime.begin_capture(&mut stream).map_err(failed)?;
    for _ in 0..2 {
        runtime.launch(&mut stream, &add, shape, &args).map_err(failed)?;
    }
    let graph = runtime.end_capture(&mut stream).map_err(failed)?.ok_or("a recording ends with a graph")?;
    expect_all(runtime, &mut stream, &sum, 3.5)?;
    for expected in [6.5, 9.5] {
        runtime.replay(&mut stream, &graph).map_err(failed)?;
        expect_all(runtime, &mut stream, &sum, expected)?;
    }
    runtime.synchronize(&mut stream).map_err(failed)
}

/// A kernel that is not there is refused with its name and the architecture.
fn refusals<R: GpuRuntime>(runtime: &R) -> Result<(), String> {
    for (family, name) in [("elementwise", "no_such_kernel"), ("no_such_family", "add")] {
        match runtime.kernel(family, name) {
            Err(PrepareError::Unsupported(unsupported)) => {
                let text = unsupported.to_string();
                let named = text.contains(name) && text.contains(family);
                expect(named && text.contains(&runtime.info().architecture), &text)?;
            }
            Err(error) => return Err(format!("{family}, {name}: {error}")),
            Ok(_) => return Err(format!("{family} has no kernel {name}")),
        }
    }
    Ok(())
}

/// Too much is refused with what and how much; the device goes on.
fn exhaustion<R: GpuRuntime>(runtime: &R) -> Result<(), String> {
    let too_much = runtime.info().total_bytes + 1;
    match runtime.alloc(too_much as usize, "far too much") {
        Err(error @ StepError::OutOfMemory { .. }) => {
            let text = error.to_string();
            expect(text.contains("far too much") && text.contains(&too_much.to_string()), &text)?;
            expect(!error.is_fatal(), "running out of memory is not fatal")?;
        }
        Err(error) => return Err(format!("not out of memory: {error}")),
        Ok(_) => return Err(format!("{too_much} bytes were given")),
    }
    copies(runtime)
}

fn filled<R: GpuRuntime>(runtime: &R, stream: &mut R::Stream, value: f32) -> Result<R::Buffer, String> {
    let buffer = runtime.alloc(2 * LEN, "a tensor").map_err(failed)?;
    let bytes: Vec<u8> = (0..LEN).flat_map(|_| bf16::from_f32(value).to_le_bytes()).collect();
    runtime.upload(stream, &buffer, 0, &bytes).map_err(failed)?;
    Ok(buffer)
}

fn expect_all<R: GpuRuntime>(
    runtime: &R,
    stream: &mut R::Stream,
    buffer: &R::Buffer,
    value: f32,
) -> Result<(), String> {
    let mut bytes = [0; 2 * LEN];
    runtime.download(stream, buffer, 0, &mut bytes).map_err(failed)?;
    let found: Vec<f32> = bytes.chunks(2).map(|pair| bf16::from_le_bytes([pair[0], pair[1]]).to_f32()).collect();
    match found.iter().find(|found| **found != value) {
        Some(wrong) => Err(format!("{wrong} among sums of {value}")),
        None => Ok(()),
    }
}
