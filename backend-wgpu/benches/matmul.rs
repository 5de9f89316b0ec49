//! Matrix products on every adapter, beside a plain tiled f32 matmul in the same run.
//!
//! ```text
//! cargo bench -p backend-wgpu
//! ```
//!
//! Each line times one shape: the backend's kernel on packed weights, then the textbook kernel (16 x 16 tiles in
//! workgroup memory, one output per lane, f32 weights four times the size). Machines are shared: read the ratio.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::time::Instant;

use backend_wgpu::{WgpuBackend, WgpuOptions};
use engine_core::backend::{Backend, Tensor};
use engine_core::quant::{Fp8BlockWeight, HostWeight, Int4GroupWeight, Int8ChannelWeight, MatrixShape, ScaleFormat};

const PLAIN: &str = r"
struct Params { m: u32, n: u32, k: u32 }
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> w: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<uniform> P: Params;
var<workgroup> xs: array<array<f32, 16>, 16>;
var<workgroup> ws: array<array<f32, 16>, 16>;
@compute @workgroup_size(16, 16)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    var sum = 0.0;
    let w_row = id.x - local.x + local.y;
    for (var k0 = 0u; k0 < P.k; k0 += 16u) {
        xs[local.y][local.x] = select(0.0, x[min(id.y, P.m - 1u) * P.k + k0 + local.x], id.y < P.m);
        ws[local.x][local.y] = w[min(w_row, P.n - 1u) * P.k + k0 + local.x];
        workgroupBarrier();
        for (var k = 0u; k < 16u; k++) {
            sum += xs[local.y][k] * ws[k][local.x];
        }
        workgroupBarrier();
    }
    if (id.y < P.m && id.x < P.n) {
        y[id.y * P.n + id.x] = sum;
    }
}";

/// `[out, in]` of the mid-size model's expert and dense FFN.
const SHAPES: [(usize, usize); 2] = [(512, 1024), (4096, 1024)];
const ROWS: [usize; 3] = [1, 8, 128];
const RUNS: usize = 5;

fn weight(format: &str, n: usize, k: usize) -> HostWeight {
    let shape = MatrixShape::new(n, k);
    // Any bytes do but NaN; e4m3 has it at 0x7f and 0xff.
    let bytes: Vec<u8> = (0..n * k).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8 & 0xf7).collect();
    match format {
        "fp8" => {
            let scales = vec![0.01; n.div_ceil(128) * k.div_ceil(128)].into();
            HostWeight::Fp8Block(Fp8BlockWeight::new(shape, bytes.into(), scales, ScaleFormat::F32).unwrap())
        }
        "int8" => {
            let values: Vec<i8> = bytes.iter().map(|b| *b as i8).collect();
            HostWeight::Int8Channel(Int8ChannelWeight::new(shape, values.into(), vec![0.01; n].into()).unwrap())
        }
        _ => {
            let scales = vec![0.01; n * k / 32].into();
            let packed = bytes[..n * k / 2].to_vec().into();
            HostWeight::Int4Group(Int4GroupWeight::new(shape, 32, packed, scales).unwrap())
        }
    }
}

/// Median seconds of one call, queued `repeats` at a time.
fn median(mut run: impl FnMut()) -> f64 {
    run();
    let mut times: Vec<f64> = (0..RUNS)
        .map(|_| {
            let begun = Instant::now();
            run();
            begun.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[RUNS / 2]
}

fn backend_seconds(backend: &WgpuBackend, weight: HostWeight, m: usize, repeats: usize) -> f64 {
    let shape = weight.shape();
    let linear = backend.prepare_linear(weight).unwrap();
    let mut stream = backend.stream().unwrap();
    let x: Vec<f32> = (0..m * shape.in_features).map(|i| (i % 17) as f32 * 0.1 - 0.8).collect();
    let x = Tensor::from_slice(backend, &mut stream, shape.in_features, &x).unwrap();
    let mut out = Tensor::alloc(backend, m, shape.out_features).unwrap();
    median(|| {
        for _ in 0..repeats {
            backend.linear(&mut stream, &linear, &x, &mut out).unwrap();
        }
        backend.synchronize(&mut stream).unwrap();
    }) / repeats as f64
}

struct Plain {
    device: wgpu::Device,
    queue: wgpu::Queue,
    pipeline: wgpu::ComputePipeline,
}

impl Plain {
    fn new() -> Self {
        let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
        descriptor.flags = wgpu::InstanceFlags::empty();
        let instance = wgpu::Instance::new(descriptor);
        let adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::PRIMARY));
        let adapter = &adapters[0];
        let request = wgpu::DeviceDescriptor { required_limits: adapter.limits(), ..Default::default() };
        let (device, queue) = pollster::block_on(adapter.request_device(&request)).unwrap();
        let source = wgpu::ShaderSource::Wgsl(PLAIN.into());
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor { label: None, source });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: None,
            layout: None,
            module: &module,
            entry_point: Some("main"),
            compilation_options: Default::default(),
            cache: None,
        });
        Self { device, queue, pipeline }
    }

    fn seconds(&self, (m, n, k): (usize, usize, usize), repeats: usize) -> f64 {
        use wgpu::BufferUsages as Usage;
        let buffer = |num_bytes: usize, usage| {
            let size = num_bytes as u64;
            let usage = usage | Usage::COPY_DST;
            self.device.create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false })
        };
        let params = buffer(16, Usage::UNIFORM);
        self.queue.write_buffer(&params, 0, bytemuck::cast_slice(&[m as u32, n as u32, k as u32, 0]));
        let buffers = [m * k, n * k, m * n].map(|len| buffer(4 * len, Usage::STORAGE));
        let entries: Vec<_> = buffers
            .iter()
            .chain([&params])
            .enumerate()
            .map(|(i, buffer)| wgpu::BindGroupEntry { binding: i as u32, resource: buffer.as_entire_binding() })
            .collect();
        let layout = &self.pipeline.get_bind_group_layout(0);
        let group =
            self.device.create_bind_group(&wgpu::BindGroupDescriptor { label: None, layout, entries: &entries });
        median(|| {
            let mut encoder = self.device.create_command_encoder(&Default::default());
            {
                let mut pass = encoder.begin_compute_pass(&Default::default());
                pass.set_pipeline(&self.pipeline);
                pass.set_bind_group(0, &group, &[]);
                for _ in 0..repeats {
                    pass.dispatch_workgroups(n.div_ceil(16) as u32, m.div_ceil(16) as u32, 1);
                }
            }
            self.queue.submit([encoder.finish()]);
            self.device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
        }) / repeats as f64
    }
}

fn main() {
    let Ok(backend) = WgpuBackend::new(&WgpuOptions::default()) else {
        println!("NOT RUN: no adapter");
        return;
    };
    println!("{}", backend.capabilities().device);
    println!(
        "{:>6} {:>12} {:>5} {:>10} {:>8} {:>14} {:>7}",
        "format", "out x in", "rows", "GFLOP/s", "GB/s", "plain GFLOP/s", "ratio"
    );
    let plain = Plain::new();
    for (n, k) in SHAPES {
        for m in ROWS {
            let flops = 2.0 * (m * n * k) as f64;
            let repeats = (4e8 / flops).clamp(1.0, 20.0) as usize;
            let plain_seconds = plain.seconds((m, n, k), 1);
            for format in ["fp8", "int8", "int4"] {
                let weight = weight(format, n, k);
                let num_bytes = weight.num_bytes() as f64;
                let seconds = backend_seconds(&backend, weight, m, repeats);
                println!(
                    "{format:>6} {:>12} {m:>5} {:>10.2} {:>8.2} {:>14.2} {:>7.1}",
                    format!("{n} x {k}"),
                    flops / seconds / 1e9,
                    num_bytes / seconds / 1e9,
                    flops / plain_seconds / 1e9,
                    plain_seconds / seconds
                );
            }
        }
    }
}
