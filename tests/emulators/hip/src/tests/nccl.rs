//! The library of collectives over HIP's devices. Its rules are broken in `tests/emulators/cuda/src/tests/nccl.rs`.

use gpu_emulator::nccl::result;

use super::*;
use crate::api::nccl::*;

const F32_SUM: [i32; 2] = [7, 0];

#[test]
fn sums_over_two_devices_are_on_both() {
    let machine = Machine::with(common(Common { num_devices: 2, ..Common::default() }));
    let mut communicators = [0; 2];
    assert_eq!(ncclCommInitAll(communicators.as_mut_ptr(), 2, ptr::null()), result::SUCCESS, "all of them");
    let [data_type, operation] = F32_SUM;
    assert_eq!(ncclGroupStart(), result::SUCCESS);
    let places = [0, 1].map(|rank: usize| {
        assert_eq!(devices::hipSetDevice(rank as i32), status::SUCCESS);
        let (x, stream) = (alloc(4), new_stream());
        upload(x, &[rank as f32 + 1.0], stream);
        let queued = ncclAllReduce(x, x, 1, data_type, operation, communicators[rank], stream);
        assert_eq!(queued, result::SUCCESS);
        (x, stream)
    });
    assert_eq!(ncclGroupEnd(), result::SUCCESS);
    for (device, (x, stream)) in places.into_iter().enumerate() {
        assert_eq!(devices::hipSetDevice(device as i32), status::SUCCESS);
        assert_eq!(download(x, 1, stream), [3.0]);
        assert_eq!(memory::hipFree(x), status::SUCCESS);
        assert_eq!(stream::hipStreamDestroy(stream), status::SUCCESS);
    }
    assert_eq!(machine.leaks().len(), 2);
    for communicator in communicators {
        assert_eq!(ncclCommDestroy(communicator), result::SUCCESS);
    }
    assert_eq!(machine.leaks(), Vec::<String>::new());
}
