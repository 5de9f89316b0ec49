//! Code objects and launches.

use super::*;

#[test]
fn a_code_object_must_be_for_this_device() {
    for (gpu, cdna3, rdna3) in [
        (PROFILES[0], status::SUCCESS, status::NO_BINARY_FOR_GPU),
        (PROFILES[1], status::NO_BINARY_FOR_GPU, status::NO_BINARY_FOR_GPU),
        (PROFILES[2], status::NO_BINARY_FOR_GPU, status::SUCCESS),
    ] {
        let _machine = Machine::with(Config { gpu, ..default_config() });
        assert_eq!((load(GFX942), load(GFX1100)), (cdna3, rdna3), "{}", gpu.name);
        assert_eq!(load(&[b'P'; 64]), status::INVALID_IMAGE);
    }
    // A driver that is wrong about its waves.
    let gpu = Hip { host: gpu_emulator::Profile::Rdna3, ..PROFILES[0] };
    let _machine = Machine::with(Config { gpu, ..default_config() });
    assert_eq!(load(GFX942), status::INVALID_IMAGE);
}

#[test]
fn only_kernels_of_the_code_object_are_found() {
    let _machine = Machine::new();
    let loaded: u64 = get(|to| module::hipModuleLoadData(to, GFX942.as_ptr().cast()));
    let find = |name: &CStr| module::hipModuleGetFunction(&mut 0, loaded, name.as_ptr());
    assert_eq!([c"scale", c"scale.kd", c"Scale"].map(find), [status::SUCCESS, status::NOT_FOUND, status::NOT_FOUND]);
}

#[test]
fn a_kernel_runs() {
    let _machine = Machine::new();
    let (function, stream) = (function(c"scale"), new_stream());
    let (x, y) = (alloc(16), alloc(16));
    upload(x, &[1.0, 2.0, 3.0, 4.0], stream);
    assert_eq!(scale(function, stream, x, y, 4, 10.0), status::SUCCESS);
    assert_eq!(download(y, 4, stream), [20.0, 10.0, 40.0, 30.0]);
}

#[test]
fn a_kernel_keeps_to_its_memory() {
    let _machine = Machine::new();
    let (function, stream) = (function(c"scale"), new_stream());
    let (x, y) = (alloc(32), alloc(16));
    assert_eq!(scale(function, stream, x, y + 16, 0, 1.0), status::ILLEGAL_ADDRESS, "right behind the end");
    upload(x, &[1.0; 8], stream);
    assert_eq!(scale(function, stream, x, y, 5, 1.0), status::SUCCESS, "it is only queued");
    assert_eq!(stream::hipStreamSynchronize(stream), status::ILLEGAL_ADDRESS);
    assert_eq!(devices::hipSetDevice(0), status::ILLEGAL_ADDRESS, "and from then on");
}

#[test]
fn shapes_keep_to_the_limits() {
    let _machine = Machine::new();
    let (function, stream, y) = (function(c"zero"), new_stream(), alloc(4096));
    let argument = [ptr::from_ref(&y).cast::<c_void>()];
    let launch = |grid, block, shared| launch(function, [grid, block], shared, stream, &argument);
    assert_eq!(launch([1; 3], [96, 1, 1], 0), status::SUCCESS);
    assert_eq!(launch([1; 3], [97, 1, 1], 0), status::LAUNCH_OUT_OF_RESOURCES, "it was compiled for 96");
    assert_eq!(launch([0, 1, 1], [32, 1, 1], 0), status::INVALID_VALUE, "an empty grid");
    assert_eq!(launch([1, 65_537, 1], [32, 1, 1], 0), status::INVALID_VALUE);
    assert_eq!(launch([1 << 26, 1, 1], [64, 1, 1], 0), status::INVALID_VALUE, "2^32 threads");
    assert_eq!(launch([1; 3], [1024, 2, 1], 0), status::INVALID_VALUE);
    assert_eq!(launch([1; 3], [96, 1, 1], 64 << 10), status::SUCCESS, "all of the local data share");
    assert_eq!(launch([1; 3], [96, 1, 1], (64 << 10) + 4), status::INVALID_VALUE);
}
