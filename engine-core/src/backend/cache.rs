//! The paged pool of latent KV, as a backend is asked for it.

use crate::quant::FP8_BLOCK;

/// The paged pool of latent KV.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheSpec {
    /// Layers, MTP modules included.
    pub num_layers: usize,
    /// Blocks in the pool; every layer has all of them.
    pub num_blocks: usize,
    /// Slots per block.
    pub block_size: usize,
    /// Lkv.
    pub kv_lora_rank: usize,
    /// R.
    pub qk_rope_head_dim: usize,
    /// How values are stored.
    pub format: CacheFormat,
}

impl CacheSpec {
    /// Slots per layer.
    pub fn num_slots(&self) -> usize {
        self.num_blocks * self.block_size
    }

    /// Values per slot.
    pub fn latent_width(&self) -> usize {
        self.kv_lora_rank + self.qk_rope_head_dim
    }
}

/// How the latent cache stores its values. By the names of the option `kv_cache_dtype`: `auto`, `fp8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, serde::Serialize)]
pub enum CacheFormat {
    /// The backend's own element ([`Capabilities::cache_element_bytes`](super::Capabilities::cache_element_bytes)): nothing
    /// is lost but what activations are rounded to anyway.
    #[default]
    #[serde(rename = "auto")]
    Native,
    /// `kv_c` in e4m3, in groups of 128 with an f32 scale each by the rule of activation quantisation
    /// ([`act::fp8_scale`](crate::quant::act::fp8_scale), no power of two); a short last group is a group of its own. `k_pe`
    /// in bf16.
    #[serde(rename = "fp8")]
    Fp8,
}

impl CacheFormat {
    /// Every format.
    pub const ALL: [CacheFormat; 2] = [CacheFormat::Native, CacheFormat::Fp8];

    /// Bytes that one token of one layer takes: `kv_lora_rank` values of `kv_c` and `qk_rope_head_dim` of `k_pe`.
    /// `element_bytes` is the size of the backend's own element. DeepSeek's sizes (512, 64) take 1152 bytes in bf16 and 656 in
    /// FP8.
    pub fn bytes_per_slot(self, kv_lora_rank: usize, qk_rope_head_dim: usize, element_bytes: usize) -> usize {
        match self {
            CacheFormat::Native => element_bytes * (kv_lora_rank + qk_rope_head_dim),
            CacheFormat::Fp8 => {
                let scales_bytes = size_of::<f32>() * kv_lora_rank.div_ceil(FP8_BLOCK);
                kv_lora_rank + scales_bytes + size_of::<half::bf16>() * qk_rope_head_dim
            }
        }
    }
}

impl std::fmt::Display for CacheFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            CacheFormat::Native => "auto",
            CacheFormat::Fp8 => "fp8",
        })
    }
}

/// A name that is no [`CacheFormat`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown format {found:?} of the latent cache: kv_cache_dtype is auto or fp8")]
pub struct UnknownCacheFormat {
    /// What was given.
    pub found: String,
}

impl std::str::FromStr for CacheFormat {
    type Err = UnknownCacheFormat;

    fn from_str(text: &str) -> Result<Self, UnknownCacheFormat> {
        let name = text.trim().to_ascii_lowercase();
        let named = CacheFormat::ALL.into_iter().find(|format| format.to_string() == name);
        named.ok_or_else(|| UnknownCacheFormat { found: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_of_deepseek_take_1152_and_656_bytes() {
        assert_eq!(CacheFormat::ALL.map(|format| format.bytes_per_slot(512, 64, 2)), [1152, 656]);
        // A short last group has a scale too.
        assert_eq!(CacheFormat::Fp8.bytes_per_slot(140, 12, 4), 140 + 2 * 4 + 12 * 2);
    }

    #[test]
    fn names_are_read_back() {
        for format in CacheFormat::ALL {
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        let error = "int8".parse::<CacheFormat>().map_err(|error| error.to_string());
        assert_eq!(error, Err("unknown format \"int8\" of the latent cache: kv_cache_dtype is auto or fp8".into()));
    }
}
