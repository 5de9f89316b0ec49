//! Rotary position embedding: frequencies, the YaRN correction, cos/sin tables and the softmax scale (spec 3.3, 3.4).
//!
//! Everything is computed in f64 and rounded once to f32: near position 163 839 neighbouring f32 angles are 1/64 apart.

mod device_tables;

use rayon::prelude::*;

use crate::config::{AttentionConfig, RopeConfig, YarnConfig};

pub use device_tables::DeviceRopeTables;

/// Cosine and sine of every rotation angle, for the positions `0..max_len`.
///
/// Pair `i` of a token at position `p` is turned by the angle `p * f_i`; both tables hold the angle's cosine and sine
/// times the YaRN multiplier (1 in every published checkpoint of the family). Pairs are `(x[2i], x[2i + 1])`, the
/// checkpoint's interleaved order.
#[derive(Debug, Clone)]
pub struct RopeTable {
    pairs: usize,
    max_len: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl RopeTable {
    /// Tables for heads with `rope_dim` (R, even and not 0) rotated values and the positions `0..max_len`.
    pub fn new(rope: &RopeConfig, rope_dim: usize, max_len: usize) -> Self {
        let frequencies = inv_freq(rope, rope_dim);
        let multiplier = rope.yarn.as_ref().map_or(1.0, cos_sin_multiplier);
        let pairs = frequencies.len();
        let mut cos = vec![0.0; max_len * pairs];
        let mut sin = vec![0.0; max_len * pairs];
        cos.par_chunks_exact_mut(pairs).zip(sin.par_chunks_exact_mut(pairs)).enumerate().with_min_len(256).for_each(
            |(position, (cos, sin))| {
                for ((cos, sin), frequency) in cos.iter_mut().zip(sin).zip(&frequencies) {
                    let (s, c) = (position as f64 * frequency).sin_cos();
                    *cos = (c * multiplier) as f32;
                    *sin = (s * multiplier) as f32;
                }
            },
        );
        Self { pairs, max_len, cos, sin }
    }

    /// Number of positions the tables cover.
    pub fn max_len(&self) -> usize {
        self.max_len
    }

    /// The R/2 cosines of `position`.
    ///
    /// # Panics
    /// If `position >= max_len`: the engine checks lengths when it accepts a request.
    pub fn cos(&self, position: usize) -> &[f32] {
        &self.cos[position * self.pairs..][..self.pairs]
    }

    /// The R/2 sines of `position`.
    ///
    /// # Panics
    /// As [`RopeTable::cos`].
    pub fn sin(&self, position: usize) -> &[f32] {
        &self.sin[position * self.pairs..][..self.pairs]
    }

    /// Both tables whole, `(cos, sin)`, each row-major `[max_len, R/2]`, for upload to a device.
    pub fn as_slices(&self) -> (&[f32], &[f32]) {
        (&self.cos, &self.sin)
    }
}

/// The R/2 rotation frequencies in radians per position: `theta^(-2i/R)`, blended by YaRN with the same divided by
/// `factor` (spec 3.4). YaRN is static: it applies at every position.
pub fn inv_freq(rope: &RopeConfig, rope_dim: usize) -> Vec<f64> {
    let base = (0..rope_dim / 2).map(|i| rope.theta.powf(-((2 * i) as f64) / rope_dim as f64));
    let Some(yarn) = &rope.yarn else { return base.collect() };
    let (low, high) = yarn_corridor(rope.theta, yarn, rope_dim);
    base.enumerate()
        .map(|(i, f)| {
            let ramp = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
            f / yarn.factor * ramp + f * (1.0 - ramp)
        })
        .collect()
}

/// The factor on attention scores before the softmax: `(P + R)^(-1/2) * mu^2` (spec 3.4), where mu comes from
/// `mscale_all_dim` and is 1 without YaRN or when that key is absent or zero.
pub fn softmax_scale(attention: &AttentionConfig, rope: &RopeConfig) -> f32 {
    softmax_scale_f64(attention, rope) as f32
}

fn softmax_scale_f64(attention: &AttentionConfig, rope: &RopeConfig) -> f64 {
    let yarn = rope.yarn.as_ref();
    let mu = yarn.map_or(1.0, |y| yarn_mscale(y.factor, y.mscale_all_dim.unwrap_or(0.0)));
    (attention.qk_head_dim() as f64).powf(-0.5) * mu * mu
}

/// First and last pair between which YaRN blends: at or below `low` a frequency stays, at or above `high` it is divided.
fn yarn_corridor(theta: f64, yarn: &YarnConfig, rope_dim: usize) -> (f64, f64) {
    let d = rope_dim as f64;
    // The (fractional) pair that turns `rotations` times within the original window.
    let pair_at = |rotations: f64| {
        let window = yarn.original_max_position_embeddings as f64;
        d * (window / (2.0 * std::f64::consts::PI * rotations)).ln() / (2.0 * theta.ln())
    };
    let low = pair_at(yarn.beta_fast).floor().max(0.0);
    let high = pair_at(yarn.beta_slow).ceil().min(d - 1.0);
    // Equal ends make a step; the constant is the reference implementation's guard against 0/0.
    if low == high { (low, high + 0.001) } else { (low, high) }
}

/// `m(s, ms)` of spec 3.4.
fn yarn_mscale(factor: f64, mscale: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * mscale * factor.ln() + 1.0 }
}

/// The multiplier on cos and sin. `attention_factor` speaks only when neither mscale does; a single missing mscale takes
/// the default of the modelling code that ships with the checkpoints (1 for `mscale`, 0 for `mscale_all_dim`).
fn cos_sin_multiplier(yarn: &YarnConfig) -> f64 {
    match (yarn.mscale, yarn.mscale_all_dim, yarn.attention_factor) {
        (None, None, Some(attention_factor)) => attention_factor,
        (mscale, all_dim, _) => {
            yarn_mscale(yarn.factor, mscale.unwrap_or(1.0)) / yarn_mscale(yarn.factor, all_dim.unwrap_or(0.0))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::excessive_precision)]

    use super::*;

    fn attention(qk_nope_head_dim: usize) -> AttentionConfig {
        AttentionConfig {
            num_attention_heads: 128,
            q_lora_rank: Some(1536),
            kv_lora_rank: 512,
            qk_nope_head_dim,
            qk_rope_head_dim: 64,
            v_head_dim: 128,
        }
    }

    fn yarn(factor: f64, mscale: f64, beta_fast: f64) -> YarnConfig {
        YarnConfig {
            factor,
            original_max_position_embeddings: 4096,
            beta_fast,
            beta_slow: 1.0,
            mscale: Some(mscale),
            mscale_all_dim: Some(mscale),
            attention_factor: None,
        }
    }

    fn v3() -> RopeConfig {
        RopeConfig { theta: 1e4, yarn: Some(yarn(40.0, 1.0, 32.0)) }
    }

    fn kimi_k2() -> RopeConfig {
        RopeConfig { theta: 5e4, yarn: Some(yarn(32.0, 1.0, 1.0)) }
    }

    const PLAIN: RopeConfig = RopeConfig { theta: 1e4, yarn: None };

    /// The table of spec 3.4, to every digit it gives.
    #[test]
    fn softmax_scale_and_mu_of_every_published_model() {
        let kimi = |factor| RopeConfig { theta: 5e4, yarn: Some(yarn(factor, 1.0, 1.0)) };
        let v2 = RopeConfig { theta: 1e4, yarn: Some(yarn(40.0, 0.707, 32.0)) };
        for (name, qk_nope, rope, mu, mu_squared, sigma) in [
            ("V3", 128, v3(), "1.3688879", "1.8738542", "0.13523378"),
            ("V2", 128, v2, "1.2608038", "1.5896262", "0.11472139"),
            ("Kimi-K2 x32", 128, kimi(32.0), "1.3465736", "1.8132604", "0.13086080"),
            ("Kimi-K2 x64", 128, kimi(64.0), "1.4158883", "2.0047397", "0.14467963"),
            ("no YaRN", 128, PLAIN, "1.0000000", "1.0000000", "0.07216878"),
            ("GLM-4.7-Flash", 192, PLAIN, "1.0000000", "1.0000000", "0.06250000"),
        ] {
            let scale = softmax_scale_f64(&attention(qk_nope), &rope);
            let found_mu = rope.yarn.map_or(1.0, |y| yarn_mscale(y.factor, y.mscale_all_dim.unwrap()));
            assert_eq!(format!("{found_mu:.7}"), mu, "{name}");
            assert_eq!(format!("{:.7}", found_mu * found_mu), mu_squared, "{name}");
            assert_eq!(format!("{scale:.8}"), sigma, "{name}");
            assert_eq!(softmax_scale(&attention(qk_nope), &rope), scale as f32, "{name}");
        }
    }

    #[test]
    fn softmax_scale_ignores_an_absent_or_zero_mscale_all_dim() {
        for mscale_all_dim in [None, Some(0.0)] {
            let rope = RopeConfig { theta: 1e4, yarn: Some(YarnConfig { mscale_all_dim, ..yarn(40.0, 1.0, 32.0) }) };
            assert_eq!(softmax_scale(&attention(128), &rope), 192f64.powf(-0.5) as f32);
        }
    }

    #[test]
    fn v3_blends_between_pairs_10_and_23() {
        assert_eq!(yarn_corridor(1e4, &v3().yarn.unwrap(), 64), (10.0, 23.0));
        let (with, without) = (inv_freq(&v3(), 64), inv_freq(&PLAIN, 64));
        assert_eq!(with[..=10], without[..=10]);
        for i in 11..23 {
            assert!(with[i] < without[i] && with[i] > without[i] / 40.0, "pair {i}");
        }
        for i in 23..32 {
            assert_eq!(with[i], without[i] / 40.0, "pair {i}");
        }
    }

    #[test]
    fn kimi_k2_steps_between_pairs_19_and_20() {
        // With equal betas floor and ceil still give a corridor of one pair: a step without the 0.001 guard.
        assert_eq!(yarn_corridor(5e4, &kimi_k2().yarn.unwrap(), 64), (19.0, 20.0));
        let (with, without) = (inv_freq(&kimi_k2(), 64), inv_freq(&RopeConfig { theta: 5e4, yarn: None }, 64));
        assert_eq!(with[..=19], without[..=19]);
        for i in 20..32 {
            assert_eq!(with[i], without[i] / 32.0, "pair {i}");
        }
    }

    #[test]
    fn a_corridor_of_no_width_is_a_step_and_not_a_nan() {
        // A window so short that both ends clamp to pair 0.
        let yarn = YarnConfig { original_max_position_embeddings: 1, ..yarn(4.0, 1.0, 32.0) };
        let low_high = yarn_corridor(1e4, &yarn, 64);
        assert!(low_high.0 == 0.0 && low_high.1 <= 0.001, "{low_high:?}");
        assert!(inv_freq(&RopeConfig { theta: 1e4, yarn: Some(yarn) }, 64).iter().all(|f| f.is_finite()));
    }

    #[test]
    fn cos_sin_multiplier_follows_the_keys_given() {
        let given = |mscale, mscale_all_dim, attention_factor| {
            cos_sin_multiplier(&YarnConfig { mscale, mscale_all_dim, attention_factor, ..yarn(40.0, 1.0, 32.0) })
        };
        let m1 = 1.368_887_945_411_393_6;
        assert_eq!(given(Some(0.707), Some(0.707), None), 1.0);
        assert_eq!(given(Some(1.0), Some(1.0), Some(9.0)), 1.0);
        assert_eq!(given(None, None, Some(1.25)), 1.25);
        assert!((given(None, None, None) - m1).abs() < 1e-12);
        assert!((given(Some(1.0), Some(0.707), None) - 1.368_887_9 / 1.260_803_8).abs() < 1e-7);

        let stretched = YarnConfig { mscale: None, mscale_all_dim: None, ..yarn(40.0, 1.0, 32.0) };
        let table = RopeTable::new(&RopeConfig { theta: 1e4, yarn: Some(stretched) }, 64, 1);
        assert!(table.cos(0).iter().all(|c| *c == m1 as f32));
    }

    /// Cosine and sine computed with 50 decimal digits from the formulas of spec 3.4.
    const ANGLES: [(&str, usize, usize, f64, f64); 21] = [
        ("V3", 1, 0, 0.54030230586813972, 0.84147098480789651),
        ("V3", 1, 11, 0.99923932629687325, 0.038997035551062907),
        ("V3", 4096, 10, -0.54135953553137965, -0.84079120671498991),
        ("V3", 4097, 16, -0.85649735909996661, -0.51615140594091464),
        ("V3", 100000, 22, 0.48296223894322455, -0.87564117979623804),
        ("V3", 163839, 0, 0.22868464882794128, -0.97350055541352475),
        ("V3", 163839, 5, -0.96288294112605405, -0.26991932440720123),
        ("V3", 163839, 11, 0.65517322859294224, 0.7554786830447966),
        ("V3", 163839, 20, -0.75127560895340058, -0.65998860550141101),
        ("V3", 163839, 23, 0.68140565892348181, -0.73190595569858261),
        ("V3", 163839, 31, 0.85450091412481342, 0.51944988955611325),
        ("Kimi-K2", 1, 11, 0.99970595971036769, 0.024248590053293481),
        ("Kimi-K2", 4097, 16, 0.86421167630588236, -0.50312839170193606),
        ("Kimi-K2", 100000, 22, -0.26388286634272186, 0.96455473294715069),
        ("Kimi-K2", 163839, 5, -0.57708897282064407, -0.81668128266099862),
        ("Kimi-K2", 163839, 20, 0.93520201445557114, -0.35411465962063997),
        ("Kimi-K2", 163839, 31, 0.98970790313535214, 0.14310229373222648),
        ("plain", 4097, 16, -0.99165297446489374, -0.12893555845820348),
        ("plain", 163839, 11, -0.78313979889682474, -0.62184568454226721),
        ("plain", 163839, 23, 0.1416504714190017, -0.9899167358655851),
        ("plain", 163839, 31, -0.98981188795840235, 0.14238127143772509),
    ];

    #[test]
    fn tables_hold_the_exact_angles_up_to_the_longest_window() {
        let table = |rope| RopeTable::new(&rope, 64, 163_840);
        let tables = [("V3", table(v3())), ("Kimi-K2", table(kimi_k2())), ("plain", table(PLAIN))];
        for (model, position, pair, cos, sin) in ANGLES {
            let table = &tables.iter().find(|(name, _)| *name == model).unwrap().1;
            // One rounding to f32 (6e-8 at 1) is all the error allowed.
            let (c, s) = (table.cos(position)[pair], table.sin(position)[pair]);
            assert!((f64::from(c) - cos).abs() < 6e-8, "{model} cos({position}, {pair}) = {c}, expected {cos}");
            assert!((f64::from(s) - sin).abs() < 6e-8, "{model} sin({position}, {pair}) = {s}, expected {sin}");
        }
    }

    #[test]
    fn rows_and_whole_tables_agree() {
        let table = RopeTable::new(&v3(), 64, 300);
        assert_eq!(table.max_len(), 300);
        let (cos, sin) = table.as_slices();
        assert_eq!((cos.len(), sin.len()), (300 * 32, 300 * 32));
        assert_eq!(table.cos(299), &cos[299 * 32..]);
        assert_eq!(table.sin(7), &sin[7 * 32..8 * 32]);
        assert!(table.cos(0).iter().all(|c| *c == 1.0) && table.sin(0).iter().all(|s| *s == 0.0));
    }
}
