//! The expert part of `config.json`: sizes and router.

use std::ops::RangeInclusive;

use serde_json::Value;

use super::keys::{Keys, render};
use super::parse::FFN_WIDTH;
use super::{ConfigError, ModelType, MoeConfig, Router};

const EXPERTS: RangeInclusive<usize> = 1..=4096;
const SHARED_EXPERTS: RangeInclusive<usize> = 0..=64;
/// Experts of all layers together; bounds the number of tensors a checkpoint can be asked to hold.
const EXPERTS_OF_ALL_LAYERS: usize = 1 << 18;
const SCALING_FACTOR: RangeInclusive<f64> = 1e-6..=1e6;

/// What a loader of the field assumes about keys a configuration leaves out.
struct Defaults {
    first_k_dense_replace: usize,
    scoring_func: &'static str,
    topk_method: &'static str,
    groups: Option<(usize, usize)>,
    norm_topk_prob: bool,
    routed_scaling_factor: f64,
}

impl Defaults {
    fn of(model_type: ModelType) -> Self {
        let v3 = Self {
            first_k_dense_replace: 3,
            scoring_func: "sigmoid",
            topk_method: "noaux_tc",
            groups: Some((8, 4)),
            norm_topk_prob: true,
            routed_scaling_factor: 2.5,
        };
        match model_type {
            ModelType::DeepseekV3 | ModelType::KimiK2 => v3,
            ModelType::Glm4MoeLite => {
                Self { first_k_dense_replace: 1, groups: Some((1, 1)), routed_scaling_factor: 1.8, ..v3 }
            }
            ModelType::DeepseekV2 => Self {
                first_k_dense_replace: 0,
                scoring_func: "softmax",
                topk_method: "greedy",
                groups: None,
                norm_topk_prob: false,
                routed_scaling_factor: 1.0,
            },
        }
    }
}

/// `None` when the model has no experts (`n_routed_experts` absent or null).
pub(super) fn parse(
    keys: &Keys<'_>,
    model_type: ModelType,
    num_hidden_layers: usize,
    num_nextn_predict_layers: usize,
) -> Result<Option<MoeConfig>, ConfigError> {
    let Some(n_routed_experts) = keys.usize_opt("n_routed_experts", EXPERTS)? else { return Ok(None) };
    let most = EXPERTS_OF_ALL_LAYERS / (num_hidden_layers + num_nextn_predict_layers);
    if n_routed_experts > most {
        return Err(keys.reject("n_routed_experts", format!("at most {most} with {num_hidden_layers} layers")));
    }
    if !keys.is_written("n_shared_experts") {
        return Err(keys.missing("n_shared_experts", "a whole number, or null for none"));
    }
    let defaults = Defaults::of(model_type);
    let router = router(keys, &defaults, n_routed_experts)?;
    let num_experts_per_tok = num_experts_per_tok(keys, router, n_routed_experts)?;
    let (norm_topk_prob, routed_scaling_factor) = weighting(keys, &defaults, router)?;
    Ok(Some(MoeConfig {
        n_routed_experts,
        n_shared_experts: keys.usize_opt("n_shared_experts", SHARED_EXPERTS)?.unwrap_or(0),
        num_experts_per_tok,
        moe_intermediate_size: keys.usize("moe_intermediate_size", FFN_WIDTH)?,
        first_k_dense_replace: first_k_dense_replace(keys, &defaults, num_hidden_layers)?,
        moe_layer_freq: keys.usize_opt("moe_layer_freq", 1..=num_hidden_layers)?.unwrap_or(1),
        router,
        norm_topk_prob,
        routed_scaling_factor,
    }))
}

/// `first_k_dense_replace`, or the newer `mlp_layer_types` list when it says the same in other words.
fn first_k_dense_replace(keys: &Keys<'_>, defaults: &Defaults, num_layers: usize) -> Result<usize, ConfigError> {
    let number = keys.usize_opt("first_k_dense_replace", 0..=num_layers)?;
    let Some(types) = keys.get("mlp_layer_types") else {
        return Ok(number.unwrap_or(defaults.first_k_dense_replace.min(num_layers)));
    };
    let accepted = || format!("a list of {num_layers}: \"dense\" for the first layers, \"sparse\" for all others");
    let list = types.as_array().ok_or_else(|| keys.reject("mlp_layer_types", accepted()))?;
    let dense = list.iter().take_while(|t| **t == "dense").count();
    if list.len() != num_layers || list[dense..].iter().any(|t| *t != "sparse") {
        return Err(keys.reject("mlp_layer_types", accepted()));
    }
    match number {
        Some(number) if number != dense => Err(ConfigError::Conflict {
            file: keys.file().to_owned(),
            first: "first_k_dense_replace".into(),
            first_value: number.to_string(),
            second: "mlp_layer_types".into(),
            second_value: format!("{dense} dense layers first"),
        }),
        _ => Ok(dense),
    }
}

fn router(keys: &Keys<'_>, defaults: &Defaults, experts: usize) -> Result<Router, ConfigError> {
    let scoring = keys.str_opt("scoring_func")?.unwrap_or(defaults.scoring_func);
    let method = keys.str_opt("topk_method")?.unwrap_or(defaults.topk_method);
    match (scoring, method) {
        ("sigmoid", "noaux_tc") => {
            let (n_group, topk_group) = groups(keys, defaults, experts)?;
            if n_group > 1 && experts / n_group < 2 {
                return Err(keys.reject("n_group", "such that a group has two experts: its score is the sum of two"));
            }
            Ok(Router::SigmoidNoAuxTc { n_group, topk_group })
        }
        ("softmax", "greedy") => Ok(Router::SoftmaxGreedy),
        ("softmax", "group_limited_greedy") => {
            let (n_group, topk_group) = groups(keys, defaults, experts)?;
            Ok(Router::SoftmaxGroupLimited { n_group, topk_group })
        }
        ("sigmoid", _) => {
            Err(reject_effective(keys, "topk_method", method, "\"noaux_tc\" with scoring_func \"sigmoid\""))
        }
        ("softmax", _) => {
            let accepted = "\"greedy\" or \"group_limited_greedy\" with scoring_func \"softmax\"";
            Err(reject_effective(keys, "topk_method", method, accepted))
        }
        _ => Err(keys.reject("scoring_func", "\"sigmoid\" or \"softmax\"")),
    }
}

/// Rejects a value that may come from a default, so that the message shows what was in force.
fn reject_effective(keys: &Keys<'_>, key: &str, value: impl Into<Value>, accepted: &str) -> ConfigError {
    ConfigError::Value {
        file: keys.file().to_owned(),
        key: keys.full(key),
        found: render(&value.into()),
        accepted: accepted.to_owned(),
    }
}

fn groups(keys: &Keys<'_>, defaults: &Defaults, experts: usize) -> Result<(usize, usize), ConfigError> {
    let accepted = format!("a divisor of n_routed_experts ({experts})");
    let default = |pick: fn((usize, usize)) -> usize| defaults.groups.map(pick);
    let n_group = keys.usize_opt("n_group", 1..=experts)?.or(default(|g| g.0));
    let n_group = n_group.ok_or_else(|| keys.reject("n_group", &accepted))?;
    if !experts.is_multiple_of(n_group) {
        return Err(reject_effective(keys, "n_group", n_group, &accepted));
    }
    let topk_group = keys.usize_opt("topk_group", 1..=n_group)?.or(default(|g| g.1));
    let topk_group = topk_group.ok_or_else(|| keys.reject("topk_group", format!("1 to n_group ({n_group})")))?;
    if topk_group > n_group {
        let accepted = format!("at most n_group ({n_group})");
        return Err(reject_effective(keys, "topk_group", topk_group, &accepted));
    }
    Ok((n_group, topk_group))
}

fn num_experts_per_tok(keys: &Keys<'_>, router: Router, experts: usize) -> Result<usize, ConfigError> {
    let (reachable, of) = match router {
        Router::SoftmaxGreedy => (experts, "n_routed_experts"),
        Router::SigmoidNoAuxTc { n_group, topk_group } | Router::SoftmaxGroupLimited { n_group, topk_group } => {
            (experts / n_group * topk_group, "the experts in topk_group groups")
        }
    };
    let k = keys.usize("num_experts_per_tok", EXPERTS)?;
    if k > reachable {
        return Err(keys.reject("num_experts_per_tok", format!("at most {reachable}, {of}")));
    }
    Ok(k)
}

/// `norm_topk_prob` and `routed_scaling_factor`.
fn weighting(keys: &Keys<'_>, defaults: &Defaults, router: Router) -> Result<(bool, f32), ConfigError> {
    let norm = keys.bool_or("norm_topk_prob", defaults.norm_topk_prob)?;
    let scale = keys.f64_opt("routed_scaling_factor", SCALING_FACTOR)?.unwrap_or(defaults.routed_scaling_factor);
    let is_softmax = match router {
        Router::SigmoidNoAuxTc { .. } => false,
        Router::SoftmaxGreedy | Router::SoftmaxGroupLimited { .. } => true,
    };
    // The published V2 code then drops the factor, its demo keeps it: no checkpoint settles which is meant (spec 3.1).
    if is_softmax && norm && scale != 1.0 {
        let accepted = "1 when norm_topk_prob is true with a softmax router";
        return Err(reject_effective(keys, "routed_scaling_factor", scale, accepted));
    }
    Ok((norm, scale as f32))
}
