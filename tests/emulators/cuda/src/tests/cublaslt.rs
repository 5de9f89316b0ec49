//! The library of products: 4 rows of x times 16 rows of W, over two blocks of k.

use emulator_common::fault::Fault;

use super::*;
use crate::api::cublaslt::*;
use crate::api::graph;
use crate::config::PROFILES;
use crate::cublaslt::{Algorithm, result};

const M: u64 = 16;
const N: u64 = 4;
const K: u64 = 256;
const E4M3: i32 = 28;
const BF16: i32 = 14;
const F32: i32 = 0;

/// What a caller tells the library; each test changes one thing.
#[derive(Debug, Clone, Copy)]
struct Told {
    compute_type: i32,
    /// Attributes of the description that are numbers.
    numbers: [(i32, i32); 4],
    /// Type, rows, columns, step of A, B, C and D.
    layouts: [(i32, u64, u64, i64); 4],
    has_scales: [bool; 2],
    workspace_limit: u64,
    alignment: u32,
    num_asked: i32,
    /// What is added to the addresses of A, of the result, of B's scales, and of the workspace.
    shifts: [u64; 4],
    workspace_bytes: usize,
    factors: [f32; 2],
    /// The algorithm is changed before it is used.
    other_algorithm: bool,
}

const GOOD: Told = Told {
    compute_type: 68,
    numbers: [(3, 1), (4, 0), (31, 5), (32, 4)],
    layouts: [(E4M3, K, M, 256), (E4M3, K, N, 256), (F32, M, N, 16), (F32, M, N, 16)],
    has_scales: [true; 2],
    workspace_limit: 32 << 20,
    alignment: 16,
    num_asked: 1,
    shifts: [0; 4],
    workspace_bytes: 32 << 20,
    factors: [1.0, 0.0],
    other_algorithm: false,
};

/// A device with operands: every code of W is 1, every code of x is 2.
struct Bench {
    machine: Machine,
    handle: u64,
    stream: u64,
    w: u64,
    x: u64,
    out: u64,
    scales: [u64; 2],
    workspace: u64,
}

/// What came of a call.
#[derive(Debug, PartialEq)]
enum Came {
    Chosen(Status),
    NothingFound,
    Multiplied(Status),
}

impl Bench {
    fn with(config: Config<Cuda>) -> Self {
        let machine = Machine::with(config);
        let stream = new_stream();
        let codes = |code: u8, rows: u64| {
            let address = alloc((rows * K) as usize);
            upload_bytes(address, &vec![code; (rows * K) as usize], stream);
            address
        };
        let floats = |values: &[f32]| {
            let address = alloc(4 * values.len());
            upload(address, values, stream);
            address
        };
        // W's scales are given for four blocks of k, of which two are there; x's block by block.
        let w_scales = floats(&[1.0, 0.5, f32::NAN, f32::NAN]);
        let x_scales = floats(&[1.0, 2.0, 3.0, 4.0, 10.0, 20.0, 30.0, 40.0]);
        Self {
            handle: get(|to| cublasLtCreate(to)),
            w: codes(0x38, M),
            x: codes(0x40, N),
            out: alloc((4 * M * N) as usize),
            scales: [w_scales, x_scales],
            workspace: alloc(32 << 20),
            stream,
            machine,
        }
    }

    fn new() -> Self {
        Self::with(default_config())
    }

    fn description(&self, told: &Told) -> u64 {
        let description = get(|to| cublasLtMatmulDescCreate(to, told.compute_type, 0));
        for (attribute, value) in told.numbers {
            let status = cublasLtMatmulDescSetAttribute(description, attribute, (&raw const value).cast(), 4);
            assert_eq!(status, result::SUCCESS);
        }
        let [w_scales, x_scales] = [self.scales[0], self.scales[1] + told.shifts[2]];
        for (attribute, address, is_told) in [(17, w_scales, told.has_scales[0]), (18, x_scales, told.has_scales[1])] {
            let address = if is_told { address } else { 0 };
            let status = cublasLtMatmulDescSetAttribute(description, attribute, (&raw const address).cast(), 8);
            assert_eq!(status, result::SUCCESS);
        }
        description
    }

    /// Chooses an algorithm and queues the product, and gives back everything but the handle.
    fn run(&self, told: &Told) -> Came {
        let description = self.description(told);
        let layouts = told
            .layouts
            .map(|(data_type, rows, cols, step)| get(|to| cublasLtMatrixLayoutCreate(to, data_type, rows, cols, step)));
        let preference = preference(told);
        let came = self.run_with(told, description, layouts, preference);
        for status in [
            cublasLtMatmulPreferenceDestroy(preference),
            cublasLtMatmulDescDestroy(description),
            layouts.into_iter().map(|layout| cublasLtMatrixLayoutDestroy(layout)).fold(result::SUCCESS, i32::max),
        ] {
            assert_eq!(status, result::SUCCESS);
        }
        came
    }

    fn run_with(&self, told: &Told, description: u64, [a, b, c, d]: [u64; 4], preference: u64) -> Came {
        let (mut found, mut num_found) = (Heuristic::default(), -1);
        let chosen = cublasLtMatmulAlgoGetHeuristic(
            self.handle,
            description,
            a,
            b,
            c,
            d,
            preference,
            told.num_asked,
            &raw mut found,
            &raw mut num_found,
        );
        match (chosen, num_found) {
            (result::SUCCESS, 0) => return Came::NothingFound,
            (result::SUCCESS, _) => {}
            (status, _) => return Came::Chosen(status),
        }
        let mut algorithm: Algorithm = found.algorithm;
        algorithm[3] += u64::from(told.other_algorithm);
        let [alpha, beta] = told.factors;
        let [w, out, _, workspace] = told.shifts;
        let out = self.out + out;
        Came::Multiplied(cublasLtMatmul(
            self.handle,
            description,
            &raw const alpha,
            self.w + w,
            a,
            self.x,
            b,
            &raw const beta,
            out,
            c,
            out,
            d,
            &raw const algorithm,
            self.workspace + workspace,
            told.workspace_bytes,
            self.stream,
        ))
    }

    fn result(&self) -> Vec<f32> {
        download(self.out, (M * N) as usize, self.stream)
    }

    /// Everything but the machine.
    fn give_back(self) -> Machine {
        assert_eq!(cublasLtDestroy(self.handle), result::SUCCESS);
        for address in [self.w, self.x, self.out, self.scales[0], self.scales[1], self.workspace] {
            assert_eq!(memory::cuMemFree_v2(address), status::SUCCESS);
        }
        assert_eq!(stream::cuStreamDestroy_v2(self.stream), status::SUCCESS);
        assert_eq!(context::cuDevicePrimaryCtxRelease_v2(0), status::SUCCESS);
        self.machine
    }
}

fn preference(told: &Told) -> u64 {
    let preference = get(|to| cublasLtMatmulPreferenceCreate(to));
    let limit = (&raw const told.workspace_limit).cast();
    assert_eq!(cublasLtMatmulPreferenceSetAttribute(preference, 1, limit, 8), result::SUCCESS);
    for attribute in 5..=8 {
        let alignment = (&raw const told.alignment).cast();
        assert_eq!(cublasLtMatmulPreferenceSetAttribute(preference, attribute, alignment, 4), result::SUCCESS);
    }
    preference
}

fn upload_bytes(to: u64, bytes: &[u8], stream: u64) {
    let status = memory::cuMemcpyHtoDAsync_v2(to, bytes.as_ptr().cast(), bytes.len(), stream);
    assert_eq!(status, status::SUCCESS);
}

/// Row j of x and any row of W: 128 products of 2 a block, with the scales of both.
fn expected() -> Vec<f32> {
    (0..N).flat_map(|j| vec![256.0 * (1.0 + j as f32) * (1.0 + 0.5 * 10.0); M as usize]).collect()
}

#[test]
fn a_product_is_what_codes_and_scales_say() {
    let bench = Bench::new();
    assert_eq!(bench.run(&GOOD), Came::Multiplied(result::SUCCESS));
    assert_eq!(bench.result(), expected());
    let bf16 = Told { layouts: [GOOD.layouts[0], GOOD.layouts[1], (BF16, M, N, 16), (BF16, M, N, 16)], ..GOOD };
    assert_eq!(bench.run(&bf16), Came::Multiplied(result::SUCCESS));
    let pairs: Vec<u32> = bench.result()[..32].iter().map(|pair| pair.to_bits()).collect();
    let rounded: Vec<f32> =
        pairs.iter().flat_map(|pair| [pair << 16, pair & 0xffff_0000]).map(f32::from_bits).collect();
    assert_eq!(rounded, expected());
    assert_eq!(bench.give_back().leaks(), Vec::<String>::new());
}

#[test]
fn what_the_reference_does_not_allow_is_not_supported() {
    let layouts = |which: usize, layout: (i32, u64, u64, i64)| {
        let mut layouts = GOOD.layouts;
        layouts[which] = layout;
        Told { layouts, ..GOOD }
    };
    let both = |layout| Told { layouts: [GOOD.layouts[0], GOOD.layouts[1], layout, layout], ..GOOD };
    let numbers = |which: usize, value: i32| {
        let mut numbers = GOOD.numbers;
        numbers[which].1 = value;
        Told { numbers, ..GOOD }
    };
    let five_rows = [GOOD.layouts[0], (E4M3, K, 5, 256), (F32, M, 5, 16), (F32, M, 5, 16)];
    let short = [(E4M3, 248, M, 256), (E4M3, 248, N, 256), GOOD.layouts[2], GOOD.layouts[3]];
    let ragged = [(E4M3, K, 15, 256), GOOD.layouts[1], (BF16, 15, N, 16), (BF16, 15, N, 16)];
    let (no, wrong) = (result::NOT_SUPPORTED, result::INVALID_VALUE);
    for (what, told, status) in [
        ("sums of f16", Told { compute_type: 64, ..GOOD }, no),
        ("A as it is", numbers(0, 0), no),
        ("B transposed", numbers(1, 1), no),
        ("one scale for A", numbers(2, 0), no),
        ("blocks on both sides", numbers(3, 5), no),
        ("A of bytes", layouts(0, (3, K, M, 256)), no),
        ("C unlike D", layouts(2, (BF16, M, N, 16)), no),
        ("a result of f16", both((2, M, N, 16)), no),
        ("a result's step", both((F32, M, N, 18)), no),
        ("A's step", layouts(0, (E4M3, K, M, 264)), no),
        ("rows not in fours", Told { layouts: five_rows, ..GOOD }, no),
        ("k no multiple of 16", Told { layouts: short, ..GOOD }, no),
        ("m no multiple of 16 bytes", Told { layouts: ragged, ..GOOD }, no),
        ("another k", layouts(1, (E4M3, 128, N, 256)), wrong),
        ("A's mode without scales", Told { has_scales: [false, true], ..GOOD }, wrong),
        ("B's mode without scales", Told { has_scales: [true, false], ..GOOD }, wrong),
        ("no algorithm asked for", Told { num_asked: 0, ..GOOD }, wrong),
    ] {
        let bench = Bench::new();
        assert_eq!(bench.run(&told), Came::Chosen(status), "{what}");
    }
    for gpu in [PROFILES[0], PROFILES[1]] {
        let bench = Bench::with(Config { gpu, ..default_config() });
        assert_eq!(bench.run(&GOOD), Came::Chosen(no), "{}", gpu.name);
    }
}

#[test]
fn operands_that_break_a_promise_are_refused() {
    let shifts = |which: usize, shift: u64| {
        let mut shifts = [0; 4];
        shifts[which] = shift;
        Told { shifts, ..GOOD }
    };
    for (what, told) in [
        ("A not aligned", shifts(0, 8)),
        ("A past its end", shifts(0, 16)),
        ("the result not aligned", shifts(1, 4)),
        ("the result past its end", shifts(1, 16)),
        ("less aligned than promised", Told { alignment: 256, ..shifts(1, 16) }),
        ("scales not aligned", shifts(2, 4)),
        ("scales past their end", shifts(2, 16)),
        ("the workspace not aligned", Told { workspace_bytes: 1 << 20, ..shifts(3, 16) }),
        ("the workspace past its end", shifts(3, 256)),
        ("a small workspace", Told { workspace_bytes: 4096, ..GOOD }),
        ("another product's algorithm", Told { other_algorithm: true, ..GOOD }),
    ] {
        let bench = Bench::new();
        assert_eq!(bench.run(&told), Came::Multiplied(result::INVALID_VALUE), "{what}");
        assert!(bench.result()[0].is_nan(), "{what}: nothing ran");
    }
    for factors in [[2.0, 0.0], [1.0, 1.0]] {
        let told = Told { factors, ..GOOD };
        assert_eq!(Bench::new().run(&told), Came::Multiplied(result::NOT_SUPPORTED), "{factors:?}");
    }
}

#[test]
fn without_a_workspace_nothing_is_found() {
    assert_eq!(Bench::new().run(&Told { workspace_limit: 4096, ..GOOD }), Came::NothingFound);
}

#[test]
fn attributes_have_their_sizes() {
    let bench = Bench::new();
    let (description, preference) = (bench.description(&GOOD), preference(&GOOD));
    let value = [0_u64; 2];
    let value = value.as_ptr().cast();
    for (attribute, num_bytes) in [(3, 8), (17, 4), (31, 1), (17, 16)] {
        let status = cublasLtMatmulDescSetAttribute(description, attribute, value, num_bytes);
        assert_eq!(status, result::INVALID_VALUE, "{attribute}");
    }
    assert_eq!(cublasLtMatmulDescSetAttribute(description, 25, value, 1), result::NOT_SUPPORTED, "fast sums");
    for (attribute, num_bytes) in [(1, 4), (5, 8)] {
        let status = cublasLtMatmulPreferenceSetAttribute(preference, attribute, value, num_bytes);
        assert_eq!(status, result::INVALID_VALUE, "{attribute}");
    }
    assert_eq!(cublasLtMatmulPreferenceSetAttribute(preference, 0, value, 4), result::NOT_SUPPORTED, "a search mode");
    let mut layout = 0;
    assert_eq!(cublasLtMatrixLayoutCreate(&raw mut layout, E4M3, K, M, 255), result::INVALID_VALUE, "columns overlap");
    assert_eq!(cublasLtMatrixLayoutCreate(&raw mut layout, E4M3, K, 0, 256), result::INVALID_VALUE, "no columns");
}

#[test]
fn what_was_given_back_is_not_used_and_what_was_not_is_a_leak() {
    let bench = Bench::new();
    let (description, preference) = (bench.description(&GOOD), preference(&GOOD));
    let layouts = GOOD
        .layouts
        .map(|(data_type, rows, cols, step)| get(|to| cublasLtMatrixLayoutCreate(to, data_type, rows, cols, step)));
    let run = || bench.run_with(&GOOD, description, layouts, preference);
    assert_eq!(run(), Came::Multiplied(result::SUCCESS));
    let leaks = bench.machine.leaks().join("; ");
    for what in ["1 handles", "1 descriptions", "4 layouts", "1 preferences"] {
        assert!(leaks.contains(&format!("{what} of cuBLASLt")), "{leaks}");
    }
    for destroy in [
        (|[handle, ..]| cublasLtDestroy(handle)) as fn([u64; 4]) -> Status,
        |[_, description, ..]| cublasLtMatmulDescDestroy(description),
        |[.., layout, _]| cublasLtMatrixLayoutDestroy(layout),
        |[.., preference]| cublasLtMatmulPreferenceDestroy(preference),
    ] {
        let made = [bench.handle, description, layouts[1], preference];
        assert_eq!(destroy(made), result::SUCCESS);
        assert_eq!(run(), Came::Chosen(result::INVALID_VALUE));
        assert_eq!(destroy(made), result::INVALID_VALUE, "twice");
    }
}

#[test]
fn a_handle_belongs_to_a_context() {
    let bench = Bench::with(common(Common { num_devices: 2, ..Common::default() }));
    let other = get(|to| context::cuDevicePrimaryCtxRetain(to, 1));
    assert_eq!(context::cuCtxSetCurrent(other), status::SUCCESS);
    assert_eq!(bench.run(&GOOD), Came::Chosen(result::INVALID_VALUE));
    assert_eq!(context::cuCtxSetCurrent(0), status::SUCCESS);
    let mut handle = 0;
    assert_eq!(cublasLtCreate(&raw mut handle), result::NOT_INITIALIZED);
}

#[test]
fn products_run_in_their_streams_order_and_can_be_recorded() {
    let bench = Bench::new();
    assert_eq!(stream::cuStreamBeginCapture_v2(bench.stream, 1), status::SUCCESS);
    assert_eq!(bench.run(&GOOD), Came::Multiplied(result::SUCCESS));
    let captured = get(|to| stream::cuStreamEndCapture(bench.stream, to));
    let executable = get(|to| graph::cuGraphInstantiateWithFlags(to, captured, 0));
    assert!(bench.result()[0].is_nan(), "what is recorded has not run");
    assert_eq!(graph::cuGraphLaunch(executable, bench.stream), status::SUCCESS);
    assert_eq!(bench.result(), expected());
    // Memory is looked for at each replay.
    assert_eq!(memory::cuMemFree_v2(bench.workspace), status::SUCCESS);
    assert_eq!(graph::cuGraphLaunch(executable, bench.stream), status::SUCCESS);
    assert_eq!(stream::cuStreamSynchronize(bench.stream), status::ILLEGAL_ADDRESS);
}

#[test]
fn faults_happen_when_they_are_asked_for() {
    let with = |fault| Bench::with(common(Common { fault: Some(fault), ..Common::default() }));
    let bench = with(Fault::Product(2));
    assert_eq!(bench.run(&GOOD), Came::Multiplied(result::SUCCESS));
    assert_eq!(bench.run(&GOOD), Came::Multiplied(result::INTERNAL_ERROR));
    drop(bench);
    let bench = with(Fault::Algorithm(2));
    assert_eq!(bench.run(&GOOD), Came::Multiplied(result::SUCCESS));
    assert_eq!(bench.run(&GOOD), Came::NothingFound);
    drop(bench);
    let bench = with(Fault::Kernel("cublasLt"));
    assert_eq!(bench.run(&GOOD), Came::Multiplied(result::SUCCESS), "it is queued");
    assert_eq!(stream::cuStreamSynchronize(bench.stream), status::LAUNCH_FAILED);
}
