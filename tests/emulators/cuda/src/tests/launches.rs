//! Images and launches.

use super::*;
use crate::abi::{LaunchConfig, function_attribute as attribute};
use crate::config::PROFILES;

#[test]
fn an_image_must_be_for_this_device() {
    let load = |image: &[u8]| {
        let mut loaded = 0;
        module::cuModuleLoadData(&raw mut loaded, image.as_ptr().cast())
    };
    for (gpu, ampere, hopper) in [
        (PROFILES[0], status::SUCCESS, status::NO_BINARY_FOR_GPU),
        (PROFILES[1], status::SUCCESS, status::NO_BINARY_FOR_GPU),
        (PROFILES[2], status::NO_BINARY_FOR_GPU, status::SUCCESS),
    ] {
        let _machine = Machine::with(Config { gpu, ..default_config() });
        assert_eq!((load(AMPERE), load(HOPPER)), (ampere, hopper), "{}", gpu.name);
        assert_eq!(load(&[b'P'; 64]), status::INVALID_IMAGE);
        let mut other_machine = AMPERE.to_vec();
        other_machine[18] = 62;
        assert_eq!(load(&other_machine), status::INVALID_IMAGE);
    }
}

#[test]
fn only_kernels_of_the_image_are_found() {
    let _machine = Machine::new();
    let loaded: u64 = get(|to| module::cuModuleLoadData(to, HOPPER.as_ptr().cast()));
    let mut function = 0;
    let find = |name: &std::ffi::CStr, to| module::cuModuleGetFunction(to, loaded, name.as_ptr());
    assert_eq!(find(c"scale", &raw mut function), status::SUCCESS);
    assert_eq!(find(c"Scale", &raw mut function), status::NOT_FOUND);
    assert_eq!(find(c".text.scale", &raw mut function), status::NOT_FOUND);
}

#[test]
fn a_kernel_runs() {
    let _machine = Machine::new();
    let (function, stream) = (function(c"scale"), new_stream());
    let (x, y) = (alloc(16), alloc(16));
    upload(x, &[1.0, 2.0, 3.0, 4.0], stream);
    assert_eq!(scale(function, stream, x, y, 4, 10.0), status::SUCCESS);
    assert_eq!(download(y, 4, stream), [20.0, 10.0, 40.0, 30.0]);

    let arguments = [
        ptr::from_ref(&y).cast(),
        ptr::from_ref(&x).cast(),
        ptr::from_ref(&2_u32).cast(),
        ptr::from_ref(&0.5_f32).cast::<c_void>(),
    ];
    let config = LaunchConfig {
        grid: [1; 3],
        block: [256, 1, 1],
        shared_bytes: 0,
        stream,
        attributes: ptr::null(),
        num_attributes: 0,
    };
    let launch =
        |config: LaunchConfig| launch::cuLaunchKernelEx(&raw const config, function, arguments.as_ptr(), ptr::null());
    assert_eq!(launch(config), status::SUCCESS);
    assert_eq!(download(x, 2, stream), [5.0, 10.0]);
    assert_eq!(launch(LaunchConfig { num_attributes: 1, ..config }), status::NOT_SUPPORTED);
}

#[test]
fn a_pointer_argument_points_into_live_memory() {
    let _machine = Machine::new();
    let (function, stream) = (function(c"scale"), new_stream());
    let (x, y) = (alloc(16), alloc(16));
    assert_eq!(scale(function, stream, x, y + 16, 0, 1.0), status::ILLEGAL_ADDRESS, "right behind the end");
    assert_eq!(scale(function, stream, x, &raw const x as u64, 0, 1.0), status::ILLEGAL_ADDRESS, "host memory");
    assert_eq!(scale(function, stream, x, 0, 0, 1.0), status::SUCCESS, "no memory at all");
    assert_eq!(memory::cuMemFree_v2(x), status::SUCCESS);
    assert_eq!(scale(function, stream, x, y, 0, 1.0), status::ILLEGAL_ADDRESS, "freed");
}

#[test]
fn a_kernel_that_writes_past_its_memory_is_found() {
    let _machine = Machine::new();
    let (function, stream) = (function(c"scale"), new_stream());
    let (x, y) = (alloc(32), alloc(16));
    upload(x, &[1.0; 8], stream);
    assert_eq!(scale(function, stream, x, y, 5, 1.0), status::SUCCESS, "it is only queued");
    assert_eq!(stream::cuStreamSynchronize(stream), status::ILLEGAL_ADDRESS);
    assert_eq!(stream::cuStreamSynchronize(stream), status::ILLEGAL_ADDRESS, "and from then on");
}

#[test]
fn arguments_are_all_there() {
    let _machine = Machine::new();
    let (function, stream, y) = (function(c"zero"), new_stream(), alloc(512));
    let argument = ptr::from_ref(&y).cast::<c_void>();
    assert_eq!(launch_with(function, 32, 0, stream, &[argument]), status::SUCCESS);
    assert_eq!(launch_with(function, 32, 0, stream, &[ptr::null()]), status::INVALID_VALUE);
    let buffer = [argument];
    let packed = launch::cuLaunchKernel(function, 1, 1, 1, 32, 1, 1, 0, stream, ptr::null(), buffer.as_ptr());
    assert_eq!(packed, status::NOT_SUPPORTED);
}

#[test]
fn shapes_keep_to_the_limits() {
    let _machine = Machine::new();
    let (function, stream, y) = (function(c"zero"), new_stream(), alloc(4096));
    let argument = [ptr::from_ref(&y).cast::<c_void>()];
    let launch = |grid: [u32; 3], block: [u32; 3]| {
        launch::cuLaunchKernel(
            function,
            grid[0],
            grid[1],
            grid[2],
            block[0],
            block[1],
            block[2],
            0,
            stream,
            argument.as_ptr(),
            ptr::null(),
        )
    };
    assert_eq!(launch([1; 3], [96, 1, 1]), status::SUCCESS);
    assert_eq!(launch([1; 3], [97, 1, 1]), status::LAUNCH_OUT_OF_RESOURCES, "its launch bounds say 96");
    assert_eq!(launch([0, 1, 1], [32, 1, 1]), status::INVALID_VALUE, "an empty grid");
    assert_eq!(launch([1; 3], [32, 0, 1]), status::INVALID_VALUE, "an empty block");
    assert_eq!(launch([1, 65_536, 1], [32, 1, 1]), status::INVALID_VALUE);
    assert_eq!(launch([1; 3], [1, 1, 65]), status::INVALID_VALUE);
    assert_eq!(launch([1; 3], [1024, 2, 1]), status::INVALID_VALUE);
}

#[test]
fn shared_memory_needs_permission() {
    for gpu in PROFILES {
        let _machine = Machine::with(Config { gpu, ..default_config() });
        let image = if gpu.compute_capability == 90 { HOPPER } else { AMPERE };
        let loaded: u64 = get(|to| module::cuModuleLoadData(to, image.as_ptr().cast()));
        let function: u64 = get(|to| module::cuModuleGetFunction(to, loaded, c"scale".as_ptr()));
        let (stream, x) = (new_stream(), alloc(2048));
        let arguments = [
            ptr::from_ref(&x).cast(),
            ptr::from_ref(&x).cast(),
            ptr::from_ref(&0_u32).cast(),
            ptr::from_ref(&x).cast::<c_void>(),
        ];
        let launch = |shared_bytes| launch_with(function, 256, shared_bytes, stream, &arguments);
        let permit = |num_bytes: u32| {
            module::cuFuncSetAttribute(function, attribute::MAX_DYNAMIC_SHARED_SIZE_BYTES, num_bytes as i32)
        };
        // 1024 bytes of it are static.
        assert_eq!(launch((48 << 10) - 1024), status::SUCCESS);
        assert_eq!(launch((48 << 10) - 1023), status::INVALID_VALUE);
        assert_eq!(permit(gpu.max_shared_bytes - 1023), status::INVALID_VALUE, "{}", gpu.name);
        assert_eq!(permit(gpu.max_shared_bytes - 1024), status::SUCCESS, "{}", gpu.name);
        assert_eq!(launch(gpu.max_shared_bytes - 1024), status::SUCCESS);
    }
}
