use safetensors::SafeTensors;

use crate::support::{Scratch, golden, repository, run, text_of};

#[test]
fn perplexity_is_that_of_the_goldens() {
    let text = text_of(&repository("tests/goldens/heldout_kjv.txt"));
    let args = ["score", "--prompt-file", &text, "--window", "512"];
    let found = run(&[&args[..], &["--json", "--mtp"]].concat()).json();
    assert_eq!((found["tokens"].as_u64(), found["window"].as_u64()), (Some(2413), Some(512)));
    let figure = |key: &str| found[key].as_f64().unwrap();
    assert!((figure("perplexity") - 25.4414).abs() < 0.001, "{found}");
    assert!((figure("nll_mean") - 3.23638).abs() < 0.00005, "{found}");
    assert!((figure("nll_sum") - 7809.3812).abs() < 0.1, "{found}");
    // 66.57 %: a draft that nearly ties may fall either way.
    assert!((found["drafts"]["acceptance"].as_f64().unwrap() - 0.6657).abs() < 0.002, "{found}");
    assert!(run(&args).success().contains("25.4414"));
}

#[test]
fn logits_are_written_row_by_row() {
    let scratch = Scratch::new();
    let (ids, greedy) = golden("kjv");
    let file = scratch.file("ids.json", serde_json::to_vec(&ids).unwrap());
    let logits = scratch.path("logits.safetensors");
    run(&["score", "--tokens-file", &file, "--logits", &logits]).success();
    let bytes = std::fs::read(&logits).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = tensors.tensor("logits").unwrap();
    assert_eq!((tensor.dtype(), tensor.shape()), (safetensors::Dtype::F32, &[ids.len(), 4096][..]));
    let row = |data: &[u8], i: usize| -> Vec<f32> {
        let row = &data[i * 4096 * 4..(i + 1) * 4096 * 4];
        row.chunks(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
    };
    let last = row(tensor.data(), ids.len() - 1);
    let likeliest = (0..4096).max_by(|&a, &b| last[a].total_cmp(&last[b])).unwrap();
    assert_eq!(likeliest as u64, greedy[0]);

    let golden_bytes = std::fs::read(repository("tests/goldens/goldens.safetensors")).unwrap();
    let goldens = SafeTensors::deserialize(&golden_bytes).unwrap();
    let golden = goldens.tensor("fp8w_f32/kjv/logits").unwrap();
    // The goldens hold the logits after tokens 0, 6 and 12.
    for (golden_row, position) in [0, 6, 12].into_iter().enumerate() {
        let (found, expected) = (row(tensor.data(), position), row(golden.data(), golden_row));
        let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 2e-3, "row {position}: {worst}");
    }
}

#[test]
fn windows_do_not_see_one_another() {
    let scratch = Scratch::new();
    let (ids, _) = golden("kjv");
    let nll = |ids: &[u64], window: &str| {
        let file = scratch.file("ids.json", serde_json::to_vec(ids).unwrap());
        run(&["score", "--tokens-file", &file, "--window", window, "--json"]).json()["nll_sum"].as_f64().unwrap()
    };
    let (first, second) = (nll(&ids[..7], "6"), nll(&ids[6..13], "6"));
    assert!((nll(&ids, "6") - (first + second)).abs() < 1e-9);
    assert!((nll(&ids, "12") - (first + second)).abs() > 0.1);
}
