//! The host's memory bandwidth, measured: what decoding is held against.

use std::fs;
use std::hint::black_box;
use std::thread;
use std::time::Instant;

/// Passes over the buffer; the fastest counts, since everything else only slows a pass down.
const NUM_PASSES: usize = 5;
const MIN_BUFFER_BYTES: usize = 1 << 30;

/// Bytes per second that all threads together read from memory.
pub(crate) fn measure() -> f64 {
    let num_threads = thread::available_parallelism().map_or(1, usize::from);
    let buffer_bytes = MIN_BUFFER_BYTES.max(4 * last_level_cache_bytes());
    let words_per_thread = buffer_bytes / size_of::<u64>() / num_threads;
    // Each thread fills its own part, so that the pages lie in memory near it; ones, because pages of zeros are shared.
    let parts: Vec<Vec<u64>> = thread::scope(|scope| {
        let fills: Vec<_> = (0..num_threads).map(|_| scope.spawn(move || vec![1_u64; words_per_thread])).collect();
        fills.into_iter().filter_map(|fill| fill.join().ok()).collect()
    });
    let bytes_read: usize = parts.iter().map(|part| size_of_val(part.as_slice())).sum();
    let pass = |_| {
        let start = Instant::now();
        thread::scope(|scope| {
            for part in &parts {
                scope.spawn(|| black_box(sum(part)));
            }
        });
        bytes_read as f64 / start.elapsed().as_secs_f64()
    };
    (0..NUM_PASSES).map(pass).fold(0.0, f64::max)
}

/// Several sums at once, so that the additions do not wait for one another.
fn sum(words: &[u64]) -> u64 {
    let mut sums = [0_u64; 16];
    for chunk in words.chunks_exact(sums.len()) {
        for (sum, word) in sums.iter_mut().zip(chunk) {
            *sum = sum.wrapping_add(*word);
        }
    }
    sums.into_iter().fold(0, u64::wrapping_add)
}

/// The largest cache that Linux reports; 0 elsewhere.
fn last_level_cache_bytes() -> usize {
    let sizes = (0..8)
        .map_while(|index| fs::read_to_string(format!("/sys/devices/system/cpu/cpu0/cache/index{index}/size")).ok());
    sizes.filter_map(|size| parse_size(size.trim())).max().unwrap_or(0)
}

/// `32768K`, as Linux writes it.
fn parse_size(text: &str) -> Option<usize> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let unit = match unit {
        "K" => 1 << 10,
        "M" => 1 << 20,
        _ => return text.parse().ok(),
    };
    digits.parse::<usize>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_caches() {
        assert_eq!(
            [parse_size("32K"), parse_size("4M"), parse_size("512")],
            [Some(32 << 10), Some(4 << 20), Some(512)]
        );
        assert_eq!([parse_size(""), parse_size("K"), parse_size("many")], [None; 3]);
    }

    #[test]
    fn every_word_is_read() {
        assert_eq!(sum(&[3; 64]), 3 * 64);
    }
}
