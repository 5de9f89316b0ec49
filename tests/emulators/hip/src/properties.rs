//! The structure in which HIP describes a device (`hipDeviceProp_tR0600`), as far as something reads it.

use crate::config::{Hip, MAX_THREADS};

/// Bytes of the structure in ROCm 7.
pub(crate) const PROPERTIES_BYTES: usize = 1472;
/// Offsets of fields in it, from HIP 7.1's headers.
const NAME: usize = 0;
const TOTAL_GLOBAL_MEM: usize = 288;
const SHARED_MEM_PER_BLOCK: usize = 296;
const WARP_SIZE: usize = 308;
const MAX_THREADS_PER_BLOCK: usize = 320;
const MULTI_PROCESSOR_COUNT: usize = 388;
const GCN_ARCH_NAME: usize = 1160;
/// How far everything lies from its place in a structure that no version has.
const MOVED_BY: usize = 8;

/// A device of so many bytes of memory, described.
pub(crate) fn describe(gpu: &Hip, memory_bytes: u64) -> [u8; PROPERTIES_BYTES] {
    let mut bytes = [0; PROPERTIES_BYTES];
    let moved_by = if gpu.has_moved_properties { MOVED_BY } else { 0 };
    let mut put = |at: usize, value: &[u8]| bytes[at + moved_by..][..value.len()].copy_from_slice(value);
    put(NAME, gpu.product.as_bytes());
    put(TOTAL_GLOBAL_MEM, &memory_bytes.to_le_bytes());
    put(SHARED_MEM_PER_BLOCK, &u64::from(gpu.shared_bytes).to_le_bytes());
    put(WARP_SIZE, &gpu.wave_size().to_le_bytes());
    put(MAX_THREADS_PER_BLOCK, &MAX_THREADS.to_le_bytes());
    put(MULTI_PROCESSOR_COUNT, &gpu.num_multiprocessors.to_le_bytes());
    put(GCN_ARCH_NAME, gpu.gcn_arch_name.as_bytes());
    bytes
}
