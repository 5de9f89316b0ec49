#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use serde_json::{Value, json};

use super::fixtures::*;
use super::*;

fn parse(text: &str) -> ModelConfig {
    ModelConfig::from_json(text).unwrap()
}

/// `base` with keys replaced; a path is written `outer.inner`, and the value `json!("-")` removes the key.
fn with(base: &str, changes: &[(&str, Value)]) -> String {
    let mut root: Value = serde_json::from_str(base).unwrap();
    for (path, value) in changes {
        let (parents, key) = path.rsplit_once('.').unwrap_or(("", path));
        let mut at = &mut root;
        for parent in parents.split('.').filter(|p| !p.is_empty()) {
            at = &mut at[parent];
        }
        if *value == json!("-") {
            at.as_object_mut().unwrap().remove(key);
        } else {
            at[key] = value.clone();
        }
    }
    root.to_string()
}

fn tiny(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../models").join(name)
}

mod family {
    use super::*;

    /// One row of spec 1.3, in its order.
    type Row = (
        ModelType,
        [usize; 5],
        (usize, Option<usize>, usize, [usize; 3]),
        [usize; 3],
        Router,
        (bool, f32),
        f64,
        Option<(f64, f64, f64)>,
        f32,
        [usize; 2],
        (Option<u32>, &'static [u32]),
        usize,
    );

    fn row(config: &ModelConfig) -> Row {
        let (a, moe) = (&config.attention, config.moe.as_ref().unwrap());
        let dims = [a.qk_nope_head_dim, a.qk_rope_head_dim, a.v_head_dim];
        let yarn = config.rope.yarn.map(|y| {
            assert_eq!((y.mscale, y.original_max_position_embeddings), (y.mscale_all_dim, 4096));
            (y.factor, y.mscale.unwrap(), y.beta_fast)
        });
        (
            config.model_type,
            [
                config.hidden_size,
                config.intermediate_size,
                moe.moe_intermediate_size,
                config.num_hidden_layers,
                moe.first_k_dense_replace,
            ],
            (a.num_attention_heads, a.q_lora_rank, a.kv_lora_rank, dims),
            [moe.n_routed_experts, moe.n_shared_experts, moe.num_experts_per_tok],
            moe.router,
            (moe.norm_topk_prob, moe.routed_scaling_factor),
            config.rope.theta,
            yarn,
            config.rms_norm_eps,
            [config.vocab_size, config.max_position_embeddings],
            (config.bos_token_id, config.eos_token_ids.clone().leak()),
            config.num_nextn_predict_layers,
        )
    }

    #[test]
    fn every_member_parses_to_its_row_of_the_table() {
        use ModelType::*;
        let (v2_yarn, v3_yarn) = (Some((40.0, 0.707, 32.0)), Some((40.0, 1.0, 32.0)));
        let (dims, noaux) = ([128, 64, 128], |n_group, topk_group| Router::SigmoidNoAuxTc { n_group, topk_group });
        let v2_tokens: (Option<u32>, &[u32]) = (Some(100_000), &[100_001]);
        let kimi_tokens: (Option<u32>, &[u32]) = (Some(163_584), &[163_586]);
        let limited = Router::SoftmaxGroupLimited { n_group: 8, topk_group: 3 };
        #[rustfmt::skip]
        let rows: [(&str, Row); 6] = [
            (DEEPSEEK_V2_LITE, (DeepseekV2, [2048, 10944, 1408, 27, 1], (16, None, 512, dims), [64, 2, 6],
                Router::SoftmaxGreedy, (false, 1.0), 1e4, v2_yarn, 1e-6, [102_400, 163_840], v2_tokens, 0)),
            (DEEPSEEK_V2, (DeepseekV2, [5120, 12288, 1536, 60, 1], (128, Some(1536), 512, dims), [160, 2, 6],
                limited, (false, 16.0), 1e4, v2_yarn, 1e-6, [102_400, 163_840], v2_tokens, 0)),
            (DEEPSEEK_V3, (DeepseekV3, [7168, 18432, 2048, 61, 3], (128, Some(1536), 512, dims), [256, 1, 8],
                noaux(8, 4), (true, 2.5), 1e4, v3_yarn, 1e-6, [129_280, 163_840], (Some(0), &[1]), 1)),
            (MOONLIGHT, (DeepseekV3, [2048, 11264, 1408, 27, 1], (16, None, 512, dims), [64, 2, 6],
                noaux(1, 1), (true, 2.446), 5e4, None, 1e-5, [163_840, 8192], kimi_tokens, 0)),
            (KIMI_K2, (KimiK2, [7168, 18432, 2048, 61, 1], (64, Some(1536), 512, dims), [384, 1, 8],
                noaux(1, 1), (true, 2.827), 5e4, Some((32.0, 1.0, 1.0)), 1e-5, [163_840, 131_072], kimi_tokens, 0)),
            (GLM_4_7_FLASH, (Glm4MoeLite, [2048, 10240, 1536, 47, 1], (20, Some(768), 512, [192, 64, 256]), [64, 1, 4],
                noaux(1, 1), (true, 1.8), 1e6, None, 1e-5, [154_880, 202_752], (None, &[154_820, 154_827, 154_829]), 1)),
        ];
        for (text, expected) in rows {
            let config = parse(text);
            assert_eq!(row(&config), expected);
            assert!(!config.tie_word_embeddings);
        }
    }

    #[test]
    fn v3_1_rounds_activation_scales_to_powers_of_two() {
        let v31 = with(DEEPSEEK_V3, &[("quantization_config.scale_fmt", json!("ue8m0"))]);
        let quantization = |text: &str| parse(text).quantization;
        assert_eq!(quantization(&v31), Some(QuantizationConfig::Fp8Block { block: (128, 128), ue8m0: true }));
        assert_eq!(quantization(DEEPSEEK_V3), Some(QuantizationConfig::Fp8Block { block: (128, 128), ue8m0: false }));
        assert_eq!(quantization(MOONLIGHT), None);
    }

    #[test]
    fn layers_with_experts() {
        let moe_layers = |text: &str| {
            let config = parse(text);
            (0..8).filter(|layer| config.is_moe_layer(*layer)).collect::<Vec<_>>()
        };
        assert_eq!(moe_layers(DEEPSEEK_V3), [3, 4, 5, 6, 7]);
        assert_eq!(moe_layers(&with(DEEPSEEK_V3, &[("moe_layer_freq", json!(3))])), [3, 6]);
        assert!(moe_layers(&with(DEEPSEEK_V3, &[("n_routed_experts", json!(null))])).is_empty());
        // 61 is not a multiple of 3, but an MTP module always has experts.
        assert!(parse(&with(DEEPSEEK_V3, &[("moe_layer_freq", json!(3))])).is_moe_layer(61));
    }
}

mod tolerance {
    use super::*;

    #[test]
    fn whole_numbers_may_be_written_with_a_fraction_of_zero() {
        let floats = with(
            DEEPSEEK_V3,
            &[
                ("hidden_size", json!(7168.0)),
                ("eos_token_id", json!(1.0)),
                ("rope_theta", json!(10000.0)),
                ("rope_scaling.factor", json!(40.0)),
                ("rope_scaling.original_max_position_embeddings", json!(4096.0)),
                ("routed_scaling_factor", json!(2.5)),
                ("quantization_config.weight_block_size", json!([128.0, 128.0])),
            ],
        );
        assert_eq!(parse(&floats), parse(DEEPSEEK_V3));
    }

    #[test]
    fn rope_parameters_say_the_same_as_rope_scaling_and_rope_theta() {
        let parameters = json!({"rope_type": "yarn", "rope_theta": 10000.0, "factor": 40.0, "beta_fast": 32.0,
            "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0, "original_max_position_embeddings": 4096});
        let newer = [("rope_scaling", json!("-")), ("rope_theta", json!("-")), ("rope_parameters", parameters.clone())];
        assert_eq!(parse(&with(DEEPSEEK_V3, &newer)), parse(DEEPSEEK_V3));
        // Both, in agreement.
        assert_eq!(parse(&with(DEEPSEEK_V3, &[("rope_parameters", parameters)])), parse(DEEPSEEK_V3));
        // The theta inside wins: the outer one is a remnant.
        let inner = json!({"rope_type": "default", "rope_theta": 50000.0});
        let text = with(MOONLIGHT, &[("rope_theta", json!("-")), ("rope_parameters", inner)]);
        assert_eq!(parse(&text).rope, RopeConfig { theta: 5e4, yarn: None });
    }

    #[test]
    fn rope_types_and_their_synonyms() {
        for (changes, has_yarn) in [
            (vec![("rope_scaling.type", json!("-")), ("rope_scaling.rope_type", json!("yarn"))], true),
            (vec![("rope_scaling.rope_type", json!("yarn"))], true),
            (vec![("rope_scaling.type", json!("default"))], false),
            (vec![("rope_scaling", json!({"type": null}))], false),
            (vec![("rope_scaling", json!({}))], false),
            (vec![("rope_scaling", json!(null))], false),
            (vec![("rope_scaling", json!("-"))], false),
        ] {
            let rope = parse(&with(DEEPSEEK_V3, &changes)).rope;
            assert_eq!((rope.theta, rope.yarn.is_some()), (1e4, has_yarn), "{changes:?}");
        }
    }

    #[test]
    fn yarn_defaults() {
        let scaling = json!({"type": "yarn", "factor": 4, "original_max_position_embeddings": 512});
        let yarn = parse(&with(DEEPSEEK_V3, &[("rope_scaling", scaling)])).rope.yarn.unwrap();
        assert_eq!((yarn.beta_fast, yarn.beta_slow), (32.0, 1.0));
        assert_eq!((yarn.mscale, yarn.mscale_all_dim, yarn.attention_factor), (None, None, None));
    }

    /// The defaults of the loaders of the field for keys that choose behaviour.
    #[test]
    fn absent_keys_take_the_defaults_of_their_model_type() {
        let behaviour = [
            "hidden_act",
            "attention_bias",
            "tie_word_embeddings",
            "scoring_func",
            "topk_method",
            "norm_topk_prob",
            "moe_layer_freq",
            "rms_norm_eps",
            "rope_theta",
        ];
        let without = |base: &str, more: &[&str]| {
            let keys: Vec<_> = behaviour.iter().chain(more).map(|key| (*key, json!("-"))).collect();
            parse(&with(base, &keys))
        };
        assert_eq!(without(DEEPSEEK_V3, &["n_group", "topk_group"]), parse(DEEPSEEK_V3));
        assert_eq!(without(DEEPSEEK_V2_LITE, &["n_group", "topk_group"]), parse(DEEPSEEK_V2_LITE));
        let glm = without(GLM_4_7_FLASH, &["first_k_dense_replace", "routed_scaling_factor"]);
        assert_eq!(ModelConfig { rope: parse(GLM_4_7_FLASH).rope, ..glm }, parse(GLM_4_7_FLASH));
        assert_eq!(parse(&with(DEEPSEEK_V3, &[("num_nextn_predict_layers", json!("-"))])).num_nextn_predict_layers, 0);
        assert_eq!(parse(&with(DEEPSEEK_V3, &[("bos_token_id", json!(null))])).bos_token_id, None);
        assert!(parse(&with(DEEPSEEK_V3, &[("eos_token_id", json!(null))])).eos_token_ids.is_empty());
        let shared = parse(&with(DEEPSEEK_V3, &[("n_shared_experts", json!(null))])).moe.unwrap().n_shared_experts;
        assert_eq!(shared, 0);
        assert!(parse(&with(DEEPSEEK_V3, &[("tie_word_embeddings", json!(true))])).tie_word_embeddings);
    }

    #[test]
    fn mlp_layer_types_may_stand_in_for_first_k_dense_replace() {
        let mut types = vec!["sparse"; 47];
        types[0] = "dense";
        types[1] = "dense";
        let keys = [("first_k_dense_replace", json!("-")), ("mlp_layer_types", json!(types))];
        assert_eq!(parse(&with(GLM_4_7_FLASH, &keys)).moe.unwrap().first_k_dense_replace, 2);
    }

    #[test]
    fn compressed_tensors_schemes() {
        let group = |weights: Value, activations: Value| json!({"targets": ["Linear"], "weights": weights, "input_activations": activations});
        let int8 = group(
            json!({"num_bits": 8, "type": "int", "symmetric": true, "strategy": "channel", "group_size": null}),
            json!({"num_bits": 8, "type": "int", "symmetric": true, "strategy": "token", "dynamic": true}),
        );
        let int4 = group(
            json!({"num_bits": 4, "type": "int", "symmetric": true, "strategy": "group", "group_size": 32}),
            json!(null),
        );
        for (format, group, expected) in [
            ("int-quantized", int8, QuantizationConfig::Int8Channel),
            ("pack-quantized", int4, QuantizationConfig::Int4Group { group_size: 32 }),
        ] {
            let section = json!({"quant_method": "compressed-tensors", "format": format,
                "config_groups": {"group_0": group.clone(), "group_1": group}, "ignore": ["lm_head"]});
            assert_eq!(parse(&with(MOONLIGHT, &[("quantization_config", section)])).quantization, Some(expected));
        }
    }
}

mod rejection {
    use super::*;

    /// The error's message for a change, which must name file, key and what would be accepted.
    fn message(base: &str, changes: &[(&str, Value)]) -> String {
        match ModelConfig::from_json(&with(base, changes)) {
            Ok(_) => panic!("accepted: {changes:?}"),
            Err(e) => e.to_string(),
        }
    }

    #[test]
    fn each_wrong_value_is_named_with_what_is_accepted() {
        let one = |key: &'static str, value: Value, message: &'static str| (vec![(key, value)], message);
        #[rustfmt::skip]
        let cases = [
            one("vocab_size", json!(0), "config.json: vocab_size is 0; it must be a whole number from 1 to 4194304"),
            one("vocab_size", json!(1e300), "vocab_size is 1e+300; it must be a whole number from 1 to 4194304"),
            one("vocab_size", json!(-1), "vocab_size is -1; it must be"),
            one("vocab_size", json!("many"), "vocab_size is \"many\"; it must be a whole number"),
            one("vocab_size", json!("-"), "vocab_size is missing; it must be a whole number from 1 to 4194304"),
            one("hidden_size", json!(7168.5), "hidden_size is 7168.5; it must be a whole number from 1 to 131072"),
            one("hidden_size", json!(u64::MAX), "hidden_size is 18446744073709551615; it must be"),
            one("intermediate_size", json!(0), "intermediate_size is 0"),
            one("num_hidden_layers", json!(0), "num_hidden_layers is 0; it must be a whole number from 1 to 512"),
            one("num_hidden_layers", json!(100_000), "num_hidden_layers is 100000"),
            one("num_nextn_predict_layers", json!(17), "num_nextn_predict_layers is 17; it must be a whole number from 0 to 16"),
            one("num_attention_heads", json!(0), "num_attention_heads is 0"),
            one("q_lora_rank", json!(0), "q_lora_rank is 0"),
            one("q_lora_rank", json!("-"), "q_lora_rank is missing; it must be a whole number, or null for a direct q_proj"),
            one("kv_lora_rank", json!(null), "kv_lora_rank is null; it must be a whole number"),
            one("qk_nope_head_dim", json!(0), "qk_nope_head_dim is 0"),
            one("qk_rope_head_dim", json!(63), "qk_rope_head_dim is 63; it must be even"),
            one("qk_rope_head_dim", json!(0), "qk_rope_head_dim is 0"),
            one("v_head_dim", json!(0), "v_head_dim is 0"),
            one("max_position_embeddings", json!(0), "max_position_embeddings is 0"),
            one("rms_norm_eps", json!(0), "rms_norm_eps is 0; it must be a number from 0.000000000001 to 1"),
            one("rms_norm_eps", json!(-1e-6), "rms_norm_eps is -1e-6"),
            one("rms_norm_eps", json!("NaN"), "rms_norm_eps is \"NaN\""),
            one("hidden_act", json!("gelu"), "hidden_act is \"gelu\"; it must be \"silu\""),
            one("attention_bias", json!(true), "attention_bias is true; it must be false"),
            one("mlp_bias", json!(true), "mlp_bias is true; it must be false"),
            one("rope_interleave", json!(false), "rope_interleave is false; it must be true"),
            one("tie_word_embeddings", json!("no"), "tie_word_embeddings is \"no\"; it must be true or false"),
            one("bos_token_id", json!(129_280), "bos_token_id is 129280; it must be a whole number from 0 to 129279"),
            one("eos_token_id", json!(129_280), "eos_token_id is 129280; it must be a token id below vocab_size (129280)"),
            one("eos_token_id", json!([1, -2]), "eos_token_id is [1,-2]"),
            one("eos_token_id", json!(vec![1; 65]), "at most 64 of them in a list"),
            one("n_routed_experts", json!(0), "n_routed_experts is 0"),
            one("n_routed_experts", json!(5000), "n_routed_experts is 5000"),
            one("n_shared_experts", json!("-"), "n_shared_experts is missing"),
            one("n_shared_experts", json!(65), "n_shared_experts is 65"),
            one("moe_intermediate_size", json!("-"), "moe_intermediate_size is missing"),
            one("moe_layer_freq", json!(0), "moe_layer_freq is 0"),
            one("first_k_dense_replace", json!(62), "first_k_dense_replace is 62; it must be a whole number from 0 to 61"),
            one("mlp_layer_types", json!(["dense", "sparse"]), "mlp_layer_types is [\"dense\",\"sparse\"]; it must be a list of 61"),
            one("num_experts_per_tok", json!(0), "num_experts_per_tok is 0"),
            one("num_experts_per_tok", json!(129), "num_experts_per_tok is 129; it must be at most 128, the experts in topk_group groups"),
            one("n_group", json!(7), "n_group is 7; it must be a divisor of n_routed_experts (256)"),
            one("n_group", json!(256), "n_group is 256; it must be such that a group has two experts"),
            one("topk_group", json!(9), "topk_group is 9; it must be a whole number from 1 to 8"),
            one("topk_group", json!(0), "topk_group is 0"),
            one("scoring_func", json!("sqrtsoftplus"), "scoring_func is \"sqrtsoftplus\"; it must be \"sigmoid\" or \"softmax\""),
            one("topk_method", json!("greedy"), "topk_method is \"greedy\"; it must be \"noaux_tc\" with scoring_func \"sigmoid\""),
            one("scoring_func", json!("softmax"), "topk_method is \"noaux_tc\"; it must be \"greedy\" or \"group_limited_greedy\""),
            one("routed_scaling_factor", json!(0), "routed_scaling_factor is 0"),
            one("rope_theta", json!(1), "rope_theta is 1"),
            one("rope_scaling", json!("yarn"), "rope_scaling is \"yarn\"; it must be an object or null"),
            one("rope_scaling.type", json!("dynamic"), "rope_scaling.type is \"dynamic\"; it must be \"yarn\", \"default\" or null"),
            one("rope_scaling.rope_type", json!("default"), "rope_scaling.rope_type and rope_scaling.type disagree"),
            one("rope_scaling.type", json!("-"), "rope_scaling.rope_type is missing"),
            one("rope_scaling.factor", json!(0.5), "rope_scaling.factor is 0.5; it must be a number from 1 to 10000"),
            one("rope_scaling.factor", json!("-"), "rope_scaling.factor is missing"),
            one("rope_scaling.original_max_position_embeddings", json!("-"), "original_max_position_embeddings is missing"),
            one("rope_scaling.beta_fast", json!(0.5), "beta_fast (0.5) is at least beta_slow (1)"),
            one("rope_scaling.beta_slow", json!(0), "rope_scaling.beta_slow is 0"),
            one("rope_scaling.mscale", json!(-1), "rope_scaling.mscale is -1"),
            one("rope_scaling.truncate", json!(false), "rope_scaling.truncate is false"),
            one("partial_rotary_factor", json!(0.5), "partial_rotary_factor is 0.5; it must be 1"),
            one("rope_parameters", json!({"rope_theta": 5e4}), "rope_scaling and rope_parameters disagree"),
            one("quantization_config", json!([1]), "quantization_config is [1]"),
            one("quantization_config.quant_method", json!("awq"), "quantization_config.quant_method is \"awq\"; it must be \"fp8\" or \"compressed-tensors\""),
            one("quantization_config.fmt", json!("e5m2"), "quantization_config.fmt is \"e5m2\"; it must be \"e4m3\""),
            one("quantization_config.activation_scheme", json!("static"), "activation_scheme is \"static\"; it must be \"dynamic\""),
            one("quantization_config.weight_block_size", json!([64, 128]), "weight_block_size is [64,128]; it must be [128,128]"),
            one("quantization_config.weight_block_size", json!("-"), "weight_block_size is missing; it must be [128,128]"),
            one("quantization_config.scale_fmt", json!("float"), "scale_fmt is \"float\"; it must be \"ue8m0\" or absent"),
        ];
        for (changes, expected) in cases {
            let message = message(DEEPSEEK_V3, &changes);
            assert!(message.starts_with("config.json: ") && message.contains(expected), "{message}\nnot: {expected}");
        }
    }

    #[test]
    fn other_architectures_are_refused_with_the_reason() {
        for (model_type, reason) in [
            ("deepseek_v32", "its sparse attention (indexer) is not implemented"),
            ("deepseek_v4", "its attention, residual streams, router and expert format differ"),
            ("llama", "this library runs the MLA + MoE models of the DeepSeek-V3 family"),
        ] {
            let message = message(DEEPSEEK_V3, &[("model_type", json!(model_type))]);
            assert!(message.contains(model_type) && message.contains(reason), "{message}");
            assert!(message.ends_with("supported are deepseek_v2, deepseek_v3, kimi_k2, glm4_moe_lite"), "{message}");
        }
        assert!(message(DEEPSEEK_V3, &[("model_type", json!("-"))]).contains("model_type is missing"));
    }

    #[test]
    fn softmax_routers() {
        let v2 = |key: &'static str, value| message(DEEPSEEK_V2, &[(key, value)]);
        assert!(v2("norm_topk_prob", json!(true)).contains("routed_scaling_factor is 16.0; it must be 1 when"));
        assert!(v2("n_group", json!("-")).contains("n_group is missing"));
        assert!(v2("num_experts_per_tok", json!(61)).contains("at most 60"));
        let lite = message(DEEPSEEK_V2_LITE, &[("num_experts_per_tok", json!(65))]);
        assert!(lite.contains("at most 64, n_routed_experts"), "{lite}");
    }

    #[test]
    fn experts_of_all_layers_are_bounded() {
        let changes = [("num_hidden_layers", json!(512)), ("n_routed_experts", json!(1024))];
        assert!(
            message(DEEPSEEK_V3, &changes).contains("n_routed_experts is 1024; it must be at most 511 with 512 layers")
        );
    }

    #[test]
    fn compressed_tensors_schemes() {
        let int8 = json!({"quant_method": "compressed-tensors", "format": "int-quantized", "config_groups": {"g": {
            "weights": {"num_bits": 8, "type": "int", "symmetric": true, "strategy": "channel"},
            "input_activations": {"num_bits": 8, "type": "int", "symmetric": true, "strategy": "token", "dynamic": true}}}});
        let base = with(MOONLIGHT, &[("quantization_config", int8)]);
        assert!(ModelConfig::from_json(&base).is_ok());
        let q = "quantization_config.";
        for (key, value, expected) in [
            ("format", json!("float-quantized"), "format is \"float-quantized\""),
            ("config_groups", json!({}), "config_groups is {}; it must be not empty"),
            ("config_groups", json!("-"), "config_groups is missing"),
            ("config_groups.g.weights.num_bits", json!(4), "config_groups.g.weights.num_bits is 4; it must be 8"),
            ("config_groups.g.weights.symmetric", json!(false), "symmetric is false"),
            ("config_groups.g.weights.strategy", json!("tensor"), "strategy is \"tensor\"; it must be \"channel\""),
            ("config_groups.g.weights.type", json!("float"), "type is \"float\"; it must be \"int\""),
            ("config_groups.g.weights.actorder", json!("group"), "actorder is \"group\""),
            ("config_groups.g.input_activations", json!(null), "input_activations is null; it must be an object"),
            ("config_groups.g.input_activations.dynamic", json!(false), "dynamic is false; it must be true"),
            ("config_groups.g.input_activations.strategy", json!("tensor"), "it must be \"token\""),
            ("kv_cache_scheme", json!({"num_bits": 8}), "kv_cache_scheme is {\"num_bits\":8}"),
        ] {
            let message = message(&base, &[(&format!("{q}{key}"), value)]);
            assert!(message.contains(q) && message.contains(expected), "{message}\nnot: {expected}");
        }
        let int4 = json!({"num_bits": 4, "type": "int", "symmetric": true, "strategy": "group", "group_size": 33});
        let changes = [
            ("quantization_config.format", json!("pack-quantized")),
            ("quantization_config.config_groups", json!({"g": {"weights": int4}})),
        ];
        assert!(message(&base, &changes).contains("weights.group_size is 33; it must be even"));
    }

    #[test]
    fn what_is_not_a_json_object() {
        for text in ["", "{", "{\"vocab_size\": NaN}", "{\"vocab_size\": 1e999}"] {
            let message = ModelConfig::from_json(text).unwrap_err().to_string();
            assert!(message.starts_with("config.json: not valid JSON"), "{message}");
        }
        let message = ModelConfig::from_json("[]").unwrap_err().to_string();
        assert_eq!(message, "config.json: the file's content is []; it must be a JSON object");
        let deep = "[".repeat(100_000);
        assert!(ModelConfig::from_json(&deep).is_err());
        let long = ModelConfig::from_json(&format!("[{:?}]", "ä".repeat(10_000))).unwrap_err().to_string();
        assert!(long.chars().count() < 200, "{long}");
    }
}

/// Any key may hold anything: the answer is a configuration whose sizes can be multiplied, or an error.
#[test]
fn no_value_of_any_key_causes_a_panic_or_an_overflow() {
    let values = [json!(null), json!(0), json!(1), json!(-1), json!(1e300), json!(u64::MAX), json!(""), json!("yarn")]
        .into_iter()
        .chain([json!([]), json!({}), json!([[]]), json!(true), json!(1 << 22), json!(4096), json!(256), json!("-")]);
    for value in values {
        let keys: Value = serde_json::from_str(DEEPSEEK_V3).unwrap();
        for key in keys.as_object().unwrap().keys() {
            let changed = ModelConfig::from_json(&with(DEEPSEEK_V3, &[(key, value.clone())]));
            // Keys that are not read change nothing; listing 45 000 tensors for each would take its time.
            if let Some(config) = changed.ok().filter(|config| *config != parse(DEEPSEEK_V3)) {
                let tensors = crate::weights::layout::checkpoint_tensors(&config, true);
                let total = tensors.iter().try_fold(0usize, |sum, t| sum.checked_add(t.num_elements() * 4));
                assert!(total.is_some(), "{key} = {value}");
            }
        }
    }
}

mod directory {
    use super::*;

    fn write(config: &str, generation: Option<&str>) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), config).unwrap();
        if let Some(generation) = generation {
            std::fs::write(dir.path().join("generation_config.json"), generation).unwrap();
        }
        dir
    }

    #[test]
    fn the_tiny_models_parse() {
        let bf16 = ModelConfig::from_dir(&tiny("tiny-deepseek-v3-bf16")).unwrap();
        let fp8 = ModelConfig::from_dir(&tiny("tiny-deepseek-v3-fp8")).unwrap();
        assert_eq!(bf16.quantization, None);
        assert_eq!(fp8.quantization, Some(QuantizationConfig::Fp8Block { block: (128, 128), ue8m0: false }));
        assert_eq!(ModelConfig { quantization: None, ..fp8 }, bf16);
        assert_eq!((bf16.attention.qk_head_dim(), bf16.attention.latent_width()), (96, 160));
        assert_eq!(bf16.moe.unwrap().router, Router::SigmoidNoAuxTc { n_group: 4, topk_group: 2 });
    }

    #[test]
    fn generation_config_names_the_end_of_sentence() {
        let eos = |generation| {
            let dir = write(DEEPSEEK_V3, generation);
            ModelConfig::from_dir(dir.path()).map(|config| config.eos_token_ids)
        };
        assert_eq!(eos(None).unwrap(), [1]);
        assert_eq!(eos(Some(r#"{"eos_token_id": [1, 128805], "temperature": 0.6}"#)).unwrap(), [1, 128_805]);
        assert_eq!(eos(Some(r#"{"eos_token_id": 7}"#)).unwrap(), [7]);
        assert_eq!(eos(Some(r#"{"temperature": 0.6}"#)).unwrap(), [1]);
        let message = eos(Some(r#"{"eos_token_id": 129280}"#)).unwrap_err().to_string();
        assert!(message.contains("generation_config.json: eos_token_id is 129280"), "{message}");
        assert!(eos(Some("nonsense")).unwrap_err().to_string().contains("generation_config.json: not valid JSON"));
    }

    #[test]
    fn a_config_that_is_missing_or_no_text_or_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let message = |dir: &tempfile::TempDir| ModelConfig::from_dir(dir.path()).unwrap_err().to_string();
        assert!(message(&dir).contains("config.json: cannot be read"), "{}", message(&dir));
        std::fs::write(dir.path().join("config.json"), [0xFF, 0xFE, 0x00]).unwrap();
        assert!(message(&dir).contains("config.json: cannot be read"), "{}", message(&dir));
        std::fs::remove_file(dir.path().join("config.json")).unwrap();
        std::fs::create_dir(dir.path().join("config.json")).unwrap();
        assert!(message(&dir).contains("not a regular file"), "{}", message(&dir));
        let huge = write(&" ".repeat((16 << 20) + 1), None);
        assert!(message(&huge).contains("larger than 16777216 bytes"), "{}", message(&huge));
    }
}
