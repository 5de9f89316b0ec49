//! The kernels of `testdata/two.cu` in `tools/cubin` and `tools/code-object`, written once more: images for the tests of
//! emulators.

use emulator_common::memory::copy;

use crate::module::Launch;

/// Sizes in bytes of a kernel's parameters.
pub fn parameters(name: &str) -> Option<Vec<u32>> {
    match name {
        "scale" => Some(vec![8, 8, 4, 4]),
        "zero" => Some(vec![8]),
        _ => None,
    }
}

/// Runs a kernel to its end.
///
/// # Errors
/// For launches that do not fit.
pub fn run(launch: &Launch) -> Result<(), String> {
    match launch.kernel.as_str() {
        "scale" => scale(launch),
        "zero" => zero(launch),
        name => Err(format!("the tests have no kernel {name}")),
    }
}

/// `y[i] = x[i ^ 1] * factor`, 256 values per block.
fn scale(launch: &Launch) -> Result<(), String> {
    let [x, y, num, factor] = launch.arguments.as_slice() else { return Err("four arguments".into()) };
    let num = word(num)?;
    let factor = f32::from_bits(word(factor)?);
    for i in 0..num.min(launch.grid[0] * launch.block[0]) {
        let value = f32::from_bits(u32::from_le_bytes(load(address(x)? + 4 * u64::from(i ^ 1))));
        store(address(y)? + 4 * u64::from(i), &(value * factor).to_le_bytes());
    }
    Ok(())
}

fn zero(launch: &Launch) -> Result<(), String> {
    for i in 0..u64::from(launch.block[0]) {
        store(address(&launch.arguments[0])? + 2 * i, &[0, 0]);
    }
    Ok(())
}

fn word(bytes: &[u8]) -> Result<u32, String> {
    bytes.try_into().map(u32::from_le_bytes).map_err(|_| "four bytes".into())
}

fn address(bytes: &[u8]) -> Result<u64, String> {
    bytes.try_into().map(u64::from_le_bytes).map_err(|_| "eight bytes".into())
}

fn load<const N: usize>(from: u64) -> [u8; N] {
    let mut bytes = [0; N];
    copy(from, bytes.as_mut_ptr() as u64, N);
    bytes
}

fn store(to: u64, bytes: &[u8]) {
    copy(bytes.as_ptr() as u64, to, bytes.len());
}
